"""Models, data and training of residual networks. Knows nothing of papers' tables and can be used alone."""

import os

# Streams that share one of a GPU's work queues wait for one another. There are 8 unless this is set, at most 32 (CUDA
# C++ Programming Guide, "Environment Variables"), and it is read once, when CUDA is first used in a process.
os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")
# Threads that wait for one another spin for a while, which on a busy machine makes training several times slower than
# it need be: 1,000 turns instead of GNU OpenMP's 30 billion cost an idle machine little. Results don't change. It is
# read once, when torch is loaded.
if "OMP_WAIT_POLICY" not in os.environ:  # the user's own wish, which the number would overrule
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
