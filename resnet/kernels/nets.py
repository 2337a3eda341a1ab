"""The nets that the kernels are made for, and the way of images through them.

In plain and residual nets of basic blocks, the kernels compute all layers before the pooling. In nets of bottlenecks,
they compute the 3x3 convolutions, and BN with ReLU and the addition of the shortcut; the 1x1 convolutions, which are
plain matrix products, the projections and a stem of three convolutions are left to the library.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from resnet.kernels import trunk
from resnet.kernels.launching import Shortcut
from resnet.kernels.trunk import Layer
from resnet.models.blocks import EXPANSION, BasicBlock, Bottleneck, PadShortcut

WIDTHS = (16, 32, 64)  # channels of the 3x3 convolutions that the kernels are made for
_OUTPUTS = tuple(EXPANSION * width for width in WIDTHS)


@dataclass(frozen=True)
class Fused:
    """The layers of a net that the kernels compute.

    ``compute``: maps images (N, 3, H, W) to the output (N, C, H', W') of the last block, in the given dtype. It must
    be called under autocast to this dtype, unless the dtype is fp32.
    """

    layers: list[Layer]
    compute: Callable[[Tensor, torch.dtype], Tensor]


def find(net: nn.Module) -> Fused | None:
    """Find the layers of a :class:`resnet.models.net.Net` that the kernels compute; None if they don't fit the net.

    A net with hooks, or with a module that something else stands for, is left to PyTorch, because the kernels do not
    call the modules that they stand for.
    """
    stages = [getattr(net, name) for name in getattr(net, "stages", ())]
    if not stages or any(type(stage) is not nn.Sequential for stage in stages):
        return None
    blocks = [block for stage in stages for block in stage]
    passed_by = [*net.children(), *(module for block in blocks for module in (block, *block.children()))]
    if not isinstance(net.maxpool, nn.Identity) or any(map(_is_changed, [net, *passed_by])):
        return None
    kinds, found = {type(block) for block in blocks}, None
    if kinds == {BasicBlock}:
        found = _basic(net, blocks)
    elif kinds == {Bottleneck}:
        found = _bottlenecks(net, blocks)
    return found if found is not None and all(map(_fits, found.layers)) else None


def _basic(net: nn.Module, blocks: list[BasicBlock]) -> Fused | None:
    layers = [Layer(net.conv1, net.bn1)]
    for block in blocks:
        shortcut = Shortcut() if block.residual else None
        if type(block.downsample) is PadShortcut:
            shortcut = Shortcut(block.downsample.stride, block.downsample.before)
        elif block.downsample is not None:
            return None
        layers += [Layer(block.conv1, block.bn1), Layer(block.conv2, block.bn2, shortcut)]
    return Fused(layers, lambda images, dtype: trunk.compute(layers, images, dtype))


def _bottlenecks(net: nn.Module, blocks: list[Bottleneck]) -> Fused:
    alone = type(net.conv1) is nn.Conv2d
    stem = [Layer(net.conv1 if alone else None, net.bn1)]
    parts = [
        ([Layer(None, block.bn1), Layer(block.conv2, block.bn2)], [Layer(None, block.bn3, Shortcut())])
        for block in blocks
    ]

    def compute(images: Tensor, dtype: torch.dtype) -> Tensor:
        x = trunk.compute(stem, images if alone else net.conv1(images), dtype)
        for block, (inside, last) in zip(blocks, parts):
            y = trunk.compute(inside, block.conv1(x), dtype)
            short = x if block.downsample is None else block.downsample(x)
            x = trunk.compute(last, block.conv3(y), dtype, short)
        return x

    return Fused([*stem, *(layer for inside, last in parts for layer in (*inside, *last))], compute)


def _fits(layer: Layer) -> bool:
    conv, norm = layer.conv, layer.norm
    first = type(conv) is nn.Conv2d and conv.in_channels == 3
    return (
        type(norm) is nn.BatchNorm2d
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and norm.num_features in WIDTHS + _OUTPUTS
        and (conv is None or _conv_fits(conv, first))
    )


def _conv_fits(conv: nn.Module, first: bool) -> bool:
    return (
        type(conv) is nn.Conv2d
        and conv.kernel_size == (3, 3)
        and conv.stride in ([(1, 1)] if first else [(1, 1), (2, 2)])
        and (conv.padding, conv.dilation, conv.groups, conv.padding_mode) == ((1, 1), (1, 1), 1, "zeros")
        and conv.bias is None
        and conv.out_channels in WIDTHS
        and conv.in_channels in ((3,) if first else WIDTHS)
    )


def _is_changed(module: nn.Module) -> bool:
    """Return whether a module has hooks, or a way of its own through it."""
    kinds = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(kinds) or "forward" in vars(module)
