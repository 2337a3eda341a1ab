"""What runs on a device: trains runs one after another and leaves their records, whoever started it."""

import fcntl
import json
import signal
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch

from reproductions.harness import provenance
from reproductions.harness.launching.signals import stop_on_signals
from reproductions.harness.launching.workplace import Status, Workplace
from reproductions.harness.records import (
    SCHEMA,
    RecordError,
    best_point,
    outcome,
    read_record,
    record_path,
    write_record,
)
from resnet import checkpoint
from resnet.data import load
from resnet.files import write_atomically
from resnet.models import count_parameters
from resnet.run import Run
from resnet.trainer import DeviceData, Interrupted, Trainer, default_device, train

_CLAIM_SECONDS = 1.0  # between two looks at a run that another process trains


@dataclass(frozen=True)
class Outcome:
    """How a launch ended. ``failures``: traceback or last words of each failed run. ``interrupted``: what there is
    to say of a launch that was stopped, empty if it ran to its end."""

    failures: dict[Run, str]
    interrupted: str = ""


@dataclass(frozen=True)
class Job:
    """What submitit starts in a process of its own: :func:`execute`.

    On submitit's signal (the time limit, preemption) it writes a checkpoint, then leaves the requeueing to submitit.
    """

    runs: list[Run]
    place: Workplace
    threads: int | None = None

    def __call__(self) -> Outcome:
        import submitit

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        requeue_signal = submitit.JobEnvironment()._usr_sig()
        with stop_on_signals(requeue_signal) as stop:
            outcome = execute(self.runs, self.place, stop)
        if stop.signal == requeue_signal:
            signal.raise_signal(requeue_signal)  # submitit's own handler, which is back in place
        return outcome

    def checkpoint(self):
        """For submitit: what a requeued job does."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def execute(
    runs: list[Run],
    place: Workplace,
    stop_requested: Callable[[], bool],
    on_status: Callable[[Run, Status], None] = lambda run, status: None,
) -> Outcome:
    """Train the runs that have no record yet, one after another.

    A run that fails does not stop the others, and one that another process trains is waited for; once
    ``stop_requested`` turns true, the current one writes a checkpoint and no further one is begun. Raises DataError
    if the data can't be had, and OSError if the run's folder can't be made.
    """
    failures: dict[Run, str] = {}
    data: dict[tuple, DeviceData] = {}
    device, code = default_device(), provenance.code_identity()
    torch.backends.cudnn.deterministic = True  # so that a resumed run equals an uninterrupted one on a GPU, too
    waiting = deque(runs)
    while waiting:
        run = waiting.popleft()
        with _claim(place.work(run)) as claimed:
            if (path := record_path(place.records, run)).exists():
                try:
                    on_status(run, _done(run, read_record(path)))
                except RecordError as error:  # never trained over: it may be all that is left of a result
                    failures[run] = f"{error}\nMove the file away to train this run again."
            elif stop_requested():
                return Outcome(failures, "stopped between two runs")
            elif not claimed:
                on_status(run, Status("waiting", str(run), time.time(), message="another process trains it"))
                waiting.append(run)
                time.sleep(_CLAIM_SECONDS)
            else:
                key = (run.data, run.train_images)
                if key not in data:
                    data = {key: DeviceData(load(run.data, place.data), run.train_images, device)}
                report = partial(_report, run, place, on_status)
                try:
                    record = _train_and_record(run, place, data[key], code, stop_requested, partial(report, "running"))
                    on_status(run, _done(run, record))
                except Interrupted as interrupted:
                    report("stopped", message=str(interrupted))
                    return Outcome(failures, str(interrupted))
                except Exception:  # whatever went wrong with this run, the others go on
                    failures[run] = traceback.format_exc()
                    _report_failure(report, failures[run])
    return Outcome(failures)


@contextmanager
def _claim(folder: Path) -> Iterator[bool]:
    """Whether the run of this work folder is this process's to train; if so, it is no other's until the end.

    The lock goes with the process, however it ends. Raises OSError if the folder can't be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            claimed = True
        except BlockingIOError:
            claimed = False
        except OSError:  # a file system without locks
            claimed = True
        yield claimed


def _done(run: Run, record: dict) -> Status:
    return Status("done", str(run), time.time(), message=outcome(record))


def _report(run: Run, place: Workplace, on_status: Callable, state: str, progress=None, message: str = "") -> None:
    """Write down how the run stands, and tell."""
    status = Status(state, str(run), time.time(), progress, message)
    status.write(place.work(run))
    on_status(run, status)


def _report_failure(report: Callable, text: str) -> None:
    try:
        report("failed", message=text)
    except OSError as error:  # a full disk, say: the traceback is still shown at the end
        warnings.warn(f"the failure of a run could not be written down: {error}", stacklevel=2)


def _train_and_record(run, place: Workplace, data: DeviceData, code: dict, stop_requested, on_progress) -> dict:
    folder = place.work(run)
    starts = _note_start(folder, code)
    trainer = Trainer(run, data)
    timing = train(trainer, folder, place.checkpoint_seconds, on_progress, stop_requested)
    write_atomically(place.weights(run), checkpoint.pack(trainer.model.state_dict()))
    record = make_record(trainer, timing, code, starts)
    write_record(place.records, record)
    checkpoint.remove(folder)
    for name in ("status.json", "starts.json"):
        (folder / name).unlink(missing_ok=True)
    return record


def _note_start(folder: Path, code: dict) -> list[dict]:
    """Add this start to the run's list of starts, and return the list: it counts interruptions, SIGKILL too.

    The code of starts that left no checkpoint has no part in what comes out, and is forgotten.
    """
    path = folder / "starts.json"
    starts = json.loads(path.read_text()) if path.exists() else []
    if not any((folder / name).exists() for name in (checkpoint.NEWEST, checkpoint.PREVIOUS)):
        starts = [{**start, "code": None} for start in starts]
    starts.append({"time": _now(), "code": code})
    write_atomically(path, json.dumps(starts).encode())
    return starts


def make_record(trainer: Trainer, timing: dict, code: dict, starts: list[dict]) -> dict:
    """The record of a finished run; see :mod:`reproductions.harness.records` for the fields."""
    run, data, curve = trainer.run, trainer.data, trainer.curve
    earlier = [start["code"] for start in starts if start["code"] is not None]
    if any(old["modified"] or old["resnet_sha256"] != code["resnet_sha256"] for old in earlier):
        code = {**code, "modified": True}  # begun by one version of the code and ended by another
    rate = trainer.iteration * run.recipe.batch_size / timing["train_seconds"]
    return {
        "schema": SCHEMA,
        "identity": run.identity,
        "specification": run.specification(),
        "status": "diverged" if trainer.diverged else "completed",
        "parameters": count_parameters(trainer.model),
        "curve": curve,
        "final": curve[-1],
        "best": best_point(curve),
        "warmup_ended_at": trainer.warmup_ended_at,
        "weights_sha256": trainer.weights_digest(),
        "precision": trainer.precision,
        "timing": {
            **{name: round(seconds, 3) for name, seconds in timing.items()},
            "images_per_second": round(rate, 2),
            "finished": _now(),
        },
        "hardware": provenance.hardware(trainer.device, trainer.threads),
        "versions": provenance.versions(),
        "code": code,
        "data": {"name": data.name, "sha256": data.digest, "official": data.official},
        "interruptions": len(starts) - 1,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
