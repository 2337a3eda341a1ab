"""Launchers: each gives the same records, a failing run does not stop the others, and a stopped launch can go on."""

import io
import itertools
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cloudpickle
import pytest
import submitit
import tiny
import torch
from fakes import make_record, store
from waiting import find_disk_full, never, wait_until

from reproductions.harness import cli, launching, provenance
from reproductions.harness.console import EXIT_INTERRUPTED, make_console
from reproductions.harness.launching import inline, local
from reproductions.harness.launching.claims import claim, owned
from reproductions.harness.launching.job import Job
from reproductions.harness.launching.options import Options
from reproductions.harness.launching.progress import Display
from reproductions.harness.launching.run_paths import RunPaths, Status
from reproductions.harness.launching.slots import Slot, find_slots
from reproductions.harness.launching.slurm import launch as slurm
from reproductions.harness.launching.slurm.cluster_profile import ClusterProfile
from reproductions.harness.launching.slurm.queue import QueuedJob
from reproductions.harness.launching.slurm.submissions import read_submissions
from reproductions.harness.launching.worker import Outcome, execute
from reproductions.harness.provenance import ROOT
from reproductions.harness.records import read_pool
from resnet.run import Run

RUNS = [Run("cifar_resnet8", tiny.TINY, "synthetic", seed) for seed in range(4)]
FAILING, DYING = RUNS[2:]


class Watched(RunPaths):
    """Paths with which one run fails and another kills its process; each process notes its times and ended runs."""

    def work(self, run):
        self.note("times", time.time())
        return super().work(run)

    def weights(self, run):
        self.note("ends", run.seed)
        if run.seed == FAILING.seed:
            raise RuntimeError("this run fails")
        if run.seed == DYING.seed:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().weights(run)

    def note(self, kind, value):
        notes = self.out / kind / str(os.getpid())
        notes.parent.mkdir(parents=True, exist_ok=True)
        with notes.open("a") as file:
            file.write(f"{value}\n")

    def notes(self, kind):
        """Read the notes of the jobs' processes, by process."""
        found = {path.name: [float(line) for line in path.read_text().split()] for path in (self.out / kind).iterdir()}
        found.pop(str(os.getpid()), None)  # the launcher's own
        return found


cloudpickle.register_pickle_by_value(sys.modules[__name__])  # a job's process can't import this file


class Watcher(Display):
    """Notes what the launcher said of its jobs."""

    def __init__(self, total):
        super().__init__(total, make_console(file=io.StringIO()))
        self.said = []

    def say(self, text):
        self.said.append(text)


def weights(out):
    """The digest of the final weights by seed."""
    records = read_pool(out / "records").records.values()
    return {record["specification"]["seed"]: record["weights_sha256"] for record in records}


# ------------------------------------------------------------------------------------------------------ the local queue


STARTS = 2


@pytest.fixture(scope="module")
def local_launch(tmp_path_factory):
    """Four runs on two slots, one failing and one dying: place, display, outcome."""
    paths = Watched(tmp_path_factory.mktemp("local queue"), Path("data"))
    display = Watcher(len(RUNS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "device_count", lambda: 0)
        outcome = local.launch(RUNS, paths, display, Options(slots=2, max_starts=STARTS))
    return paths, display, outcome


@pytest.mark.slow
def test_the_local_queue_leaves_the_records_of_the_inline_launcher(local_launch, tmp_path):
    paths = RunPaths(tmp_path, Path("data"))
    assert execute(RUNS[:2], paths, never) == Outcome({})
    assert weights(local_launch[0].out) == weights(tmp_path) and len(weights(tmp_path)) == 2


@pytest.mark.slow
def test_the_local_queue_never_has_more_jobs_than_slots(local_launch):
    paths, _, _ = local_launch
    spans = [(min(times), max(times)) for times in paths.notes("times").values()]
    assert max(sum(first <= start <= last for first, last in spans) for start, _ in spans) <= 2


@pytest.mark.slow
def test_a_job_of_the_local_queue_trains_one_run_after_another(local_launch):
    ends = [set(seeds) for seeds in local_launch[0].notes("ends").values()]
    assert max(len(seeds) for seeds in ends) >= 2
    assert sorted(seed for seeds in ends for seed in seeds - {DYING.seed}) == [0, 1, FAILING.seed]


@pytest.mark.slow
def test_the_local_queue_says_which_slot_a_job_got_its_log_and_when_it_dies(local_launch):
    _, display, _ = local_launch
    logs = [text for text in display.said if ": log " in text]
    assert "slot 0" in logs[0] and "slot 1" in logs[1] and 3 <= len(logs) <= 2 + STARTS
    assert all(Path(text.split(": log ")[1]).exists() for text in logs)
    assert sum("the job's process died" in text for text in display.said) == STARTS


@pytest.mark.slow
def test_a_failing_run_in_the_local_queue_is_reported_with_its_traceback(local_launch):
    paths, _, outcome = local_launch
    assert "Traceback" in outcome.failures[FAILING] and "RuntimeError: this run fails" in outcome.failures[FAILING]
    assert Status.read(RunPaths.work(paths, FAILING)).state == "failed"


@pytest.mark.slow
def test_a_run_whose_processes_die_without_progress_is_given_up_and_the_others_finish(local_launch):
    paths, _, outcome = local_launch
    assert set(outcome.failures) == {FAILING, DYING} and not outcome.interrupted
    assert f"given up: {STARTS} starts did not reach a checkpoint" in outcome.failures[DYING]
    assert sum(seeds.count(DYING.seed) for seeds in paths.notes("ends").values()) == STARTS


def test_nothing_to_do_starts_nothing(tmp_path):
    for launcher in (local, slurm):
        assert launcher.launch([], RunPaths(tmp_path, tmp_path), Watcher(0), Options()) == Outcome({})
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------------------- stopping


LONGER = 80
SEEDS = 2


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The weights of runs that nobody stopped."""
    paths = RunPaths(tmp_path_factory.mktemp("uninterrupted"), Path("data"))
    runs = [Run("cifar_resnet8", tiny.longer(LONGER), "synthetic", seed) for seed in range(SEEDS)]
    execute(runs, paths, never)
    return weights(paths.out)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "number"),
    [(["--launcher", "inline"], signal.SIGINT), (["--launcher", "local", "--slots", "2"], signal.SIGTERM)],
    ids=["inline, SIGINT", "local, SIGTERM"],
)
def test_a_stopped_launch_goes_on_where_it_was_and_ends_with_the_same_weights(
    launcher, number, uninterrupted, tmp_path
):
    flags = ["--profile", "smoke", "--seeds", str(SEEDS), "--out", str(tmp_path / "runs"), *launcher]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(
        [sys.executable, tiny.__file__, str(LONGER), *flags], env=environment, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: running(tmp_path / "runs") or process.poll() is not None)
    process.send_signal(number)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == EXIT_INTERRUPTED, said
    assert "The same command goes on where this stopped" in said and "failed" not in said
    assert not running(tmp_path / "runs"), "no job goes on"
    assert not any(owned(path) for path in (tmp_path / "runs" / "work").iterdir())
    assert len(weights(tmp_path / "runs")) < SEEDS and list((tmp_path / "runs").glob("work/*/checkpoint.pt"))

    experiment = tiny.make_experiment(tiny.longer(LONGER), depths=(8,))
    assert cli.run_experiment(experiment, [*flags[:6], "--launcher", "inline"]) == 0
    assert weights(tmp_path / "runs") == uninterrupted
    records = read_pool(tmp_path / "runs" / "records").records.values()
    assert sum(record["interruptions"] for record in records) >= 1


def running(out):
    statuses = [Status.read(path.parent) for path in out.glob("work/*/status.json")]
    return [status for status in statuses if status is not None and status.state == "running"]


# ------------------------------------------------------------------------- the local queue, with jobs without processes


@pytest.fixture
def machine(monkeypatch):
    """A function that sets the number of GPUs that torch sees, CUDA_VISIBLE_DEVICES and the number of cores."""

    def make(gpus, visible=None, cores=8):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return make


class ThinJob:
    """A job of the local queue without a process: it claims no run, and ``end`` gives its outcome."""

    job_id = "0"

    def __init__(self, job, slot, end):
        self.job, self.slot, self.end = job, slot, end
        self.paths = SimpleNamespace(stderr=f"log of {slot}")

    @property
    def first(self):
        return self.job.runs[self.job.first]

    def done(self):
        return self.end is not None


@pytest.fixture
def thin(machine, monkeypatch):
    """Replace processes: the list of the started jobs, which end as ``thin.end`` says."""

    class Jobs(list):
        end = None  # a function of the job; without it, jobs go on

        def submit(self, job, slot):
            self.append(ThinJob(job, slot, self.end))
            return self[-1]

    jobs = Jobs()
    machine(0)
    monkeypatch.setattr(local, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(local, "submit", jobs.submit)
    monkeypatch.setattr(local, "result", lambda job: job.end(job))
    return jobs


def record_all(job):
    """Train every run of the job's launch that nobody has claimed."""
    for run in job.job.runs:
        if not owned(job.job.paths.work(run)):
            store(job.job.paths.records, make_record(run, 50.0))
    return Outcome({})


def die(job):
    raise local._Died("its last words")


def die_in_mid_run(job):
    claim(job.job.paths.work(job.first)).release()
    die(job)


def raise_an_error(job):
    claim(job.job.paths.work(job.first)).release()
    raise submitit.core.utils.FailedJobError("no such device")


def start(paths, runs=RUNS, **options):
    return local.launch(runs, paths, Watcher(len(runs)), Options(**options))


def test_a_job_may_train_any_run_of_the_launch_and_begins_with_its_own(thin, paths):
    thin.end = record_all
    assert start(paths, slots=2, pack=3, device="cpu", max_starts=4) == Outcome({})
    assert [job.first for job in thin] == RUNS[:2]
    for job in (thin_job.job for thin_job in thin):
        assert job.runs == RUNS and job.paths == paths and job.threads == 4 and job.code == provenance.code_identity()
        assert replace(job.options, launch="") == Options(slots=2, pack=3, device="cpu", max_starts=4)
    assert len({job.job.options.launch for job in thin}) == 1 and thin[0].job.options.launch


@pytest.mark.parametrize(
    ("gpus", "pack", "firsts"),
    [(2, None, [0, 1]), (2, 2, [0, 2]), (2, 3, [0, 3]), (2, 4, [0]), (0, 4, [0, 1])],
    ids=["as many as a GPU is good for", "two on each", "three and one", "one GPU will do", "a processor packs not"],
)
def test_no_more_gpus_are_used_than_the_runs_fill(thin, machine, paths, gpus, pack, firsts):
    machine(gpus)
    queue = local._Queue(RUNS, paths, Watcher(4), Options(slots=2, pack=pack))
    for _ in range(3):  # jobs take a while to claim what they were started for
        queue.begin()
    assert [job.first for job in thin] == [RUNS[number] for number in firsts]


def test_a_run_that_was_claimed_and_given_up_again_is_there_for_another_slot(thin, paths):
    queue = local._Queue(RUNS[:2], paths, Watcher(2), Options(slots=2))
    with claim(paths.work(RUNS[0])), claim(paths.work(RUNS[1])):
        queue.begin()
        assert not thin
    queue.begin()
    with claim(paths.work(RUNS[0])):
        queue.begin()
    thin[1].end = lambda job: Outcome({})
    queue.collect()
    queue.begin()
    assert [(job.slot.number, job.first) for job in thin] == [(0, RUNS[0]), (1, RUNS[1]), (1, RUNS[0])]


def test_a_job_that_dies_has_a_successor(thin, paths):
    ends = iter([die_in_mid_run, die_in_mid_run, die_in_mid_run, die_in_mid_run, record_all])
    thin.end = lambda job: next(ends)(job)
    assert start(paths, slots=1) == Outcome({}) and len(thin) == 5


def test_a_slot_whose_jobs_die_before_they_begin_a_run_is_not_used_again(thin, paths):
    thin.end = die
    outcome = start(paths, slots=1)
    assert len(thin) == 3
    assert outcome.failures == dict.fromkeys(RUNS, "slot 0 (8 threads): its last words")


def test_a_job_that_raises_an_error_has_no_successor(thin, paths):
    thin.end = raise_an_error
    outcome = start(paths, slots=2)
    assert len(thin) == 2 and set(outcome.failures) == set(RUNS) and "no such device" in outcome.failures[RUNS[0]]


def test_one_slot_of_no_use_leaves_the_work_to_the_others(thin, paths):
    thin.end = lambda job: raise_an_error(job) if job.slot.number == 0 else record_all(job)
    assert start(paths, slots=2) == Outcome({})


def test_a_failure_that_could_not_be_written_down_is_not_tried_again(thin, paths):
    def fail(job):
        store(paths.records, *(make_record(run, 50.0) for run in RUNS if run != FAILING))
        return Outcome({FAILING: "no space left"})

    thin.end = fail
    assert start(paths, slots=1) == Outcome({FAILING: "no space left"}) and len(thin) == 1


def test_the_failures_of_another_launch_are_tried_again(thin, paths):
    Status("failed", "run", 0.0, message="of old", launch="another").write(paths.work(FAILING))
    thin.end = record_all
    assert start(paths, slots=1) == Outcome({}) and len(weights(paths.out)) == len(RUNS)


def test_a_job_that_cannot_be_started_is_a_failure_with_the_reason(thin, paths, monkeypatch):
    monkeypatch.setattr(local, "submit", find_disk_full)
    outcome = start(paths, slots=2)
    assert set(outcome.failures) == set(RUNS) and "No space left on device" in outcome.failures[RUNS[0]]


def test_the_runs_of_another_launch_are_waited_for(thin, paths, monkeypatch):
    thin.end = record_all
    display = Watcher(len(RUNS))
    other = claim(paths.work(RUNS[0]))
    polls = []

    def poll(*arguments):
        polls.append(len(thin))
        if len(polls) == 5:
            store(paths.records, make_record(RUNS[0], 50.0))
            other.release()

    display.poll = poll
    assert local.launch(RUNS, paths, display, Options(slots=2)) == Outcome({})
    assert len(polls) >= 5 and len(thin) == 2, "there is nothing to start a job for"


@pytest.fixture
def stop(monkeypatch):
    """Stops the launch at its next look; ``stop.told`` are the jobs that were asked to."""
    flag = SimpleNamespace(now=False, told=[])

    @contextmanager
    def stopping(*numbers, message="", until=math.inf):
        yield lambda: flag.now

    monkeypatch.setattr(local, "stop_on_signals", stopping)
    monkeypatch.setattr(os, "kill", lambda number, sent: flag.told.append((number, sent)))
    return flag


def test_a_launch_that_is_stopped_asks_its_jobs_until_they_end(thin, paths, stop):
    display, polls = Watcher(4), []

    def poll(*arguments):
        polls.append(len(stop.told))
        stop.now = True
        if len(polls) == 4:
            for job in thin:
                job.end = lambda job: Outcome({}, "stopped at iteration 3")

    display.poll = poll
    outcome = local.launch(RUNS, paths, display, Options(slots=2))
    assert outcome == Outcome({}, "stopped at a checkpoint") and len(thin) == 2
    assert stop.told == [(0, signal.SIGTERM)] * 6


def test_a_stopped_launch_tells_of_runs_that_go_on_elsewhere_and_is_none_if_all_runs_are_done(thin, paths, stop):
    def finish(job):
        stop.now = True
        return record_all(job)

    thin.end = finish
    with claim(paths.work(RUNS[0])):
        assert "processes of another launch go on with 1 run" in start(paths, slots=1).interrupted
    stop.now = False
    assert start(paths, slots=1) == Outcome({}) and len(thin) == 2


def test_a_launch_that_ends_at_once_does_not_leave_its_jobs_behind(thin, paths, stop, monkeypatch):
    display = Watcher(4)

    def poll(*arguments):
        raise KeyboardInterrupt

    def hear(*arguments):
        stop.told.append(arguments)
        if len(stop.told) == 6:  # jobs that are just starting don't hear the first
            for job in thin:
                job.end = lambda job: Outcome({}, "stopped")

    display.poll = poll
    monkeypatch.setattr(os, "kill", hear)
    with pytest.raises(KeyboardInterrupt):
        local.launch(RUNS, paths, display, Options(slots=2))
    assert stop.told == [(0, signal.SIGTERM)] * 6


def test_jobs_that_do_not_stop_are_not_waited_for_for_long(thin, paths, stop, monkeypatch):
    monkeypatch.setattr(local, "DISMISS_SECONDS", 0.1)
    display = Watcher(4)
    display.poll = lambda *arguments: 1 / 0
    with pytest.raises(ZeroDivisionError):
        local.launch(RUNS, paths, display, Options(slots=2))
    assert stop.told


def test_a_process_that_died_leaves_the_end_of_its_log_and_is_not_waited_for(tmp_path):
    job = SimpleNamespace(paths=SimpleNamespace(result_pickle=tmp_path / "result", stderr=tmp_path / "log"))
    with pytest.raises(local._Died, match="log ends:$"):
        local.result(job)
    job.paths.stderr.write_text("".join(f"line {number}\n" for number in range(100)))
    with pytest.raises(local._Died, match=f"{job.paths.stderr} ends:\n(line \\d+\n){{19}}line 99$"):
        local.result(job)


def test_the_result_of_an_earlier_process_of_the_same_number_is_not_taken_for_the_jobs(paths, monkeypatch):
    job_paths = submitit.core.utils.JobPaths(paths.jobs, "7")
    paths.jobs.mkdir(parents=True)
    job_paths.result_pickle.write_bytes(b"of old")
    monkeypatch.setattr(submitit.LocalExecutor, "submit", lambda self, job: SimpleNamespace(paths=job_paths))
    local.submit(Job(RUNS, paths, Options()), Slot(0, None, 1))
    assert not job_paths.result_pickle.exists()


# ---------------------------------------------------------------------------------------------------------------- slots


@pytest.mark.parametrize(
    ("gpus", "visible", "wanted", "jobs", "device", "expected"),
    [
        (4, None, None, 10, "auto", [0, 1, 2, 3]),
        (4, None, None, 3, "auto", [0, 1, 2]),
        (4, None, 6, 10, "auto", [0, 1, 2, 3, 0, 1]),
        (2, None, None, 10, "cuda", [0, 1]),
        (2, None, None, 10, "cpu", [None] * 8),
        (2, "2,3", None, 10, "auto", [2, 3]),
        (2, "2,3", 1, 10, "auto", [2]),
    ],
)
def test_every_visible_gpu_is_a_slot_by_its_own_number(machine, gpus, visible, wanted, jobs, device, expected):
    machine(gpus, visible)
    assert [slot.gpu for slot in find_slots(wanted, jobs, device)] == expected


@pytest.mark.parametrize("visible", ["GPU-5ebe9f43,GPU-aabb", "MIG-1"])
def test_gpus_named_by_uuid_are_a_clear_error(machine, visible):
    machine(2, visible)
    with pytest.raises(ValueError, match=f"CUDA_VISIBLE_DEVICES={visible} must list GPUs by number"):
        find_slots(None, 10)


@pytest.mark.parametrize("visible", [None, "", "-1", "NoDevFiles", "0", "0,1"])
def test_without_a_usable_gpu_the_slots_share_the_cores(machine, visible):
    machine(0, visible)
    assert [(slot.gpu, slot.threads) for slot in find_slots(3, 10)] == [(None, 2)] * 3
    assert len(find_slots(None, 100)) == 8 and find_slots(None, 1)[0].threads == 1


def test_more_slots_than_cores_have_a_thread_each(machine):
    machine(0, cores=2)
    assert [slot.threads for slot in find_slots(5, 5)] == [1] * 5


def test_no_slots_are_an_error(machine):
    machine(0)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        find_slots(0, 3)


@pytest.mark.parametrize(
    ("gpus", "cores", "devices", "runs", "name"),
    [
        (0, 8, ("auto", "cuda"), 1, "inline"),
        (1, 8, ("auto", "cuda"), 1, "inline"),
        (2, 8, ("auto", "cuda"), 1, "local"),  # several GPUs
        (2, 8, ("cpu", "cuda:1"), 1, "inline"),  # one device is named
        (0, 2, ("auto", "cpu"), 1, "inline"),
        (0, 2, ("auto", "cpu"), 2, "local"),  # a processor with a run for each core
        (0, 8, ("auto", "cpu"), 7, "inline"),
        (0, 8, ("auto", "cpu"), 8, "local"),
        (0, 1, ("auto", "cpu"), 9, "inline"),
        (1, 8, ("auto",), 8, "inline"),
        (1, 8, ("cpu",), 8, "local"),
    ],
)
def test_auto_is_local_on_several_gpus_and_on_a_processor_with_a_run_for_each_core(
    machine, gpus, cores, devices, runs, name
):
    machine(gpus, cores=cores)
    assert {launching.choose("auto", device, runs)[0] for device in devices} == {name}


@pytest.mark.parametrize(("name", "module"), [("inline", inline), ("local", local), ("slurm", slurm)])
def test_a_launcher_is_chosen_by_its_name(name, module):
    assert launching.choose(name) == (name, module.launch)


def test_an_unknown_launcher_is_an_error_that_lists_them():
    with pytest.raises(ValueError, match="'cloud'.*auto, inline, local, slurm"):
        launching.choose("cloud")


# ---------------------------------------------------------------------------------------------------------------- SLURM


class FakeCluster:
    """SLURM and submitit's executor for it. ``submissions``: what was submitted, an array each. ``living``: the ids of
    the jobs in the queue, or None where it does not answer; ``look`` is called before each answer."""

    def __init__(self):
        self.submissions, self.living, self.looks = [], set(), 0
        self.look = lambda: None

    def jobs(self, ids):
        self.looks += 1
        assert self.looks < 1000, "nothing comes of it"
        self.look()
        return None if self.living is None else {id: QueuedJob(id, "RUNNING", "None") for id in self.living & set(ids)}

    def submit(self, executor, jobs):
        array = 12 + len(self.submissions)
        ids = [f"{array}_{number}" for number in range(len(jobs))]
        launch = jobs[0].options.launch
        self.submissions.append(SimpleNamespace(**vars(executor), jobs=jobs, launch=launch, environment={**os.environ}))
        self.living |= set(ids)
        return [SimpleNamespace(job_id=id, paths=SimpleNamespace(stderr=executor.folder / f"{id}.err")) for id in ids]


@pytest.fixture
def cluster(monkeypatch, tmp_path):
    fake = FakeCluster()

    class Executor:
        def __init__(self, folder, cluster, slurm_max_num_timeout, slurm_python):
            self.folder, self.cluster, self.timeouts = folder, cluster, slurm_max_num_timeout
            assert "USR2" in slurm_python
            self.python = slurm_python

        def update_parameters(self, **parameters):
            self.parameters = parameters

        def submit_array(self, jobs):
            return fake.submit(self, jobs)

    monkeypatch.setattr(submitit, "AutoExecutor", Executor)
    monkeypatch.setattr(slurm.queue, "check_reachable", lambda: None)
    monkeypatch.setattr(slurm.queue, "jobs", fake.jobs)
    monkeypatch.setattr(slurm.queue, "ending", lambda job, answers: f"TIMEOUT of {job}")
    monkeypatch.setattr(slurm, "take", lambda folder, plugins: folder / "the copy")
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(slurm, "QUEUE_SECONDS", 0.0)
    return fake


def launch(out, runs=RUNS[:2], display=None, **options):
    paths = RunPaths(Path(out), Path("data"), checkpoint_seconds=7.0)
    return slurm.launch(runs, paths, display or Watcher(len(runs)), Options(**options))


def submit(out, runs=RUNS[:2], **options):
    """Launch, and leave the jobs alone."""
    assert launch(out, runs, detach=True, **options).detached


def train(paths, *runs):
    store(paths.records, *(make_record(run, 50.0) for run in runs))


def fail(paths, run, submission, message="its traceback"):
    Status("failed", str(run), 0.0, message=message, launch=submission.launch).write(paths.work(run))


def test_slurm_gets_one_job_per_run_with_defaults_that_can_be_changed(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cluster.look = lambda: train(RunPaths(tmp_path / "runs", tmp_path), *RUNS[:2])
    profile = ClusterProfile(partition="gpu", time_minutes=600, cpus=3)
    assert launch("runs", slurm=profile, experiment="table", device="cuda", max_starts=2) == Outcome({})
    (submitted,) = cluster.submissions
    assert submitted.cluster == "slurm" and submitted.timeouts > 1_000
    asked = {"slurm_partition": "gpu", "timeout_min": 600, "gpus_per_node": 1, "name": "resnet-table"}
    assert asked.items() <= submitted.parameters.items()
    assert [job.runs[job.first] for job in submitted.jobs] == RUNS[:2]
    for job in submitted.jobs:
        paths = job.paths
        assert job.runs == RUNS[:2] and job.threads == 3 and job.code == provenance.code_identity()
        assert paths.out == tmp_path / "runs" and paths.data == tmp_path / "data" and paths.checkpoint_seconds == 7.0
        assert (job.options.device, job.options.max_starts, job.options.launch) == ("cuda", 2, submitted.launch)
    assert submitted.folder == tmp_path / "runs" / "work" / "jobs" and submitted.folder.stat().st_mode & 0o777 == 0o700


def test_jobs_run_the_profiles_python_with_its_arguments_of_srun_whatever_characters_they_have(cluster, tmp_path):
    command = ["apptainer", "exec", "--bind=/a b", "my image.sif", "python3"]
    submit(tmp_path / "a", slurm=ClusterProfile(python=command, srun_args=["--mpi=none", "--container-image=$x; y"]))
    submit(tmp_path / "b")
    given, own = cluster.submissions
    assert shlex.split(given.python)[-5:] == command and shlex.split(given.python)[:2] == ["sh", "-c"]
    assert given.parameters["slurm_srun_args"] == ["--mpi=none", "--container-image=$x; y"]
    assert shlex.split(own.python)[-1] == sys.executable and own.parameters["slurm_srun_args"] == []


@pytest.mark.parametrize(
    ("pack", "firsts"), [(None, [0, 1, 2, 3]), (1, [0, 1, 2, 3]), (2, [0, 2]), (3, [0, 3]), (9, [0])]
)
def test_slurm_gets_one_job_per_pack(cluster, tmp_path, pack, firsts):
    submit(tmp_path, RUNS, pack=pack)
    (submitted,) = cluster.submissions
    assert [job.first for job in submitted.jobs] == firsts and {job.options.pack for job in submitted.jobs} == {pack}
    assert all(job.runs == RUNS for job in submitted.jobs)


@pytest.mark.parametrize(
    ("max_jobs", "count", "firsts"),
    [
        (4, 4, [0, 1, 2, 3]),
        (3, 4, [0, 2, 3]),
        (1, 4, [0]),
        (20, 25, [-(-5 * number // 4) for number in range(20)]),
        (None, 1500, [-(-15 * number // 2) for number in range(200)]),
    ],
)
def test_slurm_gets_no_more_jobs_than_the_profile_says_which_train_all_runs(cluster, tmp_path, max_jobs, count, firsts):
    runs = [Run("cifar_resnet8", tiny.TINY, "synthetic", seed) for seed in range(count)]
    submit(tmp_path, runs, slurm=ClusterProfile() if max_jobs is None else ClusterProfile(max_jobs=max_jobs))
    (submitted,) = cluster.submissions
    assert [job.first for job in submitted.jobs] == firsts and all(job.runs == runs for job in submitted.jobs)
    (submission,) = read_submissions(tmp_path)
    assert [submission.job_of(runs[first].short_id) for first in firsts] == list(submission.jobs)
    assert submission.job_of(runs[-1].short_id) == f"12_{len(firsts) - 1}"
    submit(tmp_path, runs)
    assert len(cluster.submissions) == 1, "all runs have jobs"


def test_jobs_run_the_copy_of_the_code_after_the_profiles_own_setup(cluster, tmp_path):
    submit(tmp_path / "my $runs", slurm=ClusterProfile(setup=["module load cuda"]))
    where = f"'{tmp_path / 'my $runs' / 'work' / 'code' / 'the copy'}'"
    setup = ["module load cuda", f"cd {where}", f"export PYTHONPATH={where}"]
    assert cluster.submissions[0].parameters["slurm_setup"] == setup


def test_a_launch_from_inside_a_job_does_not_pass_its_identity_on(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    submit(tmp_path)
    environment = cluster.submissions[0].environment
    assert "SLURM_JOB_ID" not in environment and environment["SLURM_CONF"] == "/etc/slurm.conf"


def test_what_was_submitted_is_written_down(cluster, tmp_path):
    display = Watcher(2)
    submit(tmp_path, display=display, experiment="table")
    assert display.said == ["submitted 2 jobs to SLURM: 12"]
    (submission,) = read_submissions(tmp_path)
    assert submission.experiment == "table" and submission.launch == cluster.submissions[0].launch
    assert submission.jobs == {id: str(tmp_path / "work" / "jobs" / f"{id}.err") for id in ("12_0", "12_1")}
    assert submission.runs == {run.short_id: str(run) for run in RUNS[:2]}


# ------------------------------------------------------------------------------------------------ SLURM, the same again


def test_a_launch_while_the_jobs_live_submits_nothing_and_waits_for_them(cluster, tmp_path):
    submit(tmp_path)
    cluster.look = lambda: cluster.looks == 3 and train(RunPaths(tmp_path, tmp_path), *RUNS[:2])
    display = Watcher(2)
    assert launch(tmp_path, display=display) == Outcome({})
    assert len(cluster.submissions) == 1 and cluster.looks >= 3
    assert "jobs of 2 runs are there already: 12" in display.said


def test_only_runs_that_no_job_is_there_for_are_submitted(cluster, tmp_path):
    submit(tmp_path)
    display = Watcher(4)
    submit(tmp_path, RUNS, display=display)
    assert [job.runs for job in cluster.submissions[1].jobs] == [RUNS[2:]] * 2
    assert display.said == ["jobs of 2 runs are there already: 12", "submitted 2 jobs to SLURM: 13"]


def test_a_run_that_failed_while_other_jobs_of_its_launch_live_is_submitted_again(cluster, tmp_path):
    submit(tmp_path)
    fail(RunPaths(tmp_path, tmp_path), RUNS[0], cluster.submissions[0])
    submit(tmp_path)
    assert [job.runs for job in cluster.submissions[1].jobs] == [RUNS[:1]]
    submit(tmp_path)
    assert len(cluster.submissions) == 2, "now it has a job again"


def test_of_two_launches_at_once_one_waits_until_the_other_has_submitted(cluster, tmp_path, monkeypatch):
    first = claim(tmp_path / "work" / "submissions")

    def sleep(seconds):
        assert not cluster.submissions
        first.release()

    monkeypatch.setattr(slurm, "time", SimpleNamespace(sleep=sleep, time=time.time, monotonic=time.monotonic))
    submit(tmp_path)
    assert len(cluster.submissions) == 1


# -------------------------------------------------------------------------------------------------- SLURM, what ends it


def test_runs_that_no_job_is_left_for_are_failures_with_the_jobs_last_words(cluster, tmp_path):
    def look():
        (tmp_path / "work" / "jobs" / "12_0.err").write_text("a line\nslurmstepd: error: out of memory\n")
        cluster.living.clear()

    cluster.look = look
    outcome = launch(tmp_path)
    assert set(outcome.failures) == set(RUNS[:2]) and not outcome.detached
    first, second = (outcome.failures[run] for run in RUNS[:2])
    assert first.startswith("no job is left that trains it\n") and "slurmstepd: error: out of memory" in first
    assert "TIMEOUT of 12_0" in first and "TIMEOUT of 12_1" in second and "no log" in second


def test_jobs_of_an_earlier_launch_that_were_about_to_end_are_replaced(cluster, tmp_path):
    submit(tmp_path)

    def look():
        if len(cluster.submissions) == 1 and cluster.looks > 2:  # they are found, and then gone
            cluster.living.clear()
        if len(cluster.submissions) == 2:
            train(RunPaths(tmp_path, tmp_path), *RUNS[:2])

    cluster.look = look
    assert launch(tmp_path) == Outcome({}) and len(cluster.submissions) == 2


def test_a_job_is_deaf_to_slurms_signal_until_it_can_handle_it(tmp_path):
    script = "import signal; signal.raise_signal(signal.SIGUSR2); print('alive')"
    line = f"{slurm._DEAF} {sys.executable} -u -c {shlex.quote(script)}"  # as in submitit's script
    assert subprocess.run(["bash", "-c", line], capture_output=True, text=True).stdout == "alive\n"


def test_a_job_that_slurm_does_not_show_for_a_moment_is_not_given_up(cluster, tmp_path):
    answers = itertools.chain([set(), {"12_1"}] * 5, [None, set(), None, {"12_0"}])

    def look():
        cluster.living = next(answers, None)
        if cluster.looks == 20:
            train(RunPaths(tmp_path, tmp_path), *RUNS[:2])

    cluster.look = look
    assert launch(tmp_path) == Outcome({}) and cluster.looks == 20


def test_the_living_jobs_of_one_launch_may_train_any_of_its_runs(cluster, tmp_path):
    def look():
        cluster.living.discard("12_0")
        if cluster.looks == 5:
            train(RunPaths(tmp_path, tmp_path), *RUNS[:2])

    cluster.look = look
    assert launch(tmp_path) == Outcome({})


def test_the_traceback_of_a_failed_run_comes_back_from_slurm(cluster, tmp_path):
    paths = RunPaths(tmp_path, tmp_path)

    def look():
        fail(paths, RUNS[1], cluster.submissions[0])
        if cluster.looks == 3:
            train(paths, RUNS[0])

    cluster.look = look
    assert launch(tmp_path) == Outcome({RUNS[1]: "its traceback"}) and cluster.looks == 3


def test_a_failure_of_an_earlier_launch_is_none_of_this_one(cluster, tmp_path):
    paths = RunPaths(tmp_path, tmp_path)
    fail(paths, RUNS[0], SimpleNamespace(launch="of old"))
    cluster.look = lambda: train(paths, *RUNS[:2])
    assert launch(tmp_path) == Outcome({})


@pytest.mark.parametrize(("flags", "code"), [(["--detach"], 0), ([], 130)], ids=["--detach", "Ctrl-C"])
def test_a_launch_that_leaves_its_jobs_alone_says_what_to_type(cluster, tmp_path, published, capsys, flags, code):
    cluster.look = lambda: os.kill(os.getpid(), signal.SIGINT)
    out = tmp_path / "my runs"
    arguments = ["--profile", "smoke", "--seeds", "1", "--launcher", "slurm", "--out", str(out), *flags]
    assert cli.run_experiment(tiny.make_experiment(), arguments) == code
    assert cluster.looks == (not flags) and cluster.living == {"12_0", "12_1"}
    said = capsys.readouterr().err
    assert "The jobs 12 go on without this command. The same command again waits" in said
    assert f"python -m reproductions status --out '{out}'" in said
    assert f"python -m reproductions cancel tiny --out '{out}'" in said
    assert "Traceback" not in said and "goes on where this stopped" not in said


# ----------------------------------------------------------------------------------------------- SLURM, what is refused


def test_a_cluster_that_can_not_be_reached_is_refused_before_anything_is_written(cluster, tmp_path, monkeypatch):
    def unreachable():
        raise ValueError("in SLURM's words: no")

    monkeypatch.setattr(slurm.queue, "check_reachable", unreachable)
    with pytest.raises(ValueError, match="in SLURM's words: no"):
        launch(tmp_path)
    assert not cluster.submissions and not list(tmp_path.iterdir())


def test_runs_are_submitted_again_only_if_slurm_says_that_their_jobs_have_ended(cluster, tmp_path):
    submit(tmp_path)
    cluster.living = None
    with pytest.raises(ValueError, match="does not say which of the earlier jobs are still there"):
        launch(tmp_path)
    assert len(cluster.submissions) == 1
    cluster.living = set()
    submit(tmp_path)
    assert [job.runs for job in cluster.submissions[1].jobs] == [RUNS[:2]] * 2


@pytest.mark.parametrize("method", ["update_parameters", "submit_array"])
@pytest.mark.parametrize("error", [NameError, RuntimeError, submitit.core.utils.FailedJobError])
def test_what_slurm_refuses_is_an_error_with_its_words_and_what_was_asked(
    cluster, tmp_path, monkeypatch, method, error
):
    def refuse(self, *arguments, **parameters):
        raise error("invalid partition")

    monkeypatch.setattr(submitit.AutoExecutor, method, refuse)
    with pytest.raises(ValueError, match="nothing was submitted to SLURM: invalid partition(.|\n)*slurm_partition=gpu"):
        launch(tmp_path, slurm=ClusterProfile(partition="gpu"))
    assert not read_submissions(tmp_path)


def test_what_slurm_refuses_names_the_number_of_jobs_and_the_key_that_lowers_it(cluster, tmp_path, monkeypatch):
    def refuse(self, jobs):
        raise submitit.core.utils.FailedJobError("sbatch: error: QOSMaxSubmitJobPerUserLimit")

    monkeypatch.setattr(submitit.AutoExecutor, "submit_array", refuse)
    with pytest.raises(ValueError, match="PerUserLimit\nasked for: 4 jobs with (.|\n)*set max_jobs .* less than 4"):
        launch(tmp_path, RUNS)
    with pytest.raises(ValueError) as refused:
        launch(tmp_path, RUNS[:1])
    assert "max_jobs" not in str(refused.value), "there is no lower number"


def test_a_folder_for_jobs_that_others_can_write_to_is_refused(cluster, tmp_path):
    (tmp_path / "work" / "jobs").mkdir(parents=True)
    (tmp_path / "work" / "jobs").chmod(0o777)
    for launcher in (local, slurm):
        with pytest.raises(ValueError, match="other users can write to"):
            launcher.launch(RUNS, RunPaths(tmp_path, tmp_path), Watcher(4), Options())
    assert not cluster.submissions
