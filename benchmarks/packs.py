"""Packs of growing width for measurements of speed and memory."""

import gc
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from resnet.data.resident import ResidentData
from resnet.device import synchronized_time
from resnet.run import Run
from resnet.trainer import Trainer
from resnet.training import AHEAD, BURST, POLL_SECONDS

GIB = 2**30
_ROOM = 0.95  # largest share of the free memory to allocate


def feed(trainers: list[Trainer], steps: int) -> None:
    """Queue ``steps`` steps of each trainer on the device, in turn and not far ahead, without waiting for the last."""
    left, marks = [steps] * len(trainers), [deque() for _ in trainers]
    while any(left):
        worked = False
        for number, trainer in enumerate(trainers):
            own = marks[number]
            while own and trainer.reached(own[0]):
                own.popleft()
            if left[number] and len(own) < AHEAD:
                burst = min(BURST["cuda"], left[number])
                for _ in range(burst):
                    trainer.step()
                left[number] -= burst
                own.append(trainer.mark())
                worked = True
        if not worked:
            time.sleep(POLL_SECONDS)


class PackedLoop:
    """A loop of trainers that take their steps in turn."""

    settling = 4

    def __init__(self, trainers: list[Trainer]):
        self.trainers, self.runs = trainers, len(trainers)

    def advance(self, steps: int) -> None:
        """Take ``steps`` steps with each trainer."""
        feed(self.trainers, steps)


@dataclass(frozen=True)
class Built:
    """A pack and the memory reserved for it and its data in GiB (None on a CPU), or the reason for leaving it out."""

    width: int
    pack: PackedLoop | None
    memory_gib: float | None = None
    left_out: str | None = None


def measured_run(run: Run) -> Run:
    """Return the run without evaluations and warm-up, so that every step does the same work.

    On random images a warm-up that waits for the training error would never end.
    """
    recipe = replace(run.recipe, eval_interval=run.recipe.iterations, warmup_learning_rate=None)
    return replace(run, recipe=recipe)


def build_packs(
    runs: list[Run], widths: list[int], data: ResidentData, reserved_before: int, say: Callable[[str], None]
) -> list[Built]:
    """Build packs of the first ``runs`` for each of ``widths``, smallest first; each contains the previous one.

    So all can be measured in turn, with no more memory than the largest needs. Packs that do not fit are left out.
    ``reserved_before``: bytes reserved on the device before ``data`` were placed there. Raises ValueError for a width
    that is not in 1 to len(runs).
    """
    device, trainers, built = data.device, [], []
    if not all(1 <= width <= len(runs) for width in widths):
        raise ValueError(f"widths must be in 1 to {len(runs)}, the number of runs, not {widths}")
    full = None  # the reason why no more runs fit
    for width in sorted(set(widths)):
        full = full or no_room(device, reserved_before, len(trainers), width)
        if full is None:
            say(f"preparing {width} run{'s' if width > 1 else ''}")
            full = _grow(trainers, runs[:width], data)
        if full is not None:
            say(f"{width} runs left out: {full}")
            built.append(Built(width, None, left_out=full))
            continue
        built.append(Built(width, PackedLoop(list(trainers)), memory_gib(device, reserved_before)))
    return built


def _grow(trainers: list[Trainer], runs: list[Run], data: ResidentData) -> str | None:
    """Add a trainer for each run without one; if memory runs out, add none and return the reason."""
    before = len(trainers)
    try:
        for run in runs[before:]:
            trainers.append(Trainer(run, data))
            trainers[-1].step()  # the first step reserves the memory of all steps,
            trainers[-1].evaluate()  # and the first evaluation the memory of all evaluations
        synchronized_time(data.device)
    except torch.OutOfMemoryError as error:
        reason = f"out of memory: {str(error).splitlines()[0]}"
    else:
        return None
    del trainers[before:]
    free_unused(data.device)
    return reason


def no_room(device: torch.device, reserved_before: int, present: int, width: int) -> str | None:
    """Return the reason why ``width`` runs will not fit, judged by the present runs' memory; None if they may fit."""
    if device.type != "cuda" or not present:
        return None
    each = (torch.cuda.memory_reserved(device) - reserved_before) / present
    needed, (free, _) = each * (width - present), torch.cuda.mem_get_info(device)
    if needed <= _ROOM * free:
        return None
    return f"needs about {needed / GIB:.0f} GiB more, {free / GIB:.0f} GiB are free"


def memory_gib(device: torch.device, reserved_before: int) -> float | None:
    """Return the peak GiB reserved on a GPU since :func:`reserved`, without ``reserved_before``; None on a CPU."""
    if device.type != "cuda":
        return None
    return round((torch.cuda.max_memory_reserved(device) - reserved_before) / GIB, 2)


def reserved(device: torch.device) -> int:
    """Reset the peak of a GPU's reserved memory and return the bytes reserved now; 0 on a CPU."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_reserved(device)


def free_unused(device: torch.device) -> None:
    """Free unreferenced memory."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
