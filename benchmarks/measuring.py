"""Rates of several training loops, measured in turn in one process."""

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
LEAST_STEPS = 4  # of a round


class Loop(Protocol):
    """Something that trains ``runs`` networks; ``settling`` are steps to take before it runs as it does for long."""

    runs: int
    settling: int

    def advance(self, steps: int) -> None:
        """Have each of its runs take so many steps of batch 128; the device may be done later."""


@dataclass(frozen=True)
class Rates:
    """What the rounds of a loop came to: one value a round. ``steps``: of each run in a round.

    images_per_second: training images, of all runs together. joules_per_1000_images: None where not measured.
    """

    steps: int
    images_per_second: tuple[float, ...]
    joules_per_1000_images: tuple[float, ...] | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.images_per_second)


def random_images(images: int = IMAGES, test_images: int = TEST_IMAGES) -> ImageDataset:
    """A data set of CIFAR-10's shape, of noise: training takes as long on any images."""
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
    """Rates of the loops by their names: a round of each in turn, ``rounds`` times, so that all see the same weather.

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
    """How many steps take about so long, found by trying more and more of them."""
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
    """The median of the rounds' ratios: what a round's machine did to both falls out."""
    return statistics.median(a / b for a, b in zip(rates.images_per_second, other.images_per_second))
