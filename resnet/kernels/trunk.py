"""A net's convolutions, BN, ReLU and shortcuts as one autograd function over the kernels of :mod:`resnet.kernels`.

A layer is a convolution, BN, perhaps a shortcut, and ReLU: three launches forward, four backward, and at the end one
for the weight gradients of all layers alike. The way back through a layer begins with the gradient of its BN's output
and the sums that BN needs, which the way back through the layer behind it has left: that is why the function is all
layers' and not a block's.
"""

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from resnet.kernels import launching
from resnet.kernels.launching import Norm, Shortcut
from resnet.models.blocks import BasicBlock, PadShortcut

WIDTHS = (16, 32, 64)  # channels of the layers that the kernels are made for


@dataclass(frozen=True)
class Layer:
    """A 3x3 convolution and its BN. ``shortcut``: what is added behind BN, of the input of the layer before."""

    conv: nn.Conv2d
    norm: nn.BatchNorm2d
    shortcut: Shortcut | None = None

    @property
    def stride(self) -> int:
        return self.conv.stride[0]


def find_layers(net: nn.Module) -> list[Layer] | None:
    """The layers of a :class:`resnet.models.net.Net` before its global pooling, or None if it has others too.

    Those are plain and residual nets of basic blocks, with WIDTHS channels and option A's shortcuts, without biases of
    convolutions, and without hooks, which would wait in vain for their modules to be called.
    """
    blocks = [block for name in net.stages for block in getattr(net, name)]
    if not isinstance(net.maxpool, nn.Identity) or not all(type(block) is BasicBlock for block in blocks):
        return None
    layers = [Layer(net.conv1, net.bn1)]
    for block in blocks:
        shortcut = Shortcut() if block.residual else None
        if type(block.downsample) is PadShortcut:
            shortcut = Shortcut(block.downsample.stride, block.downsample.before)
        elif block.downsample is not None:
            return None
        layers += [Layer(block.conv1, block.bn1), Layer(block.conv2, block.bn2, shortcut)]
    fit = all(_conv_fits(layer.conv, first=layer is layers[0]) and _norm_fits(layer.norm) for layer in layers)
    passed_by = [*net.children(), *(module for block in blocks for module in (block, *block.children()))]
    return layers if fit and not any(map(_has_hooks, passed_by)) else None


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


def _norm_fits(norm: nn.Module) -> bool:
    return type(norm) is nn.BatchNorm2d and norm.affine and norm.track_running_stats and norm.momentum is not None


def _has_hooks(module: nn.Module) -> bool:
    kinds = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(kinds)


def compute(layers: list[Layer], images: Tensor, dtype: torch.dtype) -> Tensor:
    """What the last of :func:`find_layers` gives out, (N, C, H, W) in ``dtype``, for images (N, 3, H, W).

    In training BN's running estimates and counters take in the batch. All layers are in training, or all in evaluation
    mode, and then nothing wants a gradient.
    """
    parameters = []
    for layer in layers:
        weight = layer.conv.weight.to(dtype).contiguous(memory_format=torch.channels_last)
        parameters += [weight, layer.norm.weight, layer.norm.bias]
    for layer in layers:
        if layer.norm.training and layer.norm.num_batches_tracked is not None:
            layer.norm.num_batches_tracked.add_(1)
    with torch.cuda.device_of(images):
        if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in parameters):
            return _Trunk.apply(layers, images, *parameters)
        return _forward(layers, images, parameters, keep=False)[-1].y


@dataclass(frozen=True)
class _Passed:
    """What a layer left on the way forward: the convolution's output, and the layer's."""

    raw: Tensor
    norm: Norm
    y: Tensor


def _forward(layers: list[Layer], images: Tensor, parameters: list[Tensor], keep: bool) -> list[_Passed]:
    """What all layers leave, or if not ``keep`` at least the last one."""
    passed: list[_Passed | None] = []
    for number, layer in enumerate(layers):
        weight, scale, shift = parameters[3 * number : 3 * number + 3]
        bn = layer.norm
        if number == 0:
            raw, parts = launching.convolve_images(images, weight, bn.training)
        else:
            raw, parts = launching.convolve(passed[-1].y, weight, layer.stride, bn.training)
        estimates = (bn.running_mean, bn.running_var)
        if bn.training:
            estimates = launching.finish_statistics(parts, raw, *estimates, bn.momentum)
        norm = Norm(*estimates, scale, shift, bn.eps)
        short = passed[number - 2].y if layer.shortcut else None
        passed.append(_Passed(raw, norm, launching.normalize(raw, norm, short, layer.shortcut)))
        if not keep and number > 1:
            passed[number - 2] = None
    return passed


class _Trunk(torch.autograd.Function):
    """:func:`compute` with a way back; the parameters are each layer's weight, and its BN's weight and bias."""

    @staticmethod
    def forward(ctx, layers: list[Layer], images: Tensor, *parameters: Tensor) -> Tensor:
        passed = _forward(layers, images, list(parameters), keep=True)
        left = [tensor for p in passed for tensor in (p.raw, p.norm.mean, p.norm.variance, p.y)]
        ctx.save_for_backward(images, *parameters, *left)
        ctx.layers = [(layer.stride, layer.shortcut, layer.norm.eps) for layer in layers]
        return passed[-1].y

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, *saved = ctx.saved_tensors
        count = len(ctx.layers)
        parameters, left = saved[: 3 * count], saved[3 * count :]
        weights, passed = parameters[::3], []
        for number, (_, _, eps) in enumerate(ctx.layers):
            raw, mean, variance, y = left[4 * number : 4 * number + 4]
            norm = Norm(mean, variance, *parameters[3 * number + 1 : 3 * number + 3], eps)
            passed.append(_Passed(raw, norm, y))
        with torch.cuda.device_of(images):
            return None, None, *_backward(ctx.layers, images, weights, passed, gradient)


def _backward(layers: list[tuple], images: Tensor, weights: list[Tensor], passed: list[_Passed], outer: Tensor):
    """The gradients of each layer's weight, and of its BN's weight and bias."""
    gradients: list[Tensor | None] = [None] * (3 * len(layers))
    weight_parts = _WeightParts(images, weights, passed)
    shorts: dict[int, tuple[Tensor, Shortcut]] = {}  # by the layer whose output a shortcut takes: its output's gradient
    last = passed[-1]
    outer = outer.contiguous(memory_format=torch.channels_last)
    g, parts = launching.output_gradient(outer, last.y, last.raw, last.norm)
    for number in reversed(range(len(layers))):
        stride, shortcut, _ = layers[number]
        here = passed[number]
        sums = launching.finish_sums(parts)
        gradients[3 * number + 2], gradients[3 * number + 1] = sums.unbind()
        d = launching.normalize_gradient(here.raw, g, here.norm, sums)
        if number == 0:
            launching.image_weight_gradient(images, d, weight_parts.of(0))
            break
        before = passed[number - 1]
        launching.weight_gradient(before.y, d, stride, weight_parts.of(number))
        if shortcut is not None:
            shorts[number - 2] = g, shortcut
        short = shorts.pop(number - 1, (None, None))
        g, parts = launching.input_gradient(d, weights[number], stride, *short, before.y, before.raw, before.norm)
    gradients[::3] = weight_parts.finish()
    return gradients


class _WeightParts:
    """The parts of all weight gradients: those of layers alike lie side by side, and one launch adds them up."""

    def __init__(self, images: Tensor, weights: list[Tensor], passed: list[_Passed]):
        inputs = [images, *(p.y for p in passed[:-1])]
        self._weights = weights
        self._kinds = [(weight.shape, p.raw.shape) for weight, p in zip(weights, passed)]
        counts, self._parts = Counter(self._kinds), {}
        for kind, x, p in zip(self._kinds, inputs, passed):
            if kind not in self._parts:
                self._parts[kind] = launching.weight_parts(x, p.raw, counts[kind])

    def of(self, number: int) -> Tensor:
        """Where the parts of a layer's weight gradient go."""
        place = self._kinds[:number].count(self._kinds[number])
        return self._parts[self._kinds[number]][place : place + 1]

    def finish(self) -> list[Tensor]:
        """All weight gradients, like the weights."""
        dtype = self._weights[0].dtype
        sums = {kind: iter(launching.finish_weights(parts, dtype)) for kind, parts in self._parts.items()}
        gradients = []
        for kind, weight in zip(self._kinds, self._weights):
            out, channels, *kernel = weight.shape
            gradients.append(next(sums[kind]).view(out, *kernel, channels).permute(0, 3, 1, 2))
        return gradients
