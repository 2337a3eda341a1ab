"""Time that ends: which runs are lacking, which of them are taken, and that nothing is lost when it is over."""

import math
import signal
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny
import torch
from fakes import make_record, store
from test_cli import dry_make, would_run
from test_launchers import RUNS, cluster, launch  # noqa: F401  (cluster is a fixture)

from reproductions import __main__ as main
from reproductions import commands, degradation
from reproductions.experiments import evidence
from reproductions.harness import cli, provenance
from reproductions.harness.experiment import Variant
from reproductions.harness.launch import wanted_runs
from reproductions.harness.launching import budget, cost, job, local
from reproductions.harness.launching.budget import Beginning, Budget, Plan, lacking, make_plan
from reproductions.harness.launching.cost import Rate, work_of
from reproductions.harness.launching.job import Job
from reproductions.harness.launching.options import Options
from reproductions.harness.launching.progress import Display
from reproductions.harness.launching.run_paths import RunPaths
from reproductions.harness.launching.slurm import queue
from reproductions.harness.launching.slurm.cluster_profile import ClusterProfile
from reproductions.harness.launching.worker import Outcome
from reproductions.harness.record_files import record_path
from reproductions.harness.records import read_pool
from resnet import checkpoint
from resnet.recipe import Recipe
from resnet.run import Run

SMOKE = Variant("smoke")
PAPER_RUNS = [Run("cifar_resnet20", Recipe(), "cifar10", seed) for seed in range(5)]
STUDENT = Run("cifar_resnet8", replace(tiny.TINY, temperature=4.0), "synthetic", teacher=RUNS[0])
CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("published")


# ------------------------------------------------------------------------------------------------------------ the plan


def plan_of(hours, begun=()):
    """A plan for runs that take so many hours, None for an unknown time."""
    runs = PAPER_RUNS[: len(hours)]
    seconds = {run: 3600 * value for run, value in zip(runs, hours) if value is not None}
    order = [runs[i] for i in begun] + [run for i, run in enumerate(runs) if i not in begun]
    return Plan(order, {runs[i]: Beginning(5, "fp32", None, None) for i in begun}, seconds=seconds)


@pytest.mark.parametrize(
    ("hours", "begun", "slots", "expected"),
    [
        ([1, 1, 1], (), 1, {0: True, 1: True}),
        ([5, 1, 1], (), 1, {1: True, 2: True}),  # those that will finish come before a longer one
        ([5, 1.5, 9], (), 1, {1: True, 0: False}),  # which is begun if nothing else is left
        ([5, 1, 1], (0,), 1, {0: False}),  # begun ones come first
        ([5, 1, 1, 2], (0,), 2, {0: False, 1: True, 2: True}),
        ([None, 1, None], (), 1, {1: True, 0: False}),
        ([3, 3], (), 2, {0: False, 1: False}),
    ],
)
def test_time_goes_to_begun_runs_then_to_those_that_will_finish(hours, begun, slots, expected):
    found = plan_of(hours, begun).within(minutes=120, slots=slots)
    assert [(PAPER_RUNS.index(run), finished) for run, finished in found.items()] == [*expected.items()]


def test_time_goes_to_a_student_only_behind_its_teacher():
    runs = [RUNS[0], STUDENT]

    def within(*hours):
        return Plan(runs, seconds={run: 3600.0 * own for run, own in zip(runs, hours)}).within(minutes=120, slots=2)

    assert within(3, 1) == {RUNS[0]: False} and within(1, 1) == {RUNS[0]: True, STUDENT: True}


def test_jobs_are_as_many_as_the_known_hours_take_and_one_for_each_unknown_run():
    assert plan_of([1, 1, 0.5]).jobs(minutes=60) == 3
    assert plan_of([1, None, 0.5, None]).jobs(minutes=120) == 1 + 2


def test_a_worker_ranks_runs_as_the_plan_does():
    plan = plan_of([0.5, 0.1, None, 0.1], begun=(3,))
    waiting = Budget(minutes=10, plan=plan)
    given = waiting.started()
    assert [given.rank(run, neighbours=0) for run in PAPER_RUNS[:4]] == [2, 1, 2, 0]
    assert given.rank(PAPER_RUNS[1], neighbours=1) == 2  # which shares the device, and would take twice as long
    assert not given.over and 500 < given.until - time.time() <= 600
    assert waiting.until == math.inf
    assert {Budget().rank(run, 5) for run in PAPER_RUNS} == {1}  # without an end nothing is preferred


# ------------------------------------------------------------------------------------------------------ what is lacking


def test_lacking_is_what_neither_folder_has(tmp_path):
    store(tmp_path / "own" / "records", make_record(RUNS[0], 20.0))
    store(tmp_path / "published" / "records", make_record(RUNS[1], 20.0))
    own, others = (read_pool(tmp_path / name / "records") for name in ("own", "published"))
    assert lacking(RUNS[:3], [own, others]) == [RUNS[2]]
    assert lacking(RUNS[:3], [own]) == [RUNS[1], RUNS[2]]


def test_a_teacher_whose_weights_are_gone_is_lacking_before_its_student(tmp_path):
    teacher = STUDENT.teacher
    store(tmp_path / "records", make_record(teacher, 20.0))
    assert lacking([STUDENT], [read_pool(tmp_path / "records")]) == [teacher, STUDENT]
    paths = RunPaths(tmp_path, tmp_path)
    paths.weights(teacher).parent.mkdir()
    paths.weights(teacher).write_bytes(b"weights")
    assert lacking([STUDENT], [read_pool(tmp_path / "records")]) == [STUDENT]


def begin(paths, run, iteration=3, precision="fp32", **code):
    """A run with a checkpoint of this code or another."""
    paths.work(run).mkdir(parents=True)
    segment = {"origin": {"code": {**provenance.code_identity(), **code}}}
    history = {"segments": [segment]}
    checkpoint.save(paths.work(run), {"iteration": iteration, "precision": precision, "history": history})


def plan(paths, runs, partners=None):
    """A plan in which every run takes an hour."""
    images = runs[0].recipe.iterations * runs[0].recipe.batch_size
    known, rate = partners or {}, Rate(images / 3600, 1.0, "made up")
    return make_plan(runs, paths, CPU, lambda r: known.get(r, []), lambda timed: {work_of(r): rate for r in timed})


def test_begun_runs_come_first_and_only_what_is_left_of_them_counts(paths):
    begin(paths, RUNS[2], iteration=4)
    found = plan(paths, RUNS[:3])
    assert found.runs == [RUNS[2], RUNS[0], RUNS[1]] and found.begun[RUNS[2]].iteration == 4
    assert [found.seconds[run] for run in found.runs] == pytest.approx([1200.0, 3600.0, 3600.0])  # 4 of 6 done


def test_a_run_begun_under_other_code_is_left_and_its_commit_named(paths):
    begin(paths, RUNS[0], commit="deadbeef99", resnet_sha256="0" * 64)
    found = plan(paths, RUNS[:2])
    assert found.runs == [RUNS[1]] and not found.begun
    assert "commit deadbeef99" in found.left[RUNS[0]]


def test_a_run_goes_on_in_the_precision_of_its_checkpoint(paths, monkeypatch):
    begin(paths, RUNS[0], precision="bf16")
    found = plan(paths, [RUNS[0]])
    assert found.runs == [] and found.left[RUNS[0]] == "begun in bf16, which this device does not have"
    monkeypatch.setattr(budget, "has_bf16", lambda device: True)
    assert plan(paths, [RUNS[0]]).precisions == {RUNS[0]: "bf16"}


def test_a_run_is_trained_in_the_precision_of_those_that_it_is_paired_with(paths):
    partner = {"hardware": {"type": "cpu"}}
    in_bf16, in_fp32 = (make_record(RUNS[1], 20.0, precision=name, **partner) for name in ("bf16", "fp32"))
    assert plan(paths, [RUNS[0]], {RUNS[0]: [in_bf16]}).precisions == {RUNS[0]: "bf16"}
    assert plan(paths, [RUNS[0]], {RUNS[0]: [in_fp32]}).precisions == {}
    found = plan(paths, [RUNS[0]], {RUNS[0]: [in_bf16, in_fp32]})
    assert found.runs == [] and "trained in bf16 and fp32" in found.left[RUNS[0]]
    on_gpu = make_record(RUNS[1], 20.0, precision="bf16")  # which no run here can be paired with
    assert plan(paths, [RUNS[0]], {RUNS[0]: [on_gpu]}).precisions == {}
    named = replace(RUNS[0], recipe=replace(RUNS[0].recipe, precision="fp32"))
    assert plan(paths, [named], {named: [in_bf16]}).precisions == {}


def test_a_student_of_a_teacher_that_is_left_is_left_too(paths):
    begin(paths, STUDENT.teacher, commit="deadbeef99", resnet_sha256="0" * 64)
    found = plan(paths, [STUDENT.teacher, STUDENT])
    assert found.runs == [] and found.left[STUDENT].startswith("its teacher can't be trained here: begun under commit")


# ------------------------------------------------------------------------------------------------------------- launches


def run(out, *arguments, iterations=6, depths=(8, 14)):
    experiment = tiny.make_experiment(tiny.longer(iterations) if iterations > 6 else tiny.TINY, depths=depths)
    flags = ["--profile", "smoke", "--seeds", "1", "--out", str(out)]
    return cli.run_experiment(experiment, [*flags, *arguments])


@pytest.mark.parametrize(
    "launcher",
    [["--launcher", "inline"], pytest.param(["--launcher", "local", "--slots", "2"], marks=pytest.mark.slow)],
)
def test_what_is_lacking_is_trained_and_what_is_published_is_not(tmp_path, published, capsys, launcher):
    first, second = tiny.make_experiment().runs(SMOKE, 1)
    store(published / "records", make_record(first, 20.0))
    out = tmp_path / "runs"
    assert run(out, "--minutes", "5", *launcher) == 0
    assert set(read_pool(out / "records").records) == {second.identity}
    said = capsys.readouterr()
    assert "lacking: 1 run, 0 of them begun; 5 minutes" in said.err and "wrote" in said.out
    assert "1 of 1 lacking runs were finished, 0 have checkpoints" in said.err
    if launcher[1] == "inline":
        assert run(out, "--minutes", "5", "--all", *launcher) == 0
        assert set(read_pool(out / "records").records) == {first.identity, second.identity}


@pytest.mark.slow
def test_a_run_stops_at_a_checkpoint_when_the_time_is_over_and_goes_on_from_there(tmp_path, capsys):
    long, out = 40_000, tmp_path / "runs"
    (wanted,) = tiny.make_experiment(tiny.longer(long), depths=(8,)).runs(SMOKE, 1)
    paths, flags = RunPaths(out, tmp_path), ["--checkpoint-seconds", "1000", "--launcher", "inline"]
    started = time.monotonic()
    assert run(out, "--minutes", "0.2", *flags, iterations=long, depths=(8,)) == 0
    assert time.monotonic() - started < 60
    done = checkpoint.load_latest(paths.work(wanted))["iteration"]
    assert 0 < done < long and not record_path(paths.records, wanted).exists()
    said = capsys.readouterr().err
    assert "0 of 1 lacking runs were finished, 1 have checkpoints to go on from" in said
    assert "The time of 0.2 minutes is over" in said and "the same command goes on from there" in said
    assert run(out, "--minutes", "0.05", "--dry-run", *flags, iterations=long, depths=(8,)) == 0
    assert f"at {done:,} of {long:,}" in " ".join(capsys.readouterr().out.split())


def test_runs_that_will_not_finish_wait_for_those_that_will(tmp_path, monkeypatch):
    """The longest row comes first in the table, and last in the time that is left."""
    begun, update = [], Display.update

    def rates(runs, *_, **__):
        return {work_of(run): SLOW if run.model == "cifar_resnet14" else FAST for run in runs}

    def note(self, run, status):
        begun.append(run.model)
        update(self, run, status)

    monkeypatch.setattr(cost, "rates_here", rates)
    monkeypatch.setattr(Display, "update", note)
    assert run(tmp_path / "runs", "--minutes", "5", "--launcher", "inline", depths=(14, 8)) == 0
    assert list(dict.fromkeys(begun)) == ["cifar_resnet8", "cifar_resnet14"]


def test_the_local_queue_starts_no_job_once_the_time_is_over(tmp_path):
    paths, over = RunPaths(tmp_path, tmp_path), Options(slots=1, budget=Budget(until=time.time() - 1))
    outcome = local.launch(RUNS[:2], paths, Display(2), over)
    assert not outcome.failures and outcome.interrupted and not list(tmp_path.glob("work/*/starts.json"))


def test_a_jobs_minutes_count_from_its_own_start(tmp_path, monkeypatch):
    environment = SimpleNamespace(_usr_sig=lambda: signal.SIGUSR2, num_tasks=1)
    monkeypatch.setattr("submitit.JobEnvironment", lambda: environment)
    given = []
    monkeypatch.setattr(job, "execute", lambda *_, options, **__: given.append(options.budget.until) or Outcome({}))
    options = Options(budget=Budget(minutes=10.0))
    Job(RUNS[:1], RunPaths(tmp_path, tmp_path), options)()
    assert 500 < given[0] - time.time() <= 600


SLOW, FAST = Rate(0.001, 1.0, "made up"), Rate(1_000.0, 1.0, "made up")


def test_a_precision_that_pairs_want_reaches_the_record(tmp_path):
    first, second = tiny.make_experiment().runs(SMOKE, 1)
    out = tmp_path / "runs"
    store(out / "records", make_record(first, 20.0, hardware={"type": "cpu"}, precision="bf16"))
    assert run(out, "--minutes", "5", "--launcher", "inline") == 0
    assert read_pool(out / "records").get(second)["precision"] == "bf16"


def test_a_dry_run_trains_nothing_and_all_needs_minutes(tmp_path, capsys):
    assert run(tmp_path / "runs", "--minutes", "5", "--dry-run", "--launcher", "inline") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "dry run: nothing is trained" in said and "5 minutes finish 2 and begin 0 more" in said
    assert not (tmp_path / "runs" / "records").exists()
    with pytest.raises(SystemExit):
        run(tmp_path / "runs", "--all")
    assert "--all needs --minutes" in capsys.readouterr().err


def test_jobs_on_a_cluster_are_as_long_as_the_minutes_and_as_many_as_it_takes(cluster, tmp_path):  # noqa: F811
    given = Budget(minutes=20.0, plan=Plan(RUNS, seconds=dict.fromkeys(RUNS, 600.0)))
    options = {"budget": given, "detach": True, "slurm": ClusterProfile(signal_seconds=90, max_jobs=2)}
    assert launch(tmp_path, RUNS, **options).detached
    (submission,) = cluster.submissions
    assert [job.first for job in submission.jobs] == [0, 2]
    assert 20 + 1.5 <= submission.parameters["timeout_min"] <= 26
    assert all(job.options.budget == given for job in submission.jobs)


def test_of_a_clusters_jobs_with_limited_time_only_those_fail_that_did_not_use_it(cluster, tmp_path, monkeypatch):  # noqa: F811
    cluster.look = lambda: cluster.living.clear()
    assert not launch(tmp_path, RUNS[:2], budget=Budget(minutes=1.0)).failures  # each ended as TIMEOUT
    monkeypatch.setattr(queue, "ending", lambda job, answers: "FAILED, exit code 127:0")
    outcome = launch(tmp_path, RUNS[:2], budget=Budget(minutes=30.0))
    assert set(outcome.failures) == set(RUNS[:2]) and "exit code 127" in outcome.failures[RUNS[0]]


def test_a_damaged_record_is_said_in_a_limited_time_too(tmp_path, capsys):
    out = tmp_path / "runs"
    assert run(out, "--minutes", "5", "--launcher", "inline", depths=(8,)) == 0
    (path,) = (out / "records").glob("*/*/*.json")
    path.write_text("{")
    assert run(out, "--minutes", "5", "--launcher", "local", depths=(8,)) == 1
    said = capsys.readouterr().err
    assert "lacking: 0 runs" in said and "not trained" in said and "is over" not in said


# ------------------------------------------------------------------------------------------------------------- evidence


def test_evidence_begins_with_three_seeds_of_the_short_degradation():
    wanted = evidence(on_gpu=False)
    assert [(one.run.model, one.run.seed) for one in wanted[:12]] == [
        (f"cifar_{net}", seed) for seed in range(3) for net in ("plain20", "plain56", "resnet20", "resnet56")
    ]
    assert {one.experiment.name for one in wanted[:12]} == {"degradation"}
    profiles = [one.variant.profile for one in wanted]
    assert profiles == sorted(profiles, reverse=True)  # short, then paper
    short = [one.run.seed for one in wanted if one.variant.profile == "short"]
    assert [seed >= 3 for seed in short] == sorted(seed >= 3 for seed in short), "nothing is tested with fewer"
    paper = [one.run for one in wanted if one.variant.profile == "paper"]
    assert [(run.model, run.seed) for run in paper[10:14]] == [
        (f"cifar_{net}", seed) for seed in (0, 1) for net in ("plain56", "resnet56")
    ]


def test_evidence_in_fp16_is_for_gpus_and_the_larger_batch_comes_first():
    slow = [one for one in evidence(on_gpu=True) if one.run.recipe.precision == "fp16"]
    assert slow and not [one for one in evidence(on_gpu=False) if one.run.recipe.precision == "fp16"]
    ladder = [one.run for one in evidence(False) if one.experiment.name == "bag_of_tricks_efficient"]
    assert [run.recipe.batch_size for run in ladder[:5]] == [512, 512, 512, 512, 128]


def test_evidence_wants_every_row_of_the_tables_with_five_seeds():
    wanted = {one.run for one in evidence(on_gpu=True)}
    rows = degradation.rows("paper")
    assert {row.run(seed) for row in rows for seed in range(5) if not row.on_request} <= wanted
    assert not any(run.model == "cifar_plain110" for run in wanted)  # which is trained on request


def test_evidence_needs_minutes_and_makes_one_launch(tmp_path, monkeypatch, capsys):
    assert main.main(["evidence", "--out", str(tmp_path)]) == 2
    assert "--minutes (MINUTES= with make)" in capsys.readouterr().out
    tables = [tiny.make_experiment(), replace(tiny.make_experiment(depths=(20,)), name="other")]
    monkeypatch.setattr(
        commands, "evidence", lambda on_gpu: [w for e in tables for w in wanted_runs(e, SMOKE, range(1))]
    )
    assert main.main(["evidence", "--minutes", "5", "--out", str(tmp_path), "--launcher", "inline"]) == 0
    assert len(read_pool(tmp_path / "records").records) == 3
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {"tiny_smoke.md", "other_smoke.md"}


def test_make_passes_minutes_on():
    assert would_run("reproduce-degradation", "MINUTES=10", "ALL=1") == [("degradation", "--minutes '10' --all")]
    assert would_run("reproduce-all", "MINUTES=10") == []  # no script of one table
    (line,) = [line for line in dry_make("reproduce-all", "MINUTES=10").splitlines() if "evidence" in line]
    assert "-m reproductions evidence" in line and "--minutes '10'" in line
