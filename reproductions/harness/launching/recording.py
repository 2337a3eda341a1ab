"""What is written down of a run: its starts, as long as it has no record, and then its record."""

import json
from datetime import UTC, datetime
from pathlib import Path

from reproductions.harness import provenance
from reproductions.harness.records import SCHEMA, best_point
from resnet import checkpoint
from resnet.files import write_atomically
from resnet.models import count_parameters
from resnet.run import ROLES
from resnet.trainer import Trainer

_STARTS = "starts.json"


class GivenUp(Exception):
    """A run that was begun again and again without getting any further."""


def note_start(folder: Path, code: dict, launch: str, max_starts: int) -> list[dict]:
    """Add this start to the run's list of starts, and return the list: it counts interruptions, SIGKILL too.

    The code of starts that left no checkpoint has no part in what comes out, and is forgotten. Raises GivenUp
    where this launch has begun the run ``max_starts`` times from the same checkpoint.
    """
    starts, newest = _read_starts(folder), _newest_checkpoint(folder)
    if newest is None and not (folder / checkpoint.PREVIOUS).exists():
        starts = [{**start, "code": None} for start in starts]
    if (in_vain := begun_in_vain(folder, launch)) >= max_starts:
        times = ", ".join(start["time"] for start in starts[-in_vain:])
        raise GivenUp(f"given up: {in_vain} starts did not come as far as a checkpoint ({times})")
    starts.append({"time": _now(), "code": code, "launch": launch, "checkpoint": newest})
    write_atomically(folder / _STARTS, json.dumps(starts).encode())
    return starts


def begun_in_vain(folder: Path, launch: str) -> int:
    """How often this launch has begun the run from the checkpoint that is still its newest."""
    newest = _newest_checkpoint(folder)
    try:
        starts = _read_starts(folder) if launch else []
    except (OSError, ValueError):  # which is for the next start to report
        return 0
    return sum((start.get("launch"), start.get("checkpoint")) == (launch, newest) for start in starts)


def _read_starts(folder: Path) -> list[dict]:
    path = folder / _STARTS
    return json.loads(path.read_text()) if path.exists() else []


def _newest_checkpoint(folder: Path) -> int | None:
    """What tells the newest checkpoint from earlier ones: when it was written, in ns. None without one."""
    path = folder / checkpoint.NEWEST
    return path.stat().st_mtime_ns if path.exists() else None


def make_record(trainer: Trainer, history: dict, tests: dict, code: dict, starts: list[dict]) -> dict:
    """The record of a finished run; see :mod:`reproductions.harness.records` for the fields."""
    run, data, curve = trainer.run, trainer.data, trainer.curve
    earlier = [start["code"] for start in starts if start["code"] is not None]
    if any(old["modified"] or old["resnet_sha256"] != code["resnet_sha256"] for old in earlier):
        code = {**code, "modified": True}  # begun by one version of the code and ended by another
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
        "precision": trainer.precision,
        "timing": {
            "wall_seconds": round(history["wall_seconds"], 3),
            "train_seconds": round(history["train_seconds"], 3),
            "device_seconds": round(history["device_seconds"], 3),
            "images_per_second": round(rate, 2),
            "packed_with": history["packed_with"],
            "finished": _now(),
        },
        "hardware": provenance.hardware(trainer.device, trainer.threads, trainer.group.size),
        "versions": provenance.versions(trainer.kernels),
        "code": code,
        "data": {"name": data.name, "sha256": data.digest, "official": data.official},
        "interruptions": len(starts) - 1,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
