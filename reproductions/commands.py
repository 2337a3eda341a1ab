"""The commands of ``python -m reproductions``, but for ``status``, which is in ``harness/status.py``."""

import argparse
from pathlib import Path

from rich.console import Console

from reproductions.architectures import architectures_table
from reproductions.evaluate import evaluate_weights
from reproductions.experiments import EXPERIMENTS, PUBLISHED_TABLES, evidence
from reproductions.export import export_weights
from reproductions.harness import publish
from reproductions.harness.cli import add_launch_flags, launch_flags, settings_argument
from reproductions.harness.console import (
    DEFAULT_DATA,
    DEFAULT_OUT,
    EXIT_FAILED,
    EXIT_REFUSED,
    PUBLISHED,
    ArgumentParser,
    complain,
    counted,
    make_console,
    path_argument,
    show_files,
)
from reproductions.harness.experiment import PROFILES, Variant
from reproductions.harness.launch import launch
from reproductions.harness.launching.slurm import submissions
from reproductions.harness.provenance import ROOT
from reproductions.harness.records import read_pool
from reproductions.harness.reporting.notes import NoteError
from reproductions.plan import plan
from resnet.data import IMAGE_SHAPES
from resnet.recipe import KERNELS, NORMALIZATIONS, PRECISIONS


def main(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    options = _parser().parse_args(arguments)
    return COMMANDS[options.command](options, make_console()) or 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m reproductions", description="The papers' tables.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the experiments, their rows and commands")
    commands.add_parser("models", help="the papers' networks, their parameters and multiply-adds")
    commands.add_parser("plan", help="the differences that 5, 10 and 20 seeds can find, and their cost")
    lacking = commands.add_parser("evidence", help="train the runs that the tables lack, for --minutes")
    add_launch_flags(lacking)
    commands.add_parser("status", help="the status of the runs in a folder")
    publishing = commands.add_parser("publish", help="check finished records and copy them into results/")
    cancelling = commands.add_parser("cancel", help="cancel an experiment's jobs on SLURM; checkpoints stay")
    cancelling.add_argument("experiment", help="the name of its jobs; evidence: the launch for all tables")
    exporting = commands.add_parser("export", help="final weights of an experiment's nets as safetensors files")
    names = [experiment.name for experiment in EXPERIMENTS]
    exporting.add_argument("--experiment", choices=names, default=names[0], help=f"default: {names[0]}")
    exporting.add_argument("--rows", type=lambda text: text.replace(",", " ").split(), help="only these rows")
    text = "results of your own, which take plugins and data of your own"
    publishing.add_argument("--to", type=path_argument, metavar="DIR", help=f"{text} (default: results)")
    exporting.add_argument("--to", type=path_argument, metavar="DIR", help="folder to write to (default: OUT/export)")
    exporting.add_argument(
        "--data", type=path_argument, default=DEFAULT_DATA, help="folder of the runs' data (default: data)"
    )
    exporting.add_argument("--profile", choices=PROFILES, default="paper", help="profile of the nets (default: paper)")
    exporting.add_argument("--train-images", type=int, help="export nets trained on the first N images")
    exporting.add_argument("--precision", choices=PRECISIONS, default="auto", help="export nets trained in it")
    exporting.add_argument("--kernels", choices=KERNELS, default="auto", help="export nets trained by these kernels")
    _add_evaluate_flags(commands.add_parser("evaluate", help="test error of any weights of a net for small images"))
    exporting.add_argument("--set", type=settings_argument, default=(), help="export nets trained with these values")
    for command in (publishing, cancelling, exporting):
        command.add_argument(
            "--out", type=path_argument, default=DEFAULT_OUT, help="folder of the runs (default: runs)"
        )
    commands.add_parser("report", help="make the published tables and plots again from the committed records")
    commands.add_parser("check", help="fail if a committed table, plot or the README differs from the records")
    return parser


def _add_evaluate_flags(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("weights", help="a file of weights, or the name of released ones, such as cifar_resnet20")
    add("--data", type=path_argument, default=DEFAULT_DATA, help="folder of the data (default: data)")
    add("--dataset", choices=IMAGE_SHAPES, help="data set (default: from the weights, else cifar10 or cifar100)")
    add("--normalization", choices=NORMALIZATIONS, help="of the images, by statistics of the data's training images")
    add("--mean", type=_numbers, help="of the images instead, a number per channel from 0 to 1: 0.49,0.48,0.45")
    add("--std", type=_numbers, help="with --mean: what the channels are divided by")
    add("--model", help="network of the weights, such as cifar_resnet20, if they fit several")
    add("--option", action="append", default=[], metavar="NAME=VALUE", help="an option of the network, likewise")
    add("--device", default="auto", help="auto (default): a CUDA GPU if there is one; or cpu, cuda, cuda:1")
    add("--precision", choices=PRECISIONS, default="auto", help="auto: bf16 if available, else fp32")


def _numbers(text: str) -> list[float]:
    try:
        return [float(value) for value in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 0.49,0.48,0.45") from None


def _list(options: argparse.Namespace, console: Console) -> int:
    for experiment in EXPERIMENTS:
        rows = experiment.rows("paper")
        always, asked = (" ".join(row.key for row in rows if row.on_request is which) for which in (False, True))
        console.print(f"{experiment.name}: {experiment.title} ({experiment.source})")
        on_request = f"; on request, ROWS=: {asked}" if asked else ""
        console.print(f"  make {experiment.target}    rows: {always}{on_request}")
    return 0


def _plan(options: argparse.Namespace, console: Console) -> int:
    console.print(plan(read_pool(PUBLISHED / "records")), end="")
    return 0


def _evidence(options: argparse.Namespace, console: Console) -> int:
    """Train the runs that the published tables lack, in one launch for all tables."""
    if options.minutes is None:
        complain(console, "evidence needs a time limit: set --minutes (MINUTES= with make)")
        return EXIT_REFUSED
    try:
        flags = launch_flags(options, "evidence")
        return launch(evidence(flags.device is None or flags.device.type == "cuda"), flags)
    except ValueError as error:  # a device or a cluster profile that can't be used
        complain(console, str(error))
        return EXIT_REFUSED


def _cancel(options: argparse.Namespace, console: Console) -> int:
    """Cancel the jobs of an experiment that were submitted from a folder."""
    names = dict.fromkeys([*(experiment.name for experiment in EXPERIMENTS), "evidence"])
    names |= dict.fromkeys(submission.experiment for submission in submissions.read_submissions(options.out))
    if options.experiment not in names:
        complain(console, f"there is no experiment {options.experiment}, and no job of that name from {options.out}; "
                          f"known names: {', '.join(names)}")  # fmt: skip
        return EXIT_REFUSED
    try:
        jobs = submissions.cancel(options.experiment, options.out)
    except ValueError as error:
        complain(console, str(error))
        return EXIT_REFUSED
    if jobs:
        done = f"cancelled {counted(len(jobs), 'job')} of {options.experiment}: {', '.join(jobs)}"
        console.print(f"{done}; a launch continues from their checkpoints")
    else:
        console.print(f"{options.experiment} has no jobs from {options.out}")
    return 0


def _publish(options: argparse.Namespace, console: Console) -> int:
    records = options.out / "records"
    if options.to is not None and options.to.resolve() != PUBLISHED:
        return _say_published("record", publish.publish(records, options.to, foreign=True), options.to, console)
    outcomes = (
        ("record", publish.publish, (records, PUBLISHED, PUBLISHED_TABLES)),
        ("measurement", publish.publish_measurements, (EXPERIMENTS, options.out, PUBLISHED)),
        ("weights file", publish.publish_weights, (EXPERIMENTS, options.out, PUBLISHED)),
    )
    failed = [_say_published(what, copy(*arguments), PUBLISHED, console) for what, copy, arguments in outcomes]
    console.print("next: make report, then commit results/")
    return max(failed)


def _say_published(what: str, outcome: tuple[list[Path], dict[Path, str]], to: Path, console: Console) -> int:
    new, refused = outcome
    for path in new:
        console.print(f"published {path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}")
    for path, reason in refused.items():
        complain(console, f"not published: {path}: {reason}")
    if new or refused or what == "record":
        place = to.relative_to(ROOT) if to.is_relative_to(ROOT) else to
        console.print(f"{counted(len(new), what)} published in {place}, {len(refused)} refused")
    return int(bool(refused))


def _export(options: argparse.Namespace, console: Console) -> int:
    flags = (options.profile, options.train_images, options.precision, options.kernels)
    variant = Variant(*flags, settings=options.set)
    experiment = next(experiment for experiment in EXPERIMENTS if experiment.name == options.experiment)
    to = options.to or options.out / "export"
    return export_weights(experiment, variant, options.rows or None, options.out, to, console, options.data)


def _report(options: argparse.Namespace, console: Console) -> int:
    try:
        written, pool = publish.report(PUBLISHED_TABLES, PUBLISHED, ROOT / publish.README)
    except NoteError as error:
        complain(console, str(error))
        return EXIT_FAILED
    show_files(written, ROOT)
    for error in pool.damaged.values():
        complain(console, f"{error.kind}: {error}")
    return int(bool(pool.damaged))


def _check(options: argparse.Namespace, console: Console) -> int:
    problems = publish.check(PUBLISHED_TABLES, PUBLISHED, ROOT / publish.README)
    for problem in problems:
        complain(console, problem)
    if not problems:
        console.print("every table, every plot and the README follow from the committed records")
    return int(bool(problems))


COMMANDS = {
    "list": _list,
    "models": lambda options, console: console.print(architectures_table(), end=""),
    "plan": _plan,
    "evidence": _evidence,
    "cancel": _cancel,
    "publish": _publish,
    "report": _report,
    "check": _check,
    "export": _export,
    "evaluate": evaluate_weights,
}
