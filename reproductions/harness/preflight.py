"""What comes before a launch: flags, device, folders and data are checked; what is to be done and what it costs."""

import argparse
import os
import re
import tempfile
from collections import Counter
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reproductions.harness import provenance
from reproductions.harness.console import PUBLISHED, make_console
from reproductions.harness.launching import cost
from reproductions.harness.launching.run_paths import RunPaths
from reproductions.harness.launching.slots import Slot, find_slots
from reproductions.harness.records import Pool, RecordError
from resnet.data import FOLDERS, load
from resnet.data.folder import check_images_once
from resnet.device import available_cores, busy_cores, find_device, resolve_precision, why_no_cuda
from resnet.kernels import check_kernels
from resnet.run import Run

_FOLDERS = ("records", "work", "weights", "tables", "plots")
_CPU_HOURS = 2  # that the paper profile may take on a CPU without --yes


def check_flags(options: argparse.Namespace, launcher: str) -> None:
    """Raise ValueError for a flag that the launcher would leave out of account."""
    if options.slurm_profile and launcher != "slurm":
        raise ValueError(f"--slurm-profile has no meaning for the {launcher} launcher; add --launcher slurm")
    if options.detach and launcher != "slurm":
        raise ValueError(f"--detach has no meaning for the {launcher} launcher; add --launcher slurm")
    if options.slots and launcher != "local":
        raise ValueError(f"--slots has no meaning for the {launcher} launcher; add --launcher local")
    if options.max_starts and launcher == "inline":
        raise ValueError("--max-starts has no meaning for the inline launcher; add --launcher local or slurm")


def check_device(options: argparse.Namespace, launcher: str) -> None:
    """Raise ValueError for a device that isn't here, or that can't compute in the precision or by the kernels asked
    for."""
    if launcher == "slurm":  # the device is elsewhere
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", options.device):
            raise ValueError(f"--device {options.device} is none of auto, cpu, cuda, cuda:0, cuda:1, ...")
        return
    if launcher == "local" and ":" in options.device:
        raise ValueError(f"--device {options.device} has no meaning for the local launcher, which uses every device; "
                         "name those it may use in CUDA_VISIBLE_DEVICES")  # fmt: skip
    for precision in {run.recipe.precision for run in options.runs}:
        resolve_precision(precision, find_device(options.device))
    for kernels in {run.recipe.kernels for run in options.runs}:
        check_kernels(kernels, find_device(options.device))


def leave_busy_cores(options: argparse.Namespace, launcher: str, console: Console) -> None:
    """Have this process train with fewer threads where others keep cores busy, unless OMP_NUM_THREADS says how many.

    A thread that shares its core makes the others wait at every step. A run that goes on keeps its own number, which
    decides the last bits of results and is in the record.
    """
    alone = launcher == "inline" and find_device(options.device).type == "cpu"
    if not alone or os.environ.get("OMP_NUM_THREADS") or (before := torch.get_num_threads()) == 1:
        return
    busy = busy_cores()
    count = max(1, min(before, available_cores() - busy))
    if count < before:
        torch.set_num_threads(count)
        console.print(f"other processes keep {busy} of {available_cores()} cores busy: runs that are begun now train "
                      f"with {count} instead of {before} threads (OMP_NUM_THREADS={before} takes all)")  # fmt: skip


def check_writable(out: Path) -> None:
    """Raise ValueError unless files can be written to ``out`` and its folders, and it is not the published results."""
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
    """Load the data once before anything starts or is submitted: a DataError is then shown once, a download happens
    once, and compute nodes need no network. Image folders are looked through for files that can't be read, once."""
    for name in sorted({run.data for run in runs}):
        dataset = load(name, paths.data)
        if name in FOLDERS:
            with console.status(Text(f"looking through the files of {dataset.root}")):
                check_images_once(dataset, paths.out / "work" / "data")


def say_code(console: Console) -> None:
    """Print why records of this code can't be published, if that is so: afterwards it is too late."""
    if reason := provenance.why_unpublishable(provenance.code_identity()):
        console.print(f"these records can't be published: {reason}. Training goes on.", style="yellow")


def say_plan(console: Console, options: argparse.Namespace, recorded: int, launcher: str) -> None:
    """Print what is going to be trained, how many of the runs are already recorded, and where."""
    experiment = options.experiment
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


def dry_run(
    options: argparse.Namespace, missing: list[Run], damaged: dict[Run, RecordError], launcher: str, pools: list[Pool]
) -> None:
    """Print the runs and their cost."""
    runs = options.runs
    table = Table("run", "status", "images/s", "hours", title="dry run: nothing is trained")
    rates, unit = _rates(missing, launcher, options, pools)
    total = 0.0
    for run in runs:
        if run not in missing:
            table.add_row(str(run), damaged[run].kind if run in damaged else "recorded", "", "")
        elif (rate := rates.get(cost.work_of(run))) is None:
            table.add_row(str(run), "to be trained", "not measured", "")
        else:
            total += rate.hours(run)
            table.add_row(str(run), "to be trained", f"{rate.images_per_second:,.0f}", f"{rate.hours(run):.2f}")
    console = make_console()
    console.print(table, crop=False, width=max(console.width, 110))
    known = sum(cost.work_of(run) in rates for run in missing)
    slots = len(find_slots_of(missing, launcher, options))
    at_once = f", in {slots} slots" if slots > 1 and unit == "CPU" else ""
    hours = f"{total:.2f} {unit}-hours for {known} of them{at_once}"
    console.print(f"{len(missing)} of {len(runs)} runs to be trained: {hours}")
    for work, rate in rates.items():
        console.print(f"  {work}: {rate.source}")
    if known < len(missing):
        console.print("no record tells the rates of the others on a GPU; a dry run where there is one measures those "
                      "that don't read image folders")  # fmt: skip


def _rates(
    runs: list[Run], launcher: str, options: argparse.Namespace, pools: list[Pool]
) -> tuple[dict[cost.Work, cost.Rate], str]:
    """Rates for the runs where they would run, and the unit of the hours."""
    if launcher == "slurm":
        return cost.rates_elsewhere(runs, pools), "GPU"
    device = find_device(options.device)
    thread_count = next((slot.threads for slot in find_slots_of(runs, launcher, options)), None)
    return cost.rates_here(runs, pools, device, thread_count), "GPU" if device.type == "cuda" else "CPU"


def find_slots_of(runs: list[Run], launcher: str, options: argparse.Namespace) -> list[Slot]:
    """Those of the local launcher; the others have none here."""
    return find_slots(options.slots, len(runs), options.device) if launcher == "local" else []


def refuse_without_gpu(options: argparse.Namespace, missing: list[Run], launcher: str, pools: list[Pool]) -> bool:
    """Whether this would be the paper's protocol on a CPU for many hours; says how many and what to do instead."""
    if options.profile != "paper" or launcher == "slurm" or find_device(options.device).type == "cuda" or options.yes:
        return False
    rates, _ = _rates(missing, launcher, options, pools)
    works = Counter(work for run in missing if (work := cost.work_of(run)) in rates)
    seconds = 3600 * sum(rates[cost.work_of(run)].hours(run) for run in missing if cost.work_of(run) in rates)
    seconds /= max(1, min(len(find_slots_of(missing, launcher, options)), available_cores()))
    if seconds <= 3600 * _CPU_HOURS and works.total() == len(missing):
        return False
    where = "this machine, which has no CUDA GPU," if options.device == "auto" else "the CPU"
    if rates:
        print(f"The paper profile on {where} would take {seconds / 86400:.1f} days:")
        for work, rate in rates.items():
            print(f"  {works[work]} x {work} at {rate.images_per_second:,.0f} images per second ({rate.source})")
    else:
        print(f"The paper profile is too much for {where.rstrip(',')}.")
    target = f"make {options.experiment.target}"
    print(
        "Nothing was started. Instead:\n"
        f"  {target} PROFILE=smoke          synthetic data, minutes\n"
        f"  {target} PROFILE=short          real data, fewer iterations\n"
        f"  {target} LAUNCHER=slurm SLURM_PROFILE=mycluster   on a cluster\n"
        "  make report                                  the published tables, seconds\n"
        f"or start it all the same with --yes ({target} YES=1)."
    )
    return True
