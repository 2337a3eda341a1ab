"""Which images make up each training batch, and how each is cropped and flipped, from a run's own random streams."""

import hashlib
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from resnet.data.augment import PADDING
from resnet.recipe import Recipe


def seeded_generator(seed: int, *stream) -> torch.Generator:
    """A CPU generator for one named stream of a run, such as ``("order", epoch)``: independent of all others."""
    return torch.Generator().manual_seed(_derived_seed(seed, stream))


def seeded_numbers(seed: int, *stream) -> np.random.Generator:
    """NumPy's generator for a stream as of :func:`seeded_generator`, for distributions that PyTorch's can't draw."""
    return np.random.default_rng(_derived_seed(seed, stream))


def _derived_seed(seed: int, stream: tuple) -> int:
    text = "/".join(map(str, (seed, *stream)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


class Draws(NamedTuple):
    """What is drawn for B images: index int64 (B,), crop offset int64 (B, 2) in 0..8, flip bool (B,)."""

    index: Tensor
    offset: Tensor
    flip: Tensor

    def part(self, rows: slice) -> "Draws":
        """What is drawn for these of the images."""
        return Draws(*(tensor[rows] for tensor in self))


class Sampler:
    """Batches of a run: random permutations of the training images, one after another.

    Without a gap where ``recipe.last_batch`` is "carry": a batch that spans two epochs takes the end of the first
    permutation and the beginning of the next, so all images are used equally often; "drop" and "use" begin a new batch
    with each epoch. Each epoch's draws come from generators seeded with (seed, stream, epoch) on the CPU: a batch
    depends on its iteration alone, not on where training was interrupted or on which device.

    The draws of the epochs in use lie on ``device``, where a counter says which batch is next. So :meth:`take` is
    work for the device alone and can be recorded once and replayed, and :meth:`load`, on the host, moves an epoch's
    draws there when its first batch is near. Raises ValueError for no images, and for fewer than make a batch where
    ``recipe.last_batch`` is "drop".
    """

    def __init__(self, seed: int, images: int, recipe: Recipe, device: torch.device | str = "cpu"):
        batch_size = recipe.batch_size
        if images < 1:
            raise ValueError("there are no training images")
        if recipe.last_batch == "drop" and images < batch_size:
            raise ValueError(
                f"{images} training images don't make a batch of {batch_size}, and smaller ones are dropped"
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
        """The draws of epoch ``number`` (from 0) on the CPU."""
        index = torch.randperm(self.images, generator=seeded_generator(self.seed, "order", number))
        if self.recipe.augment:
            augmentation = seeded_generator(self.seed, "augmentation", number)
            offset = torch.randint(self.recipe.crop_offsets, (self.images, 2), generator=augmentation)
            draws = Draws(index, offset, torch.randint(2, (self.images,), generator=augmentation).bool())
        else:
            draws = Draws(index, torch.full((self.images, 2), PADDING), torch.zeros(self.images, dtype=torch.bool))
        return draws.part(slice(self._epoch_images))

    def size(self, iteration: int) -> int:
        """How many images the batch of training step ``iteration`` (the first is 0) has."""
        start, end = self._start(iteration), self._start(iteration + 1)
        return end - start

    def _start(self, iteration: int) -> int:
        """How many images the steps before ``iteration`` have taken."""
        batch_size = self.recipe.batch_size
        if self.recipe.last_batch == "use":
            epoch, step = divmod(iteration, math.ceil(self.images / batch_size))
            return epoch * self.images + step * batch_size
        return iteration * batch_size

    def seek(self, iteration: int) -> None:
        """Make the batch of training step ``iteration`` the next one."""
        self._next.fill_(self._start(iteration) % self._places)

    def load(self, iteration: int) -> None:
        """Have the draws of training step ``iteration`` on the device, in the place of epochs that are over."""
        count = self._epoch_images
        for number in range(self._start(iteration) // count, (self._start(iteration + 1) - 1) // count + 1):
            place = number % len(self._loaded)
            if self._loaded[place] != number:
                self._loaded[place] = number
                for buffer, drawn in zip(self._draws, self.epoch(number)):
                    drawn = drawn.pin_memory() if buffer.is_cuda else drawn  # else the copy would wait for the device
                    buffer[place * count : (place + 1) * count].copy_(drawn, non_blocking=True)

    def take(self, size: int) -> Draws:
        """The next batch, of ``size`` images, on the device; its draws must have been loaded."""
        places = (self._next + self._range[:size]) % self._places
        self._next.add_(size).remainder_(self._places)
        return Draws(*(drawn[places] for drawn in self._draws))

    def batch(self, iteration: int) -> Draws:
        """The draws of training step ``iteration``; the next batch is the one after it."""
        self.seek(iteration)
        self.load(iteration)
        return self.take(self.size(iteration))
