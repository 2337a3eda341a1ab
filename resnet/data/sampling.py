"""Which images make up each training batch, and how each is cropped and flipped, from a run's own random streams."""

import hashlib
import math
from typing import NamedTuple

import torch
from torch import Tensor

from resnet.data.augment import PADDING


def seeded_generator(seed: int, *stream) -> torch.Generator:
    """A CPU generator for one named stream of a run, such as ``("order", epoch)``: independent of all others."""
    text = "/".join(map(str, (seed, *stream)))
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big"))


class Draws(NamedTuple):
    """What is drawn for B images: index int64 (B,), crop offset int64 (B, 2) in 0..8, flip bool (B,)."""

    index: Tensor
    offset: Tensor
    flip: Tensor

    def part(self, rows: slice) -> "Draws":
        return Draws(*(tensor[rows] for tensor in self))


class Sampler:
    """Batches of a run: random permutations of the training images, one after another without a gap.

    Every batch is full; one that spans two epochs takes the end of the first permutation and the beginning of the
    next, so all images are used equally often. Each epoch's draws come from generators seeded with (seed, stream,
    epoch) on the CPU: a batch depends on its iteration alone, not on where training was interrupted or on which
    device.

    The draws of the epochs in use lie on ``device``, where a counter says which batch is next. So :meth:`take` is
    work for the device alone and can be recorded once and replayed, and :meth:`load`, on the host, moves an epoch's
    draws there when its first batch is near.
    """

    def __init__(self, seed: int, images: int, batch_size: int, augment: bool, device: torch.device | str = "cpu"):
        if images < 1:
            raise ValueError("there are no training images")
        self.seed, self.images, self.batch_size, self.augment = seed, images, batch_size, augment
        self._loaded: list[int | None] = [None] * (math.ceil(batch_size / images) + 1)  # the epochs of a batch
        self._places = len(self._loaded) * images
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
        if self.augment:
            augmentation = seeded_generator(self.seed, "augmentation", number)
            offset = torch.randint(2 * PADDING + 1, (self.images, 2), generator=augmentation)
            return Draws(index, offset, torch.randint(2, (self.images,), generator=augmentation).bool())
        return Draws(index, torch.full((self.images, 2), PADDING), torch.zeros(self.images, dtype=torch.bool))

    def seek(self, iteration: int) -> None:
        """Make the batch of training step ``iteration`` (the first is 0) the next one."""
        self._next.fill_(iteration * self.batch_size % self._places)

    def load(self, iteration: int) -> None:
        """Have the draws of training step ``iteration`` on the device, in the place of epochs that are over."""
        start = iteration * self.batch_size
        for number in range(start // self.images, (start + self.batch_size - 1) // self.images + 1):
            place = number % len(self._loaded)
            if self._loaded[place] != number:
                self._loaded[place] = number
                for buffer, drawn in zip(self._draws, self.epoch(number)):
                    drawn = drawn.pin_memory() if buffer.is_cuda else drawn  # else the copy would wait for the device
                    buffer[place * self.images : (place + 1) * self.images].copy_(drawn, non_blocking=True)

    def take(self) -> Draws:
        """The next batch, on the device; its draws must have been loaded."""
        places = (self._next + self._range) % self._places
        self._next.add_(self.batch_size).remainder_(self._places)
        return Draws(*(drawn[places] for drawn in self._draws))

    def batch(self, iteration: int) -> Draws:
        """The draws of training step ``iteration``; the next batch is the one after it."""
        self.seek(iteration)
        self.load(iteration)
        return self.take()
