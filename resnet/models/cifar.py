"""The plain and residual 6n+2-layer networks for 32x32 images (He et al. 2015, section 4.2).

A first 3x3 convolution; 6n 3x3 convolutions on maps of 32, 16 and 8 pixels with 16, 32 and 64 channels, 2n each,
subsampled by stride 2; global average pooling; one fully connected layer. State-dict keys are those of
torchvision's ResNet: ``conv1``, ``bn1``, ``layer1.0.conv1``, ``layer1.0.bn1``, ..., ``fc``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHORTCUTS = ("A", "B", "C")
PADDINGS = ("end", "both")


class PadShortcut(nn.Module):
    """Option A: every second pixel in each direction, and zeros for the channels that the input lacks.

    Maps (N, C_in, H, W) to (N, C_out, ceil(H / stride), ceil(W / stride)); it has no parameters.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, padding: str):
        super().__init__()
        missing = out_channels - in_channels
        self.stride = stride
        self.before = missing // 2 if padding == "both" else 0
        self.after = missing - self.before

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.before, self.after))


class Block(nn.Module):
    """Two 3x3 convolutions, each followed by BN. With a shortcut (``downsample`` or the identity) it is residual.

    Maps (N, C_in, H, W) to (N, C_out, H / stride, W / stride).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, residual: bool, downsample, conv_bias: bool):
        super().__init__()
        self.residual = residual
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=conv_bias)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=conv_bias)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        if self.residual:
            out = out + (x if self.downsample is None else self.downsample(x))
        return F.relu(out, inplace=True)


class CifarNet(nn.Module):
    """A 6n+2-layer network; built by :func:`resnet` and :func:`plain`."""

    def __init__(self, depth, shortcut, shortcut_padding, conv_bias, num_classes, generator):
        """``shortcut=None`` leaves the shortcuts out: a plain net."""
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            nearest = 6 * max(1, round((depth - 2) / 6)) + 2
            raise ValueError(f"depth {depth} is not 6n+2 with n >= 1 (8, 14, 20, ...); the nearest is {nearest}")
        self.depth = depth
        self._block_options = dict(shortcut=shortcut, padding=shortcut_padding, conv_bias=conv_bias)
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=conv_bias)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, 1, blocks)
        self.layer2 = self._stage(16, 32, 2, blocks)
        self.layer3 = self._stage(32, 64, 2, blocks)
        self.fc = nn.Linear(64, num_classes)
        initialize(self, generator)

    def _stage(self, in_channels: int, out_channels: int, stride: int, blocks: int) -> nn.Sequential:
        first = self._block(in_channels, out_channels, stride)
        return nn.Sequential(first, *(self._block(out_channels, out_channels, 1) for _ in range(blocks - 1)))

    def _block(self, in_channels: int, out_channels: int, stride: int) -> Block:
        shortcut, conv_bias = self._block_options["shortcut"], self._block_options["conv_bias"]
        same_shape = stride == 1 and in_channels == out_channels
        downsample = None
        if shortcut == "C" or (shortcut == "B" and not same_shape):
            projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=conv_bias)
            downsample = nn.Sequential(projection, nn.BatchNorm2d(out_channels))
        elif shortcut == "A" and not same_shape:
            downsample = PadShortcut(in_channels, out_channels, stride, self._block_options["padding"])
        return Block(in_channels, out_channels, stride, shortcut is not None, downsample, conv_bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean(dim=(2, 3)))


def initialize(model: nn.Module, generator: torch.Generator | None = None) -> None:
    """He initialisation, in the order of ``model.modules()``, from one generator.

    Convolutions: normal with variance 2 / (k * k * C_out) (He et al., "Delving Deep into Rectifiers", eq. 14, the
    backward form, which the authors' later public code uses). BN: scale 1, shift 0. Fully connected: normal with
    standard deviation 0.01. All biases 0.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01, generator=generator)
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.zeros_(module.bias)


def _choice(name: str, value, accepted: tuple) -> None:
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}, not {value!r}")


def resnet(
    depth: int,
    shortcut: str = "A",
    shortcut_padding: str = "end",
    conv_bias: bool = False,
    num_classes: int = 10,
    generator: torch.Generator | None = None,
) -> CifarNet:
    """A residual net of ``depth`` = 6n+2 weighted layers.

    ``shortcut``: "A" identity with zeros for new channels, "B" projections where the shape changes, "C" projections
    everywhere (section 4.1). ``shortcut_padding``: option A puts the zero channels at the "end" or half on "both"
    sides. ``conv_bias``: biases in the convolutions, which the paper leaves open. Raises ValueError.
    """
    _choice("shortcut", shortcut, SHORTCUTS)
    _choice("shortcut_padding", shortcut_padding, PADDINGS)
    return CifarNet(depth, shortcut, shortcut_padding, conv_bias, num_classes, generator)


def plain(
    depth: int, conv_bias: bool = False, num_classes: int = 10, generator: torch.Generator | None = None
) -> CifarNet:
    """The same net without shortcuts: as many parameters as the residual net with option A. Raises ValueError."""
    return CifarNet(depth, None, "end", conv_bias, num_classes, generator)
