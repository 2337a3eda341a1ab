"""Launches into which faults are injected, and the comparison of their results with an undisturbed launch's."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from reproductions.harness import cli
from reproductions.harness.experiment import Experiment, Row, Variant
from reproductions.harness.launching.claims import claim_number
from reproductions.harness.launching.run_paths import RunPaths, Status
from reproductions.harness.provenance import ROOT
from reproductions.harness.record_files import RecordError, record_path
from reproductions.harness.records import read_pool, read_record
from reproductions.harness.reporting.page import Page
from resnet import checkpoint
from resnet.files import write_atomically
from resnet.recipe import Recipe
from resnet.run import Run

SECONDS = 120  # for anything that is waited for
CHECKPOINT_SECONDS = 0.2
TABLE = "tables/faults_smoke.md"

CONTEXT = multiprocessing.get_context("forkserver")  # forks from a process that has imported what is slow to import
CONTEXT.set_forkserver_preload(["torch", "torch._dynamo", "torchvision", "submitit", "reproductions.harness.cli"])


@dataclass(frozen=True)
class Setting:
    """An experiment of tiny runs: so many seeds of so many iterations, and if wanted one of a run that diverges.

    ``files``: trained on images in files, which another process reads.
    """

    iterations: int = 60
    seeds: int = 3
    diverging: bool = False
    files: bool = False

    @property
    def experiment(self) -> Experiment:
        recipe = Recipe().shortened(self.iterations, eval_interval=self.iterations // 2, batch_size=8)
        recipe = replace(recipe, crop="area", image_size=16) if self.files else recipe
        rows = [
            Row("resnet8", "ResNet-8", "cifar_resnet8", recipe, "synthetic_imagenet" if self.files else "synthetic")
        ]
        if self.diverging:
            rows.insert(0, replace(rows[0], key="diverging", recipe=replace(recipe, learning_rate=1e30)))
        return Experiment("faults", "Struck by faults", "no paper", lambda profile: rows, write_table)

    @property
    def runs(self) -> list[Run]:
        return self.experiment.runs(Variant("smoke"), self.seeds)


def write_table(page: Page) -> list[Path]:
    """Write curves and weights, which are all that a table could be made from."""
    path = page.out / "tables" / f"{page.experiment.name}{page.variant.suffix}.md"
    lines = [
        f"{result.row.key} seed {record['specification']['seed']}: {record['curve']} {record['weights_sha256']}\n"
        for result in page.results
        for record in result.records
    ]
    write_atomically(path, "".join(lines).encode())
    return [path]


# ------------------------------------------------------------------------------------------------------------- launches


class Launch:
    """``make reproduce-…`` in a process of its own. ``out`` is its OUT; ``said`` what it printed.

    ``before`` is called in the process before the launch begins.
    """

    def __init__(self, setting: Setting, out: Path, *flags: str, logs: Path, before: Callable[[], None] | None = None):
        self.setting, self.out, self.log = setting, out, logs / f"launch.{len(list(logs.glob('launch.*.log')))}.log"
        self.log.touch()
        arguments = ["--profile", "smoke", "--seeds", str(setting.seeds), "--out", str(out), "--device", "cpu"]
        arguments += ["--data", str(out.parent / "data")]
        if "--checkpoint-seconds" not in flags:
            arguments += ["--checkpoint-seconds", str(CHECKPOINT_SECONDS)]
        # The server that forks may have been started before there was a cluster: it has another environment.
        started = (setting, [*arguments, *flags], self.log, before, {**os.environ})
        self.process = CONTEXT.Process(target=_launch, args=started)
        self._before = self._news()
        self.process.start()

    def _news(self) -> list:
        """Changes when a run gets further."""
        return [(checkpointed(self.out, run), is_recorded(self.out, run)) for run in self.setting.runs]

    def wait_for_news(self) -> None:
        """Wait until it has written a checkpoint or a record, or has ended."""
        wait_until(lambda: self._news() != self._before or not self.alive, "a checkpoint or a record")

    def wait_for_jobs(self, count: int) -> None:
        """Wait until so many runs are in training."""
        wait_until(lambda: sum(is_training(self.out, run) for run in self.setting.runs) >= count, "jobs that train")

    def wait_for_words(self, text: str) -> None:
        wait_until(lambda: text in self.said or not self.alive, text)
        assert text in self.said, self.said

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def end(self, seconds: float = SECONDS) -> int:
        """Wait for its end; returns its exit status, -9 if it was killed."""
        self.process.join(seconds)
        assert not self.alive, f"the launch did not end in {seconds} s:\n{self.said}"
        return self.process.exitcode

    def succeed(self, seconds: float = SECONDS) -> None:
        code = self.end(seconds)
        assert code == 0, f"exit status {code}:\n{self.said}"

    def kill(self) -> bool:
        """SIGKILL; returns whether it came before the end."""
        self.process.kill()
        return self.end() == -signal.SIGKILL

    def kill_all(self) -> None:
        """SIGKILL for the launch and all processes it has started, and for processes that outlived it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.end()


def _launch(
    setting: Setting, arguments: list[str], log: Path, before: Callable[[], None] | None, environment: dict[str, str]
) -> None:
    os.setsid()  # what it starts is in its group, too
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.clear()
    os.environ |= environment | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    torch.set_num_threads(1)
    if before is not None:
        before()
    raise SystemExit(cli.run_experiment(setting.experiment, arguments))


def wait_until(condition: Callable[[], bool], what: str, seconds: float = SECONDS, pause: float = 0.005) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(pause)


# ---------------------------------------------------------------------------------------------------- how a run stands


def run_paths(out: Path) -> RunPaths:
    return RunPaths(out, Path("data"))


def is_recorded(out: Path, run: Run) -> bool:
    return record_path(out / "records", run).exists()


def owner(out: Path, run: Run) -> dict:
    """Read the run's newest claim; empty if there is none, or it is released."""
    claims = sorted(run_paths(out).work(run).glob("owner.*"), key=lambda path: int(path.suffix[1:]))
    with suppress(OSError, ValueError):
        found = json.loads(claims[-1].read_text()) if claims else {}
        return {} if found.get("released") else found
    return {}


def starts(out: Path, run: Run) -> int:
    """Count the starts of a run that has not ended."""
    with suppress(OSError, ValueError):
        return len(json.loads((run_paths(out).work(run) / "starts.json").read_text()))
    return 0


def checkpointed(out: Path, run: Run) -> int:
    """Return the time stamp of the newest checkpoint in ns; 0 without one."""
    with suppress(OSError):
        return (run_paths(out).work(run) / checkpoint.NEWEST).stat().st_mtime_ns
    return 0


def is_training(out: Path, run: Run) -> bool:
    status = Status.read(run_paths(out).work(run))
    return status is not None and status.state == "running" and bool(owner(out, run)) and not is_recorded(out, run)


class Interruptions:
    """Counts how often each run was interrupted, by its list of starts as it was when something was killed."""

    def __init__(self, out: Path, runs: list[Run]):
        self.out, self.counts = out, dict.fromkeys(runs, 0)

    def note(self) -> None:
        """Note the starts so far; to be called after each kill, before the next start."""
        for run in self.counts:
            if not is_recorded(self.out, run):
                self.counts[run] = starts(self.out, run)


# ----------------------------------------------------------------------------------------------------- what must hold


@dataclass(frozen=True)
class Findings:
    """The differences between a launch's results and the undisturbed one's; all are empty or 0 if there is none."""

    lost: int = 0  # runs without a record
    duplicated: int = 0  # files of records beyond one a run
    damaged: int = 0  # files among the records that are no valid ones, halves of records too
    differing: tuple[str, ...] = ()  # results that differ from the undisturbed launch's in any bit
    miscounted: tuple[str, ...] = ()  # runs whose records count other interruptions than the injected ones
    twice: tuple[str, ...] = ()  # runs begun more than once, where nothing interrupted them

    @property
    def right(self) -> bool:
        return self == Findings()


def examine(
    setting: Setting,
    out: Path,
    undisturbed: Path,
    interruptions: dict[Run, int] | None = None,
    begun_once: bool = False,
) -> Findings:
    """Compare what a launch left in ``out`` with what the undisturbed one left.

    ``interruptions``: what the records must say, None where it can't be known.
    """
    runs = setting.runs
    files = [path for path in (out / "records").rglob("*") if not path.is_dir()]
    pool = read_pool(out / "records")
    recorded = [run for run in runs if pool.get(run)]
    differing, miscounted = [], []
    for run in recorded:
        if _comparable(out, run) != _comparable(undisturbed, run):
            differing.append(f"record of {run}")
        weights, expected = (checkpoint.load(run_paths(paths).weights(run)) for paths in (out, undisturbed))
        if _bytes(weights) != _bytes(expected):
            differing.append(f"weights of {run}")
        counted = pool.get(run)["interruptions"]
        if interruptions is not None and counted != interruptions.get(run, 0):
            miscounted.append(f"{run}: {counted}, not {interruptions.get(run, 0)}")
    if not (out / TABLE).exists() or (out / TABLE).read_bytes() != (undisturbed / TABLE).read_bytes():
        differing.append("table")
    return Findings(
        lost=len(runs) - len(recorded),
        duplicated=max(0, len([path for path in files if _is_valid(path)]) - len(recorded)),
        damaged=len([path for path in files if not _is_valid(path)]),
        differing=tuple(differing),
        miscounted=tuple(miscounted),
        twice=tuple(str(run) for run in runs if begun_once and claim_number(run_paths(out).work(run)) != 1),
    )


def _is_valid(path: Path) -> bool:
    with suppress(RecordError):
        return path.suffix == ".json" and bool(read_record(path))
    return False


def _bytes(weights: dict[str, torch.Tensor]) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in weights.items()}


def _comparable(out: Path, run: Run) -> dict:
    """The run's record without what may differ from one time to the next; the code, which somebody may be editing."""
    free = ("timing", "interruptions", "segments", "code", "record_sha256")
    record = read_record(record_path(out / "records", run))
    return {name: value for name, value in record.items() if name not in free}
