"""Networks for 32x32 images (He et al. 2015, section 4.2): plain and residual ones of 6n+2 layers, and bottlenecks.

A first 3x3 convolution; three stages of n blocks on maps of 32, 16 and 8 pixels with 16, 32 and 64 channels,
subsampled by stride 2; global average pooling; one fully connected layer. A block of two 3x3 convolutions makes 6n+2
layers. The paper has no bottlenecks for these images: those of 9n+2 layers are its ImageNet blocks at these widths.
"""

import torch
from torch import nn

from resnet.models.blocks import PADDINGS, SHORTCUTS, VARIANTS, BlockDesign, check_choice
from resnet.models.net import INITIALIZATIONS, Net, make_stem

IMAGE_SIZE = 32  # pixels along a side of the images that these nets were made for
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
    """A residual net of ``depth`` = 6n+2 weighted layers.

    ``shortcut``: "A" identity with zeros for new channels, "B" projections where the shape changes, "C" projections
    everywhere (section 4.1). ``shortcut_padding``: option A puts the zero channels at the "end" or half on "both"
    sides. ``conv_bias``: biases in the convolutions, which the paper leaves open. ``zero_gamma``: the last BN of each
    block starts with scale 0 (Bag of Tricks, section 3.1). ``initialization``: He's, which keeps the variance of the
    gradients ("fan_out") or that of the activations ("fan_in"), Xavier's, or PyTorch's own "uniform". Raises
    ValueError.
    """
    check_choice("shortcut", shortcut, SHORTCUTS)
    check_choice("initialization", initialization, INITIALIZATIONS)
    check_choice("shortcut_padding", shortcut_padding, PADDINGS)
    design = BlockDesign(
        shortcut=shortcut, shortcut_padding=shortcut_padding, conv_bias=conv_bias, projection_bias=conv_bias
    )
    return _net(depth, 2, design, num_classes, zero_gamma, generator, initialization)


def plain(depth: int, conv_bias: bool = False, num_classes: int = 10, generator: torch.Generator | None = None) -> Net:
    """The same net without shortcuts: as many parameters as the residual net with option A. Raises ValueError."""
    return _net(depth, 2, BlockDesign(shortcut=None, conv_bias=conv_bias), num_classes, False, generator)


def bottleneck(
    depth: int,
    variant: str = "original",
    zero_gamma: bool = False,
    num_classes: int = 10,
    generator: torch.Generator | None = None,
) -> Net:
    """A residual net of ``depth`` = 9n+2 weighted layers: bottlenecks of width 16, 32, 64 with 64, 128, 256 outputs.

    Projection shortcuts where the shape changes (option B), BN and ReLU after the convolutions.

    ``variant``: "original" or a tweak of Bag of Tricks, section 4, in the form that suits 32x32 images, each with
    those before it. "b": the stride of a downsampling bottleneck is that of its 3x3 convolution, not of the first 1x1.
    "c": three 3x3 convolutions of 8, 8 and 16 channels, half the width first as in the paper and none with a stride,
    in place of the first one of 16. "d": a 2x2 average pooling instead of a stride before the projection of a
    downsampling shortcut. ``zero_gamma``: the last BN of each block starts with scale 0 (section 3.1). Raises
    ValueError.
    """
    check_choice("variant", variant, VARIANTS)
    return _net(depth, 3, BlockDesign(bottleneck=True, variant=variant), num_classes, zero_gamma, generator)


def _net(depth, convolutions, design, num_classes, zero_gamma, generator, initialization="fan_out") -> Net:
    """A net of blocks with so many ``convolutions`` each."""
    layers = 3 * convolutions  # in one block of each stage
    if depth < layers + 2 or (depth - 2) % layers:
        nearest = layers * max(1, round((depth - 2) / layers)) + 2
        first = ", ".join(str(layers * n + 2) for n in (1, 2, 3))
        raise ValueError(f"depth {depth} is not {layers}n+2 with n >= 1 ({first}, ...); the nearest is {nearest}")
    stem = make_stem(WIDTH, kernel=3, stride=1, deep=design.variant in ("c", "d"), conv_bias=design.conv_bias)
    blocks = 3 * ((depth - 2) // layers,)
    options = (num_classes, zero_gamma, generator, initialization)
    return Net(depth, stem, nn.Identity(), WIDTH, blocks, design, *options)
