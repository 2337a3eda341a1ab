"""A ten-minute check of a new kind of GPU: whether it is safe to use, and its speed.

    python -m benchmarks.gpu_check
    python -m benchmarks.gpu_check --minutes 4

The stages: the decisive GPU tests; the kernels of a step; throughput of packs and of the conventional loop; memory
around an evaluation; a packed launch, the same launch interrupted and resumed, and each of its runs alone; the tests of
the fused kernels, and a step with them compared with the library's. Every stage runs in its own process with its own
time limit, so a stage that fails, crashes or hangs becomes a line with its last output. Writes
``results/benchmarks/gpu-check-<device>.md`` and ``.json`` after each stage. Another call with the same code, software
and device continues with the stages that the time did not suffice for; ``--anew`` also repeats finished and failed
ones. Without a GPU, stages that need one are skipped.
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
from benchmarks.measuring import from_json
from benchmarks.processes import ROOT
from benchmarks.results import file_name, write
from reproductions.harness import provenance
from resnet.device import find_device

MINUTES = 10.0
LEAST_SECONDS = 5.0  # a stage does not start with less
END_SECONDS = 10.0  # wait for a killed process to end, which never happens if its driver hangs
LAST_WORDS = 12  # lines
VALUES = "VALUES "  # marks a stage's values among the output of libraries


@dataclass(frozen=True)
class Ended:
    """Result of a stage's process: status DONE, FAILED, SKIPPED or TIMED_OUT; ``words`` is its last output."""

    status: str
    values: dict | None = None
    words: str = ""


Start = Callable[[Stage, Setting, str, float], Ended]


def start_process(stage: Stage, setting: Setting, device: str, seconds: float) -> Ended:
    """Run the stage in its own process, within ``seconds``."""
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--stage", stage.name, "--device", device]
    return run_limited([*command, "--setting", json.dumps(asdict(setting))], seconds)


def run_limited(command: list[str], seconds: float) -> Ended:
    """Run a command that prints its values; kill it and its children after ``seconds``."""
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
        return Ended(FAILED, words=words or f"ended with exit status {code} and without any output")
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
    """Run all stages that fit into the time, and write the page after each; return the page's content.

    ``settings``: by the type of device. If the device can't be inspected, the other stages assume a GPU.
    """
    end = clock() + 60 * minutes

    def do(stage: Stage, setting: Setting, device: str) -> dict:
        """Run a stage and return its entry with the result."""
        limit, began = min(stage.limit, end - clock()), clock()
        if limit < min(LEAST_SECONDS, stage.limit):
            return {**_entry(stage), "words": "the time was up before it started"}
        say(f"{stage.title}, at most {limit:.0f} s")
        ended = start(stage, setting, device, limit)
        status, words, seconds = ended.status, ended.words, round(clock() - began, 1)
        if status == TIMED_OUT and limit < stage.limit:
            status, words = NOT_DONE, f"the time was up after {limit:.0f} s of it\n{words}".strip()
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
    """Return the page's entry for a stage that has not run."""
    return {"title": stage.title, "limit": stage.limit, "decides": stage.decides, "status": NOT_DONE, "seconds": None,
            "values": None, "words": ""}  # fmt: skip


def _unknown_origin() -> dict:
    """Return the origin for a device that can't be inspected, without accessing the device again."""
    versions = {"python": sys.version.split()[0], "torch": torch.__version__, "cuda": None, "cudnn": None}
    hardware = {"type": "cuda", "device": "unknown device"}
    return {"hardware": hardware, "versions": versions, "code": provenance.code_identity(), "no_gpu": None}


def _take_over(results: dict, folder: Path, say: Callable[[str], None]) -> None:
    """Keep the stages of an earlier call with the same device, software, code and setting."""
    path = folder / f"{_name(results)}.json"
    try:
        earlier = json.loads(path.read_text())
        same = all(earlier[part] == results[part] for part in ("about", "setting"))
        kept = {name: earlier["stages"][name] for name in results["stages"]} if same else {}
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        say(f"starting from scratch: {path} can't be read: {error!r}")
        return
    results["stages"] |= kept
    ended = sum(entry["status"] != NOT_DONE for entry in kept.values())
    say(f"continuing {path}: {ended} stages are kept; --anew (ANEW=1) repeats them" if same else
        f"starting from scratch: {path} is of other code or software")  # fmt: skip


def _name(results: dict) -> str:
    return file_name("gpu-check", results["about"]["hardware"]["device"])


def _write(folder: Path, results: dict) -> None:
    write(folder, "gpu-check", results["about"]["hardware"]["device"], results, gpu_page.page(results))


def do_here(options: argparse.Namespace) -> None:
    """Run a stage in this process, and print its values."""
    setting = from_json(Setting, options.setting)
    stage = next(stage for stage in [DEVICE, *stages(setting)] if stage.name == options.stage)
    try:
        values = stage.work(setting, find_device(options.device), stopwatch())
    except Skipped as reason:
        values = {"skipped": str(reason)}
    print(VALUES + json.dumps(values), flush=True)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="time for all stages (default: 10)")
    parser.add_argument("--anew", action="store_true", help="repeat the stages of an earlier call")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"),
                        help="default: the GPU if there is one, the first of CUDA_VISIBLE_DEVICES")  # fmt: skip
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--setting", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if not options.minutes >= 1:
        parser.error(f"--minutes must be at least 1, not {options.minutes:g}")
    if importlib.util.find_spec("pytest") is None:
        parser.error("the decisive tests need pytest: python -m pip install '.[test]'")
    return options


def main(argv: list[str] | None = None) -> int:
    """Run the check and print the page; return the exit status.

    0: nothing failed, but stages may have been skipped or not fitted into the time. 1: a stage failed, exceeded its
    limit, or ended with other weights. 2, from the parser: invalid options. 130: stopped by a signal.
    """
    options = _arguments(argv)
    if options.stage:
        do_here(options)
        return 0
    try:
        results = check(options.out, options.minutes, options.device, options.anew, say=stopwatch())
    except KeyboardInterrupt:
        print(f"stopped; finished stages are in {options.out}, and the same command continues", file=sys.stderr)
        return 130
    print(gpu_page.page(results))
    return 1 if gpu_page.problems(results) else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the stage's process is killed, too
    sys.exit(main())
