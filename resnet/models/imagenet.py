"""Networks for ImageNet (He et al. 2015, Table 1) and their tweaks (He T. et al. 2018, "Bag of Tricks", section 4).

A 7x7 convolution and a max-pooling, each with stride 2; four stages of blocks with 64, 128, 256 and 512 channels, on
maps of 56, 28, 14 and 7 pixels if the images have 224; global average pooling; one fully connected layer. Blocks have
two 3x3 convolutions in nets of 18 and 34 layers and are bottlenecks in deeper ones. Images of any size will do.
"""

import torch
from torch import nn

from resnet.models.blocks import SHORTCUTS, VARIANTS, BlockDesign, check_choice
from resnet.models.net import INITIALIZATIONS, Net, make_stem

IMAGE_SIZE = 224  # pixels along a side of the images that these nets were made for
WIDTH = 64  # channels of the first stage
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
PLAIN_DEPTHS = (18, 34)


def resnet(
    depth: int,
    variant: str = "original",
    shortcut: str = "B",
    zero_gamma: bool = False,
    small_stem: bool = False,
    conv_bias: bool = False,
    first_projection: bool = False,
    initialization: str = "fan_out",
    num_classes: int = 1000,
    generator: torch.Generator | None = None,
) -> Net:
    """A residual net of ``depth`` 18, 34, 50, 101 or 152.

    ``variant``: "original", or a tweak with those before it. "b": the stride of a downsampling bottleneck is that of
    its 3x3 convolution, not of the first 1x1; torchvision's nets are these. "c": three 3x3 convolutions of 32, 32
    and 64 channels, the first with stride 2, in place of the 7x7 one. "d": a 2x2 average pooling with stride 2 before
    the 1x1 convolution of a downsampling shortcut, whose stride becomes 1. Nets of 18 and 34 layers have no
    bottlenecks: "original" and "b" are the same.

    ``shortcut``: "A" identity with zeros for new channels, "B" projections where the shape changes, "C" projections
    everywhere (He et al. 2015, section 4.1). ``zero_gamma``: the last BN of each block starts with scale 0 (Bag of
    Tricks, section 3.1). ``small_stem``: a 3x3 convolution without stride and no max-pooling in the place of the stem,
    as is usual for images of 32 pixels. ``conv_bias``: biases in the 3x3 convolutions of nets without bottlenecks;
    ``first_projection``: a projection at the beginning of the first stage too, whose shape does not change: as a report
    has them. ``initialization``: He's, "fan_out" or "fan_in", "xavier", which the text of Bag of Tricks names, or
    PyTorch's own, "uniform".

    Raises ValueError, also for variant "d" with shortcut "A", for ``small_stem`` with variants "c" and "d", which have
    a stem of their own, for biases in bottlenecks, and for a first projection with a shortcut other than "B".
    """
    check_choice("initialization", initialization, INITIALIZATIONS)
    if conv_bias and depth >= 50:
        raise ValueError("conv_bias is for nets of 18 and 34 layers: bottlenecks have no biases")
    if first_projection and shortcut != "B":
        raise ValueError(f"first_projection adds to shortcut 'B', not to {shortcut!r}")
    check_choice("depth", depth, tuple(BLOCKS))
    check_choice("variant", variant, VARIANTS)
    check_choice("shortcut", shortcut, SHORTCUTS)
    if (variant, shortcut) == ("d", "A"):
        raise ValueError("variant 'd' pools before projections, and shortcut 'A' has none")
    if small_stem and variant in ("c", "d"):
        raise ValueError(f"variant {variant!r} has a stem of its own, so there is none to make small")
    design = BlockDesign(depth >= 50, shortcut, variant, conv_bias=conv_bias, first_projection=first_projection)
    return _net(depth, design, num_classes, zero_gamma, generator, initialization, small_stem)


def plain(depth: int, num_classes: int = 1000, generator: torch.Generator | None = None) -> Net:
    """A net of ``depth`` 18 or 34 without shortcuts: as many parameters as the residual net with option A.

    Raises ValueError.
    """
    check_choice("depth", depth, PLAIN_DEPTHS)
    return _net(depth, BlockDesign(shortcut=None), num_classes, False, generator)


def _net(depth, design, num_classes, zero_gamma, generator, initialization="fan_out", small_stem=False) -> Net:
    if small_stem:
        stem, maxpool = make_stem(WIDTH, kernel=3, stride=1), nn.Identity()
    else:
        stem = make_stem(WIDTH, kernel=7, stride=2, deep=design.variant in ("c", "d"))
        maxpool = nn.MaxPool2d(3, stride=2, padding=1)
    options = (num_classes, zero_gamma, generator, initialization)
    return Net(depth, stem, maxpool, WIDTH, BLOCKS[depth], design, *options)
