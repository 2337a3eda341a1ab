"""What the tests in this folder share: small data to train on."""

import pytest

from resnet.data.resident import ResidentData
from resnet.data.synthetic import make_synthetic


@pytest.fixture(scope="session")
def dataset():
    return make_synthetic(60, 30)


@pytest.fixture(scope="session")
def data(dataset):
    return ResidentData(dataset, None, "cpu")
