"""One launch, from the runs that a command wants to their records and tables; it may be limited (``--minutes``)."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from rich.console import Console
from rich.table import Column, Table

from reproductions.harness import launching, preflight
from reproductions.harness.console import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_REFUSED,
    complain,
    counted,
    make_console,
    show_files,
)
from reproductions.harness.exact_errors import EXACT_ERRORS
from reproductions.harness.experiment import Experiment, Row, Variant
from reproductions.harness.launched import note_tables
from reproductions.harness.launching import cost
from reproductions.harness.launching.budget import Budget, Plan, lacking, make_plan
from reproductions.harness.launching.options import LaunchFlags, Options
from reproductions.harness.launching.progress import Display
from reproductions.harness.launching.run_paths import Status, duration
from reproductions.harness.launching.tracking import Tracker
from reproductions.harness.launching.worker import DeviceLost, Outcome
from reproductions.harness.record_files import PoolError, RecordError, record_path
from reproductions.harness.records import Pool, read_pool
from reproductions.harness.reporting.frame import completed
from reproductions.harness.reporting.page import ReportError, write_report
from reproductions.harness.reporting.sweep import write_sweep
from resnet import checkpoint
from resnet.data import DataError
from resnet.device import available_cores, find_device
from resnet.run import Run, canonical_json

MEASURING_SECONDS = 60.0  # after the time is over, to measure final networks


@dataclass(frozen=True)
class Wanted:
    """A run, and the table that wants it."""

    experiment: Experiment
    variant: Variant
    run: Run


def wanted_runs(
    experiment: Experiment, variant: Variant, seeds: Sequence[int], keys: Sequence[str] | None = None
) -> list[Wanted]:
    """List the runs of a table's rows, in the order of ``keys``: all rows with one seed, then with the next.

    Raises ValueError for an unknown row.
    """
    rows = experiment.chosen_rows(variant, None if keys is None else [*keys])
    if keys:
        rows.sort(key=lambda row: keys.index(row.own_key))
    return [Wanted(experiment, variant, variant.apply(row.run(seed))) for seed in seeds for row in rows]


def launch(wanted: Sequence[Wanted], flags: LaunchFlags, seeds: int | None = None) -> int:
    """Train the wanted runs that lack a record, in their order, and write their tables; returns the exit status.

    A record below ``flags.paths.out`` counts; with ``flags.minutes`` and without ``flags.all`` a published one counts
    too. ``seeds``: the number of runs per row in the tables, None for the experiments' default.

    0: all runs have records, or the time is over. 1: a run failed, or a record is damaged. 2: nothing was started. 130:
    interrupted.
    """
    console = make_console(stderr=True)
    try:
        return _Launch(wanted, flags, seeds, console).run()
    except PoolError as error:
        complain(console, str(error))
        return EXIT_REFUSED
    except KeyboardInterrupt:
        console.print("\nStopped at once. The same command goes on from the last checkpoints.")
        return EXIT_INTERRUPTED


class _Launch:
    """The state of :func:`launch`."""

    def __init__(self, wanted: Sequence[Wanted], flags: LaunchFlags, seeds: int | None, console: Console):
        self.wanted, self.flags, self.seeds, self.console, self.paths = wanted, flags, seeds, console, flags.paths
        self.runs = list(dict.fromkeys(one.run for one in wanted))
        self.pools = [read_pool(self.paths.records), read_pool(self.paths.published / "records")]
        self.damaged = _damaged(self.runs, self.pools[0])
        if flags.minutes is not None:
            missing = lacking(self.runs, self.pools[: 1 if flags.all else 2])
        else:
            missing = [run for run in self.runs if self.pools[0].get(run) is None]
        self.missing = [run for run in missing if run not in self.damaged]

    def run(self) -> int:
        for error in (error for pool in self.pools for error in pool.damaged.values()):
            complain(self.console, f"{error.kind}: {error}")
        begun = False
        try:
            start = self._choose_launcher()
            plan, options = self._plan()
            if self.flags.dry_run:
                return 0
            if preflight.refuse_without_gpu(self.flags, self.missing, self.pools, self._tables[0]):
                return EXIT_REFUSED
            display = self._prepare(plan)
            begun = True
            with display:
                outcome = start(plan.runs, self.paths, display, options)
        except (DataError, ValueError, OSError) as error:  # the last of a full disk, say
            complain(self.console, str(error))
            return EXIT_FAILED if begun and isinstance(error, OSError) else EXIT_REFUSED
        except DeviceLost as error:
            complain(self.console, f"{error}\nThe same command goes on from the last checkpoints.")
            outcome = None
        return self._conclude(plan, outcome, options.budget)

    # ----------------------------------------------------------------------------------------------------- preparations

    def _choose_launcher(self) -> Callable:
        """Choose the launcher and check that it can train the runs. Raises ValueError."""
        # With flags of a queue the same command is the same launcher, however few runs are left.
        queue = self.flags.launcher == "auto" and self.flags.given & {"--slots", "--max-starts"}
        wanted = "local" if queue else self.flags.launcher
        launcher, start = launching.choose(wanted, self.flags.options.device, len(self.missing))
        self.flags = replace(self.flags, launcher=launcher)
        preflight.check_flags(self.flags)
        preflight.check_device(self.flags, self.runs)
        self._say_other_versions([run for run in self.missing if run.recipe.plugins])
        preflight.check_plugins(self.missing)
        if self.missing:
            preflight.leave_busy_cores(self.flags, self.console)
        return start

    def _plan(self) -> tuple[Plan, Options]:
        """Plan the launch, and print the plan of limited time or the dry run.

        Returns the plan and the launcher's options.
        """
        if self.flags.minutes is not None:
            return self._plan_time()
        if self.flags.dry_run:
            self._show_cost()
        return Plan(self.missing), self.flags.options

    def _prepare(self, plan: Plan) -> Display:
        """Prepare folders, data and display, and print what is about to start.

        Raises DataError, ValueError and OSError.
        """
        preflight.check_writable(self.paths.out)
        tracker = self._make_tracker()
        note_tables(self.paths.out, self._tables, self.seeds)
        preflight.check_data(plan.runs, self.paths, self.console)
        if plan.runs:
            preflight.say_code(self.console)
        text = f"{preflight.describe_place(self.flags)}, records in {self.paths.records}"
        if self.flags.minutes is None:
            experiment, variant = self._tables[0]  # a launch without minutes has one
            title = f"{experiment.source}, {experiment.heading(variant)}"
            recorded = len(self.runs) - len(self.missing) - len(self.damaged)
            text = f"{title}: {counted(len(self.runs), 'run')}, {recorded} already recorded; {text}"
        self.console.print(text)
        names = {run: f"{self._label(run)} seed {run.seed}" for run in self._rows}
        return Display(len(plan.runs), self.console, tracker, names)

    def _say_other_versions(self, runs: list[Run]) -> None:
        """Print how many records and begun runs are like these, but of another version of their plugins."""
        if not runs:
            return
        wanted, names = {_unversioned(run.specification()) for run in runs}, {_unnumbered(str(run)) for run in runs}
        records = sum(_unversioned(record["specification"]) in wanted for record in self.pools[0].records.values())
        known = {run.short_id for run in self._rows}  # of the current version
        folders = (path.parent for path in self.paths.out.glob("work/*/status.json") if path.parent.name not in known)
        begun = sum(status is not None and _unnumbered(status.run) in names for status in map(Status.read, folders))
        if found := [counted(n, what) for n, what in ((records, "record"), (begun, "begun run")) if n]:
            modules = ", ".join(dict.fromkeys(plugin.module for run in runs for plugin in run.recipe.plugins))
            self.console.print(f"not counted, because they are of another version of {modules}: {' and '.join(found)}")

    def _make_tracker(self) -> Tracker | None:
        """Make the tracker of all runs, each in the group of its table and row. Raises ValueError."""
        if self.flags.track is None:
            return None
        groups = {run: f"{table}/{row.key}" for run, (table, row) in self._rows.items()}
        groups = {run: groups.get(run, f"others/{run.model}") for run in self.runs}
        return Tracker(self.flags.track, self.paths, groups, self.console.print)

    @cached_property
    def _tables(self) -> list[tuple[Experiment, Variant]]:
        """The tables of the wanted runs, each once, in their order."""
        return list(dict.fromkeys((one.experiment, one.variant) for one in self.wanted))

    @cached_property
    def _rows(self) -> dict[Run, tuple[str, Row]]:
        """The runs' first table, by its files' name, and row; runs that only others need are left out."""
        seeds, rows = {run.seed for run in self.runs}, dict[Run, tuple[str, Row]]()
        for experiment, variant in self._tables:
            for row in experiment.fit_rows(variant):
                for seed in seeds:
                    rows.setdefault(variant.apply(row.run(seed)), (f"{experiment.name}{variant.suffix}", row))
        return rows

    def _label(self, run: Run) -> str:
        """Name the run's row, after its table if there are several."""
        if run not in self._rows:
            return "needed by others"
        table, row = self._rows[run]
        return row.label if len(self._tables) == 1 else f"{table}, {row.label}"

    # ------------------------------------------------------------------------------------------------------------ plans

    def _plan_time(self) -> tuple[Plan, Options]:
        """Plan the launch's minutes and print the plan; returns it with the launcher's options."""
        flags, minutes = self.flags, self.flags.minutes
        plan = make_plan(
            self.missing,
            self.paths,
            flags.device,
            partners=lambda run: _find_partners(run, self.wanted, self.pools),
            rates=lambda runs: preflight.find_rates(flags, runs, self.pools),
        )
        jobs = min(max(1, plan.jobs(minutes)), flags.options.slurm.max_jobs)
        text = f"lacking: {counted(len(plan.runs), 'run')}, {len(plan.begun)} of them begun; "
        if flags.device is None:
            chosen = dict.fromkeys(plan.runs)
            known = [plan.seconds[run] for run in plan.runs if run in plan.seconds]
            text += f"{sum(known) / 3600:.1f} GPU-hours for {len(known)} of them by published rates and estimates: "
            text += f"{counted(jobs, 'job')} of {minutes:g} minutes"
        else:
            slots = len(flags.slots(len(plan.runs))) or 1
            chosen = plan.within(minutes, slots)
            finished = sum(chosen.values())
            text += f"{minutes:g} minutes{f' in {slots} slots' if slots > 1 else ''} finish {finished}"
            text += f" and begin {len(chosen) - finished} more"
        console = make_console() if flags.dry_run else self.console
        if flags.dry_run:
            headings = ("row", "run", Column("state", no_wrap=True), "time", "in this time")
            table = Table(*headings, title="dry run: nothing is trained")
            for run, finished in chosen.items():
                begun = plan.begun.get(run)
                state = f"at {begun.iteration:,} of {run.recipe.iterations:,}" if begun else "lacking"
                state += f", in {plan.precisions[run]}" if run in plan.precisions else ""
                hours = _time(plan.seconds[run] / 3600) if run in plan.seconds else "not measured"
                table.add_row(
                    self._label(run), str(run), state, hours, {True: "finished", False: "begun", None: ""}[finished]
                )
            console.print(table, crop=False)
        console.print(text)
        for why in dict.fromkeys(plan.left.values()):
            console.print(f"left, {why}: {', '.join(str(run) for run, own in plan.left.items() if own == why)}")
        budget = Budget(minutes=minutes, plan=plan)
        if flags.device is not None:
            budget = budget.started()
        return plan, replace(flags.options, budget=budget, slurm=replace(flags.options.slurm, max_jobs=jobs))

    def _show_cost(self) -> None:
        """Print all runs, with the cost of the missing ones."""
        missing = self.missing
        table = Table("row", "run", "status", "images/s", "time", title="dry run: nothing is trained")
        rates = preflight.find_rates(self.flags, missing, self.pools)
        known = {run: rates[work] for run in missing if (work := cost.work_of(run)) in rates}
        for run in self.runs:
            if run not in missing:
                cells = self.damaged[run].kind if run in self.damaged else "recorded", "", ""
            elif run in known:
                cells = "to be trained", f"{known[run].images_per_second:,.0f}", _time(known[run].hours(run))
            else:
                cells = "to be trained", "not measured", ""
            table.add_row(self._label(run), str(run), *cells)
        console = make_console()
        console.print(table, crop=False)
        unit = "CPU" if self.flags.device is not None and self.flags.device.type == "cpu" else "GPU"
        slots, hours = len(self.flags.slots(len(missing))), sum(rate.hours(run) for run, rate in known.items())
        total = f": {_time(hours, f'{unit}-')} for {len(known)} of them"
        if slots > 1 and unit == "CPU":
            total += f", about {_time(hours / min(slots, available_cores()))} in {slots} slots"
        text = f"{len(missing)} of {counted(len(self.runs), 'run')} to be trained"
        console.print(f"{text}{total}" if known or not missing else f"{text}, in a time that is not known")
        if self.flags.launcher == "slurm":
            cluster = self.flags.options.slurm
            jobs = min(math.ceil(len(missing) / self.flags.options.runs_a_job), cluster.max_jobs)
            console.print(f"{counted(jobs, 'job')} with {counted(cluster.gpus * cluster.processes, 'GPU')} each")
        for work, rate in rates.items():
            console.print(f"  {work}: {rate.source}")
        if len(known) < len(missing):
            console.print("no record has the rates of the others on a GPU; a dry run on a GPU measures them, "
                          "except for image folders")  # fmt: skip

    # ------------------------------------------------------------------------------------------------------- conclusion

    def _conclude(self, plan: Plan, outcome: Outcome | None, budget: Budget) -> int:
        """Measure, write the tables, and print the outcome (None: the device is lost); returns the exit status."""
        pool, minutes = read_pool(self.paths.records), self.flags.minutes
        over = budget.over or budget.minutes is not None
        measuring = outcome is not None and not outcome.detached and (over or not outcome.interrupted)
        problems = self._write_tables(pool, budget, measuring)
        said = [f"\nfailed: {run}\n{text}" for run, text in outcome.failures.items()] if outcome else []
        damaged = _damaged(self.runs, pool)
        said += [f"\nnot trained: {run}\n{error}\n{error.advice}" for run, error in damaged.items()]
        for text in [*(f"\n{problem}" for problem in problems), *said]:
            complain(self.console, text)
        done = sum(pool.get(run) is not None for run in plan.runs)
        if minutes is not None:
            begun = [run for run in plan.runs if (self.paths.work(run) / checkpoint.NEWEST).exists()]
            going = sum(pool.get(run) is None for run in begun)
            self.console.print(f"\n{done} of {len(plan.runs)} lacking runs were finished, "
                               f"{going} have checkpoints to go on from.")  # fmt: skip
        if outcome is None:
            return EXIT_FAILED
        if outcome.detached:
            self.console.print(f"\n{outcome.detached}")
            return EXIT_INTERRUPTED if not self.flags.options.detach else EXIT_FAILED if damaged else 0
        if outcome.interrupted and not over:
            self.console.print(f"\n{outcome.interrupted}.\nThe same command goes on where this stopped.")
            return EXIT_INTERRUPTED
        if outcome.failures or problems or damaged:
            return EXIT_FAILED
        if minutes is None:
            return 0 if all(pool.get(run) for run in self.runs) else EXIT_FAILED
        if done < len(plan.runs):
            late = f" {duration(time.time() - budget.until)} after its end" if budget.over else ""
            self.console.print(f"The time of {minutes:g} minutes is over{late}; the same command goes on from there.")
        return 0

    def _write_tables(self, pool: Pool, budget: Budget, measuring: bool) -> list[str]:
        """Measure final networks, then write and show the tables that have records; returns the problems."""
        problems, tables = list[str](), dict[tuple[str, str], list[Wanted]]()
        for one in self.wanted:
            tables.setdefault((one.experiment.name, one.variant.name), []).append(one)
        for ones in tables.values():
            experiment, variant = ones[0].experiment, ones[0].variant
            if not (records := [record for one in ones if (record := pool.get(one.run)) is not None]):
                continue
            if measuring:
                # The device of a cluster's jobs may not be here.
                device, until = self.flags.device or find_device(), budget.until + MEASURING_SECONDS
                with self.console.status("measuring the final networks"):
                    # A sweep is not to know the test errors.
                    measures = [] if variant.sweep else [EXACT_ERRORS.make_missing, experiment.measure]
                    for measure in filter(None, measures):
                        problems += measure(completed(records), self.paths, device, until)
            try:
                seeds = self.seeds or experiment.default_seeds(variant)
                results = experiment.results(variant, seeds, pool, self.pools[1])
                shown = replace(experiment, report=write_sweep) if variant.sweep else experiment
                show_files(write_report(shown, variant, results, self.paths.out))
            except OSError as error:  # a full disk, say: the records are there, and the same command tries again
                problems.append(f"the tables could not be written: {error}")
            except ReportError as error:
                problems.append(str(error))
        return problems


def _unversioned(specification: dict) -> bytes:
    """Return a run's specification without the digests of its plugins' sources."""
    recipe = specification["recipe"]
    plugins = [{**plugin, "sha256": None} for plugin in recipe.get("plugins", ())]
    return canonical_json({**specification, "recipe": {**recipe, "plugins": plugins}})


def _unnumbered(run: str) -> str:
    """Return a run's name without its id."""
    return run.rpartition(", ")[0]


def _time(hours: float, unit: str = "") -> str:
    """Format a time: ``404 CPU-hours`` with the unit "CPU-", ``1.25 hours``, ``3.1 minutes``."""
    if hours < 0.1:
        return f"{60 * hours:.2g} {unit}minutes"
    return f"{hours:,.{0 if hours >= 10 else 2}f} {unit}hours"


def _damaged(runs: list[Run], pool: Pool) -> dict[Run, RecordError]:
    """Find the runs whose record cannot be used, each with the error: they are never trained again."""
    paths = {run: record_path(pool.root, run) for run in runs}
    return {run: pool.damaged[path] for run, path in paths.items() if path in pool.damaged}


def _find_partners(run: Run, wanted: Sequence[Wanted], pools: list[Pool]) -> list[dict]:
    """Find the records of the runs that a run is paired with: the runs of its tables with its seed."""
    tables = {(one.experiment, one.variant) for one in wanted if one.run == run}
    others = {v.apply(row.run(run.seed)) for experiment, v in tables for row in experiment.fit_rows(v)}
    found = (next(filter(None, (pool.get(other) for pool in pools)), None) for other in others - {run})
    return [record for record in found if record is not None]
