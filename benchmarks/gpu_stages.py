"""Stages of the GPU check; each runs in its own process and returns JSON values."""

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch

from benchmarks.floor import measure_limits
from benchmarks.kernels import kernels_of_step, measure
from benchmarks.measuring import BATCH, IMAGES, TEST_IMAGES, random_images
from benchmarks.packs import GIB, PackedLoop, measured_run
from benchmarks.results import judged
from benchmarks.throughput import measure_model
from reproductions.harness import provenance
from reproductions.harness.launching.options import Options
from reproductions.harness.launching.run_paths import RunPaths
from reproductions.harness.launching.signals import stop_on_signals
from reproductions.harness.launching.worker import execute
from reproductions.harness.records import read_pool
from resnet.data.resident import ResidentData
from resnet.device import available_cores, resolve_precision, why_no_cuda
from resnet.recipe import Recipe
from resnet.run import Run
from resnet.trainer import Trainer

Say = Callable[[str], None]
TESTS = "tests/resnet/test_packing.py"
KERNEL_TESTS = "tests/resnet/test_kernels.py"


class Skipped(Exception):
    """Stage that can't run here. The message says why."""


@dataclass(frozen=True)
class Setting:
    """Extent of the measurements.

    models: models of the throughput stages; the kernel and memory stages use the first. widths: sizes of the packs.
    pack: number of runs in the memory stage. rounds, seconds, workers, images, test_images: see
    :mod:`benchmarks.throughput`. nets: the nets of the packed launch, one run each, trained for ``iterations`` of
    ``batch`` images.
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
    """A part of the check with a time limit in seconds; ``decides``: whether it decides that the GPU is safe to use."""

    name: str
    title: str
    limit: float
    work: Callable[[Setting, torch.device, Say], dict]
    needs_gpu: bool = True
    decides: bool = False


def look_at_device(setting: Setting, device: torch.device, say: Say) -> dict:
    """Return the origin of the results and the GPU's properties, or the reason why there is no GPU."""
    values = {**provenance.origin(device), "no_gpu": None}
    if device.type != "cuda":
        return {**values, "no_gpu": why_no_cuda() or "the CPU was requested"}
    gpu = torch.cuda.get_device_properties(device)
    return {
        **values,
        "capability": f"{gpu.major}.{gpu.minor}",
        "memory_gib": round(gpu.total_memory / GIB, 1),
        "multiprocessors": gpu.multi_processor_count,
    }


def run_tests(test: str, setting: Setting, device: torch.device, say: Say) -> dict:
    """Run the fast tests marked gpu of a file, or of one test function, with pytest in this process.

    Raises Skipped, and SystemExit if a test fails.
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
    code = pytest.main([path, "-q", "-m", "gpu and not slow", "-p", "no:cacheprovider"], plugins=[Listener()])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise SystemExit(int(code))
    if not passed:
        raise Skipped(", ".join(dict.fromkeys(reasons)) or "pytest ran no test")
    return {"passed": len(passed), "left_out": len(reasons)}


def look_at_kernels(setting: Setting, device: torch.device, say: Say) -> dict:
    """Profile the kernels of a training step of the first model, or on a CPU its operators."""
    data = ResidentData(random_images(setting.images, 1), None, device)
    trainer = Trainer(measured_run(Run(setting.models[0])), data)
    kernels = [{"name": name, "count": count, "us": us} for name, (count, us) in kernels_of_step(trainer).items()]
    return {"model": setting.models[0], "precision": trainer.precision, "kernels": kernels}


def compare_kernels(setting: Setting, device: torch.device, say: Say) -> dict:
    """Compare a step of the first model with the library's and with the fused kernels: parts, rates and kernels."""
    return {"text": measure([setting.models[0]], device, [1, setting.pack], setting.rounds, setting.seconds, say)}


def measure_rates(model: str, setting: Setting, device: torch.device, say: Say) -> dict:
    """Measure the model's throughput like :mod:`benchmarks.throughput`; on a CPU for one run only."""
    precision, widths = resolve_precision("auto", device), list(setting.widths) if device.type == "cuda" else []
    limits = measure_limits(device, precision)
    images = random_images(setting.images, setting.test_images)
    result = measure_model(model, widths, images, device, setting.rounds, setting.seconds, setting.workers, say)
    limits = limits.best(measure_limits(device, precision))
    return {"limits": asdict(limits), "result": asdict(judged(result, limits, BATCH))}


def look_at_memory(width: int, setting: Setting, device: torch.device, say: Say) -> dict:
    """Measure the GPU memory of ``width`` runs before and after their first evaluations, which run at the same time."""
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
    """Return GiB allocated by tensors, reserved by PyTorch, peak reserved since the last call, and used on the GPU."""
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
    """Run one launch "packed", "interrupted" and resumed, or "alone"; return the digests of its runs' final weights."""
    runs = launched_runs(setting)
    width = 1 if way == "alone" else len(runs)
    with tempfile.TemporaryDirectory() as folder:
        if way == "interrupted":
            in_another_process(launch_once, runs, width, str(device), folder, True)
            say("interrupted; resuming")
        launch_once(runs, width, str(device), folder)
        records = read_pool(Path(folder, "records")).records
    found = [records[run.identity] for run in runs]
    return {
        "digests": {f"{run.model}, seed {run.seed}": record["weights_sha256"] for run, record in zip(runs, found)},
        "packed_with": max(record["timing"]["packed_with"] for record in found),
        "interruptions": sum(record["interruptions"] for record in found),
    }


def launched_runs(setting: Setting) -> list[Run]:
    """Return a run for each net, evaluated four times."""
    recipe = Recipe().shortened(setting.iterations, max(1, setting.iterations // 4), batch_size=setting.batch)
    return [Run(net, recipe, "synthetic", seed) for seed, net in enumerate(setting.nets)]


def launch_once(runs: list[Run], width: int, device: str, folder: str, interrupt: bool = False) -> None:
    """Train the runs that have no record in ``folder``, ``width`` at once.

    With ``interrupt``, stop them by a signal like a scheduler's. Raises RuntimeError if a run fails, or if the
    interruption did not happen.
    """
    with stop_on_signals() as stop_requested:

        def on_status(run, status):
            if interrupt and status.state == "running" and not stop_requested():
                os.kill(os.getpid(), signal.SIGTERM)

        paths, options = RunPaths(Path(folder), Path("data")), Options(pack=width, device=device)
        outcome = execute(runs, paths, stop_requested, on_status, options)
    if outcome.failures:
        raise RuntimeError("\n".join(f"{run}: {text}" for run, text in outcome.failures.items()))
    if bool(outcome.interrupted) != interrupt:
        raise RuntimeError(f"the launch ended {outcome.interrupted or 'before it could be interrupted'}")


def in_another_process(function: Callable, *arguments) -> None:
    """Call the function in a new process. Raises RuntimeError if it fails there."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"the interrupted process ended with exit status {process.exitcode}")


DEVICE = Stage("device", "the device", 60, look_at_device, needs_gpu=False)


def stages(setting: Setting) -> list[Stage]:
    """Return all stages after the device's, in order."""
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
    found.append(Stage("fused", "the fused kernels compared with the library's", 180, compare_kernels))
    return found
