"""Networks by name: ``create_model("cifar_resnet20", shortcut="A")``, ``create_model("resnet50", variant="d")``."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from resnet.models import cifar, imagenet, mnist

__all__ = [
    "changed_options",
    "cifar",
    "count_parameters",
    "create_model",
    "default_options",
    "image_channels",
    "image_size",
    "imagenet",
    "mnist",
]


@dataclass(frozen=True)
class _Family:
    """Networks that one function builds.

    shown: their names in messages. pattern: regular expression of their names, whose group, if any, is the depth, the
    first argument of ``build``. image_size, image_channels: of the images that the networks are made for.
    """

    shown: str
    pattern: str
    build: Callable[..., nn.Module]
    image_size: int
    image_channels: int = 3


def _imagenet_family(name: str, depths, build) -> _Family:
    shown = ", ".join(f"{name}{depth}" for depth in depths)
    return _Family(shown, rf"{name}({'|'.join(map(str, depths))})", build, imagenet.IMAGE_SIZE)


_FAMILIES = (
    _Family("cifar_plain{6n+2}", r"cifar_plain(\d+)", cifar.plain, cifar.IMAGE_SIZE),
    _Family("cifar_resnet{6n+2}", r"cifar_resnet(\d+)", cifar.resnet, cifar.IMAGE_SIZE),
    _Family("cifar_bottleneck{9n+2}", r"cifar_bottleneck(\d+)", cifar.bottleneck, cifar.IMAGE_SIZE),
    _imagenet_family("plain", imagenet.PLAIN_DEPTHS, imagenet.plain),
    _imagenet_family("resnet", imagenet.BLOCKS, imagenet.resnet),
    _Family("mnist_residual", "mnist_residual", mnist.residual, mnist.IMAGE_SIZE, image_channels=1),
)


def _find(name: str) -> tuple[_Family, tuple[int, ...]]:
    """Find the family and depth (none for a single net) of a model's name. Raises ValueError."""
    for family in _FAMILIES:
        if match := re.fullmatch(family.pattern, name):
            return family, tuple(map(int, match.groups()))
    families = ", ".join(family.shown for family in _FAMILIES)
    raise ValueError(f"there is no model {name!r}; known models: {families}, with n = 1, 2, 3, ...")


def create_model(name: str, generator: torch.Generator | None = None, **options) -> nn.Module:
    """Build a network with initialised weights, drawn from ``generator`` if one is given.

    ``name`` is ``cifar_plain{6n+2}``, ``cifar_resnet{6n+2}`` or ``cifar_bottleneck{9n+2}`` for any n >= 1,
    ``plain18``, ``plain34``, ``resnet18``, ``resnet34``, ``resnet50``, ``resnet101``, ``resnet152`` or
    ``mnist_residual``. The options are the keyword arguments of the functions in :mod:`resnet.models.cifar`,
    :mod:`resnet.models.imagenet` and :mod:`resnet.models.mnist`. The network maps float images (N, C, H, W) to logits
    (N, num_classes), with C from :func:`image_channels`. :func:`resnet.released.load_model` builds one with the
    weights in a file.

    Raises ValueError for an unknown name, depth or option, with a list of the known ones.
    """
    family, depth = _find(name)
    return family.build(*depth, generator=generator, **changed_options(name, options))


def changed_options(name: str, options: dict) -> dict:
    """Return the options of model ``name`` that differ from its defaults.

    Raises ValueError for an unknown model or option, and for a value of another type than the default's.
    """
    defaults = default_options(name)
    if unknown := sorted(set(options) - set(defaults)):
        raise ValueError(f"{name} has no option {', '.join(unknown)}; its options: {', '.join(defaults)}")
    for option, value in options.items():
        if type(value) is not type(defaults[option]):
            raise ValueError(f"{name}: {option} must be of the same type as {defaults[option]!r}, not {value!r}")
    return {option: value for option, value in options.items() if value != defaults[option]}


def default_options(name: str) -> dict:
    """Return all options of model ``name`` with their defaults. Raises ValueError for an unknown model."""
    family, _ = _find(name)
    parameters = inspect.signature(family.build).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in ("depth", "generator")}


def image_size(name: str) -> int:
    """Return the pixels along a side of the images that a model is made for. Raises ValueError for an unknown model."""
    family, _ = _find(name)
    return family.image_size


def image_channels(name: str) -> int:
    """Return the number of channels of a model's images. Raises ValueError for an unknown model."""
    family, _ = _find(name)
    return family.image_channels


def count_parameters(model: nn.Module) -> int:
    """Count the trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
