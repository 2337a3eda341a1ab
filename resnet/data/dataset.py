"""Data set interfaces: small images in memory, and data of any kind on a device."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from resnet.recipe import Recipe


class DataError(Exception):
    """Missing or damaged data. The message names the file and the remedy."""


@dataclass(frozen=True)
class ImageDataset:
    """Images uint8 (N, H, W, C) and labels uint8 (N,), each label below ``num_classes``.

    ``official``: whether the arrays come from files with the data set's published checksums. ``digest``: SHA-256 of the
    arrays' bytes, in the order of the fields. ``inexact_test``: positions of test images of an unofficial copy that
    differ from the official ones, as far as the copy lists them.
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
    """Training batches of one run, or one process's part of them, on a device.

    A batch's content depends only on the run's seed and the step. :meth:`load` does the host's work. :meth:`take` does
    the device's work, the same operations on the same memory every time, so that they can be recorded as a CUDA graph
    and replayed. ``sizes``: the possible numbers of images in a batch, over all processes together.
    """

    sizes: tuple[int, ...]

    def size(self, iteration: int) -> int:
        """Return the number of images in the batch of training step ``iteration`` (the first is 0)."""

    def seek(self, iteration: int) -> None:
        """Make the batch of training step ``iteration`` the next one."""

    def load(self, iteration: int) -> None:
        """Copy the data for training step ``iteration`` to the device."""

    def take(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the groups of the next batch, which has ``size`` images.

        A group is float32 images (n, C, H, W) in channels-last memory and int64 labels (n,).
        """


class Data(Protocol):
    """A data set for training on a device, which several runs can share.

    ``test_images``: number of images of each split that networks are tested on, "test" and, if training images are held
    out, "validation". ``top5``: whether the top-5 error is measured, too.
    """

    name: str
    num_classes: int
    digest: str
    official: bool
    device: torch.device
    test_images: dict[str, int]
    top5: bool

    def batches(self, seed: int, recipe: Recipe, groups: list[slice]) -> Batches:
        """Create a run's training batches; ``groups`` are the rows of every batch that this process computes."""

    def tests(self, which: str, part: slice, recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images ``part`` of a split, each once and not augmented, in batches like :meth:`Batches.take`."""

    def views(self, kind: str, part: slice, recipe: Recipe) -> Iterator[tuple[list[Tensor], Tensor]]:
        """Yield images ``part`` of the test split in several views, "ten_crop" or "multi_scale"; image folders only."""
