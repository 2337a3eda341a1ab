"""Bottleneck networks for 32x32 images against torchvision's blocks, counts by hand and statements of the tweaks."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet as torchvisions

from resnet.models import changed_options, count_parameters, create_model
from resnet.models.blocks import BlockDesign, Bottleneck
from resnet.models.complexity import multiply_adds

DEPTHS = (11, 20, 29, 56, 164)
VARIANTS = ("original", "b", "c", "d")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=4, size=32):
    return torch.randn(n, 3, size, size, generator=generator())


def on_meta(name, **options):
    with torch.device("meta"):
        return create_model(name, **options)


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


def test_depth_counts_the_weighted_layers():
    for depth in DEPTHS:
        named = on_meta(f"cifar_bottleneck{depth}").named_modules()
        layers = [m for path, m in named if isinstance(m, (nn.Conv2d, nn.Linear)) and "downsample" not in path]
        assert len(layers) == depth


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


def test_where_the_strides_are():
    for variant, convolution in (("original", "conv1"), ("b", "conv2"), ("c", "conv2"), ("d", "conv2")):
        model = on_meta("cifar_bottleneck20", variant=variant)
        found = {path for path, m in model.named_modules() if getattr(m, "stride", 1) in (2, (2, 2))}
        assert found == {f"layer{stage}.0.{name}" for stage in (2, 3) for name in (convolution, "downsample.0")}
        pools = {path for path, m in model.named_modules() if isinstance(m, nn.AvgPool2d)}
        assert pools == ({"layer2.0.downsample.0", "layer3.0.downsample.0"} if variant == "d" else set())


def test_stems():
    for variant, channels in (("original", [16]), ("b", [16]), ("c", [8, 8, 16]), ("d", [8, 8, 16])):
        stem = on_meta("cifar_bottleneck20", variant=variant).conv1
        convolutions = [module for module in stem.modules() if isinstance(module, nn.Conv2d)]
        assert [c.out_channels for c in convolutions] == channels
        assert {(c.kernel_size, c.stride, c.padding) for c in convolutions} == {((3, 3), (1, 1), (1, 1))}


def test_maps_and_channels():
    model, shapes = on_meta("cifar_bottleneck11"), []
    for stage in (model.layer1, model.layer2, model.layer3):
        stage.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    model(torch.empty(1, 3, 32, 32, device="meta"))
    assert shapes == [(64, 32, 32), (128, 16, 16), (256, 8, 8)]


def test_projections_only_where_the_shape_changes():
    paths = [path for path, _ in on_meta("cifar_bottleneck29").named_modules() if path.endswith("downsample")]
    assert paths == ["layer1.0.downsample", "layer2.0.downsample", "layer3.0.downsample"]


def test_variant_d_averages_before_the_projection():
    model = create_model("cifar_bottleneck11", variant="d", generator=generator()).eval()
    pool, convolution, bn = model.layer2[0].downsample
    x = torch.randn(2, 64, 8, 8, generator=generator())
    means = x.reshape(2, 64, 4, 2, 4, 2).mean(dim=(3, 5))
    torch.testing.assert_close(model.layer2[0].downsample(x), bn(convolution(means)))
    assert convolution.stride == (1, 1)


@pytest.mark.parametrize("name", ["cifar_bottleneck20", "cifar_resnet20"])
def test_with_zero_gamma_each_block_is_at_first_its_shortcut(name):
    model, checked = create_model(name, zero_gamma=True, generator=generator()), []

    def compare(block, inputs, output):
        shortcut = inputs[0] if block.downsample is None else block.downsample(inputs[0])
        assert torch.equal(output, torch.relu(shortcut)) and output.any()
        checked.append(block)

    blocks = [block for stage in (model.layer1, model.layer2, model.layer3) for block in stage]
    for block in blocks:
        block.register_forward_hook(compare)
    with torch.no_grad():
        model(images())
    assert checked == blocks


@pytest.mark.parametrize(("name", "last"), [("cifar_bottleneck20", "bn3"), ("cifar_resnet20", "bn2")])
def test_zero_gamma_changes_the_last_bn_of_each_block_alone(name, last):
    zero = create_model(name, zero_gamma=True, generator=generator(4)).state_dict()
    one = create_model(name, generator=generator(4)).state_dict()
    changed = {key for key in one if not torch.equal(zero[key], one[key])}
    assert changed == {key for key in one if key.startswith("layer") and key.endswith(f"{last}.weight")}
    assert not any(zero[key].any() for key in changed)


@pytest.mark.parametrize("variant", VARIANTS)
def test_output_shape_and_a_gradient_for_every_parameter(variant):
    model = create_model("cifar_bottleneck20", variant=variant, num_classes=7, generator=generator())
    logits = model(images())
    assert logits.shape == (4, 7)
    nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), path


@pytest.mark.parametrize("variant", VARIANTS)
def test_channels_last_and_bf16(variant):
    model = create_model("cifar_bottleneck11", variant=variant, generator=generator())
    exact = model(images())
    model, x = model.to(memory_format=torch.channels_last), images().to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x), exact, rtol=1e-3, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(x)
    assert logits.dtype == torch.bfloat16 and torch.isfinite(logits).all()


@pytest.mark.parametrize("size", [17, 30, 33])
def test_other_sizes(size):
    for variant in VARIANTS:
        model = on_meta("cifar_bottleneck11", variant=variant)
        assert model(torch.empty(2, 3, size, size, device="meta")).shape == (2, 10)


@pytest.mark.parametrize(("depth", "nearest"), [(0, 11), (2, 11), (10, 11), (21, 20), (50, 47), (110, 110), (165, 164)])
def test_impossible_depth_names_the_rule_and_the_nearest(depth, nearest):
    if depth == nearest:
        assert on_meta(f"cifar_bottleneck{depth}").depth == depth
        return
    with pytest.raises(ValueError, match=f"9n\\+2 with n >= 1 \\(11, 20, 29, ...\\); the nearest is {nearest}"):
        on_meta(f"cifar_bottleneck{depth}")


def test_options():
    with pytest.raises(ValueError, match="no option shortcut; its options: variant, zero_gamma, num_classes"):
        on_meta("cifar_bottleneck20", shortcut="A")
    with pytest.raises(ValueError, match="variant must be one of 'original', 'b', 'c', 'd', not 'e'"):
        on_meta("cifar_bottleneck20", variant="e")
    assert changed_options("cifar_bottleneck20", {"variant": "original", "zero_gamma": False}) == {}
