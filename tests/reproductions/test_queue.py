"""Questions to SLURM's queue: on a real cluster, and where SLURM is missing, does not answer or answers unusually."""

import os
import socket
import subprocess
import time
from functools import partial

import pytest
from waiting import wait_until as wait

from reproductions.harness.launching.slurm import queue

wait_until = partial(wait, pause=0.2)


def submit(*arguments, command="sleep 300"):
    output = ["--output", "/dev/null", "--parsable", "--mem", "100"]
    done = subprocess.run(
        ["sbatch", *output, *arguments, "--wrap", command], check=True, capture_output=True, text=True
    )
    return done.stdout.strip().split(";")[0]


def state(job):
    found = queue.jobs([job])
    return found[job].state if job in found else None


# --------------------------------------------------------------------------------------------------- on a real cluster


@pytest.mark.slurm
def test_an_array_from_the_queue_to_its_end(cluster):
    array = submit("--array", "0-4%1")
    try:
        wait_until(lambda: state(f"{array}_0") == "RUNNING")
        found = queue.jobs([array])
        assert set(found) == {f"{array}_{element}" for element in range(5)}
        assert found[f"{array}_3"].state == "PENDING" and found[f"{array}_3"].reason == "JobArrayTaskLimit"
        assert queue.ending(f"{array}_0") is None and queue.ending(f"{array}_3") is None
        queue.cancel([f"{array}_3"])
        wait_until(lambda: set(queue.jobs([array])) == {f"{array}_{element}" for element in (0, 1, 2, 4)})
        assert set(queue.jobs([f"{array}_4"])) == {f"{array}_4"}
        subprocess.run(["scontrol", "requeue", f"{array}_0"], check=True)
        assert f"{array}_0" in queue.jobs([array]), "a requeued job is still in the queue"
    finally:
        queue.cancel([array])
    wait_until(lambda: queue.jobs([array]) == {})
    wait_until(lambda: all((queue.ending(f"{array}_{n}") or "").startswith("CANCELLED") for n in (0, 1, 2, 4)))
    assert queue.ending(f"{array}_3") in (None, "CANCELLED by 0")  # of one that never began SLURM may know nothing
    queue.cancel([array])  # once more, without complaint


@pytest.mark.slurm
def test_how_jobs_ended(cluster):
    failed, completed = submit(command="exit 3"), submit(command="true")
    wait_until(lambda: queue.jobs([failed, completed]) == {})
    wait_until(lambda: queue.ending(failed) and queue.ending(completed))
    assert queue.ending(failed) == "FAILED, exit code 3:0" and queue.ending(completed) == "COMPLETED"


@pytest.mark.slurm
def test_unknown_jobs_are_in_no_queue_and_have_no_ending(cluster):
    assert queue.jobs(["999999"]) == {} and queue.jobs(["999998", "999999_1"]) == {}
    assert queue.ending("999999") is None
    queue.check_reachable()


@pytest.mark.slurm
def test_settings_of_the_user_do_not_change_the_answers(cluster, monkeypatch):
    for name, value in {"SQUEUE_STATES": "COMPLETED", "SQUEUE_FORMAT": "%u", "SCANCEL_INTERACTIVE": "true"}.items():
        monkeypatch.setenv(name, value)
    job = submit()
    assert set(queue.jobs([job])) == {job}
    queue.cancel([job])
    wait_until(lambda: queue.jobs([job]) == {})


@pytest.mark.slurm
def test_a_controller_where_nobody_listens_is_an_error_in_its_words_at_once(cluster, tmp_path, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]  # bound, but nobody listens
        lines = cluster.configuration.read_text().splitlines()
        changed = [f"SlurmctldPort={port}" if line.startswith("SlurmctldPort=") else line for line in lines]
        changed = [line for line in changed if not line.startswith("Accounting")]
        (tmp_path / "slurm.conf").write_text("\n".join([*changed, "AccountingStorageType=accounting_storage/none", ""]))
        monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
        start = time.monotonic()
        with pytest.raises(ValueError, match="controller can't be reached: .*is DOWN"):
            queue.check_reachable()
        assert queue.jobs(["1"]) is None
        assert queue.ending("1") is None, "no accounting"
        assert time.monotonic() - start < 15
        with pytest.raises(ValueError, match="could not all be cancelled: .*Unable to contact slurm controller"):
            queue.cancel(["1"])


# ------------------------------------------------------------------------------------------------------ without SLURM


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Puts shell scripts in the place of all programs; unless told otherwise, they print nothing."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def make(**scripts):
        for name in ("sbatch", "srun", "squeue", "sacct", "scancel", "scontrol"):
            script = scripts.get(name, "echo 'Slurmctld(primary) at login1 is UP'" if name == "scontrol" else "true")
            (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / name).chmod(0o755)

    return make


def test_without_slurms_programs_there_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"not on this machine \(sbatch, srun, squeue, scancel, scontrol\)"):
        queue.check_reachable()
    assert queue.jobs(["1"]) is None and queue.ending("1") is None
    with pytest.raises(ValueError, match="could not all be cancelled: scancel can't be run"):
        queue.cancel(["1"])


def test_a_program_that_never_ends_is_given_up_with_what_it_said(programs, monkeypatch):
    programs(
        scontrol="echo 'cannot stat file /etc/slurm.conf, retrying' >&2; exec /bin/sleep 60", sacct="exec /bin/sleep 60"
    )
    monkeypatch.setattr(queue, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(queue, "PING_SECONDS", 0.5)
    with pytest.raises(ValueError, match="did not answer within .*; cannot stat file /etc/slurm.conf"):
        queue.check_reachable()
    assert queue.jobs(["1"]) is None and queue.ending("1") is None


def test_one_controller_of_two_is_enough(programs):
    programs(scontrol="echo 'Slurmctld(primary) at a is DOWN'; echo 'Slurmctld(backup) at b is UP'")
    queue.check_reachable()
    assert queue.jobs(["1"]) == {}


@pytest.mark.parametrize("script", ["exit 1", "echo 'slurm_load_jobs error: Socket timed out' >&2; exit 1"])
def test_a_queue_that_can_not_be_read_is_not_an_empty_one(programs, script):
    programs(squeue=script)
    assert queue.jobs(["1"]) is None


def test_ended_jobs_that_squeue_still_shows_are_not_in_the_queue(programs):
    lines = "CLUSTER: c\n1|COMPLETED|None\n2|PENDING|ReqNodeNotAvail, Unavailable:a\n3|COMPLETING|None\n4_1|TIMEOUT|x"
    programs(squeue=f"/bin/cat <<'E'\n{lines}\nE")
    found = queue.jobs(["1", "2", "3", "4"])
    assert list(found) == ["2", "3"] and found["2"].reason == "ReqNodeNotAvail, Unavailable:a"


def test_of_thousands_of_elements_squeue_is_asked_for_the_arrays_alone(programs, tmp_path):
    lines = "\\n".join(f"7_{element}|PENDING|None" for element in range(12_005))
    programs(squeue=f'echo "$@" > "$0.asked"; printf "{lines}\\n"')
    ids = [f"7_{element}" for element in range(12_000)]
    assert list(queue.jobs([*ids, "8"])) == ids, "others of the array were not asked for"
    asked = (tmp_path / "squeue.asked").read_text().split()
    assert {*asked[-1].removeprefix("--jobs=").split(",")} == {"7", "8"}


@pytest.mark.parametrize(
    ("job", "ending"),
    [
        ("7_0", "TIMEOUT"),
        ("7_1", "FAILED, exit code 0:9"),
        ("7_2", None),
        ("7_3", "CANCELLED by 0"),
        ("7_6", "CANCELLED by 0"),
        ("7_8", None),
        ("7", None),
        ("70_0", None),
    ],
)
def test_endings_of_an_arrays_elements(programs, job, ending):
    lines = "7_0|TIMEOUT|0:0\n7_1|FAILED|0:9\n7_2|TIMEOUT|0:0\n7_2|RUNNING|0:0\n"
    lines += "7_[3,5-7%2]|CANCELLED by 0|0:0\n7_8|REQUEUED|0:0\n"
    programs(sacct=f"/bin/cat <<'E'\n{lines}\nE")
    assert queue.ending(job) == ending


@pytest.mark.parametrize("accounting", ["/bin/cat <<'E'\n7_[0-199]|TIMEOUT|0:0\nE", "exit 1"], ids=["with", "without"])
def test_the_endings_of_hundreds_of_elements_are_asked_for_once(programs, tmp_path, accounting):
    lines = "\n".join(f"7_{number}|TIMEOUT|None" for number in range(200))
    asked = 'echo asked >> "$0.asked"\n'
    programs(sacct=asked + accounting, squeue=f"{asked}/bin/cat <<'E'\n{lines}\nE")
    answers = {}
    assert {queue.ending(f"7_{number}", answers) for number in range(200)} == {"TIMEOUT"}
    assert queue.ending("7_200", answers) is None
    files = [path for path in tmp_path.glob("*.asked") if path.read_text() != "asked\n"]
    assert not files and (tmp_path / "sacct.asked").exists()
    queue.ending("7_0")
    assert (tmp_path / "sacct.asked").read_text() == "asked\n" * 2, "later it is another question"


@pytest.mark.parametrize(
    "id", ["", "1 2", "1,2", "-1", "--user=root", "1;id", "1_", "1_[0-3]", "0", "1\n", "١", 1, None]
)
def test_what_is_no_job_never_reaches_a_command(programs, id):
    programs(**dict.fromkeys(("squeue", "sacct", "scancel"), 'echo ran >"$0.ran"'))
    for ask in (lambda: queue.jobs([id]), lambda: queue.ending(id), lambda: queue.cancel(["1", id])):
        with pytest.raises(ValueError, match="is not the id of a SLURM job"):
            ask()
    assert not [name for name in os.listdir(os.environ["PATH"]) if name.endswith(".ran")]


def test_no_jobs_are_not_asked_for(programs, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert queue.jobs([]) == {}
    queue.cancel([])
