"""The list of tables that were launched into a folder of runs."""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from reproductions.harness.experiment import PROFILES, Experiment, Table, Variant
from reproductions.harness.record_files import LAUNCHED
from reproductions.harness.records import Pool
from resnet.run import ROLES, Run


def note_tables(out: Path, tables: Iterable[Table]) -> None:
    """Add the tables of a launch to the list of ``out``. Raises OSError."""
    lines = dict.fromkeys(json.dumps({"experiment": one.name, **asdict(variant)}) for one, variant in tables)
    if new := [line for line in lines if line not in _read_lines(out)]:
        with (out / LAUNCHED).open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in new))


def launched_tables(experiments: Sequence[Experiment], out: Path, pool: Pool) -> list[Table]:
    """Read the list of ``out``: the tables of these experiments that have records in ``pool``, its pool.

    If the listed tables and the runs that they need are not all records, as in a folder of older code, which has no
    list, the default variants of all experiments follow; but not where a user's own tables are listed, too.
    """
    listed = listed_tables(experiments, out)
    shown = [record for experiment, variant in listed for row in experiment.rows_of(variant)
             for record in row.records(variant, pool)]  # fmt: skip
    known = {identity for record in shown for identity in (record["identity"], *needed(record["specification"]))}
    if pool.records.keys() - known and not own_tables(experiments, out):
        listed += [(experiment, Variant(profile)) for experiment in experiments for profile in PROFILES]
    return [table for table in dict.fromkeys(listed) if table[0].recorded_seeds(table[1], pool)]


def listed_tables(experiments: Sequence[Experiment], out: Path) -> list[Table]:
    """Read the tables of these experiments in the list of ``out``, with records or without."""
    by_name, listed = {experiment.name: experiment for experiment in experiments}, list[Table]()
    for line in _read_lines(out):
        with suppress(ValueError, TypeError, KeyError):  # a line cut short, or a table of other code
            variant = json.loads(line)
            experiment = by_name[variant.pop("experiment")]
            listed.append((experiment, experiment.resolve(Variant(**variant))))
    return listed


def own_tables(experiments: Sequence[Experiment], out: Path) -> list[str]:
    """List the names of the tables launched into ``out`` that are none of these experiments."""
    names = dict[str, None]()
    for line in _read_lines(out):
        with suppress(ValueError, TypeError, KeyError):
            names[json.loads(line)["experiment"]] = None
    return [name for name in names if name not in {experiment.name for experiment in experiments}]


def needed(specification: dict) -> list[str]:
    """List the identities of the runs that a run needs."""
    if not any(specification.get(role) for role in ROLES):
        return []
    return [need.identity for need in Run.from_specification(specification).needs.values()]


def _read_lines(out: Path) -> list[str]:
    with suppress(OSError, UnicodeDecodeError):
        return (out / LAUNCHED).read_text(encoding="utf-8").splitlines()
    return []
