"""Results of the throughput benchmark, and their two files."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.floor import Floor, Limits, floor
from benchmarks.measuring import Rates
from benchmarks.nets import read_net
from resnet.files import write_atomically

CONVENTIONAL = "conventional loop"


@dataclass(frozen=True)
class Row:
    """A loop's rates and reserved memory in GiB (None on a CPU), or the reason for leaving it out.

    ratio: to the conventional loop, the median of the rounds' ratios. of_floor, of_floor_with_cache: fractions of the
    rate at the floor; None for the conventional loop.
    """

    name: str
    runs: int
    rates: Rates | None = None
    memory_gib: float | None = None
    ratio: float | None = None
    of_floor: float | None = None
    of_floor_with_cache: float | None = None
    left_out: str | None = None


@dataclass(frozen=True)
class ModelResult:
    """Results of one model; ``floor`` is None until :func:`judged`."""

    model: str
    rows: tuple[Row, ...]
    floor: Floor | None = None


@dataclass(frozen=True)
class TableRow:
    """A mixed pack of Table 6, with ``seeds`` seeds of each net, and the minutes of training all runs at its rate."""

    seeds: int
    runs: int
    rates: Rates | None = None
    memory_gib: float | None = None
    minutes: float | None = None
    left_out: str | None = None


@dataclass(frozen=True)
class TableResult:
    """Results of Table 6 with all its ``runs``.

    evaluation_minutes: minutes of all evaluations, one after another on the otherwise idle device. floor_minutes:
    minutes of training at the floor's rate, None until known.
    """

    models: tuple[str, ...]
    runs: int
    iterations: int
    evaluations: int
    rows: tuple[TableRow, ...]
    evaluation_minutes: float
    floor_minutes: float | None = None


@dataclass(frozen=True)
class Results:
    """All results; for hardware, versions and code see :mod:`reproductions.harness.provenance`."""

    hardware: dict
    versions: dict
    code: dict
    batch: int
    rounds: int
    seconds: float
    workers: int
    limits: Limits
    models: tuple[ModelResult, ...] = ()
    table: TableResult | None = None


def judged(result: ModelResult, limits: Limits, batch: int) -> ModelResult:
    """Add the floor that follows from a device's limits, and each loop's fraction of it but the conventional one's."""
    model, options = read_net(result.model)
    least = floor(model, batch, limits, options)
    rows = [
        row
        if row.rates is None or row.name == CONVENTIONAL
        else replace(
            row,
            of_floor=row.rates.median * least.seconds / batch,
            of_floor_with_cache=row.rates.median * least.seconds_with_cache / batch,
        )
        for row in result.rows
    ]
    return replace(result, rows=tuple(rows), floor=least)


def file_name(kind: str, device: str) -> str:
    """Return a file name without a suffix, such as throughput-nvidia-h200."""
    return f"{kind}-{re.sub(r'[^a-z0-9]+', '-', device.lower()).strip('-')}"


def write(folder: Path, kind: str, device: str, values: dict, text: str) -> None:
    """Write the values as JSON and the text as Markdown into ``folder``."""
    name = file_name(kind, device)
    write_atomically(folder / f"{name}.json", json.dumps(values, indent=1).encode() + b"\n")
    write_atomically(folder / f"{name}.md", text.encode())
