"""The CIFAR nets' own kernels against float64 and the library: on a GPU if there is one, else in Triton's interpreter.

The interpreter is wrong for products in bf16, so those are computed on a GPU only.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.stochastic_depth import StochasticDepth
from reproductions.layer_responses.responses import response_deviations
from resnet import kernels
from resnet.data.dataset import ImageDataset
from resnet.data.resident import ResidentData
from resnet.device import exact_kernels
from resnet.low_precision import WeightCopies
from resnet.models import create_model
from resnet.recipe import Recipe
from resnet.run import Run
from resnet.trainer import Trainer

pytest.importorskip("triton", reason="without Triton there are the library's kernels alone")
from resnet.kernels import launching, nets, trunk  # noqa: E402
from resnet.kernels.launching import Norm, Shortcut  # noqa: E402

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
EXACT = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 3e-2}
slow, gpu = pytest.mark.slow, pytest.mark.gpu
interpreted = pytest.mark.skipif(DEVICE.type == "cuda", reason="no run is in fp32, which takes minutes to compile")


@pytest.fixture(autouse=True)
def poisoned():
    """Memory that nobody has written holds NaN."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def draw() -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(0)

    def maps(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        drawn = torch.randn(*shape, generator=generator).to(DEVICE, dtype)
        return drawn.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else drawn

    return maps


def error(value: Tensor, reference: Tensor) -> float:
    """Relative, in the Euclidean norm."""
    return ((value.double() - reference.double()).norm() / reference.double().norm()).item()


def norm_of(draw, raw: Tensor) -> Norm:
    channels = raw.shape[1]
    variance, mean = torch.var_mean(raw.double(), dim=(0, 2, 3), correction=0)
    return Norm(mean.float(), variance.float(), draw(channels), draw(channels), 1e-5)


def normalized(raw: Tensor, norm: Norm) -> Tensor:
    return F.batch_norm(raw, norm.mean.double(), norm.variance.double(), norm.weight.double(), norm.bias.double())


# ----------------------------------------------------------------------------------------------------- single kernels

# Images, size, channels in and out, stride: odd sizes and batches, maps smaller than a block and larger ones.
SHAPES = [
    (3, 9, 16, 16, 1),
    (2, 16, 16, 16, 1),
    (2, 15, 16, 32, 2),  # which blocks cover exactly once it is 8 pixels wide
    pytest.param(3, 9, 16, 32, 2, marks=slow),
    pytest.param(2, 8, 16, 32, 2, marks=slow),
    pytest.param(1, 24, 16, 16, 1, marks=slow),
    pytest.param(3, 8, 32, 32, 1, marks=slow),
    pytest.param(3, 8, 32, 64, 2, marks=slow),
    pytest.param(3, 4, 64, 64, 1, marks=slow),
    pytest.param(2, 5, 64, 64, 1, marks=slow),
    pytest.param(3, 9, 32, 32, 2, marks=slow),
    pytest.param(2, 6, 64, 64, 2, marks=slow),
    pytest.param(128, 32, 16, 16, 1, marks=gpu),
    pytest.param(128, 32, 16, 32, 2, marks=gpu),
    pytest.param(128, 16, 32, 32, 1, marks=gpu),
    pytest.param(128, 16, 32, 64, 2, marks=gpu),
    pytest.param(128, 8, 64, 64, 1, marks=gpu),
    pytest.param(128, 32, 32, 32, 2, marks=gpu),
    pytest.param(128, 16, 64, 64, 2, marks=gpu),
]
shapes = pytest.mark.parametrize(("images", "size", "channels", "out", "stride"), SHAPES)
dtypes = pytest.mark.parametrize(
    "dtype",
    [pytest.param(torch.float32, marks=interpreted), torch.float16, pytest.param(torch.bfloat16, marks=gpu)],
    ids=["fp32", "fp16", "bf16"],
)


@shapes
@dtypes
def test_a_convolution_and_its_statistics(draw, images, size, channels, out, stride, dtype):
    x, weight = draw(images, channels, size, size, dtype=dtype), draw(out, channels, 3, 3, dtype=dtype)
    y, parts = launching.convolve(x, weight, stride, statistics=True)
    wanted = F.conv2d(x.double(), weight.double(), padding=1, stride=stride)
    assert error(y, wanted) < EXACT[dtype]
    assert y.is_contiguous(memory_format=torch.channels_last)

    library = nn.BatchNorm2d(out, device=DEVICE)
    library(y.float())
    running = torch.zeros(out, device=DEVICE), torch.ones(out, device=DEVICE)
    mean, variance = launching.finish_statistics(parts, y, *running, momentum=0.1)
    assert error(mean, y.double().mean((0, 2, 3))) < 1e-5
    assert error(variance, y.double().var((0, 2, 3), correction=0)) < 1e-5
    torch.testing.assert_close(running, (library.running_mean, library.running_var))
    again, same_parts = launching.convolve(x, weight, stride, statistics=True)
    assert torch.equal(y, again) and torch.equal(parts.values, same_parts.values)


def test_a_variance_where_the_mean_is_large_beside_it(draw):
    x, weight = draw(3, 16, 9, 9), torch.zeros(16, 16, 3, 3, device=DEVICE)
    weight[range(16), range(16), 1, 1] = 1.0
    x = x + 30
    y, parts = launching.convolve(x, weight.contiguous(memory_format=torch.channels_last), 1, statistics=True)
    running = torch.zeros(16, device=DEVICE), torch.ones(16, device=DEVICE)
    _, variance = launching.finish_statistics(parts, y, *running, momentum=0.1)
    assert error(variance, x.double().var((0, 2, 3), correction=0)) < 1e-5


@pytest.mark.parametrize(
    ("images", "size", "channels"),
    [(3, 9, 64), (2, 4, 256), (2, 8, 16), pytest.param(128, 32, 64, marks=gpu), pytest.param(128, 8, 256, marks=gpu)],
)
@dtypes
def test_statistics_of_maps_that_the_library_computed(draw, images, size, channels, dtype):
    maps = draw(images, channels, size, size, dtype=dtype) + 30
    running = torch.zeros(channels, device=DEVICE), torch.ones(channels, device=DEVICE)
    mean, variance = launching.finish_statistics(launching.measure(maps), maps, *running, momentum=0.1)
    assert error(mean, maps.double().mean((0, 2, 3))) < 1e-6
    assert error(variance, maps.double().var((0, 2, 3), correction=0)) < 1e-5
    assert torch.equal(launching.measure(maps).values, launching.measure(maps).values)


@pytest.mark.parametrize("size", [8, 9, pytest.param(32, marks=gpu)])
@dtypes
def test_the_convolution_of_images_and_its_weight_gradient(draw, size, dtype):
    x, weight = draw(3, 3, size, size).contiguous(), draw(16, 3, 3, 3, dtype=dtype)  # images in another layout
    y, _ = launching.convolve_images(x, weight, statistics=True)
    taken = x.to(dtype).double()
    assert y.dtype == dtype and error(y, F.conv2d(taken, weight.double(), padding=1)) < EXACT[dtype]

    d = draw(*y.shape, dtype=dtype)
    parts = launching.weight_parts(x, d, 1)
    launching.image_weight_gradient(x, d, parts)
    gradient = launching.finish_weights(parts, dtype).view(16, 3, 3, 3).permute(0, 3, 1, 2)
    assert error(gradient, torch.nn.grad.conv2d_weight(taken, weight.shape, d.double(), padding=1)) < EXACT[dtype]
    again = torch.empty_like(parts)
    launching.image_weight_gradient(x, d, again)
    assert torch.equal(again, parts) and torch.equal(launching.convolve_images(x, weight, statistics=True)[0], y)


@shapes
@dtypes
def test_a_weight_gradient(draw, images, size, channels, out, stride, dtype):
    x, maps = draw(images, channels, size, size, dtype=dtype), -(-size // stride)
    d = draw(images, out, maps, maps, dtype=dtype)
    parts = launching.weight_parts(x, d, 2)  # of two convolutions alike
    for part in parts.split(1):
        launching.weight_gradient(x, d, stride, part)
    first, second = launching.finish_weights(parts, torch.float32)
    shape = (out, channels, 3, 3)
    wanted = torch.nn.grad.conv2d_weight(x.double(), shape, d.double(), padding=1, stride=stride)
    assert error(first.view(out, 3, 3, channels).permute(0, 3, 1, 2), wanted) < (1e-5 if images < 128 else 1e-4)
    assert torch.equal(first, second)


@shapes
@dtypes
@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
def test_an_input_gradient_with_all_that_goes_the_same_way(draw, images, size, channels, out, stride, dtype, residual):
    raw, maps = draw(images, channels, size, size, dtype=dtype), -(-size // stride)
    norm = norm_of(draw, raw)
    y, weight = launching.normalize(raw, norm, None, None), draw(out, channels, 3, 3, dtype=dtype)
    d, before = draw(images, out, maps, maps, dtype=dtype), (out - channels) // 2
    short = draw(images, out, maps, maps, dtype=dtype) if residual else None
    g, parts = launching.input_gradient(d, weight, stride, short, Shortcut(stride, before), y, raw, norm)

    wanted = torch.nn.grad.conv2d_input(y.shape, weight.double(), d.double(), padding=1, stride=stride)
    if residual:
        wanted[:, :, ::stride, ::stride] += short[:, before : before + channels].double()
    wanted = torch.where(y > 0, wanted, 0.0)
    assert error(g, wanted) < EXACT[dtype]
    again, same_parts = launching.input_gradient(d, weight, stride, short, Shortcut(stride, before), y, raw, norm)
    assert torch.equal(g, again) and torch.equal(parts.values, same_parts.values)

    own, sums = raw.double().requires_grad_(), launching.finish_sums(parts)
    weight, bias = norm.weight.double().requires_grad_(), norm.bias.double().requires_grad_()
    F.batch_norm(own, None, None, weight, bias, training=True).backward(g.double())
    assert error(sums[0], bias.grad) < 1e-5 and error(sums[1], weight.grad) < 1e-5
    assert error(launching.normalize_gradient(raw, g, norm, sums), own.grad) < EXACT[dtype]


@pytest.mark.parametrize(("size", "stride", "before"), [(8, 1, 0), (8, 2, 0), (9, 2, 8)])
@dtypes
def test_normalizing_with_a_shortcut_and_the_way_back(draw, size, stride, before, dtype):
    maps, inner = -(-size // stride), 16 * stride
    raw, short = draw(3, inner, maps, maps, dtype=dtype), draw(3, 16, size, size, dtype=dtype)
    norm = norm_of(draw, raw)
    y = launching.normalize(raw, norm, short, Shortcut(stride, before))
    shortcut = F.pad(short[:, :, ::stride, ::stride], (0, 0, 0, 0, before, inner - 16 - before))
    wanted = F.relu(normalized(raw.double(), norm) + shortcut.double())
    assert error(y, wanted) < EXACT[dtype]

    outer = draw(*y.shape, dtype=dtype)
    g, parts = launching.output_gradient(outer, y, raw, norm)
    assert torch.equal(g, torch.where(y > 0, outer, 0.0))
    assert error(launching.finish_sums(parts)[0], g.double().sum((0, 2, 3))) < 1e-5


@pytest.mark.parametrize("size", [pytest.param(8, marks=slow), pytest.param(32, marks=gpu)])
def test_several_runs_in_one_launch_get_the_bits_that_each_gets_alone(draw, size):
    def run_all(x, weight, d, short, norm, running, runs):
        raw, parts = launching.convolve(x, weight, 1, True, runs)
        mean, variance = launching.finish_statistics(parts, raw, *running, 0.1, runs)
        norm = replace(norm, mean=mean, variance=variance)
        y = launching.normalize(raw, norm, short, Shortcut(), runs)
        g, parts = launching.input_gradient(d, weight, 1, short, Shortcut(), y, raw, norm, runs)
        sums = launching.finish_sums(parts, runs)
        back, outer_parts = launching.output_gradient(g, y, raw, norm, runs)
        weight_parts = launching.weight_parts(x, d, 1, runs)
        launching.weight_gradient(x, d, 1, weight_parts, runs)
        results = [raw, y, g, sums, back, launching.finish_sums(outer_parts, runs), *running]
        results += [launching.normalize_gradient(raw, g, norm, sums, runs), launching.measure(raw, runs).values]
        return [*results, launching.finish_weights(weight_parts, torch.float32)]

    x, d, short = (draw(4, 16, size, size, dtype=torch.float16) for _ in range(3))
    weight, vectors = draw(32, 16, 3, 3, dtype=torch.float16), [draw(32) for _ in range(4)]
    nothing = torch.empty(0, device=DEVICE)

    def alone(run: int):
        maps, channels = slice(2 * run, 2 * run + 2), slice(16 * run, 16 * run + 16)
        scale, shift, *running = (vector[channels].clone() for vector in vectors)
        norm = Norm(nothing, nothing, scale, shift, 1e-5)
        return run_all(x[maps], weight[channels], d[maps], short[maps], norm, running, 1)

    expected = [torch.cat(pair) for pair in zip(alone(0), alone(1))]
    scale, shift, *running = vectors
    together = run_all(x, weight, d, short, Norm(nothing, nothing, scale, shift, 1e-5), running, 2)
    assert all(torch.equal(one, other) for one, other in zip(together, expected, strict=True))


# -------------------------------------------------------------------------------------------------------- whole nets


def make_net(model: str, **options) -> nn.Module:
    """In training, with scales and shifts of BN that differ."""
    generator = torch.Generator().manual_seed(1)
    net = create_model(model, generator, **options)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator)
            nn.init.normal_(module.bias, 0, 0.2, generator)
    return net.train().to(DEVICE, memory_format=torch.channels_last)


def step(net: nn.Module, images: Tensor, outer: Tensor, dtype: torch.dtype, fused: bool) -> dict[str, Tensor]:
    """The output of the last block, the gradients, and BN's estimates and counters after a step."""
    net.zero_grad()
    half = dtype in (torch.float16, torch.bfloat16)
    with exact_kernels(), torch.autocast(DEVICE.type, dtype if half else torch.float16, enabled=half):
        maps = nets.find(net).compute(images, dtype) if fused else net.maps(images.to(net.fc.weight.dtype))
    with exact_kernels():
        maps.backward(outer.to(maps.dtype))
    gradients = {f"{name}.grad": p.grad for name, p in net.named_parameters() if p.grad is not None}
    return {"maps": maps.detach(), **gradients, **{name: b.clone() for name, b in net.named_buffers()}}


def three_steps(model, options, images, size, dtype, draw) -> tuple[dict, dict, dict]:
    """In float64, by the library, by the kernels."""
    x = draw(images, 3, size, size)
    three = [make_net(model, **options) for _ in range(3)]
    maps = (size + 3) // 4
    outer = draw(images, three[0].fc.in_features, maps, maps, dtype=dtype)
    exact = step(three[0].double(), x, outer, torch.float64, fused=False)
    return exact, step(three[1], x, outer, dtype, fused=False), step(three[2], x, outer, dtype, fused=True)


NETS = [
    ("cifar_resnet8", {}, 2, 8),
    pytest.param("cifar_resnet8", {"shortcut_padding": "both"}, 2, 9, marks=slow),
    pytest.param("cifar_plain8", {}, 3, 8, marks=slow),
    pytest.param("cifar_resnet14", {}, 5, 6, marks=slow),
    ("cifar_bottleneck11", {"variant": "d"}, 2, 8),
    pytest.param("cifar_bottleneck20", {}, 3, 8, marks=slow),
    pytest.param("cifar_bottleneck11", {"variant": "b"}, 3, 9, marks=slow),
    pytest.param("cifar_bottleneck11", {"variant": "c", "zero_gamma": True}, 5, 8, marks=slow),
]


@interpreted
@pytest.mark.parametrize(("model", "options", "images", "size"), NETS)
def test_a_step_in_fp32_is_exact(draw, model, options, images, size):
    exact, _, fused = three_steps(model, options, images, size, torch.float32, draw)
    assert fused.keys() == exact.keys() and len(fused) > 40
    assert {name: error(fused[name], exact[name]) for name in exact if error(fused[name], exact[name]) > 1e-5} == {}


@pytest.mark.parametrize(
    ("model", "images", "size", "dtype"),
    [
        pytest.param("cifar_resnet20", 4, 8, torch.float16, marks=slow),
        pytest.param("cifar_resnet56", 4, 8, torch.float16, marks=slow),
        pytest.param("cifar_bottleneck29", 4, 8, torch.float16, marks=slow),
        pytest.param("cifar_resnet20", 128, 32, torch.float16, marks=gpu),
        pytest.param("cifar_resnet20", 128, 32, torch.bfloat16, marks=gpu),
        pytest.param("cifar_resnet56", 128, 32, torch.bfloat16, marks=gpu),
        pytest.param("cifar_bottleneck56", 128, 32, torch.bfloat16, marks=gpu),
        pytest.param("cifar_bottleneck29", 128, 32, torch.float16, marks=gpu),
    ],
)
def test_a_step_is_the_librarys_within_the_error_of_its_precision(draw, model, images, size, dtype):
    """Taken together, the kernels' errors are no larger than the library's by more than chance makes them."""
    exact, library, fused = three_steps(model, {}, images, size, dtype, draw)
    for kind in ("maps", "conv1.weight.grad", "conv2.weight.grad", "bn2.weight.grad", "bias.grad", "mean", "var"):
        names = [name for name in exact if name.endswith(kind)]
        errors = [sum(error(got[name], exact[name]) for name in names) / len(names) for got in (fused, library)]
        assert errors[0] < 1.5 * errors[1] + 1e-3, kind
    assert all(torch.equal(fused[name], exact[name]) for name in exact if name.endswith("num_batches_tracked"))


@pytest.fixture
def fused_calls(monkeypatch) -> list:
    """What the fused kernels were asked for."""
    calls, compute = [], trunk.compute

    def noted(*arguments):
        calls.append(arguments)
        return compute(*arguments)

    monkeypatch.setattr(trunk, "compute", noted)
    return calls


def logits(net: nn.Module, images: Tensor, dtype: torch.dtype | None = torch.float16) -> Tensor:
    with torch.autocast(DEVICE.type, dtype or torch.float16, enabled=dtype is not None):
        return net(images)


@pytest.mark.parametrize(("model", "calls"), [("cifar_resnet8", 1), ("cifar_bottleneck11", 7)])
def test_a_net_in_evaluation_is_the_librarys_within_its_precision(draw, fused_calls, model, calls):
    net, images = make_net(model), draw(3, 3, 8, 8)
    with torch.no_grad():
        logits(net, images, None)  # running estimates that differ
        before = {name: buffer.clone() for name, buffer in net.named_buffers()}
        library = logits(net.eval(), images)
        net.kernels = kernels.FUSED
        fused = logits(net, images)
    assert len(fused_calls) == calls and not fused.requires_grad
    torch.testing.assert_close(fused.float(), library.float(), rtol=2e-2, atol=2e-2)
    assert all(torch.equal(before[name], buffer) for name, buffer in net.named_buffers())


@slow
def test_copies_of_the_weights_give_the_same_bits(draw):
    net, images = make_net("cifar_bottleneck11"), draw(3, 3, 8, 8)
    net.kernels = kernels.FUSED
    logits(net, images).float().square().sum().backward()
    expected = {name: parameter.grad for name, parameter in net.named_parameters()}
    net.zero_grad()
    copies = WeightCopies(net, torch.float16)
    with torch.autocast(DEVICE.type, torch.float16):
        copies(images).float().square().sum().backward()
    copies.move_gradients()
    assert all(torch.equal(parameter.grad, expected[name]) for name, parameter in net.named_parameters())


def test_nan_passes_through_all_layers(draw, fused_calls):
    net, images = make_net("cifar_resnet8").eval(), draw(2, 3, 8, 8)
    net.kernels, images[1, 0, 3, 3] = kernels.FUSED, torch.nan
    with torch.no_grad():
        found = logits(net, images)
    assert len(fused_calls) == 1 and found[0].isfinite().all() and found[1].isnan().all()


def test_pytorchs_way_is_taken_where_the_kernels_dont_apply(draw, fused_calls):
    images = draw(2, 3, 8, 8)

    def in_evaluation(net):
        net.eval()

    def partly(net):
        net.layer2[0].bn1.eval()

    def hooked(net):
        net.layer1[0].bn2.register_forward_hook(lambda module, inputs, output: None)

    for model in ("cifar_resnet8", "cifar_bottleneck11"):
        for change in (in_evaluation, partly, hooked):
            net = make_net(model)
            net.kernels = kernels.FUSED
            change(net)
            assert logits(net, images).requires_grad, change
    others = ("cifar_resnet8", {"shortcut": "B"}), ("cifar_resnet8", {"conv_bias": True})
    for model, options in others:
        net = make_net(model, **options)
        net.kernels = kernels.FUSED
        logits(net, images)
        assert kernels.choose("fused", net, DEVICE, "fp16") == "library"
    net = make_net("cifar_resnet8")
    logits(net, images)  # which nobody asked to be fused
    net.kernels = kernels.FUSED
    logits(net, images, None)  # fp32
    logits(net, images.requires_grad_())
    assert fused_calls == []
    assert kernels.choose("fused", net, DEVICE, "fp16") == "fused"
    assert kernels.choose("fused", net, DEVICE, "fp32") == kernels.choose("fused", net, DEVICE, "fp16", 2) == "library"
    assert kernels.choose("auto", net, DEVICE, "fp16") == "library"


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("cifar_resnet8", {}),
        ("cifar_plain20", {"num_classes": 5}),
        ("cifar_resnet8", {"shortcut_padding": "both", "zero_gamma": True}),
        ("cifar_resnet8", {"shortcut": "C"}),
        ("cifar_plain8", {"conv_bias": True}),
        ("cifar_bottleneck11", {}),
        ("cifar_bottleneck11", {"variant": "d", "zero_gamma": True}),
        ("resnet18", {"small_stem": True}),
        ("resnet50", {"small_stem": True}),
    ],
)
def test_names_tell_which_nets_the_kernels_are_made_for(model, options):
    with torch.device("meta"):
        fits = nets.find(create_model(model, **options)) is not None
    assert kernels.made_for(model, options, "bf16") == fits and not kernels.made_for(model, options, "fp32")


def _another_conv(net):
    net.layer2[0].conv1 = nn.Sequential(net.layer2[0].conv1)


def _another_stage(net):
    net.layer2 = nn.ModuleList(net.layer2)


def _another_way(net):
    net.layer2[0].forward = lambda x: x


def _dropped_branches(net):
    StochasticDepth().model(net)


@pytest.mark.parametrize("change", [_another_conv, _another_stage, _another_way, _dropped_branches])
def test_a_net_with_a_module_of_a_plugins_takes_pytorchs_way(change):
    for name in ("cifar_resnet8", "cifar_bottleneck11"):
        net = make_net(name)
        assert nets.find(net) is not None
        change(net)
        if change is not _another_conv or name == "cifar_resnet8":  # 1x1 convolutions are called in any case
            assert nets.find(net) is None
    assert nets.find(nn.Sequential(make_net("cifar_resnet8"))) is None


def test_fused_kernels_are_refused_where_they_cant_run(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    net = make_net("cifar_resnet8")
    with pytest.raises(ValueError, match="can't run here: cpu is no CUDA GPU; train with kernels library, or auto"):
        kernels.choose("fused", net, torch.device("cpu"), "fp16")


def test_responses_are_measured_by_the_library(draw, fused_calls):
    net, batches = make_net("cifar_resnet8"), [(draw(2, 3, 8, 8), None)]
    library = response_deviations(net, batches)
    net.kernels = kernels.FUSED
    with torch.autocast(DEVICE.type, torch.float16):
        assert response_deviations(net, batches).keys() == library.keys() and fused_calls == []


# ----------------------------------------------------------------------------------------------------------- training

RECIPE = Recipe(iterations=2, batch_size=4, milestones=(), eval_interval=2, precision="fp16", kernels="fused")


@pytest.fixture(scope="module")
def data() -> ResidentData:
    """A few images of 8 x 8 pixels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (12, 8, 8, 3), generator=generator, dtype=torch.uint8).numpy()
    labels = torch.randint(0, 10, (12,), generator=generator, dtype=torch.uint8).numpy()
    return ResidentData(ImageDataset("cifar10", images, labels, images[:4], labels[:4], official=False), None, DEVICE)


def make_trainer(data: ResidentData, model: str = "cifar_resnet8", **changes) -> Trainer:
    return Trainer(Run(model, replace(RECIPE, **changes)), data)


@pytest.mark.parametrize(("model", "calls"), [("cifar_resnet8", 1), pytest.param("cifar_bottleneck11", 7, marks=slow)])
def test_a_run_trains_by_the_kernels_near_to_the_librarys(data, fused_calls, model, calls):
    library, fused = make_trainer(data, model, kernels="library"), make_trainer(data, model)
    assert (library.kernels, fused.kernels) == ("library", "fused")
    initial = fused.model.fc.weight.clone()
    library.step()
    assert fused_calls == []
    fused.step()
    assert len(fused_calls) == calls and not torch.equal(fused.model.fc.weight, initial)  # no step that overflowed
    pairs = zip(library.model.state_dict().items(), fused.model.state_dict().values())
    far = {name: error(other, one) for (name, one), other in pairs if "num_batches" not in name}
    assert max(far.values()) < 2e-2
    assert {int(b) for n, b in fused.model.named_buffers() if "num_batches" in n} == {1}


@pytest.mark.parametrize("precision", [pytest.param("fp16", marks=slow), pytest.param("bf16", marks=gpu)])
def test_a_run_that_was_interrupted_ends_with_the_same_bits(data, precision):
    whole, part, rest = (make_trainer(data, precision=precision) for _ in range(3))
    for _ in range(2):
        whole.step()
    part.step()
    rest.load_state_dict(part.state_dict())
    rest.step()
    rest.evaluate()
    whole.evaluate()
    assert rest.weights_digest() == whole.weights_digest() and rest.curve == whole.curve


@slow
def test_a_distilled_run_and_its_teacher_use_the_kernels(data, fused_calls):
    taught = Run("cifar_resnet8", replace(RECIPE, temperature=2.0), teacher=Run("cifar_resnet8", RECIPE, seed=1))
    trainer = Trainer(taught, data, teacher=create_model("cifar_resnet8").state_dict())
    trainer.step()
    assert len(fused_calls) == 2
    assert all(weight.isfinite().all() for weight in trainer.model.state_dict().values())


def test_a_checkpoint_goes_on_with_its_kernels_or_says_why_it_cant(data, monkeypatch):
    state = make_trainer(data, kernels="auto").state_dict()
    assert state.pop("kernels") == "library"  # which older checkpoints don't say
    trainer = make_trainer(data, kernels="auto")
    trainer.load_state_dict(state)
    assert trainer.kernels == "library"
    trainer.load_state_dict({**state, "kernels": "fused"})
    assert trainer.kernels == trainer.model.kernels == "fused"
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    if DEVICE.type == "cpu":
        with pytest.raises(ValueError, match="can't run here: cpu is no CUDA GPU"):
            make_trainer(data, kernels="auto").load_state_dict({**state, "kernels": "fused"})


@gpu
@pytest.mark.parametrize("model", ["cifar_resnet8", "cifar_bottleneck11"])
def test_graphs_and_neighbours_leave_the_bits_as_they_are(data, model):
    """A run recorded as a graph, alone and beside another on the device, against the step as it is launched."""
    alone, beside, other, eager = (make_trainer(data, model, precision="bf16") for _ in range(4))
    for _ in range(2):
        alone.step()
    for _ in range(2):
        beside.step()
        other.step()
    for _ in range(2):
        with eager.on_stream():
            eager.batches.load(eager.iteration)
            eager._set_learning_rate(eager.learning_rate)
            eager.compute(RECIPE.batch_size)
        eager.iteration += 1
    assert alone.weights_digest() == beside.weights_digest() == eager.weights_digest()
