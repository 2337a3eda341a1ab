"""The status of a folder of runs: what is recorded, running, silent, stopped, failed and damaged."""

import io
import time

import pytest
from fakes import make_record, store
from rich.console import Console
from tiny import make_experiment

from reproductions.harness.experiment import Variant
from reproductions.harness.launching.workplace import Status, Workplace
from reproductions.harness.records import record_path
from reproductions.harness.status import SILENT_SECONDS, show_status
from resnet.trainer import Progress

EXPERIMENT = make_experiment()
RUNS = EXPERIMENT.runs(Variant("smoke"), 2)


@pytest.fixture
def place(tmp_path):
    return Workplace(tmp_path, tmp_path)


def show(place, *experiments):
    """The exit status and the text."""
    console = Console(file=io.StringIO(), width=200)
    code = show_status(experiments or (EXPERIMENT,), place.out, console)
    return code, console.file.getvalue()


def write(place, state, age=0.0, message="", run=RUNS[0]):
    progress = Progress(3, 6, 0.1, None, 40.0, 2.0) if state == "running" else None
    Status(state, str(run), time.time() - age, progress, message).write(place.work(run))


def test_an_empty_or_absent_folder_has_no_records(place):
    assert show(place) == (0, f"no records in {place.records}\n")
    assert show(Workplace(place.out / "absent", place.data))[0] == 0


def test_recorded_runs_are_listed_by_row_with_their_errors(place):
    store(place.records, make_record(RUNS[0], 20.0), make_record(RUNS[1], 21.5))
    code, text = show(place)
    assert code == 0 and "2/2" in text and "20.00, 21.50" in text and "resnet14" not in text


def test_more_seeds_than_the_default_are_shown(place):
    store(place.records, *(make_record(run, 20.0) for run in EXPERIMENT.runs(Variant("smoke"), 4, ["resnet8"])))
    assert "4/4" in show(place)[1]


def test_records_of_no_listed_table_are_counted(place):
    store(place.records, make_record(RUNS[0], 20.0))
    assert "1 records, none of them in a listed table" in show(place, make_experiment(data="cifar10"))[1]


@pytest.mark.parametrize(
    ("state", "age", "message", "code", "said"),
    [
        ("running", 1, "", 0, "running: 3/6, 2.0 it/s, test error 40.00 %"),
        ("running", SILENT_SECONDS + 60, "", 0, "no sign of life for 0:06:00; the same command goes on"),
        ("stopped", 1, "stopped at iteration 3; it can be resumed", 0, "stopped: stopped at iteration 3"),
        ("failed", 1, "Traceback:\n...\nOSError: disk full\n", 1, "failed: OSError: disk full"),
        ("failed", 1, "", 1, "failed: "),
    ],
)
def test_unfinished_runs_are_told_in_a_line(place, state, age, message, code, said):
    write(place, state, age, message)
    shown, text = show(place)
    assert shown == code and f"{RUNS[0]}: {said}" in text


def test_what_a_job_killed_after_its_record_left_behind_is_not_shown(place):
    store(place.records, make_record(RUNS[0], 20.0))
    write(place, "running", SILENT_SECONDS + 60)
    assert "no sign of life" not in show(place)[1]


def test_a_status_that_cannot_be_read_is_left_out(place):
    place.work(RUNS[0]).mkdir(parents=True)
    (place.work(RUNS[0]) / "status.json").write_text("{")
    assert show(place)[0] == 0


def test_a_damaged_record_is_named(place):
    store(place.records, make_record(RUNS[0], 20.0))
    path = record_path(place.records, RUNS[0])
    path.write_text("{")
    code, text = show(place)
    assert code == 1 and f"damaged record: {path}" in text
