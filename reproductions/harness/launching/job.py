"""The job that submitit starts: a worker for a launch's runs, in one process or in several together."""

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from reproductions.harness import provenance
from reproductions.harness.launching.options import Options
from reproductions.harness.launching.run_paths import RunPaths
from reproductions.harness.launching.signals import stop_on_signals
from reproductions.harness.launching.worker import Outcome, execute
from resnet.device import DeviceLost
from resnet.distributed import ALONE, Group, join, local_device, port_for
from resnet.run import Run


@dataclass(frozen=True)
class Job:
    """A call of :func:`execute` in a process of submitit's, starting with the run number ``first``.

    A job may train any of the launch's runs, so another job's unfinished runs are not lost. ``code`` is the identity of
    the submitted code: a job with other code raises RuntimeError. ``folders``: the folders that the launch imports
    modules from, such as the folder of its script, where the job finds plugins.

    On submitit's signal (the time limit, preemption) it writes checkpoints, then leaves requeueing to submitit.
    """

    runs: list[Run]
    paths: RunPaths
    options: Options
    first: int = 0
    threads: int | None = None
    code: dict | None = None
    folders: tuple[str, ...] = ()

    def __call__(self) -> Outcome:
        """Train the job's runs; submitit calls this in the job's process."""
        import submitit

        self._check_code()
        sys.path += [folder for folder in self.folders if folder not in sys.path]
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        environment = submitit.JobEnvironment()
        requeue_signal = environment._usr_sig()
        runs = [*self.runs[self.first :], *self.runs[: self.first]]
        options = replace(self.options, budget=self.options.budget.started())
        with (
            stop_on_signals(requeue_signal, until=options.budget.until) as stop,
            join_tasks(environment, options.device) as group,
        ):
            try:
                outcome = execute(runs, self.paths, stop, options=options, group=group)
            except DeviceLost:
                traceback.print_exc()
                os._exit(1)  # like a process that was killed: another one may find the device well
            stopped = group.any(stop.signal == requeue_signal)
        if stopped and group.rank == 0:
            signal.raise_signal(requeue_signal)  # submitit's own handler, which is back in place
        return outcome

    def checkpoint(self):
        """Return the job to requeue, for submitit."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)

    def _check_code(self) -> None:
        here = provenance.code_identity()
        if self.code is not None and here != self.code:
            submitted, found = (provenance.describe(code) for code in (self.code, here))
            raise RuntimeError(f"the job was submitted with {submitted}, but found {found}; launch it again")


def import_folders() -> tuple[str, ...]:
    """List the folders that this process imports modules from, for :class:`Job`."""
    return tuple(dict.fromkeys(os.path.abspath(folder) for folder in sys.path if os.path.isdir(folder or ".")))


@contextmanager
def join_tasks(environment, device: str) -> Iterator[Group]:
    """Form the group of a job's tasks from submitit's JobEnvironment; one task is alone.

    Raises RuntimeError if the tasks do not find each other.
    """
    if environment.num_tasks == 1:
        yield ALONE
        return
    # srun is called on the job's first node, where rank 0 is; names of nodes may not resolve, addresses do.
    address = os.environ.get("SLURM_LAUNCH_NODE_IPADDR", environment.hostnames[0])
    restart, own = int(os.environ.get("SLURM_RESTART_COUNT", 0)), local_device(environment.local_rank)
    job = int(os.environ["SLURM_JOB_ID"])
    with join(
        address,
        port_for(job, restart),
        environment.global_rank,
        environment.num_tasks,
        torch.device("cpu") if device == "cpu" else own,
        name=f"{job}.{restart}",
    ) as group:
        yield group
