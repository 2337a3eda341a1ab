"""Submissions to SLURM, written down with their jobs and runs."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from reproductions.harness.launching.run_paths import RunPaths
from reproductions.harness.launching.slurm import queue
from resnet.files import write_atomically


@dataclass(frozen=True)
class Submission:
    """One job array.

    launch: the common id of its jobs. jobs: their ids, each with the file of its stderr. runs: the short ids of the
    runs, each with its name; any job trains any of them, but starts with every ``pack``-th, or with evenly spread ones
    if there are fewer jobs. submitted: seconds since the epoch.
    """

    launch: str
    experiment: str
    jobs: dict[str, str]
    runs: dict[str, str]
    pack: int
    submitted: float

    def write(self, paths: RunPaths) -> None:
        """Write the submission into its file below the output folder."""
        write_atomically(submissions_folder(paths.out) / f"{self.launch}.json", json.dumps(asdict(self)).encode())

    def job_of(self, run: str) -> str:
        """Find the job that starts with the run (a short id), or with one shortly before it."""
        number, jobs = list(self.runs).index(run), list(self.jobs)
        if len(jobs) * self.pack >= len(self.runs):
            return jobs[number // self.pack]
        return jobs[number * len(jobs) // len(self.runs)]


def read_submissions(out: Path) -> list[Submission]:
    """Read all submissions from this folder, the oldest first; unreadable files are skipped."""
    found = []
    for path in submissions_folder(out).glob("*.json"):
        try:
            found.append(Submission(**json.loads(path.read_text())))
        except (OSError, ValueError, TypeError):
            continue
    return sorted(found, key=lambda submission: submission.submitted)


def cancel(experiment: str, out: Path) -> list[str]:
    """Cancel the experiment's jobs in SLURM's queue, and return them. Raises ValueError."""
    queue.check_reachable()
    known = {
        job for submission in read_submissions(out) if submission.experiment == experiment for job in submission.jobs
    }
    living = queue.jobs(known)
    if living is None:
        raise ValueError("SLURM does not say which jobs are still there (squeue failed); nothing was cancelled")
    if living:
        queue.cancel(living)
    return sorted(living)


def last_words(submission: Submission, run: str, answers: queue.Answers) -> str:
    """Describe the end of the job that was to start with the run (a short id), from SLURM's accounting and its log.

    ``answers``: see :func:`queue.ending`.
    """
    job = submission.job_of(run)
    lines = []
    with suppress(OSError):
        lines = Path(submission.jobs[job]).read_text(errors="replace").strip().splitlines()
    ending = queue.ending(job, answers)
    said = f"{lines[-1]} [{submission.jobs[job]}]" if lines else "it left no log"
    return f"job {job} ended{f' as {ending}' if ending else ''}: {said}"


def submissions_folder(out: Path) -> Path:
    """Name the folder of the submissions from ``out``."""
    return out / "work" / "submissions"
