"""The command line of an experiment: ``python -m reproductions.cifar_table --profile paper --seeds 5``."""

import argparse
import math
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from reproductions.harness import launching, preflight
from reproductions.harness.console import (
    DEFAULT_DATA,
    DEFAULT_OUT,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_REFUSED,
    PUBLISHED,
    complain,
    make_console,
    show_files,
)
from reproductions.harness.experiment import PROFILES, Experiment, Variant
from reproductions.harness.launched import note_tables
from reproductions.harness.launching.options import Options
from reproductions.harness.launching.progress import Display
from reproductions.harness.launching.run_paths import RunPaths
from reproductions.harness.launching.slurm.cluster_profile import load_cluster_profile
from reproductions.harness.launching.worker import Outcome
from reproductions.harness.minutes import launch_within, measure_final_networks, wanted_runs
from reproductions.harness.records import Pool, PoolError, RecordError, read_pool, record_path
from reproductions.harness.reporting.frame import completed
from reproductions.harness.reporting.page import write_report
from resnet.data import DataError
from resnet.device import DeviceLost, find_device
from resnet.recipe import KERNELS, PRECISIONS
from resnet.run import Run


def parse(experiments: Experiment | Mapping[str, Experiment], arguments: list[str] | None) -> argparse.Namespace:
    """The command line's options, among them ``experiment``: the one for the data set that they name."""
    experiment = _choose_experiment(experiments, arguments)
    parser = argparse.ArgumentParser(
        prog=f"python -m reproductions.{experiment.module}",
        description=f"{experiment.title} ({experiment.source})",
        epilog=experiment.epilog,
    )
    add = parser.add_argument
    if not isinstance(experiments, Experiment):
        _add_dataset(parser, experiments)
    add("--profile", choices=PROFILES, default="paper", help="how much of the protocol is run (default: paper)")
    add("--seeds", type=positive, help=f"runs per row; default: {_default_seeds(experiment)}")
    add("--rows", type=_names, help="only these rows, such as resnet20,resnet56")
    add("--train-images", type=positive, help="train on the first so many images, hold out the others")
    add("--precision", choices=PRECISIONS, default="auto", help="auto: bf16 where the device has it, else fp32")
    add("--kernels", choices=KERNELS, default="auto",
        help="fused: a CIFAR net's own, in bf16 and fp16, not yet run on a GPU; auto: library")  # fmt: skip
    add("--yes", action="store_true", help="train the paper profile without a GPU all the same, however long it takes")
    add_launch_flags(parser)
    options = parser.parse_args(arguments)
    if options.all and options.minutes is None:
        parser.error("--all has a meaning with --minutes only: else a launch looks into --out alone anyway")
    options.experiment = experiment
    try:
        options.variant = Variant(options.profile, options.train_images, options.precision, options.kernels)
        options.seeds = options.seeds or experiment.seeds[options.profile]
        options.runs = experiment.runs(options.variant, options.seeds, options.rows)
        options.variant = experiment.resolve(options.variant, options.rows)
    except ValueError as error:
        parser.error(str(error))
    return options


def add_launch_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say where and how runs are trained, the same for one table and for all."""
    add = parser.add_argument
    add("--launcher", choices=launching.NAMES, default="auto", help="auto: in-process, or a queue on GPUs or cores")
    add("--minutes", type=_positive_number, help="train what is lacking as far as so many minutes go, asking nothing")
    add("--all", action="store_true", help="with --minutes: train what is published here too")
    add(
        "--data",
        type=Path,
        default=DEFAULT_DATA,
        help="folder of the data; CIFAR-10 and MNIST are downloaded if missing (default: data)",
    )
    add("--out", type=Path, default=DEFAULT_OUT, help="folder of records, tables and plots (default: runs)")
    add("--pack", type=_pack, help="runs at once on a GPU: auto (default) or a number; a CPU trains one by one")
    add("--device", default="auto", help="auto (default): a CUDA GPU if there is one; or cpu, cuda, cuda:1")
    add("--slots", type=positive, help="jobs at once with the local launcher (default: one per GPU or core)")
    add("--slurm-profile", metavar="NAME", help="what jobs ask SLURM for: slurm/profiles/NAME.toml")
    add("--detach", action="store_true", help="return when the jobs are submitted to SLURM")
    add("--max-starts", type=positive, help="jobs a run may bring down before it is given up (default: 5)")
    add("--checkpoint-seconds", type=_positive_number, default=60, help="time between checkpoints (default: 60)")
    add("--dry-run", action="store_true", help="list the runs and what they would cost, and train nothing")


def _choose_experiment(experiments: Experiment | Mapping[str, Experiment], arguments: list[str] | None) -> Experiment:
    """The experiment for the data set that the arguments name, of a script that has several."""
    if isinstance(experiments, Experiment):
        return experiments
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    _add_dataset(parser, experiments)
    name = parser.parse_known_args(arguments)[0].dataset
    return experiments.get(name, next(iter(experiments.values())))  # a wrong name is refused by the whole parser


def _add_dataset(parser: argparse.ArgumentParser, experiments: Mapping[str, Experiment]) -> None:
    first = next(iter(experiments))
    parser.add_argument("--dataset", choices=experiments, default=first, help=f"what is trained on (default: {first})")


def _default_seeds(experiment: Experiment) -> str:
    """``paper 5, short 5, smoke 2``"""
    return ", ".join(f"{profile} {count}" for profile, count in experiment.seeds.items())


def _names(text: str) -> list[str]:
    if not (names := text.replace(",", " ").split()):
        raise argparse.ArgumentTypeError("no row is named")
    return names


def _positive_number(text: str) -> float:
    if not 0 < (value := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _pack(text: str) -> int | None:
    return None if text == "auto" else positive(text)


def positive(text: str) -> int:
    """A whole number of at least 1, from the command line."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def run_experiment(experiments: Experiment | Mapping[str, Experiment], arguments: list[str] | None = None) -> int:
    """Train what has no record yet, then make the tables and plots; returns the exit status.

    A script with several experiments, one per data set, gives them by what ``--dataset`` calls them, its default first.

    0: all records are there. 1: a run failed or a record is damaged. 2: nothing was begun. 130: interrupted.
    """
    options = parse(experiments, arguments)
    if options.minutes is not None:
        return _run_within(options)
    console = make_console(stderr=True)
    try:
        paths = RunPaths(options.out, options.data, options.checkpoint_seconds, published=PUBLISHED)
        _leave_out_published_needs(options, paths, console)
        published = read_pool(PUBLISHED / "records")
        outcome = _launch(options, paths, published, console)
        return outcome if isinstance(outcome, int) else _conclude(options, outcome, paths, published, console)
    except PoolError as error:
        complain(console, str(error))
        return EXIT_REFUSED
    except KeyboardInterrupt:
        console.print("\nStopped at once. The same command goes on from the last checkpoints.")
        return EXIT_INTERRUPTED


def _run_within(options: argparse.Namespace) -> int:
    """Train what is lacking of one table for so many minutes; returns the exit status."""
    wanted = wanted_runs(options.experiment, options.variant, range(options.seeds), options.rows)
    try:
        return launch_within(wanted, options, launch_options(options, options.experiment.name))
    except ValueError as error:  # a cluster profile that can't be used
        complain(make_console(stderr=True), str(error))
        return EXIT_REFUSED


def _leave_out_published_needs(options: argparse.Namespace, paths: RunPaths, console: Console) -> None:
    """Take what is published with its weights, and only needed by others, from the runs, and say so."""
    before = options.runs
    options.runs = options.experiment.runs(options.variant, options.seeds, options.rows, paths.only_published)
    if given := [run for run in before if run not in options.runs]:
        console.print("not trained again, because others need only their weights, which are published in "
                      f"{paths.published / 'weights'}: {', '.join(map(str, given))}")  # fmt: skip


def _launch(options: argparse.Namespace, paths: RunPaths, published: Pool, console: Console) -> Outcome | int:
    """Train what has no record yet; the exit status where there is no more to do or to say."""
    pool = read_pool(paths.records)
    for error in (*pool.damaged.values(), *published.damaged.values()):
        complain(console, f"{error.kind}: {error}")
    damaged = _damaged(options.runs, pool)
    missing = [run for run in options.runs if pool.get(run) is None and run not in damaged]
    try:
        launcher, launch = launching.choose(options.launcher, options.device, len(missing))
        preflight.check_flags(options, launcher)
        preflight.check_device(options, launcher)
        if missing:
            preflight.leave_busy_cores(options, launcher, console)
        given = launch_options(options, options.experiment.name)
        if options.dry_run:
            preflight.dry_run(options, missing, damaged, launcher, [pool, published])
            return 0
        if missing and preflight.refuse_without_gpu(options, missing, launcher, [pool, published]):
            return EXIT_REFUSED
        preflight.check_writable(paths.out)
        note_tables(paths.out, [(options.experiment, options.variant)])
        preflight.check_data(missing, paths, console)
        if missing:
            preflight.say_code(console)
        preflight.say_plan(console, options, len(options.runs) - len(missing) - len(damaged), launcher)
        with Display(len(missing), console) as display:
            return launch(missing, paths, display, given)
    except (DataError, ValueError) as error:
        complain(console, str(error))
        return EXIT_REFUSED
    except DeviceLost as error:
        complain(console, f"{error}\nThe same command goes on from the last checkpoints.")
        return EXIT_FAILED


def launch_options(options: argparse.Namespace, name: str) -> Options:
    """The flags that launchers are told of; ``name`` is that of the jobs. Raises ValueError for a cluster profile."""
    return Options(
        slots=options.slots,
        pack=options.pack,
        device=options.device,
        slurm=load_cluster_profile(options.slurm_profile),
        max_starts=options.max_starts or Options.max_starts,
        detach=options.detach,
        experiment=name,
    )


def _conclude(options: argparse.Namespace, outcome: Outcome, paths: RunPaths, published: Pool, console: Console) -> int:
    """Measure, write and show the tables, and say what is missing; returns the exit status."""
    pool = read_pool(paths.records)
    problems = [] if outcome.interrupted else _measure(options, pool, paths, console)
    for text in problems:
        complain(console, f"\n{text}")
    if any(pool.get(run) for run in options.runs):
        try:
            results = options.experiment.results(options.variant, options.seeds, pool, published)
            show_files(write_report(options.experiment, options.variant, results, paths.out))
        except OSError as error:  # a full disk, say: the records are there, and the same command tries again
            complain(console, f"the tables could not be written: {error}")
            return EXIT_FAILED
    for run, text in outcome.failures.items():
        complain(console, f"\nfailed: {run}\n{text}")
    for run, error in _damaged(options.runs, pool).items():
        complain(console, f"\nnot trained: {run}\n{error}\n{error.advice}")
    if outcome.detached:
        console.print(f"\n{outcome.detached}")
        return 0 if options.detach else EXIT_INTERRUPTED
    if outcome.interrupted:
        console.print(f"\n{outcome.interrupted}.\nThe same command goes on where this stopped.")
        return EXIT_INTERRUPTED
    complete = all(pool.get(run) for run in options.runs)
    return 0 if complete and not outcome.failures and not problems else EXIT_FAILED


def _measure(options: argparse.Namespace, pool: Pool, paths: RunPaths, console: Console) -> list[str]:
    """Measure the final networks of completed runs: what all experiments do, and its own; returns what went wrong."""
    records = completed([record for run in options.runs if (record := pool.get(run)) is not None])
    device = find_device("auto" if options.launcher == "slurm" else options.device)  # the jobs' may not be here
    with console.status("measuring the final networks"):
        return measure_final_networks(options.experiment, records, paths, device)


def _damaged(runs: list[Run], pool: Pool) -> dict[Run, RecordError]:
    """Those of the runs whose record can't be used, with what is wrong: they are never trained over."""
    paths = {run: record_path(pool.root, run) for run in runs}
    return {run: pool.damaged[path] for run, path in paths.items() if path in pool.damaged}
