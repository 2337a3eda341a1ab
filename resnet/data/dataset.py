"""What a data set is: small images held in memory, and what a run needs of any data set on a device."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from resnet.recipe import Recipe


class DataError(Exception):
    """Missing or damaged data. The message names the file and says what to do."""


@dataclass(frozen=True)
class ImageDataset:
    """Images uint8 (N, H, W, C) and labels uint8 (N,), each label below ``num_classes``.

    ``official`` says whether the arrays come from files with the data set's published checksums. ``digest`` is the
    SHA-256 of the arrays' bytes, in the order of the fields. ``inexact_test``: positions of test images that are not
    the official ones in a copy of these, as far as the copy says so.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    official: bool
    num_classes: int = 10
    inexact_test: tuple[int, ...] = ()
    digest: str = field(init=False)

    def __post_init__(self):
        digest = hashlib.sha256()
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(np.ascontiguousarray(array))
        object.__setattr__(self, "digest", digest.hexdigest())


class Batches(Protocol):
    """The training batches of one run, or one process's part of them, on a device.

    What is in a batch depends on the run's seed and the step alone. :meth:`load` is the host's work, :meth:`take` the
    device's alone: the same operations on the same memory every time, so that they can be recorded once and replayed.
    ``sizes``: how many images a batch can have, in all processes together.
    """

    sizes: tuple[int, ...]

    def size(self, iteration: int) -> int:
        """How many images the batch of training step ``iteration`` (the first is 0) has."""

    def seek(self, iteration: int) -> None:
        """Make the batch of training step ``iteration`` the next one."""

    def load(self, iteration: int) -> None:
        """Have what the device needs for training step ``iteration`` there."""

    def take(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The next batch, which has ``size`` images, a group at a time: float32 (n, C, H, W) in channels-last memory,
        int64 labels (n,)."""


class Data(Protocol):
    """A data set for training on a device. Several runs can share one.

    ``test_images`` names the sets that networks are tested on ("test", and "validation" where training images are
    held out), each with its number of images. ``top5``: whether the top-5 error is of interest.
    """

    name: str
    num_classes: int
    digest: str
    official: bool
    device: torch.device
    test_images: dict[str, int]
    top5: bool

    def batches(self, seed: int, recipe: Recipe, groups: list[slice]) -> Batches:
        """A run's training batches; ``groups`` are the rows of every batch that are worked on here, a group at once."""

    def tests(self, which: str, part: slice, recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
        """Images ``part`` of a set to test on, each once and not augmented, in batches as :meth:`Batches.take`."""

    def views(self, kind: str, part: slice, recipe: Recipe) -> Iterator[tuple[list[Tensor], Tensor]]:
        """Images ``part`` of the test set, each as several views: "ten_crop" or "multi_scale". Image folders only."""
