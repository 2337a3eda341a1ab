"""A small residual network without batch normalisation for MNIST's 28x28 images.

    convolution 5x5, 16    24x24    ReLU, max-pooling 2: 12x12
    residual block, 16     12x12    convolution 3x3, ReLU, convolution 3x3, added to the block's input, ReLU
    convolution 5x5, 32    8x8      ReLU, max-pooling 2: 4x4
    residual block, 32     4x4
    fully connected        512 to num_classes

The 5x5 convolutions have no padding. The 3x3 convolutions are padded by one pixel, so maps keep their size in a block.
All convolutions have biases, because there is no BN. ReLU and max-pooling commute, so their order makes no difference.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnet.models.blocks import check_choice
from resnet.models.net import initialize

IMAGE_SIZE = 28  # pixels along a side of the images
WIDTHS = 16, 32
INITIALIZATIONS = ("uniform", "fan_out")


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions without BN and an identity shortcut; maps (N, C, H, W) to the same shape."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block's output."""
        return F.relu(x + self.conv2(F.relu(self.conv1(x), inplace=True)), inplace=True)


class SmallResidualNet(nn.Module):
    """The network of this module; maps float images (N, 1, 28, 28) to logits (N, num_classes)."""

    def __init__(self, num_classes: int):
        super().__init__()
        first, second = WIDTHS
        self.conv1 = nn.Conv2d(1, first, 5)
        self.block1 = ResidualBlock(first)
        self.conv2 = nn.Conv2d(first, second, 5)
        self.block2 = ResidualBlock(second)
        self.fc = nn.Linear(4 * 4 * second, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits."""
        x = self.block1(F.max_pool2d(F.relu(self.conv1(x), inplace=True), 2))
        x = self.block2(F.max_pool2d(F.relu(self.conv2(x), inplace=True), 2))
        return self.fc(x.flatten(1))


def residual(
    initialization: str = "uniform", num_classes: int = 10, generator: torch.Generator | None = None
) -> SmallResidualNet:
    """Build the small residual network.

    ``initialization``: "uniform", weights and biases within 1 / sqrt(fan-in) of 0, is PyTorch's default, which the
    report of this network's accuracy used; "fan_out" is He's, as in the other networks here (see
    :func:`resnet.models.net.initialize`). Raises ValueError.
    """
    check_choice("initialization", initialization, INITIALIZATIONS)
    model = SmallResidualNet(num_classes)
    initialize(model, generator, initialization=initialization)
    return model
