"""The plan of a launch with a time limit: the runs to train, their order, and the runs to leave with the reasons."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from reproductions.harness import provenance
from reproductions.harness.final_weights import has_final_weights
from reproductions.harness.launching.cost import Rate, Work, work_of
from reproductions.harness.launching.run_paths import RunPaths
from reproductions.harness.records import Pool
from resnet import checkpoint
from resnet.device import has_bf16, resolve_precision
from resnet.run import Run


@dataclass(frozen=True)
class Beginning:
    """The checkpoint of an unfinished run: iterations done, precision, and the code that wrote it."""

    iteration: int
    precision: str
    commit: str | None
    resnet_sha256: str | None


@dataclass(frozen=True)
class Plan:
    """The runs to train, the most wanted first, but begun runs before all others.

    begun: the checkpoints of begun runs. precisions: the precision of a run, if it is not the device's default. left:
    the runs that cannot be trained here, each with the reason. seconds: the remaining time of a run that has the
    device, or one of the slots, for itself; only for runs whose rate is known.
    """

    runs: list[Run]
    begun: dict[Run, Beginning] = field(default_factory=dict)
    precisions: dict[Run, str] = field(default_factory=dict)
    left: dict[Run, str] = field(default_factory=dict)
    seconds: dict[Run, float] = field(default_factory=dict)

    def within(self, minutes: float, slots: int = 1) -> dict[Run, bool]:
        """Choose the runs that workers start in these minutes, in their order; each with whether it finishes.

        On every slot workers take begun runs first, then runs that will finish, then any others.
        """
        free = [60.0 * minutes] * slots
        found: dict[Run, bool] = {}

        def take(runs: Sequence[Run], only_fitting: bool) -> None:
            for run in runs:
                slot, needed = free.index(max(free)), self.seconds.get(run, float("inf"))
                fits = needed <= free[slot]
                ready = all(found.get(need, need not in self.runs) for need in run.needs.values())
                if run not in found and ready and free[slot] > 0 and (fits or not only_fitting):
                    found[run], free[slot] = fits, max(0.0, free[slot] - needed)

        take([run for run in self.runs if run in self.begun], only_fitting=False)
        take(self.runs, only_fitting=True)
        take(self.runs, only_fitting=False)
        return found

    def jobs(self, minutes: float) -> int:
        """Count the jobs of this length that train all runs; a run without a known rate counts as one job."""
        known = sum(self.seconds[run] for run in self.runs if run in self.seconds)
        return -int(-known // (60 * minutes)) + sum(run not in self.seconds for run in self.runs)


@dataclass(frozen=True)
class Budget:
    """The workers' time limit, with the plan of the launch.

    until: the time at which workers stop at checkpoints, in seconds since the epoch. minutes: the time of each job from
    its own start, if that is not known yet; :meth:`started` then sets ``until``.
    """

    until: float = float("inf")
    minutes: float | None = None
    plan: Plan = Plan([])

    def started(self) -> "Budget":
        """Return the budget of a job that starts now."""
        if self.minutes is None:
            return self
        return replace(self, until=time.time() + 60 * self.minutes, minutes=None)

    @property
    def over(self) -> bool:
        """Return whether the time is over."""
        return time.time() >= self.until

    def rank(self, run: Run, neighbours: int) -> int:
        """Rank a run for a worker, lowest first: 0 for begun runs, 1 for runs that will finish, 2 for any others.

        The run would share the device with ``neighbours`` others.
        """
        needed = self.plan.seconds.get(run, float("inf"))
        if run in self.plan.begun:
            return 0
        return 1 if self.until == float("inf") or time.time() + needed * (1 + neighbours) <= self.until else 2


def lacking(runs: Sequence[Run], pools: Sequence[Pool]) -> list[Run]:
    """Find the runs without a record in any of the pools, each after the runs that it needs and that are lacking.

    A needed run is lacking, too, if the first pool with its record does not have its final weights.
    """
    found: dict[Run, None] = {}

    def add(run: Run) -> None:
        for need in run.needs.values():
            pool = next((pool for pool in pools if pool.get(need)), None)
            if pool is None or not has_final_weights(pool.root.parent, pool.get(need)):
                add(need)
        found[run] = None

    for run in runs:
        if not any(pool.get(run) for pool in pools):
            add(run)
    return list(found)


def read_beginning(paths: RunPaths, run: Run) -> Beginning | None:
    """Read the checkpoint of an unfinished run; None without one that can be used."""
    folder = paths.work(run)
    for path in (folder / checkpoint.NEWEST, folder / checkpoint.PREVIOUS):
        try:
            state = checkpoint.load(path)
        except (checkpoint.CheckpointError, OSError):
            continue
        segments = state["history"].get("segments") or [{}]  # which checkpoints of older code don't have
        code = (segments[-1].get("origin") or {}).get("code", {})
        return Beginning(state["iteration"], state["precision"], code.get("commit"), code.get("resnet_sha256"))
    return None


def make_plan(
    runs: Sequence[Run],
    paths: RunPaths,
    device: torch.device | None,
    partners: Callable[[Run], list[dict]],
    rates: Callable[[list[Run]], dict[Work, Rate]],
) -> Plan:
    """Order the lacking ``runs``, and find the runs that cannot be trained here.

    A begun run continues only under the code and in the precision of its checkpoint, because a run of two versions of
    the code cannot be published. Any other run is trained in the precision of its recorded ``partners`` on this kind of
    device, the runs that it is compared with seed by seed, because only pairs of equal precision are tested; it is left
    if they have several precisions. ``device`` is None if jobs run elsewhere, on GPUs. ``rates`` returns the known
    rates of these runs' work.
    """
    digest = provenance.code_identity()["resnet_sha256"]
    begun: dict[Run, Beginning] = {}
    precisions: dict[Run, str] = {}
    left: dict[Run, str] = {}
    for run in runs:
        own = None if device is None else resolve_precision(run.recipe.precision, device)
        wanted = own
        if (beginning := read_beginning(paths, run)) is not None:
            if beginning.resnet_sha256 != digest:
                commit = f"commit {beginning.commit[:10]}" if beginning.commit else "unknown code"
                left[run] = f"begun under {commit}, so only that code can finish it"
            elif beginning.precision == "bf16" != own and device is not None and not has_bf16(device):
                left[run] = "begun in bf16, which this device does not have"
            else:
                begun[run], wanted = beginning, beginning.precision
        elif run.recipe.precision == "auto":
            kind = "cuda" if device is None else device.type
            known = [record for record in partners(run) if record["hardware"]["type"] == kind]
            chosen = {r["precision"] for r in known if r["specification"]["recipe"]["precision"] == "auto"}
            if len(chosen) > 1:
                left[run] = f"its paired runs were trained in {' and '.join(sorted(chosen))}"
            elif chosen:
                (wanted,) = chosen
        for role, need in run.needs.items():
            if need in left:
                left.setdefault(run, f"its {role} can't be trained here: {left[need]}")
        if wanted != own and run.recipe.precision == "auto":
            precisions[run] = wanted
    order = [run for run in runs if run in begun and run not in left]
    order += [run for run in runs if run not in begun and run not in left]
    timed = {
        run: replace(run, recipe=replace(run.recipe, precision=precisions.get(run, run.recipe.precision)))
        for run in order
    }
    found = rates([*timed.values()])
    seconds = {}
    for run in order:
        if (rate := found.get(work_of(timed[run]))) is not None:
            done = begun[run].iteration / run.recipe.iterations if run in begun else 0
            seconds[run] = 3600 * rate.hours(run) * (1 - done)
    return Plan(order, begun, precisions, left, seconds)
