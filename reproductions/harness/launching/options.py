"""Options of a launch."""

from dataclasses import dataclass, field

import torch

from reproductions.harness.launching.budget import Budget
from reproductions.harness.launching.run_paths import RunPaths
from reproductions.harness.launching.slots import Slot, find_slots
from reproductions.harness.launching.slurm.cluster_profile import ClusterProfile
from resnet.device import find_device


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


@dataclass(frozen=True)
class LaunchFlags:
    """The flags of a command that trains, but for those that name the runs.

    options: the flags that launchers read. launcher: one of :data:`~reproductions.harness.launching.NAMES`. given:
    those flags on the command line that only some launchers read. minutes: the time that a launch has, None for no
    end; all: with minutes, train published runs too. yes: train the paper profile without a GPU.
    """

    paths: RunPaths
    options: Options = Options()
    launcher: str = "auto"
    given: frozenset[str] = field(default_factory=frozenset)
    minutes: float | None = None
    all: bool = False
    yes: bool = False
    dry_run: bool = False

    @property
    def device(self) -> torch.device | None:
        """The device of this machine to train on; None on a cluster. Raises ValueError if there is none so called."""
        return None if self.launcher == "slurm" else find_device(self.options.device)

    def slots(self, runs: int) -> list[Slot]:
        """Find the slots of the local launcher for this number of runs; other launchers have none."""
        return find_slots(self.options.slots, runs, self.options.device) if self.launcher == "local" else []
