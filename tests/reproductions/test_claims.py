"""One process trains a run, whatever else is launched on the same folder; what others left behind does no harm."""

import json
from pathlib import Path

import pytest
from fakes import make_record, store
from tiny import TINY

from reproductions.harness import provenance
from reproductions.harness.launching import job
from reproductions.harness.launching.job import Outcome, execute
from reproductions.harness.launching.workplace import Workplace
from reproductions.harness.records import read_pool, read_record, record_path
from resnet.run import Run

RUNS = [Run("cifar_resnet8", TINY, "synthetic", seed) for seed in range(2)]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "_CLAIM_SECONDS", 0.0)
    return Workplace(tmp_path, Path("data"))


def test_a_run_can_be_claimed_once_at_a_time(place):
    with job._claim(place.work(RUNS[0])) as first, job._claim(place.work(RUNS[0])) as second:
        assert first and not second
    with job._claim(place.work(RUNS[0])) as again, job._claim(place.work(RUNS[1])) as other:
        assert again and other


def test_a_run_that_another_process_trains_is_waited_for_while_the_others_are_trained(place):
    seen = []

    def on_status(run, status):
        seen.append((run.seed, status.state))
        if seen.count((0, "waiting")) == 2:  # the other process is done
            store(place.records, make_record(RUNS[0], 20.0))

    with job._claim(place.work(RUNS[0])):
        assert execute(RUNS, place, lambda: False, on_status) == Outcome({})
    records = {r["specification"]["seed"]: r for r in read_pool(place.records).records.values()}
    assert records[0]["weights_sha256"] == "0" * 64, "the other process's record"
    assert records[1]["weights_sha256"] != "0" * 64 and seen[0] == (0, "waiting") and seen[-1] == (0, "done")


def test_waiting_for_another_process_can_be_stopped(place):
    stop = []
    with job._claim(place.work(RUNS[0])):
        outcome = execute(RUNS[:1], place, lambda: bool(stop), lambda run, status: stop.append(True))
    assert outcome.interrupted and not read_pool(place.records).records


def train_again(place, run):
    """Train a run whose record was moved away."""
    path = record_path(place.records, run)
    path.unlink()
    assert execute([run], place, lambda: False) == Outcome({})
    return read_record(path)


def test_a_run_trained_again_knows_nothing_of_the_first_time(place, monkeypatch):
    execute(RUNS[:1], place, lambda: False)
    code = {"commit": "c0ffee", "modified": False, "resnet_sha256": "1" * 64}
    monkeypatch.setattr(provenance, "code_identity", lambda: code)
    record = train_again(place, RUNS[0])
    assert record["interruptions"] == 0 and record["code"] == code


@pytest.mark.parametrize(("checkpoint", "modified"), [(True, True), (False, False)])
def test_code_that_changed_between_two_starts_counts_if_the_first_left_a_checkpoint(
    place, monkeypatch, checkpoint, modified
):
    def code(digit):
        identity = {"commit": digit * 40, "modified": False, "resnet_sha256": digit * 64}
        monkeypatch.setattr(provenance, "code_identity", lambda: identity)

    code("a")
    stops = iter([False, False, True])
    execute(RUNS[:1], place, lambda: next(stops))
    assert (place.work(RUNS[0]) / "checkpoint.pt").exists()
    if not checkpoint:
        (place.work(RUNS[0]) / "checkpoint.pt").unlink()
    code("b")
    execute(RUNS[:1], place, lambda: False)
    record = read_record(record_path(place.records, RUNS[0]))
    assert record["code"]["modified"] is modified and record["interruptions"] == 1


def test_the_list_of_starts_goes_with_the_work_that_it_is_of(place):
    stops = iter([False, False, True])
    execute(RUNS[:1], place, lambda: next(stops))
    assert len(json.loads((place.work(RUNS[0]) / "starts.json").read_text())) == 1
    execute(RUNS[:1], place, lambda: False)
    assert [path.name for path in place.work(RUNS[0]).iterdir()] == ["lock"]
