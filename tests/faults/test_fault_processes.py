"""Processes that are killed at any moment, and two launches at once, on one machine."""

import os
import random
import signal
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from faulted import CHECKPOINT_SECONDS, Interruptions, Setting, is_training, wait_until

from reproductions.harness.console import EXIT_FAILED
from resnet import files

pytestmark = pytest.mark.faults

SHORT, LONGER = Setting(), Setting(iterations=100)
READING = Setting(iterations=1_000, seeds=2, files=True)
INLINE, LOCAL = ("--launcher", "inline"), ("--launcher", "local")


def test_a_training_process_killed_at_20_random_moments(launch, check, tmp_path):
    moments, kills, outs, interruptions = random.Random(0), 0, [], []
    while kills < 20:
        out = tmp_path / f"runs{len(outs)}"
        counts = Interruptions(out, SHORT.runs)
        while kills < 20:
            training = launch(SHORT, out, *INLINE)
            if kills % 4:  # some time after it got further; else some time after its start
                training.wait_for_news()
                time.sleep(moments.uniform(0, 1.2 * CHECKPOINT_SECONDS))
            else:
                time.sleep(moments.uniform(0, 3 * CHECKPOINT_SECONDS))
            if not training.kill():
                break
            kills += 1
            counts.note()
        launch(SHORT, out, *INLINE).succeed()
        outs.append(out)
        interruptions.append(counts.counts)
    check("SIGKILL of the process that trains", "at random moments", kills, SHORT, outs, interruptions)


def _die_while_writing(name: str, written: bool):
    """SIGKILL when such a file is begun, or when it is written whole but does not have its name yet."""

    def dying(function):
        def dies(file, *arguments):
            path = os.readlink(f"/proc/self/fd/{file}") if isinstance(file, int) else str(file)
            if name in path:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(file, *arguments)

        return dies

    for function in ("replace", "link") if written else ("fchmod",):
        setattr(files.os, function, dying(getattr(os, function)))


def test_a_training_process_killed_while_it_writes_a_file(launch, check, tmp_path):
    out, names = tmp_path / "runs", ("starts.json", "checkpoint.", "status.json", "/weights/", "/records/", "/tables/")
    counts, times = Interruptions(out, SHORT.runs), 0
    for written in (False, True):
        for name in names[: 4 if not written else None]:
            launched = launch(SHORT, out, *INLINE, before=partial(_die_while_writing, name, written))
            assert launched.end() == -signal.SIGKILL, f"{name}: {launched.said}"
            counts.note()
            times += 1
    launch(SHORT, out, *INLINE).succeed()
    assert not list(out.glob("work/*/.*")), "nothing half-written is left"
    how = "while it writes its list of starts, a checkpoint, its status, the weights, the record, the table"
    check("SIGKILL of the process that trains", how, times, SHORT, [out], [counts.counts])


def _readers(process: int) -> list[int]:
    """The processes that read images for this one: its forks, which have its command line."""
    mine = Path(f"/proc/{process}/cmdline").read_bytes()
    found = []
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        with suppress(OSError):  # it has just ended
            found += [int(child)] if Path(f"/proc/{child}/cmdline").read_bytes() == mine else []
    return found


def test_a_process_that_reads_images_killed(launch, check, tmp_path):
    out, moments, times = tmp_path / "runs", random.Random(0), 3
    counts = Interruptions(out, READING.runs)
    for _ in range(times):
        training = launch(READING, out, *INLINE)
        wait_until(lambda: any(is_training(out, run) for run in READING.runs), "a run that trains")
        time.sleep(moments.uniform(0, CHECKPOINT_SECONDS))
        wait_until(partial(_readers, training.process.pid), "a process that reads images")
        os.kill(_readers(training.process.pid)[0], signal.SIGKILL)
        assert training.end(60) == EXIT_FAILED and "If it was killed, memory probably ran out" in training.said
        assert "Traceback" not in training.said, training.said
        counts.note()
    launch(READING, out, *INLINE).succeed()
    check("SIGKILL of a process that reads images", "at random moments", times, READING, [out], [counts.counts],
          said="ends the run within a minute, and says so")  # fmt: skip


def test_a_launcher_killed_while_its_jobs_live(launch, check, tmp_path):
    out, kills = tmp_path / "runs", 0
    for number in range(2):
        launcher = launch(LONGER, out, *LOCAL)
        launcher.wait_for_jobs(number + 1)
        kills += launcher.kill()
    launch(LONGER, out, *LOCAL).succeed()
    assert kills == 2
    how = "local queue; its jobs go on, and are found by the next launch"
    check("SIGKILL of the launcher", how, kills, LONGER, [out], [{}], begun_once=True, said="every run begun once")


def test_a_launcher_killed_with_all_its_jobs(launch, check, tmp_path):
    out = tmp_path / "runs"
    counts = Interruptions(out, LONGER.runs)
    for _ in range(2):
        launcher = launch(LONGER, out, *LOCAL)
        launcher.wait_for_news()
        launcher.kill_all()
        counts.note()
    launch(LONGER, out, *LOCAL).succeed()
    check("SIGKILL of the launcher", "local queue; with all its jobs", 2, LONGER, [out], [counts.counts])


@pytest.mark.parametrize("launcher", ["inline", "local"])
def test_two_launches_at_once_train_every_run_once(launcher, launch, check, tmp_path):
    out = tmp_path / "runs"
    for one in [launch(SHORT, out, "--launcher", launcher) for _ in range(2)]:
        one.succeed()
    check("Two launches at once", f"launcher {launcher}", 1, SHORT, [out], [{}], begun_once=True,
          said="every run begun once")  # fmt: skip
