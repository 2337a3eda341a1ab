"""Networks by name: ``create_model("cifar_resnet20", shortcut="A")``."""

import inspect
import re

import torch
from torch import nn

from resnet.models import cifar

__all__ = ["changed_options", "cifar", "count_parameters", "create_model"]

# One line per family: a pattern whose group is the depth, and the function that builds that depth.
_FAMILIES = {
    r"cifar_plain(\d+)": ("cifar_plain{6n+2}", cifar.plain),
    r"cifar_resnet(\d+)": ("cifar_resnet{6n+2}", cifar.resnet),
}


def _find(name: str):
    """The builder and depth behind a model's name. Raises ValueError."""
    for pattern, (_, build) in _FAMILIES.items():
        if match := re.fullmatch(pattern, name):
            return build, int(match.group(1))
    families = ", ".join(shown for shown, _ in _FAMILIES.values())
    raise ValueError(f"there is no model {name!r}; the models are: {families} for n = 1, 2, 3, ... (8, 14, 20, ...)")


def create_model(name: str, generator: torch.Generator | None = None, **options) -> nn.Module:
    """Build a network with initialised weights, drawn from ``generator`` if one is given.

    ``name`` is ``cifar_plain{6n+2}`` or ``cifar_resnet{6n+2}`` for any n >= 1 (He et al. 2015, section 4.2).
    The options are the keyword arguments of :func:`resnet.models.cifar.resnet` and
    :func:`resnet.models.cifar.plain`. The network maps float images (N, 3, H, W) to logits (N, num_classes).

    Raises ValueError for an unknown name, depth or option, and lists what there is.
    """
    build, depth = _find(name)
    return build(depth, generator=generator, **changed_options(name, options))


def changed_options(name: str, options: dict) -> dict:
    """Those options of model ``name`` that differ from its defaults. Raises ValueError for an unknown one."""
    build, _ = _find(name)
    parameters = inspect.signature(build).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.name not in ("depth", "generator")}
    if unknown := sorted(set(options) - set(defaults)):
        raise ValueError(f"{name} has no option {', '.join(unknown)}; its options are: {', '.join(defaults)}")
    for option, value in options.items():
        if type(value) is not type(defaults[option]):
            raise ValueError(f"{name}: {option} must be like {defaults[option]!r}, not {value!r}")
    return {option: value for option, value in options.items() if value != defaults[option]}


def count_parameters(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
