"""The local launcher: submitit jobs on this machine, one per slot, a GPU or a share of the processor's cores.

A slot's job takes one run after another from the remaining ones, on a GPU several at once. submitit's own local
executor would start everything at once and give every job the first GPU.
"""

import os
import signal
import time
import uuid
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import replace

import submitit

from reproductions.harness import provenance
from reproductions.harness.console import counted
from reproductions.harness.launching.claims import claim_number, owned
from reproductions.harness.launching.job import Job, import_folders
from reproductions.harness.launching.options import Options
from reproductions.harness.launching.private import check_private
from reproductions.harness.launching.progress import Display
from reproductions.harness.launching.run_paths import RunPaths, failures, unfinished
from reproductions.harness.launching.signals import STOPPING, stop_on_signals
from reproductions.harness.launching.slots import Slot, find_slots
from reproductions.harness.launching.worker import Outcome
from resnet.run import Run

_MONTH_MINUTES = 30 * 24 * 60  # submitit wants a time limit; a local job has none
POLL_SECONDS = 0.5
DISMISS_SECONDS = 3.0  # enough for jobs to start, stop at a checkpoint and end
_FALSE_STARTS = 3  # jobs in a row that died before they began a run: the slot is of no use
_LOG_LINES = 20  # shown of a job that died


def launch(runs: list[Run], paths: RunPaths, display: Display, options: Options) -> Outcome:
    """Keep a job on every slot while there are runs to start; SIGINT and SIGTERM stop the jobs at a checkpoint.

    If a job dies, another one continues from its runs' checkpoints; a run without any progress is given up. Runs that
    another launch trains are waited for.
    """
    if not runs:
        return Outcome({})
    check_private(paths.jobs)
    queue = _Queue(runs, paths, display, options)
    with stop_on_signals(message=STOPPING, until=options.budget.until) as stop_requested:
        try:
            while queue.running or (queue.usable and not stop_requested() and queue.unfinished()):
                if not stop_requested():
                    queue.begin()
                time.sleep(POLL_SECONDS)
                display.poll(paths, runs)
                queue.collect()
                if stop_requested():  # again and again: a job that is just starting may miss the first
                    queue.ask_to_stop()
        except BaseException:  # a second Ctrl-C, say, which jobs that are just starting don't hear
            queue.dismiss()
            raise
        stopped = stop_requested()
    undone = queue.unfinished()
    found = queue.failures | failures(runs, paths, queue.options.launch)
    if not stopped:
        return Outcome(dict.fromkeys(undone, queue.last_words) | found)
    elsewhere = sum(owned(paths.work(run), paths.stale_seconds) for run in undone)
    note = f"; processes of another launch go on with {counted(elsewhere, 'run')}" if elsewhere else ""
    return Outcome(found, f"stopped at a checkpoint{note}" if undone else "")


class _Queue:
    """The slots of a launch and their jobs."""

    def __init__(self, runs: list[Run], paths: RunPaths, display: Display, options: Options):
        self.runs, self.paths, self.display = runs, paths, display
        self.options = replace(options, launch=uuid.uuid4().hex)
        self.code = provenance.code_identity()
        self.usable = find_slots(options.slots, len(runs), options.device)
        self.running: dict[Slot, submitit.Job] = {}
        self.failures: dict[Run, str] = {}
        self.last_words = ""  # of the last job that died
        self._deaths: Counter[Slot] = Counter()  # of jobs in a row that had not begun a run
        self._claims: dict[Slot, int] = {}  # when the slot's job was started
        self._promised: dict[Run, Slot] = {}  # runs that a job was started for and has not claimed yet
        self._stopping = False

    def unfinished(self) -> list[Run]:
        """List the runs without a record or failure; the folder of a failed run may not be writable."""
        return [run for run in unfinished(self.runs, self.paths, self.options.launch) if run not in self.failures]

    def begin(self) -> None:
        """Start a job on each free slot, while there are unclaimed runs that can be started."""
        promised = self._promised.items()
        self._promised = {run: slot for run, slot in promised if slot in self.running and not self._owned(run)}
        free = [slot for slot in self.usable if slot not in self.running]
        left = self.unfinished() if free else []
        waiting = [run for run in left if run not in self._promised and not self._owned(run)]
        waiting = [run for run in waiting if not any(need in left for need in run.needs.values())]  # for now
        for slot in free:
            if not waiting:
                return
            count = (self.options.pack or 1) if slot.gpu is not None else 1  # a processor trains one by one
            first = self.runs.index(waiting[0])
            job = Job(self.runs, self.paths, self.options, first, slot.threads, self.code, import_folders())
            self._claims[slot] = self._count_claims()
            try:
                self.running[slot] = submit(job, slot)
            except OSError as error:  # a full disk, say: the other jobs go on
                self.last_words = f"{slot}: no job could be started: {error}"
                self.usable.remove(slot)
                continue
            self._promised |= dict.fromkeys(waiting[:count], slot)
            del waiting[:count]
            self.display.say(f"{slot}: log {self.running[slot].paths.stderr}")

    def collect(self) -> None:
        """Collect the results of the jobs that have ended."""
        for slot, job in list(self.running.items()):
            if not job.done():
                continue
            del self.running[slot]
            try:
                self.failures |= result(job).failures
                self._deaths[slot] = 0
            except _Died as death:
                self.last_words = f"{slot}: {death}"
                self._deaths[slot] = self._deaths[slot] + 1 if self._claims[slot] == self._count_claims() else 0
                if not self._stopping:
                    self.display.say(f"{slot}: the job's process died")
            except Exception as error:  # of the job itself, which would come again
                self.last_words = f"{slot}: {error}"
                self._deaths[slot] = _FALSE_STARTS
            if self._deaths[slot] >= _FALSE_STARTS:
                self.usable.remove(slot)

    def ask_to_stop(self) -> None:
        self._stopping = True
        for job in self.running.values():
            with suppress(ProcessLookupError):
                os.kill(int(job.job_id), signal.SIGTERM)  # submitit's local job id: a process that passes it on

    def dismiss(self) -> None:
        """Ask the jobs to stop for a moment, and leave the slower ones running."""
        end = time.monotonic() + DISMISS_SECONDS
        while self.running and time.monotonic() < end:
            self.ask_to_stop()
            time.sleep(POLL_SECONDS / 5)
            self.collect()

    def _owned(self, run: Run) -> bool:
        return owned(self.paths.work(run), self.paths.stale_seconds)

    def _count_claims(self) -> int:
        return sum(claim_number(self.paths.work(run)) for run in self.runs)


class _Died(Exception):
    """The death of a job's process; the message is the end of its log."""


def submit(job: Job, slot: Slot) -> submitit.Job:
    """Start the job in a process of its own. Raises OSError."""
    executor = submitit.LocalExecutor(job.paths.jobs)
    gpus = {"gpus_per_node": 1, "visible_gpus": (slot.gpu,)} if slot.gpu is not None else {}
    executor.update_parameters(timeout_min=_MONTH_MINUTES, **gpus)
    with _ignoring_ctrl_c():
        submitted = executor.submit(job)
    # submitit names files by process numbers: another launch's job, in another container, may have had the same one.
    submitted.paths.result_pickle.unlink(missing_ok=True)
    return submitted


def result(job: submitit.Job) -> Outcome:
    """Return or raise the result of a job that has ended, without submitit's wait for the file of a dead one."""
    if job.paths.result_pickle.exists():
        return job.result()
    lines = []
    with suppress(OSError):
        lines = job.paths.stderr.read_text(errors="replace").splitlines()[-_LOG_LINES:]
    raise _Died("\n".join([f"the job's process died; its log {job.paths.stderr} ends:", *lines]))


@contextmanager
def _ignoring_ctrl_c():
    """Protect processes started inside from the terminal's Ctrl-C: submitit's would kill its job a second later."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
