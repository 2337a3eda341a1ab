"""Layers of a net as one autograd function over the kernels of :mod:`resnet.kernels`.

A layer is a convolution, BN, perhaps a shortcut, and ReLU: three launches forward and four backward. At the end, one
launch adds up the weight gradients of all layers of one shape. The way back through a layer begins with the gradient of
its BN's output and the two sums of BN's backward pass; the way back through the next layer computes both. This is why
one function spans many layers.
"""

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from resnet.kernels import launching
from resnet.kernels.launching import Norm, Shortcut


@dataclass(frozen=True)
class Layer:
    """A 3x3 convolution, BN, and ReLU. ``conv`` is None in a first layer that begins with BN.

    ``shortcut``: the shortcut from the input of the layer before to behind BN, None without one.
    """

    conv: nn.Conv2d | None
    norm: nn.BatchNorm2d
    shortcut: Shortcut | None = None

    @property
    def stride(self) -> int:
        """The convolution's stride, in pixels."""
        return 1 if self.conv is None else self.conv.stride[0]


def compute(layers: list[Layer], x: Tensor, dtype: torch.dtype, short: Tensor | None = None) -> Tensor:
    """Compute the output (N, C, H, W) of the last layer, in ``dtype``.

    ``x``: images (N, 3, H, W) for a first layer with a convolution, maps (N, C, H, W) for one without. ``short``: the
    input of the first layer's shortcut. In training, BN's running estimates and counters are updated. All layers are
    in training mode, or all in evaluation mode and then without gradients.
    """
    if layers[0].conv is None:
        x = _as_maps(x, dtype)
    short = None if short is None else _as_maps(short, dtype)
    parameters = []
    for layer in layers:
        weight = None if layer.conv is None else _as_maps(layer.conv.weight, dtype)
        parameters += [weight, layer.norm.weight, layer.norm.bias]
    for layer in layers:
        if layer.norm.training and layer.norm.num_batches_tracked is not None:
            layer.norm.num_batches_tracked.add_(1)
    inputs = [x, short, *parameters]
    with torch.cuda.device_of(x):
        if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in inputs):
            return _Trunk.apply(layers, *inputs)
        return _forward(layers, x, short, parameters, keep=False)[-1].y


def _as_maps(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class _Passed:
    """The results of a layer on the way forward: the convolution's output, and the layer's."""

    raw: Tensor
    norm: Norm
    y: Tensor


def _forward(
    layers: list[Layer], x: Tensor, short: Tensor | None, parameters: list[Tensor | None], keep: bool
) -> list[_Passed]:
    """Compute the results of all layers; only the last ones are kept if not ``keep``."""
    passed: list[_Passed | None] = []
    for number, layer in enumerate(layers):
        weight, scale, shift = parameters[3 * number : 3 * number + 3]
        bn = layer.norm
        if number > 0:
            raw, parts = launching.convolve(passed[-1].y, weight, layer.stride, bn.training)
        elif weight is not None:
            raw, parts = launching.convolve_images(x, weight, bn.training)
        else:
            raw, parts = x, launching.measure(x) if bn.training else None
        estimates = (bn.running_mean, bn.running_var)
        if bn.training:
            estimates = launching.finish_statistics(parts, raw, *estimates, bn.momentum)
        norm = Norm(*estimates, scale, shift, bn.eps)
        source = None
        if layer.shortcut is not None:
            source = short if number == 0 else passed[number - 2].y
        passed.append(_Passed(raw, norm, launching.normalize(raw, norm, source, layer.shortcut)))
        if not keep and number > 1:
            passed[number - 2] = None
    return passed


class _Trunk(torch.autograd.Function):
    """:func:`compute` with a way back; the parameters are each layer's weight, and its BN's weight and bias."""

    @staticmethod
    def forward(ctx, layers: list[Layer], x: Tensor, short: Tensor | None, *parameters: Tensor | None) -> Tensor:
        passed = _forward(layers, x, short, list(parameters), keep=True)
        left = [tensor for p in passed for tensor in (p.raw, p.norm.mean, p.norm.variance, p.y)]
        ctx.save_for_backward(x, *parameters, *left)
        ctx.layers = [(layer.stride, layer.shortcut, layer.norm.eps) for layer in layers]
        return passed[-1].y

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        count = len(ctx.layers)
        parameters, left = saved[: 3 * count], saved[3 * count :]
        weights, passed = parameters[::3], []
        for number, (_, _, eps) in enumerate(ctx.layers):
            raw, mean, variance, y = left[4 * number : 4 * number + 4]
            norm = Norm(mean, variance, *parameters[3 * number + 1 : 3 * number + 3], eps)
            passed.append(_Passed(raw, norm, y))
        with torch.cuda.device_of(x):
            return None, *_backward(ctx.layers, x, weights, passed, gradient)


def _backward(
    layers: list[tuple], x: Tensor, weights: list[Tensor | None], passed: list[_Passed], outer: Tensor
) -> list[Tensor | None]:
    """Compute the gradients of x if it is maps, of the first shortcut's input, and of each layer's weight and BN."""
    gradients: list[Tensor | None] = [None] * (3 * len(layers))
    weight_parts = _WeightParts(x, weights, passed)
    shorts: dict[int, tuple[Tensor, Shortcut]] = {}  # the gradient of a shortcut's output, by the layer that it is from
    last = passed[-1]
    g, parts = launching.output_gradient(
        outer.contiguous(memory_format=torch.channels_last), last.y, last.raw, last.norm
    )
    for number in reversed(range(len(layers))):
        stride, shortcut, _ = layers[number]
        here = passed[number]
        sums = launching.finish_sums(parts)
        gradients[3 * number + 2], gradients[3 * number + 1] = sums.unbind()
        d = launching.normalize_gradient(here.raw, g, here.norm, sums)
        if number == 0:
            break
        before = passed[number - 1]
        launching.weight_gradient(before.y, d, stride, weight_parts.of(number))
        if shortcut is not None:
            shorts[number - 2] = g, shortcut
        short = shorts.pop(number - 1, (None, None))
        g, parts = launching.input_gradient(d, weights[number], stride, *short, before.y, before.raw, before.norm)
    if weights[0] is not None:
        launching.image_weight_gradient(x, d, weight_parts.of(0))
    gradients[::3] = weight_parts.finish()
    return [d if weights[0] is None else None, g if shortcut is not None else None, *gradients]


class _WeightParts:
    """The parts of all weight gradients: the parts of like layers lie side by side, and one launch adds them up."""

    def __init__(self, x: Tensor, weights: list[Tensor | None], passed: list[_Passed]):
        inputs = [x, *(p.y for p in passed[:-1])]
        self._dtype = passed[0].raw.dtype
        self._kinds = [weight is not None and (weight.shape, p.raw.shape) for weight, p in zip(weights, passed)]
        counts, self._parts = Counter(self._kinds), {}
        for kind, y, p in zip(self._kinds, inputs, passed):
            if kind and kind not in self._parts:
                self._parts[kind] = launching.weight_parts(y, p.raw, counts[kind])

    def of(self, number: int) -> Tensor:
        """Return the memory for the parts of a layer's weight gradient."""
        place = self._kinds[:number].count(self._kinds[number])
        return self._parts[self._kinds[number]][place : place + 1]

    def finish(self) -> list[Tensor | None]:
        """Compute all weight gradients, (out, in, 3, 3), channels-last; None for a layer without a convolution."""
        sums = {kind: iter(launching.finish_weights(parts, self._dtype)) for kind, parts in self._parts.items()}
        gradients = []
        for kind in self._kinds:
            if kind:
                out, channels, *kernel = kind[0]
                gradients.append(next(sums[kind]).view(out, *kernel, channels).permute(0, 3, 1, 2))
            else:
                gradients.append(None)
        return gradients
