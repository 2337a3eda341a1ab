"""Sampling of training batches, crops and flips from a run's own random streams."""

import hashlib
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from resnet.data.augment import PADDING
from resnet.recipe import Recipe


def seeded_generator(seed: int, *stream) -> torch.Generator:
    """Return a CPU generator for one named stream of a run, such as ``("order", epoch)``, independent of all others."""
    return torch.Generator().manual_seed(_derived_seed(seed, stream))


def seeded_numbers(seed: int, *stream) -> np.random.Generator:
    """Return a NumPy generator like :func:`seeded_generator`, for distributions that PyTorch lacks."""
    return np.random.default_rng(_derived_seed(seed, stream))


def _derived_seed(seed: int, stream: tuple) -> int:
    text = "/".join(map(str, (seed, *stream)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def images_before(recipe: Recipe, images: int, iteration: int) -> int:
    """Return the number of images that the steps before ``iteration`` take, with ``images`` in an epoch."""
    if recipe.last_batch == "use":
        epoch, step = divmod(iteration, math.ceil(images / recipe.batch_size))
        return epoch * images + step * recipe.batch_size
    return iteration * recipe.batch_size


class Draws(NamedTuple):
    """Random draws for B images: index int64 (B,), crop offset int64 (B, 2) in 0..8, flip bool (B,)."""

    index: Tensor
    offset: Tensor
    flip: Tensor

    def part(self, rows: slice) -> "Draws":
        """Return the draws for these rows."""
        return Draws(*(tensor[rows] for tensor in self))


class Sampler:
    """Batches of a run: random permutations of the training images, one after another.

    With ``recipe.last_batch`` "carry" a batch can span two epochs: it takes the end of one permutation and the start of
    the next, so all images are used equally often. "drop" and "use" start a new batch with each epoch. Each epoch's
    draws come from CPU generators seeded with (seed, stream, epoch), so a batch depends only on its iteration, not on
    interruptions or the device.

    The draws of the current epochs are on ``device``, with a counter of the next batch. So :meth:`take` is work for the
    device only and can be recorded as a CUDA graph, and :meth:`load`, on the host, copies an epoch's draws before its
    first batch. Raises ValueError if there are no images, or fewer than a batch with ``recipe.last_batch`` "drop".
    """

    def __init__(self, seed: int, images: int, recipe: Recipe, device: torch.device | str = "cpu"):
        batch_size = recipe.batch_size
        if images < 1:
            raise ValueError("there are no training images")
        if recipe.last_batch == "drop" and images < batch_size:
            raise ValueError(
                f"{images} training images don't fill a batch of {batch_size}, and smaller batches are dropped"
            )
        self.seed, self.images, self.recipe = seed, images, recipe
        self._epoch_images = images - images % batch_size if recipe.last_batch == "drop" else images
        self.sizes = tuple(sorted({self.size(0), self.size(images // batch_size)}, reverse=True))
        self._loaded: list[int | None] = [None] * (math.ceil(batch_size / images) + 1)  # the epochs of a batch
        self._places = len(self._loaded) * self._epoch_images
        self._draws = Draws(
            torch.zeros(self._places, dtype=torch.int64, device=device),
            torch.zeros(self._places, 2, dtype=torch.int64, device=device),
            torch.zeros(self._places, dtype=torch.bool, device=device),
        )
        self._next = torch.zeros((), dtype=torch.int64, device=device)
        self._range = torch.arange(batch_size, device=device)

    def epoch(self, number: int) -> Draws:
        """Return the draws of epoch ``number`` (from 0) on the CPU."""
        index = torch.randperm(self.images, generator=seeded_generator(self.seed, "order", number))
        if self.recipe.augment:
            augmentation = seeded_generator(self.seed, "augmentation", number)
            offset = torch.randint(self.recipe.crop_offsets, (self.images, 2), generator=augmentation)
            draws = Draws(index, offset, torch.randint(2, (self.images,), generator=augmentation).bool())
        else:
            draws = Draws(index, torch.full((self.images, 2), PADDING), torch.zeros(self.images, dtype=torch.bool))
        return draws.part(slice(self._epoch_images))

    def size(self, iteration: int) -> int:
        """Return the number of images in the batch of training step ``iteration`` (the first is 0)."""
        return self._start(iteration + 1) - self._start(iteration)

    def _start(self, iteration: int) -> int:
        return images_before(self.recipe, self.images, iteration)

    def seek(self, iteration: int) -> None:
        """Make the batch of training step ``iteration`` the next one."""
        self._next.fill_(self._start(iteration) % self._places)

    def load(self, iteration: int) -> None:
        """Copy the draws of training step ``iteration`` to the device, where they replace draws of past epochs."""
        count = self._epoch_images
        for number in range(self._start(iteration) // count, (self._start(iteration + 1) - 1) // count + 1):
            place = number % len(self._loaded)
            if self._loaded[place] != number:
                self._loaded[place] = number
                for buffer, drawn in zip(self._draws, self.epoch(number)):
                    drawn = drawn.pin_memory() if buffer.is_cuda else drawn  # else the copy would wait for the device
                    buffer[place * count : (place + 1) * count].copy_(drawn, non_blocking=True)

    def take(self, size: int) -> Draws:
        """Take the draws of the next batch, of ``size`` images, on the device; they must have been loaded."""
        places = (self._next + self._range[:size]) % self._places
        self._next.add_(size).remainder_(self._places)
        return Draws(*(drawn[places] for drawn in self._draws))

    def batch(self, iteration: int) -> Draws:
        """Return the draws of training step ``iteration``, and make the batch after it the next one."""
        self.seek(iteration)
        self.load(iteration)
        return self.take(self.size(iteration))
