"""Random numbers of a run's own, for plugins and for networks with dropout or stochastic depth.

A number is a hash of the run's seed, the step, the name of its user and its place among the user's draws of the step.
The hash is integer arithmetic on the device: the CPU and every GPU draw the same numbers, a CUDA graph can record it,
and a resumed run needs nothing but the step.
"""

import copy
import hashlib
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

# SplitMix64 (Steele et al. 2014, "Fast splittable pseudorandom number generators"), as signed 64-bit numbers.
_GAMMA, _STEP, _MIX_1, _MIX_2 = (
    number - (1 << 64) if number >> 63 else number
    for number in (0x9E3779B97F4A7C15, 0xD1342543DE82EF95, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


class DrawsError(ValueError):
    """Random numbers that are not the run's own. The message names the part that draws them, and the remedy."""


class Draws:
    """Random tensors on a run's device, for one user of a run: a plugin or a layer.

    The n-th draw of a user in a step is always the same, and no two draws of a run are related. ``step``: the number of
    the training step, int64 () on the device; a recorded CUDA graph keeps Python's numbers, but reads this tensor.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu"):
        self._seed, self._name, self._turn = seed, "", _Turn()
        self.step = torch.zeros((), dtype=torch.int64, device=device)
        self._seen, self._calls = -1, 0

    def __deepcopy__(self, memo) -> "Draws":
        return self  # a copy of a network is a part of the same run

    def of(self, name: str) -> "Draws":
        """Return the draws of another user, such as ``draws.of("mask")``; equal names give equal numbers."""
        other = copy.copy(self)
        other._name, other._seen = f"{self._name}/{name}", -1
        return other

    def give_to(self, network: nn.Module) -> bool:
        """Set the attribute ``draws`` of every layer that has it, each to draws of its own; return whether one has."""
        layers = {name: layer for name, layer in network.named_modules() if hasattr(layer, "draws")}
        for name, layer in layers.items():
            layer.draws = self.of(name)
        return bool(layers)

    def begin(self, first: int) -> None:
        """Begin a part of a batch, whose first image has the number ``first``: the next draws are its first."""
        self._turn.number += 1
        self._turn.first = first

    def seek(self, step: int) -> None:
        """Make ``step`` the step to draw for."""
        self.step.fill_(step)

    def uniform(self, shape: Sequence[int] = ()) -> Tensor:
        """Draw float32 numbers from [0, 1)."""
        return (_shifted(self._bits(prod(shape)), 40).float() * 2**-24).view(tuple(shape))

    def normal(self, shape: Sequence[int] = ()) -> Tensor:
        """Draw float32 numbers with mean 0 and variance 1."""
        return torch.special.ndtri(self._between(prod(shape))).float().view(tuple(shape))

    def permutation(self, count: int) -> Tensor:
        """Draw an order of ``count`` things, int64 (count,)."""
        return self._bits(count).argsort(stable=True)

    def beta(self, a: float, shape: Sequence[int] = ()) -> Tensor:
        """Draw float32 numbers from Beta(a, a); a > 0.

        Devroye 1996, "Random variate generation in one line of code": two uniform numbers each, without rejection.
        """
        if not a > 0:
            raise ValueError(f"Beta(a, a) needs a above 0, not {a}")
        u, v = self._between(2 * prod(shape)).view(2, -1)
        side = torch.cos(2 * math.pi * v)
        odds = (u ** (-1 / a) - 1) * side**2
        return (0.5 + side.sign() / 2 * (1 / (1 + 1 / odds)).sqrt()).float().view(tuple(shape))

    def _between(self, count: int) -> Tensor:
        """Draw float64 numbers from (0, 1)."""
        return (_shifted(self._bits(count), 12).double() + 0.5) * 2**-52

    def _bits(self, count: int) -> Tensor:
        """Draw int64 numbers with 64 random bits."""
        if self._seen != self._turn.number:
            self._seen, self._calls = self._turn.number, 0
        key = _key(self._seed, self._name, self._turn.first, self._calls)
        self._calls += 1
        z = torch.arange(count, device=self.step.device) * _GAMMA + (self.step * _STEP + key)
        z = (z ^ _shifted(z, 30)) * _MIX_1
        z = (z ^ _shifted(z, 27)) * _MIX_2
        return z ^ _shifted(z, 31)


class _Turn:
    """The place of all draws: the number of the part of a batch, counted in this process, and its first image."""

    number = first = 0


@lru_cache(maxsize=1 << 16)
def _key(seed: int, name: str, first: int, call: int) -> int:
    """Hash the names of a draw to a signed 64-bit number."""
    text = f"{seed}/draws{name}/{first}/{call}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)


def _shifted(z: Tensor, count: int) -> Tensor:
    """Shift 64-bit numbers to the right, with zeros from the left."""
    return (z >> count) & ((1 << (64 - count)) - 1)


@contextmanager
def own_numbers_only(what: str, device: torch.device) -> Iterator[None]:
    """Raise DrawsError if ``what`` draws from a global generator inside, of Python, NumPy or PyTorch.

    The generators are put back to where they were.
    """
    before = _generators(device)
    yield
    if drawn := _put_back(before, device):
        raise _refusal(what, drawn)


def _refusal(what: str, drawn: str) -> DrawsError:
    return DrawsError(
        f"{what} draws from the global generator of {drawn}: seeds would not reproduce the run, and a resumed run "
        "would end differently. Draw from the run's own numbers: docs/plugins.md"
    )


def check_network(network: nn.Module, images: Tensor) -> None:
    """Raise DrawsError, with the layer's name, if a network draws from a global generator in training.

    ``images`` (N, C, H, W) go through a copy of the network once.
    """
    with torch.no_grad():
        before = _generators(images.device)
        copy.deepcopy(network).train()(images)
        if not _put_back(before, images.device):
            return
        copied = copy.deepcopy(network).train()
        for name, layer in copied.named_modules():
            layer.register_forward_pre_hook(lambda *_: states.append(_generators(images.device)))
            layer.register_forward_hook(lambda layer, *_, name=name: ended(name, layer))
        states, found = [], []

        def ended(name: str, layer: nn.Module) -> None:
            if drawn := _put_back(states.pop(), images.device):  # a layer inside ends before, and puts them back
                found.append((f"layer {name} ({type(layer).__name__})" if name else type(layer).__name__, drawn))

        copied(images)
    what, drawn = found[0]
    raise _refusal(f"{what} of the network", f"{drawn} in training")


def _generators(device: torch.device) -> dict[str, object]:
    """Return the states of the global generators."""
    states = {"Python": random.getstate(), "NumPy": np.random.get_state(), "PyTorch": torch.get_rng_state()}
    return states | ({"CUDA": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _put_back(before: dict[str, object], device: torch.device) -> str:
    """Put the global generators back to these states; return the name of one that had moved, else an empty text."""
    put = {
        "Python": random.setstate,
        "NumPy": np.random.set_state,
        "PyTorch": torch.set_rng_state,
        "CUDA": lambda state: torch.cuda.set_rng_state(state, device),
    }
    moved = [name for name, state in _generators(device).items() if not _same(state, before[name])]
    for name in moved:
        put[name](before[name])
    return next(iter(moved), "")


def _same(one, other) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    name, words, *rest = one  # of Python words are numbers, of NumPy an array
    return np.array_equal(words, other[1]) and (name, *rest) == (other[0], *other[2:])
