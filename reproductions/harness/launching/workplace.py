"""Where jobs work: the folders of a pool, and how each run in it stands."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from resnet.files import write_atomically
from resnet.run import Run
from resnet.trainer import Progress


@dataclass(frozen=True)
class Workplace:
    """Where a job finds data and leaves what it makes.

    ``out`` has the shape of ``results/``: records/, tables/, plots/; besides, work/ with a folder per run
    (checkpoints, progress, failure) and weights/ with the final weights.
    """

    out: Path
    data: Path
    checkpoint_seconds: float = 60.0

    @property
    def records(self) -> Path:
        return self.out / "records"

    def work(self, run: Run) -> Path:
        return self.out / "work" / run.short_id

    def weights(self, run: Run) -> Path:
        return self.out / "weights" / f"{run.short_id}.pt"


@dataclass(frozen=True)
class Status:
    """How a run stands, as its job last wrote it: state is running, stopped or failed.

    A job tells, but does not write down, two more: waiting, for another process that trains this run, and done.
    """

    state: str
    run: str
    updated: float  # seconds since the epoch
    progress: Progress | None = None
    message: str = ""

    def write(self, folder: Path) -> None:
        write_atomically(folder / "status.json", json.dumps(asdict(self)).encode())

    @classmethod
    def read(cls, folder: Path) -> "Status | None":
        """The status in a run's work folder; None if there is none or it can't be read."""
        try:
            values = json.loads((folder / "status.json").read_text())
            progress = Progress(**values["progress"]) if values["progress"] else None
            return cls(**{**values, "progress": progress})
        except (OSError, ValueError, TypeError, KeyError):
            return None
