"""The cost of a launch, from rates that are recorded on the same device or measured by a few steps here."""

import gc
import math
import statistics
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from reproductions.harness import provenance
from reproductions.harness.console import counted
from reproductions.harness.records import Pool, device_seconds, segments
from resnet.data import FOLDERS, IMAGE_SHAPES, Arrays, ImageDataset, place
from resnet.data.canvas import make_canvases
from resnet.data.resident import ResidentData
from resnet.data.scenes import LAYOUTS
from resnet.data.synthetic import make_synthetic
from resnet.device import resolve_precision, synchronized_time, threads
from resnet.hooks import build
from resnet.models.complexity import multiply_adds
from resnet.run import Run
from resnet.tasks import Task
from resnet.trainer import Trainer

if TYPE_CHECKING:
    from resnet.tasks.trainer import TaskTrainer

_EVALUATION_SHARE = 1.1  # wall time over training time where no record tells
_CPU_BATCH = {"fp16": 16}  # images a step to measure with on a CPU, which has no arithmetic for fp16
_CPU_BATCH_ELSE = 128


class Work(NamedTuple):
    """The properties of a run that decide the cost of a training image."""

    model: str
    options: tuple[tuple[str, object], ...]
    batch_size: int
    precision: str
    teacher: str | None
    image_size: int | None  # of image folders
    fused: bool  # kernels
    plugins: tuple[str, ...] = ()
    task: Task | None = None

    def __str__(self) -> str:
        parts = [" ".join([self.model, *(f"{name}={value}" for name, value in self.options)])]
        parts += [] if self.batch_size == 128 else [f"batch {self.batch_size}"]
        parts += [] if self.precision == "auto" else [self.precision]
        parts += ["fused kernels"] if self.fused else []
        parts += [] if not self.plugins else [f"with {' and '.join(self.plugins)}"]
        parts += [] if self.teacher is None else [f"taught by {self.teacher}"]
        parts += [] if self.task is None else [self.task.name]
        return ", ".join(parts)


def work_of(run: Run) -> Work:
    """Return the properties of this run that decide the cost of a training image."""
    return Work(
        run.model,
        tuple(sorted(run.model_options.items())),
        run.recipe.batch_size,
        run.recipe.precision,
        run.teacher and run.teacher.model,
        run.recipe.image_size if run.data in FOLDERS else None,
        run.recipe.kernels == "fused",
        tuple(map(str, run.recipe.plugins)),
        run.task and replace(run.task, backbone=None),  # whose weights cost the steps nothing
    )


@dataclass(frozen=True)
class Rate:
    """Training images per second of a model on a device, summed over the runs that share it.

    ``overhead`` is wall time over training time.
    """

    images_per_second: float
    overhead: float
    source: str

    def hours(self, run: Run) -> float:
        """Return the hours that the run takes at this rate, with the overhead."""
        return run.recipe.iterations * run.recipe.batch_size / self.images_per_second * self.overhead / 3600


def recorded_rate(run: Run, pools: list[Pool], hardware: dict, precision: str | None = None) -> Rate | None:
    """Return the median rate of the records of the same work on the same hardware, None without any.

    ``hardware`` has the fields of a record that must agree: type, device, threads. ``precision``: the precision of the
    run there, if it is known.
    """

    def matches(record: dict) -> bool:
        own, other = work_of(run), work_of(Run.from_specification(record["specification"]))
        if precision is not None:
            own, other = own._replace(precision=precision), other._replace(precision=record["precision"])
        here = hardware.items() <= ({"processes": 1} | record["hardware"]).items()
        return own == other and here and len(segments(record)) == 1

    matching = [record for pool in pools for record in pool.records.values() if matches(record)]
    if not matching:
        return None
    timings = [record["timing"] for record in matching]
    rate = statistics.median(
        record["timing"]["images_per_second"] * record["timing"]["wall_seconds"] / device_seconds(record)
        for record in matching
    )
    overhead = statistics.median(timing["wall_seconds"] / timing["train_seconds"] for timing in timings)
    devices = ", ".join(sorted({record["hardware"]["device"] for record in matching}))
    return Rate(rate, overhead, f"{counted(len(matching), 'record')} on {devices}")


def measured_rate(run: Run, device: torch.device, steps: int = 2) -> Rate | None:
    """Measure the rate in a few steps on random images; None for image folders, whose files affect the rate."""
    if run.data in FOLDERS or run.data in LAYOUTS:
        return None
    if run.task is not None:
        from resnet.tasks.trainer import TaskTrainer  # whose torchvision takes a second to load

        made = make_canvases(run.data, make_synthetic(train_images=100, test_images=100))
        trainer = TaskTrainer(replace(run, pretrained=None), place(made, None, device))
        return _rate_of(trainer, steps)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1_024, *IMAGE_SHAPES[run.data]), dtype=np.uint8)
    labels = np.arange(1_024, dtype=np.uint8) % 10
    data = ImageDataset(run.data, images, labels, images[:1], labels[:1], official=False)
    recipe, most = run.recipe, _CPU_BATCH.get(run.recipe.precision, _CPU_BATCH_ELSE)
    if device.type == "cpu" and recipe.batch_size > most:
        recipe = replace(recipe, batch_size=most, batch_norm_size=None)
    teacher = run.teacher and build(run.teacher, data.num_classes).state_dict()
    # The pre-training costs the steps nothing.
    run = replace(run, recipe=recipe, train_images=None, pretrained=None, arrays=run.arrays and Arrays.of(data))
    return _rate_of(Trainer(run, ResidentData(data, None, device), teacher=teacher), steps)


def _rate_of(trainer: "Trainer | TaskTrainer", steps: int) -> Rate:
    device, recipe = trainer.device, trainer.recipe
    trainer.step()  # the first step also prepares the device's kernels
    start = synchronized_time(device)
    for _ in range(steps):
        trainer.step()
    seconds = synchronized_time(device) - start
    rate = steps * recipe.batch_size / seconds
    return Rate(rate, _EVALUATION_SHARE, f"measured now on {provenance.device_name(device)}")


def rates_here(
    runs: list[Run],
    pools: list[Pool],
    device: torch.device,
    thread_count: int | None = None,
    seconds: float = math.inf,
    enough_hours: float = math.inf,
) -> dict[Work, Rate]:
    """Find a rate for the work of each of the runs on this machine's device: a recorded one, else a measured one.

    ``thread_count``: threads of a CPU, by default the number of this process. Measuring stops after ``seconds``, and
    after the runs that take ``enough_hours`` together.
    """
    found: dict[Work, Rate | None] = {}
    end, hours = time.monotonic() + seconds, 0.0
    with threads(thread_count or torch.get_num_threads()):
        hardware = provenance.hardware(device, torch.get_num_threads())
        for run in runs:
            if (work := work_of(run)) not in found:
                found[work] = recorded_rate(run, pools, hardware, resolve_precision(run.recipe.precision, device))
                if found[work] is None and time.monotonic() <= end and hours <= enough_hours:
                    found[work] = measured_rate(run, device)
            hours += found[work].hours(run) if found[work] else 0
    if device.type == "cuda":  # the memory of the trainers, which a launch in this process must find free
        gc.collect()
        torch.cuda.empty_cache()
    return {work: rate for work, rate in found.items() if rate is not None}


def rates_elsewhere(runs: list[Run], pools: list[Pool]) -> dict[Work, Rate]:
    """Find the recorded rates for the runs' work on CUDA GPUs."""
    found = {work: recorded_rate(run, pools, {"type": "cuda"}) for work, run in {work_of(r): r for r in runs}.items()}
    return {work: rate for work, rate in found.items() if rate is not None}


def estimated_rates(runs: list[Run], known: dict[Work, Rate]) -> dict[Work, Rate]:
    """Estimate the rates that are not ``known``, in proportion to the multiply-adds of the known ones.

    A device trains small nets at about the same rate of multiply-adds: on an H100, 4.4 to 5.5e12 per second with
    ResNet-20, 56 and 110. This is good enough to plan with.
    """
    works = {work_of(run): run for run in runs}
    works = {work: run for work, run in works.items() if run.task is None}  # whose images have one size
    speeds = [rate.images_per_second * _multiply_adds(works[work]) for work, rate in known.items() if work in works]
    if not speeds:
        return {}
    speed, source = statistics.median(speeds), "estimated by multiply-adds"
    return {
        work: Rate(speed / _multiply_adds(run), _EVALUATION_SHARE, source)
        for work, run in works.items()
        if work not in known and run.data not in FOLDERS
    }


def _multiply_adds(run: Run) -> float:
    """Count multiply-adds of a forward pass for one image, and a third of the teacher's, which has no backward pass."""
    size = IMAGE_SHAPES[run.data][0] if run.data in IMAGE_SHAPES else None
    teacher = multiply_adds(run.teacher.model, run.teacher.model_options, size) / 3 if run.teacher else 0
    return multiply_adds(run.model, run.model_options, size) + teacher
