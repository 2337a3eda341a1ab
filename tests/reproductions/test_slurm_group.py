"""One run on two nodes of a real SLURM: its processes find each other, and a requeued job goes on as it was."""

import io
import shlex
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reproductions.harness.console import make_console
from reproductions.harness.launching.options import Options
from reproductions.harness.launching.progress import Display
from reproductions.harness.launching.run_paths import RunPaths
from reproductions.harness.launching.slurm import launch as slurm
from reproductions.harness.launching.slurm import queue
from reproductions.harness.launching.slurm.cluster_profile import ClusterProfile
from reproductions.harness.launching.slurm.submissions import read_submissions
from reproductions.harness.launching.worker import Outcome, execute
from reproductions.harness.record_files import record_path
from reproductions.harness.records import read_record
from resnet import checkpoint
from resnet.data import load
from resnet.recipe import Recipe
from resnet.run import Run

pytestmark = pytest.mark.slurm

TWO_NODES = ClusterProfile(partition="low", gpus=0, cpus=1, memory_gb=2, time_minutes=30, signal_seconds=20, nodes=2)
SHORT = Run("cifar_resnet8", Recipe(iterations=8, batch_size=11, milestones=(5,), eval_interval=4), "synthetic")
LONG = Run("cifar_resnet8", Recipe(iterations=400, batch_size=8, milestones=(200,), eval_interval=50), "synthetic")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.3)
    monkeypatch.setattr(slurm, "QUEUE_SECONDS", 1.0)


def launch(run, out, profile=TWO_NODES):
    paths = RunPaths(out, Path("data"), checkpoint_seconds=0.5)
    outcome = slurm.launch([run], paths, Display(1, make_console(file=io.StringIO())), Options(slurm=profile))
    assert outcome == Outcome({}), outcome.failures
    return paths, read_record(record_path(paths.records, run))


def test_two_nodes_give_what_one_process_gives(cluster, tmp_path):
    paths, record = launch(SHORT, tmp_path / "two")
    assert record["hardware"]["processes"] == 2 and record["interruptions"] == 0
    alone = RunPaths(tmp_path / "one", Path("data"))
    assert execute([SHORT], alone, lambda: False) == Outcome({})
    expected, weights = (checkpoint.load(p.weights(SHORT)) for p in (alone, paths))
    torch.testing.assert_close(weights, expected, rtol=2e-3, atol=2e-3, check_stride=False)
    assert record["final"]["training_loss"] == pytest.approx(
        read_record(record_path(alone.records, SHORT))["final"]["training_loss"], rel=1e-3
    )


def test_a_requeued_job_on_two_nodes_goes_on_as_if_nothing_had_been(cluster, tmp_path):
    _, undisturbed = launch(LONG, tmp_path / "undisturbed")
    paths = RunPaths(tmp_path / "requeued", Path("data"))
    disturbed = threading.Thread(target=tell_in_mid_run, args=(paths,))
    disturbed.start()
    _, record = launch(LONG, paths.out)
    disturbed.join()
    assert record["interruptions"] == 1 and undisturbed["interruptions"] == 0
    assert record["weights_sha256"] == undisturbed["weights_sha256"] and record["curve"] == undisturbed["curve"]


def tell_in_mid_run(paths):
    """Send the signal that SLURM sends before the time is up, once the run has a checkpoint."""
    end = time.monotonic() + 120
    while not (paths.work(LONG) / checkpoint.NEWEST).exists() and time.monotonic() < end:
        time.sleep(0.05)
    (job,) = queue.jobs(job for submission in read_submissions(paths.out) for job in submission.jobs)
    subprocess.run(["scancel", "--signal=USR2", job], check=True)


FILES = Run(
    "resnet18",
    Recipe(iterations=6, batch_size=8, milestones=(4,), eval_interval=3, batch_norm_size=2, crop="area", image_size=32,
           colour_jitter=0.4, pca_noise=0.1, tests=("ten_crop",)),
    "synthetic_imagenet",
)  # fmt: skip


def test_a_run_on_two_nodes_that_reads_image_files_finishes(cluster, tmp_path):
    load(FILES.data, tmp_path)  # as the command line does before it submits
    paths = RunPaths(tmp_path / "out", tmp_path, checkpoint_seconds=0.5)
    display = Display(1, make_console(file=io.StringIO()))
    outcome = slurm.launch([FILES], paths, display, Options(slurm=TWO_NODES))
    assert outcome == Outcome({}), outcome.failures
    record = read_record(record_path(paths.records, FILES))
    assert record["hardware"]["processes"] == 2 and record["final"]["iteration"] == 6
    assert set(record["final"]) >= {"test_error", "test_top5_error"} and set(record["tests"]) == {"ten_crop"}
    assert all(0 <= error <= 100 for error in record["tests"]["ten_crop"].values())


def test_jobs_run_in_a_stand_in_for_a_container(cluster, tmp_path):
    """The profile's command stands before Python, and sees what an argument of srun says, with all its characters."""
    entered, wrapper, image = tmp_path / "entered", tmp_path / "a container", "it's an $IMAGE; of two words"
    wrapper.write_text(f'#!/bin/sh\nprintf %s "$IMAGE" >{shlex.quote(str(entered))}\nexec "$@"\n')
    wrapper.chmod(0o755)
    profile = replace(
        TWO_NODES, nodes=1, python=[str(wrapper), sys.executable], srun_args=[f"--export=ALL,IMAGE={image}"]
    )
    paths, record = launch(replace(SHORT, seed=1), tmp_path / "runs", profile)
    assert entered.read_text() == image and record["status"] == "completed"
