"""Networks for ImageNet (He et al. 2015, Table 1) and their tweaks (He T. et al. 2018, "Bag of Tricks", section 4).

A net has a 7x7 convolution and a max-pooling, each with stride 2; four stages of blocks with 64, 128, 256 and 512
channels, on maps of 56, 28, 14 and 7 pixels for images of 224; global average pooling; and one fully connected layer.
Blocks have two 3x3 convolutions in nets of 18 and 34 layers, and are bottlenecks in deeper nets. Images may have any
size.
"""

import torch
from torch import nn

from resnet.models.blocks import SHORTCUTS, VARIANTS, BlockDesign, check_choice
from resnet.models.net import INITIALIZATIONS, Net, make_stem

IMAGE_SIZE = 224  # pixels along a side of the images that these nets are made for
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
    """Build a residual net of ``depth`` 18, 34, 50, 101 or 152.

    ``variant``: "original" or a tweak; each tweak includes the earlier ones. "b": the 3x3 convolution of a downsampling
    bottleneck has the stride, not the first 1x1, as in torchvision's nets. "c": three 3x3 convolutions of 32, 32 and 64
    channels, the first with stride 2, replace the 7x7 one. "d": a 2x2 average pooling with stride 2 precedes the 1x1
    convolution of a downsampling shortcut, whose stride becomes 1. Nets of 18 and 34 layers have no bottlenecks, so
    "original" and "b" are the same.

    ``shortcut``: "A" identity with zeros for new channels, "B" projections where the shape changes, "C" projections
    everywhere (He et al. 2015, section 4.1). ``zero_gamma``: the last BN of each block starts with scale 0 (Bag of
    Tricks, section 3.1); the channels that option A adds then stay 0 for ever. ``small_stem``: a 3x3 convolution
    without stride replaces the stem and its max-pooling, as is usual for images of 32 pixels. A report that is
    reproduced here uses two more options: ``conv_bias`` adds biases to the 3x3 convolutions of nets without
    bottlenecks, and ``first_projection`` starts the first stage with a projection, too, although its shape does not
    change. ``initialization``: He's, "fan_out" or "fan_in"; "xavier", which the text of Bag of Tricks names; or
    PyTorch's default, "uniform".

    Raises ValueError, also for variant "d" with shortcut "A", for ``small_stem`` with variants "c" and "d", which have
    their own stem, for biases in bottlenecks, and for a first projection with a shortcut other than "B".
    """
    check_choice("initialization", initialization, INITIALIZATIONS)
    if conv_bias and depth >= 50:
        raise ValueError("conv_bias is for nets of 18 and 34 layers: bottlenecks have no biases")
    if first_projection and shortcut != "B":
        raise ValueError(f"first_projection needs shortcut 'B', not {shortcut!r}")
    check_choice("depth", depth, tuple(BLOCKS))
    check_choice("variant", variant, VARIANTS)
    check_choice("shortcut", shortcut, SHORTCUTS)
    if (variant, shortcut) == ("d", "A"):
        raise ValueError("variant 'd' pools before projections, but shortcut 'A' has none")
    if small_stem and variant in ("c", "d"):
        raise ValueError(f"variant {variant!r} has its own stem, so it can't have a small_stem")
    design = BlockDesign(depth >= 50, shortcut, variant, conv_bias=conv_bias, first_projection=first_projection)
    return _net(depth, design, num_classes, zero_gamma, generator, initialization, small_stem)


def plain(depth: int, num_classes: int = 1000, generator: torch.Generator | None = None) -> Net:
    """Build a net of ``depth`` 18 or 34 without shortcuts, with as many parameters as with option A.

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
