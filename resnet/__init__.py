"""Models, data and training of residual networks. This package is independent of the papers' tables."""

import os

# CUDA streams that share a hardware work queue wait for one another. The default is 8 queues, the maximum 32 (CUDA C++
# Programming Guide, "Environment Variables"). The variable is read once, when a process first uses CUDA.
os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")
# Waiting threads spin, which makes training several times slower on a busy machine. Spinning 1,000 times instead of GNU
# OpenMP's 30 billion costs an idle machine little. Results don't change. torch reads the variable once, when loaded.
if "OMP_WAIT_POLICY" not in os.environ:  # the spin count would override the user's own policy
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
