"""SLURM's queue, read through SLURM's own commands."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

ANSWER_SECONDS = 20.0  # for one command; with a controller that does not answer, SLURM's own go on trying for longer
PING_SECONDS = 10.0
_PROGRAMS = ("sbatch", "srun", "squeue", "scancel", "scontrol")
_ID = re.compile(r"[1-9]\d{0,17}(_\d{1,9})?", re.ASCII)
# sacct's rows of an array: 12_3 of an element, 12_[3-5,7%2] of those that never began.
_ROW = re.compile(r"(?P<array>\d+)(_(?P<element>\d+)|_\[(?P<ranges>[\d,-]+)(%\d+)?\])?", re.ASCII)
# States of ended jobs; squeue goes on showing them for a while when it is asked for a job by its id.
_ENDED = {
    *("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE", "REVOKED"),
}

# SLURM's answers by command and array; an answer is None if the command failed.
Answers = dict[tuple[str, str], Any]


@dataclass(frozen=True)
class QueuedJob:
    """A job in the queue. ``id`` of an array's element is like 123_4. ``state`` and ``reason`` are SLURM's words."""

    id: str
    state: str
    reason: str


def jobs(ids: Iterable[str]) -> dict[str, QueuedJob] | None:
    """Find the jobs that have not ended yet, by their ids; an array's id stands for all its elements.

    Returns None if SLURM cannot answer: a program is missing, the controller silent. Raises ValueError for an invalid
    id.
    """
    asked = set(_checked(ids))
    if not asked:
        return {}
    try:  # thousands of elements would be more than a command takes
        shown = _queue(list({id.partition("_")[0] for id in asked}))
    except _Failure:
        return None
    wanted = {id: job for id, job in shown.items() if id in asked or id.partition("_")[0] in asked}
    return {id: job for id, job in wanted.items() if job.state not in _ENDED}


def _queue(ids: list[str], *options: str) -> dict[str, QueuedJob]:
    """Read these jobs from squeue."""
    _ping()  # squeue alone would try to reach a controller for 18 seconds
    try:
        output = _run(["squeue", "--array", "--noheader", "--format=%i|%T|%r", f"--jobs={','.join(ids)}", *options])
    except _Failure as failure:
        if "Invalid job id" in str(failure):  # of a single job that the controller has forgotten, and no failure
            return {}
        raise
    shown = {}
    for line in output.splitlines():
        id, _, rest = line.strip().partition("|")
        state, _, reason = rest.partition("|")
        if _ID.fullmatch(id) and state:
            shown[id] = QueuedJob(id, state, reason)
    return shown


def ending(job_id: str, answers: Answers | None = None) -> str | None:
    """Find the end of a job, such as "TIMEOUT", "CANCELLED by 0" or "FAILED, exit code 1:0" (code:signal).

    ``answers``: a dictionary that keeps SLURM's answers, so that it is asked once for all jobs of an array.

    The answer is from sacct, or without accounting from squeue, which remembers jobs for some minutes and says "FAILED,
    NonZeroExitCode". It is None if the job has not ended, and if neither knows: SLURM leaves no trace of an array's
    element that is cancelled alone before its start. Raises ValueError for an invalid id.
    """
    _checked([job_id])
    answers = {} if answers is None else answers
    return _ending_by_sacct(job_id, answers) or _ending_by_squeue(job_id, answers)


def _ask(command: str, array: str, question: Callable[[], Any], answers: Answers) -> Any:
    """Answer a question about an array; None if the command fails."""
    if (command, array) not in answers:
        try:
            answers[command, array] = question()
        except _Failure:
            answers[command, array] = None
    return answers[command, array]


def _ending_by_sacct(job_id: str, answers: Answers) -> str | None:
    array, _, element = job_id.partition("_")
    # All rows of the whole array: only they include elements that never began. The last one counts.
    command = ["sacct", "--noheader", "--parsable2", "--allocations", "--duplicates", "--format=JobID,State,ExitCode"]
    found, output = None, _ask("sacct", array, lambda: _run([*command, f"--jobs={array}"]), answers)
    for line in (output or "").splitlines():
        row, state, code = [*line.split("|"), "", ""][:3]
        if (match := _ROW.fullmatch(row)) and match["array"] == array and _includes(match, element):
            ended = state.split(" ")[0] in _ENDED | {"PREEMPTED"}
            found = (state if code in ("", "0:0") else f"{state}, exit code {code}") if ended else None
    return found


def _ending_by_squeue(job_id: str, answers: Answers) -> str | None:
    array = job_id.partition("_")[0]
    job = (_ask("squeue", array, lambda: _queue([array], "--states=all"), answers) or {}).get(job_id)
    if job is None or job.state not in _ENDED:
        return None
    return job.state if job.reason in ("", "None") else f"{job.state}, {job.reason}"


def _includes(row: re.Match, element: str) -> bool:
    if row["ranges"] is None:
        return (row["element"] or "") == element
    bounds = [part.split("-") for part in row["ranges"].split(",") if part]
    return bool(element) and any(int(bound[0]) <= int(element) <= int(bound[-1]) for bound in bounds)


def cancel(ids: Iterable[str]) -> None:
    """Cancel the jobs; jobs that have ended already are no error. Raises ValueError with SLURM's words."""
    if asked := _checked(ids):
        try:
            _run(["scancel", *asked])
        except _Failure as failure:
            raise ValueError(f"the jobs {' '.join(asked)} could not all be cancelled: {failure}") from failure


def check_reachable() -> None:
    """Raise ValueError, with SLURM's own words, if jobs cannot be submitted: no programs, no controller."""
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if missing:
        raise ValueError(f"SLURM's programs are not on this machine ({', '.join(missing)}): is it a login node?")
    try:
        _ping()
    except _Failure as failure:
        raise ValueError(f"SLURM's controller can't be reached: {failure}") from failure


class _Failure(Exception):
    """The failure of a command, in its own words."""


def _ping() -> None:
    output = _run(["scontrol", "ping"], PING_SECONDS)
    if " UP" not in output.upper():  # "Slurmctld(primary) at login1 is UP"; one of several controllers is enough
        raise _Failure(_words(output))


def _run(command: list[str], seconds: float | None = None) -> str:
    """Run a command and return its output."""
    seconds = ANSWER_SECONDS if seconds is None else seconds
    # The user's own settings for these commands, such as SQUEUE_STATES, would change their answers.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("SQUEUE_", "SACCT_", "SCANCEL_"))
    }
    try:
        result = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as error:
        said = (error.stderr or b"").decode(errors="replace")
        raise _Failure(_words(f"{command[0]} did not answer within {seconds:.0f} s\n{said}")) from error
    except OSError as error:
        raise _Failure(f"{command[0]} can't be run: {error.strerror}") from error
    if result.returncode != 0:
        raise _Failure(_words(result.stderr + result.stdout) or f"{command[0]} ended with {result.returncode}")
    return result.stdout


def _words(text: str) -> str:
    """Join the lines of a text, without SLURM's frames of asterisks."""
    lines = (line.strip() for line in text.splitlines())
    return "; ".join(line for line in lines if line.strip("* "))


def _checked(ids: Iterable[str]) -> list[str]:
    """Return the ids, each once; raises ValueError for an invalid one."""
    asked = list(dict.fromkeys(ids))
    for id in asked:
        if not isinstance(id, str) or not _ID.fullmatch(id):
            raise ValueError(f"{id!r} is not the id of a SLURM job, such as 123 or 123_4")
    return asked
