"""The list of tables that were launched into a folder of runs."""

import json
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from reproductions.harness.experiment import PROFILES, Experiment, Table, Variant
from reproductions.harness.record_files import LAUNCHED
from reproductions.harness.records import Pool
from resnet.run import ROLES, Run


def note_tables(out: Path, tables: Iterable[Table], seeds: int | None = None) -> None:
    """Add the tables of a launch to the list of ``out``; a user's own with the command for ``seeds`` runs per row.

    Raises OSError.
    """
    lines = dict.fromkeys(
        json.dumps({"experiment": one.name, **asdict(variant), **_command(one, variant, seeds)})
        for one, variant in tables
    )
    if new := [line for line in lines if line not in _read_lines(out)]:
        with (out / LAUNCHED).open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in new))


def _command(experiment: Experiment, variant: Variant, seeds: int | None) -> dict[str, str]:
    """Return the command that starts a user's own script from any folder; nothing for a table of the suite."""
    command, script = experiment.command(variant, seeds), experiment.script
    if script.endswith(".py"):
        command = command.replace(experiment.program, f"python {shlex.quote(os.path.abspath(script))}", 1)
    return {"command": command} if "." in script else {}


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
    for name, variant, _ in _read_tables(out):
        with suppress(ValueError, TypeError, KeyError):  # a table of other code
            listed.append((by_name[name], by_name[name].resolve(Variant(**variant))))
    return listed


def own_tables(experiments: Sequence[Experiment], out: Path) -> dict[str, list[str]]:
    """Find the tables launched into ``out`` that are none of these experiments: by name, the commands that show them.

    The command is the latest of each variant; a list of older code has none.
    """
    commands, known = dict[str, dict[str, str]](), {experiment.name for experiment in experiments}
    for name, variant, command in _read_tables(out):
        if name not in known:
            commands.setdefault(name, {})[json.dumps(variant)] = command
    return {name: [*filter(None, own.values())] for name, own in commands.items()}


def needed(specification: dict) -> list[str]:
    """List the identities of the runs that a run needs."""
    if not any(specification.get(role) for role in ROLES):
        return []
    return [need.identity for need in Run.from_specification(specification).needs.values()]


def _read_tables(out: Path) -> Iterator[tuple[str, dict, str]]:
    """Read the experiment, the variant's fields and the command (empty if it has none) of each line of the list."""
    for line in _read_lines(out):
        with suppress(ValueError, TypeError, KeyError, AttributeError):  # a line cut short
            variant = json.loads(line)
            yield str(variant.pop("experiment")), variant, variant.pop("command", "")


def _read_lines(out: Path) -> list[str]:
    with suppress(OSError, UnicodeDecodeError):
        return (out / LAUNCHED).read_text(encoding="utf-8").splitlines()
    return []
