"""Rates of training loops, measured in turn in one process."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from resnet.data import ImageDataset
from resnet.device import synchronized_time

BATCH = 128
IMAGES = 50_000  # as many as CIFAR-10 has for training
TEST_IMAGES = 10_000
LEAST_STEPS = 4  # in a round


class Loop(Protocol):
    """A loop that trains ``runs`` networks; after ``settling`` steps it runs at its usual speed."""

    runs: int
    settling: int

    def advance(self, steps: int) -> None:
        """Take ``steps`` steps of batch 128 with each run, without waiting for the device."""


@dataclass(frozen=True)
class Rates:
    """Rates of a loop, one value for each round.

    steps: steps of each run in a round. images_per_second: training images of all runs together.
    joules_per_1000_images: None if not measured.
    """

    steps: int
    images_per_second: tuple[float, ...]
    joules_per_1000_images: tuple[float, ...] | None = None

    @property
    def median(self) -> float:
        """Median of the images per second."""
        return statistics.median(self.images_per_second)


def from_json(kind: type, values: dict):
    """Rebuild a dataclass from its values in JSON, which has lists in place of tuples."""
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def random_images(images: int = IMAGES, test_images: int = TEST_IMAGES) -> ImageDataset:
    """Generate a data set of noise in CIFAR-10's shape; training takes equally long on any images."""
    rng = np.random.default_rng(0)
    parts = []
    for count in (images, test_images):
        parts += [
            rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8),
            rng.integers(0, 10, count, dtype=np.uint8),
        ]
    return ImageDataset("cifar10", *parts, official=False)


def measure_in_turn(
    loops: dict[str, Loop],
    rounds: int,
    seconds: float,
    device: torch.device,
    joules: Callable[[], float] | None = None,
) -> dict[str, Rates]:
    """Measure the loops' rates: a round of each loop in turn, ``rounds`` times, so that disturbances affect all alike.

    A round takes about ``seconds``, but at least ``LEAST_STEPS`` steps. ``joules`` reads the energy used so far.
    """
    steps = {name: _steps_for(loop, seconds, device) for name, loop in loops.items()}
    rates: dict[str, list[float]] = {name: [] for name in loops}
    energies: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(rounds):
        for name, loop in loops.items():
            images = steps[name] * BATCH * loop.runs
            loop.advance(loop.settling)
            synchronized_time(device)
            before = joules() if joules else 0.0
            start = time.perf_counter()
            loop.advance(steps[name])
            taken = synchronized_time(device) - start
            rates[name].append(round(images / taken, 1))
            if joules:
                energies[name].append(round((joules() - before) / images * 1_000, 4))
    return {name: Rates(steps[name], tuple(rates[name]), tuple(energies[name]) if joules else None) for name in loops}


def _steps_for(loop: Loop, seconds: float, device: torch.device) -> int:
    """Find the number of steps that take about ``seconds``, by trying increasing numbers."""
    loop.advance(loop.settling)
    steps = LEAST_STEPS
    while True:
        start = synchronized_time(device)
        loop.advance(steps)
        taken = synchronized_time(device) - start
        if taken > seconds / 10:
            return max(LEAST_STEPS, round(steps * seconds / taken))
        steps *= 2


def ratio(rates: Rates, other: Rates) -> float:
    """Return the median of the rounds' ratios, in which disturbances of a round cancel."""
    return statistics.median(a / b for a, b in zip(rates.images_per_second, other.images_per_second))
