"""Runs that learn from a teacher: trained after it and from its weights, or not at all and with the reason."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import submitit
import tiny
from fakes import make_record, store
from test_launchers import FakeCluster, Watcher, cluster, submit  # noqa: F401  (cluster is a fixture)
from trained import leave
from waiting import never

from reproductions.harness import cli
from reproductions.harness.experiment import Row, Variant
from reproductions.harness.launching import local
from reproductions.harness.launching.options import Options
from reproductions.harness.launching.run_paths import RunPaths
from reproductions.harness.launching.slurm import launch as slurm
from reproductions.harness.launching.slurm.cluster_profile import ClusterProfile
from reproductions.harness.launching.worker import Outcome, execute
from reproductions.harness.record_files import record_path, weights_path
from reproductions.harness.records import read_pool, read_record
from resnet import checkpoint
from resnet.checkpoint import digest_of_weights
from resnet.run import Run

TEACHER = Run("cifar_resnet14", tiny.TINY, "synthetic")
STUDENT = Run("cifar_resnet8", replace(tiny.TINY, temperature=4.0), "synthetic", teacher=TEACHER)
STUDENTS = [replace(STUDENT, seed=seed) for seed in range(3)]
DIVERGING = Run("cifar_resnet8", replace(tiny.TINY, learning_rate=1e30), "synthetic")


def finished(paths, run):
    """When the run finished, as its file tells."""
    return record_path(paths.records, run).stat().st_mtime_ns


@pytest.mark.parametrize("launch", ["", "a"])
def test_a_student_waits_for_its_teacher_and_learns_from_its_final_weights(paths, launch):
    other = Run("cifar_resnet8", tiny.TINY, "synthetic", seed=7)
    assert execute([STUDENT, other, TEACHER], paths, never, options=Options(launch=launch)) == Outcome({})
    student, teacher = (read_record(record_path(paths.records, run)) for run in (STUDENT, TEACHER))
    assert student["teacher_sha256"] == teacher["weights_sha256"] and teacher["teacher_sha256"] is None
    assert student["specification"]["teacher"] == TEACHER.specification()
    assert digest_of_weights(checkpoint.load(paths.weights(TEACHER))) == teacher["weights_sha256"]
    assert finished(paths, TEACHER) < finished(paths, STUDENT)


def test_a_student_without_a_teacher_in_sight_fails_and_the_others_are_trained(paths):
    other = Run("cifar_resnet8", tiny.TINY, "synthetic", seed=7)
    outcome = execute([STUDENT, other], paths, never)
    assert "teacher has no record" in outcome.failures[STUDENT] and str(TEACHER) in outcome.failures[STUDENT]
    assert set(outcome.failures) == {STUDENT} and record_path(paths.records, other).exists()


@pytest.mark.parametrize("launch", ["", "launched"])
def test_a_student_fails_with_its_teacher(paths, launch, monkeypatch):
    weights = RunPaths.weights

    def failing(self, run):
        if run == TEACHER:
            raise RuntimeError("no weights today")
        return weights(self, run)

    monkeypatch.setattr(RunPaths, "weights", failing)
    outcome = execute([TEACHER, STUDENT], paths, never, options=Options(launch=launch))
    assert set(outcome.failures) == {TEACHER, STUDENT}
    assert "its teacher failed" in outcome.failures[STUDENT] and "no weights today" in outcome.failures[STUDENT]


def test_a_diverged_teacher_teaches_nothing(paths):
    student = replace(STUDENT, teacher=DIVERGING)
    outcome = execute([DIVERGING, student], paths, never)
    assert set(outcome.failures) == {student} and "its teacher diverged" in outcome.failures[student]


def test_missing_damaged_and_other_weights_of_a_teacher(paths):
    assert execute([TEACHER], paths, never) == Outcome({})
    path, other = paths.weights(TEACHER), Run("cifar_resnet14", tiny.TINY, "synthetic", seed=1)
    content = path.read_bytes()
    path.unlink()
    (missing,) = execute([STUDENT], paths, never).failures.values()
    assert f"the weights of its teacher can't be used: the weights {path} are gone\n" in missing
    again = f"Move its record {record_path(paths.records, TEACHER)} away to have it trained again."
    assert again in missing
    path.write_bytes(content[:-9] + b"x" * 9)
    (damaged,) = execute([STUDENT], paths, never).failures.values()
    assert "is damaged" in damaged and again in damaged
    assert execute([other], paths, never) == Outcome({})
    path.write_bytes(paths.weights(other).read_bytes())
    (swapped,) = execute([STUDENT], paths, never).failures.values()
    assert f"{path} holds the weights" in swapped and "but the run's record says" in swapped and again in swapped
    path.write_bytes(content)
    assert execute([STUDENT], paths, never) == Outcome({})


def test_a_damaged_record_of_a_teacher_is_named(paths):
    assert execute([TEACHER], paths, never) == Outcome({})
    path = record_path(paths.records, TEACHER)
    path.write_text(json.dumps({**json.loads(path.read_text()), "parameters": 1}))
    (said,) = execute([STUDENT], paths, never).failures.values()
    assert str(path) in said and "edited or damaged" in said


def test_slurm_holds_students_back_for_a_teacher_of_an_earlier_launch(cluster, tmp_path):  # noqa: F811
    submit(tmp_path, [TEACHER])
    submit(tmp_path, [TEACHER, *STUDENTS])
    assert cluster.submissions[1].parameters["slurm_dependency"] == "afterany:12_0"
    store(Path(tmp_path) / "records", make_record(TEACHER, 30.0))
    cluster.living.clear()
    submit(tmp_path, [STUDENTS[0]])
    assert "slurm_dependency" not in cluster.submissions[2].parameters


# ---------------------------------------------------------------------------------------------------- published weights


@pytest.fixture
def published(tmp_path):
    """Where the teacher is published with its weights, and a place to work that knows of it."""
    leave(tmp_path / "results", TEACHER)
    return RunPaths(tmp_path / "out", tmp_path, published=tmp_path / "results")


def taught_by(paths, run=STUDENT):
    """The digest of the weights that a run learned from."""
    return read_record(record_path(paths.records, run))["teacher_sha256"]


def published_digest(paths):
    return read_record(record_path(paths.published / "records", TEACHER))["weights_sha256"]


def test_a_student_learns_from_published_weights_and_its_teacher_is_not_trained(published):
    assert execute([STUDENT], published, never) == Outcome({})
    assert taught_by(published) == published_digest(published)
    assert not record_path(published.records, TEACHER).exists() and not published.weights(TEACHER).exists()


@pytest.mark.parametrize("lacking", ["record", "weights"])
def test_a_teacher_of_which_only_a_part_is_published_has_to_be_trained(published, lacking):
    paths = {"record": record_path(published.published / "records", TEACHER),
             "weights": weights_path(published.published, TEACHER)}  # fmt: skip
    paths[lacking].unlink()
    assert "teacher has no record in" in execute([STUDENT], published, never).failures[STUDENT]
    assert execute([TEACHER, STUDENT], published, never) == Outcome({})


def test_a_teacher_that_is_trained_here_all_the_same_is_the_one_to_learn_from(published):
    assert execute([STUDENT, TEACHER], published, never) == Outcome({})
    own = read_record(record_path(published.records, TEACHER))["weights_sha256"]
    assert taught_by(published) == own != published_digest(published)
    assert execute([STUDENTS[1]], published, never) == Outcome({})  # by a later launch, too
    assert taught_by(published, STUDENTS[1]) == own


def test_published_weights_that_are_not_the_records_are_refused(published):
    path = weights_path(published.published, TEACHER)
    path.write_bytes(path.read_bytes()[:-1])
    said = execute([STUDENT], published, never).failures[STUDENT]
    assert "the weights of its teacher can't be used" in said and f"{path} is damaged" in said
    assert "Restore that file, or move it away to have the run trained here." in said
    leave(published.published / "other", replace(TEACHER, seed=1))
    shutil.copy(weights_path(published.published / "other", replace(TEACHER, seed=1)), path)
    assert f"{path} holds the weights" in execute([STUDENT], published, never).failures[STUDENT]


@pytest.mark.slow
def test_a_job_of_the_local_queue_finds_published_weights(published):
    assert local.launch([STUDENT], published, Watcher(1), Options(slots=1)) == Outcome({})
    assert taught_by(published) == published_digest(published)


def test_a_job_on_slurm_is_told_where_they_are_from_wherever_it_runs(cluster, published, monkeypatch):  # noqa: F811
    monkeypatch.chdir(published.data)
    paths = replace(published, out=Path("out"), published=Path("results"))
    assert slurm.launch([STUDENT], paths, Watcher(1), Options(detach=True)).detached
    (job,) = cluster.submissions[0].jobs
    assert job.paths == replace(published, data=published.data.resolve()) and job.paths.only_published(TEACHER)
    slurm.launch([STUDENTS[1]], replace(paths, published=None), Watcher(1), Options(detach=True))
    assert cluster.submissions[1].jobs[0].paths.published is None


def test_the_jobs_of_teachers_and_of_their_students_are_together_no_more_than_the_profile_says(cluster, tmp_path):  # noqa: F811
    teachers = [replace(TEACHER, seed=seed) for seed in range(3)]
    runs = [*teachers, *(replace(STUDENT, seed=seed, teacher=t) for seed in range(3) for t in teachers)]
    paths, profile = RunPaths(tmp_path, tmp_path), ClusterProfile(max_jobs=8)
    assert slurm.launch(runs, paths, Watcher(1), Options(detach=True, slurm=profile)).detached
    assert [len(submission.jobs) for submission in cluster.submissions] == [2, 6]
    assert all(job.runs == runs for submission in cluster.submissions for job in submission.jobs)


def test_of_students_that_slurm_refuses_the_jobs_of_their_teachers_are_told(cluster, tmp_path, monkeypatch):  # noqa: F811
    submit_array, paths = submitit.AutoExecutor.submit_array, RunPaths(tmp_path, tmp_path)

    def refuse_the_second(self, jobs):
        if cluster.submissions:
            raise RuntimeError("AssocMaxSubmitJobLimit")
        return submit_array(self, jobs)

    monkeypatch.setattr(submitit.AutoExecutor, "submit_array", refuse_the_second)
    with pytest.raises(
        ValueError, match="AssocMaxSubmitJobLimit(.|\n)*\nBut the jobs 12, which were submitted before, go on"
    ):
        slurm.launch([TEACHER, *STUDENTS], paths, Watcher(1), Options(detach=True))


def make_distilled():
    """An experiment with a distilled row, which names a teacher outside the table, and a row like any other."""
    teacher = Row("teacher", "the teacher", TEACHER.model, TEACHER.recipe, "synthetic", keep_weights=1)
    plain = Row("plain", "plain", STUDENT.model, tiny.TINY, "synthetic")
    distilled = replace(plain, key="distilled", label="distilled", recipe=STUDENT.recipe, teacher=teacher)
    return replace(tiny.make_experiment(), rows=lambda profile: [plain, distilled]), teacher


@pytest.mark.slow
def test_a_launch_of_students_does_not_train_a_published_teacher_again(published, monkeypatch, capsys):
    monkeypatch.setattr(cli, "PUBLISHED", published.published)
    arguments = ["--profile", "smoke", "--seeds", "1", "--out", str(published.out)]
    experiment, _ = make_distilled()
    assert cli.run_experiment(experiment, [*arguments, "--dry-run"]) == 0
    said = capsys.readouterr()
    assert "2 of 2 runs to be trained" in said.out and "not trained again" in said.err
    assert cli.run_experiment(experiment, arguments) == 0
    said = capsys.readouterr().err
    assert f"published in {published.published / 'weights'}: {TEACHER}\n" in said and "2 runs, 0 already" in said
    assert taught_by(published) == published_digest(published)
    assert not record_path(published.records, TEACHER).exists()
    weights_path(published.published, TEACHER).unlink()
    assert cli.run_experiment(experiment, arguments) == 0
    said = capsys.readouterr().err
    assert "3 runs, 2 already recorded" in said and "not trained again" not in said
    assert record_path(published.records, TEACHER).exists()


def test_what_is_given_is_left_out_with_what_it_needs_unless_it_is_a_row_itself():
    experiment, teacher = make_distilled()
    first = replace(teacher, key="first", data="synthetic_first5")
    tuned = replace(teacher, key="tuned", pretrained=first)
    row = replace(experiment.rows("smoke")[1], teacher=tuned)
    variant, student = Variant("smoke"), row.run(0)
    for rows, given, wanted in [
        ([row], [], [first.run(0), tuned.run(0), student]),
        ([row], [tuned], [student]),
        ([row], [first], [tuned.run(0), student]),
        ([row, tuned], [tuned], [first.run(0), student, tuned.run(0)]),
    ]:
        chosen = replace(experiment, rows=lambda profile, rows=rows: rows)
        assert chosen.runs(variant, 1, None, [one.run(0) for one in given].__contains__) == wanted


def test_a_published_teacher_is_shown_beside_its_students(published):
    experiment, teacher = make_distilled()
    pools = [read_pool(folder / "records") for folder in (published.out, published.published)]
    assert [result.teacher for result in experiment.results(Variant("smoke"), 1, *pools)] == [None, None]
    store(published.records, make_record(STUDENT, 30.0, teacher_sha256=published_digest(published)))
    pools[0] = read_pool(published.records)
    _, distilled = experiment.results(Variant("smoke"), 1, *pools)
    assert distilled.teacher["identity"] == teacher.run(0).identity == TEACHER.identity
    store(published.out / "other", make_record(STUDENT, 30.0, teacher_sha256="3" * 64))  # learned from another one
    assert experiment.results(Variant("smoke"), 1, read_pool(published.out / "other"), pools[1])[1].teacher is None
    own = store(published.records, make_record(TEACHER, 20.0))[0]
    _, distilled = experiment.results(Variant("smoke"), 1, read_pool(published.records), pools[1])
    assert distilled.teacher == own
