"""Options of a launch."""

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
