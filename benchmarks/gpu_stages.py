"""The stages of the GPU check: each is one process's work and gives values that JSON can hold."""

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.floor import measure_limits
from benchmarks.measuring import BATCH, IMAGES, TEST_IMAGES, random_images
from benchmarks.packs import GIB, PackedLoop, measured_run
from benchmarks.results import judged
from benchmarks.throughput import measure_model
from reproductions.harness import provenance
from reproductions.harness.launching.run_paths import RunPaths
from reproductions.harness.launching.signals import stop_on_signals
from reproductions.harness.launching.worker import ExecutionOptions, execute
from reproductions.harness.records import read_pool
from resnet.data.resident import ResidentData
from resnet.device import available_cores, resolve_precision, synchronized_time, why_no_cuda
from resnet.recipe import Recipe
from resnet.run import Run
from resnet.trainer import Trainer

Say = Callable[[str], None]
TESTS = "tests/resnet/test_packing.py"
KERNEL_TESTS = "tests/resnet/test_kernels.py"
PROFILED = 10  # steps


class Skipped(Exception):
    """A stage that can't be done here. The message says why."""


@dataclass(frozen=True)
class Setting:
    """The amount of measuring.

    models: of the throughput; the first is also the one whose kernels and memory are looked at. widths: of the packs
    beside one run. pack: the runs whose memory is looked at. rounds, seconds, workers, images, test_images: see
    :mod:`benchmarks.throughput`. nets: one run of the packed launch for each, trained for ``iterations`` of ``batch``.
    """

    models: tuple[str, ...] = ("cifar_resnet20", "cifar_resnet56")
    widths: tuple[int, ...] = (2, 4, 8, 16)
    pack: int = 8
    rounds: int = 3
    seconds: float = 0.5
    workers: int = field(default_factory=available_cores)
    images: int = IMAGES
    test_images: int = TEST_IMAGES
    nets: tuple[str, ...] = ("cifar_resnet20", "cifar_resnet20", "cifar_resnet56", "cifar_plain20")
    iterations: int = 500
    batch: int = 128


SETTINGS = {  # by the type of device
    "cuda": Setting(),
    "cpu": Setting(models=("cifar_resnet20",), rounds=2, seconds=1.0, nets=("cifar_resnet8",) * 2, iterations=40,
                   batch=32),
}  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """A part of the check, which may take ``limit`` seconds; ``decides``: whether the GPU can be used at all."""

    name: str
    title: str
    limit: float
    work: Callable[[Setting, torch.device, Say], dict]
    needs_gpu: bool = True
    decides: bool = False


def look_at_device(setting: Setting, device: torch.device, say: Say) -> dict:
    """Where the results come from, what the GPU is, and why there is none."""
    values = {**provenance.origin(device), "no_gpu": None}
    if device.type != "cuda":
        return {**values, "no_gpu": why_no_cuda() or "the CPU was asked for"}
    gpu = torch.cuda.get_device_properties(device)
    return {
        **values,
        "capability": f"{gpu.major}.{gpu.minor}",
        "memory_gib": round(gpu.total_memory / GIB, 1),
        "multiprocessors": gpu.multi_processor_count,
    }


def run_tests(test: str, setting: Setting, device: torch.device, say: Say) -> dict:
    """The tests marked gpu of a file, or one of its functions, as pytest names them, by pytest in this process.

    Raises Skipped, and SystemExit where one fails.
    """
    import pytest

    if device.type == "cuda":
        torch.cuda.set_device(device)
    passed, reasons = [], []

    class Listener:
        def pytest_runtest_logreport(self, report):
            if report.skipped:
                reasons.append(str(report.longrepr[-1]))
            elif report.when == "call" and report.passed:
                passed.append(report.nodeid)

    path = str(Path(provenance.ROOT, test))
    code = pytest.main([path, "-q", "-m", "gpu", "-p", "no:cacheprovider"], plugins=[Listener()])
    if code:
        raise SystemExit(int(code))
    if not passed or reasons:
        raise Skipped(", ".join(dict.fromkeys(reasons)) or "pytest ran no test")
    return {"passed": len(passed)}


def look_at_kernels(setting: Setting, device: torch.device, say: Say) -> dict:
    """The kernels of a training step of the first model (on a CPU the operators), by torch.profiler."""
    cuda = device.type == "cuda"
    profiled = partial(profile, activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU])
    with profiled():  # so that what watches the device is there before the step is recorded
        torch.zeros(1, device=device)
        synchronized_time(device)
    data = ResidentData(random_images(setting.images, 1), None, device)
    trainer = Trainer(measured_run(Run(setting.models[0])), data)
    trainer.step()
    synchronized_time(device)
    with profiled() as profiler:
        for _ in range(PROFILED):
            trainer.step()
        synchronized_time(device)
    kernels = []
    for event in profiler.key_averages():
        if event.device_type == (DeviceType.CUDA if cuda else DeviceType.CPU) and not event.is_user_annotation:
            microseconds = event.self_device_time_total if cuda else event.self_cpu_time_total
            kernels.append({"name": event.key, "count": event.count / PROFILED, "us": microseconds / PROFILED})
    if not kernels:
        raise RuntimeError("the profiler saw no kernel")
    kernels.sort(key=lambda kernel: -kernel["us"])
    return {"model": setting.models[0], "precision": trainer.precision, "kernels": kernels}


def compare_kernels(setting: Setting, device: torch.device, say: Say) -> dict:
    """A step of the first model by the library's kernels and by the fused ones: parts, rates, and each kernel."""
    from benchmarks.kernels import measure  # which needs Triton

    return {"text": measure([setting.models[0]], device, [1, setting.pack], setting.rounds, setting.seconds, say)}


def measure_rates(model: str, setting: Setting, device: torch.device, say: Say) -> dict:
    """Throughput of the model, as :mod:`benchmarks.throughput` measures it; on a CPU of one run alone."""
    precision, widths = resolve_precision("auto", device), list(setting.widths) if device.type == "cuda" else []
    limits = measure_limits(device, precision)
    images = random_images(setting.images, setting.test_images)
    result = measure_model(model, widths, images, device, setting.rounds, setting.seconds, setting.workers, say)
    limits = limits.best(measure_limits(device, precision))
    return {"limits": asdict(limits), "result": asdict(judged(result, limits, BATCH))}


def look_at_memory(width: int, setting: Setting, device: torch.device, say: Say) -> dict:
    """GPU memory of so many runs, before and after their first evaluation, which they have at the same time."""
    data = ResidentData(random_images(setting.images, setting.test_images), None, device)
    moments = [{"moment": "data on the device", **memory_now(device)}]
    trainers = [Trainer(measured_run(Run(setting.models[0], seed=seed)), data) for seed in range(width)]
    loop = PackedLoop(trainers)
    loop.advance(loop.settling)
    moments.append({"moment": "training, before an evaluation", **memory_now(device)})
    for trainer in trainers:
        trainer.begin_evaluation()
    for trainer in trainers:
        trainer.finish_evaluation()
    moments.append({"moment": "after an evaluation", **memory_now(device)})
    loop.advance(loop.settling)
    moments.append({"moment": "training again", **memory_now(device)})
    return {"model": setting.models[0], "runs": width, "moments": moments}


def memory_now(device: torch.device) -> dict:
    """GiB allocated by tensors, reserved by PyTorch, reserved at the peak since the last look, and used of the GPU."""
    torch.cuda.synchronize(device)
    free, total = torch.cuda.mem_get_info(device)
    amounts = {
        "allocated_gib": torch.cuda.memory_allocated(device),
        "reserved_gib": torch.cuda.memory_reserved(device),
        "peak_reserved_gib": torch.cuda.max_memory_reserved(device),
        "used_gib": total - free,
    }
    torch.cuda.reset_peak_memory_stats(device)
    return {name: round(amount / GIB, 3) for name, amount in amounts.items()}


def launch(way: str, setting: Setting, device: torch.device, say: Say) -> dict:
    """Digests of the final weights of one launch's runs: "packed", the same "interrupted" and resumed, or "alone"."""
    runs = launched_runs(setting)
    width = 1 if way == "alone" else len(runs)
    with tempfile.TemporaryDirectory() as folder:
        if way == "interrupted":
            in_another_process(launch_once, runs, width, str(device), folder, True)
            say("interrupted; going on")
        launch_once(runs, width, str(device), folder)
        records = read_pool(Path(folder, "records")).records
    found = [records[run.identity] for run in runs]
    return {
        "digests": {f"{run.model}, seed {run.seed}": record["weights_sha256"] for run, record in zip(runs, found)},
        "packed_with": max(record["timing"]["packed_with"] for record in found),
        "interruptions": sum(record["interruptions"] for record in found),
    }


def launched_runs(setting: Setting) -> list[Run]:
    """A run for each net, evaluated four times."""
    recipe = Recipe().shortened(setting.iterations, max(1, setting.iterations // 4), batch_size=setting.batch)
    return [Run(net, recipe, "synthetic", seed) for seed, net in enumerate(setting.nets)]


def launch_once(runs: list[Run], width: int, device: str, folder: str, interrupt: bool = False) -> None:
    """Train the runs that have no record in ``folder``, so many at once; with ``interrupt`` only until they are
    stopped by a signal, as a scheduler would send it. Raises RuntimeError where this did not come about."""
    with stop_on_signals() as stop_requested:

        def on_status(run, status):
            if interrupt and status.state == "running" and not stop_requested():
                os.kill(os.getpid(), signal.SIGTERM)

        outcome = execute(
            runs, RunPaths(Path(folder), Path("data")), stop_requested, on_status, ExecutionOptions(width, device)
        )
    if outcome.failures:
        raise RuntimeError("\n".join(f"{run}: {text}" for run, text in outcome.failures.items()))
    if bool(outcome.interrupted) != interrupt:
        raise RuntimeError(f"the launch ended {outcome.interrupted or 'before it could be interrupted'}")


def in_another_process(function: Callable, *arguments) -> None:
    """Call the function in a new process. Raises RuntimeError where it fails there."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"the process that was to be interrupted ended with exit status {process.exitcode}")


DEVICE = Stage("device", "the device", 60, look_at_device, needs_gpu=False)


def stages(setting: Setting) -> list[Stage]:
    """All stages after the device's, in their order."""
    tests = [
        ("graph", "a recorded step equals the same step without a graph",
         "test_cuda_graph_equals_the_same_steps_without_one"),
        ("packed", "a run in a pack ends as if it were alone", "test_cuda_a_run_in_a_pack_ends_as_if_it_were_alone"),
        ("resumed", "a resumed run equals an uninterrupted one", "test_cuda_resumed_equals_uninterrupted"),
        ("fp16", "an fp16 step that overflows changes nothing",
         "test_cuda_an_fp16_step_that_overflows_changes_neither_weights_nor_velocities"),
    ]  # fmt: skip
    found = [Stage(f"test-{name}", f"test: {title}", 75, partial(run_tests, f"{TESTS}::{test}"), decides=True)
             for name, title, test in tests]  # fmt: skip
    found.append(Stage("kernels", "the kernels of a step", 60, look_at_kernels))
    for model in setting.models:
        found.append(Stage(f"rates-{model}", f"throughput of {model}", 120, partial(measure_rates, model), False))
    for width in (1, setting.pack):
        title = f"memory of {width} run{'s' if width > 1 else ''} around an evaluation"
        found.append(Stage(f"memory-{width}", title, 60, partial(look_at_memory, width)))
    for way, title, limit in (("packed", "packed", 60), ("interrupted", "interrupted and resumed", 90)):
        found.append(Stage(f"launch-{way}", f"a launch, {title}", limit, partial(launch, way), False, decides=True))
    found.append(Stage("launch-alone", "its runs, each alone", 90, partial(launch, "alone"), decides=True))
    found.append(Stage("fused-tests", "tests of the fused kernels", 240, partial(run_tests, KERNEL_TESTS)))
    found.append(Stage("fused", "the fused kernels beside the library's", 180, compare_kernels))
    return found
