"""The folders that jobs use, and the status files in them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from reproductions.harness.launching.claims import STALE_SECONDS
from reproductions.harness.record_files import record_path, weights_path
from resnet.files import write_atomically
from resnet.progress import Progress

if TYPE_CHECKING:
    from resnet.run import Run


@dataclass(frozen=True)
class RunPaths:
    """The folders of a job's input and output.

    ``out`` has the shape of ``results/``: records/, tables/, plots/; and also work/ with a folder per run (checkpoints,
    progress, failure) and weights/ with the final weights. ``stale_seconds``: the silence after which an owner on
    another machine is taken for dead. ``published``: results whose records and weights replace the training of needed
    runs; None for none.
    """

    out: Path
    data: Path
    checkpoint_seconds: float = 60.0
    stale_seconds: float = STALE_SECONDS
    published: Path | None = None

    @property
    def records(self) -> Path:
        """Folder of the records."""
        return self.out / "records"

    @property
    def jobs(self) -> Path:
        """Folder of submitit, with the jobs' input, output and logs."""
        return self.out / "work" / "jobs"

    @property
    def arrays(self) -> Path:
        """The folder of data sets that were given as arrays."""
        return self.out / "work" / "data"

    def work(self, run: Run) -> Path:
        """Return the folder of the run's checkpoints, status and curve."""
        return self.out / "work" / run.short_id

    def weights(self, run: Run) -> Path:
        """Return the path of the run's final weights."""
        return weights_path(self.out, run)

    def only_published(self, run: Run) -> bool:
        """Return whether the run has no record here, but its record and final weights are published."""
        return (
            self.published is not None
            and not record_path(self.records, run).exists()
            and record_path(self.published / "records", run).exists()
            and weights_path(self.published, run).exists()
        )


@dataclass(frozen=True)
class Status:
    """The status of a run, as its job last wrote it: ``state`` is running, stopped or failed.

    A job reports two more states without writing them: waiting, for another process that trains this run, and done.
    """

    state: str
    run: str
    updated: float  # seconds since the epoch
    progress: Progress | None = None
    message: str = ""
    launch: str = ""  # the common id of a launch's jobs

    def write(self, folder: Path) -> None:
        """Write the status into a run's work folder."""
        # Written once a second for each run: worth no flush, which takes a while and the device waits for.
        write_atomically(folder / "status.json", json.dumps(asdict(self)).encode(), durable=False)

    @classmethod
    def read(cls, folder: Path) -> Status | None:
        """Read the status in a run's work folder; None if there is none or it cannot be read."""
        try:
            values = json.loads((folder / "status.json").read_text())
            progress = Progress(**values["progress"]) if values["progress"] else None
            return cls(**{**values, "progress": progress})
        except (OSError, ValueError, TypeError, KeyError):
            return None


def describe(status: Status) -> str:
    """Describe a running run in one line: iteration, errors, rate and time left."""
    progress = status.progress
    left = (progress.iterations - progress.iteration) / max(progress.steps_per_second, 1e-9)
    text = f"{progress.iteration:,}/{progress.iterations:,}, {progress.steps_per_second:.1f} it/s"
    error = "" if progress.test_error is None else f", test error {progress.test_error:.2f} %"
    if progress.validation_error is not None:  # runs with held-out images are chosen by these alone
        error = f", validation error {progress.validation_error:.2f} %"
    return f"{text}{error}, {duration(left)} left"


def duration(seconds: float) -> str:
    """Format seconds as h:mm:ss, with days in front if there are any."""
    return str(timedelta(seconds=round(seconds)))


def unfinished(runs: list[Run], paths: RunPaths, launch: str) -> list[Run]:
    """List the runs that have no record and did not fail in this launch."""
    unrecorded = [run for run in runs if not record_path(paths.records, run).exists()]
    failed = failures(unrecorded, paths, launch)
    return [run for run in unrecorded if run not in failed]


def failures(runs: list[Run], paths: RunPaths, launch: str) -> dict[Run, str]:
    """Read the messages of the runs that failed in this launch."""
    statuses = {run: Status.read(paths.work(run)) for run in runs}
    return {
        run: s.message for run, s in statuses.items() if s is not None and s.state == "failed" and s.launch == launch
    }
