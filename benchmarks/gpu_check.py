"""Everything that is to be known of a new kind of GPU, in ten minutes: whether it is safe to use, and how fast it is.

    python -m benchmarks.gpu_check
    python -m benchmarks.gpu_check --minutes 4

In turn: the GPU tests that decide; the kernels of a step; throughput of packs beside the conventional loop; memory
around an evaluation; a packed launch, the same one interrupted and resumed, and its runs alone; the fused kernels'
tests, and a step by them beside the library's. Every stage is a process of its own, so that one that fails, crashes or
hangs is a line with its last words, and has a limit of its own within the minutes of all. Writes
``results/benchmarks/gpu-check-<device>.md`` and ``.json`` after each stage. Called again with the same code, software
and device, it goes on with what was not done in the time; what failed stays until ``--anew``. Without a GPU, what needs
one is skipped.
"""

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks import gpu_page
from benchmarks.command import OUT, stopwatch
from benchmarks.gpu_page import DONE, FAILED, NOT_DONE, SKIPPED, TIMED_OUT
from benchmarks.gpu_stages import DEVICE, SETTINGS, Setting, Skipped, Stage, stages
from benchmarks.processes import ROOT
from benchmarks.results import file_name, write
from reproductions.harness import provenance
from resnet.device import find_device

MINUTES = 10.0
LEAST_SECONDS = 5.0  # with less a stage is not begun
END_SECONDS = 10.0  # for a killed process to end: one whose driver hangs may never
LAST_WORDS = 12  # lines
VALUES = "VALUES "  # marks a stage's values among whatever libraries print


@dataclass(frozen=True)
class Ended:
    """How a stage's process ended: its status is DONE, FAILED, SKIPPED or TIMED_OUT; ``words`` are its last ones."""

    status: str
    values: dict | None = None
    words: str = ""


Start = Callable[[Stage, Setting, str, float], Ended]


def start_process(stage: Stage, setting: Setting, device: str, seconds: float) -> Ended:
    """Do the stage in a process of its own, in at most so many seconds."""
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--stage", stage.name, "--device", device]
    return run_limited([*command, "--setting", json.dumps(asdict(setting))], seconds)


def run_limited(command: list[str], seconds: float) -> Ended:
    """The end of a command that prints its values; it and all that it started are killed after so many seconds."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile("w+", errors="replace") as out,
    ):
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"TMPDIR": folder, "PYTHONUNBUFFERED": "1"}, stdin=subprocess.DEVNULL,
            stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(END_SECONDS)
        out.seek(0)
        lines = [line.rstrip() for line in out if line.strip()]
    values = [json.loads(line.removeprefix(VALUES)) for line in lines if line.startswith(VALUES)]
    words = "\n".join([line for line in lines if not line.startswith(VALUES)][-LAST_WORDS:])
    if code is None:
        return Ended(TIMED_OUT, words=words)
    if code < 0:
        return Ended(FAILED, words=f"{words}\nended by {signal.Signals(-code).name}".strip())
    if code or not values:
        return Ended(FAILED, words=words or f"ended with exit status {code} and without a word")
    skipped = values[-1].get("skipped")
    return Ended(SKIPPED, words=skipped) if skipped else Ended(DONE, values[-1])


def check(
    folder: Path,
    minutes: float = MINUTES,
    device: str = "auto",
    anew: bool = False,
    start: Start = start_process,
    settings: dict[str, Setting] = SETTINGS,
    clock: Callable[[], float] = time.monotonic,
    say: Callable[[str], None] = lambda text: None,
) -> dict:
    """Do all stages that the time suffices for, and write the page after each; returns what is on the page.

    ``settings``: by the type of device. Where the device itself can't be looked at, the others are tried on a GPU.
    """
    end = clock() + 60 * minutes

    def do(stage: Stage, setting: Setting, device: str) -> dict:
        """The stage's entry, with its end."""
        limit, began = min(stage.limit, end - clock()), clock()
        if limit < min(LEAST_SECONDS, stage.limit):
            return {**_entry(stage), "words": "the time was over before it began"}
        say(f"{stage.title}, at most {limit:.0f} s")
        ended = start(stage, setting, device, limit)
        status, words, seconds = ended.status, ended.words, round(clock() - began, 1)
        if status == TIMED_OUT and limit < stage.limit:
            status, words = NOT_DONE, f"the time was over after {limit:.0f} s of it\n{words}".strip()
        say(f"{stage.title}: {status}")
        return {**_entry(stage), "status": status, "seconds": seconds, "values": ended.values, "words": words}

    looked = do(DEVICE, settings["cpu"], device)
    about = looked["values"] or _unknown_origin()
    no_gpu = about["no_gpu"]
    device = about["hardware"]["type"]
    setting = settings[device]
    planned = stages(setting)
    results = {
        "about": about,
        "setting": json.loads(json.dumps(asdict(setting))),
        "stages": {stage.name: _entry(stage) for stage in planned},
    }
    if not anew:
        _take_over(results, folder, say)
    results["stages"] = {DEVICE.name: looked, **results["stages"]}
    _write(folder, results)
    for stage in planned:
        if results["stages"][stage.name]["status"] != NOT_DONE:
            continue
        if stage.needs_gpu and no_gpu is not None:
            results["stages"][stage.name] |= {"status": SKIPPED, "words": "no GPU"}
        else:
            results["stages"][stage.name] = do(stage, setting, device)
        _write(folder, results)
    return results


def _entry(stage: Stage) -> dict:
    """What the page knows of a stage that has not been done."""
    return {"title": stage.title, "limit": stage.limit, "decides": stage.decides, "status": NOT_DONE, "seconds": None,
            "values": None, "words": ""}  # fmt: skip


def _unknown_origin() -> dict:
    """For a device that can't be looked at: nothing here may ask it again."""
    versions = {"python": sys.version.split()[0], "torch": torch.__version__, "cuda": None, "cudnn": None}
    hardware = {"type": "cuda", "device": "unknown device"}
    return {"hardware": hardware, "versions": versions, "code": provenance.code_identity(), "no_gpu": None}


def _take_over(results: dict, folder: Path, say: Callable[[str], None]) -> None:
    """Keep what an earlier call has done, if it was with the same device, software, code and setting."""
    path = folder / f"{_name(results)}.json"
    try:
        earlier = json.loads(path.read_text())
        same = all(earlier[part] == results[part] for part in ("about", "setting"))
        kept = {name: earlier["stages"][name] for name in results["stages"]} if same else {}
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        say(f"starting anew: {path} can't be read: {error!r}")
        return
    results["stages"] |= kept
    ended = sum(entry["status"] != NOT_DONE for entry in kept.values())
    say(f"going on with {path}: {ended} stages are kept; --anew (ANEW=1) does them again" if same else
        f"starting anew: {path} is of other code or software")  # fmt: skip


def _name(results: dict) -> str:
    return file_name("gpu-check", results["about"]["hardware"]["device"])


def _write(folder: Path, results: dict) -> None:
    write(folder, "gpu-check", results["about"]["hardware"]["device"], results, gpu_page.page(results))


def do_here(options: argparse.Namespace) -> None:
    """What a stage's process does: the stage, and print its values."""
    setting = Setting(**{name: tuple(v) if isinstance(v, list) else v for name, v in options.setting.items()})
    stage = next(stage for stage in [DEVICE, *stages(setting)] if stage.name == options.stage)
    try:
        values = stage.work(setting, find_device(options.device), stopwatch())
    except Skipped as reason:
        values = {"skipped": str(reason)}
    print(VALUES + json.dumps(values), flush=True)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for everything together (default: 10)")
    parser.add_argument("--anew", action="store_true", help="do again what an earlier call has done")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"),
                        help="default: the GPU if there is one; of several, CUDA_VISIBLE_DEVICES' first")  # fmt: skip
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--setting", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if not options.minutes >= 1:
        parser.error(f"--minutes must be at least 1, not {options.minutes:g}")
    if importlib.util.find_spec("pytest") is None:
        parser.error("the tests that decide need pytest: python -m pip install '.[test]'")
    return options


def main(argv: list[str] | None = None) -> int:
    """Check, and print the page; returns the exit status.

    0: nothing failed, though something may have been skipped or not done in the time. 1: something failed, took longer
    than its limit, or ended with other weights. 2, from the parser: options that can't be. 130: stopped by a signal.
    """
    options = _arguments(argv)
    if options.stage:
        do_here(options)
        return 0
    try:
        results = check(options.out, options.minutes, options.device, options.anew, say=stopwatch())
    except KeyboardInterrupt:
        print(f"stopped; what was done is in {options.out}, and the same command goes on", file=sys.stderr)
        return 130
    print(gpu_page.page(results))
    return 1 if gpu_page.problems(results) else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the stage's process is ended, too
    sys.exit(main())
