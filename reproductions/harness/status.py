"""The status of the runs in a folder."""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from reproductions.harness import provenance
from reproductions.harness.console import DEFAULT_OUT, ArgumentParser, complain, make_console, path_argument
from reproductions.harness.launching.claims import owned
from reproductions.harness.launching.curve_file import read_curve, shown, sparkline
from reproductions.harness.launching.run_paths import Status, describe, duration
from reproductions.harness.launching.slurm import queue
from reproductions.harness.launching.slurm.submissions import Submission, last_words, read_submissions
from reproductions.harness.record_files import JUDGED_BY, LAUNCHED, cache_folder, file_state, record_files
from resnet.files import write_atomically
from resnet.progress import CHECKPOINTS, Progress

if TYPE_CHECKING:
    from reproductions.harness.experiment import Experiment

SILENT_SECONDS = 300  # a running job writes its status every second or, in a slow step, a little less often
JSON_VERSION = 1  # of the output for programs: raised if a key changes its meaning
LAST_LINES = 5  # of a failed run's message


def main(arguments: list[str]) -> int:
    """Run ``python -m reproductions status`` and return its exit status."""
    parser = ArgumentParser(prog="python -m reproductions status", description="The status of the runs in a folder.")
    parser.add_argument("--out", type=path_argument, default=DEFAULT_OUT, help="folder of the runs (default: runs)")
    parser.add_argument("--json", action="store_true", help="for programs: JSON, described in docs/usage.md")
    options = parser.parse_args(arguments)
    return show_status(options.out, make_console(), as_json=options.json)


def show_status(
    out: Path, console: Console, experiments: Sequence[Experiment] | None = None, as_json: bool = False
) -> int:
    """Print the status of all runs below ``out``; returns 1 if a run failed or a record is damaged, else 0.

    ``experiments``: those whose tables are shown; None for all. ``as_json``: print JSON for programs, whose keys
    docs/usage.md describes; keys that are there stay.
    """
    recorded = _recorded(out, experiments)
    row_names = recorded.pop("row_names")
    recorded["own_commands"] = [f"{command} --out {shlex.quote(str(out))}" for command in recorded["own_commands"]]
    standings = find_standings(out, {path.stem for path in (out / "records").glob("*/*/*.json")}, row_names)
    if as_json:
        runs = [standing.as_json() for standing in standings]
        console.print(json.dumps({"version": JSON_VERSION, "out": str(out), **recorded, "runs": runs}, indent=1))
    else:
        _print(out, console, recorded, standings)
    return int(bool(recorded["damaged"]) or any(standing.state == "failed" for standing in standings))


def _print(out: Path, console: Console, recorded: dict, standings: list[Standing]) -> None:
    if recorded["rows"]:
        table = Table("experiment", "profile", "row", "done", "diverged", "errors, %")
        for row in recorded["rows"]:
            name = next(name for name in (*JUDGED_BY, "validation_error") if f"{name}s" in row)
            errors = ", ".join("–" if error is None else f"{error:.2f}" for error in row[f"{name}s"])
            errors += "" if name.endswith("error") else f" ({JUDGED_BY[name]})"
            counts = f"{row['done']}/{row['seeds']}", str(row["diverged"])
            table.add_row(row["experiment"], row["profile"], row["row"], *counts, errors)
        console.print(table)
    if not recorded["records"]:
        console.print(f"no records in {out / 'records'}")
    elif left := recorded["in_no_table"]:
        console.print(f"records in no table of the suite: {left} of {recorded['records']}, in {out / 'records'}")
    if own := recorded["own_tables"]:
        commands = recorded["own_commands"]
        how = "to see them:" if commands else "their scripts show them"
        console.print("\n  ".join([f"tables of your own there: {', '.join(own)}; {how}", *commands]))

    for standing in standings:
        row = f"{standing.row}: " if standing.row else ""
        console.print(f"{row}{standing.run}: {standing.state}{standing.text}")
        what, values = standing.judged_by
        if len(values) > 1:
            console.print(f"  {what} {sparkline(values)} {values[0]:.2f} → {values[-1]:.2f} %")
    for problem in recorded["damaged"]:
        complain(console, problem)


def _recorded(out: Path, experiments: Sequence[Experiment] | None) -> dict:
    """Summarize the records, or read the summary of the last time if no record, list of tables or code has changed."""
    path, key = cache_folder(out / "records") / "status.json", _state(out, experiments)
    with suppress(OSError, ValueError, RecursionError, TypeError, KeyError):
        last = json.loads(path.read_bytes())
        if last["key"] == key:
            return last["recorded"]
    from reproductions.harness.recorded import summarize  # it imports torch, which takes a second

    recorded = summarize(out, experiments)
    if not recorded["damaged"] and out.is_dir():
        with suppress(OSError):  # a folder of somebody else's, or a full disk
            write_atomically(path, json.dumps({"key": key, "recorded": recorded}).encode(), durable=False)
    return recorded


def _state(out: Path, experiments: Sequence[Experiment] | None) -> str:
    """Return a digest of all that :func:`summarize` depends on. Raises PoolError for a folder that can't be read."""
    digest = hashlib.sha256(provenance.sources_digest(provenance.source_files()).encode())
    names = None if experiments is None else [experiment.name for experiment in experiments]
    for part in names, [[str(file), *_file_state(file)] for file in [*record_files(out / "records"), out / LAUNCHED]]:
        digest.update(json.dumps(part).encode())
    return digest.hexdigest()


def _file_state(path: Path) -> list[int]:
    """Return a file's size and time stamp; nothing if it can't be read."""
    try:
        return file_state(path)
    except OSError:
        return []


@dataclass(frozen=True)
class Standing:
    """The status of a run without a record.

    state: running, queued, stopped, waiting or failed. text: further details, after a colon or a comma. id: the first
    digits of the run's identity. progress: as its job last wrote it. curve: its evaluations so far. row: its table and
    row, as far as they are known.
    """

    run: str
    state: str
    text: str
    id: str = ""
    progress: Progress | None = None
    curve: tuple[dict, ...] = ()
    row: str = ""

    @property
    def judged_by(self) -> tuple[str, list[float]]:
        """Name of the metric to show, and its values so far in percent, where the loss was finite."""
        names = {"validation_error": "validation error"} | JUDGED_BY
        name = next((name for name in names if any(name in point for point in self.curve)), "test_error")
        found = [point.get(name) for point in self.curve]
        return names[name], [value for value in found if value is not None]

    def as_json(self) -> dict:
        """Return the status as JSON values, for programs."""
        known = dict.fromkeys(Progress.__dataclass_fields__)
        last = self.curve[-1] if self.curve else {}  # all that is known of a run that was stopped
        known |= asdict(self.progress) if self.progress else {name: last.get(name) for name in known}
        if known["validation_error"] is not None:
            known["test_error"] = None
        text, curve = self.text.lstrip(":,; "), [shown(point) for point in self.curve]
        names = {"id": self.id, "run": self.run, "row": self.row, "state": self.state, "text": text}
        return {**names, **known, "curve": curve}


def find_standings(out: Path, recorded: set[str], rows: Mapping[str, str] | None = None) -> list[Standing]:
    """Find the status of the runs below ``out`` that are not ``recorded`` (short ids), from jobs' files and SLURM.

    ``rows``: tables and rows by short ids. If SLURM's queue does not answer, the files alone decide.
    """
    submissions = [s for s in read_submissions(out) if set(s.runs) - recorded]
    living = queue.jobs({job for submission in submissions for job in submission.jobs}) if submissions else {}
    newest = {run: submission for submission in submissions for run in submission.runs}
    names = {run: submission.runs[run] for run, submission in newest.items()}
    for path in out.glob("work/*/status.json"):
        if (status := Status.read(path.parent)) is not None:
            names.setdefault(path.parent.name, status.run)
    rows, answers, found = rows or {}, queue.Answers(), []
    for row, name, run in sorted((rows.get(run, ""), name, run) for run, name in names.items() if run not in recorded):
        folder = out / "work" / run
        status, curve = Status.read(folder), tuple(read_curve(folder))
        state, text = _state_of(name, folder, status, newest.get(run), living, answers)
        progress = status.progress if status is not None else None
        found.append(Standing(name, state, text, run, progress, curve, row))
    return found


def _state_of(
    name: str,
    folder: Path,
    status: Status | None,
    submission: Submission | None,
    living: dict | None,
    answers: queue.Answers,
) -> tuple[str, str]:
    """Find the state of a run without a record, and the text for :class:`Standing`."""
    progress = status.progress if status is not None else None
    if owned(folder):
        silent = time.time() - status.updated if status is not None else 0
        note = f" (silent for {duration(silent)})" if silent > SILENT_SECONDS else ""
        running = status is not None and status.state == "running" and progress is not None
        return "running", f": {describe(status)}{note}" if running else ", just started"
    jobs = [] if submission is None or not living else [living[job] for job in submission.jobs if job in living]
    if status is not None and status.state == "failed" and not (jobs and status.launch != submission.launch):
        return "failed", ": " + "\n  ".join(status.message.strip().splitlines()[-LAST_LINES:])
    resumable = any((folder / kept).exists() for kept in CHECKPOINTS)
    begun = _begun(name, status) if resumable else ""
    own = submission.job_of(folder.name) if submission is not None else None
    if jobs:  # any of them may train it; its own would begin with it
        shown = [living[own]] if own in living else jobs[:3]
        states = ", ".join(f"{job.id} {job.state.lower()}{'' if job.reason in ('', 'None') else f' ({job.reason})'}"
                           for job in shown)  # fmt: skip
        return "queued", f"{begun}: {states}{' …' if len(jobs) > 3 and own not in living else ''}"
    if own is not None and living is None:
        return "queued", f" as {own} or ended{begun} (SLURM's queue does not answer)"
    again = "the same command goes on from its checkpoint" if resumable else "the same command begins it"
    if own is not None:
        words = last_words(submission, folder.name, answers)
        return "waiting", f"{begun}; no job is left for it ({words}); {again}"
    return "stopped", f"{begun}; {again}"


def _begun(name: str, status: Status | None) -> str:
    """Describe the progress of a run that has a checkpoint and no process."""
    if status is None:
        return ""
    if status.progress is not None and status.state != "stopped":  # which says more in its message
        return f", {status.progress.iteration:,} of {status.progress.iterations:,} iterations done"
    said = status.message.removeprefix(f"{name} stopped ").removesuffix("; it can be resumed")
    return f", {said}" if status.state == "stopped" and said else ""
