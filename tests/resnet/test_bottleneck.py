"""Bottleneck networks for 32x32 images against torchvision's blocks, counts by hand and statements of the tweaks."""

import pytest
import torch
from nets import generator, on_meta
from torch import nn
from torchvision.models import resnet as torchvisions

from resnet.models import count_parameters, create_model
from resnet.models.blocks import BlockDesign, Bottleneck
from resnet.models.complexity import multiply_adds

DEPTHS = (11, 20, 29, 56, 164)
VARIANTS = ("original", "b", "c", "d")


def images(n=4, size=32):
    return torch.randn(n, 3, size, size, generator=generator())


def bottleneck(inside, width):
    """Parameters of three convolutions with BN, without a shortcut."""
    outside = 4 * width
    return inside * width + 9 * width**2 + width * outside + 2 * (2 * width + outside)


def by_hand(depth):
    n = (depth - 2) // 9
    total, inside = 3 * 9 * 16 + 2 * 16, 16
    for width in (16, 32, 64):
        outside = 4 * width
        total += bottleneck(inside, width) + (n - 1) * bottleneck(outside, width) + inside * outside + 2 * outside
        inside = outside
    return total + 256 * 10 + 10


STEM = 3 * 16 * 9
DEEP_STEM = (3 * 8 + 8 * 8 + 8 * 16) * 9  # without its two additional BN layers, of 8 channels each


@pytest.mark.parametrize("depth", DEPTHS)
def test_parameters_equal_a_count_by_hand(depth):
    counts = {variant: count_parameters(on_meta(f"cifar_bottleneck{depth}", variant=variant)) for variant in VARIANTS}
    assert counts["original"] == counts["b"] == by_hand(depth)
    assert counts["c"] == counts["d"] == by_hand(depth) - STEM + DEEP_STEM + 2 * 2 * 8


def test_multiply_adds_of_the_variants_equal_a_count_by_hand():
    """Each differs from the one before as the tweak says, at 11 layers."""
    original, b, c, d = (multiply_adds("cifar_bottleneck11", {"variant": variant}) for variant in VARIANTS)
    first = STEM * 32**2
    stage = 1024 * (16 * 16 + 9 * 16**2 + 16 * 64 + 16 * 64)
    halved = 256 * (64 * 32 + 9 * 32**2 + 32 * 128 + 64 * 128) + 64 * (128 * 64 + 9 * 64**2 + 64 * 256 + 128 * 256)
    assert original == first + stage + halved + 256 * 10
    # The first 1x1 convolution of a halving block at the full size of its input: four times as many positions.
    assert b - original == 3 * (256 * 64 * 32 + 64 * 128 * 64)
    assert c - b == (DEEP_STEM - STEM) * 32**2
    assert d == c


@pytest.mark.parametrize(("inside", "width", "stride"), [(64, 16, 1), (16, 16, 1), (64, 32, 2)])
def test_a_block_computes_what_torchvisions_does(inside, width, stride):
    downsample = None
    if inside != 4 * width:
        downsample = nn.Sequential(nn.Conv2d(inside, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))
    theirs = torchvisions.Bottleneck(inside, width, stride, downsample)
    ours = BlockDesign(bottleneck=True, variant="b").stage(inside, width, stride, blocks=1)[0]
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(4, inside, 9, 8, generator=generator())
    torch.testing.assert_close(ours(x), theirs(x))  # with the batch's statistics
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))  # with those kept from it


def test_the_original_block_by_its_formula():
    block = Bottleneck(64, 32, 2, stride_first=True, downsample=None).eval()
    block.downsample = nn.Conv2d(64, 128, 1, 2, bias=False)
    x = torch.randn(2, 64, 8, 8, generator=generator())
    y = torch.relu(block.bn1(nn.functional.conv2d(x[:, :, ::2, ::2], block.conv1.weight)))
    y = torch.relu(block.bn2(nn.functional.conv2d(y, block.conv2.weight, padding=1)))
    y = block.bn3(nn.functional.conv2d(y, block.conv3.weight))
    torch.testing.assert_close(block(x), torch.relu(y + block.downsample(x)))


def test_projections_only_where_the_shape_changes():
    paths = [path for path, _ in on_meta("cifar_bottleneck29").named_modules() if path.endswith("downsample")]
    assert paths == ["layer1.0.downsample", "layer2.0.downsample", "layer3.0.downsample"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_channels_last_and_bf16(variant):
    model = create_model("cifar_bottleneck11", variant=variant, generator=generator())
    exact = model(images())
    model, x = model.to(memory_format=torch.channels_last), images().to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x), exact, rtol=1e-3, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(x)
    assert logits.dtype == torch.bfloat16 and torch.isfinite(logits).all()


def test_variant_d_averages_before_the_projection():
    model = create_model("cifar_bottleneck11", variant="d", generator=generator()).eval()
    _, convolution, bn = model.layer2[0].downsample
    x = torch.randn(2, 64, 8, 8, generator=generator())
    means = x.reshape(2, 64, 4, 2, 4, 2).mean(dim=(3, 5))
    torch.testing.assert_close(model.layer2[0].downsample(x), bn(convolution(means)))
    assert convolution.stride == (1, 1)
