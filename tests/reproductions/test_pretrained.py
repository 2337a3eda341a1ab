"""Runs that begin with another's weights: trained after it, from its final weights, and recorded so."""

import time
from dataclasses import replace

import pytest
import tiny
import torch
from fakes import make_record
from test_launchers import Watcher, cluster, submit  # noqa: F401  (cluster is a fixture)
from test_teachers import finished
from waiting import never

from reproductions.harness.experiment import Row, Variant
from reproductions.harness.launching import cost, local
from reproductions.harness.launching.options import Options
from reproductions.harness.launching.worker import Outcome, execute
from reproductions.harness.record_files import RecordError, record_path
from reproductions.harness.records import read_record, write_record
from resnet.recipe import Recipe
from resnet.run import Run

FIRST = Run("cifar_resnet8", tiny.TINY, "synthetic_first5")
TUNED = Run("cifar_resnet8", tiny.TINY, "synthetic_last5", pretrained=FIRST)
# A student whose teacher was pretrained: the runs that it needs need others.
STUDENT = Run("cifar_resnet8", replace(tiny.TINY, temperature=4.0), "synthetic_last5", teacher=TUNED)


def test_runs_wait_for_those_that_they_need_and_record_their_weights(paths):
    assert execute([STUDENT, TUNED, FIRST], paths, never) == Outcome({})
    student, tuned, first = (read_record(record_path(paths.records, run)) for run in (STUDENT, TUNED, FIRST))
    assert tuned["pretrained_sha256"] == first["weights_sha256"] and tuned["teacher_sha256"] is None
    assert student["teacher_sha256"] == tuned["weights_sha256"] and student["pretrained_sha256"] is None
    assert tuned["specification"]["pretrained"] == FIRST.specification()
    assert finished(paths, FIRST) < finished(paths, TUNED) < finished(paths, STUDENT)


def test_what_is_missing_is_named(paths):
    assert "its pre-training has no record" in execute([TUNED], paths, never).failures[TUNED]
    diverging = replace(FIRST, recipe=replace(tiny.TINY, learning_rate=1e30))
    run = replace(TUNED, pretrained=diverging)
    assert "its pre-training diverged" in execute([diverging, run], paths, never).failures[run]
    assert execute([FIRST], paths, never) == Outcome({})
    paths.weights(FIRST).unlink()
    assert "the weights of its pre-training can't be used" in execute([TUNED], paths, never).failures[TUNED]


@pytest.mark.slow
def test_in_the_local_queue_a_chain_is_trained_in_its_order(paths, monkeypatch):
    started, submit_job = [], local.submit

    def noted(job, slot):
        started.append((job.runs[job.first], time.time_ns()))
        return submit_job(job, slot)

    monkeypatch.setattr(local, "submit", noted)
    assert local.launch([STUDENT, TUNED, FIRST], paths, Watcher(3), Options(slots=2)) == Outcome({})
    assert started[0][0] == FIRST and len(started) <= 3, "what waits keeps no slot busy"
    assert all(when > finished(paths, FIRST) for _, when in started[1:])
    assert finished(paths, FIRST) < finished(paths, TUNED) < finished(paths, STUDENT)


def test_slurm_submits_a_chain_in_stages(cluster, tmp_path):  # noqa: F811
    other = Run("cifar_resnet8", tiny.TINY, "synthetic", seed=7)
    submit(tmp_path, [STUDENT, TUNED, other, FIRST])
    stages = [[job.runs[job.first] for job in submission.jobs] for submission in cluster.submissions]
    assert stages == [[other, FIRST], [TUNED], [STUDENT]]
    dependencies = [submission.parameters.get("slurm_dependency") for submission in cluster.submissions]
    assert dependencies == [None, "afterany:12_1", "afterany:13_0"]


def test_a_record_says_what_its_run_was_pretrained_as_if_and_only_if_it_was(tmp_path):
    for run, digest in ((TUNED, None), (FIRST, "0" * 64)):
        record = make_record(run, 8.5)
        write_record(tmp_path / "valid", record)
        with pytest.raises(RecordError, match="its pretrained differs from its specification"):
            write_record(tmp_path / "not valid", record | {"pretrained_sha256": digest})


def test_the_runs_of_rows_come_after_those_that_they_need():
    first = Row("first", "first", "cifar_resnet8", tiny.TINY, "synthetic_first5")
    tuned = replace(first, key="tuned", data="synthetic_last5", pretrained=first)
    experiment = replace(tiny.make_experiment(), rows=lambda profile: [tuned])
    runs = experiment.runs(Variant(), 2)
    assert runs == [first.run(0), first.run(1), tuned.run(0), tuned.run(1)]
    assert [run.pretrained for run in runs[2:]] == runs[:2]
    precise = experiment.runs(Variant(precision="fp32"), 1)
    assert {run.recipe.precision for run in precise} == {"fp32"} and precise[1].pretrained == precise[0]


def test_the_cost_of_a_step_is_measured_without_the_pretraining():
    run = replace(TUNED, recipe=Recipe(iterations=4, milestones=(), batch_size=4, eval_interval=4))
    assert cost.measured_rate(run, torch.device("cpu"), steps=1).images_per_second > 0
