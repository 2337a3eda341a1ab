"""SLURM job arrays through submitit: a job per run, requeued by its own checkpoint when its time is up."""

import os
import time
from contextlib import contextmanager

import submitit

from reproductions.harness.launching import Options
from reproductions.harness.launching.job import Job, Outcome
from reproductions.harness.launching.progress import Display
from reproductions.harness.launching.signals import stop_on_signals
from reproductions.harness.launching.workplace import Status, Workplace
from reproductions.harness.records import record_path
from resnet.run import Run

_POLL_SECONDS = 2.0


def launch(runs: list[Run], place: Workplace, display: Display, options: Options) -> Outcome:
    """Submit the runs as one array and show their progress; SIGINT detaches and leaves the jobs alone."""
    if not runs:
        return Outcome({})
    absolute = Workplace(place.out.resolve(), place.data.resolve(), place.checkpoint_seconds)
    jobs = _submit(runs, absolute, options.slurm.submitit_parameters())
    display.say(f"submitted {len(jobs)} jobs to SLURM: {jobs[0].job_id} to {jobs[-1].job_id}")
    waiting = dict(zip(runs, jobs))
    failures: dict[Run, str] = {}
    with stop_on_signals() as stop_requested:
        while waiting and not stop_requested():
            time.sleep(_POLL_SECONDS)
            display.poll(place, list(waiting))
            for run, job in list(waiting.items()):
                if record_path(place.records, run).exists():
                    display.poll(place, [run])
                    del waiting[run]
                elif job.done():
                    del waiting[run]
                    failures |= _failure(run, job, place)
    if waiting:
        names = " ".join(sorted({job.job_id.split("_")[0] for job in jobs}))
        return Outcome(failures, f"detached; the jobs go on (see squeue, cancel with: scancel {names})")
    return Outcome(failures)


def _submit(runs: list[Run], place: Workplace, parameters: dict) -> list[submitit.Job]:
    """Submit one array. Raises ValueError with SLURM's or submitit's own words if it is not accepted."""
    try:
        executor = submitit.AutoExecutor(place.out / "work" / "jobs", cluster="slurm")
        executor.update_parameters(name="resnet", **parameters)
        with _outside_of_any_job():
            return executor.submit_array([Job([run], place, parameters["cpus_per_task"]) for run in runs])
    except (submitit.core.utils.FailedJobError, RuntimeError, NameError, TypeError) as error:
        asked = " ".join(f"{name}={value}" for name, value in parameters.items())
        raise ValueError(f"nothing was submitted to SLURM: {error}\nasked for: {asked}") from error


@contextmanager
def _outside_of_any_job():
    """Without the identity of a job that this process may itself run in, but with the cluster's configuration."""
    configuration = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
    with submitit.helpers.clean_env():
        os.environ.update(configuration)
        yield


def _failure(run: Run, job: submitit.Job, place: Workplace) -> dict[Run, str]:
    """Why a job ended without a record; nothing if its record came in the meantime."""
    if record_path(place.records, run).exists():
        return {}
    status = Status.read(place.work(run))
    if status is not None and status.state == "failed":
        return {run: status.message}
    try:
        return job.result().failures
    except Exception as error:
        return {run: f"job {job.job_id} ended as {job.state}: {error}"}
