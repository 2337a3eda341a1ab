"""Nets as the benchmarks' ``--models`` names them: ``cifar_resnet20``, or with a row's options after a colon."""

from functools import cache

from torch import nn

from reproductions.harness.settings import parse_options
from resnet.models import create_model
from resnet.recipe import Recipe
from resnet.run import Run


@cache
def read_net(text: str) -> tuple[str, dict]:
    """Split ``cifar_bottleneck56:variant=d,zero_gamma=true`` into the model's name and its options.

    Raises ValueError for an unknown model or option, and for an impossible value.
    """
    name, _, given = text.partition(":")
    return name, parse_options(name, given.replace(",", " "))


def make_net(text: str) -> nn.Module:
    """Build the net with initialised weights. Raises ValueError."""
    name, options = read_net(text)
    return create_model(name, **options)


def run_of(text: str, recipe: Recipe | None = None, seed: int = 0) -> Run:
    """Return a run of the net, by default with the paper's recipe. Raises ValueError."""
    name, options = read_net(text)
    return Run(name, recipe or Recipe(), seed=seed, model_options=options)
