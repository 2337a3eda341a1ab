"""What all tests share: GPU tests are skipped without a GPU, and the small nets of the tests run on one thread."""

import os

import pytest
import torch

# A step of these nets is so short that threads mostly wait for one another. The variable is for the tests' processes.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA GPU")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)
