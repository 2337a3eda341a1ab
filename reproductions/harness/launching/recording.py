"""The files of a run: its list of starts while it has no record, and then its record."""

import json
from datetime import UTC, datetime
from pathlib import Path

from reproductions.harness import provenance
from reproductions.harness.records import ORIGIN, SCHEMA, best_point
from resnet import checkpoint
from resnet.files import write_atomically
from resnet.models import count_parameters
from resnet.plugins import imported_versions
from resnet.run import ROLES
from resnet.trainer import Trainer

_STARTS = "starts.json"


def note_start(folder: Path, launch: str, max_starts: int) -> list[dict]:
    """Add this start to the run's list of starts, and return the list: it counts interruptions, SIGKILL too.

    Raises ValueError if this launch has started the run ``max_starts`` times from the same checkpoint, or if the file
    has other content, and OSError.
    """
    starts, newest = _read_starts(folder), _newest_checkpoint(folder)
    if (in_vain := begun_in_vain(folder, launch)) >= max_starts:
        times = ", ".join(start["time"] for start in starts[-in_vain:])
        raise ValueError(f"given up: {in_vain} starts did not reach a checkpoint ({times})")
    starts.append({"time": _now(), "launch": launch, "checkpoint": newest})
    write_atomically(folder / _STARTS, json.dumps(starts).encode())
    return starts


def take_back_start(folder: Path, starts: list[dict]) -> None:
    """Remove the newest of the run's ``starts``, unless it left a checkpoint: the run was not the cause.

    Raises OSError.
    """
    if starts[-1]["checkpoint"] == _newest_checkpoint(folder):
        write_atomically(folder / _STARTS, json.dumps(starts[:-1]).encode())


def begun_in_vain(folder: Path, launch: str) -> int:
    """Count this launch's starts of the run from its newest checkpoint."""
    newest = _newest_checkpoint(folder)
    try:
        starts = _read_starts(folder) if launch else []
    except (OSError, ValueError):  # which is for the next start to report
        return 0
    return sum((start.get("launch"), start.get("checkpoint")) == (launch, newest) for start in starts)


def _read_starts(folder: Path) -> list[dict]:
    """Read the run's list of starts. Raises OSError, and ValueError for a file with other content."""
    path = folder / _STARTS
    if not path.exists():
        return []
    try:
        starts = json.loads(path.read_text())
    except ValueError:
        starts = None
    if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts):
        raise ValueError(f"{path} is not a list of the run's starts; remove it to count them anew")
    return starts


def _newest_checkpoint(folder: Path) -> int | None:
    """Identify the newest checkpoint by its time stamp in ns; None without one."""
    path = folder / checkpoint.NEWEST
    return path.stat().st_mtime_ns if path.exists() else None


def origin(trainer: Trainer, code: dict) -> dict:
    """Describe this process for a segment of a record: hardware, precision, versions, code.

    The versions of a run with plugins contain the versions of the distributions that these import.
    """
    plugins = trainer.recipe.plugins
    imports = {"imports": imported_versions(plugins)} if plugins else {}
    return {
        "hardware": provenance.hardware(trainer.device, trainer.threads, trainer.group.size),
        "precision": trainer.precision,
        "versions": provenance.versions(trainer.kernels) | imports,
        "code": code,
    }


def make_record(trainer: Trainer, history: dict, tests: dict, starts: list[dict]) -> dict:
    """Make the record of a finished run; see :mod:`reproductions.harness.records` for the fields."""
    run, data, curve = trainer.run, trainer.data, trainer.curve
    segments = [
        {"from": noted["from"], "to": noted["to"], "device_seconds": round(noted["device_seconds"], 3)}
        | (noted["origin"] or dict.fromkeys(ORIGIN))
        for noted in history["segments"]
    ]
    last = {name: segments[-1][name] for name in ORIGIN}
    modified = _modified([segment["code"] for segment in segments])
    rate = trainer.iteration * run.recipe.batch_size / history["train_seconds"]
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
        **{f"{role}_sha256": trainer.needed_digests.get(role) for role in ROLES},
        "tests": tests,
        **last,
        "code": {**last["code"], "modified": modified},
        "segments": segments,
        "timing": {
            **{name: round(history[name], 3) for name in ("wall_seconds", "train_seconds", "device_seconds")},
            "images_per_second": round(rate, 2),
            "packed_with": history["packed_with"],
            "finished": _now(),
        },
        "data": {"name": data.name, "sha256": data.digest, "official": data.official},
        "interruptions": len(starts) - 1,
    }


def _modified(codes: list[dict | None]) -> bool | None:
    """Return whether a segment's code was modified, or segments have different code; None if that is not known."""
    known = [code for code in codes if code is not None]
    if any(code["modified"] for code in known) or len({code["resnet_sha256"] for code in known}) > 1:
        return True
    certain = len(known) == len(codes) and not any(code["modified"] is None for code in known)
    return False if certain else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
