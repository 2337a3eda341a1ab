"""Networks for 32x32 images (He et al. 2015, section 4.2): plain, residual and bottleneck nets.

A net has a first 3x3 convolution; three stages of n blocks on maps of 32, 16 and 8 pixels with 16, 32 and 64 channels,
subsampled by stride 2; global average pooling; and one fully connected layer. Blocks of two 3x3 convolutions give 6n+2
layers. The paper has no bottleneck nets for these images; the nets of 9n+2 layers here use its ImageNet blocks at these
widths.
"""

import torch
from torch import nn

from resnet.models.blocks import PADDINGS, SHORTCUTS, VARIANTS, BlockDesign, check_choice
from resnet.models.net import INITIALIZATIONS, Net, make_stem

IMAGE_SIZE = 32  # pixels along a side of the images that these nets are made for
WIDTH = 16  # channels of the first stage


def resnet(
    depth: int,
    shortcut: str = "A",
    shortcut_padding: str = "end",
    conv_bias: bool = False,
    num_classes: int = 10,
    zero_gamma: bool = False,
    initialization: str = "fan_out",
    generator: torch.Generator | None = None,
) -> Net:
    """Build a residual net of ``depth`` = 6n+2 weighted layers.

    ``shortcut``: "A" identity with zeros for new channels, "B" projections where the shape changes, "C" projections
    everywhere (section 4.1). ``shortcut_padding``: option A puts the zero channels at the "end" or half of them on
    "both" sides. ``conv_bias``: biases in the convolutions, which the paper leaves open. ``zero_gamma``: the last BN of
    each block starts with scale 0 (Bag of Tricks, section 3.1); the channels that option A adds then stay 0 for ever,
    because their shortcut is 0, too, and ReLU passes no gradient at 0, so a run with both is refused.
    ``initialization``: He's, which preserves the variance of gradients ("fan_out") or activations ("fan_in"), Xavier's
    ("xavier"), or PyTorch's default ("uniform"). Raises ValueError.
    """
    check_choice("shortcut", shortcut, SHORTCUTS)
    check_choice("initialization", initialization, INITIALIZATIONS)
    check_choice("shortcut_padding", shortcut_padding, PADDINGS)
    design = BlockDesign(
        shortcut=shortcut, shortcut_padding=shortcut_padding, conv_bias=conv_bias, projection_bias=conv_bias
    )
    return _net(depth, 2, design, num_classes, zero_gamma, generator, initialization)


def plain(depth: int, conv_bias: bool = False, num_classes: int = 10, generator: torch.Generator | None = None) -> Net:
    """Build the same net without shortcuts, with as many parameters as with option A. Raises ValueError."""
    return _net(depth, 2, BlockDesign(shortcut=None, conv_bias=conv_bias), num_classes, False, generator)


def bottleneck(
    depth: int,
    variant: str = "original",
    zero_gamma: bool = False,
    num_classes: int = 10,
    generator: torch.Generator | None = None,
) -> Net:
    """Build a bottleneck net of ``depth`` = 9n+2 weighted layers: widths 16, 32, 64, with 64, 128, 256 outputs.

    It has projection shortcuts where the shape changes (option B), and BN and ReLU after the convolutions.

    ``variant``: "original" or a tweak of Bag of Tricks, section 4, adapted to 32x32 images; each tweak includes the
    earlier ones. "b": the 3x3 convolution of a downsampling bottleneck has the stride, not the first 1x1. "c": three
    3x3 convolutions of 8, 8 and 16 channels replace the first one of 16; as in the paper they start with half the
    width, but none has a stride. "d": a 2x2 average pooling replaces the stride of the projection of a downsampling
    shortcut. ``zero_gamma``: the last BN of each block starts with scale 0 (section 3.1). Raises ValueError.
    """
    check_choice("variant", variant, VARIANTS)
    return _net(depth, 3, BlockDesign(bottleneck=True, variant=variant), num_classes, zero_gamma, generator)


def _net(depth, convolutions, design, num_classes, zero_gamma, generator, initialization="fan_out") -> Net:
    """Build a net whose blocks have ``convolutions`` convolutions each."""
    layers = 3 * convolutions  # in one block of each stage
    if depth < layers + 2 or (depth - 2) % layers:
        nearest = layers * max(1, round((depth - 2) / layers)) + 2
        first = ", ".join(str(layers * n + 2) for n in (1, 2, 3))
        raise ValueError(f"depth {depth} is not {layers}n+2 with n >= 1 ({first}, ...); the nearest is {nearest}")
    stem = make_stem(WIDTH, kernel=3, stride=1, deep=design.variant in ("c", "d"), conv_bias=design.conv_bias)
    blocks = 3 * ((depth - 2) // layers,)
    options = (num_classes, zero_gamma, generator, initialization)
    return Net(depth, stem, nn.Identity(), WIDTH, blocks, design, *options)
