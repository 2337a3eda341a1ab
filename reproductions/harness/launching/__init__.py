"""Three ways to start the same job: in this process, on this machine's slots, on a SLURM cluster.

A launcher is a function ``launch(runs, place, display, options)`` that trains the runs that have no record yet and
returns an :class:`~reproductions.harness.launching.job.Outcome`; whatever it starts calls ``job.execute``.
"""

from collections.abc import Callable
from dataclasses import dataclass

from reproductions.harness.launching.profile import Profile


@dataclass(frozen=True)
class Options:
    """``slots``: jobs at once of the local queue, None for one per GPU or processor core. ``slurm``: what a job asks
    SLURM for."""

    slots: int | None = None
    slurm: Profile = Profile()


NAMES = ("auto", "inline", "local", "slurm")


def choose(name: str) -> tuple[str, Callable]:
    """The launcher of that name, imported only when needed; "auto" is local on several GPUs, else inline."""
    if name == "auto":
        import torch

        name = "local" if torch.cuda.device_count() > 1 else "inline"
    if name == "inline":
        from reproductions.harness.launching.inline import launch
    elif name == "local":
        from reproductions.harness.launching.local import launch
    elif name == "slurm":
        from reproductions.harness.launching.slurm import launch
    else:
        raise ValueError(f"there is no launcher {name!r}; the launchers are: {', '.join(NAMES)}")
    return name, launch
