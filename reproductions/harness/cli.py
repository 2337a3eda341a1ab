"""The command line of an experiment: ``python -m reproductions.cifar_table --profile paper --seeds 5``."""

import argparse
import math
from collections.abc import Callable, Mapping
from contextlib import suppress

from reproductions.harness import launching
from reproductions.harness.console import (
    DEFAULT_DATA,
    DEFAULT_OUT,
    EXIT_REFUSED,
    PUBLISHED,
    ArgumentParser,
    complain,
    make_console,
    path_argument,
)
from reproductions.harness.experiment import PROFILES, Experiment, Variant
from reproductions.harness.launch import Wanted, launch, wanted_runs
from reproductions.harness.launching.options import LaunchFlags, Options
from reproductions.harness.launching.run_paths import RunPaths
from reproductions.harness.launching.slurm.cluster_profile import load_cluster_profile
from reproductions.harness.launching.tracking import TRACKERS
from reproductions.harness.settings import parse_settings, parse_sweep
from resnet.data import DataError
from resnet.recipe import KERNELS, PRECISIONS


def parse(experiments: Experiment | Mapping[str, Experiment], arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line; ``experiment`` among the options is the one for the data set that they name."""
    experiment = _choose_experiment(experiments, arguments)
    parser = ArgumentParser(
        prog=experiment.program,
        description=f"{experiment.title} ({experiment.source})",
        epilog=experiment.epilog,
    )
    add = parser.add_argument
    if not isinstance(experiments, Experiment):
        _add_dataset(parser, experiments)
    add("--profile", choices=PROFILES, default="paper", help="part of the protocol to run (default: paper)")
    seeds = ", ".join(f"{profile} {count}" for profile, count in experiment.seeds.items())
    add("--seeds", type=positive, help=f"runs per row; default: {seeds}")
    add("--rows", type=_names, help="only these rows, such as resnet20,resnet56")
    add("--train-images", type=positive, help="train on the first N images, hold out the others")
    add("--precision", choices=PRECISIONS, default="auto", help="auto: bf16 where the device has it, else fp32")
    add("--kernels", choices=KERNELS, default="auto",
        help="fused: a CIFAR net's own, in bf16 and fp16, not yet run on a GPU; auto: library")  # fmt: skip
    add("--set", type=settings_argument, default=(), metavar="SETTINGS",
        help="other values of recipe fields and net options: 'weight_decay=5e-4 learning_rate=0.05'")  # fmt: skip
    add("--sweep", type=_sweep_argument, default=(), metavar="SETTINGS",
        help="train all combinations of 'learning_rate=0.05,0.1 weight_decay=1e-4,5e-4' on nine tenths of the images, "
        "and rank them by the error on the others; default of --seeds is then 1")  # fmt: skip
    add("--yes", action="store_true", help="train the paper profile even without a GPU")
    add_launch_flags(parser)
    options = parser.parse_args(arguments)
    if options.all and options.minutes is None:
        parser.error("--all needs --minutes: without it a launch looks into --out alone anyway")
    options.experiment = experiment
    try:
        flags = (options.profile, options.train_images, options.precision, options.kernels)
        options.variant = Variant(*flags, settings=options.set, sweep=options.sweep)
        options.seeds = options.seeds or experiment.default_seeds(options.variant)
        options.variant = experiment.resolve(options.variant, options.rows)
        options.runs = experiment.runs(options.variant, options.seeds, options.rows)
        if options.sweep and options.train_images and options.variant.train_images is None:
            raise ValueError(f"--train-images {options.train_images} holds out no images to rank a sweep by")
    except (ValueError, DataError) as error:
        parser.error(str(error))
    return options


def add_launch_flags(parser: ArgumentParser) -> None:
    """Add the flags that set where and how runs are trained, the same for one table and for all."""
    add = parser.add_argument
    add("--launcher", choices=launching.NAMES, default="auto", help="auto: in-process, or a queue on GPUs or cores")
    add("--minutes", type=_positive_number, help="train the lacking runs for this time, without questions")
    add("--all", action="store_true", help="with --minutes: train published runs, too")
    add(
        "--data",
        type=path_argument,
        default=DEFAULT_DATA,
        help="folder of the data; CIFAR and MNIST are downloaded if missing (default: data)",
    )
    add("--out", type=path_argument, default=DEFAULT_OUT, help="folder of records, tables and plots (default: runs)")
    add(
        "--pack",
        type=lambda text: None if text == "auto" else positive(text),
        help="runs at once on a GPU: auto (default) or a number; a CPU trains one by one",
    )
    add("--device", default="auto", help="auto (default): a CUDA GPU if there is one; or cpu, cuda, cuda:1")
    add("--slots", type=positive, help="jobs at once with the local launcher (default: one per GPU or core)")
    add("--slurm-profile", metavar="NAME", help="the jobs' requests to SLURM: slurm/profiles/NAME.toml")
    add("--detach", action="store_true", help="return when the jobs are submitted to SLURM")
    add("--max-starts", type=positive, help="starts without progress before a run is given up (default: 5)")
    add("--checkpoint-seconds", type=_positive_number, default=60, help="time between checkpoints (default: 60)")
    add("--track", choices=TRACKERS, help="also write the curves to a tracker, while runs are trained")
    add("--dry-run", action="store_true", help="list the runs and their cost, and train nothing")


def _choose_experiment(experiments: Experiment | Mapping[str, Experiment], arguments: list[str] | None) -> Experiment:
    """Choose the experiment for the data set that the arguments name."""
    if isinstance(experiments, Experiment):
        return experiments
    first = next(iter(experiments.values()))
    parser = ArgumentParser(first.program, add_help=False)
    _add_dataset(parser, experiments)
    name = parser.parse_known_args(arguments)[0].dataset
    return experiments.get(name, first)  # a wrong name is refused by the whole parser


def _add_dataset(parser: ArgumentParser, experiments: Mapping[str, Experiment]) -> None:
    first = next(iter(experiments))
    parser.add_argument("--dataset", choices=experiments, default=first, help=f"the training data (default: {first})")


def _names(text: str) -> list[str]:
    if not (names := text.replace(",", " ").split()):
        raise argparse.ArgumentTypeError("no row is named")
    return names


def settings_argument(text: str) -> tuple[str, ...]:
    """Parse the argument of --set."""
    return _parsed(parse_settings, text)


def _sweep_argument(text: str) -> tuple[str, ...]:
    return _parsed(parse_sweep, text)


def _parsed(parse: Callable[[str], tuple[str, ...]], text: str) -> tuple[str, ...]:
    try:
        return parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _positive_number(text: str) -> float:
    with suppress(ValueError):
        if 0 < (value := float(text)) < math.inf:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")


def positive(text: str) -> int:
    """Convert a command-line argument to a whole number of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def run_experiment(experiments: Experiment | Mapping[str, Experiment], arguments: list[str] | None = None) -> int:
    """Train the runs that have no record yet, then write the tables and plots; returns the exit status of ``launch``.

    A script with several experiments, one per data set, gives them by their names for ``--dataset``, its default first.
    """
    options = parse(experiments, arguments)
    experiment, variant, seeds = options.experiment, options.variant, options.seeds
    console = make_console(stderr=True)
    try:
        flags = launch_flags(options, experiment.name)
    except ValueError as error:
        complain(console, str(error))
        return EXIT_REFUSED
    if flags.minutes is not None:
        wanted = wanted_runs(experiment, variant, range(seeds), options.rows)
        return launch(wanted, flags, max(seeds, experiment.default_seeds(variant)))
    runs = experiment.runs(variant, seeds, options.rows, flags.paths.only_published)
    if given := [run for run in options.runs if run not in runs]:
        console.print("not trained again, because others need only their weights, which are published in "
                      f"{flags.paths.published / 'weights'}: {', '.join(map(str, given))}")  # fmt: skip
    return launch([Wanted(experiment, variant, run) for run in runs], flags, seeds)


def launch_flags(options: argparse.Namespace, name: str) -> LaunchFlags:
    """Collect the launch flags; ``name`` is the name of the jobs. Raises ValueError for an unusable cluster profile."""
    own = Options(
        slots=options.slots,
        pack=options.pack,
        device=options.device,
        slurm=load_cluster_profile(options.slurm_profile),
        max_starts=options.max_starts or Options.max_starts,
        detach=options.detach,
        experiment=name,
    )
    return LaunchFlags(
        paths=RunPaths(options.out, options.data, options.checkpoint_seconds, published=PUBLISHED),
        options=own,
        launcher=options.launcher,
        given=frozenset(f"--{key.replace('_', '-')}" for key, value in vars(options).items() if value),
        minutes=options.minutes,
        all=options.all,
        yes=getattr(options, "yes", False),
        dry_run=options.dry_run,
        track=options.track,
    )
