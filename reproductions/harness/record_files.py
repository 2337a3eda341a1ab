"""The files of records: their names and how they are read. They need no torch, which takes a second to load."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resnet.run import Run


LAUNCHED = "launched.jsonl"  # beside records/: a line per launched table; launches only append to it, several at once


class RecordError(Exception):
    """A record that cannot be used. The message names the file; ``kind`` names the fault, ``advice`` the remedy."""

    kind, advice = "damaged record", "Move the file away to train this run again."


class UnreadableRecordError(RecordError):
    """A record that this user may not read, or whose disk fails."""

    kind, advice = "unreadable record", "Have the file made readable for this user."


class PoolError(ValueError):
    """A folder of records that cannot be read. The message names it and says how to go on."""


class NewerRecordError(RecordError):
    """An undamaged record of newer code."""

    kind, advice = "newer record", "Update the code to use it."


def record_path(root: Path, run: Run) -> Path:
    """Name the file of the run's record in the pool ``root``."""
    return root / run.data / run.model / f"{run.short_id}.json"


def weights_path(out: Path, run: Run) -> Path:
    """Name the file of the run's final weights below ``out``, the parent folder of the pool."""
    return out / "weights" / f"{run.short_id}.pt"


def load_record(path: Path) -> dict:
    """Read one record without a check. Raises RecordError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnreadableRecordError(f"{path} can't be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} can't be read as a record: {error}") from error


# The metrics that judge a run, with their names: a classifier's, then the tasks' (higher is better).
JUDGED_BY = {"test_error": "test error", "mean_iou": "mIoU", "map_11_point": "mAP"}


def judged_by(point: dict) -> str:
    """Return the one of JUDGED_BY that an entry of a curve has."""
    return next(name for name in JUDGED_BY if name in point)


def outcome(record: dict) -> str:
    """Describe the end of the run in a few words; with held-out training images, by the error on these alone."""
    if record["status"] == "diverged":
        return "diverged"
    if "validation_error" in (final := record["final"]):
        return f"validation error {final['validation_error']:.2f} %"
    name = judged_by(final)
    return f"{JUDGED_BY[name]} {final[name]:.2f} %"


def record_files(root: Path) -> list[Path]:
    """List the files of records below ``root``, sorted; none if the folder is absent.

    Raises PoolError for a folder that cannot be read: its records would be taken for missing.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            text = f"{error.filename} can't be read ({error.strerror}); have it made readable for this user"
            raise PoolError(f"{text}, or name another folder with --out (OUT= with make)")

    paths = []
    for folder, folders, names in os.walk(root, onerror=refuse, followlinks=True):  # glob says nothing of such folders
        if len(Path(folder).relative_to(root).parts) == 2:
            folders.clear()
            paths += [Path(folder, name) for name in names if name.endswith(".json")]
    return sorted(paths)


def file_state(path: Path) -> list[int]:
    """Return a file's size in bytes and its time stamp in nanoseconds. Raises OSError."""
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns]


def cache_folder(root: Path) -> Path:
    """Name the cache folder of the pool ``root``; it can be deleted at any time."""
    return root.parent / "cache"
