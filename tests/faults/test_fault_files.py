"""Files that can't be written or read, or are damaged; clocks and outputs of other kinds; and a run that diverges."""

import ctypes
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from faulted import SECONDS, Interruptions, Setting, is_recorded, run_paths, wait_until

from reproductions.harness import cli
from reproductions.harness.console import EXIT_FAILED, EXIT_REFUSED
from reproductions.harness.launching.curve_file import read_curve
from reproductions.harness.record_files import record_path
from reproductions.harness.records import read_pool, read_record
from resnet import checkpoint

pytestmark = pytest.mark.faults

SETTING = Setting()
INLINE = ("--launcher", "inline")
NEVER = ("--checkpoint-seconds", "1000")
PAGE = os.sysconf("SC_PAGE_SIZE")
CLONE_NEWNS = 0x20000  # of sched.h
CAPABILITIES = 0x20080522  # the version of capset(2) with 64 of them


@pytest.fixture
def disk(tmp_path):
    """A small file system of its own: 16 MB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if said := mount("-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)):
        pytest.skip(f"a file system can't be mounted here: {said}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], timeout=SECONDS)


def mount(*arguments: str) -> str:
    """Run mount; returns its message if it fails."""
    if os.geteuid() != 0:
        return "needs root"
    try:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True, timeout=SECONDS)
    except OSError as error:
        return str(error)
    return done.stderr.strip() if done.returncode else ""


def fill(disk: Path, left: int = 0) -> Path:
    """Leave so many bytes of the disk."""
    path = disk / "filler"
    with path.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * PAGE)
        except OSError:
            pass
        file.truncate(max(0, path.stat().st_size // PAGE * PAGE - left))
    return path


# ------------------------------------------------------------------------------------------------------------ full disk


def test_a_disk_that_is_full_while_a_checkpoint_is_written(disk, launch, check):
    out, times = disk / "runs", 3
    counts = Interruptions(out, SETTING.runs)
    for _ in range(times):
        training = launch(SETTING, out, *INLINE)
        training.wait_for_news()
        filler = fill(disk)
        assert training.end() == EXIT_FAILED and "No space left on device" in training.said, training.said
        filler.unlink()
        counts.note()
    launch(SETTING, out, *INLINE).succeed()
    check("Full disk", "while a checkpoint is written", times, SETTING, [out], [counts.counts], said="says so")


def test_a_disk_that_is_full_for_a_moment_while_a_checkpoint_is_written(disk, launch, check):
    setting = Setting(iterations=400, seeds=1)  # long enough for a checkpoint while the disk is full
    training = launch(setting, disk / "runs", *INLINE)
    training.wait_for_news()
    filler = fill(disk)
    training.wait_for_words("its checkpoint could not be written ([Errno 28] No space left on device")
    filler.unlink()
    training.succeed()
    check("Full disk", "for a moment, while a checkpoint is written", 1, setting, [disk / "runs"], [{}],
          begun_once=True, said="says so, goes on")  # fmt: skip


@pytest.mark.parametrize(("what", "room"), [("weights", "nothing"), ("record", "the weights")])
def test_a_disk_that_is_full_while_a_result_is_written(what, room, disk, launch, check, undisturbed):
    out = disk / "runs"
    counts = Interruptions(out, SETTING.runs)
    size = run_paths(undisturbed(SETTING)).weights(SETTING.runs[0]).stat().st_size
    training = launch(SETTING, out, *INLINE, *NEVER)
    # The curve takes a page of its own.
    wait_until(lambda: read_curve(run_paths(out).work(SETTING.runs[0])), "the first evaluation")
    filler = fill(disk, left=0 if room == "nothing" else -(-size // PAGE) * PAGE)
    assert training.end() == EXIT_FAILED and "No space left on device" in training.said, training.said
    assert run_paths(out).weights(SETTING.runs[0]).exists() == (what == "record")
    assert not is_recorded(out, SETTING.runs[0])
    filler.unlink()
    counts.note()
    launch(SETTING, out, *INLINE).succeed()
    check("Full disk", f"while the {what} {'are' if what == 'weights' else 'is'} written", 1,
          SETTING, [out], [counts.counts], said="says so")  # fmt: skip


def test_a_disk_that_is_full_while_the_table_is_written(disk, launch, check):
    out = disk / "runs"
    launch(SETTING, out, *INLINE).succeed()
    for path in (out / "tables").iterdir():
        path.unlink()
    filler = fill(disk)
    again = launch(SETTING, out, *INLINE)
    assert again.end() == EXIT_FAILED and "the tables could not be written" in again.said, again.said
    filler.unlink()
    launch(SETTING, out, *INLINE).succeed()
    check("Full disk", "while the table is written", 1, SETTING, [out], [{}], begun_once=True, said="says so")


# -------------------------------------------------------------------------------------------------------------- damage


def truncate(path: Path, moments: random.Random) -> None:
    os.truncate(path, moments.randrange(path.stat().st_size))


def flip_bit(path: Path, moments: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[moments.randrange(len(content))] ^= 1 << moments.randrange(8)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "how"), [(truncate, "cut off at a random byte"), (flip_bit, "a random bit flipped")]
)
def test_a_damaged_newest_checkpoint(damage, how, launch, check, tmp_path):
    out, moments, times = tmp_path / "runs", random.Random(0), 3
    counts = Interruptions(out, SETTING.runs)
    for _ in range(times):
        training = launch(SETTING, out, *INLINE, "--checkpoint-seconds", "0.1")
        wait_until(lambda: _both_checkpoints(out), "a run with two checkpoints")
        assert training.kill(), "it ended too soon"
        counts.note()
        (folder,) = _both_checkpoints(out)
        damage(folder / checkpoint.NEWEST, moments)
        training = launch(SETTING, out, *INLINE, "--checkpoint-seconds", "0.1")
        training.wait_for_words("resuming from an older state")
        training.kill()
        counts.note()
        (folder / checkpoint.NEWEST).with_suffix(".damaged").unlink()
        (folder / checkpoint.PREVIOUS).unlink(missing_ok=True)
    launch(SETTING, out, *INLINE).succeed()
    check(
        "Damaged newest checkpoint",
        how,
        times,
        SETTING,
        [out],
        [counts.counts],
        said="says so, goes on from the older one",
    )


def _both_checkpoints(out):
    folders = {path.parent for path in out.glob(f"work/*/{checkpoint.PREVIOUS}")}
    return [folder for folder in folders if (folder / checkpoint.NEWEST).exists()]


def edit(path: Path, moments: random.Random) -> None:
    record = json.loads(path.read_text())
    record["final"]["test_error"] = 0.5
    path.write_text(json.dumps(record))


def test_a_damaged_record(launch, check, tmp_path, undisturbed):
    out, moments, damages = tmp_path / "runs", random.Random(0), (truncate, flip_bit, edit)
    launch(SETTING, out, *INLINE).succeed()
    paths = [record_path(out / "records", run) for run in SETTING.runs]
    for path, damage in zip(paths, damages):
        damage(path, moments)
    damaged = [path.read_bytes() for path in paths]
    again = launch(SETTING, out, *INLINE)
    assert again.end() == EXIT_FAILED and again.said.count("damaged record: ") == len(paths), again.said
    assert [path.read_bytes() for path in paths] == damaged and set(read_pool(out / "records").damaged) == set(paths)
    for path in paths:
        path.rename(tmp_path / path.name)
    launch(SETTING, out, *INLINE).succeed()
    check("Damaged record", "cut off, a bit flipped, a number changed", len(paths), SETTING, [out], [{}],
          said="says so, never trains over it; moved away, it is made again")  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ read-only


def test_a_results_folder_that_is_read_only(disk, launch, check):
    out = disk / "runs"
    counts = Interruptions(out, SETTING.runs)
    assert not mount("-o", "remount,ro", str(disk))
    refused = launch(SETTING, out, *INLINE)
    assert refused.end() == EXIT_REFUSED and "can't be written to" in refused.said, refused.said
    assert not mount("-o", "remount,rw", str(disk)) and not list(disk.iterdir())
    training = launch(SETTING, out, *INLINE)
    training.wait_for_news()
    wait_until(lambda: not mount("-o", "remount,ro", str(disk)), "no file is open for writing")
    assert training.end() == EXIT_FAILED and "Read-only file system" in training.said, training.said
    assert not mount("-o", "remount,rw", str(disk))
    counts.note()
    launch(SETTING, out, *INLINE).succeed()
    check("Read-only results folder", "before the launch, and while it trains", 2, SETTING, [out], [counts.counts],
          said="says so")  # fmt: skip


# ------------------------------------------------------------------------- unreadable folders, clocks, outputs, memory


def obey_permissions() -> None:
    """Give up what lets this process read what its user may not: all that root has beyond other users."""
    header, none = (ctypes.c_uint32 * 2)(CAPABILITIES, 0), (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None, use_errno=True).capset(header, none) == 0, os.strerror(ctypes.get_errno())


def test_a_results_folder_that_can_not_be_read(launch, check, tmp_path):
    out = tmp_path / "runs"
    launch(SETTING, out, *INLINE).succeed()
    (out / "records").chmod(0o000)
    refused = launch(SETTING, out, *INLINE, before=obey_permissions)
    assert refused.end() == EXIT_REFUSED and "have it made readable for this user" in refused.said, refused.said
    assert "Traceback" not in refused.said
    (out / "records").chmod(0o755)
    launch(SETTING, out, *INLINE, before=obey_permissions).succeed()
    check("Unreadable results folder", "before a launch", 1, SETTING, [out], [{}], begun_once=True,
          said="says so, trains nothing over it")  # fmt: skip


def be_quick_to_take_over() -> None:
    cli.RunPaths = partial(cli.RunPaths, stale_seconds=3.0)


def test_an_owner_from_the_future(launch, check, tmp_path):
    """A run whose owner, on another machine with a clock an hour ahead, is no more."""
    out, times = tmp_path / "runs", 2
    counts = Interruptions(out, SETTING.runs)
    for _ in range(times):
        training = launch(SETTING, out, *INLINE)
        training.wait_for_news()
        assert training.kill(), "it ended too soon"
        counts.note()
        for claim in out.glob("work/*/owner.*"):
            claim.write_text(json.dumps({"host": "elsewhere", "boot": "another", "pid": 1, "started": "1"}))
            os.utime(claim, (time.time() + 3600,) * 2)
    launch(SETTING, out, *INLINE, before=be_quick_to_take_over).succeed()
    check("Clock of another machine", "an hour ahead of it the owner of a run dies", times, SETTING, [out],
          [counts.counts], said="waited for no longer than for others")  # fmt: skip


def print_ascii() -> None:
    sys.stdout.reconfigure(encoding="ascii")
    sys.stderr.reconfigure(encoding="ascii", errors="backslashreplace")  # as Python has it


def print_on_full_disk() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


@pytest.mark.parametrize(
    ("before", "how", "said"),
    [
        (print_ascii, "that has ASCII alone", "shows ? for other characters"),
        (print_on_full_disk, "to a full disk", "says so"),
    ],
)
def test_an_output_that_does_not_take_all(before, how, said, launch, check, tmp_path):
    out = tmp_path / "läufe – 中"
    training = launch(SETTING, out, *INLINE, before=before)
    training.succeed()
    assert ("l?ufe ? ?/" if before is print_ascii else "written, but not shown") in training.said, training.said
    check("Standard output", how, 1, SETTING, [out], [{}], begun_once=True, said=f"{said}; the exit status is 0")


def use_small_shared_memory() -> None:
    """Have this process see a /dev/shm of 1 MB, where containers have 64."""
    assert ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) == 0, os.strerror(ctypes.get_errno())
    said = mount("--make-rprivate", "/") or mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", "/dev/shm")
    assert not said, said


def test_shared_memory_that_is_small(launch, check, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    out, setting = tmp_path / "runs", Setting(seeds=2, files=True)
    launch(setting, out, *INLINE, before=use_small_shared_memory).succeed()
    check("Small shared memory", "/dev/shm of 1 MB, images read from files", 1, setting, [out], [{}], begun_once=True,
          said="needs none")  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- divergence


@pytest.mark.parametrize("launcher", ["inline", "local"])
def test_a_loss_that_is_not_finite(launcher, launch, check, tmp_path, undisturbed):
    out, setting = tmp_path / "runs", replace(SETTING, seeds=2, diverging=True)
    launch(setting, out, "--launcher", launcher).succeed()
    records = [read_record(record_path(out / "records", run)) for run in setting.runs]
    assert [record["status"] for record in records] == ["diverged"] * 2 + ["completed"] * 2
    alone = [read_record(record_path(undisturbed(SETTING) / "records", run)) for run in setting.runs[2:]]
    assert [record["curve"] for record in alone] == [record["curve"] for record in records[2:]]
    how = f"learning rate 1e30 in 2 of 4 runs, launcher {launcher}"
    check("A loss that is not finite", how, 2, setting, [out], [{}], begun_once=True,
          said="recorded as diverged; the other runs as without them")  # fmt: skip
