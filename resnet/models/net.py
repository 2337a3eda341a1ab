"""The common structure of the networks: a stem, stages of blocks, one fully connected layer."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from resnet.kernels import LIBRARY, fused_maps
from resnet.models.blocks import BasicBlock, BlockDesign, Bottleneck

INITIALIZATIONS = ("fan_out", "fan_in", "xavier", "uniform")


class Net(nn.Module):
    """A stem, stages of blocks, global average pooling and one fully connected layer.

    Maps float images (N, 3, H, W) to logits (N, num_classes). State-dict keys are the same as in torchvision's ResNet:
    ``conv1``, ``bn1``, ``layer1.0.conv1``, ``layer1.0.bn1``, ..., ``fc``.

    ``kernels``: "fused" computes the maps with :mod:`resnet.kernels` where they apply.
    """

    kernels = LIBRARY

    def __init__(
        self,
        depth: int,
        stem: nn.Module,
        maxpool: nn.Module,
        width: int,
        blocks: tuple[int, ...],
        design: BlockDesign,
        num_classes: int,
        zero_gamma: bool = False,
        generator: torch.Generator | None = None,
        initialization: str = "fan_out",
    ):
        """Build the network; ``blocks`` is the number of blocks in each stage.

        The first stage has the ``width`` of the stem's output and keeps the size of the maps; each further stage
        doubles the width and halves the size of the maps.
        """
        super().__init__()
        self.depth = depth
        self.conv1 = stem
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = maxpool
        self.stages = [f"layer{number}" for number in range(1, len(blocks) + 1)]
        channels, stride = width, 1
        for name, count in zip(self.stages, blocks):
            self.add_module(name, design.stage(channels, width, stride, count))
            channels, width, stride = design.out_channels(width), 2 * width, 2
        self.fc = nn.Linear(channels, num_classes)
        initialize(self, generator, zero_gamma, initialization)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits."""
        maps = fused_maps(self, x)
        return self.fc(_MeanOfMaps.apply(self.maps(x) if maps is None else maps))

    def maps(self, x: Tensor) -> Tensor:
        """Compute the output of the last block, (N, C, H, W)."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))
        for name in self.stages:
            x = getattr(self, name)(x)
        return x


class _MeanOfMaps(torch.autograd.Function):
    """The mean of each map, (N, C, H, W) to (N, C), with a gradient in channels-last memory.

    PyTorch's gradient is contiguous, which slows down ReLU's backward pass; see ``_Subsampling`` in
    :mod:`resnet.models.blocks`.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        return x.mean(dim=(2, 3))

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        *_, height, width = ctx.shape
        each = (gradient / (height * width))[:, :, None, None]
        return each.expand(ctx.shape).contiguous(memory_format=torch.channels_last)


def make_stem(channels: int, kernel: int, stride: int, deep: bool = False, conv_bias: bool = False) -> nn.Module:
    """Build the stem: one convolution from 3 to ``channels``, or, if ``deep``, three 3x3 convolutions (ResNet-C).

    The first of the three has the stride, and the first two have half as many channels. The BN of the last convolution
    belongs to the net.
    """
    if not deep:
        return nn.Conv2d(3, channels, kernel, stride, padding=kernel // 2, bias=conv_bias)
    half = channels // 2
    return nn.Sequential(
        nn.Conv2d(3, half, 3, stride, padding=1, bias=conv_bias),
        nn.BatchNorm2d(half),
        nn.ReLU(inplace=True),
        nn.Conv2d(half, half, 3, padding=1, bias=conv_bias),
        nn.BatchNorm2d(half),
        nn.ReLU(inplace=True),
        nn.Conv2d(half, channels, 3, padding=1, bias=conv_bias),
    )


def initialize(
    model: nn.Module,
    generator: torch.Generator | None = None,
    zero_gamma: bool = False,
    initialization: str = "fan_out",
) -> None:
    """Initialise all weights in the order of ``model.modules()``, drawn from one generator.

    ``initialization`` "fan_out" (He's): convolutions normal with variance 2 / (k * k * C_out) (He et al., "Delving Deep
    into Rectifiers", eq. 14, the backward form, which the authors' later public code uses), fully connected layers
    normal with standard deviation 0.01. "fan_in": the forward form, with C_in instead (eq. 10). "xavier": convolutions
    and fully connected layers uniform in [-a, a] with a = sqrt(6 / (fan-in + fan-out)) (Bag of Tricks, section 2.1).
    These set all biases to 0. "uniform": weights and biases of both within 1 / sqrt(fan-in) of 0, which is PyTorch's
    default. BN has scale 1 and shift 0. ``zero_gamma``: the scale of the last BN of each block is 0, so that initially
    each residual block outputs its shortcut alone (Bag of Tricks, section 3.1).
    """
    for module in model.modules():
        if initialization == "uniform" and isinstance(module, (nn.Conv2d, nn.Linear)):
            bound = 1 / math.sqrt(module.weight[0].numel())
            for parameter in module.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
            continue
        if initialization == "xavier" and isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(module.weight, generator=generator)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode=initialization, nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01, generator=generator)
        elif zero_gamma and isinstance(module, (BasicBlock, Bottleneck)):
            nn.init.zeros_(module.last_bn.weight)
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.zeros_(module.bias)
