"""Which images make up each training batch, and how each is cropped and flipped, from a run's own random streams."""

import hashlib
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

    def to(self, device) -> "Draws":
        return Draws(*(tensor.to(device, non_blocking=True) for tensor in self))

    def rows(self, start: int, stop: int) -> "Draws":
        return Draws(*(tensor[start:stop] for tensor in self))


class Sampler:
    """Batches of a run: random permutations of the training images, one after another without a gap.

    Every batch is full; one that spans two epochs takes the end of the first permutation and the beginning of the
    next, so all images are used equally often. Each epoch's draws come from generators seeded with (seed, stream,
    epoch) on the CPU: a batch depends on its iteration alone, not on where training was interrupted or on which
    device. Drawn tensors are moved to ``device``, once an epoch.
    """

    def __init__(self, seed: int, images: int, batch_size: int, augment: bool, device: torch.device | str = "cpu"):
        if images < 1:
            raise ValueError("there are no training images")
        self.seed, self.images, self.batch_size, self.augment, self.device = seed, images, batch_size, augment, device
        self._epochs: dict[int, Draws] = {}

    def epoch(self, number: int) -> Draws:
        """The draws of epoch ``number`` (from 0), on the device; those of earlier epochs are forgotten."""
        if number not in self._epochs:
            order = seeded_generator(self.seed, "order", number)
            index = torch.randperm(self.images, generator=order)
            if self.augment:
                augmentation = seeded_generator(self.seed, "augmentation", number)
                offset = torch.randint(2 * PADDING + 1, (self.images, 2), generator=augmentation)
                flip = torch.randint(2, (self.images,), generator=augmentation).bool()
            else:
                offset = torch.full((self.images, 2), PADDING)
                flip = torch.zeros(self.images, dtype=torch.bool)
            self._epochs = {n: draws for n, draws in self._epochs.items() if n == number - 1}
            self._epochs[number] = Draws(index, offset, flip).to(self.device)
        return self._epochs[number]

    def batch(self, iteration: int) -> Draws:
        """The draws of training step ``iteration`` (the first is 0)."""
        start, missing, parts = iteration * self.batch_size, self.batch_size, []
        while missing:
            number, position = divmod(start, self.images)
            part = self.epoch(number).rows(position, position + missing)
            parts.append(part)
            start += len(part.index)
            missing -= len(part.index)
        return parts[0] if len(parts) == 1 else Draws(*map(torch.cat, zip(*parts)))
