"""ImageNet networks equal torchvision's, changed as the papers say, and have the papers' counts."""

import pytest
import torch
import torchvision
from nets import generator, on_meta
from torch import nn

from resnet.models import count_parameters, create_model
from resnet.models.blocks import PadShortcut
from resnet.models.complexity import multiply_adds

PARAMETERS = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}
FIRST_BLOCKS = ("layer2.0", "layer3.0", "layer4.0")  # those that halve the maps


def images(n=2, size=64, seed=0):
    return torch.randn(n, 3, size, size, generator=generator(seed))


def randomize(model, seed=1):
    """Give BN's parameters and statistics, which are the same in all channels at first, other values."""
    draws = generator(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in (
                (module.weight, 0.2, 0.8),
                (module.bias, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 2),
            ):
                nn.init.uniform_(values, low, high, generator=draws)
    return model


def torchvisions(depth):
    return randomize(getattr(torchvision.models, f"resnet{depth}")(num_classes=10))


def assert_same_outputs(one, other, size=64):
    with torch.no_grad():
        a, b = one.eval()(images(size=size)), other.eval()(images(size=size))
    assert a.std() > 0.01
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


# --------------------------------------------------------------------------------------------------------- torchvision


@pytest.mark.parametrize(("depth", "parameters"), PARAMETERS.items())
def test_parameter_count(depth, parameters):
    assert count_parameters(on_meta(f"resnet{depth}")) == parameters
    assert count_parameters(on_meta(f"resnet{depth}", variant="b")) == parameters


@pytest.mark.parametrize("depth", [34, 101, 152])  # the others: below
def test_variant_b_computes_what_torchvision_does(depth):
    ours, theirs = create_model(f"resnet{depth}", variant="b", num_classes=10), torchvisions(depth)
    ours.load_state_dict(theirs.state_dict())
    assert_same_outputs(ours, theirs)


def test_names_and_order_of_the_parameters_are_torchvisions():
    for depth in PARAMETERS:
        with torch.device("meta"):
            theirs = getattr(torchvision.models, f"resnet{depth}")()
        ours = on_meta(f"resnet{depth}")
        assert list(ours.state_dict()) == list(theirs.state_dict())
        assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]


@pytest.mark.parametrize("depth", [18, 50])
def test_gradients_and_statistics_of_a_training_step_are_torchvisions(depth):
    ours, theirs = create_model(f"resnet{depth}", variant="b", num_classes=10).double(), torchvisions(depth).double()
    ours.load_state_dict(theirs.state_dict())
    for model in (ours, theirs):
        logits = model.train()(images(4).double())
        nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    for (name, one), (_, other) in zip(ours.named_parameters(), theirs.named_parameters()):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-6, atol=1e-9, msg=lambda text, name=name: name + text)
    for (name, one), (_, other) in zip(ours.named_buffers(), theirs.named_buffers()):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12, msg=lambda text, name=name: name + text)


def changed_torchvision(depth, variant):
    """torchvision's net turned into a variant by hand: the stride back, another stem, pooling before projections."""
    model = torchvisions(depth)
    for name in FIRST_BLOCKS:
        block = model.get_submodule(name)
        if variant == "original" and depth >= 50:
            block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)
        if variant == "d":
            convolution, bn = block.downsample
            convolution.stride = (1, 1)
            pool = nn.AvgPool2d(kernel_size=2, stride=2, ceil_mode=True, count_include_pad=False)
            block.downsample = nn.Sequential(pool, convolution, bn)
    if variant in ("c", "d"):
        layers = []
        for inside, outside, stride in ((3, 32, 2), (32, 32, 1)):
            layers += [nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]
        model.conv1 = nn.Sequential(*layers, nn.Conv2d(32, 64, 3, 1, 1, bias=False))
    return randomize(model)


@pytest.mark.parametrize("size", [64, 75])
@pytest.mark.parametrize("variant", ["original", "b", "c", "d"])
@pytest.mark.parametrize("depth", [18, 50])
def test_each_variant_is_torchvisions_net_changed_by_hand(depth, variant, size):
    theirs = changed_torchvision(depth, variant)
    ours = create_model(f"resnet{depth}", variant=variant, num_classes=10)
    ours.load_state_dict(theirs.state_dict())
    assert_same_outputs(ours, theirs, size)


# -------------------------------------------------------------------------------------------------------------- papers


@pytest.mark.parametrize(
    ("name", "options", "printed", "digits"),
    [  # He et al. 2015, Table 1
        ("resnet18", {}, 1.8, 1),
        ("resnet34", {"shortcut": "A"}, 3.6, 1),
        ("resnet101", {}, 7.6, 1),
        ("resnet152", {}, 11.3, 1),
        # Bag of Tricks, Table 5
        ("resnet50", {"variant": "b"}, 4.1, 1),
        ("resnet50", {"variant": "c"}, 4.3, 1),
        ("resnet50", {"variant": "d"}, 4.3, 1),
    ],
)
def test_multiply_adds_round_to_what_the_papers_print(name, options, printed, digits):
    assert round(multiply_adds(name, options) / 1e9, digits) == printed


def test_multiply_adds_where_rounding_does_not_give_what_the_papers_print():
    """Both papers print 3.8 for ResNet-50, which is 3.86 cut off; the 3.6 of ResNet-34 is 3.66 cut off, or option A."""
    assert multiply_adds("resnet50") == 3_857_973_248
    assert multiply_adds("resnet34") == 3_663_761_408
    assert multiply_adds("resnet34", {"shortcut": "A"}) == multiply_adds("plain34") == 3_644_493_824


# ------------------------------------------------------------------------------------------------------------ shortcuts


def test_plain_nets_have_as_many_parameters_as_residual_nets_with_option_a():
    for depth in (18, 34):
        plain, residual = on_meta(f"plain{depth}"), on_meta(f"resnet{depth}", shortcut="A")
        assert list(plain.state_dict()) == list(residual.state_dict())
        assert count_parameters(plain) == count_parameters(residual)
    projections = sum(channels * 2 * channels + 2 * 2 * channels for channels in (64, 128, 256))  # with their BN
    assert count_parameters(on_meta("plain34")) == PARAMETERS[34] - projections


def test_which_blocks_have_which_shortcut():
    for name, changing in (("resnet34", 3), ("resnet50", 4)):  # bottlenecks widen the first stage's maps too
        blocks = 16
        for shortcut, kind, count in (("A", PadShortcut, changing), ("B", nn.Sequential, changing)):
            found = [m for path, m in on_meta(name, shortcut=shortcut).named_modules() if path.endswith("downsample")]
            assert [type(m) for m in found] == count * [kind]
        found = [m for path, m in on_meta(name, shortcut="C").named_modules() if path.endswith("downsample")]
        assert [type(m) for m in found] == blocks * [nn.Sequential]


# ------------------------------------------------------------------------------------------------------------- running


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("size", [32, 224])
def test_bf16_in_channels_last(size, train):
    model = create_model("resnet50", variant="d", num_classes=7, generator=generator()).train(train)
    model, x = model.to(memory_format=torch.channels_last), images(4, size).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(x)
    assert logits.shape == (4, 7) and logits.dtype == torch.bfloat16 and torch.isfinite(logits).all()
    logits.float().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize("size", [32, 224])
def test_channels_last_computes_the_same(size):
    model, x = randomize(create_model("resnet50", variant="d", num_classes=7, generator=generator())), images(4, size)
    with torch.no_grad():
        exact = model.eval()(x)
        again = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(again, exact, rtol=1e-4, atol=1e-4)


def test_a_small_stem_keeps_the_size_of_small_images():
    small, large = create_model("resnet18", small_stem=True, num_classes=10), create_model("resnet18", num_classes=10)
    images = torch.randn(2, 3, 32, 32)
    sizes = {}
    for net in (small, large):
        net.layer1.register_forward_hook(lambda module, inputs, output, net=net: sizes.update({net: output.shape[2:]}))
        assert net(images).shape == (2, 10)
    assert sizes == {small: (32, 32), large: (8, 8)}
    assert small.conv1.weight.shape == (64, 3, 3, 3) and small.conv1.stride == (1, 1)
    kept = {name for name in large.state_dict() if name != "conv1.weight"}
    assert kept == {name for name in small.state_dict() if name != "conv1.weight"}
    with pytest.raises(ValueError, match="has its own stem"):
        create_model("resnet18", variant="c", small_stem=True)


def test_a_report_s_net_has_biases_in_its_3x3_convolutions_and_a_projection_in_every_stage():
    plain = create_model("resnet18", variant="b", num_classes=10)
    reported = create_model("resnet18", variant="b", conv_bias=True, first_projection=True, num_classes=10)
    layers = {name: layer for name, layer in reported.named_modules() if isinstance(layer, torch.nn.Conv2d)}
    biased = {name for name, layer in layers.items() if layer.bias is not None}
    assert biased == {name for name, layer in layers.items() if layer.kernel_size == (3, 3)} and len(biased) == 16
    projections = [name for name in layers if "downsample" in name]
    assert projections == [f"layer{stage}.0.downsample.0" for stage in (1, 2, 3, 4)]
    channels = 4 * (64 + 128 + 256 + 512)
    assert count_parameters(reported) - count_parameters(plain) == channels + 64 * 64 + 2 * 64
