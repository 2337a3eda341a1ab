"""Models, data and training of residual networks. Knows nothing of papers' tables and can be used alone."""

import os

# Streams that share one of a GPU's work queues wait for one another. There are 8 unless this is set, at most 32 (CUDA
# C++ Programming Guide, "Environment Variables"), and it is read once, when CUDA is first used in a process.
os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")
