"""How a network is trained: everything that decides a run's result except model, data and seed."""

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import nn

PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class Recipe:
    """SGD with momentum and a stepwise learning rate; the defaults are those of He et al. 2015, section 4.2.

    A default is never changed and a new field's default keeps today's behaviour, because a run's identity is made
    of the fields that differ from it (:meth:`changes`).

    iterations: SGD steps. batch_size: images a step.
    learning_rate: divided by 10 from each of ``milestones`` (iterations, counted from 0) on.
    warmup_learning_rate: if set, used instead from iteration 0 until the training error, averaged over the last
        ``warmup_window`` iterations and looked at every ``warmup_window`` iterations, is below
        ``warmup_until_error`` percent.
    momentum, weight_decay: of SGD; the decay applies to all parameters.
    augment: 4 zero pixels on each side, a random 32x32 crop, a random horizontal flip, drawn per image.
    precision: "auto" is bf16 autocast on CUDA and fp32 elsewhere.
    eval_interval: iterations between evaluations on the test images; the last iteration is always evaluated.
    """

    iterations: int = 64_000
    batch_size: int = 128
    learning_rate: float = 0.1
    milestones: tuple[int, ...] = (32_000, 48_000)
    warmup_learning_rate: float | None = None
    warmup_until_error: float = 80.0
    warmup_window: int = 100
    momentum: float = 0.9
    weight_decay: float = 1e-4
    augment: bool = True
    precision: str = "auto"
    eval_interval: int = 1_000

    def __post_init__(self):
        def check(condition: bool, name: str, wanted: str) -> None:
            if not condition:
                raise ValueError(f"recipe: {name} must be {wanted}, not {getattr(self, name)!r}")

        # Equal numbers are made the same numbers, because 1 and 1.0 would give different identities.
        for name in ("learning_rate", "warmup_learning_rate", "warmup_until_error", "momentum", "weight_decay"):
            value = getattr(self, name)
            if value is not None or name != "warmup_learning_rate":
                is_number = isinstance(value, (int, float)) and math.isfinite(value)
                check(is_number and value >= 0, name, "a number of at least 0")
                object.__setattr__(self, name, float(value))
        for name in ("iterations", "batch_size", "warmup_window", "eval_interval"):
            value = getattr(self, name)
            check(type(value) is int and value >= 1, name, "a whole number of at least 1")
        milestones = tuple(self.milestones)
        check(all(m >= 0 and m % 1 == 0 for m in milestones), "milestones", "whole numbers of at least 0")
        check(list(milestones) == sorted(set(milestones)), "milestones", "increasing")
        object.__setattr__(self, "milestones", tuple(int(m) for m in milestones))
        check(isinstance(self.augment, bool), "augment", "true or false")
        check(self.precision in PRECISIONS, "precision", f"one of {', '.join(PRECISIONS)}")

    def changes(self) -> dict:
        """The fields that differ from the defaults, in a form that JSON keeps."""
        changed = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}

    def shortened(self, iterations: int, eval_interval: int, **changes) -> "Recipe":
        """The same recipe in fewer iterations: the milestones move in proportion."""
        milestones = tuple(round(m * iterations / self.iterations) for m in self.milestones)
        return replace(self, iterations=iterations, milestones=milestones, eval_interval=eval_interval, **changes)

    def evaluates_after(self, iteration: int) -> bool:
        """Whether the network is evaluated once ``iteration`` steps have been taken."""
        return iteration == self.iterations or (iteration > 0 and iteration % self.eval_interval == 0)


def learning_rate_at(recipe: Recipe, iteration: int, warmup_ended_at: int | None = None) -> float:
    """Learning rate of step ``iteration`` (the first is 0).

    ``warmup_ended_at`` is the first iteration after the warm-up, None while it lasts; it has no meaning for a
    recipe without warm-up.
    """
    if recipe.warmup_learning_rate is not None and (warmup_ended_at is None or iteration < warmup_ended_at):
        return recipe.warmup_learning_rate
    drops = sum(iteration >= milestone for milestone in recipe.milestones)
    return recipe.learning_rate / 10**drops


def make_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.SGD:
    """SGD over all parameters; its learning rate is set before each step.

    The velocities start as zeros instead of being made by the first step, which comes to the same; so all steps are
    alike, and any of them can be recorded and replayed.
    """
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    if recipe.momentum:
        for parameter in model.parameters():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer
