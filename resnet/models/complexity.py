"""Lower bounds on the FLOPs and memory traffic of a training step, counted without computing it.

Everything is counted on PyTorch's meta device, where tensors have shapes and no values. Only the operations of
convolutions and fully connected layers count, as in He et al. 2015 (whose "FLOPs" are multiply-adds); BN, activations,
additions and pooling are left out. Unless a size is given, images have the size that the model is made for: 32 pixels
along a side, 224 for the ImageNet nets, 28 for the MNIST net.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from resnet.models import count_parameters, create_model, image_channels, image_size

IMAGE_BYTES = 1  # per channel of a pixel: data sets stay on the device as uint8
PARAMETER_BYTES = 4  # weights and momentum are fp32 at every precision of the activations


def parameters(name: str, options: dict | None = None) -> int:
    """Count a network's trainable parameters without allocating them. Raises ValueError for an unknown network."""
    with torch.device("meta"):
        return count_parameters(create_model(name, **(options or {})))


def multiply_adds(name: str, options: dict | None = None, size: int | None = None) -> int:
    """Count the forward multiply-adds for one image (C, size, size). Raises ValueError for an unknown model."""
    return _multiply_adds(name, tuple(sorted((options or {}).items())), size)


@cache
def _multiply_adds(name: str, options: tuple, size: int | None) -> int:
    model, images = _on_meta(name, dict(options), size, batch=1)
    with FlopCounterMode(display=False) as counter:
        model(images)
    return counter.get_total_flops() // 2


def training_flops(name: str, options: dict | None = None) -> int:
    """Count the FLOPs (two per multiply-add) of forward and backward pass for one image.

    This is three times the FLOPs of the forward pass, without the gradient with respect to the image, which is not
    needed. Raises ValueError for an unknown model.
    """
    model, images = _on_meta(name, options, None, batch=1)
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    return counter.get_total_flops()


@dataclass(frozen=True)
class Traffic:
    """Bytes of one training step between the device's memory and its processors; see :func:`training_bytes`.

    saved: every convolution's output, written in the forward pass and read in the backward pass, and the images, read
        in both. passing: values and gradients passed between layers. parameters: weights and momentum buffers.
    """

    saved: int
    passing: int
    parameters: int

    @property
    def total(self) -> int:
        """All bytes, without any caching."""
        return self.saved + self.passing + self.parameters

    @property
    def with_cache(self) -> int:
        """Bytes if a cache held all values passed between neighbouring layers, but not the whole net."""
        return self.saved + self.parameters


def training_bytes(name: str, batch: int, activation_bytes: int, options: dict | None = None) -> Traffic:
    """Count the least bytes that a training step moves, for a batch of images.

    ``activation_bytes``: bytes per value of activations and their gradients, 2 for bf16 and 4 for fp32.

    The model of the traffic: in the forward pass, no output of a batch norm is known before all of its input, and in
    the backward pass, no gradient of its input before all gradients of its output. So the values on both sides of a
    batch norm pass through memory. Everything else is assumed to be fused at no cost: batch statistics are summed when
    the convolution's output is written; normalisation, activation, addition and pooling happen when it is read; both
    gradients of a convolution read their input once; and weights are updated when their gradient is summed. For a
    convolution with I input and O output values this leaves:

    - forward: I read, O written;
    - backward: I read for the weights' gradient, the gradient of I written, and read again by the previous layer; O
      read for the gradient through the batch norm that follows;
    - parameters: weights read forward and backward and written, momentum buffers read and written.

    The input of the first convolution is the images, uint8 and without a gradient. A second convolution of the same
    input (a projection) shares the first one's reads and gradient. This holds also if its input is averaged first: the
    means are computed from values that the first convolution reads, and their gradient is added when the input's
    gradient is written. If a stride skips pixels, only pixels that the kernel touches count. After the stem's
    max-pooling, I is the pooled map: only its maxima need to be kept, and its gradient has no more values.

    This is a lower bound, because the rest is left out: the shortcuts' additional reads and writes, the sums of batch
    norm, pooling, the fully connected layer's activations, labels, random draws. It assumes no cache between layers; a
    cache as large as a layer can save part of ``passing`` (see :attr:`Traffic.with_cache`). It holds for nets with a
    batch norm after every convolution, which are all nets here but the MNIST net.

    Raises ValueError for an unknown model.
    """
    model, images = _on_meta(name, options, None, batch)
    touched: dict[int, tuple[torch.Tensor, int]] = {}  # by the input's id, which its tensor keeps valid
    averaged: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # by the output's id: input and output of a pooling
    outputs = 0

    def note_average(pool: nn.AvgPool2d, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        averaged[id(output)] = inputs[0], output

    def count(convolution: nn.Conv2d, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal outputs
        (x,) = inputs
        if id(x) in averaged:
            x, _ = averaged[id(x)]  # all of its values count, because the pooling windows cover them
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
    """Create the network and a batch of images on the meta device.

    The network is in evaluation mode, in which BN accepts a single value per channel; the counts are the same.
    """
    size = image_size(name) if size is None else size
    with torch.device("meta"):
        return create_model(name, **(options or {})).eval(), torch.empty(batch, image_channels(name), size, size)
