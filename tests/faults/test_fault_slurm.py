"""Faults on a real SLURM, the cluster of slurm/testcluster.

SLURM is slow, and mostly idle: launches whose faults do not concern others run side by side, each in a thread, and
their tests look at the results. The other tests have the cluster for themselves.
"""

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import faulted
import pytest
from faulted import Launch, Setting, checkpointed, owner, starts

from reproductions.harness.launching.slurm import cluster_profile
from reproductions.harness.launching.slurm.submissions import read_submissions
from reproductions.harness.record_files import record_path
from reproductions.harness.records import read_record

pytestmark = [pytest.mark.faults, pytest.mark.slurm]

SETTING = Setting(iterations=300, seeds=2)
PROFILE = """partition = "low"
gpus = 0
cpus = 1
memory_gb = 1
time_minutes = {minutes}
signal_seconds = 20
"""
SECONDS = 300  # for a scenario
AT_ONCE = 3  # scenarios; the cluster may have no more than four places for their jobs

# Several threads wait at once: they leave the processor to the jobs.
wait_until = partial(faulted.wait_until, pause=0.05, seconds=SECONDS)


@dataclass
class Scene:
    """A launch to SLURM: its OUT, how long its jobs may run, and what is done to them."""

    out: Path
    launches: list[Launch] = field(default_factory=list)
    minutes: int = 30

    def launch(self) -> Launch:
        folder = self.out.parent / "profiles"
        folder.mkdir(exist_ok=True)
        (folder / "faults.toml").write_text(PROFILE.format(minutes=self.minutes))
        launch = Launch(
            SETTING, self.out, "--launcher", "slurm", "--slurm-profile", "faults",
            logs=self.out.parent, before=partial(_use_profiles, folder),
        )  # fmt: skip
        self.launches.append(launch)
        return launch

    def finish(self) -> None:
        """Wait for the end of the launch, and launch again if a job did not come back."""
        if self.launches[-1].end(SECONDS) != 0:
            self.launch().succeed(SECONDS)

    def job(self, run) -> str:
        """Wait for a job that trains the run; returns its id, as 12_3: 12 can be the whole array."""
        found = []

        def is_known() -> bool:
            with suppress(OSError, KeyError):
                if starts(self.out, run) and (found_owner := owner(self.out, run)):
                    variables = Path(f"/proc/{found_owner['pid']}/environ").read_text().split("\0")
                    values = dict(variable.split("=", 1) for variable in variables if "=" in variable)
                    found.append(f"{values['SLURM_ARRAY_JOB_ID']}_{values['SLURM_ARRAY_TASK_ID']}")
            return bool(found)

        wait_until(is_known, f"a job that trains {run}")
        return found[0]

    def claim(self, run) -> dict:
        """Wait for a job that trains the run; returns its claim."""
        self.job(run)
        return owner(self.out, run)

    def next_checkpoint(self, run) -> None:
        before = checkpointed(self.out, run)
        wait_until(lambda: checkpointed(self.out, run) != before, f"a checkpoint of {run}")

    def wait_for_end_of(self, run, claim: dict) -> None:
        """Wait until the process that made this claim has no longer the run."""
        wait_until(lambda: owner(self.out, run) != claim, f"the end of the process that trains {run}")

    def end(self) -> None:
        for launch in self.launches:
            launch.kill_all()
        with suppress(OSError, subprocess.SubprocessError):
            jobs = [job for submission in read_submissions(self.out) for job in submission.jobs]
            subprocess.run(["scancel", *jobs], capture_output=True, timeout=30)


def _use_profiles(folder: Path) -> None:
    cluster_profile.load_cluster_profile.__defaults__ = (folder,)


def slurm(*command: str) -> str:
    """Run a command of SLURM's and return its output."""
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def wait_for_state(state: str, *jobs: str) -> None:
    def is_so(job: str) -> bool:
        with suppress(subprocess.CalledProcessError):
            return f"JobState={state} " in slurm("scontrol", "show", "job", job)
        return False

    wait_until(lambda: all(map(is_so, jobs)), f"state {state} of {', '.join(jobs)}")


# ------------------------------------------------------------------------------------------ what happens to each launch


def requeued(scene: Scene) -> tuple[int, dict | None]:
    moments, times = random.Random(0), {run: 0 for run in SETTING.runs}
    scene.launch()
    for number in range(5):
        run = SETTING.runs[number % 2]
        job = scene.job(run)
        scene.next_checkpoint(run)
        time.sleep(moments.uniform(0, 0.2))
        before = owner(scene.out, run)
        slurm("scontrol", "requeue", job)
        scene.wait_for_end_of(run, before)
        times[run] += 1
    scene.finish()
    return 5, times


def timed_out(scene: Scene) -> tuple[int, dict | None]:
    """The runs are held up until SLURM's signal comes: they would else have to be longer than a minute."""
    scene.minutes = 1
    scene.launch()
    held = {}
    for run in SETTING.runs:
        scene.job(run)
        held[run] = owner(scene.out, run)
        os.kill(held[run]["pid"], signal.SIGSTOP)  # SLURM sends SIGCONT with its signal
    for run in held:
        scene.wait_for_end_of(run, held[run])
    scene.finish()
    records = [read_record(record_path(scene.out / "records", run)) for run in held]
    assert all(record["interruptions"] >= 1 for record in records)  # the signal may come again, soon after the start
    return len(held), None


def terminated(scene: Scene) -> tuple[int, dict | None]:
    """Do what a cluster does that sends only SIGTERM, and then requeues the ended jobs."""
    scene.launch()
    counts = {}
    for run in SETTING.runs:
        job, before = scene.job(run), owner(scene.out, run)
        saved = checkpointed(scene.out, run)
        os.kill(before["pid"], signal.SIGTERM)
        scene.wait_for_end_of(run, before)
        assert checkpointed(scene.out, run) > saved, "it left a checkpoint"
        wait_for_state("COMPLETED", job)
        slurm("scontrol", "requeue", job)
        counts[run] = 1
    scene.finish()
    return len(counts), counts


def killed(scene: Scene) -> tuple[int, dict | None]:
    scene.launch()
    counts, jobs = {}, []
    for run in SETTING.runs:
        jobs.append(scene.job(run))
        scene.next_checkpoint(run)
        os.kill(owner(scene.out, run)["pid"], signal.SIGKILL)
        counts[run] = 1
    scene.launches[-1].kill()  # it would find out in half a minute that no job is left
    wait_for_state("FAILED", *jobs)
    scene.launch()
    scene.finish()
    return len(counts), counts


def cancelled(scene: Scene) -> tuple[int, dict | None]:
    scene.launch()
    run = SETTING.runs[0]
    slurm("scancel", scene.job(run))
    scene.finish()
    return 1, {run: 1}


def launcher_killed(scene: Scene) -> tuple[int, dict | None]:
    for _ in range(2):
        launch = scene.launch()
        scene.job(SETTING.runs[0])
        assert launch.kill()
    scene.launch()
    scene.finish()
    assert len(read_submissions(scene.out)) == 1, "the jobs of the first launch were found"
    return 2, {}


def two_launches(scene: Scene) -> tuple[int, dict | None]:
    for launch in [scene.launch(), scene.launch()]:
        launch.succeed(SECONDS)
    assert len(read_submissions(scene.out)) == 1, "one of them found the jobs of the other"
    return 1, {}


SIDE_BY_SIDE: dict[str, Callable[[Scene], tuple[int, dict | None]]] = {
    f"test_{name}": scenario
    for name, scenario in {
        "the_time_limit": timed_out,
        "requeued_at_5_moments": requeued,
        "a_cluster_that_sends_only_sigterm": terminated,
        "a_job_whose_process_is_killed": killed,
        "a_job_cancelled_by_hand": cancelled,
        "a_launcher_killed_while_slurm_has_its_jobs": launcher_killed,
        "two_launches_to_slurm_at_once": two_launches,
    }.items()
}


@pytest.fixture(scope="module")
def side_by_side(cluster, undisturbed, request, tmp_path_factory):
    """The outcomes of scenarios by the names of their tests; scenarios of the chosen tests begin at once."""
    undisturbed(SETTING)
    chosen = [item.name for item in request.session.items if item.name in SIDE_BY_SIDE]
    scenes = {name: Scene(tmp_path_factory.mktemp(name.removeprefix("test_")) / "runs") for name in chosen}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {name: pool.submit(one, scenes[name]) for name, one in SIDE_BY_SIDE.items() if name in chosen}
        yield futures, scenes
        for future in futures.values():
            future.cancel()
        for scene in scenes.values():
            scene.end()


@pytest.fixture
def struck(side_by_side, request, check):
    """Waits for the test's scenario, then checks what it left."""
    futures: dict[str, Future] = side_by_side[0]
    scene: Scene = side_by_side[1][request.node.name]

    def seen(fault, how, **more):
        try:
            times, interruptions = futures[request.node.name].result(2 * SECONDS)
        except BaseException as error:
            said = "\n".join(launch.said for launch in scene.launches)
            raise AssertionError(f"{type(error).__name__}: {error}\n{said}\n{slurm('squeue')}") from error
        check(fault, how, times, SETTING, [scene.out], [interruptions], **more)

    return seen


def test_requeued_at_5_moments(struck):
    struck("scontrol requeue", "at random moments")


def test_a_cluster_that_sends_only_sigterm(struck):
    how = "to the process of a SLURM job, then scontrol requeue"
    struck("SIGTERM, and no other signal", how, said="leaves a checkpoint")


def test_a_job_whose_process_is_killed(struck):
    struck("SIGKILL of the process of a SLURM job", "some time after a checkpoint")


def test_a_job_cancelled_by_hand(struck):
    struck("SLURM job cancelled by hand", "scancel of one job of the array")


def test_a_launcher_killed_while_slurm_has_its_jobs(struck):
    how = "SLURM; its jobs go on, and are found by the next launch"
    struck("SIGKILL of the launcher", how, begun_once=True, said="every run begun once")


def test_two_launches_to_slurm_at_once(struck):
    struck("Two launches at once", "launcher slurm", begun_once=True, said="every run begun once")


def test_the_time_limit(struck):
    how = "limit of 1 minute, SLURM's signal 20 s or more before; the run held up by SIGSTOP until then"
    struck("Time limit of a SLURM job", how, said="requeued, goes on")


# -------------------------------------------------------------------------------------------- the whole cluster for one


@pytest.fixture
def scene(side_by_side, undisturbed, tmp_path):
    """A launch that has the cluster for itself."""
    wait([*side_by_side[0].values()], 2 * SECONDS)
    scene = Scene(tmp_path / "runs")
    yield scene
    scene.end()


def test_preempted_by_a_job_of_higher_priority(scene, check, tmp_path):
    scene.launch()
    before = {run: scene.claim(run) for run in SETTING.runs}
    slurm("sbatch", "--partition=high", "--nodes=2", "--exclusive", f"--output={tmp_path / 'high'}", "--wrap=true")
    for run, was in before.items():
        scene.wait_for_end_of(run, was)
    scene.finish()
    how = "job for both nodes in a partition of higher priority"
    check("Preemption by SLURM", how, 2, SETTING, [scene.out], [dict.fromkeys(before, 1)], said="requeued, goes on")


def test_a_node_that_is_lost(scene, check, cluster):
    scene.launch()
    first = SETTING.runs[0]
    node = re.search(r"\bNodeList=(\w+)", slurm("scontrol", "show", "job", scene.job(first))).group(1)
    scene.next_checkpoint(first)
    owners, struck = {run: owner(scene.out, run).get("pid") for run in SETTING.runs}, processes(cluster, node)
    for process in struck:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    lost = {run: 1 for run, process in owners.items() if process in struck}
    assert first in lost
    try:
        scene.finish()
    finally:
        subprocess.run(["slurmd", "-N", node], check=True, timeout=30)
        wait_until(lambda: "down" not in slurm("sinfo", "--noheader", f"--nodes={node}", "--format=%T"), "it is back")
    how = f"SIGKILL of slurmd and all else on one of two nodes, with {len(lost)} jobs"
    check("Lost node", how, 1, SETTING, [scene.out], [lost], said="requeued to the other node")


def processes(cluster, node: str) -> list[int]:
    """The daemon of a node, and all that runs in its jobs; the daemon first."""
    found = [int((cluster.folder / "pid" / node).read_text())]
    jobs = slurm("squeue", "--noheader", f"--nodelist={node}", "--states=RUNNING", "--format=%A").split()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            name, said = (folder / "comm").read_text(), (folder / "cmdline").read_bytes().decode(errors="replace")
            environment = (folder / "environ").read_bytes().split(b"\0")
            ours = f"SLURM_CONF={cluster.configuration}".encode() in environment
            is_daemon = name == "slurmstepd\n" and re.search(rf"\[({'|'.join(jobs)})\.", said) is not None
            if ours and (is_daemon or any(f"SLURM_JOB_ID={job}".encode() in environment for job in jobs)):
                found.append(int(folder.name))
    return found
