"""The SLURM launcher: job arrays through submitit; jobs take any remaining runs, and are requeued at the time limit."""

import math
import os
import shlex
import time
import uuid
from collections.abc import Container
from contextlib import contextmanager
from dataclasses import replace

import submitit

from reproductions.harness import provenance
from reproductions.harness.console import counted
from reproductions.harness.launching.budget import Budget
from reproductions.harness.launching.claims import claim
from reproductions.harness.launching.job import Job, import_folders
from reproductions.harness.launching.options import Options
from reproductions.harness.launching.private import check_private
from reproductions.harness.launching.progress import Display
from reproductions.harness.launching.run_paths import RunPaths, failures, unfinished
from reproductions.harness.launching.signals import stop_on_signals
from reproductions.harness.launching.slurm import queue
from reproductions.harness.launching.slurm.snapshot import PLUGINS, take
from reproductions.harness.launching.slurm.submissions import (
    Submission,
    last_words,
    read_submissions,
    submissions_folder,
)
from reproductions.harness.launching.worker import Outcome
from reproductions.harness.record_files import record_path
from resnet.run import Run

POLL_SECONDS = 2.0
QUEUE_SECONDS = 15.0  # between two questions to SLURM
_NEVER = 10**6  # times out so often before submitit gives a job up
_IN_TIME = ("COMPLETED", "TIMEOUT", "PREEMPTED", "CANCELLED")  # endings of jobs with a budget that are no failures
_MARGIN_MINUTES = 3  # beyond a budget's minutes: for the start of a job, and for its last checkpoints
# SLURM's signal would end a process that has not come as far as submitit's handler for it, and the job with it.
_DEAF = 'sh -c \'trap "" USR2; exec "$0" "$@"\''


def launch(runs: list[Run], paths: RunPaths, display: Display, options: Options) -> Outcome:
    """Submit the runs that have no job, and show the progress of all; SIGINT leaves the jobs alone.

    Raises ValueError with SLURM's own words if it cannot be reached or refuses the request.
    """
    if not runs:
        return Outcome({})
    queue.check_reachable()
    published = paths.published and paths.published.resolve()
    paths = replace(paths, out=paths.out.resolve(), data=paths.data.resolve(), published=published)
    own: set[str] = set()  # the launch ids that this command has submitted
    with stop_on_signals() as stop_requested:
        while True:
            plan = _submit_missing(runs, paths, display, options, own)
            if options.detach:
                return Outcome({}, detached=_farewell(plan, paths, options))
            ended = _watch(plan, paths, display, stop_requested, options.budget)
            # Jobs that this launch found may have been about to end, as on a node that was lost.
            if stop_requested() or options.budget.minutes is not None or all(plan[run].launch in own for run in ended):
                break
    found = {}
    for token in {submission.launch for submission in plan.values()} | own:
        found |= failures(runs, paths, token)
    return Outcome(ended | found, detached=_farewell(plan, paths, options) if stop_requested() else "")


def _submit_missing(
    runs: list[Run], paths: RunPaths, display: Display, options: Options, own: set[str]
) -> dict[Run, Submission]:
    """Submit jobs for all runs that have no record and no job; returns each run's submission."""
    with _one_at_a_time(paths):
        plan = _underway(runs, paths)
        if plan:
            display.say(f"jobs of {counted(len(plan), 'run')} are there already: {_ids(plan)}")
        ended = {run for token in own for run in failures(runs, paths, token)}
        ended |= {run for run in runs if record_path(paths.records, run).exists()}
        missing = waiting = [run for run in runs if run not in plan and run not in ended]
        while waiting:
            # Jobs for runs that need others, such as a teacher, are held back until the jobs of those have ended.
            ready = [run for run in waiting if not _among(run.needs, waiting)]
            stage = [run for run in ready if not _among(run.needs, plan)] or ready
            jobs = max(1, options.slurm.max_jobs * len(stage) // len(missing))  # each stage has its share of them
            try:
                submission = _submit(stage, missing, jobs, plan, paths, options)
            except (ValueError, OSError) as error:
                before = {run: submission for run, submission in plan.items() if submission.launch in own}
                if not before:
                    raise
                also = f"the jobs {_ids(before)}, which were submitted before, go on, and may train these runs, too"
                raise ValueError(f"{error}\nBut {also}") from error
            own.add(submission.launch)
            plan |= dict.fromkeys(stage, submission)
            waiting = [run for run in waiting if run not in stage]
            display.say(f"submitted {counted(len(submission.jobs), 'job')} to SLURM: {_ids({stage[0]: submission})}")
    return plan


def _among(needs: dict[str, Run], runs: Container[Run]) -> list[Run]:
    return [need for need in needs.values() if need in runs]


def _watch(
    plan: dict[Run, Submission], paths: RunPaths, display: Display, stop_requested, budget: Budget
) -> dict[Run, str]:
    """Wait for the end of the runs; returns the runs without a job, with the last words of their jobs."""
    next_question, silent = time.monotonic() + QUEUE_SECONDS, 0
    while not stop_requested():
        time.sleep(POLL_SECONDS)
        display.poll(paths, list(plan))
        remaining = [run for run, submission in plan.items() if unfinished([run], paths, submission.launch)]
        if not remaining:
            return {}
        if time.monotonic() >= next_question:
            next_question = time.monotonic() + QUEUE_SECONDS
            living = queue.jobs({job for run in remaining for job in plan[run].jobs})
            # Twice, because SLURM may not show a job for a moment, nor the file system its last file.
            silent = silent + 1 if living is not None and not living else 0
            if silent == 2:
                answers: queue.Answers = {}
                if budget.minutes is not None:  # it is over for jobs that ended by themselves
                    endings = {run: queue.ending(plan[run].job_of(run.short_id), answers) for run in remaining}
                    remaining = [run for run in remaining if not (endings[run] or "COMPLETED").startswith(_IN_TIME)]
                said = {run: last_words(plan[run], run.short_id, answers) for run in remaining}
                return {run: f"no job is left that trains it\n{words}" for run, words in said.items()}
    return {}


def _underway(runs: list[Run], paths: RunPaths) -> dict[Run, Submission]:
    """Find the runs that have jobs from an earlier launch, in which they have not failed."""
    wanted = {run.short_id for run in runs}
    earlier = [submission for submission in read_submissions(paths.out) if wanted & submission.runs.keys()]
    living = queue.jobs({job for submission in earlier for job in submission.jobs}) if earlier else {}
    if living is None:
        raise ValueError("SLURM does not say which of the earlier jobs are still there (squeue failed); try again")
    plan = {}
    for submission in earlier:
        if any(job in living for job in submission.jobs):
            plan |= {
                run: submission
                for run in runs
                if run.short_id in submission.runs and unfinished([run], paths, submission.launch)
            }
    return plan


def _submit(
    begun: list[Run],
    runs: list[Run],
    jobs_at_most: int,
    plan: dict[Run, Submission],
    paths: RunPaths,
    options: Options,
) -> Submission:
    """Submit one array of jobs that start with the runs ``begun``, evenly spread, and continue with any of ``runs``.

    The jobs wait for the jobs in ``plan`` that train needed runs. Raises ValueError with SLURM's or submitit's own
    words if the array is not accepted.
    """
    check_private(paths.jobs)
    code = take(paths.out / "work" / "code", {plugin for run in runs for plugin in run.recipe.plugins})
    options = replace(options, launch=uuid.uuid4().hex)
    parameters = options.slurm.submitit_parameters()
    if (minutes := options.budget.minutes) is not None:
        parameters["timeout_min"] = math.ceil(minutes + options.slurm.signal_seconds / 60) + _MARGIN_MINUTES
    modules = ":".join(str(path) for path in (code, code / PLUGINS) if path == code or path.exists())
    setup = [f"cd {shlex.quote(str(code))}", f"export PYTHONPATH={shlex.quote(modules)}"]
    parameters["slurm_setup"] = [*parameters["slurm_setup"], *setup]
    identity, threads = provenance.code_identity(), parameters["cpus_per_task"]
    starts = range(0, len(begun), options.runs_a_job)
    if len(starts) > jobs_at_most:
        starts = [-(-number * len(begun) // jobs_at_most) for number in range(jobs_at_most)]
    firsts = [runs.index(begun[start]) for start in starts]
    needed = {need for run in begun for need in _among(run.needs, plan)}
    if jobs_before := sorted({plan[need].job_of(need.short_id) for need in needed}):
        parameters["slurm_dependency"] = f"afterany:{':'.join(jobs_before)}"
    try:
        python = f"{_DEAF} {shlex.join(options.slurm.python_command)}"
        executor = submitit.AutoExecutor(paths.jobs, cluster="slurm", slurm_max_num_timeout=_NEVER, slurm_python=python)
        executor.update_parameters(name=f"resnet-{options.experiment}", **parameters)
        with _outside_of_any_job():
            shared = threads, identity, import_folders()
            jobs = executor.submit_array([Job(runs, paths, options, first, *shared) for first in firsts])
    except (submitit.core.utils.FailedJobError, RuntimeError, NameError, TypeError) as error:
        asked = " ".join(f"{name}={value}" for name, value in parameters.items())
        text = f"nothing was submitted to SLURM: {error}\nasked for: {counted(len(firsts), 'job')} with {asked}"
        if len(firsts) > 1:
            text += "\nIf these are too many jobs for the cluster, set max_jobs in its profile (--slurm-profile; "
            text += f"SLURM_PROFILE= with make) to less than {len(firsts)}: any job trains any run"
        raise ValueError(text) from error
    logs = {job.job_id: str(job.paths.stderr) for job in jobs}
    names = {run.short_id: str(run) for run in begun}
    submission = Submission(options.launch, options.experiment, logs, names, options.runs_a_job, time.time())
    try:
        submission.write(paths)
    except OSError as error:  # nobody would know of these jobs
        queue.cancel(logs)
        text = f"the jobs {', '.join(logs)} were cancelled, because no note on them can be kept"
        raise ValueError(f"{text}: {error}") from error
    return submission


@contextmanager
def _one_at_a_time(paths: RunPaths):
    """Let one launch on a folder submit at a time."""
    while (turn := claim(submissions_folder(paths.out), paths.stale_seconds)) is None:
        time.sleep(POLL_SECONDS)
    with turn:
        yield


@contextmanager
def _outside_of_any_job():
    """Hide the job that this process may run in, and its settings, but keep the cluster's configuration."""
    configuration = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
    with submitit.helpers.clean_env():
        os.environ.update(configuration)
        yield


def _ids(plan: dict[Run, Submission]) -> str:
    """List the numbers of the job arrays."""
    return ", ".join(sorted({job.split("_")[0] for submission in plan.values() for job in submission.jobs}))


def _farewell(plan: dict[Run, Submission], paths: RunPaths, options: Options) -> str:
    return (
        f"The jobs {_ids(plan)} go on without this command. The same command again waits for their end.\n"
        f"Their status: python -m reproductions status --out {shlex.quote(str(paths.out))}\n"
        f"Cancel them: python -m reproductions cancel {options.experiment} --out {shlex.quote(str(paths.out))}"
    )
