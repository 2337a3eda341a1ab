"""Curves while runs are trained: the file of each run, and the trackers that a launch writes to."""

import json
import sys
import tomllib
from types import ModuleType, SimpleNamespace
from unittest.mock import Mock

import pytest
from fakes import make_record, store
from test_status import show
from tiny import TINY, make_experiment
from waiting import find_disk_full

from reproductions.harness import cli
from reproductions.harness.experiment import Variant
from reproductions.harness.launching import curve_file, tracking
from reproductions.harness.launching.curve_file import CurveFile, read_curve, sparkline
from reproductions.harness.launching.run_paths import Status
from reproductions.harness.launching.tracking import Tracker
from reproductions.harness.launching.worker import execute
from reproductions.harness.provenance import ROOT
from reproductions.harness.record_files import record_path
from reproductions.harness.status import Standing
from resnet.files import write_atomically
from resnet.progress import Progress
from resnet.run import Run

EXPERIMENT = make_experiment(depths=(8,))
RUNS = EXPERIMENT.runs(Variant("smoke"), 2)
CURVE = [{"iteration": i, "learning_rate": 0.1, "training_loss": 2.0, "test_error": 90.0 - i} for i in range(1, 6)]


def iterations(folder):
    return [point["iteration"] for point in read_curve(folder)]


# ---------------------------------------------------------------------------------------------------------------- file


def test_a_run_in_training_has_its_evaluations_in_a_file_until_its_record_has_them(paths):
    run = Run("cifar_resnet8", TINY.shortened(8, eval_interval=2, batch_size=4), "synthetic")
    seen, folder = [], paths.work(run)

    def look(run, status):
        if status.state == "running":
            seen.append(iterations(folder))

    stop_at = 4
    outcome = execute([run], paths, lambda: bool(seen and seen[-1] and seen[-1][-1] >= stop_at), look)
    assert "can be resumed" in outcome.interrupted
    assert iterations(folder) == [2, 4] and all("test_error" in point for point in read_curve(folder))
    whole = read_curve(folder)
    with (folder / curve_file.NAME).open("a") as file:  # as by a process that was killed before its next checkpoint
        file.write('{"iteration": 6, "test_error": 1.0}\n')
    seen.clear()
    assert not execute([run], paths, lambda: False, look).failures
    assert seen[0] in ([2, 4], [2, 4, 6]) and seen[-1] == [2, 4, 6, 8]
    record = json.loads(record_path(paths.records, run).read_text())
    assert record["curve"][:2] == whole and record["curve"][2]["test_error"] != 1.0
    assert not (folder / curve_file.NAME).exists()


def test_the_file_is_made_anew_once_and_then_appended_to(tmp_path):
    CurveFile(tmp_path).write([])
    assert list(tmp_path.iterdir()) == []
    CurveFile(tmp_path).write(CURVE)
    file = CurveFile(tmp_path)
    file.write(CURVE[:2])
    assert read_curve(tmp_path) == CURVE[:2]
    before = (tmp_path / curve_file.NAME).stat().st_ino
    for count in (2, 3, 5, 5):
        file.write(CURVE[:count])
        assert read_curve(tmp_path) == CURVE[:count]
    assert (tmp_path / curve_file.NAME).stat().st_ino == before
    CurveFile(tmp_path).write([])
    assert read_curve(tmp_path) == [] and read_curve(tmp_path / "none") == []


def test_after_an_error_nothing_is_missing_or_twice(tmp_path, monkeypatch):
    file = CurveFile(tmp_path)
    file.write(CURVE[:1])
    path = tmp_path / curve_file.NAME
    path.rename(tmp_path / "away")
    path.mkdir()
    with pytest.raises(OSError):
        file.write(CURVE[:2])
    path.rmdir()
    (tmp_path / "away").rename(path)
    path.write_text(path.read_text() + '{"iteration": 2, "lear')
    assert read_curve(tmp_path) == CURVE[:1], "of a line cut short nothing is read"
    file.write(CURVE[:3])
    assert read_curve(tmp_path) == CURVE[:3]


def test_a_curve_that_cannot_be_written_does_not_end_training(paths, monkeypatch):
    monkeypatch.setattr(CurveFile, "write", find_disk_full)
    with pytest.warns(UserWarning, match="the curve of .* could not be written: No space left on device"):
        assert not execute(RUNS[:1], paths, lambda: False).failures
    assert record_path(paths.records, RUNS[0]).exists()


# -------------------------------------------------------------------------------------------------------------- status


def test_sparklines():
    assert sparkline([80.0, 10.0, 20.0]) == "█▁▂"
    assert sparkline([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]) == "▁▂▃▄▅▆▇█"
    assert sparkline([5.0, 5.0]) == "▁▁"
    many = sparkline([*range(999), 2000.0])
    assert len(many) == 40 and many[-1] == "█" and many[0] == "▁"


def test_status_draws_the_curve_so_far_and_programs_get_its_numbers(paths, capsys):
    folder = paths.work(RUNS[0])
    Status("stopped", str(RUNS[0]), 0.0, Progress(5, 9, 0.1, None, 85.0, 2.0)).write(folder)
    CurveFile(folder).write([*CURVE, {**CURVE[-1], "iteration": 6, "test_error": None}])
    store(paths.records, make_record(RUNS[1], 20.0))
    code, text = show(paths, EXPERIMENT)
    assert code == 0 and f"\n  test error {sparkline([5, 4, 3, 2, 1])} 89.00 → 85.00 %\n" in text
    CurveFile(folder).write([point | {"validation_error": 50.0 - point["iteration"]} for point in CURVE])
    assert f"\n  validation error {sparkline([5, 4, 3, 2, 1])} 49.00 → 45.00 %\n" in show(paths, EXPERIMENT)[1]
    CurveFile(folder).write([{"iteration": n, "mean_iou": 20.0 + n, "pixel_accuracy": 70.0} for n in (1, 2)])
    assert "\n  mIoU ▁█ 21.00 → 22.00 %\n" in show(paths, EXPERIMENT)[1]
    CurveFile(folder).write([*CURVE, {**CURVE[-1], "iteration": 6, "test_error": None}])
    found = json.loads(show(paths, EXPERIMENT, as_json=True)[1])
    assert {name: found[name] for name in found if name not in ("rows", "runs")} == {
        "version": 1, "out": str(paths.out), "records": 1, "in_no_table": 0, "own_tables": [], "own_commands": [],
        "damaged": [],
    }  # fmt: skip
    row = {"experiment": "tiny", "profile": "smoke", "row": "resnet8", "seeds": 2, "done": 1, "diverged": 0}
    assert {**row, "test_errors": [20.0]} in found["rows"]
    (run,) = found["runs"]
    assert run.pop("curve")[:5] == CURVE and run.pop("text").startswith("the same command begins it")
    assert run == {
        "id": RUNS[0].short_id, "run": str(RUNS[0]), "row": "", "state": "stopped", "iteration": 5, "iterations": 9,
        "learning_rate": 0.1, "training_error": None, "test_error": 85.0, "validation_error": None,
        "steps_per_second": 2.0,
    }  # fmt: skip


def test_of_runs_with_held_out_images_the_test_errors_are_not_shown(paths, fake):
    folder, curve = paths.work(RUNS[0]), [{**point, "validation_error": 70.0 - point["iteration"]} for point in CURVE]
    Status("stopped", str(RUNS[0]), 0.0, Progress(5, 9, 0.1, None, 85.0, 2.0, 65.0)).write(folder)
    CurveFile(folder).write(curve)
    text = show(paths, EXPERIMENT)[1]
    assert "  validation error █▆▅▃▁ 69.00 → 65.00 %\n" in text and "test error" not in text
    (run,) = json.loads(show(paths, EXPERIMENT, as_json=True)[1])["runs"]
    assert run["test_error"] is None and run["validation_error"] == 65.0 and "test_error" not in run["curve"][0]
    make_tracker(fake.__name__, paths).close()
    assert fake.made[0].logged[0][1] == {"learning_rate": 0.1, "training_loss": 2.0, "validation_error": 69.0}


def test_keys_for_programs_are_described(paths):
    text = (ROOT / "docs" / "usage.md").read_text(encoding="utf-8").partition("### For programs")[2].partition("\n#")[0]
    keys = {*json.loads(show(paths, EXPERIMENT, as_json=True)[1]), *Standing("", "", "").as_json()}
    assert "rows" in keys and {key for key in keys if f"`{key}`" not in text} == set()


# ------------------------------------------------------------------------------------------------------------ trackers


class FakeModule(ModuleType):
    """Stands in for wandb or trackio: keeps the runs that were made, and what each was given."""

    def __init__(self, name):
        super().__init__(name)
        self.made = []

    def init(self, **settings):
        run = SimpleNamespace(settings=settings, logged=[], finished=False)
        run.log = lambda values, step: run.logged.append((step, values))
        run.finish = lambda: setattr(run, "finished", True)
        self.made.append(run)
        return run


@pytest.fixture(params=["wandb", "trackio"])
def fake(request, monkeypatch):
    module = FakeModule(request.param)
    monkeypatch.setitem(sys.modules, request.param, module)
    return module


def make_tracker(name, paths):
    """A tracker that has looked at the runs once."""
    tracker = Tracker(name, paths, dict.fromkeys(RUNS, "tiny_smoke/resnet8"), pytest.fail)
    tracker.update()
    return tracker


def test_each_evaluation_is_logged_once_whoever_looks_and_a_requeued_run_goes_on_in_its_series(
    paths, fake, monkeypatch
):
    monkeypatch.setattr(tracking, "LOOK_SECONDS", 0.0)
    name = fake.__name__
    make_tracker(name, paths).close()
    assert fake.made == [], "nothing is there yet"
    CurveFile(paths.work(RUNS[0])).write(CURVE[:2])
    tracker = make_tracker(name, paths)
    tracker.update()
    CurveFile(paths.work(RUNS[0])).write(CURVE[:1])  # requeued, from an earlier checkpoint
    tracker.update()
    CurveFile(paths.work(RUNS[0])).write(CURVE[:3])
    tracker.close()
    (run,) = fake.made
    assert [step for step, _ in run.logged] == [1, 2, 3] and run.finished
    assert run.logged[0][1] == {"learning_rate": 0.1, "training_loss": 2.0, "test_error": 89.0}
    settings = run.settings
    assert settings["group"] == "tiny_smoke/resnet8" and settings["resume"] == "allow"
    assert RUNS[0].identity in (settings.get("id"), settings["name"].rpartition(" ")[2])
    assert settings["config"] == RUNS[0].specification() and settings["project"] == "resnet-reproductions"
    (record,) = store(paths.records, make_record(RUNS[0], 20.0))
    again = make_tracker(name, paths)
    assert [step for step, _ in fake.made[1].logged] == [p["iteration"] for p in record["curve"] if p["iteration"] > 3]
    assert fake.made[1].finished and fake.made[1].settings == settings
    again.close()
    make_tracker(name, paths).close()
    assert len(fake.made) == 2


def test_what_a_tracker_cannot_do_is_said_once_and_training_goes_on(paths, fake, monkeypatch):
    name, said = fake.__name__, []
    CurveFile(paths.work(RUNS[0])).write(CURVE)
    monkeypatch.setattr(fake, "init", Mock(side_effect=RuntimeError("not logged in")))
    tracker = Tracker(name, paths, dict.fromkeys(RUNS, "tiny_smoke/resnet8"), said.append)
    tracker.update()
    tracker.close()
    assert said == [f"tracking with {name} ends: not logged in. Training goes on; the same command with --track "
                    f"{name} logs the rest"]  # fmt: skip
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, name, fake)
    make_tracker(name, paths).close()
    assert [step for step, _ in fake.made[0].logged] == [1, 2, 3, 4, 5]


def test_a_launch_groups_its_runs_by_row_and_logs_also_those_that_were_recorded_before(tmp_path, fake, published):
    arguments = ["--profile", "smoke", "--seeds", "1", "--out", str(tmp_path / "runs"), "--launcher", "inline"]
    assert cli.run_experiment(EXPERIMENT, arguments) == 0 and fake.made == []
    assert cli.run_experiment(EXPERIMENT, [*arguments[:3], "2", *arguments[4:], "--track", fake.__name__]) == 0
    assert {run.settings["group"] for run in fake.made} == {"tiny_smoke/resnet8"}
    assert [[step for step, _ in run.logged] for run in fake.made] == [[3, 6], [3, 6]]
    assert len({str(run.settings) for run in fake.made}) == 2 and all(run.finished for run in fake.made)


def test_each_combination_of_a_sweep_is_a_group_and_shows_no_test_error(tmp_path, fake, published):
    arguments = ["--profile", "smoke", "--out", str(tmp_path), "--launcher", "inline", "--track", fake.__name__]
    assert cli.run_experiment(EXPERIMENT, [*arguments, "--sweep", "learning_rate=0.05,0.1"]) == 0
    groups = [run.settings["group"] for run in fake.made]
    assert [group.rpartition("/")[2] for group in groups] == ["resnet8 learning_rate=0.05", "resnet8 learning_rate=0.1"]
    names = {name for run in fake.made for _, values in run.logged for name in values}
    assert "validation_error" in names and "test_error" not in names


@pytest.mark.parametrize("name", tracking.TRACKERS)
def test_a_missing_package_is_refused_before_training_with_the_command_that_installs_it(
    tmp_path, monkeypatch, capsys, name
):
    monkeypatch.setitem(sys.modules, tracking.TRACKERS[name][1], None)
    arguments = ["--profile", "smoke", "--out", str(tmp_path / "runs"), "--track", name]
    assert cli.run_experiment(EXPERIMENT, arguments) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"--track {name} needs the package {name}" in said and " -m pip install " in said and f"'{name}>=" in said
    assert not (tmp_path / "runs" / "work").exists()


def test_trackers_are_those_of_the_projects_extras():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {name: extras[name] for name in tracking.TRACKERS} == {
        name: [requirement] for name, (requirement, _) in tracking.TRACKERS.items()
    }


def test_tensorboards_own_reader_finds_one_series_a_run(paths):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for count in (2, 5):  # two launches
        CurveFile(paths.work(RUNS[0])).write(CURVE[:count])
        make_tracker("tensorboard", paths).close()
    write_atomically(paths.work(RUNS[1]) / curve_file.NAME, b'{"iteration": 1, "test_error": null}\n')
    (folder,) = (paths.out / "tensorboard" / "tiny_smoke" / "resnet8").iterdir()
    assert folder.name == f"seed0-{RUNS[0].short_id}" and len(list(folder.iterdir())) == 2
    found = events.EventAccumulator(str(folder))
    found.Reload()
    assert set(found.Tags()["scalars"]) == {"learning_rate", "training_loss", "test_error"}
    assert [(event.step, event.value) for event in found.Scalars("test_error")] == [(i, 90.0 - i) for i in range(1, 6)]
