"""Workers: a run killed at any moment, however often, leaves the record that an undisturbed one leaves."""

import multiprocessing
import os
import random
import signal
import time
import warnings
from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch
from waiting import Killed, after_two_steps, find_disk_full, never

from reproductions.harness import provenance
from reproductions.harness.launching import worker
from reproductions.harness.launching.run_paths import RunPaths, Status
from reproductions.harness.launching.signals import stop_on_signals
from reproductions.harness.launching.worker import execute
from reproductions.harness.record_files import record_path
from reproductions.harness.records import ORIGIN, read_record
from resnet import checkpoint
from resnet.data import DataError, load
from resnet.data.synthetic import make_synthetic
from resnet.recipe import Recipe
from resnet.run import Run

CODE = {"commit": None, "modified": None, "resnet_sha256": "0" * 64}
SHORT = Recipe(iterations=6, batch_size=4, milestones=(3,), eval_interval=2)


FROM_FILES = Recipe(
    iterations=120, batch_size=8, milestones=(80,), eval_interval=50, batch_norm_size=4, crop="area", image_size=32,
    colour_jitter=0.4, pca_noise=0.1, tests=("ten_crop",),
)  # fmt: skip


def comparable_record(paths, run):
    """Read the run's record without the times, which interruptions change."""
    record = read_record(record_path(paths.records, run))
    for segment in record["segments"]:
        del segment["device_seconds"]
    return {name: value for name, value in record.items() if name not in ("timing", "interruptions", "record_sha256")}


def small_data(name, folder):
    return make_synthetic(60, 20) if name == "synthetic" else load(name, folder)


def train_in_a_process_of_its_own(run, out):
    torch.set_num_threads(1)
    worker.load, provenance.code_identity = small_data, lambda: CODE
    warnings.simplefilter("error")  # no checkpoint is ever found damaged
    outcome = execute([run], RunPaths(out, out.parent, checkpoint_seconds=0.05), never)
    assert not outcome.failures, outcome.failures


@pytest.mark.slow
def test_killed_at_random_moments_it_leaves_the_same_record(tmp_path):
    """With image files; tests/faults has more, with images in memory."""
    run = Run("cifar_resnet8", FROM_FILES, "synthetic_imagenet")
    context = multiprocessing.get_context("forkserver")  # forks from a process that has imported torch already
    context.set_forkserver_preload(["torch", "torchvision", "reproductions.harness.launching.worker"])
    moments = random.Random(0)

    def start(out):
        process = context.Process(target=train_in_a_process_of_its_own, args=(run, out))
        process.start()
        return process

    def wait_for_news(process, path, since):
        deadline = time.monotonic() + 60
        while process.is_alive() and time.monotonic() < deadline:
            if path.exists() and path.stat().st_mtime_ns != since:
                return
            time.sleep(0.002)

    undisturbed, paths = (RunPaths(tmp_path / name, tmp_path) for name in ("undisturbed", "killed"))
    process = start(undisturbed.out)
    process.join(300)
    assert process.exitcode == 0

    newest, starts = paths.work(run) / checkpoint.NEWEST, paths.work(run) / "starts.json"
    kills = 0
    for number in range(6):
        process = start(paths.out)
        # Most are killed some time after their first checkpoint, some while they start.
        path = starts if number in (1, 4) else newest
        wait_for_news(process, path, path.stat().st_mtime_ns if path.exists() else None)
        time.sleep(moments.uniform(0, 0.1))
        process.kill()
        process.join()
        kills += process.exitcode == -9
    last = start(paths.out)
    last.join(300)
    assert last.exitcode == 0 and kills >= 5

    assert comparable_record(paths, run) == comparable_record(undisturbed, run)
    interruptions = [read_record(record_path(p.records, run))["interruptions"] for p in (undisturbed, paths)]
    assert interruptions == [0, kills]
    expected, weights = (checkpoint.load(p.weights(run)) for p in (undisturbed, paths))
    assert all(torch.equal(expected[name], weights[name]) for name in expected)


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "load", small_data)
    monkeypatch.setattr(provenance, "code_identity", lambda: CODE)
    return RunPaths(tmp_path, tmp_path)


def synthetic_run(**values):
    return Run("cifar_resnet8", SHORT, "synthetic", **values)


def test_a_run_with_a_record_is_not_trained_again(paths, monkeypatch):
    run = synthetic_run()
    execute([run], paths, never)
    before = record_path(paths.records, run).read_bytes()
    monkeypatch.setattr(worker, "training", lambda *arguments: pytest.fail("trained again"))
    assert not execute([run], paths, never).failures
    assert record_path(paths.records, run).read_bytes() == before


def test_a_finished_run_leaves_record_and_weights_but_no_checkpoint(paths):
    run = synthetic_run()
    execute([run], paths, never)
    record = read_record(record_path(paths.records, run))
    assert record["status"] == "completed" and record["identity"] == run.identity and record["parameters"] == 75_290
    assert record["data"] == {"name": "synthetic", "sha256": make_synthetic(60, 20).digest, "official": True}
    assert [point["iteration"] for point in record["curve"]] == [2, 4, 6]
    assert "fc.weight" in checkpoint.load(paths.weights(run))
    assert checkpoint.load_latest(paths.work(run)) is None and Status.read(paths.work(run)) is None


def test_a_diverged_run_is_recorded_as_such(paths):
    run = Run("cifar_resnet8", replace(SHORT, learning_rate=1e30), "synthetic")
    assert not execute([run], paths, never).failures
    record = read_record(record_path(paths.records, run))
    assert record["status"] == "diverged" and record["final"]["test_error"] is None and record["best"] == {}


def full_disk(monkeypatch, *failing):
    """Let the checkpoints of these numbers find no space; returns the iterations of all that were tried."""
    save, tried = checkpoint.save, []

    def save_or_fail(folder, state):
        tried.append(state["iteration"])
        if len(tried) in failing:
            find_disk_full()
        save(folder, state)

    monkeypatch.setattr(checkpoint, "save", save_or_fail)
    return tried


def test_a_checkpoint_that_can_not_be_written_is_said_and_the_next_one_tried(paths, monkeypatch):
    run = synthetic_run()
    tried = full_disk(monkeypatch, 2, 3)
    eager = RunPaths(paths.out, paths.data, checkpoint_seconds=0)
    with pytest.warns(UserWarning) as caught:
        assert not execute([run], eager, never).failures
    said = [str(warning.message) for warning in caught]
    assert tried == [1, 2, 3, 4, 5] and len(said) == 2
    assert "at iteration 2: its checkpoint could not be written ([Errno 28] No space left on device)" in said[0]
    alone = RunPaths(paths.out / "alone", paths.data)
    execute([run], alone, never)
    assert comparable_record(paths, run) == comparable_record(alone, run)


def test_a_stop_that_can_not_write_its_checkpoint_says_from_where_the_run_goes_on(paths, monkeypatch):
    run = synthetic_run()
    full_disk(monkeypatch, 2)
    eager = RunPaths(paths.out, paths.data, checkpoint_seconds=0)
    outcome = execute([run], eager, after_two_steps())
    assert "stopped at iteration 2, but its checkpoint could not be written ([Errno 28]" in outcome.failures[run]
    assert outcome.failures[run].endswith("it can be resumed from iteration 1")
    assert outcome.interrupted == outcome.failures[run] and Status.read(paths.work(run)).state == "stopped"
    assert checkpoint.load_latest(paths.work(run))["iteration"] == 1
    assert not execute([run], paths, never).failures


def test_a_status_that_can_not_be_written_stops_nothing(paths, monkeypatch):
    monkeypatch.setattr(Status, "write", find_disk_full)
    run = synthetic_run()
    with pytest.warns(UserWarning, match="the status of .* could not be written: No space left on device"):
        assert not execute([run], paths, never).failures
    assert record_path(paths.records, run).exists()


def test_a_result_that_can_not_be_written_is_said_in_a_line_and_the_checkpoint_stays(paths, monkeypatch):
    run, eager = synthetic_run(), RunPaths(paths.out, paths.data, checkpoint_seconds=0)
    with monkeypatch.context() as patch:
        patch.setattr(worker, "write_record", find_disk_full)
        said = execute([run], eager, never).failures[run]
    expected = f"[Errno 28] No space left on device: '{paths.records}'"
    assert said == f"{expected}\nThe same command goes on from the last checkpoint."
    assert checkpoint.load_latest(paths.work(run))["iteration"] == 5


def begin(paths, run):
    """Train a run as far as a checkpoint after two of its iterations."""
    assert execute([run], paths, after_two_steps()).interrupted


def change(paths, run, values):
    """Make the checkpoint of a run one from elsewhere."""
    checkpoint.save(paths.work(run), checkpoint.load_latest(paths.work(run)) | values)


@pytest.mark.parametrize(
    ("elsewhere", "said"),
    [
        ({"precision": "bf16"}, "precision is bf16, but here the run's is fp32. Either continue it on a device with"),
        ({"data": "d1"}, "Either name the folder of the data that it was begun with (DATA= with make), or remove"),
        ({"teacher": "7e"}, "Either put back the teacher's weights that it was begun with, or remove"),
        ({"run": "b2"}, "Either continue it where it was begun, or remove"),
    ],
)
def test_a_checkpoint_that_does_not_fit_here_is_said_in_a_line_with_the_ways_out(paths, elsewhere, said):
    run = synthetic_run()
    begin(paths, run)
    change(paths, run, elsewhere)
    failure = execute([run], paths, never).failures[run]
    assert said in failure and str(paths.work(run)) in failure and "\n" not in failure
    assert checkpoint.load_latest(paths.work(run))["iteration"] == 2, "it stays"


def test_a_checkpoint_of_newer_code_is_said_in_a_line_and_stays(paths):
    run = synthetic_run()
    begin(paths, run)
    path = paths.work(run) / checkpoint.NEWEST
    path.write_bytes(path.read_bytes().replace(b"checkpoint-1", b"checkpoint-2", 1))
    failure = execute([run], paths, never).failures[run]
    assert failure.startswith(f"{path} is in a newer checkpoint format") and "\n" not in failure and path.exists()


def test_a_record_names_the_precision_of_the_checkpoint_that_a_run_went_on_from(paths, monkeypatch):
    monkeypatch.setattr("resnet.stepwise.has_bf16", lambda device: True)
    run = Run("cifar_resnet8", replace(SHORT, precision="auto"), "synthetic")
    begin(paths, run)
    change(paths, run, {"precision": "bf16"})
    assert not execute([run], paths, never).failures
    record = read_record(record_path(paths.records, run))
    assert record["precision"] == "bf16" and [s["precision"] for s in record["segments"]] == ["fp32", "bf16"]


def test_asked_to_stop_it_leaves_a_checkpoint_and_says_so(paths):
    run, other = synthetic_run(seed=0), synthetic_run(seed=1)
    outcome = execute([run, other], paths, after_two_steps())
    assert outcome.interrupted and not outcome.failures
    assert checkpoint.load_latest(paths.work(run))["iteration"] == 2
    status = Status.read(paths.work(run))
    assert (status.state, status.progress.iteration, status.progress.iterations) == ("stopped", 2, 6)
    assert not paths.work(other).exists()
    execute([run], paths, never)
    assert read_record(record_path(paths.records, run))["interruptions"] == 1


def test_a_signal_stops_at_a_checkpoint_where_stderr_can_not_be_written_to(monkeypatch):
    with stop_on_signals(message="Stopping") as stop_requested, monkeypatch.context() as patch:
        patch.setattr(os, "write", find_disk_full)
        signal.raise_signal(signal.SIGTERM)
        assert stop_requested()


def segments_of(paths, run):
    """Read the segments of the run's record: from, to, and the version of torch."""
    segments = read_record(record_path(paths.records, run))["segments"]
    return [(s["from"], s["to"], s["versions"] and s["versions"]["torch"]) for s in segments]


@pytest.mark.parametrize(
    ("third", "expected"), [("2.1", [(0, 6, "2.1")]), ("2.3", [(0, 2, "2.1"), (2, 6, "2.3")])], ids=["back", "moved"]
)
def test_a_record_names_every_software_that_had_a_part_in_it(paths, monkeypatch, third, expected):
    """Steps that a killed process made after its last checkpoint belong to the process that repeats them."""
    run, versions = synthetic_run(), provenance.versions()

    def start(version, stops=never):
        monkeypatch.setattr(provenance, "versions", lambda kernels: versions | {"torch": version})
        return execute([run], paths, stops)

    assert start("2.1", after_two_steps()).interrupted
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", Mock(side_effect=Killed))
        with pytest.raises(Killed):
            start("2.2", after_two_steps())
    assert not start(third).failures
    assert segments_of(paths, run) == expected
    record = read_record(record_path(paths.records, run))
    assert record["interruptions"] == 2 and record["versions"]["torch"] == third
    seconds = sum(segment["device_seconds"] for segment in record["segments"])
    assert seconds == pytest.approx(record["timing"]["device_seconds"], abs=0.01)


def test_segments_that_a_checkpoint_does_not_know_are_not_invented(paths, monkeypatch):
    run = synthetic_run()
    begin(paths, run)
    state = checkpoint.load_latest(paths.work(run))
    del state["history"]["segments"]  # as it was written before there were segments
    checkpoint.save(paths.work(run), state)
    clean = {**CODE, "modified": False}
    monkeypatch.setattr(provenance, "code_identity", lambda: clean)
    assert not execute([run], paths, never).failures
    record = read_record(record_path(paths.records, run))
    first, second = record["segments"]
    assert (first["from"], first["to"]) == (0, 2) and {first[name] for name in ORIGIN} == {None}
    assert (second["from"], second["to"], second["code"]) == (2, 6, clean)
    assert record["code"]["modified"] is None


def test_a_damaged_record_is_reported_and_not_trained_over(paths):
    run = synthetic_run()
    path = record_path(paths.records, run)
    path.parent.mkdir(parents=True)
    path.write_text("{")
    assert str(path) in execute([run], paths, never).failures[run] and path.read_text() == "{"


def test_missing_data_are_a_failure_without_a_traceback(paths, monkeypatch):
    monkeypatch.setattr(worker, "load", Mock(side_effect=DataError("no data")))
    assert execute([synthetic_run()], paths, never).failures == {synthetic_run(): "no data"}


def test_a_run_that_can_not_be_claimed_fails_and_the_others_are_trained(paths, monkeypatch):
    first, second = synthetic_run(seed=0), synthetic_run(seed=1)
    claim = worker.claim

    def full(folder, *arguments):
        if folder == paths.work(first):
            find_disk_full()
        return claim(folder, *arguments)

    monkeypatch.setattr(worker, "claim", full)
    outcome = execute([first, second], paths, never)
    assert list(outcome.failures) == [first] and "can't be started: [Errno 28] No space left" in outcome.failures[first]
    assert record_path(paths.records, second).exists()
