"""The slots of this machine, each for one job of the local queue."""

import os
from dataclasses import dataclass

import torch

from reproductions.harness.console import counted
from resnet.device import available_cores


@dataclass(frozen=True)
class Slot:
    """A place for one job: a GPU, or a share of the processor's cores."""

    number: int
    gpu: int | None
    threads: int | None

    def __str__(self) -> str:
        return f"GPU {self.gpu}" if self.gpu is not None else f"slot {self.number} ({counted(self.threads, 'thread')})"


def find_slots(wanted: int | None, jobs: int, device: str = "auto") -> list[Slot]:
    """Find the slots of this machine, at most one per job. Raises ValueError for an unusable number."""
    if wanted is not None and wanted < 1:
        raise ValueError(f"the number of slots must be at least 1, not {wanted}")
    gpus = [] if device == "cpu" else visible_gpus()
    if gpus:
        count = min(wanted or len(gpus), jobs)
        return [Slot(number, gpus[number % len(gpus)], None) for number in range(count)]
    cores = available_cores()
    # The threads of a slot don't depend on how many jobs there are: they decide the last bits of a result.
    threads = max(1, cores // (wanted or cores))
    return [Slot(number, None, threads) for number in range(min(wanted or cores, jobs))]


def visible_gpus() -> list[int]:
    """List the numbers of this process's GPUs, as CUDA_VISIBLE_DEVICES takes them."""
    listed, count = os.environ.get("CUDA_VISIBLE_DEVICES"), torch.cuda.device_count()
    if listed is None or count == 0:
        return list(range(count))
    names = [name.strip() for name in listed.split(",") if name.strip()]
    if not all(name.isdigit() for name in names):
        raise ValueError(f"CUDA_VISIBLE_DEVICES={listed} must list GPUs by number for the local launcher")
    return [int(name) for name in names][:count]
