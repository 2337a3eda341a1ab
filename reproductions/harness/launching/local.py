"""A queue of submitit jobs on this machine: one job per slot, a slot being a GPU or a processor core.

submitit's own local executor starts everything at once and gives every job the first GPU.
"""

import os
import signal
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import submitit
import torch

from reproductions.harness.launching import Options
from reproductions.harness.launching.job import Job, Outcome
from reproductions.harness.launching.progress import Display
from reproductions.harness.launching.signals import STOPPING, stop_on_signals
from reproductions.harness.launching.workplace import Workplace
from resnet.run import Run

_MONTH_MINUTES = 30 * 24 * 60  # submitit wants a time limit; a local job has none
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Slot:
    """A place for one job: a GPU, or a share of the processor's cores."""

    number: int
    gpu: int | None
    threads: int | None

    def __str__(self) -> str:
        return f"GPU {self.gpu}" if self.gpu is not None else f"slot {self.number} ({self.threads} threads)"


def find_slots(wanted: int | None, jobs: int) -> list[Slot]:
    """The slots of this machine, at most as many as ``jobs``. Raises ValueError for an unusable number."""
    if wanted is not None and wanted < 1:
        raise ValueError(f"the number of slots must be at least 1, not {wanted}")
    gpus = visible_gpus()
    if gpus:
        count = min(wanted or len(gpus), jobs)
        return [Slot(number, gpus[number % len(gpus)], None) for number in range(count)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # The threads of a slot don't depend on how many jobs there are: they decide the last bits of a result.
    threads = max(1, cores // (wanted or cores))
    return [Slot(number, None, threads) for number in range(min(wanted or cores, jobs))]


def visible_gpus() -> list[int]:
    """The numbers of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES wants them."""
    listed, count = os.environ.get("CUDA_VISIBLE_DEVICES"), torch.cuda.device_count()
    if listed is None or count == 0:
        return list(range(count))
    names = [name.strip() for name in listed.split(",") if name.strip()]
    if not all(name.isdigit() for name in names):
        raise ValueError(f"CUDA_VISIBLE_DEVICES={listed} must list GPUs by number for the local launcher")
    return [int(name) for name in names][:count]


def launch(runs: list[Run], place: Workplace, display: Display, options: Options) -> Outcome:
    """Keep one job per slot until all runs are done; SIGINT and SIGTERM stop the jobs at a checkpoint."""
    if not runs:
        return Outcome({})
    waiting, failures = list(reversed(runs)), {}
    free = list(reversed(find_slots(options.slots, len(runs))))
    running: dict[Slot, tuple[Run, submitit.Job]] = {}
    stopped = False
    with stop_on_signals(message=STOPPING) as stop_requested:
        while running or (waiting and not stopped):
            while free and waiting and not stopped:
                slot, run = free.pop(), waiting.pop()
                running[slot] = (run, _submit(run, slot, place))
                display.say(f"{run} on {slot}, log {running[slot][1].paths.stderr}")
            time.sleep(_POLL_SECONDS)
            display.poll(place, [run for run, _ in running.values()])
            for slot, (run, job) in list(running.items()):
                if job.done():
                    display.poll(place, [run])
                    del running[slot]
                    free.append(slot)
                    failures |= _failure(run, job, stopped)
            if stop_requested():
                stopped = True
                for _, job in running.values():  # again and again: a job that is just starting may miss the first
                    _ask_to_stop(job)
    left = f", {len(waiting)} runs not begun" if waiting else ""
    return Outcome(failures, f"stopped at a checkpoint{left}" if stopped else "")


def _submit(run: Run, slot: Slot, place: Workplace) -> submitit.Job:
    executor = submitit.LocalExecutor(place.out / "work" / "jobs")
    gpus = {"gpus_per_node": 1, "visible_gpus": (slot.gpu,)} if slot.gpu is not None else {}
    executor.update_parameters(timeout_min=_MONTH_MINUTES, **gpus)
    with _ignoring_ctrl_c():
        return executor.submit(Job([run], place, slot.threads))


@contextmanager
def _ignoring_ctrl_c():
    """Processes started inside don't die of the terminal's Ctrl-C: submitit's would kill its job a second later."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _ask_to_stop(job: submitit.Job) -> None:
    with suppress(ProcessLookupError):
        os.kill(int(job.job_id), signal.SIGTERM)  # submitit's local job id is a process that passes the signal on


def _failure(run: Run, job: submitit.Job, stopped: bool) -> dict[Run, str]:
    """The run's failure, if it failed. ``stopped``: the job was asked to stop, so its end is none."""
    try:
        outcome = job.result()
        return outcome.failures or ({run: outcome.interrupted} if outcome.interrupted and not stopped else {})
    except submitit.core.utils.UncompletedJobError as error:  # the process died without a word of its own
        return {} if stopped else {run: str(error)}
    except Exception as error:
        return {run: f"{type(error).__name__}: {error}"}
