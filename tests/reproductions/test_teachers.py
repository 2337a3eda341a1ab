"""Runs that learn from a teacher: trained after it and from its weights, or not at all and with the reason."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from fakes import make_record, store
from test_launchers import FakeCluster, Watcher, cluster, submit  # noqa: F401  (cluster is a fixture)

from reproductions.harness import launching
from reproductions.harness.launching import local
from reproductions.harness.launching.worker import Outcome, Way, execute
from reproductions.harness.launching.workplace import Workplace
from reproductions.harness.records import read_record, record_path
from resnet import checkpoint
from resnet.checkpoint import digest_of_weights
from resnet.run import Run

TEACHER = Run("cifar_resnet14", tiny.TINY, "synthetic")
STUDENT = Run("cifar_resnet8", replace(tiny.TINY, temperature=4.0), "synthetic", teacher=TEACHER)
STUDENTS = [replace(STUDENT, seed=seed) for seed in range(3)]
DIVERGING = Run("cifar_resnet8", replace(tiny.TINY, learning_rate=1e30), "synthetic")


@pytest.fixture
def place(tmp_path):
    return Workplace(tmp_path, tmp_path)


def never():
    return False


def finished(place, run):
    """When the run finished, as its file tells."""
    return record_path(place.records, run).stat().st_mtime_ns


@pytest.mark.parametrize("wait", [True, False])
def test_a_student_waits_for_its_teacher_and_learns_from_its_final_weights(place, wait):
    other = Run("cifar_resnet8", tiny.TINY, "synthetic", seed=7)
    assert execute([STUDENT, other, TEACHER], place, never, way=Way(wait=wait)) == Outcome({})
    student, teacher = (read_record(record_path(place.records, run)) for run in (STUDENT, TEACHER))
    assert student["teacher_sha256"] == teacher["weights_sha256"] and teacher["teacher_sha256"] is None
    assert student["specification"]["teacher"] == TEACHER.specification()
    assert digest_of_weights(checkpoint.load(place.weights(TEACHER))) == teacher["weights_sha256"]
    assert finished(place, TEACHER) < finished(place, STUDENT)


def test_a_student_whose_teacher_was_trained_before_begins_at_once(place):
    assert execute([TEACHER], place, never) == Outcome({})
    assert execute([STUDENT], place, never) == Outcome({})


def test_a_student_without_a_teacher_in_sight_fails_and_the_others_are_trained(place):
    other = Run("cifar_resnet8", tiny.TINY, "synthetic", seed=7)
    outcome = execute([STUDENT, other], place, never)
    assert "teacher has no record" in outcome.failures[STUDENT] and str(TEACHER) in outcome.failures[STUDENT]
    assert set(outcome.failures) == {STUDENT} and record_path(place.records, other).exists()


@pytest.mark.parametrize("launch", ["", "launched"])
def test_a_student_fails_with_its_teacher(place, launch, monkeypatch):
    weights = Workplace.weights

    def failing(self, run):
        if run == TEACHER:
            raise RuntimeError("no weights today")
        return weights(self, run)

    monkeypatch.setattr(Workplace, "weights", failing)
    outcome = execute([TEACHER, STUDENT], place, never, way=Way(launch=launch))
    assert set(outcome.failures) == {TEACHER, STUDENT}
    assert "its teacher failed" in outcome.failures[STUDENT] and "no weights today" in outcome.failures[STUDENT]


def test_a_diverged_teacher_teaches_nothing(place):
    student = replace(STUDENT, teacher=DIVERGING)
    outcome = execute([DIVERGING, student], place, never)
    assert set(outcome.failures) == {student} and "its teacher diverged" in outcome.failures[student]


def test_missing_damaged_and_other_weights_of_a_teacher(place):
    assert execute([TEACHER], place, never) == Outcome({})
    path, other = place.weights(TEACHER), Run("cifar_resnet14", tiny.TINY, "synthetic", seed=1)
    content = path.read_bytes()
    path.unlink()
    (missing,) = execute([STUDENT], place, never).failures.values()
    assert f"the weights of its teacher can't be used: the weights {path} are gone\n" in missing
    again = f"Move its record {record_path(place.records, TEACHER)} away to have it trained again."
    assert again in missing
    path.write_bytes(content[:-9] + b"x" * 9)
    (damaged,) = execute([STUDENT], place, never).failures.values()
    assert "is damaged" in damaged and again in damaged
    assert execute([other], place, never) == Outcome({})
    path.write_bytes(place.weights(other).read_bytes())
    (swapped,) = execute([STUDENT], place, never).failures.values()
    assert f"{path} holds the weights" in swapped and "but the run's record says" in swapped and again in swapped
    path.write_bytes(content)
    assert execute([STUDENT], place, never) == Outcome({})


def test_a_damaged_record_of_a_teacher_is_named(place):
    assert execute([TEACHER], place, never) == Outcome({})
    path = record_path(place.records, TEACHER)
    path.write_text(json.dumps({**json.loads(path.read_text()), "parameters": 1}))
    (said,) = execute([STUDENT], place, never).failures.values()
    assert str(path) in said and "edited or damaged" in said


def test_in_the_local_queue_students_wait_without_keeping_slots_busy(place, monkeypatch):
    started, submit_job = [], local._submit

    def noted(job, slot):
        started.append((job.runs[job.first], time.time_ns()))
        return submit_job(job, slot)

    monkeypatch.setattr(local, "_submit", noted)
    watcher = Watcher(4)
    assert local.launch([*STUDENTS, TEACHER], place, watcher, launching.Options(slots=2)) == Outcome({})
    assert started[0][0] == TEACHER and len(started) <= 4
    assert all(when > finished(place, TEACHER) for run, when in started[1:])


def test_slurm_holds_students_back_until_the_teachers_job_has_ended(cluster, tmp_path):  # noqa: F811
    other = Run("cifar_resnet8", tiny.TINY, "synthetic", seed=7)
    submit(tmp_path, [*STUDENTS, other, TEACHER])
    first, second = cluster.submissions
    assert [job.runs[job.first] for job in first.jobs] == [
        other,
        TEACHER,
    ] and "slurm_dependency" not in first.parameters
    assert [job.runs[job.first] for job in second.jobs] == STUDENTS
    assert second.parameters["slurm_dependency"] == "afterany:12_1"
    assert all(job.runs == [*STUDENTS, other, TEACHER] for job in (*first.jobs, *second.jobs))


def test_slurm_holds_students_back_for_a_teacher_of_an_earlier_launch(cluster, tmp_path):  # noqa: F811
    submit(tmp_path, [TEACHER])
    submit(tmp_path, [TEACHER, *STUDENTS])
    assert cluster.submissions[1].parameters["slurm_dependency"] == "afterany:12_0"
    store(Path(tmp_path) / "records", make_record(TEACHER, 30.0))
    cluster.living.clear()
    submit(tmp_path, [STUDENTS[0]])
    assert "slurm_dependency" not in cluster.submissions[2].parameters
