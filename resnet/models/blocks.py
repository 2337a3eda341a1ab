"""Plain and residual blocks (He et al. 2015, sections 3 and 4; tweaks: He T. et al. 2018, "Bag of Tricks", section 4).

Their weights have torchvision's names: ``conv1``, ``bn1``, ``conv2``, ..., ``downsample.0``.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

SHORTCUTS = ("A", "B", "C")
PADDINGS = ("end", "both")
VARIANTS = ("original", "b", "c", "d")
EXPANSION = 4  # output channels of a bottleneck, in widths


def check_choice(name: str, value, accepted: tuple) -> None:
    """Raise ValueError, with a list of the accepted values, for any other value."""
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}, not {value!r}")


class _Subsampling(torch.autograd.Function):
    """Subsampling of every ``stride``-th pixel in each direction, with a gradient in channels-last memory.

    PyTorch's gradient of a slice is contiguous, but gradients of convolutions are channels-last, and on a CPU the
    backward pass of ReLU takes 30 times as long on mixed layouts.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, stride: int) -> Tensor:
        ctx.shape, ctx.stride = x.shape, stride
        return x[:, :, ::stride, ::stride]

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        like = {"dtype": gradient.dtype, "device": gradient.device, "memory_format": torch.channels_last}
        whole = torch.empty(ctx.shape, **like).zero_()
        whole[:, :, :: ctx.stride, :: ctx.stride] = gradient
        return whole, None


class PadShortcut(nn.Module):
    """Shortcut option A: subsampled pixels, and zeros for the channels that the input lacks.

    Maps (N, C_in, H, W) to (N, C_out, ceil(H / stride), ceil(W / stride)); it has no parameters.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, padding: str):
        super().__init__()
        missing = out_channels - in_channels
        self.stride = stride
        self.before = missing // 2 if padding == "both" else 0
        self.after = missing - self.before

    def forward(self, x: Tensor) -> Tensor:
        """Subsample and pad ``x``."""
        return F.pad(_Subsampling.apply(x, self.stride), (0, 0, 0, 0, self.before, self.after))


def projection(in_channels: int, out_channels: int, stride: int, pooled: bool, conv_bias: bool) -> nn.Sequential:
    """Build a 1x1 convolution with BN; it maps (N, C_in, H, W) to (N, C_out, ceil(H / stride), ceil(W / stride)).

    ``pooled``: an average pooling before the convolution has the stride, so that no pixel is ignored (ResNet-D).
    """
    layers = [nn.Conv2d(in_channels, out_channels, 1, 1 if pooled else stride, bias=conv_bias)]
    if pooled and stride > 1:
        # For odd sizes the last row averages the pixels that exist, so the size matches the other branch's output.
        layers.insert(0, nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False))
    return nn.Sequential(*layers, nn.BatchNorm2d(out_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each followed by BN; if ``residual``, with ``downsample`` or the identity as shortcut.

    Maps (N, C_in, H, W) to (N, C_out, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, residual: bool, downsample, conv_bias: bool):
        super().__init__()
        self.residual = residual
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=conv_bias)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=conv_bias)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = downsample

    @property
    def last_bn(self) -> nn.BatchNorm2d:
        """The BN of the last convolution."""
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block's output."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        if self.residual:
            out = out + (x if self.downsample is None else self.downsample(x))
        return F.relu(out, inplace=True)


class Bottleneck(nn.Module):
    """Convolutions 1x1 to ``width`` channels, 3x3, and 1x1 to 4 times as many channels, each followed by BN.

    ``stride_first``: the first 1x1 convolution has the stride, as in He et al. 2015; else the 3x3 convolution has it
    (ResNet-B). Maps (N, C_in, H, W) to (N, 4 * width, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, in_channels: int, width: int, stride: int, stride_first: bool, downsample):
        super().__init__()
        first, second = (stride, 1) if stride_first else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, width, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, second, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, EXPANSION * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(EXPANSION * width)
        self.downsample = downsample

    @property
    def last_bn(self) -> nn.BatchNorm2d:
        """The BN of the last convolution."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block's output."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        out = out + (x if self.downsample is None else self.downsample(x))
        return F.relu(out, inplace=True)


@dataclass(frozen=True)
class BlockDesign:
    """Options that all blocks of a net share.

    bottleneck: :class:`Bottleneck` instead of :class:`BasicBlock`. shortcut: one of SHORTCUTS, or None for a plain
    net. variant: one of VARIANTS. shortcut_padding: one of PADDINGS, for option A. conv_bias: biases in basic blocks.
    projection_bias: biases in the projections of options B and C. first_projection: with option B, the first stage
    also starts with a projection, although its shape does not change.
    """

    bottleneck: bool = False
    shortcut: str | None = "B"
    variant: str = "original"
    shortcut_padding: str = "end"
    conv_bias: bool = False
    projection_bias: bool = False
    first_projection: bool = False

    def out_channels(self, width: int) -> int:
        """Return the output channels of a block of this ``width``."""
        return EXPANSION * width if self.bottleneck else width

    def stage(self, in_channels: int, width: int, stride: int, blocks: int) -> nn.Sequential:
        """Build a stage of ``blocks`` blocks, the first of which may have a stride and other input channels."""
        first = self._block(in_channels, width, stride, self.first_projection)
        return nn.Sequential(first, *(self._block(self.out_channels(width), width, 1) for _ in range(blocks - 1)))

    def _block(self, in_channels: int, width: int, stride: int, projected: bool = False) -> nn.Module:
        downsample = self._shortcut(in_channels, self.out_channels(width), stride, projected)
        if self.bottleneck:
            return Bottleneck(in_channels, width, stride, self.variant == "original", downsample)
        return BasicBlock(in_channels, width, stride, self.shortcut is not None, downsample, self.conv_bias)

    def _shortcut(self, in_channels: int, out_channels: int, stride: int, projected: bool) -> nn.Module | None:
        """Build a shortcut; None means the identity, or no shortcut in a plain net."""
        same_shape = stride == 1 and in_channels == out_channels
        if self.shortcut == "C" or projected or (self.shortcut == "B" and not same_shape):
            return projection(in_channels, out_channels, stride, self.variant == "d", self.projection_bias)
        if self.shortcut == "A" and not same_shape:
            return PadShortcut(in_channels, out_channels, stride, self.shortcut_padding)
        return None
