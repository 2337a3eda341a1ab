"""The CIFAR nets' own kernels for a GPU: see README.md here.

A :class:`resnet.models.net.Net` calls :func:`fused_maps` in every forward pass; nothing else does.
"""

import importlib.util
import os
import re

import torch
from torch import Tensor, nn

from resnet.device import autocast_dtype

LIBRARY, FUSED = "library", "fused"
_DTYPES = (torch.bfloat16, torch.float16)


def made_for(model: str, options: dict, precision: str) -> bool:
    """Tell whether the fused kernels are made for a model with these options and a recipe with this precision.

    The names decide, without a network and without Triton.
    """
    own = re.fullmatch(r"cifar_(plain|resnet|bottleneck)\d+", model) and precision != "fp32"
    return bool(own) and options.get("shortcut", "A") == "A" and not options.get("conv_bias", False)


def why_not_fused(device: torch.device) -> str:
    """Return the reason why the fused kernels can't run on a device; empty if they can.

    Triton's interpreter, TRITON_INTERPRET=1, runs them anywhere, slowly, for tests.
    """
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return ""
    if device.type != "cuda" or torch.version.hip is not None:
        return f"{device} is no CUDA GPU"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return f"{torch.cuda.get_device_name(device)} is older than Ampere"
    return ""


def check_kernels(wanted: str, device: torch.device) -> None:
    """Raise ValueError for "fused" on a device that can't run the fused kernels."""
    if wanted == FUSED and (reason := why_not_fused(device)):
        raise ValueError(f"the fused kernels can't run here: {reason}; train with kernels library, or auto")


def choose(wanted: str, net: nn.Module, device: torch.device, precision: str, processes: int = 1) -> str:
    """Choose the kernels, "library" or "fused", that a net is trained with where a recipe asks for ``wanted``.

    "auto" is library, because the fused kernels have not yet been run on a GPU. "fused" is library where they don't
    apply: several processes, nets of other layers, fp32. Raises ValueError where the device can't run them.
    """
    if wanted != FUSED:
        return LIBRARY
    check_kernels(wanted, device)
    from resnet.kernels import nets  # which needs Triton

    applies = processes == 1 and autocast_dtype(precision) in _DTYPES and nets.find(net) is not None
    return FUSED if applies else LIBRARY


def fused_maps(net: nn.Module, images: Tensor) -> Tensor | None:
    """Compute the output of the last block for images (N, 3, H, W) by the fused kernels; None where they don't apply.

    They apply to a net whose ``kernels`` are "fused" and whose layers they are made for, under autocast in bf16 or
    fp16, in training, or in evaluation without gradients. Elsewhere the net takes PyTorch's way.
    """
    if net.kernels != FUSED or why_not_fused(images.device) or images.requires_grad or images.dim() != 4:
        return None
    kind = images.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    if dtype not in _DTYPES:
        return None
    from resnet.kernels import nets  # which needs Triton

    found = nets.find(net)
    if found is None:
        return None
    modes = {layer.norm.training for layer in found.layers}
    widest = max(layer.norm.num_features for layer in found.layers)
    wanted = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in net.parameters())
    pixels = images.numel() // images.shape[1]
    too_few, too_many = modes == {True} and pixels < 32, pixels * widest >= 2**31
    if len(modes) > 1 or (wanted and modes == {False}) or too_few or too_many:  # a variance of one, an index of 32 bits
        return None
    return found.compute(images, dtype)
