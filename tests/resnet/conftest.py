"""Small data to train on, for all tests of this folder."""

import pytest

from resnet.data.resident import ResidentData
from resnet.data.synthetic import make_synthetic


@pytest.fixture(scope="session")
def dataset():
    return make_synthetic(60, 30)


@pytest.fixture(scope="session")
def data(dataset):
    return ResidentData(dataset, None, "cpu")
