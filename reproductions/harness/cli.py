"""The command line of an experiment: ``python -m reproductions.cifar_table --profile paper --seeds 5``."""

import argparse
import re
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reproductions.harness import launching, provenance
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
from reproductions.harness.launching import cost
from reproductions.harness.launching.job import DeviceLost
from reproductions.harness.launching.profile import load_profile
from reproductions.harness.launching.progress import Display
from reproductions.harness.launching.workplace import Workplace
from reproductions.harness.records import Pool, read_pool, record_path
from reproductions.harness.reporting.report import write_report
from reproductions.harness.reporting.samples import completed
from resnet.data import FOLDERS, DataError, load
from resnet.data.folder import check_images_once
from resnet.device import find_device, resolve_precision, why_no_cuda
from resnet.recipe import PRECISIONS
from resnet.run import Run

_CPU_HOURS = 2  # that the paper profile may take on a CPU without --yes


def parse(experiments: Experiment | Mapping[str, Experiment], arguments: list[str] | None) -> argparse.Namespace:
    """The command line's options, among them ``experiment``: the one for the data set that they name."""
    experiment = _choose_experiment(experiments, arguments)
    parser = argparse.ArgumentParser(
        prog=f"python -m reproductions.{experiment.script}",
        description=f"{experiment.title} ({experiment.source})",
        epilog=experiment.epilog,
    )
    add = parser.add_argument
    if not isinstance(experiments, Experiment):
        _add_dataset(parser, experiments)
    add("--profile", choices=PROFILES, default="paper", help="how much of the protocol is run (default: paper)")
    add("--launcher", choices=launching.NAMES, default="auto", help="auto: in-process, or a queue on several GPUs")
    add("--seeds", type=_positive, help=f"runs per row; default: {_default_seeds(experiment)}")
    add("--rows", type=_names, help="only these rows, such as resnet20,resnet56")
    add(
        "--data",
        type=Path,
        default=DEFAULT_DATA,
        help="folder of the data; CIFAR-10 and MNIST are downloaded if missing (default: data)",
    )
    add("--out", type=Path, default=DEFAULT_OUT, help="folder of records, tables and plots (default: runs)")
    add("--train-images", type=_positive, help="train on the first so many images, hold out the others")
    add("--precision", choices=PRECISIONS, default="auto", help="auto: bf16 on CUDA, fp32 elsewhere")
    add("--pack", type=_pack, help="runs at once on a GPU: auto (default) or a number; a CPU trains one by one")
    add("--device", default="auto", help="auto (default): a CUDA GPU if there is one; or cpu, cuda, cuda:1")
    add("--slots", type=_positive, help="jobs at once with the local launcher (default: one per GPU or core)")
    add("--slurm-profile", metavar="NAME", help="what jobs ask SLURM for: slurm/profiles/NAME.toml")
    add("--detach", action="store_true", help="return when the jobs are submitted to SLURM")
    add("--max-starts", type=_positive, help="jobs a run may bring down before it is given up (default: 5)")
    add("--checkpoint-seconds", type=_seconds, default=60, help="time between checkpoints (default: 60)")
    add("--dry-run", action="store_true", help="list the runs and what they would cost, and train nothing")
    add("--yes", action="store_true", help="train the paper profile without a GPU all the same, however long it takes")
    options = parser.parse_args(arguments)
    options.experiment = experiment
    try:
        options.variant = Variant(options.profile, options.train_images, options.precision)
        options.seeds = options.seeds or experiment.seeds[options.profile]
        options.runs = experiment.runs(options.variant, options.seeds, options.rows)
        if all(run.train_images is None for run in options.runs):  # that many is all there are
            options.variant = replace(options.variant, train_images=None)
    except ValueError as error:
        parser.error(str(error))
    return options


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
    """``5 in the paper profile, 2 in the others``"""
    return f"{experiment.seeds['paper']} in the paper profile, {experiment.seeds['smoke']} in the others"


def _names(text: str) -> list[str]:
    if not (names := text.replace(",", " ").split()):
        raise argparse.ArgumentTypeError("no row is named")
    return names


def _seconds(text: str) -> float:
    if not (value := float(text)) > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def _pack(text: str) -> int | None:
    return None if text == "auto" else _positive(text)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def run_experiment(experiments: Experiment | Mapping[str, Experiment], arguments: list[str] | None = None) -> int:
    """Train what has no record yet, then make the tables and plots; returns the exit status.

    A script with several experiments, one per data set, gives them by what ``--dataset`` calls them, its default first.

    0: all records are there. 1: a run failed or a record is damaged. 2: nothing was begun. 130: interrupted.
    """
    options = parse(experiments, arguments)
    console = make_console(stderr=True)
    try:
        return _run(options.experiment, options, console)
    except KeyboardInterrupt:
        console.print("\nStopped at once. The same command goes on from the last checkpoints.")
        return EXIT_INTERRUPTED


def _run(experiment: Experiment, options: argparse.Namespace, console: Console) -> int:
    place = Workplace(options.out, options.data, options.checkpoint_seconds)
    pool, published = read_pool(place.records), read_pool(PUBLISHED / "records")
    for message in (*pool.damaged.values(), *published.damaged.values()):
        complain(console, f"damaged record: {message}")
    damaged = _damaged(options.runs, pool)
    missing = [run for run in options.runs if pool.get(run) is None and run not in damaged]
    try:
        launcher, launch = launching.choose(options.launcher, options.device)
        _check_flags(options, launcher)
        _check_device(options, launcher)
        slurm = load_profile(options.slurm_profile)
        launch_options = launching.Options(
            slots=options.slots,
            pack=options.pack,
            device=options.device,
            slurm=slurm,
            max_starts=options.max_starts or launching.Options.max_starts,
            detach=options.detach,
            experiment=experiment.name,
        )
        if options.dry_run:
            _dry_run(options, missing, damaged, launcher, [pool, published])
            return 0
        if missing and _refuse_without_gpu(experiment, options, missing, launcher, [pool, published]):
            return EXIT_REFUSED
        _check_writable(place.out)
        _check_data(missing, place, console)
        _say_plan(console, experiment, options, len(options.runs) - len(missing) - len(damaged), launcher)
        with Display(len(missing), console) as display:
            outcome = launch(missing, place, display, launch_options)
    except (DataError, ValueError) as error:
        complain(console, str(error))
        return EXIT_REFUSED
    except DeviceLost as error:
        complain(console, f"{error}\nThe same command goes on from the last checkpoints.")
        return EXIT_FAILED

    pool = read_pool(place.records)
    problems = [] if outcome.interrupted else _measure(experiment, options, pool, place, launcher, console)
    for text in problems:
        complain(console, f"\n{text}")
    if any(pool.get(run) for run in options.runs):
        try:
            show_files(write_report(experiment, options.variant, options.seeds, pool, published, place.out))
        except OSError as error:  # a full disk, say: the records are there, and the same command tries again
            complain(console, f"the tables could not be written: {error}")
            return EXIT_FAILED
    for run, text in outcome.failures.items():
        complain(console, f"\nfailed: {run}\n{text}")
    for run, text in _damaged(options.runs, pool).items():
        complain(console, f"\nnot trained: {run}\n{text}\nMove the file away to train this run again.")
    if outcome.detached:
        console.print(f"\n{outcome.detached}")
        return 0 if options.detach else EXIT_INTERRUPTED
    if outcome.interrupted:
        console.print(f"\n{outcome.interrupted}.\nThe same command goes on where this stopped.")
        return EXIT_INTERRUPTED
    complete = all(pool.get(run) for run in options.runs)
    return 0 if complete and not outcome.failures and not problems else EXIT_FAILED


def _measure(experiment: Experiment, options, pool: Pool, place: Workplace, launcher: str, console: Console) -> list:
    """Do what the experiment does with the final networks of completed runs; returns what went wrong."""
    records = completed([record for run in options.runs if (record := pool.get(run)) is not None])
    if experiment.measure is None or not records:
        return []
    device = find_device("auto" if launcher == "slurm" else options.device)  # that of the jobs may not be here
    with console.status("measuring the final networks"):
        return experiment.measure(records, place, device)


def _damaged(runs: list[Run], pool: Pool) -> dict[Run, str]:
    """Those of the runs whose record is damaged, with what is wrong: they are never trained over."""
    paths = {run: record_path(pool.root, run) for run in runs}
    return {run: pool.damaged[path] for run, path in paths.items() if path in pool.damaged}


def _check_flags(options: argparse.Namespace, launcher: str) -> None:
    """Raise ValueError for a flag that the launcher would leave out of account."""
    if options.slurm_profile and launcher != "slurm":
        raise ValueError(f"--slurm-profile has no meaning for the {launcher} launcher; add --launcher slurm")
    if options.detach and launcher != "slurm":
        raise ValueError(f"--detach has no meaning for the {launcher} launcher; add --launcher slurm")
    if options.slots and launcher != "local":
        raise ValueError(f"--slots has no meaning for the {launcher} launcher; add --launcher local")
    if options.max_starts and launcher == "inline":
        raise ValueError("--max-starts has no meaning for the inline launcher; add --launcher local or slurm")


def _check_device(options: argparse.Namespace, launcher: str) -> None:
    """Raise ValueError for a device that isn't here, or that can't compute in the precision asked for."""
    if launcher == "slurm":  # the device is elsewhere
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", options.device):
            raise ValueError(f"--device {options.device} is none of auto, cpu, cuda, cuda:0, cuda:1, ...")
        return
    if launcher == "local" and ":" in options.device:
        raise ValueError(f"--device {options.device} has no meaning for the local launcher, which uses every device; "
                         "name those it may use in CUDA_VISIBLE_DEVICES")  # fmt: skip
    for precision in {run.recipe.precision for run in options.runs}:
        resolve_precision(precision, find_device(options.device))


def _check_writable(out: Path) -> None:
    """Raise ValueError unless files can be written below ``out``, and it is not the published results."""
    if out.resolve().is_relative_to(PUBLISHED):
        raise ValueError(f"{out} is for published records; train elsewhere, then: python -m reproductions publish")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        text = f"{out} can't be written to ({error}); name another folder with --out (OUT= with make)"
        raise ValueError(text) from error


def _check_data(runs: list[Run], place: Workplace, console: Console) -> None:
    """Load the data once before anything starts or is submitted: a DataError is then shown once, a download happens
    once, and compute nodes need no network. Image folders are looked through for files that can't be read, once."""
    for name in sorted({run.data for run in runs}):
        dataset = load(name, place.data)
        if name in FOLDERS:
            with console.status(Text(f"looking through the files of {dataset.root}")):
                check_images_once(dataset, place.out / "work" / "data")


def _say_plan(console: Console, experiment: Experiment, options, recorded: int, launcher: str) -> None:
    text = f"{experiment.source}, {experiment.heading(options.variant)}: {len(options.runs)} runs"
    text += f", {recorded} already recorded"
    where = "" if launcher == "slurm" else f" on {_device_text(options)}"
    text += f"; {launcher} launcher{where}, records in {options.out / 'records'}"
    console.print(text)


def _device_text(options: argparse.Namespace) -> str:
    """The device, and why it is not a GPU if nobody asked for a CPU; what of the flags it takes no notice of."""
    device = find_device(options.device)
    if device.type == "cuda":
        return provenance.device_name(device)
    reason = f" (no CUDA GPU: {why_no_cuda()})" if options.device == "auto" else ""
    packed = ", which trains one run at a time whatever --pack says" if (options.pack or 1) > 1 else ""
    return f"the CPU{reason}{packed}"


def _dry_run(options, missing: list[Run], damaged: dict, launcher: str, pools: list[Pool]) -> None:
    """Print the runs and their cost."""
    runs = options.runs
    table = Table("run", "status", "images/s", "hours", title="dry run: nothing is trained")
    rates, unit = _rates(missing, launcher, options, pools)
    total = 0.0
    for run in runs:
        if run not in missing:
            table.add_row(str(run), "damaged record" if run in damaged else "recorded", "", "")
        elif (rate := rates.get(cost.work_of(run))) is None:
            table.add_row(str(run), "to be trained", "not measured", "")
        else:
            total += rate.hours(run)
            table.add_row(str(run), "to be trained", f"{rate.images_per_second:,.0f}", f"{rate.hours(run):.2f}")
    console = make_console()
    console.print(table, crop=False, width=max(console.width, 110))
    known = sum(cost.work_of(run) in rates for run in missing)
    console.print(f"{len(missing)} of {len(runs)} runs to be trained: {total:.2f} {unit}-hours for {known} of them")
    for work, rate in rates.items():
        console.print(f"  {work}: {rate.source}")
    if known < len(missing):
        console.print("no record tells the rates of the others on a GPU; a dry run where there is one measures those "
                      "that don't read image folders")  # fmt: skip


def _rates(runs: list[Run], launcher: str, options, pools: list[Pool]) -> tuple[dict[cost.Work, cost.Rate], str]:
    """Rates for the runs where they would run, and the unit of the hours."""
    if launcher == "slurm":
        return cost.rates_elsewhere(runs, pools), "GPU"
    device = find_device(options.device)
    return cost.rates_here(runs, pools, device), "GPU" if device.type == "cuda" else "CPU"


def _refuse_without_gpu(experiment, options, missing: list[Run], launcher: str, pools: list[Pool]) -> bool:
    """Whether this would be the paper's protocol on a CPU for many hours; says how many and what to do instead."""
    if options.profile != "paper" or launcher == "slurm" or find_device(options.device).type == "cuda" or options.yes:
        return False
    rates, _ = _rates(missing, launcher, options, pools)
    works = Counter(work for run in missing if (work := cost.work_of(run)) in rates)
    seconds = 3600 * sum(rates[cost.work_of(run)].hours(run) for run in missing if cost.work_of(run) in rates)
    if seconds <= 3600 * _CPU_HOURS and works.total() == len(missing):
        return False
    where = "this machine, which has no CUDA GPU," if options.device == "auto" else "the CPU"
    if rates:
        print(f"The paper profile on {where} would take {seconds / 86400:.1f} days:")
        for work, rate in rates.items():
            print(f"  {works[work]} x {work} at {rate.images_per_second:,.0f} images per second ({rate.source})")
    else:
        print(f"The paper profile is too much for {where.rstrip(',')}.")
    target = f"make {experiment.target}"
    print(
        "Nothing was started. Instead:\n"
        f"  {target} PROFILE=smoke          synthetic data, minutes\n"
        f"  {target} PROFILE=short          real data, fewer iterations\n"
        f"  {target} LAUNCHER=slurm SLURM_PROFILE=mycluster   on a cluster\n"
        "  make report                                  the published tables, seconds\n"
        f"or start it all the same with --yes ({target} YES=1)."
    )
    return True
