"""Curves in TensorBoard, Weights & Biases or Trackio while runs are trained (``--track``); the launcher writes them.

Training processes only write ``curve.jsonl``. The launcher reads it, or the record once there is one, and logs what it
has not logged before, which it notes in ``OUT/<tracker>/logged``. So each evaluation is logged once, whichever process
trains the run and however often it is requeued, and a launch catches up on what happened while none was there.
"""

import importlib
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from reproductions.harness.launching.curve_file import read_curve, shown
from reproductions.harness.launching.run_paths import RunPaths
from reproductions.harness.provenance import ROOT
from reproductions.harness.record_files import RecordError, load_record, record_path
from resnet.files import write_atomically
from resnet.run import Run

# By name: the package to install, as in pyproject.toml, and the module to import.
TRACKERS = {
    "tensorboard": ("tensorboard>=2.15", "torch.utils.tensorboard"),
    "wandb": ("wandb>=0.19.10", "wandb"),
    "trackio": ("trackio>=0.30", "trackio"),
}
LOOK_SECONDS = 5.0  # between two looks at the runs
PROJECT = "resnet-reproductions"


class Series(Protocol):
    """The curve of one run in a tracker; wandb's and trackio's runs are such."""

    def log(self, values: dict[str, float], step: int) -> None:
        """Log the values after an iteration."""

    def finish(self) -> None:
        """Write all that is logged, and close the series; another one of the run continues it."""


def import_tracker(name: str):
    """Import a tracker's module. Raises ValueError, with the command that installs it, if it is missing."""
    requirement, module = TRACKERS[name]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        command = [sys.executable, "-m", "pip", "install", "--constraint", str(ROOT / "constraints.txt"), requirement]
        raise ValueError(f"--track {name} needs the package {name}, which can't be imported ({error}); "
                         f"install it: {shlex.join(command)}") from error  # fmt: skip


class Tracker:
    """The series of the runs of a launch; ``groups`` names each run's table and row.

    What a tracker can't do is said once, and ends tracking for this launch, but never the training.
    """

    def __init__(self, name: str, paths: RunPaths, groups: Mapping[Run, str], say: Callable[[str], None]):
        self.name, self.paths, self.say = name, paths, say
        self.folder = paths.out / name
        self._open = {"tensorboard": _TensorBoard, "wandb": _open_wandb, "trackio": _open_trackio}[name]
        self._module = import_tracker(name)
        self._following = dict(groups)  # runs whose curves may grow
        self._series: dict[Run, Series] = {}
        self._next, self._failed = 0.0, False

    def update(self) -> None:
        """Log new evaluations, at most every few seconds."""
        if time.monotonic() >= self._next:
            self._try(self._look)
            self._next = time.monotonic() + LOOK_SECONDS

    def close(self) -> None:
        """Log new evaluations and close all series."""
        self._try(self._look)
        for series in self._series.values():
            self._try(series.finish)
        self._following, self._series = {}, {}

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # of any kind: of a network, an account, a disk
            self._following = {}
            if self._failed:
                return
            self._failed = True
            self.say(f"tracking with {self.name} ends: {error}. Training goes on; the same command with --track "
                     f"{self.name} logs the rest")  # fmt: skip

    def _look(self) -> None:
        for run, group in list(self._following.items()):
            curve, ended = self._curve(run)
            self._log(run, group, curve)
            if ended:
                del self._following[run]
                if (series := self._series.pop(run, None)) is not None:
                    series.finish()

    def _curve(self, run: Run) -> tuple[list[dict], bool]:
        """Return the run's evaluations so far, and whether they are all."""
        with suppress(RecordError, KeyError):  # a damaged record is for others to report
            if (path := record_path(self.paths.records, run)).exists():
                return load_record(path)["curve"], True
        return read_curve(self.paths.work(run)), False

    def _log(self, run: Run, group: str, curve: list[dict]) -> None:
        note = self.folder / "logged" / f"{run.short_id}.json"
        group, last = _read_note(note) or (group, -1)  # a run of two tables stays where it was begun
        if not (new := [point for point in curve if point["iteration"] > last]):
            return
        if run not in self._series:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._series[run] = self._open(self._module, run, group, self.folder)
        for point in new:
            values = {name: value for name, value in shown(point).items() if isinstance(value, (int, float))}
            self._series[run].log({n: v for n, v in values.items() if n != "iteration"}, step=point["iteration"])
        write_atomically(note, json.dumps({"group": group, "iteration": new[-1]["iteration"]}).encode(), durable=False)


def _read_note(path: Path) -> tuple[str, int] | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        note = json.loads(path.read_text())
        return str(note["group"]), int(note["iteration"])
    return None


class _TensorBoard:
    """A folder of event files, ``OUT/tensorboard/<table>/<row>/<run>``; a later launch adds a file to it."""

    def __init__(self, module, run: Run, group: str, folder: Path):
        self._writer = module.SummaryWriter(str(folder / group / f"seed{run.seed}-{run.short_id}"))

    def log(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def finish(self) -> None:
        self._writer.close()


def _open_wandb(module, run: Run, group: str, folder: Path) -> Series:
    """Open a run whose id is the run's identity; a later launch resumes it."""
    return module.init(
        id=run.identity,
        name=f"{group.rpartition('/')[2]}, seed {run.seed}, {run.short_id}",
        dir=str(folder.parent),  # its files are then in OUT/wandb
        reinit="create_new",  # several runs at once
        settings={"silent": True, "console": "off"},  # this process prints for several runs
        **_shared_settings("wandb", run, group),
    )


def _open_trackio(module, run: Run, group: str, folder: Path) -> Series:
    """Open a run whose name ends with the run's identity; a later launch resumes it."""
    return module.init(
        name=f"{group.rpartition('/')[2]}, seed {run.seed}, {run.identity}",
        auto_log_gpu=False,
        auto_log_cpu=False,
        **_shared_settings("trackio", run, group),
    )


def _shared_settings(tracker: str, run: Run, group: str) -> dict:
    project = os.environ.get(f"{tracker.upper()}_PROJECT") or PROJECT
    return {"project": project, "group": group, "config": run.specification(), "resume": "allow"}
