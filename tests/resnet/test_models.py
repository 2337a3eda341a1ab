"""Networks: the paper's parameter counts, shortcuts by their definitions, and properties of all families."""

import math
import re

import pytest
import torch
import torch.nn.functional as F
from nets import generator, on_meta
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.models import resnet as torchvisions

from resnet.models import changed_options, count_parameters, create_model, image_channels, image_size, net
from resnet.models.blocks import VARIANTS, BasicBlock, Bottleneck, PadShortcut

PARAMETERS = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962, 1202: 19_421_274}


def images(n=2, seed=0):
    return torch.randn(n, 3, 32, 32, generator=generator(seed))


@pytest.mark.parametrize("kind", ["plain", "resnet"])
@pytest.mark.parametrize(("depth", "parameters"), PARAMETERS.items())
def test_parameter_count(kind, depth, parameters):
    with torch.device("meta"):  # shapes only
        assert count_parameters(create_model(f"cifar_{kind}{depth}")) == parameters


@pytest.mark.parametrize("kind", ["plain", "resnet"])
def test_conv_bias_adds_one_parameter_per_output_channel(kind):
    channels = 16 + 6 * 16 + 6 * 32 + 6 * 64
    assert count_parameters(create_model(f"cifar_{kind}20", conv_bias=True)) == PARAMETERS[20] + channels


def test_projection_shortcuts_add_a_1x1_convolution_and_a_bn_each():
    def projection(before, after):
        return before * after + 2 * after

    changing = projection(16, 32) + projection(32, 64)
    same = 3 * projection(16, 16) + 2 * projection(32, 32) + 2 * projection(64, 64)
    assert count_parameters(create_model("cifar_resnet20", shortcut="B")) == PARAMETERS[20] + changing
    assert count_parameters(create_model("cifar_resnet20", shortcut="C")) == PARAMETERS[20] + changing + same


def torchvision_keys():
    return {
        key
        for key in torchvisions.ResNet(torchvisions.BasicBlock, [3, 3, 3, 1]).state_dict()
        if not key.startswith("layer4")
    }


def test_state_dict_keys_are_torchvisions():
    with_projections = torchvision_keys()
    without = {key for key in with_projections if "downsample" not in key}
    assert {"layer2.0.downsample.0.weight", "layer2.0.downsample.1.running_mean"} <= with_projections
    assert set(create_model("cifar_resnet20", shortcut="B").state_dict()) == with_projections
    assert set(create_model("cifar_resnet20").state_dict()) == without
    assert set(create_model("cifar_plain20").state_dict()) == without


@pytest.mark.parametrize(("padding", "first"), [("end", 0), ("both", 8)])
def test_option_a_shortcut_elementwise(padding, first):
    x = torch.randn(2, 16, 7, 8, generator=generator())
    out = PadShortcut(16, 32, stride=2, padding=padding)(x)
    assert out.shape == (2, 32, 4, 4)
    for channel in range(32):
        for row in range(4):
            for column in range(4):
                source = channel - first
                inside = 0 <= source < 16
                expected = x[:, source, 2 * row, 2 * column] if inside else torch.zeros(2)
                assert torch.equal(out[:, channel, row, column], expected)


def test_shortcut_padding_is_passed_on_to_the_blocks():
    for padding, before, after in (("end", 0, 32), ("both", 16, 16)):
        shortcut = create_model("cifar_resnet20", shortcut_padding=padding).layer3[0].downsample
        assert (shortcut.before, shortcut.after) == (before, after)


@pytest.mark.parametrize("name", ["cifar_plain8", "plain18"])
def test_a_block_of_a_plain_net_with_its_branch_at_zero_is_zero(name):
    blocks = [module for module in create_model(name).eval().modules() if isinstance(module, BasicBlock)]
    for block in blocks:
        nn.init.zeros_(block.bn2.weight)
        assert not block(torch.rand(2, block.conv1.in_channels, 8, 8, generator=generator())).any()
    assert blocks


def test_a_block_by_its_formula():
    downsample = PadShortcut(16, 32, 2, "end")
    block = BasicBlock(16, 32, 2, residual=True, downsample=downsample, conv_bias=False).eval()
    with torch.no_grad():
        block.bn1.running_mean.uniform_(-1, 1, generator=generator())
        block.bn2.weight.uniform_(0.5, 2, generator=generator())
    x = torch.randn(2, 16, 8, 8, generator=generator())
    y = torch.relu(block.bn1(nn.functional.conv2d(x, block.conv1.weight, stride=2, padding=1)))
    y = block.bn2(nn.functional.conv2d(y, block.conv2.weight, padding=1))
    expected = torch.relu(y + torch.cat([x[:, :, ::2, ::2], torch.zeros(2, 16, 4, 4)], dim=1))
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize(
    ("name", "options"),
    [("cifar_resnet8", {}), ("mnist_residual", {}), ("mnist_residual", {"initialization": "fan_out"})],
)
def test_weights_depend_on_the_generator_alone(name, options):
    first = create_model(name, generator=generator(3), **options).state_dict()
    torch.manual_seed(99)
    again, other = (create_model(name, generator=generator(seed), **options).state_dict() for seed in (3, 4))
    assert all(torch.equal(first[key], again[key]) for key in first)
    drawn = [key for key in first if key.endswith("weight") and "bn" not in key]
    assert not any(torch.equal(first[key], other[key]) for key in drawn)


def test_he_initialisation_in_its_forward_form():
    model = create_model("cifar_resnet20", initialization="fan_in", generator=torch.Generator().manual_seed(0))
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels > 3:
            assert module.weight.std().item() == pytest.approx((2 / (9 * module.in_channels)) ** 0.5, rel=0.05)


def test_xavier_initialisation_is_uniform_over_fan_in_and_fan_out():
    for name, options in {"cifar_resnet20": {"conv_bias": True}, "resnet18": {"num_classes": 10}}.items():
        model = create_model(name, initialization="xavier", generator=generator(), **options)
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                out, into, *kernel = module.weight.shape
                bound = math.sqrt(6 / ((into + out) * math.prod(kernel)))
                assert 0.95 * bound < module.weight.abs().max() <= bound
                assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.06)
                assert module.bias is None or not module.bias.any()


# The sum and the sum of absolute values of all weights that a generator seeded with 0 gave when these nets were first
# published. The published runs began with such weights.
DRAWN = {
    ("cifar_plain20", ()): (631.570561151962, 14934.23368592421),
    ("cifar_resnet56", ()): (1924.2913211214182, 47033.51415600967),
    ("cifar_resnet20", (("shortcut", "C"), ("conv_bias", True))): (919.711608845455, 17434.19570712243),
}


@pytest.mark.parametrize(("name", "options"), DRAWN)
def test_weights_are_those_of_the_published_runs(name, options):
    model = create_model(name, generator=generator(), **dict(options))
    weights = torch.cat([parameter.detach().flatten().double() for parameter in model.parameters()])
    assert (weights.sum().item(), weights.abs().sum().item()) == pytest.approx(DRAWN[name, options], rel=1e-6)


class _Gradients(TorchDispatchMode):
    """Notes the results of four dimensions that are not channels-last."""

    def __init__(self):
        super().__init__()
        self.contiguous: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            is_map = isinstance(result, torch.Tensor) and result.dim() == 4 and result[0, 0].numel() > 1
            if is_map and result.stride(1) != 1:
                self.contiguous.append(str(function))
        return results


CIFAR_NETS = [("cifar_plain8", {}), *(("cifar_resnet8", {"shortcut": kind}) for kind in "ABC")]
CIFAR_NETS += [("cifar_resnet8", {"shortcut_padding": "both"})]
CIFAR_NETS += [("cifar_bottleneck11", {"variant": variant}) for variant in ("original", "b", "c", "d")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("name", "options"), CIFAR_NETS)
def test_all_gradients_of_maps_are_channels_last(name, options, dtype):
    model = create_model(name, **options).to(memory_format=torch.channels_last)
    images = torch.randn(4, 3, 32, 32).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
        loss = F.cross_entropy(model(images), torch.arange(4))
    with _Gradients() as gradients:
        loss.backward()
    assert gradients.contiguous == []


@pytest.mark.parametrize("padding", ["end", "both"])
def test_the_gradients_of_option_a_and_of_the_mean_are_pytorchs_own_bit_for_bit(padding):
    shortcut = PadShortcut(16, 32, 2, padding)
    images = torch.randn(4, 16, 7, 8).to(memory_format=torch.channels_last)
    ours, theirs = images.clone().requires_grad_(), images.clone().requires_grad_()
    weights = torch.randn(4, 32, 4, 4)
    (shortcut(ours) * weights).sum().backward()
    sliced = F.pad(theirs[:, :, ::2, ::2], (0, 0, 0, 0, shortcut.before, shortcut.after))
    (sliced * weights).sum().backward()
    assert torch.equal(ours.grad, theirs.grad)
    ours.grad = theirs.grad = None
    (net._MeanOfMaps.apply(ours) * weights[:, :16, 0, 0]).sum().backward()
    (theirs.mean(dim=(2, 3)) * weights[:, :16, 0, 0]).sum().backward()
    assert torch.equal(ours.grad, theirs.grad)


# --------------------------------------------------------------------------------------------------------- all families


NETS = [f"cifar_{net}" for net in ("plain8", "plain20", "plain56", "bottleneck11", "bottleneck29", "bottleneck164")]
NETS += ["plain18", "plain34", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]


@pytest.mark.parametrize("name", NETS)
def test_depth_counts_the_weighted_layers_without_projections(name):
    model = on_meta(name)
    named = model.named_modules()
    layers = [m for path, m in named if isinstance(m, (nn.Conv2d, nn.Linear)) and "downsample" not in path]
    assert len(layers) == model.depth == int(re.search(r"\d+$", name).group())


@pytest.mark.parametrize(
    ("name", "size", "stem", "channels"),
    [
        ("cifar_resnet8", 32, 32, 16),
        ("cifar_bottleneck11", 32, 32, 64),
        ("resnet18", 224, 56, 64),
        ("resnet18", 32, 8, 64),
        ("resnet50", 224, 56, 256),
        ("resnet50", 32, 8, 256),
    ],
)
def test_each_stage_but_the_first_halves_the_maps_and_doubles_the_channels(name, size, stem, channels):
    model, shapes = on_meta(name), []
    stages = [module for path, module in model.named_children() if path.startswith("layer")]
    for stage in stages:
        stage.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    model(torch.empty(2, 3, size, size, device="meta"))
    assert shapes == [(channels * 2**i, stem // 2**i, stem // 2**i) for i in range(len(stages))]
    assert len(stages) == (3 if name.startswith("cifar") else 4)


@pytest.mark.parametrize(
    ("plain", "residual", "options"),
    [("cifar_plain20", "cifar_resnet20", {}), ("plain18", "resnet18", {"shortcut": "A"})],
)
def test_twins_start_from_the_same_weights(plain, residual, options):
    plain = create_model(plain, generator=generator(3)).state_dict()
    residual = create_model(residual, generator=generator(3), **options).state_dict()
    assert list(plain) == list(residual)
    assert all(torch.equal(plain[name], residual[name]) for name in plain)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cifar_resnet56", {"conv_bias": True, "shortcut": "B"}),
        ("resnet18", {"variant": "c", "num_classes": 10}),
        ("mnist_residual", {"initialization": "fan_out"}),
    ],
)
def test_he_initialisation(name, options):
    model = create_model(name, generator=generator(), **options)
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            expected = math.sqrt(2 / (module.out_channels * module.kernel_size[0] ** 2))
            tolerance = 4.5 / math.sqrt(2 * module.weight.numel())  # 4.5 standard errors
            assert module.weight.std().item() == pytest.approx(expected, rel=tolerance), path
            assert abs(module.weight.mean().item()) < 4.5 * expected / math.sqrt(module.weight.numel()), path
            assert module.bias is None or not module.bias.any()
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and not module.bias.any()
    assert not model.fc.bias.any()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cifar_plain8", {}),
        *(("cifar_resnet14", {"conv_bias": True, **changed}) for changed in
          ({}, {"shortcut": "B"}, {"shortcut": "C"}, {"shortcut_padding": "both"})),
        *(("cifar_bottleneck20", {"variant": variant}) for variant in ("original", "b", "c", "d")),
        ("plain18", {}),
        ("resnet18", {"variant": "d", "shortcut": "C"}),
        ("resnet34", {"shortcut": "A"}),
        ("resnet50", {}),
        ("resnet50", {"variant": "d", "shortcut": "C"}),
        ("resnet50", {"variant": "c", "shortcut": "A"}),
    ],
)  # fmt: skip
def test_output_shape_and_a_gradient_for_every_parameter(name, options):
    model = create_model(name, num_classes=7, generator=generator(), **options)
    logits = model(images(4))
    assert logits.shape == (4, 7)
    nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), path
        assert parameter.grad.any() or name != "cifar_plain8", path


GAMMAS = [("cifar_resnet20", "bn2", {}), ("cifar_bottleneck20", "bn3", {}), ("resnet18", "bn2", {"num_classes": 10})]
GAMMAS += [("resnet50", "bn3", {"variant": "d", "num_classes": 10})]


@pytest.mark.parametrize(("name", "last", "options"), GAMMAS)
def test_zero_gamma_changes_the_last_bn_of_each_block_and_makes_it_its_shortcut_at_first(name, last, options):
    model = create_model(name, zero_gamma=True, generator=generator(4), **options)
    zero, one = model.state_dict(), create_model(name, generator=generator(4), **options).state_dict()
    changed = {key for key in one if not torch.equal(zero[key], one[key])}
    assert changed == {key for key in one if key.startswith("layer") and key.endswith(f"{last}.weight")}
    assert not any(zero[key].any() for key in changed)
    blocks, checked = [m for m in model.modules() if isinstance(m, (BasicBlock, Bottleneck))], []

    def compare(block, inputs, output):
        shortcut = inputs[0] if block.downsample is None else block.downsample(inputs[0])
        assert torch.equal(output, torch.relu(shortcut)) and output.any()
        checked.append(block)

    for block in blocks:
        block.register_forward_hook(compare)
    with torch.no_grad():
        for train in (True, False):
            model.train(train)(torch.randn(2, 3, 64, 64, generator=generator()))
    assert checked == blocks * 2 and len(blocks) == len(changed)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("name", "size"),
    [*(("cifar_bottleneck11", size) for size in (17, 30, 33)), *(("resnet50", size) for size in (33, 47, 50, 97))],
)
def test_images_of_odd_sizes(name, size, variant):
    model = on_meta(name, variant=variant, num_classes=7)
    assert model(torch.empty(2, 3, size, size - 1, device="meta")).shape == (2, 7)


@pytest.mark.parametrize(
    ("size", "channels", "names"),
    [
        (224, 3, ["plain18", "resnet50"]),
        (32, 3, ["cifar_plain20", "cifar_resnet20", "cifar_bottleneck20"]),
        (28, 1, ["mnist_residual"]),
    ],
)
def test_the_images_that_a_model_is_made_for(size, channels, names):
    assert {(image_size(name), image_channels(name)) for name in names} == {(size, channels)}


FAMILIES = (
    r"cifar_plain\{6n\+2\}, cifar_resnet\{6n\+2\}, cifar_bottleneck\{9n\+2\}, plain18, plain34, resnet18, .*, "
    "resnet152, mnist_residual, with"
)
UNKNOWN = ["resnet20", "cifar_resnet", "cifar_resnet20 ", "cifar_vgg16", "cifar_resnet-20", "", "resnet51", "resnet"]
UNKNOWN += ["plain50", "resnet50d", "imagenet_resnet50", "mnist_residual2"]
BOTTLENECKS = r"9n\+2 with n >= 1 \(11, 20, 29, ...\); the nearest is"
DEPTHS = {
    "cifar_resnet": {0: 8, 2: 8, 7: 8, 19: 20, 100: 98},
    "cifar_bottleneck": {0: 11, 2: 11, 10: 11, 21: 20, 50: 47, 165: 164},
}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        *((name, {}, FAMILIES) for name in UNKNOWN),
        *((f"cifar_resnet{depth}", {}, f"6n\\+2.*nearest is {near}") for depth, near in DEPTHS["cifar_resnet"].items()),
        *(
            (f"cifar_bottleneck{depth}", {}, f"{BOTTLENECKS} {near}")
            for depth, near in DEPTHS["cifar_bottleneck"].items()
        ),
        ("cifar_resnet20", {"width": 2}, "no option width.*shortcut, shortcut_padding, conv_bias, num_classes"),
        ("cifar_plain20", {"shortcut": "A"}, "no option shortcut;.*conv_bias, num_classes"),
        (
            "cifar_bottleneck20",
            {"shortcut": "A"},
            "no option shortcut; its options: variant, zero_gamma, num_classes",
        ),
        ("resnet50", {"kernel": 3}, "no option kernel; its options: variant, shortcut, zero_gamma, small_stem"),
        ("plain34", {"variant": "b"}, "no option variant; its options: num_classes"),
        ("plain34", {"shortcut": "b"}, "no option shortcut; its options: num_classes"),
        ("plain34", {"zero_gamma": "b"}, "no option zero_gamma; its options: num_classes"),
        ("cifar_resnet20", {"shortcut": "D"}, "shortcut must be one of 'A', 'B', 'C'"),
        ("cifar_resnet20", {"shortcut_padding": "middle"}, "must be one of 'end', 'both'"),
        ("cifar_bottleneck20", {"variant": "e"}, "variant must be one of 'original', 'b', 'c', 'd', not 'e'"),
        ("resnet50", {"variant": "e"}, "variant must be one of 'original', 'b', 'c', 'd', not 'e'"),
        ("resnet50", {"shortcut": "D"}, "shortcut must be one of 'A', 'B', 'C', not 'D'"),
        ("cifar_resnet20", {"shortcut": None}, "shortcut must be of the same type as"),
        ("cifar_resnet20", {"conv_bias": 1}, "conv_bias must be of the same type as"),
        ("cifar_resnet20", {"num_classes": 10.0}, "num_classes must be of the same type as"),
        ("resnet50", {"zero_gamma": 1}, "zero_gamma must be of the same type as False, not 1"),
        (
            "resnet50",
            {"variant": "d", "shortcut": "A"},
            "variant 'd' pools before projections, but shortcut 'A' has none",
        ),
        ("resnet50", {"conv_bias": True}, "bottlenecks have no biases"),
        ("resnet50", {"first_projection": True, "shortcut": "A"}, "needs shortcut 'B', not 'A'"),
        ("mnist_residual", {"depth": 3}, "no option depth; its options: initialization, num_classes"),
        ("mnist_residual", {"initialization": "zero"}, "must be one of 'uniform', 'fan_out', not 'zero'"),
    ],
)
def test_names_depths_and_options_that_there_are_not(name, options, message):
    with pytest.raises(ValueError, match=message):
        on_meta(name, **options)


@pytest.mark.parametrize(
    ("name", "options", "changed"),
    [
        ("cifar_resnet20", {"shortcut": "A", "conv_bias": True}, {"conv_bias": True}),
        ("cifar_plain20", {"num_classes": 10}, {}),
        ("cifar_resnet20", {"zero_gamma": False}, {}),
        ("cifar_bottleneck20", {"variant": "original", "zero_gamma": False}, {}),
        ("mnist_residual", {"initialization": "uniform", "num_classes": 10}, {}),
        (
            "resnet50",
            {"variant": "original", "shortcut": "B", "zero_gamma": True, "num_classes": 1000},
            {"zero_gamma": True},
        ),
    ],
)
def test_changed_options_leave_out_the_defaults(name, options, changed):
    assert changed_options(name, options) == changed
