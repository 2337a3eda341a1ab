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
    """The options of a launcher and of its jobs, which do not change the runs' results.

    slots: jobs at once of the local queue, None for one per GPU or processor core. pack: the most runs at once on a
    device, None for the best number. device: "auto", or a name such as cpu or cuda:1. slurm: the requests of a job to
    SLURM. max_starts: the starts of a launch from the same checkpoint after which a run is given up. detach: return
    when the jobs are submitted. experiment: the name of the jobs. budget: the time limit. launch: the common id of a
    launch's jobs, empty where there are none.
    """

    slots: int | None = None
    pack: int | None = None
    device: str = "auto"
    slurm: ClusterProfile = ClusterProfile()
    max_starts: int = 5
    detach: bool = False
    experiment: str = "runs"
    budget: Budget = Budget()
    launch: str = ""

    @property
    def runs_a_job(self) -> int:
        """The runs that a job on SLURM begins with; several processes train one at a time."""
        return self.pack if self.pack and self.slurm.processes == 1 else 1


DEFAULTS = Options()


@dataclass(frozen=True)
class LaunchFlags:
    """The flags of a command that trains, except the ones that name the runs.

    options: the flags that launchers read. launcher: one of :data:`~reproductions.harness.launching.NAMES`. given: the
    flags on the command line. minutes: the time limit of the launch, None without one; all: with minutes, train
    published runs too. yes: train the paper profile without a GPU. track: the name of a tracker of
    :mod:`~reproductions.harness.launching.tracking`, None for none.
    """

    paths: RunPaths
    options: Options = DEFAULTS
    launcher: str = "auto"
    given: frozenset[str] = field(default_factory=frozenset)
    minutes: float | None = None
    all: bool = False
    yes: bool = False
    dry_run: bool = False
    track: str | None = None

    @property
    def device(self) -> torch.device | None:
        """The device of this machine to train on; None on a cluster. Raises ValueError if the name is unknown here."""
        return None if self.launcher == "slurm" else find_device(self.options.device)

    def slots(self, runs: int) -> list[Slot]:
        """Find the slots of the local launcher for this number of runs; other launchers have none."""
        return find_slots(self.options.slots, runs, self.options.device) if self.launcher == "local" else []
