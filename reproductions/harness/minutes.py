"""A launch of so many minutes (``--minutes``): what is lacking of one table or of all, as far as the time goes."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from rich.console import Console
from rich.table import Table

from reproductions.harness import launching, preflight
from reproductions.harness.console import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_REFUSED,
    PUBLISHED,
    complain,
    make_console,
    show_files,
)
from reproductions.harness.exact_errors import EXACT_ERRORS
from reproductions.harness.experiment import Experiment, Variant
from reproductions.harness.launched import note_tables
from reproductions.harness.launching import cost
from reproductions.harness.launching.budget import Budget, Plan, lacking, make_plan
from reproductions.harness.launching.options import Options
from reproductions.harness.launching.progress import Display, duration
from reproductions.harness.launching.run_paths import RunPaths
from reproductions.harness.launching.worker import DeviceLost, Outcome
from reproductions.harness.records import Pool, read_pool
from reproductions.harness.reporting.frame import completed
from reproductions.harness.reporting.page import write_report
from resnet import checkpoint
from resnet.data import DataError
from resnet.device import find_device
from resnet.run import Run

_MEASURING_SHARE = 0.1  # of the time, at most, for rates that no record tells
_MEASURING_SECONDS = 60.0  # after the time is over, for what is measured of final networks


@dataclass(frozen=True)
class Wanted:
    """A run, and the table that it is wanted for."""

    experiment: Experiment
    variant: Variant
    run: Run


def wanted_runs(
    experiment: Experiment, variant: Variant, seeds: Sequence[int], keys: Sequence[str] | None = None
) -> list[Wanted]:
    """The runs of a table's rows with these seeds, in the order of ``keys``: all rows with one seed, then the next.

    Raises ValueError for an unknown row.
    """
    known = {row.key: row for row in experiment.chosen_rows(variant, None if keys is None else [*keys])}
    rows = [known[key] for key in (keys or known)]
    return [Wanted(experiment, variant, variant.apply(row.run(seed))) for seed in seeds for row in rows]


def launch_within(wanted: Sequence[Wanted], options: argparse.Namespace, launch_options: Options) -> int:
    """Train what is lacking of the wanted runs for ``options.minutes``, in their order, and write their tables.

    A run is lacking if it has a record neither below ``options.out`` nor among the published ones; with ``options.all``
    only the former counts. Nothing is asked. Returns the exit status: 0 also if the time was not enough for all.
    """
    console = make_console(stderr=True)
    paths = RunPaths(options.out, options.data, options.checkpoint_seconds, published=PUBLISHED)
    pool, published = read_pool(paths.records), read_pool(PUBLISHED / "records")
    for error in (*pool.damaged.values(), *published.damaged.values()):
        complain(console, f"{error.kind}: {error}")
    runs = lacking(list(dict.fromkeys(one.run for one in wanted)), [pool] if options.all else [pool, published])
    try:
        launcher, launch = launching.choose(options.launcher, options.device, len(runs))
        preflight.check_flags(options, launcher)
        preflight.check_device(options, launcher)
        if runs:
            preflight.leave_busy_cores(options, launcher, console)
        plan = _make_plan(wanted, runs, options, launcher, paths, [pool, published])
        slots = len(preflight.find_slots_of(plan.runs, launcher, options)) or 1
        jobs = min(max(1, plan.jobs(options.minutes)), launch_options.slurm.max_jobs)
        if options.dry_run:
            _show(plan, options, launcher, slots, jobs)
            return 0
        console.print(_summary(plan, options, launcher, slots, jobs))
        console.print(f"{launcher} launcher, records in {paths.records}")
        _say_left(plan, console)
        preflight.check_writable(paths.out)
        note_tables(paths.out, [(one.experiment, one.variant) for one in wanted])
        preflight.check_data(plan.runs, paths, console)
        if plan.runs:
            preflight.say_code(console)
        elsewhere = launcher == "slurm"
        budget = Budget.of(plan, options.minutes, each_job=elsewhere)
        profile = replace(launch_options.slurm, max_jobs=jobs)
        with Display(len(plan.runs), console) as display:
            outcome = launch(plan.runs, paths, display, replace(launch_options, budget=budget, slurm=profile))
    except (DataError, ValueError) as error:
        complain(console, str(error))
        return EXIT_REFUSED
    except DeviceLost as error:
        complain(console, f"{error}\nThe same command goes on from the last checkpoints.")
        outcome = Outcome({}, str(error))
    except KeyboardInterrupt:
        console.print("\nStopped at once. The same command goes on from the last checkpoints.")
        return EXIT_INTERRUPTED
    return _conclude(wanted, plan, outcome, budget, options, paths, published, console)


def _make_plan(
    wanted: Sequence[Wanted],
    runs: list[Run],
    options: argparse.Namespace,
    launcher: str,
    paths: RunPaths,
    pools: list[Pool],
) -> Plan:
    device = None if launcher == "slurm" else find_device(options.device)

    def rates(runs: list[Run]) -> dict[cost.Work, cost.Rate]:
        if device is None:
            known = cost.rates_elsewhere(runs, pools)
            return known | cost.estimated_rates(runs, known)
        slots = preflight.find_slots_of(runs, launcher, options)
        thread_count = slots[0].threads if slots else None
        end = time.monotonic() + 60 * options.minutes * _MEASURING_SHARE
        found: dict[cost.Work, cost.Rate] = {}
        hours = 0.0
        looked_up: set[cost.Work] = set()
        for run in runs:  # no more is measured than the time can take
            if (work := cost.work_of(run)) not in looked_up:
                looked_up.add(work)
                enough = hours > 2 * options.minutes / 60 * max(1, len(slots)) or time.monotonic() > end
                found |= cost.rates_here([run], pools, device, thread_count, measure=not enough)
            hours += found[work].hours(run) if work in found else 0
        return found | cost.estimated_rates(runs, found)

    return make_plan(runs, paths, device, _Partners(wanted, pools), rates)


def measure_final_networks(
    experiment: Experiment, records: list[dict], paths: RunPaths, device: torch.device
) -> list[str]:
    """Measure of completed runs what all experiments measure, and what this one does; returns what went wrong."""
    measures = [EXACT_ERRORS.make_missing, *filter(None, [experiment.measure])]
    return [problem for measure in measures for problem in measure(records, paths, device)]


class _Partners:
    """Finds the recorded runs that a run is compared with seed by seed: those with its seed in its tables."""

    def __init__(self, wanted: Sequence[Wanted], pools: list[Pool]):
        self._tables: dict[Run, dict[tuple[str, str], Wanted]] = {}
        for one in wanted:
            self._tables.setdefault(one.run, {})[one.experiment.name, one.variant.name] = one
        self._pools = pools

    def __call__(self, run: Run) -> list[dict]:
        rows = [(table, row) for table in self._tables.get(run, {}).values()
                for row in table.experiment.rows(table.variant.profile)]  # fmt: skip
        others = {table.variant.apply(row.run(run.seed)) for table, row in rows} - {run}
        found = {other: [pool.get(other) for pool in self._pools] for other in others}
        return [next(record for record in records if record) for records in found.values() if any(records)]


def _show(plan: Plan, options: argparse.Namespace, launcher: str, slots: int, jobs: int) -> None:
    """Print the plan: what the time is enough for, and what is left and why."""
    table = Table("run", "state", "hours", "in this time", title="dry run: nothing is trained")
    chosen = dict.fromkeys(plan.runs) if launcher == "slurm" else plan.within(options.minutes, slots)
    for run, finished in chosen.items():
        state = f"at {plan.begun[run].iteration:,} of {run.recipe.iterations:,}" if run in plan.begun else "lacking"
        state += f", in {plan.precisions[run]}" if run in plan.precisions else ""
        hours = f"{plan.seconds[run] / 3600:.2f}" if run in plan.seconds else "not measured"
        table.add_row(str(run), state, hours, {True: "finished", False: "begun", None: ""}[finished])
    console = make_console()
    console.print(table, crop=False, width=max(console.width, 110))
    console.print(_summary(plan, options, launcher, slots, jobs))
    _say_left(plan, console)


def _summary(plan: Plan, options: argparse.Namespace, launcher: str, slots: int, jobs: int) -> str:
    """The plan in a sentence or two."""
    text = f"{len(plan.runs)} runs are lacking, {len(plan.begun)} of them begun"
    if launcher == "slurm":
        known = [plan.seconds[run] for run in plan.runs if run in plan.seconds]
        text += f"; {sum(known) / 3600:.1f} GPU-hours for {len(known)} of them by published rates and estimates"
        return f"{text}: {jobs} jobs of {options.minutes:g} minutes"
    chosen = plan.within(options.minutes, slots)
    where = f" in {slots} slots" if slots > 1 else ""
    finished = sum(chosen.values())
    return f"{text}; {options.minutes:g} minutes{where} finish {finished} and begin {len(chosen) - finished} more"


def _say_left(plan: Plan, console: Console) -> None:
    """Print the runs that are left, by the reason."""
    for why in dict.fromkeys(plan.left.values()):
        runs = [str(run) for run, reason in plan.left.items() if reason == why]
        console.print(f"left, {why}: {', '.join(runs)}")


def _conclude(
    wanted: Sequence[Wanted],
    plan: Plan,
    outcome: Outcome,
    budget: Budget,
    options: argparse.Namespace,
    paths: RunPaths,
    published: Pool,
    console: Console,
) -> int:
    """Write the tables of what is there, say how far everything came, and return the exit status."""
    pool = read_pool(paths.records)
    problems = []
    device = find_device("auto" if options.launcher == "slurm" else options.device)  # the jobs' may not be here
    tables: dict[tuple[str, str], list[Wanted]] = {}
    for one in wanted:
        tables.setdefault((one.experiment.name, one.variant.name), []).append(one)
    for ones in tables.values():
        experiment, variant = ones[0].experiment, ones[0].variant
        if not (records := [record for one in ones if (record := pool.get(one.run)) is not None]):
            continue
        for record in completed(records):
            if time.time() < budget.until + _MEASURING_SECONDS:  # the next launch measures the others
                problems += measure_final_networks(experiment, [record], paths, device)
        try:
            seeds = max(experiment.seeds[variant.profile], options.seeds or 0)
            results = experiment.results(variant, seeds, pool, published)
            show_files(write_report(experiment, variant, results, paths.out))
        except OSError as error:  # a full disk, say: the records are there, and the same command tries again
            problems.append(f"the tables could not be written: {error}")
    for text in problems:
        complain(console, f"\n{text}")
    for run, text in outcome.failures.items():
        complain(console, f"\nfailed: {run}\n{text}")
    done = sum(pool.get(run) is not None for run in plan.runs)
    going = sum((paths.work(run) / checkpoint.NEWEST).exists() for run in plan.runs if pool.get(run) is None)
    console.print(f"\n{done} of {len(plan.runs)} lacking runs were finished, {going} have checkpoints to go on from.")
    if outcome.detached:
        console.print(outcome.detached)
        return 0 if options.detach else EXIT_INTERRUPTED
    if outcome.failures or problems:
        return EXIT_FAILED
    if outcome.interrupted and not (budget.over or budget.minutes is not None):
        console.print(f"{outcome.interrupted}.\nThe same command goes on where this stopped.")
        return EXIT_INTERRUPTED
    if done < len(plan.runs):
        late = f" {duration(time.time() - budget.until)} after its end" if budget.over else ""
        console.print(f"The time of {options.minutes:g} minutes is over{late}; the same command goes on from there.")
    return 0
