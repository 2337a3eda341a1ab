"""Alternative ways to train the nets, for comparison: eager, compiled, grouped."""

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.measuring import BATCH, Loop, Rates, measure_in_turn
from benchmarks.nets import make_net, run_of
from benchmarks.packs import PackedLoop, build_packs, measured_run, reserved
from resnet import trainer as trainer_module
from resnet.data.augment import crop_and_flip, pad
from resnet.data.resident import ResidentData
from resnet.data.sampling import Sampler
from resnet.device import exact_kernels
from resnet.models.blocks import BasicBlock, Bottleneck
from resnet.recipe import Recipe
from resnet.trainer import Trainer

STREAMS = (2, 4, 8, 16)
COMPILED = (1, 4)  # each run is compiled anew where the compiler finds no cached code
GROUPS = (4, 8)


@dataclass(frozen=True)
class Measured:
    """Result of one alternative for one model; ``model`` is None if it failed for all, ``failed`` is the reason."""

    name: str
    model: str | None
    runs: int
    rates: Rates | None = None
    failed: str | None = None


class EagerLoop:
    """A plain eager training loop with data on the device: fp32 in NCHW, or bf16 autocast in channels-last.

    With fp32, PyTorch's default allows TF32 in a GPU's convolutions.
    """

    runs, settling = 1, 2

    def __init__(self, model: str, data: ResidentData, bf16: bool):
        self.data, self.bf16, self.iteration = data, bf16, 0
        layout = torch.channels_last if bf16 else torch.contiguous_format
        self.model = make_net(model).to(data.device, memory_format=layout).train()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
        self.padded_mean = pad(data.mean)
        self.sampler = Sampler(0, len(data.train_labels), Recipe(batch_size=BATCH), data.device)

    def step(self) -> None:
        """Take one training step."""
        draws = self.sampler.batch(self.iteration)
        images = crop_and_flip(self.data.train_images, self.padded_mean, *draws)
        images = images if self.bf16 else images.contiguous()
        with torch.autocast(self.data.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            logits = self.model(images)
        self.optimizer.zero_grad()
        F.cross_entropy(logits.float(), self.data.train_labels[draws.index]).backward()
        self.optimizer.step()
        self.iteration += 1

    def advance(self, steps: int) -> None:
        """Take ``steps`` training steps."""
        for _ in range(steps):
            self.step()


def convolution_stack(depth: int, seeds: int) -> nn.Sequential:
    """Build the 3x3 convolutions with BN and ReLU of ``seeds`` plain nets of 6n+2 layers, as groups of channels.

    They map (N, 3 * seeds, 32, 32) to (N, 64 * seeds, 8, 8). Shortcuts, pooling and the last layer cost little and are
    left out, to isolate the effect of grouped convolutions.
    """
    layers, inside = [], 3
    blocks = (depth - 2) // 6
    shapes = [(16, 1), *[(16, 1)] * (2 * blocks)]
    for channels in (32, 64):
        shapes += [(channels, 2), *[(channels, 1)] * (2 * blocks - 1)]
    for channels, stride in shapes:
        layers += [
            nn.Conv2d(inside * seeds, channels * seeds, 3, stride, padding=1, bias=False, groups=seeds),
            nn.BatchNorm2d(channels * seeds),
            nn.ReLU(inplace=True),
        ]
        inside = channels
    return nn.Sequential(*layers)


class Stacks:
    """Forward and backward passes of several seeds' convolution stacks, in bf16 and channels-last.

    ``grouped``: one stack of grouped convolutions instead of separate stacks. On a GPU every stack is a CUDA graph on
    its own stream.
    """

    settling = 2

    def __init__(self, depth: int, seeds: int, grouped: bool, device: torch.device):
        self.runs, self.device = seeds, device
        together = seeds if grouped else 1
        self.replays = [self._prepare(depth, together) for _ in range(seeds // together)]

    def _prepare(self, depth: int, seeds: int) -> Callable[[], None]:
        stack = convolution_stack(depth, seeds).to(self.device, memory_format=torch.channels_last)
        images = torch.randn(BATCH, 3 * seeds, 32, 32, device=self.device).to(memory_format=torch.channels_last)

        def work() -> None:
            stack.zero_grad()
            with torch.autocast(self.device.type, dtype=torch.bfloat16):
                out = stack(images)
            out.float().square().mean().backward()

        return recorded(work, self.device)

    def advance(self, steps: int) -> None:
        """Run ``steps`` forward and backward passes of each stack."""
        for _ in range(steps):
            for replay in self.replays:
                replay()


def recorded(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Record ``work`` as a CUDA graph on its own stream; on a CPU, return it unchanged."""
    if device.type != "cuda":
        return work
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        work()

    def replay() -> None:
        with torch.cuda.stream(stream):
            graph.replay()

    replay.keeps = work  # keeps alive the tensors that the graph reads and writes
    return replay


@dataclass(frozen=True)
class Setting:
    """Settings for measuring all alternatives. ``compiler``: torch.compile's backend."""

    data: ResidentData
    rounds: int
    seconds: float
    compiler: str = "inductor"

    def measure(self, loops: dict[str, Loop]) -> dict[str, Rates]:
        """Measure the loops' rates in turn."""
        return measure_in_turn(loops, self.rounds, self.seconds, self.data.device)


def eager(model: str, setting: Setting) -> Iterator[Measured]:
    """Measure the eager loop with data on the device: fp32 in NCHW, and bf16 in channels-last."""
    names = {False: "eager, fp32, NCHW, data on the device", True: "eager, bf16, channels-last"}
    loops = {name: EagerLoop(model, setting.data, bf16) for bf16, name in names.items()}
    for name, rates in setting.measure(loops).items():
        yield Measured(name, model, 1, rates)


def graph(model: str, setting: Setting) -> Iterator[Measured]:
    """Measure one run with the whole step as a graph."""
    return _packed("whole-step graph", [1], model, setting)


def streams(model: str, setting: Setting) -> Iterator[Measured]:
    """Measure several such runs on streams of one process."""
    return _packed("graphs on streams of one process", list(STREAMS), model, setting)


def fused(model: str, setting: Setting) -> Iterator[Measured]:
    """Measure the same with the fused kernels (:mod:`resnet.kernels`)."""
    return _packed("graphs on streams, fused kernels", [1, *STREAMS], model, setting, Recipe(kernels="fused"))


def tuned(model: str, setting: Setting) -> Iterator[Measured]:
    """Measure the same with cudnn.benchmark, which picks the fastest deterministic kernels, not always the same."""
    with patch.object(trainer_module, "exact_kernels", partial(exact_kernels, benchmark=True)):
        yield from _packed("graphs on streams, cudnn.benchmark", [1, *STREAMS], model, setting)


def _packed(
    name: str, widths: list[int], model: str, setting: Setting, recipe: Recipe | None = None
) -> Iterator[Measured]:
    runs = [measured_run(run_of(model, recipe, seed)) for seed in range(max(widths))]
    built = build_packs(runs, widths, setting.data, reserved(setting.data.device), lambda text: None)
    rates = setting.measure({str(each.width): each.pack for each in built if each.pack is not None})
    for each in built:
        yield Measured(name, model, each.width, rates.get(str(each.width)), each.left_out)


def compiled(model: str, setting: Setting) -> Iterator[Measured]:
    """Measure nets under torch.compile inside the graphs."""
    return _compiled("torch.compile in the graphs", lambda net: [net], model, setting)


def compiled_blocks(model: str, setting: Setting) -> Iterator[Measured]:
    """Measure blocks under torch.compile inside the graphs, each compiled separately."""
    blocks = (BasicBlock, Bottleneck)
    name = "torch.compile of blocks in the graphs"
    return _compiled(name, lambda net: [m for m in net.modules() if isinstance(m, blocks)], model, setting)


def _compiled(
    name: str, parts: Callable[[nn.Module], list[nn.Module]], model: str, setting: Setting
) -> Iterator[Measured]:
    trainers, loops = [], {}
    for seed in range(max(COMPILED)):
        trainers.append(Trainer(measured_run(run_of(model, seed=seed)), setting.data))
        for part in parts(trainers[-1].model):
            part.compile(backend=setting.compiler)
    for count in COMPILED:
        loops[str(count)] = PackedLoop(trainers[:count])
    for count, rates in setting.measure(loops).items():
        yield Measured(name, model, int(count), rates)


def frontend(model: str, setting: Setting) -> Iterator[Measured]:
    """Measure the convolutions alone by fused graphs of NVIDIA's cuDNN frontend, where it is installed."""
    name = "convolutions only, forward and backward, and BN's sums: fused graphs of cuDNN's frontend"
    if importlib.util.find_spec("cudnn") is None:
        reason = "nvidia-cudnn-frontend isn't installed: pip install --no-deps nvidia-cudnn-frontend"
        yield Measured(name, model, 1, failed=reason)
        return
    from benchmarks.frontend import FrontendConvolutions  # which takes `recorded` from here

    yield Measured(name, model, 1, setting.measure({name: FrontendConvolutions(model, setting.data.device)})[name])


def grouped(model: str, setting: Setting) -> Iterator[Measured]:
    """Measure seeds as groups of one stack of convolutions, compared with separate stacks."""
    depth, device = make_net(model).depth, setting.data.device
    for seeds in GROUPS:
        names = {
            False: "convolutions only, forward and backward: separate, on streams",
            True: "convolutions only, forward and backward: grouped",
        }
        loops = {name: Stacks(depth, seeds, together, device) for together, name in names.items()}
        for name, rates in setting.measure(loops).items():
            yield Measured(name, model, seeds, rates)


KINDS: dict[str, Callable[[str, Setting], Iterator[Measured]]] = {
    "eager": eager,
    "graph": graph,
    "streams": streams,
    "fused": fused,
    "tuned": tuned,
    "compiled": compiled,
    "blocks": compiled_blocks,
    "frontend": frontend,
    "grouped": grouped,
}
