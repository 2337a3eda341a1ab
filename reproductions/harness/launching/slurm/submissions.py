"""What was submitted to SLURM, written down among what is underway: which jobs there are, and for which runs."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from reproductions.harness.launching.run_paths import RunPaths
from reproductions.harness.launching.slurm import queue
from resnet.files import write_atomically
from resnet.run import Run


@dataclass(frozen=True)
class Submission:
    """One job array.

    launch: what its jobs have in common. jobs: their ids, each with the file that has its last words. runs: the
    short ids of the runs that its jobs train, any job any of them, each with its name; a job begins with every
    ``pack``-th, and fewer jobs than that are evenly spread. submitted: seconds since the epoch.
    """

    launch: str
    experiment: str
    jobs: dict[str, str]
    runs: dict[str, str]
    pack: int
    submitted: float

    def write(self, paths: RunPaths) -> None:
        write_atomically(submissions_folder(paths.out) / f"{self.launch}.json", json.dumps(asdict(self)).encode())

    def covers(self, run: Run) -> bool:
        return run.short_id in self.runs

    def job_of(self, run: str) -> str:
        """The job that begins with the run (a short id), or with one shortly before it."""
        number, jobs = list(self.runs).index(run), list(self.jobs)
        if len(jobs) * self.pack >= len(self.runs):
            return jobs[number // self.pack]
        return jobs[number * len(jobs) // len(self.runs)]


def read_submissions(out: Path) -> list[Submission]:
    """All submissions from this folder, the oldest first; a file that can't be read is left out."""
    found = []
    for path in submissions_folder(out).glob("*.json"):
        try:
            found.append(Submission(**json.loads(path.read_text())))
        except (OSError, ValueError, TypeError):
            continue
    return sorted(found, key=lambda submission: submission.submitted)


def cancel(experiment: str, out: Path) -> list[str]:
    """Cancel those jobs of the experiment that are still in SLURM's queue, and return them. Raises ValueError."""
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


def last_words(submission: Submission, run: str) -> str:
    """How the job that was to begin the run (a short id) ended, as far as SLURM's accounting and its log tell."""
    job = submission.job_of(run)
    lines = []
    with suppress(OSError):
        lines = Path(submission.jobs[job]).read_text(errors="replace").strip().splitlines()
    ending = queue.ending(job)
    said = f"{lines[-1]} [{submission.jobs[job]}]" if lines else "it left no log"
    return f"job {job} ended{f' as {ending}' if ending else ''}: {said}"


def submissions_folder(out: Path) -> Path:
    """Where the submissions from the folder ``out`` are written down."""
    return out / "work" / "submissions"
