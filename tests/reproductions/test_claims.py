"""One process trains a run, whatever else is launched on the same folder; what others left behind does no harm."""

import json
import multiprocessing
import os
import shutil
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from fakes import make_record, store
from tiny import TINY
from waiting import Killed, after_two_steps, never, wait_until

from reproductions.harness import provenance
from reproductions.harness.launching import claims, worker
from reproductions.harness.launching.claims import claim, claim_number, owned
from reproductions.harness.launching.options import Options
from reproductions.harness.launching.recording import note_start, take_back_start
from reproductions.harness.launching.run_paths import RunPaths, Status
from reproductions.harness.launching.worker import Outcome, execute
from reproductions.harness.record_files import record_path
from reproductions.harness.records import read_pool, read_record
from resnet import checkpoint
from resnet.device import DeviceLost
from resnet.packing import Pack
from resnet.recipe import Recipe
from resnet.run import Run
from resnet.tasks import Segmentation

RUNS = [Run("cifar_resnet8", TINY, "synthetic", seed) for seed in range(2)]


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "CLAIM_SECONDS", 0.0)
    return RunPaths(tmp_path, Path("data"))


def elsewhere(folder, number=1, **values):
    """A claim that a process on another machine made."""
    folder.mkdir(parents=True, exist_ok=True)
    owner = {"host": "elsewhere", "boot": "x", "processes": "y", "pid": 1, "started": "1", "slurm_job": None}
    path = folder / f"owner.{number}"
    path.write_text(json.dumps(owner | values))
    return path


# -------------------------------------------------------------------------------------------------------- single claims


def test_a_run_can_be_claimed_once_at_a_time(tmp_path):
    with claim(tmp_path / "a") as first:
        assert not first.lost and owned(tmp_path / "a")
        assert claim(tmp_path / "a") is None
        with claim(tmp_path / "b"):
            assert owned(tmp_path / "b")
    assert not owned(tmp_path / "a")
    with claim(tmp_path / "a"):
        assert claim_number(tmp_path / "a") == 2
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["owner.2"], "older claims are gone"


def die_with_a_claim(folder):
    claim(folder)
    os._exit(1)


def test_the_claim_of_a_process_that_died_here_is_taken_over_at_once(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=die_with_a_claim, args=(tmp_path,))
    process.start()
    process.join()
    assert claim_number(tmp_path) == 1 and not owned(tmp_path)
    with claim(tmp_path) as taken:
        assert taken is not None and claim_number(tmp_path) == 2


def test_a_process_that_has_the_number_of_the_dead_owner_is_not_taken_for_it(tmp_path):
    with claim(tmp_path):
        mine = json.loads((tmp_path / "owner.1").read_text())
    elsewhere(tmp_path, 2, **{**mine, "started": "12345"})
    assert not owned(tmp_path)


def test_a_claim_elsewhere_holds_as_long_as_it_is_touched(tmp_path):
    path = elsewhere(tmp_path)
    assert owned(tmp_path, stale_seconds=60) and claim(tmp_path, 60) is None
    os.utime(path, (time.time() - 61,) * 2)
    assert not owned(tmp_path, stale_seconds=60)
    with claim(tmp_path, 60):
        assert claim_number(tmp_path) == 2


def test_a_claim_from_the_future_holds_no_longer_than_any_other_if_nobody_touches_it(tmp_path):
    path = elsewhere(tmp_path)
    os.utime(path, (time.time() + 3600,) * 2)
    assert owned(tmp_path, stale_seconds=60) and claim(tmp_path, 60) is None
    assert abs(path.stat().st_mtime - time.time()) < 30
    os.utime(path, (time.time() + 3600,) * 2)  # its owner lives, and its clock is wrong
    assert owned(tmp_path, 60) and abs(path.stat().st_mtime - time.time()) < 30
    os.utime(path, (time.time() - 61,) * 2)  # a minute later
    assert not owned(tmp_path, 60)


def test_another_users_claim_that_can_not_be_read_counts_by_its_age(tmp_path, monkeypatch):
    path = elsewhere(tmp_path)
    read_text = Path.read_text

    def denied(path, *arguments, **more):
        if path.name.startswith("owner."):
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path, *arguments, **more)

    monkeypatch.setattr(Path, "read_text", denied)
    assert owned(tmp_path, 60)
    os.utime(path, (0, 0))
    assert not owned(tmp_path, 60)


def test_an_owner_touches_its_claim(tmp_path):
    with claim(tmp_path, stale_seconds=0.24) as mine:
        os.utime(mine.path, (0, 0))
        wait_until(lambda: mine.path.stat().st_mtime > 0)


def test_an_owner_that_was_taken_for_dead_notices_and_leaves_the_new_claim_alone(tmp_path):
    with claim(tmp_path, stale_seconds=0.24) as mine:
        elsewhere(tmp_path, 2)
        mine.path.unlink()  # by the new owner
        wait_until(lambda: mine.lost)
    assert json.loads((tmp_path / "owner.2").read_text())["host"] == "elsewhere"


def test_an_owner_whose_folder_was_removed_notices_the_next_owner(tmp_path):
    claim(tmp_path / "run").release()
    with claim(tmp_path / "run") as mine:
        assert mine.holds()
        shutil.rmtree(tmp_path / "run")
        assert mine.holds(), "a file system may be away for a moment"
        with claim(tmp_path / "run") as other:
            assert other.holds() and not mine.holds()


def test_a_requeued_job_takes_over_from_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    elsewhere(tmp_path, slurm_job="8")
    assert owned(tmp_path)
    elsewhere(tmp_path, slurm_job="7")
    assert not owned(tmp_path)
    for before, now, alive in ((0, 0, True), (0, 1, False), (1, 1, True)):  # another of its processes, or its past
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(now))
        elsewhere(tmp_path, slurm_job="7", slurm_restart=before)
        assert owned(tmp_path) == alive


@pytest.mark.parametrize("content", ["", "{", "[]", "\0"])
def test_a_claim_that_can_not_be_read_counts_by_its_age(tmp_path, content):
    (tmp_path / "owner.3").write_text(content)
    assert owned(tmp_path) and claim(tmp_path) is None
    os.utime(tmp_path / "owner.3", (0, 0))
    with claim(tmp_path):
        assert claim_number(tmp_path) == 4


def test_where_processes_can_not_be_looked_up_only_touching_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "machine", lambda: {"host": "here", "boot": None, "processes": None})
    mine = claim(tmp_path, 60)
    assert owned(tmp_path, 60)
    os.utime(mine.path, (0, 0))
    assert not owned(tmp_path, 60)


def test_the_start_of_a_process_is_the_kernels_number_and_no_part_of_the_clock(monkeypatch):
    fields = Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()
    assert claims.start_of(os.getpid()) == fields[19]
    assert claims.lives(os.getpid(), fields[19]) and not claims.lives(os.getpid(), str(int(fields[19]) + 500))
    for process, started in [(None, fields[19]), (os.getpid(), None), (os.getpid(), "x"), (2**22 + 1, fields[19])]:
        assert not claims.lives(process, started)


def test_of_many_that_want_a_run_at_the_same_moment_one_gets_it(tmp_path):
    for attempt in range(20):
        barrier, got = threading.Barrier(8), []

        def want(folder, barrier=barrier, got=got):
            barrier.wait()
            got.append(claim(folder))

        threads = [threading.Thread(target=want, args=(tmp_path / str(attempt),)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        winners = [one for one in got if one is not None]
        assert len(winners) == 1
        winners[0].release()


# ---------------------------------------------------------------------------------------------------------- whole runs


def test_a_run_that_another_process_trains_is_waited_for_while_the_others_are_trained(paths):
    seen = []

    def on_status(run, status):
        seen.append((run.seed, status.state))
        if seen.count((0, "waiting")) == 2:  # the other process is done
            store(paths.records, make_record(RUNS[0], 20.0))

    with claim(paths.work(RUNS[0])):
        assert execute(RUNS, paths, never, on_status) == Outcome({})
    records = {r["specification"]["seed"]: r for r in read_pool(paths.records).records.values()}
    assert records[0]["weights_sha256"] == "0" * 64, "the other process's record"
    assert records[1]["weights_sha256"] != "0" * 64 and seen[0] == (0, "waiting") and seen[-1] == (0, "done")


def test_a_job_leaves_the_runs_that_others_train_to_them(paths):
    with claim(paths.work(RUNS[0])):
        assert execute(RUNS, paths, never, options=Options(launch="a")) == Outcome({})
    assert [r["specification"]["seed"] for r in read_pool(paths.records).records.values()] == [1]


def test_waiting_for_another_process_can_be_stopped(paths):
    stop = []
    with claim(paths.work(RUNS[0])):
        outcome = execute(RUNS[:1], paths, lambda: bool(stop), lambda run, status: stop.append(True))
    assert outcome.interrupted and not read_pool(paths.records).records


def test_a_run_that_was_taken_over_is_stopped_and_its_new_owner_waited_for(paths, monkeypatch):
    paths = RunPaths(paths.out, paths.data, stale_seconds=0.24)
    taken, claimed = [], []

    def on_status(run, status):
        if status.state == "running" and not taken:
            taken.append(elsewhere(paths.work(run), 2))
            wait_until(lambda: claimed[0].lost)
        if status.state == "waiting":  # the new owner ends
            store(paths.records, make_record(run, 20.0))

    monkeypatch.setattr(worker, "claim", lambda *given: (claimed.append(claim(*given)), claimed[-1])[1])
    assert execute(RUNS[:1], paths, never, on_status) == Outcome({})
    assert read_record(record_path(paths.records, RUNS[0]))["weights_sha256"] == "0" * 64


def test_a_run_that_was_taken_over_leaves_checkpoints_weights_and_record_to_its_new_owner(paths, monkeypatch):
    monkeypatch.setattr(claims.Claim, "holds", lambda self: bool(setattr(self, "lost", True)))  # found only at the end
    monkeypatch.setattr(claims.Claim, "lost", property(lambda self: False, lambda self, value: None), raising=False)
    outcome = execute(RUNS[:1], paths, never, options=Options(launch="a"))
    assert "was taken over by another process" in outcome.interrupted
    assert not paths.weights(RUNS[0]).exists() and not read_pool(paths.records).records
    assert not [*paths.work(RUNS[0]).glob("checkpoint*")]


def test_a_run_that_failed_in_this_launch_is_not_begun_again_by_another_job(paths, monkeypatch):
    paths.work(RUNS[0]).mkdir(parents=True)
    Status("failed", "run", 0.0, message="out of luck", launch="a").write(paths.work(RUNS[0]))
    assert execute(RUNS[:1], paths, never, options=Options(launch="a")).failures == {RUNS[0]: "out of luck"}
    assert execute(RUNS[:1], paths, never, options=Options(launch="b")) == Outcome({}), "another launch tries again"


def test_a_run_that_never_gets_further_is_given_up_and_the_others_go_on(paths, monkeypatch):
    options = Options(launch="a", max_starts=3)
    with monkeypatch.context() as patch:
        patch.setattr(worker, "training", Mock(side_effect=Killed))
        for _ in range(3):
            with pytest.raises(Killed):
                execute(RUNS, paths, never, options=options)
    outcome = execute(RUNS, paths, never, options=options)
    assert "given up: 3 starts" in outcome.failures[RUNS[0]] and RUNS[1] not in outcome.failures
    assert execute(RUNS, paths, never, options=Options(launch="b")) == Outcome({}), "another launch tries again"
    assert read_record(record_path(paths.records, RUNS[0]))["interruptions"] == 3


class Crowd(Pack):
    """Lets runs take turns, as on a GPU."""

    def __init__(self, device, limit, say):
        super().__init__(device)
        self.limit = 4


def test_a_run_that_got_nowhere_is_tried_again_without_neighbours(paths, monkeypatch):
    def dies(trainer, *arguments, **more):
        yield 1
        if trainer.run == RUNS[1]:
            raise Killed
        yield from training(trainer, *arguments, **more)

    companions = []

    def watched(trainer, *arguments, neighbours, **more):
        companions.append((trainer.run.seed, neighbours()))
        return (yield from training(trainer, *arguments, neighbours=neighbours, **more))

    training, options = worker.training, Options(launch="a", max_starts=3)
    runs = [*RUNS, Run("cifar_resnet8", TINY, "synthetic", 2)]
    monkeypatch.setattr(worker, "Pack", Crowd)
    with monkeypatch.context() as patch:
        patch.setattr(worker, "training", dies)
        with pytest.raises(Killed):
            execute(runs, paths, never, options=options)
    assert not read_pool(paths.records).records, "all went down with it"
    monkeypatch.setattr(worker, "training", watched)
    monkeypatch.setattr(worker, "CLAIM_SECONDS", 1e-4)
    assert execute(runs, paths, never, options=options) == Outcome({})
    assert {seed for seed, _ in companions} == {0, 1, 2} and not any(others for _, others in companions)


def test_a_run_that_fills_the_device_has_no_neighbours_but_the_others_have(paths, monkeypatch):
    def watched(trainer, *arguments, neighbours, **more):
        companions.setdefault(trainer.run, neighbours())
        return (yield from training(trainer, *arguments, neighbours=neighbours, **more))

    companions, training = {}, worker.training
    recipe = Recipe(iterations=2, batch_size=2, milestones=(), eval_interval=2, precision="fp32")
    task = Segmentation(stride=4, base=None, crop=None)
    whole = Run("cifar_bottleneck11", recipe, "synthetic_canvas64", 0, task=task)
    runs = [RUNS[0], whole, RUNS[1]]
    monkeypatch.setattr(worker, "Pack", Crowd)
    monkeypatch.setattr(worker, "training", watched)
    monkeypatch.setattr(worker, "CLAIM_SECONDS", 1e-4)
    assert execute(runs, paths, never) == Outcome({})
    assert companions == {RUNS[0]: 1, RUNS[1]: 1, whole: 0}


def short_of_memory(monkeypatch, is_short):
    """A crowd in which starts run out of memory where ``is_short(seed, start)``; each start's seed and neighbours."""
    starts, training = [], worker.training

    def started(trainer, *arguments, neighbours, **more):
        seed = trainer.run.seed
        starts.append((seed, neighbours()))
        yield 1
        if is_short(seed, sum(other == seed for other, _ in starts)):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return (yield from training(trainer, *arguments, neighbours=neighbours, **more))

    monkeypatch.setattr(worker, "Pack", Crowd)
    monkeypatch.setattr(worker, "training", started)
    monkeypatch.setattr(worker, "CLAIM_SECONDS", 1e-4)
    return starts


def test_a_start_that_ran_out_of_memory_among_neighbours_does_not_count(paths, monkeypatch):
    starts = short_of_memory(monkeypatch, lambda seed, start: seed == 1 and start < 3)
    runs = [Run("cifar_resnet8", TINY, "synthetic", seed) for seed in range(6)]
    assert execute(runs, paths, never, options=Options(launch="a", max_starts=2)) == Outcome({})
    assert starts[-1][0] == 1 and [others > 0 for seed, others in starts if seed == 1] == [True] * 3
    assert read_record(record_path(paths.records, runs[1]))["interruptions"] == 0


def test_a_start_that_ran_out_of_memory_after_a_checkpoint_is_on_the_list(paths):
    execute(RUNS[:1], paths, after_two_steps())
    folder = paths.work(RUNS[0])
    starts = json.loads((folder / "starts.json").read_text())
    take_back_start(folder, starts)
    assert json.loads((folder / "starts.json").read_text()) == starts
    take_back_start(folder, note_start(folder, "a", 3))
    assert json.loads((folder / "starts.json").read_text()) == starts


def test_runs_that_ran_out_of_memory_together_are_tried_alone(paths, monkeypatch):
    starts = short_of_memory(monkeypatch, lambda seed, start: start == 1)
    runs = [*RUNS, Run("cifar_resnet8", TINY, "synthetic", 2)]
    assert execute(runs, paths, never, options=Options(launch="a")) == Outcome({})
    assert [others for _, others in starts] == [2, 2, 2, 0, 0, 0]


def test_a_run_that_runs_out_of_memory_alone_has_failed(paths, monkeypatch):
    starts = short_of_memory(monkeypatch, lambda seed, start: seed == 1)
    outcome = execute(RUNS, paths, never, options=Options(launch="a"))
    assert list(outcome.failures) == [RUNS[1]] and "CUDA out of memory" in outcome.failures[RUNS[1]]
    assert starts == [(0, 1), (1, 1), (1, 0)]


def test_an_error_that_leaves_the_device_useless_ends_the_job_and_not_the_other_runs(paths, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(worker, "training", Mock(side_effect=RuntimeError("CUDA error: an illegal memory access")))
        patch.setattr(worker._Worker, "_device_is_lost", lambda own: True)
        with pytest.raises(DeviceLost, match="illegal memory access"):
            execute(RUNS, paths, never)
    assert not [run for run in RUNS if Status.read(paths.work(run)) is not None], "none is marked as failed"
    assert execute(RUNS, paths, never) == Outcome({})


def test_starts_that_get_further_are_not_counted(paths):
    eager = RunPaths(paths.out, paths.data, checkpoint_seconds=0)
    starts = 0
    while not record_path(paths.records, RUNS[0]).exists():
        assert not execute(RUNS[:1], eager, after_two_steps(), options=Options(launch="a")).failures
        starts += 1
        assert starts < 50
    assert starts > 2


def test_a_run_trained_again_knows_nothing_of_the_first_time(paths, monkeypatch):
    execute(RUNS[:1], paths, never)
    code = {"commit": "c0ffee", "modified": False, "resnet_sha256": "1" * 64}
    monkeypatch.setattr(provenance, "code_identity", lambda: code)
    path = record_path(paths.records, RUNS[0])
    path.unlink()
    assert execute(RUNS[:1], paths, never) == Outcome({})
    record = read_record(path)
    assert record["interruptions"] == 0 and record["code"] == code


@pytest.mark.parametrize(("has_checkpoint", "modified"), [(True, True), (False, False)])
def test_code_that_changed_between_two_starts_counts_if_the_first_left_a_checkpoint(
    paths, monkeypatch, has_checkpoint, modified
):
    def code(digit):
        identity = {"commit": digit * 40, "modified": False, "resnet_sha256": digit * 64}
        monkeypatch.setattr(provenance, "code_identity", lambda: identity)

    code("a")
    execute(RUNS[:1], paths, after_two_steps())
    assert (paths.work(RUNS[0]) / checkpoint.NEWEST).exists()
    if not has_checkpoint:
        (paths.work(RUNS[0]) / checkpoint.NEWEST).unlink()
    code("b")
    execute(RUNS[:1], paths, never)
    record = read_record(record_path(paths.records, RUNS[0]))
    assert record["code"]["modified"] is modified and record["interruptions"] == 1
    commits = [segment["code"]["commit"][0] for segment in record["segments"]]
    assert commits == (["a", "b"] if has_checkpoint else ["b"])


def test_the_list_of_starts_goes_with_the_work_that_it_is_of(paths):
    execute(RUNS[:1], paths, after_two_steps())
    assert len(json.loads((paths.work(RUNS[0]) / "starts.json").read_text())) == 1
    execute(RUNS[:1], paths, never)
    assert [path.name for path in paths.work(RUNS[0]).iterdir()] == ["owner.2"]


@pytest.mark.parametrize("content", ["{", "{}", "[1]", "null", ""])
def test_a_list_of_starts_that_is_none_fails_its_run_in_a_line_and_no_other(paths, content):
    path = paths.work(RUNS[0]) / "starts.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    outcome = execute(RUNS, paths, never, options=Options(launch="a"))
    said = f"{path} is not a list of the run's starts; remove it to count them anew"
    assert outcome.failures == {RUNS[0]: said} and record_path(paths.records, RUNS[1]).exists()
