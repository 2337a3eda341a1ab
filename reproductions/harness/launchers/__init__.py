"""Three ways to start the same job: in this process, on this machine's slots, on a SLURM cluster.

A launcher is a function ``launch(runs, place, display, options)`` that trains the runs that have no record yet and
returns an :class:`~reproductions.harness.job.Outcome`; whatever it starts calls ``job.execute``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Options:
    """``slots``: jobs at once of the local queue, None for one per GPU or processor core. ``slurm``: parameters of
    submitit's SLURM executor, such as ``slurm_partition``."""

    slots: int | None = None
    slurm: dict = field(default_factory=dict)


NAMES = ("auto", "inline", "local", "slurm")


def choose(name: str) -> tuple[str, Callable]:
    """The launcher of that name, imported only when needed; "auto" is local on several GPUs, else inline."""
    if name == "auto":
        import torch

        name = "local" if torch.cuda.device_count() > 1 else "inline"
    if name == "inline":
        from reproductions.harness.launchers.inline import launch
    elif name == "local":
        from reproductions.harness.launchers.local import launch
    elif name == "slurm":
        from reproductions.harness.launchers.slurm import launch
    else:
        raise ValueError(f"there is no launcher {name!r}; the launchers are: {', '.join(NAMES)}")
    return name, launch
