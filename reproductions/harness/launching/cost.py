"""What a launch will cost, from measured rates: those in records of the same device, else a few steps taken here."""

import statistics
from dataclasses import dataclass, replace

import numpy as np
import torch

from reproductions.harness import provenance
from reproductions.harness.records import Pool, device_seconds
from resnet.data import ImageDataset
from resnet.run import Run
from resnet.trainer import DeviceData, Trainer, synchronized_time

_EVALUATION_SHARE = 1.1  # wall time over training time where no record tells


@dataclass(frozen=True)
class Rate:
    """Training images per second of a model on a device, of all runs together that share it; ``overhead`` is wall
    time over training time."""

    images_per_second: float
    overhead: float
    source: str

    def hours(self, run: Run) -> float:
        return run.recipe.iterations * run.recipe.batch_size / self.images_per_second * self.overhead / 3600


def recorded_rate(run: Run, pools: list[Pool], hardware: dict) -> Rate | None:
    """The median rate of the records of this model, batch size and precision on such hardware, None without any.

    ``hardware`` holds those of a record's fields that must agree: type, device, threads.
    """
    matching = [
        record
        for pool in pools
        for record in pool.records.values()
        if record["specification"]["model"] == run.model
        and record["specification"]["recipe"]["batch_size"] == run.recipe.batch_size
        and record["specification"]["recipe"]["precision"] == run.recipe.precision
        and hardware.items() <= ({"processes": 1} | record["hardware"]).items()
    ]
    if not matching:
        return None
    timings = [record["timing"] for record in matching]
    rate = statistics.median(
        record["timing"]["images_per_second"] * record["timing"]["wall_seconds"] / device_seconds(record)
        for record in matching
    )
    overhead = statistics.median(timing["wall_seconds"] / timing["train_seconds"] for timing in timings)
    devices = ", ".join(sorted({record["hardware"]["device"] for record in matching}))
    return Rate(rate, overhead, f"{len(matching)} records on {devices}")


def measured_rate(run: Run, device: torch.device, steps: int = 2) -> Rate:
    """The rate of a few steps taken now, on random images."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1_024, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(1_024, dtype=np.uint8) % 10
    data = ImageDataset(run.data, images, labels, images[:1], labels[:1], official=False)
    trainer = Trainer(replace(run, train_images=None), DeviceData(data, None, device))
    trainer.step()  # the first step also prepares the device's kernels
    start = synchronized_time(device)
    for _ in range(steps):
        trainer.step()
    seconds = synchronized_time(device) - start
    rate = steps * run.recipe.batch_size / seconds
    return Rate(rate, _EVALUATION_SHARE, f"measured now on {provenance.device_name(device)}")


def rates_here(runs: list[Run], pools: list[Pool], device: torch.device) -> dict[str, Rate]:
    """A rate for each model of the runs on this machine's device."""
    hardware, rates = provenance.hardware(device, torch.get_num_threads()), {}
    for run in runs:
        if run.model not in rates:
            rates[run.model] = recorded_rate(run, pools, hardware) or measured_rate(run, device)
    return rates


def rates_elsewhere(runs: list[Run], pools: list[Pool]) -> dict[str, Rate]:
    """A rate for each model of the runs that some record has on a CUDA GPU."""
    found = {run.model: recorded_rate(run, pools, {"type": "cuda"}) for run in runs}
    return {model: rate for model, rate in found.items() if rate is not None}
