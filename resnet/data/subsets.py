"""Subsets of a data set's classes, for pretraining on some classes and fine-tuning on others.

A subset keeps the order of the images; its labels count from 0. It takes the first training images of each class up to
a given number, and all test images.
"""

from typing import NamedTuple

import numpy as np

from resnet.data import cifar
from resnet.data.dataset import ImageDataset


class Subset(NamedTuple):
    """Classes ``first`` to ``last`` of the data set ``whole``, with up to ``train_per_class`` training images each."""

    whole: str
    first: int
    last: int
    train_per_class: int

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.last - self.first + 1

    @property
    def train_images(self) -> int:
        """Number of training images, if the data set has enough of each class."""
        return self.num_classes * self.train_per_class


SUBSETS = {
    "cifar10_first5": Subset("cifar10", 0, 4, 5_000),  # all training images
    "cifar10_last5": Subset("cifar10", 5, 9, 570),
    "synthetic_first5": Subset("synthetic", 0, 4, 200),
    "synthetic_last5": Subset("synthetic", 5, 9, 20),
}

# Subsets of known unofficial copies, by the digest of their arrays.
KNOWN_COPIES = dict.fromkeys(
    (
        "793cc0b83263caaafb5d690a084248e125bd6eba2f90ae7dcb30d09657ae47e2",  # cifar10_first5
        "081acaa7d892af9f858f81de6bd7f73f2e453f1bd202384eab1f67e91c615830",  # cifar10_last5
    ),
    f"taken from CIFAR-10 in {next(iter(cifar.KNOWN_COPIES.values()))}",
)


def take_subset(name: str, dataset: ImageDataset) -> ImageDataset:
    """Take the subset ``name`` of SUBSETS from its whole data set."""
    chosen = SUBSETS[name]
    train = _places(dataset.train_labels, chosen, chosen.train_per_class)
    test = _places(dataset.test_labels, chosen, None)
    return ImageDataset(
        name,
        dataset.train_images[train],
        dataset.train_labels[train] - np.uint8(chosen.first),
        dataset.test_images[test],
        dataset.test_labels[test] - np.uint8(chosen.first),
        official=dataset.official,
        num_classes=chosen.num_classes,
    )


def _places(labels: np.ndarray, chosen: Subset, most: int | None) -> np.ndarray:
    """Return the positions of the first ``most`` images (None: all) of each chosen class, in order."""
    classes = range(chosen.first, chosen.last + 1)
    return np.sort(np.concatenate([np.flatnonzero(labels == number)[:most] for number in classes]))
