"""Progress: each run counted once, a line a minute without a terminal, bars on one."""

import io
import time
from dataclasses import replace

import pytest
from fakes import make_record, store
from tiny import TINY

from reproductions.harness.console import make_console
from reproductions.harness.launching import progress
from reproductions.harness.launching.progress import Display
from reproductions.harness.launching.run_paths import RunPaths, Status, describe, duration
from reproductions.harness.record_files import record_path
from resnet.progress import Progress
from resnet.run import Run

RUNS = [Run("cifar_resnet8", TINY, "synthetic", seed) for seed in range(2)]


def running(run, iteration=3, test_error=None):
    return Status("running", str(run), time.time(), Progress(iteration, 6, 0.1, 50.0, test_error, 2.0))


@pytest.fixture
def display():
    return Display(2, make_console(file=io.StringIO(), width=200))


def said(display):
    return display.console.file.getvalue()


def test_a_running_run_in_one_line():
    status = Status("running", "run", 0.0, Progress(32_000, 64_000, 0.01, 5.0, 8.756, 20.0))
    assert describe(status) == "32,000/64,000, 20.0 it/s, test error 8.76 %, 0:26:40 left"
    assert "error" not in describe(running(RUNS[0]))


def test_durations_are_hours_with_days_in_front():
    assert [duration(s) for s in (0, 59.6, 3_661, 90_061)] == ["0:00:00", "0:01:00", "1:01:01", "1 day, 1:01:01"]


def test_a_finished_run_is_counted_once_with_its_result(display):
    with display:
        display.update(RUNS[0], running(RUNS[0], 6, 12.0))
        assert display.done == 0, "the last iteration is not yet a record"
        for _ in range(2):
            display.update(RUNS[0], Status("done", str(RUNS[0]), 0.0, message="test error 12.00 %"))
        assert display.done == 1
    assert said(display).count("done 1/2") == 1
    assert f": cifar_resnet8 seed 0 ({RUNS[0].short_id}), test error 12.00 %\n" in said(display)


def test_a_run_that_failed_at_the_end_is_not_counted_as_done(display):
    with display:
        display.update(RUNS[0], running(RUNS[0], 6, 12.0))
        display.update(RUNS[0], Status("failed", str(RUNS[0]), 0.0, message="disk full"))
    assert display.done == 0 and "done" not in said(display)


def test_a_wait_for_another_process_is_said_once():
    console, names = make_console(file=io.StringIO(), width=200), {RUNS[0]: "ResNet-8, fast seed 0"}
    with Display(2, console, names=names) as display:
        for _ in range(3):
            display.update(RUNS[0], Status("waiting", str(RUNS[0]), 0.0, message="another process trains it"))
    assert said(display) == f"ResNet-8, fast seed 0 ({RUNS[0].short_id}): another process trains it\n"


def test_poll_takes_the_result_from_the_record_not_from_the_last_status(display, tmp_path):
    paths = RunPaths(tmp_path, tmp_path)
    running(RUNS[0], 3, 77.0).write(paths.work(RUNS[0]))
    with display:
        display.poll(paths, RUNS)
        store(paths.records, make_record(RUNS[0], 20.0))
        display.poll(paths, RUNS)
        display.poll(paths, RUNS)
    assert display.done == 1 and said(display).count("done 1/2") == 1
    assert "test error 20.00 %" in said(display) and "77" not in said(display)


def test_poll_shows_no_run_whose_process_was_killed_long_ago(tmp_path):
    paths, console = RunPaths(tmp_path, tmp_path), make_console(file=io.StringIO(), force_terminal=True, width=150)
    replace(running(RUNS[0], 3, 77.0), updated=time.time() - 1_000).write(paths.work(RUNS[0]))
    with Display(2, console) as display:
        display.poll(paths, RUNS)
    assert "77.00" not in said(display)


def test_poll_does_not_count_a_damaged_record(display, tmp_path):
    paths = RunPaths(tmp_path, tmp_path)
    store(paths.records, make_record(RUNS[0], 20.0))
    record_path(paths.records, RUNS[0]).write_text("{")
    with display:
        display.poll(paths, RUNS)
    assert display.done == 0


def test_without_a_terminal_there_is_a_line_a_minute(display, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    display = Display(2, make_console(file=io.StringIO(), width=200), names={RUNS[0]: "ResNet-8, fast seed 0"})
    with display:
        for _ in range(180):
            now[0] += 1
            for run in RUNS:
                display.update(run, running(run))
    lines = said(display).splitlines()
    assert len(lines) == 3 * len(RUNS) and "0/2 done; ResNet-8, fast seed 0: 3/6, 2.0 it/s" in lines[0]
    assert "0/2 done; cifar_resnet8 seed 1: 3/6, 2.0 it/s" in lines[1]


def test_on_a_terminal_there_are_bars():
    console = make_console(file=io.StringIO(), force_terminal=True, width=150)
    with Display(2, console) as display:
        display.update(RUNS[0], Status("done", str(RUNS[0]), 0.0, message="test error 12.00 %"))
        display.update(RUNS[1], running(RUNS[1], 3, 40.0))
    text = said(display)
    assert "all runs" in text and "1/2" in text and "cifar_resnet8 seed 1" in text and "test error 40.00 %" in text
