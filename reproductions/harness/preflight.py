"""Checks before a launch: flags, device, folders, data, and the cost of the paper profile without a GPU."""

import os
import re
import tempfile
from collections import Counter
from pathlib import Path

import torch
from rich.console import Console
from rich.text import Text

from reproductions.harness import provenance
from reproductions.harness.console import PUBLISHED
from reproductions.harness.experiment import Table
from reproductions.harness.launching import cost
from reproductions.harness.launching.options import LaunchFlags
from reproductions.harness.launching.run_paths import RunPaths
from reproductions.harness.records import Pool
from resnet.data import FOLDERS, arrays, find_arrays, load
from resnet.data.image_files import check_images_once
from resnet.data.scenes import LAYOUTS, check_scenes_once
from resnet.device import available_cores, busy_cores, resolve_precision, why_no_cuda
from resnet.hooks import Hooks
from resnet.kernels import check_kernels
from resnet.run import Run

_FOLDERS = ("records", "work", "weights", "tables", "plots")
_CPU_HOURS = 2  # that the paper profile may take on a CPU without --yes
_READ_BY = {  # flags that not all launchers read
    "--slurm-profile": ("slurm",),
    "--detach": ("slurm",),
    "--slots": ("local",),
    "--max-starts": ("local", "slurm"),
}
_MEASURING_SHARE = 0.1  # of a launch's minutes, at most, for rates that no record tells


def check_flags(flags: LaunchFlags) -> None:
    """Raise ValueError for a flag that the launcher does not read."""
    for flag, launchers in _READ_BY.items():
        if flag in flags.given and flags.launcher not in launchers:
            raise ValueError(f"{flag} has no meaning for the {flags.launcher} launcher; "
                             f"add --launcher {' or '.join(launchers)}")  # fmt: skip


def check_device(flags: LaunchFlags, runs: list[Run]) -> None:
    """Raise ValueError for a device that is not here, or that lacks the precision or the kernels of one of the runs.

    Also for jobs of several processes on SLURM, if a run has a task, which only one process can train.
    """
    name = flags.options.device
    if flags.launcher == "slurm":  # the device is elsewhere
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
            raise ValueError(f"--device {name} is none of auto, cpu, cuda, cuda:0, cuda:1, ...")
        tasks = {run.task.name for run in runs if run.task is not None}
        if tasks and (processes := flags.options.slurm.processes) > 1:
            raise ValueError(f"one process trains a run for {' or '.join(tasks)}, but a job of this SLURM profile has "
                             f"{processes}: name one with a node and a GPU in --slurm-profile")  # fmt: skip
        return
    if flags.launcher == "local" and ":" in name:
        raise ValueError(f"--device {name} has no meaning for the local launcher, which uses every device; "
                         "name those it may use in CUDA_VISIBLE_DEVICES")  # fmt: skip
    for precision, kernels in {(run.recipe.precision, run.recipe.kernels) for run in runs}:
        resolve_precision(precision, flags.device)
        check_kernels(kernels, flags.device)


def check_plugins(runs: list[Run]) -> None:
    """Import the plugins of the runs. Raises PluginError, a ValueError, before a job is started."""
    for recipe in {run.recipe for run in runs if run.recipe.plugins}:
        Hooks(recipe)


def leave_busy_cores(flags: LaunchFlags, console: Console) -> None:
    """Reduce this process's training threads where others keep cores busy, unless OMP_NUM_THREADS sets them.

    A thread that shares its core delays the others at every step. A resumed run keeps its own number of threads, which
    decides the last bits of results and is in the record.
    """
    alone = flags.launcher == "inline" and flags.device.type == "cpu"
    if not alone or os.environ.get("OMP_NUM_THREADS") or (before := torch.get_num_threads()) == 1:
        return
    busy = busy_cores()
    count = max(1, min(before, available_cores() - busy))
    if count < before:
        torch.set_num_threads(count)
        console.print(f"other processes keep {busy} of {available_cores()} cores busy: runs that are begun now train "
                      f"with {count} instead of {before} threads (OMP_NUM_THREADS={before} takes all)")  # fmt: skip


def check_writable(out: Path) -> None:
    """Raise ValueError if files cannot be written to ``out`` and its folders, or it is in the published results."""
    if out.resolve().is_relative_to(PUBLISHED):
        raise ValueError(f"{out} is for published records; train elsewhere, then: python -m reproductions publish")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for folder in (out, *(path for name in _FOLDERS if (path := out / name).exists())):
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        text = f"{out} can't be written to ({error}); name another folder with --out (OUT= with make)"
        raise ValueError(text) from error


def check_data(runs: list[Run], paths: RunPaths, console: Console) -> None:
    """Load the data of the runs: a DataError is raised once, a download happens once, compute nodes need no network.

    The files of an image folder, or the annotations of a folder of scenes, are read once, to find those that can't be
    read or don't fit. Data given as arrays are written below ``paths.out``, because jobs can't make them.
    """
    for name in sorted({run.data for run in runs}):
        dataset = load(name, paths.data)
        if find_arrays(name) is not None:
            arrays.save(dataset, paths.arrays)
        if check := check_images_once if name in FOLDERS else check_scenes_once if name in LAYOUTS else None:
            with console.status(Text(f"looking through the files of {dataset.root}")):
                check(dataset, paths.out / "work" / "data")


def say_code(console: Console) -> None:
    """Print why records of this code can't be published, if they can't: after the training it is too late."""
    if reason := provenance.why_unpublishable(provenance.code_identity()):
        console.print(f"these records can't be published: {reason}. Training goes on.", style="yellow")


def describe_place(flags: LaunchFlags) -> str:
    """Name the launcher and the device, and say why it is a CPU that nobody asked for, and which flag has no effect."""
    device, text = flags.device, f"{flags.launcher} launcher"
    if device is None:
        return text
    if device.type == "cuda":
        return f"{text} on {provenance.device_name(device)}"
    reason = f" (no CUDA GPU: {why_no_cuda()})" if flags.options.device == "auto" else ""
    packed = ", which trains one run at a time in spite of --pack" if (flags.options.pack or 1) > 1 else ""
    return f"{text} on the CPU{reason}{packed}"


def find_rates(flags: LaunchFlags, runs: list[Run], pools: list[Pool]) -> dict[cost.Work, cost.Rate]:
    """Find the rates of the runs' work where they would be trained: recorded ones, else measured ones.

    With ``flags.minutes``, measuring takes at most a tenth of them and stops after the runs that fill twice the time;
    the other rates are estimated. A cluster's rates are estimated from any run's if none of these runs has one.
    """
    device, slots = flags.device, flags.slots(len(runs))
    if device is None:
        found = cost.rates_elsewhere(runs, pools)
        on_gpus = (r for pool in pools for r in pool.records.values() if r["hardware"]["type"] == "cuda")
        if not found and (record := next(on_gpus, None)) is not None:
            runs = [Run.from_specification(record["specification"]), *runs]
            found = cost.rates_elsewhere(runs[:1], pools)
    else:
        limits = ()
        if flags.minutes is not None:
            limits = (60 * flags.minutes * _MEASURING_SHARE, 2 * flags.minutes / 60 * max(1, len(slots)))
        found = cost.rates_here(runs, pools, device, slots[0].threads if slots else None, *limits)
    return found if flags.minutes is None and device else found | cost.estimated_rates(runs, found)


def refuse_without_gpu(flags: LaunchFlags, missing: list[Run], pools: list[Pool], table: Table) -> bool:
    """Return whether the table's ``missing`` runs are of the paper profile and would take hours on a CPU.

    If so, print how many, and the commands to use instead. A launch with ``flags.minutes`` is never refused.
    """
    experiment, variant = table
    if flags.yes or flags.minutes is not None or not missing or variant.profile != "paper":
        return False
    if flags.device is None or flags.device.type == "cuda":
        return False
    rates = find_rates(flags, missing, pools)
    works = Counter(work for run in missing if (work := cost.work_of(run)) in rates)
    seconds = 3600 * sum(rates[cost.work_of(run)].hours(run) for run in missing if cost.work_of(run) in rates)
    seconds /= max(1, min(len(flags.slots(len(missing))), available_cores()))
    if seconds <= 3600 * _CPU_HOURS and works.total() == len(missing):
        return False
    where = "this machine, which has no CUDA GPU," if flags.options.device == "auto" else "the CPU"
    if rates:
        print(f"The paper profile on {where} would take {seconds / 86400:.1f} days:")
        for work, rate in rates.items():
            print(f"  {works[work]} x {work} at {rate.images_per_second:,.0f} images per second ({rate.source})")
    else:
        print(f"The paper profile is too much for {where.rstrip(',')}.")
    instead = {
        experiment.command_with(PROFILE="smoke"): "synthetic data, minutes",
        experiment.command_with(PROFILE="short"): "real data, fewer iterations",
        experiment.command_with(LAUNCHER="slurm", SLURM_PROFILE="mycluster"): "on a cluster",
        "make report": "the published tables, seconds",
    }
    print("Nothing was started. Instead:")
    for command, what in instead.items():
        print(f"  {command:<50} {what}")
    print("or start it all the same: the same command with YES=1 (--yes without make).")
    return True
