"""The list of tables that were launched into a folder of runs."""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from reproductions.harness.experiment import PROFILES, Experiment, Table, Variant
from reproductions.harness.record_files import LAUNCHED
from reproductions.harness.records import Pool


def note_tables(out: Path, tables: Iterable[Table]) -> None:
    """Add the tables of a launch to the list of ``out``. Raises OSError."""
    lines = dict.fromkeys(json.dumps({"experiment": one.name, **asdict(variant)}) for one, variant in tables)
    if new := [line for line in lines if line not in _read_lines(out)]:
        with (out / LAUNCHED).open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in new))


def launched_tables(experiments: Sequence[Experiment], out: Path, pool: Pool) -> list[Table]:
    """Read the list of ``out``: the tables of these experiments that have records in ``pool``, its pool.

    If the listed tables do not show all records, as in a folder of older code, which has no list, the default variants
    of all experiments follow.
    """
    by_name, listed = {experiment.name: experiment for experiment in experiments}, list[Table]()
    for line in _read_lines(out):
        with suppress(ValueError, TypeError, KeyError):  # a line cut short, or a table of other code
            variant = json.loads(line)
            experiment = by_name[variant.pop("experiment")]
            listed.append((experiment, experiment.resolve(Variant(**variant))))
    shown = {record["identity"] for experiment, variant in listed for row in experiment.rows_of(variant)
             for record in row.records(variant, pool)}  # fmt: skip
    if pool.records.keys() - shown:
        listed += [(experiment, Variant(profile)) for experiment in experiments for profile in PROFILES]
    return [table for table in dict.fromkeys(listed) if table[0].recorded_seeds(table[1], pool)]


def _read_lines(out: Path) -> list[str]:
    with suppress(OSError, UnicodeDecodeError):
        return (out / LAUNCHED).read_text(encoding="utf-8").splitlines()
    return []
