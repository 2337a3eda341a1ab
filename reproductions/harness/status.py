"""The status of the runs in a folder."""

import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from reproductions.harness.console import complain
from reproductions.harness.experiment import Experiment
from reproductions.harness.known_records import read_known_pool
from reproductions.harness.launched import launched_tables
from reproductions.harness.launching.claims import owned
from reproductions.harness.launching.progress import describe, duration
from reproductions.harness.launching.run_paths import Status
from reproductions.harness.launching.slurm import queue
from reproductions.harness.launching.slurm.submissions import Submission, last_words, read_submissions
from resnet import checkpoint

SILENT_SECONDS = 300  # a running job writes its status every second or, in a slow step, a little less often
LAST_LINES = 5  # of what a failed run said


def show_status(experiments: tuple[Experiment, ...], out: Path, console: Console) -> int:
    """Print the status of all runs below ``out``; returns 1 if a run failed or a record is damaged, else 0."""
    pool = read_known_pool(out / "records", whole=False)
    table = Table("experiment", "profile", "row", "done", "diverged", "errors, %")
    left = set(pool.records)
    for experiment, variant in launched_tables(experiments, out, pool):
        seeds = experiment.recorded_seeds(variant, pool)
        for result in experiment.results(variant, seeds, pool, pool):
            if result.records:
                left.difference_update(record["identity"] for record in result.records)
                diverged = sum(record["status"] == "diverged" for record in result.records)
                errors = [record["final"]["test_error"] for record in result.records]
                shown = ", ".join("–" if error is None else f"{error:.2f}" for error in errors)
                done = f"{len(result.records)}/{seeds}"
                table.add_row(experiment.name, variant.name, result.row.key, done, str(diverged), shown)
    if table.row_count:
        console.print(table)
    if not pool.records:
        console.print(f"no records in {out / 'records'}")
    elif left:
        console.print(f"{len(left)} of {len(pool.records)} records in {out / 'records'} are in no listed table")

    standings = find_standings(out, {path.stem for path in (out / "records").glob("*/*/*.json")})
    for standing in standings:
        console.print(f"{standing.run}: {standing.state}{standing.text}")
    for error in pool.damaged.values():
        complain(console, f"{error.kind}: {error}")
    return int(bool(pool.damaged) or any(standing.state == "failed" for standing in standings))


@dataclass(frozen=True)
class Standing:
    """The status of a run without a record.

    state: running, queued, stopped, waiting or failed. text: further details, after a colon or a comma.
    """

    run: str
    state: str
    text: str


def find_standings(out: Path, recorded: set[str]) -> list[Standing]:
    """Find the status of the runs below ``out`` that are not ``recorded`` (short ids), from jobs' files and SLURM.

    If SLURM's queue does not answer, the files alone decide.
    """
    submissions = [s for s in read_submissions(out) if set(s.runs) - recorded]
    living = queue.jobs({job for submission in submissions for job in submission.jobs}) if submissions else {}
    newest = {run: submission for submission in submissions for run in submission.runs}
    names = {run: submission.runs[run] for run, submission in newest.items()}
    for path in out.glob("work/*/status.json"):
        if (status := Status.read(path.parent)) is not None:
            names.setdefault(path.parent.name, status.run)
    endings: dict[str, str] = {}  # by job, that several runs may have in common
    left = sorted(((name, run) for run, name in names.items() if run not in recorded))
    with queue.asking_once():
        return [_standing(name, out / "work" / run, newest.get(run), living, endings) for name, run in left]


def _standing(
    name: str, folder: Path, submission: Submission | None, living: dict | None, endings: dict[str, str]
) -> Standing:
    status = Status.read(folder)
    progress = status.progress if status is not None else None
    if owned(folder):
        silent = time.time() - status.updated if status is not None else 0
        note = f" (silent for {duration(silent)})" if silent > SILENT_SECONDS else ""
        running = status is not None and status.state == "running" and progress is not None
        return Standing(name, "running", f": {describe(status)}{note}" if running else ", just started")
    jobs = [] if submission is None or not living else [living[job] for job in submission.jobs if job in living]
    if status is not None and status.state == "failed" and not (jobs and status.launch != submission.launch):
        return Standing(name, "failed", ": " + "\n  ".join(status.message.strip().splitlines()[-LAST_LINES:]))
    resumable = any((folder / kept).exists() for kept in (checkpoint.NEWEST, checkpoint.PREVIOUS))
    begun = _begun(name, status) if resumable else ""
    own = submission.job_of(folder.name) if submission is not None else None
    if jobs:  # any of them may train it; its own would begin with it
        shown = [living[own]] if own in living else jobs[:3]
        states = ", ".join(f"{job.id} {job.state.lower()}{'' if job.reason in ('', 'None') else f' ({job.reason})'}"
                           for job in shown)  # fmt: skip
        return Standing(name, "queued", f"{begun}: {states}{' …' if len(jobs) > 3 and own not in living else ''}")
    if own is not None and living is None:
        return Standing(name, "queued", f" as {own} or ended{begun} (SLURM's queue does not answer)")
    again = "the same command goes on from its checkpoint" if resumable else "the same command begins it"
    if own is not None:
        if own not in endings:
            endings[own] = last_words(submission, folder.name)
        return Standing(name, "waiting", f"{begun}; no job is left for it ({endings[own]}); {again}")
    return Standing(name, "stopped", f"{begun}; {again}")


def _begun(name: str, status: Status | None) -> str:
    """Describe the progress of a run that has a checkpoint and no process."""
    if status is None:
        return ""
    if status.progress is not None:
        return f", {status.progress.iteration:,} of {status.progress.iterations:,} iterations done"
    said = status.message.removeprefix(f"{name} stopped ").removesuffix("; it can be resumed")
    return f", {said}" if status.state == "stopped" and said else ""
