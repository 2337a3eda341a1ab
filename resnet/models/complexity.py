"""What a training step of a network costs at least: floating-point operations and bytes, counted without computing.

Everything is counted on PyTorch's meta device, where tensors have shapes and no values. Operations are those of
convolutions and fully connected layers, as in He et al. 2015 (whose "FLOPs" are multiply-adds); BN, activations,
additions and pooling are left out. Images have the size that the model was made for unless one is given: 32 pixels
along a side, 224 for the ImageNet nets, 28 for MNIST's.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from resnet.models import create_model, image_channels, image_size

IMAGE_BYTES = 1  # per channel of a pixel: data sets stay on the device as uint8
PARAMETER_BYTES = 4  # weights and momentum are fp32 whatever the precision of the activations


def multiply_adds(name: str, options: dict | None = None, size: int | None = None) -> int:
    """Multiply-adds of the forward pass for one image (C, size, size). Raises ValueError for an unknown model."""
    model, images = _on_meta(name, options, size, batch=1)
    with FlopCounterMode(display=False) as counter:
        model(images)
    return counter.get_total_flops() // 2


def training_flops(name: str, options: dict | None = None, size: int | None = None) -> int:
    """FLOPs (two per multiply-add) of forward and backward for one image (C, size, size).

    Three times those of the forward pass, less the gradient with respect to the image, which nothing needs: counted
    by running both passes. Raises ValueError for an unknown model.
    """
    model, images = _on_meta(name, options, size, batch=1)
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    return counter.get_total_flops()


@dataclass(frozen=True)
class Traffic:
    """Bytes of one training step between the device's memory and its processors; see :func:`training_bytes`.

    saved: every convolution's output, written in the forward pass and read again in the backward pass, and the images,
        read in both. passing: what one layer hands to the next. parameters: weights and momentum.
    """

    saved: int
    passing: int
    parameters: int

    @property
    def total(self) -> int:
        """All bytes, with no cache that holds anything."""
        return self.saved + self.passing + self.parameters

    @property
    def with_cache(self) -> int:
        """Bytes left if a cache held all that passes between neighbouring layers, but not the whole net."""
        return self.saved + self.parameters


def training_bytes(
    name: str, batch: int, activation_bytes: int, options: dict | None = None, size: int | None = None
) -> Traffic:
    """The least bytes that a training step moves, for a batch of images (C, size, size).

    ``activation_bytes``: per value of activations and their gradients, 2 for bf16 and 4 for fp32.

    The model of what must move. No value of a batch norm's output is known before all of its input is, forward, and
    no value of its input's gradient before all of its output's gradient is, backward; so what is on either side of a
    batch norm passes through memory. Everything else is fused as if that cost nothing: batch statistics are summed
    where the convolution's output is written, and normalisation, activation, addition and pooling are done where it
    is read; both gradients of a convolution come from one reading of what they need; the update happens where the
    weights' gradient is summed. Left are, for a convolution with I input and O output values:

    - forward: I read, O written;
    - backward: I read for the weights' gradient, the gradient of I written, and read again by the layer before; O
      read, for the gradient through the batch norm that follows;
    - parameters: weights read forward and backward and written, momentum read and written.

    The first convolution's input are the images themselves, uint8 and without a gradient. A second convolution of the
    same input (a projection) shares the first one's reading and gradient, also if its input is averaged first: the
    means are taken from what the first one reads, and their gradient is spread where the input's is written. Where a
    stride jumps over pixels, only those are counted that the kernel touches. After the stem's max-pooling, I is the
    pooled map: its maxima could be kept in place of all that they are taken from, and its gradient has no more values.

    A lower bound by construction, because the rest is left out: the shortcuts' additional reading and writing, the
    sums of batch norm, pooling, the fully connected layer's activations, labels, random draws. It counts on no cache
    between layers: one as large as a layer can save part of ``passing`` (see :attr:`Traffic.with_cache`). It holds for
    nets in which a batch norm follows every convolution, as all here but MNIST's.

    Raises ValueError for an unknown model.
    """
    model, images = _on_meta(name, options, size, batch)
    touched: dict[int, tuple[torch.Tensor, int]] = {}  # by the input's id, which its tensor is kept alive for
    averaged: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # by the id of the second: its means
    outputs = 0

    def note_average(pool: nn.AvgPool2d, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        averaged[id(output)] = inputs[0], output

    def count(convolution: nn.Conv2d, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal outputs
        (x,) = inputs
        if id(x) in averaged:
            x, _ = averaged[id(x)]  # whose values all count: windows side by side leave none out
        values = x.numel()
        for kernel, stride in zip(convolution.kernel_size, convolution.stride):
            values = values * min(kernel, stride) // stride
        _, before = touched.get(id(x), (x, 0))
        touched[id(x)] = x, max(before, values)
        outputs += output.numel()

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
        elif isinstance(module, nn.AvgPool2d):
            module.register_forward_hook(note_average)
    with torch.no_grad():
        model(images)
    _, image_values = touched.pop(id(images))
    inputs = sum(values for _, values in touched.values())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Traffic(
        saved=2 * outputs * activation_bytes + 2 * image_values * IMAGE_BYTES,
        passing=4 * inputs * activation_bytes,
        parameters=5 * parameters * PARAMETER_BYTES,
    )


def _on_meta(name: str, options: dict | None, size: int | None, batch: int) -> tuple[nn.Module, torch.Tensor]:
    """The network and a batch of images, without values.

    In evaluation mode, where BN takes a single value for a channel too: it changes nothing of what is counted.
    """
    size = image_size(name) if size is None else size
    with torch.device("meta"):
        return create_model(name, **(options or {})).eval(), torch.empty(batch, image_channels(name), size, size)
