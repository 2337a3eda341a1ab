"""Launchers: the same records whoever starts the jobs, failures kept apart, and a stop that can be resumed."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cloudpickle
import pytest
import submitit
import tiny
import torch
from fakes import make_record, store
from rich.console import Console

from reproductions.harness import cli, launching
from reproductions.harness.launching import local, slurm
from reproductions.harness.launching.job import Outcome, execute
from reproductions.harness.launching.profile import Profile
from reproductions.harness.launching.progress import Display
from reproductions.harness.launching.workplace import Status, Workplace
from reproductions.harness.provenance import ROOT
from reproductions.harness.records import read_pool
from resnet.run import Run

RUNS = [Run("cifar_resnet8", tiny.TINY, "synthetic", seed) for seed in range(4)]
FAILING, DYING = RUNS[2:]


class Watched(Workplace):
    """A workplace in which one run fails and another's process dies, and every process notes when it was at work."""

    def work(self, run):
        notes = self.out / "times" / str(os.getpid())
        notes.parent.mkdir(parents=True, exist_ok=True)
        with notes.open("a") as file:
            file.write(f"{time.time()}\n")
        return super().work(run)

    def weights(self, run):
        if run.seed == FAILING.seed:
            raise RuntimeError("this run fails")
        if run.seed == DYING.seed:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().weights(run)


cloudpickle.register_pickle_by_value(sys.modules[__name__])  # a job's process can't import this file


class Watcher(Display):
    """Notes how many jobs the launcher had at once, and what it said of them."""

    def __init__(self, total):
        super().__init__(total, Console(file=io.StringIO()))
        self.most, self.said = 0, []

    def poll(self, place, runs):
        self.most = max(self.most, len(runs))

    def say(self, text):
        self.said.append(text)


def weights(out):
    """The digest of the final weights by seed."""
    records = read_pool(out / "records").records.values()
    return {record["specification"]["seed"]: record["weights_sha256"] for record in records}


# ------------------------------------------------------------------------------------------------------ the local queue


@pytest.fixture(scope="module")
def queue(tmp_path_factory):
    """Four runs on two slots, one failing and one dying: place, display, outcome."""
    place = Watched(tmp_path_factory.mktemp("local queue"), Path("data"))
    display = Watcher(len(RUNS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "device_count", lambda: 0)
        outcome = local.launch(RUNS, place, display, launching.Options(slots=2))
    return place, display, outcome


def test_the_local_queue_leaves_the_records_of_the_inline_launcher(queue, tmp_path):
    place = Workplace(tmp_path, Path("data"))
    assert execute(RUNS[:2], place, lambda: False) == Outcome({})
    assert weights(queue[0].out) == weights(tmp_path) and len(weights(tmp_path)) == 2


def test_the_local_queue_never_has_more_jobs_than_slots(queue):
    place, display, _ = queue
    assert display.most == 2
    spans = [[float(line) for line in notes.read_text().split()] for notes in (place.out / "times").iterdir()]
    spans = [(span[0], span[-1]) for span in spans]
    assert len(spans) == len(RUNS), "every run has a process of its own"
    assert max(sum(first <= start <= last for first, last in spans) for start, _ in spans) <= 2


def test_the_local_queue_says_which_slot_and_log_a_run_got(queue):
    _, display, _ = queue
    assert len(display.said) == 4 and "slot 0" in display.said[0] and "slot 1" in display.said[1]
    assert Path(display.said[0].split(", log ")[1]).exists()


def test_a_failing_run_in_the_local_queue_is_reported_with_its_traceback(queue):
    place, _, outcome = queue
    assert "Traceback" in outcome.failures[FAILING] and "RuntimeError: this run fails" in outcome.failures[FAILING]
    assert Status.read(Workplace.work(place, FAILING)).state == "failed"


def test_a_job_whose_process_dies_is_reported_and_the_others_finish(queue):
    _, _, outcome = queue
    assert set(outcome.failures) == {FAILING, DYING} and outcome.failures[DYING] and not outcome.interrupted


def test_nothing_to_do_starts_nothing(tmp_path):
    for launcher in (local, slurm):
        assert launcher.launch([], Workplace(tmp_path, tmp_path), Watcher(0), launching.Options()) == Outcome({})
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------------------- stopping


LONGER = 80
SEEDS = 2


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The weights of runs that nobody stopped."""
    place = Workplace(tmp_path_factory.mktemp("uninterrupted"), Path("data"))
    runs = [Run("cifar_resnet8", tiny.longer(LONGER), "synthetic", seed) for seed in range(SEEDS)]
    execute(runs, place, lambda: False)
    return weights(place.out)


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
    assert process.returncode == cli.EXIT_INTERRUPTED, said
    assert "The same command goes on where this stopped" in said and "failed" not in said
    assert not running(tmp_path / "runs"), "no job goes on"
    assert len(weights(tmp_path / "runs")) < SEEDS and list((tmp_path / "runs").glob("work/*/checkpoint.pt"))

    experiment = tiny.make_experiment(tiny.longer(LONGER), depths=(8,))
    assert cli.run_experiment(experiment, [*flags[:6], "--launcher", "inline"]) == 0
    assert weights(tmp_path / "runs") == uninterrupted
    records = read_pool(tmp_path / "runs" / "records").records.values()
    assert sum(record["interruptions"] for record in records) >= 1


def running(out):
    statuses = [Status.read(path.parent) for path in out.glob("work/*/status.json")]
    return [status for status in statuses if status is not None and status.state == "running"]


def wait_until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


# ---------------------------------------------------------------------------------------------------------------- slots


@pytest.fixture
def machine(monkeypatch):
    """Sets the number of GPUs that torch sees, CUDA_VISIBLE_DEVICES and the number of cores."""

    def make(gpus, visible=None, cores=8):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return make


def gpus(slots):
    return [slot.gpu for slot in slots]


def test_every_gpu_is_a_slot(machine):
    machine(4)
    assert gpus(local.find_slots(None, 10)) == [0, 1, 2, 3]
    assert gpus(local.find_slots(None, 3)) == [0, 1, 2]
    assert gpus(local.find_slots(6, 10)) == [0, 1, 2, 3, 0, 1]


def test_only_the_visible_gpus_are_slots_by_their_own_numbers(machine):
    machine(2, "2,3")
    assert gpus(local.find_slots(None, 10)) == [2, 3]
    assert gpus(local.find_slots(1, 10)) == [2]


@pytest.mark.parametrize("visible", ["GPU-5ebe9f43,GPU-aabb", "MIG-1"])
def test_gpus_named_by_uuid_are_a_clear_error(machine, visible):
    machine(2, visible)
    with pytest.raises(ValueError, match=f"CUDA_VISIBLE_DEVICES={visible} must list GPUs by number"):
        local.find_slots(None, 10)


@pytest.mark.parametrize("visible", [None, "", "-1", "NoDevFiles", "0", "0,1"])
def test_without_a_usable_gpu_the_slots_share_the_cores(machine, visible):
    machine(0, visible)
    slots = local.find_slots(3, 10)
    assert gpus(slots) == [None] * 3 and [slot.threads for slot in slots] == [2, 2, 2]
    assert len(local.find_slots(None, 100)) == 8 and local.find_slots(None, 1)[0].threads == 1


def test_more_slots_than_cores_have_a_thread_each(machine):
    machine(0, cores=2)
    assert [slot.threads for slot in local.find_slots(5, 5)] == [1] * 5


def test_no_slots_are_an_error(machine):
    machine(0)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        local.find_slots(0, 3)


@pytest.mark.parametrize(("count", "name"), [(0, "inline"), (1, "inline"), (2, "local")])
def test_auto_is_local_on_several_gpus_only(machine, count, name):
    machine(count)
    assert launching.choose("auto")[0] == name


def test_an_unknown_launcher_is_an_error_that_lists_them():
    with pytest.raises(ValueError, match="'cloud'.*auto, inline, local, slurm"):
        launching.choose("cloud")


# ---------------------------------------------------------------------------------------------------------------- SLURM


class FakeJob:
    job_id, state = "12_0", "TIMEOUT"

    def __init__(self, job):
        self.job = job

    def done(self):
        return True

    def result(self):
        raise submitit.core.utils.UncompletedJobError("no output")


@pytest.fixture
def cluster(monkeypatch):
    """Takes the place of submitit's executor: what it was given, and what each job does when it is submitted."""
    seen = {"on_submit": lambda job: None}

    class FakeExecutor:
        def __init__(self, folder, cluster):
            seen.update(folder=folder, cluster=cluster)

        def update_parameters(self, **parameters):
            seen.update(parameters=parameters)

        def submit_array(self, jobs):
            seen.update(jobs=jobs, environment=dict(os.environ))
            for job in jobs:
                seen["on_submit"](job)
            return [FakeJob(job) for job in jobs]

    monkeypatch.setattr(submitit, "AutoExecutor", FakeExecutor)
    monkeypatch.setattr(slurm, "_POLL_SECONDS", 0.0)
    return seen


def launch(out, **parameters):
    place = Workplace(Path(out), Path("data"), checkpoint_seconds=7.0)
    return slurm.launch(RUNS[:2], place, Watcher(2), launching.Options(slurm=Profile(**parameters)))


def test_slurm_gets_one_job_per_run_with_defaults_that_can_be_changed(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cluster["on_submit"] = lambda job: store(job.place.records, make_record(job.runs[0], 50.0))
    assert launch("runs", partition="gpu", time_minutes=600) == Outcome({})
    assert cluster["cluster"] == "slurm"
    parameters = cluster["parameters"]
    assert parameters["slurm_partition"] == "gpu" and parameters["timeout_min"] == 600
    assert parameters["gpus_per_node"] == 1 and parameters["name"]
    assert [job.runs for job in cluster["jobs"]] == [[run] for run in RUNS[:2]]
    place = cluster["jobs"][0].place
    assert place.out == tmp_path / "runs" and place.data == tmp_path / "data" and place.checkpoint_seconds == 7.0
    assert cluster["folder"] == tmp_path / "runs" / "work" / "jobs"


def test_a_launch_from_inside_a_job_does_not_pass_its_identity_on(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    launch(tmp_path)
    assert "SLURM_JOB_ID" not in cluster["environment"]
    assert cluster["environment"]["SLURM_CONF"] == "/etc/slurm.conf"


def test_a_slurm_job_that_ends_without_a_record_is_a_failure_with_its_state(cluster, tmp_path):
    outcome = launch(tmp_path)
    assert set(outcome.failures) == set(RUNS[:2]) and "ended as TIMEOUT: no output" in outcome.failures[RUNS[0]]


def test_the_traceback_of_a_failed_run_comes_back_from_slurm(cluster, tmp_path):
    cluster["on_submit"] = lambda job: Status("failed", "run", 0.0, message="its traceback").write(
        job.place.work(job.runs[0])
    )
    assert launch(tmp_path).failures[RUNS[1]] == "its traceback"


def test_a_parameter_that_slurm_refuses_is_an_error_with_its_words(cluster, tmp_path, monkeypatch):
    def refuse(self, **parameters):
        raise NameError("unknown parameter partition")

    monkeypatch.setattr(submitit.AutoExecutor, "update_parameters", refuse)
    with pytest.raises(ValueError, match="nothing was submitted to SLURM: unknown parameter(.|\n)*partition=gpu"):
        launch(tmp_path, partition="gpu")
