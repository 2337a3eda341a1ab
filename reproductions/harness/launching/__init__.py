"""Three ways to start the same work: in this process, on this machine's slots, on a SLURM cluster.

A launcher is a function ``launch(runs, paths, display, options)`` that trains the runs that have no record yet and
returns an :class:`~reproductions.harness.launching.worker.Outcome`; whatever it starts calls ``worker.execute``.
"""

from collections.abc import Callable
from dataclasses import dataclass

from reproductions.harness.launching.budget import Budget
from reproductions.harness.launching.slurm.cluster_profile import ClusterProfile


@dataclass(frozen=True)
class Options:
    """What a launcher is told besides the runs.

    slots: jobs at once of the local queue, None for one per GPU or processor core. pack: runs at once on a device,
    None for as many as it is good for. device: "auto", or a name such as cpu or cuda:1. slurm: what a job asks SLURM
    for. max_starts: a run that was begun so often without getting further is given up. detach: return when the jobs
    are submitted. experiment: names the jobs. budget: time that ends.
    """

    slots: int | None = None
    pack: int | None = None
    device: str = "auto"
    slurm: ClusterProfile = ClusterProfile()
    max_starts: int = 5
    detach: bool = False
    experiment: str = "runs"
    budget: Budget = Budget()


NAMES = ("auto", "inline", "local", "slurm")


def choose(name: str, device: str = "auto", runs: int = 1) -> tuple[str, Callable]:
    """The launcher of that name, imported only when needed.

    "auto" is local on several GPUs, and on a processor that has as many ``runs`` to train as cores: a small net on each
    core is faster than one on all of them. Else it is inline.
    """
    if name == "auto":
        import torch

        from resnet.device import available_cores

        gpus = torch.cuda.device_count() if device in ("auto", "cuda") else 0
        on_processor = device == "cpu" or (device == "auto" and gpus == 0)
        name = "local" if gpus > 1 or (on_processor and runs >= available_cores() > 1) else "inline"
    if name == "inline":
        from reproductions.harness.launching.inline import launch
    elif name == "local":
        from reproductions.harness.launching.local import launch
    elif name == "slurm":
        from reproductions.harness.launching.slurm.launch import launch
    else:
        raise ValueError(f"there is no launcher {name!r}; the launchers are: {', '.join(NAMES)}")
    return name, launch
