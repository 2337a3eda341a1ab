"""Claims: one process at a time trains a run, among all processes that share its folder.

A claim is a file, ``owner.<number>``, made exclusively: of two processes that want the same number one gets it, and the
highest number owns the run. The owner touches its file while it lives. A process that finds the owner dead, or gone,
makes the file with the next number; a file from the future, written by a wrong clock, is first set to now. Claims need
nothing but exclusive creation, renaming and the times of files, so they work on a network file system.
"""

import json
import os
import socket
import tempfile
import threading
import time
from contextlib import AbstractContextManager, suppress
from functools import cache
from pathlib import Path

import psutil

from resnet.files import write_atomically

STALE_SECONDS = 120.0  # an owner on another machine that was silent for this long is dead; NFS may hide a touch for 60
_BEATS = 12  # touches in that time


class Claim(AbstractContextManager):
    """A run claimed by this process; a context manager that releases it at the end.

    ``lost`` becomes true if another process took the run over because this one seemed dead: training must then stop.
    """

    def __init__(self, path: Path, stale_seconds: float):
        self.path, self.lost = path, False
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, args=(stale_seconds / _BEATS,), daemon=True)
        self._heart.start()

    def _beat(self, seconds: float) -> None:
        while not self._over.wait(seconds):
            with suppress(OSError):  # of a file system that is away for a moment
                if not self.holds():  # first: a new owner has removed the file
                    return
                os.utime(self.path)

    def holds(self) -> bool:
        """Look whether this process still owns the run, and note if it does not."""
        newest = _newest(self.path.parent)  # None where the file system is away for a moment
        self.lost = self.lost or (newest is not None and newest != self.path)
        return not self.lost

    def __exit__(self, *exception) -> None:
        self.release()

    def release(self) -> None:
        """Release the run: any process may claim it from now on."""
        self._over.set()
        self._heart.join()
        if not self.lost:
            with suppress(OSError):  # without it the others wait until the claim is stale
                write_atomically(self.path, json.dumps({"released": True}).encode())


def claim(folder: Path, stale_seconds: float = STALE_SECONDS) -> Claim | None:
    """Claim the run of this work folder; None if a living process has it. Raises OSError if a file cannot be made."""
    folder.mkdir(parents=True, exist_ok=True)
    newest = _newest(folder)
    if newest is not None and owned(folder, stale_seconds):
        return None
    path = folder / f"owner.{_number(newest) + 1}"
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:  # another process was faster
        return None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(json.dumps({**_this_process(), **_slurm_start()}).encode())
    except OSError:
        path.unlink(missing_ok=True)
        raise
    for other in folder.glob("owner.*"):
        if _number(other) < _number(path):
            other.unlink(missing_ok=True)
    return Claim(path, stale_seconds)


def owned(folder: Path, stale_seconds: float = STALE_SECONDS) -> bool:
    """Return whether a living process has claimed the run of this work folder."""
    path = _newest(folder)
    if path is None:
        return False
    owner, silent = None, 0.0
    try:
        silent = _time_there(folder) - path.stat().st_mtime
        if silent < -stale_seconds:  # touched by another clock; a living owner will touch it again, a dead one won't
            with suppress(PermissionError):  # another user's file
                os.utime(path)
        owner = json.loads(path.read_text())
    except FileNotFoundError:  # taken over this moment
        return True
    except (OSError, ValueError):  # another user's; being written, or its writer died
        pass
    if not isinstance(owner, dict):
        return silent < stale_seconds
    if owner.get("released"):
        return False
    if owner.get("boot") is not None and all(owner.get(name) == value for name, value in machine().items()):
        return lives(owner.get("pid"), owner.get("started"))
    own = _slurm_start()
    requeued = owner.get("slurm_restart", -1) < own["slurm_restart"]
    if requeued and owner.get("slurm_job") is not None and owner["slurm_job"] == own["slurm_job"]:
        return False  # it was there before the job was requeued
    return silent < stale_seconds


def claim_number(folder: Path) -> int:
    """Return the number of claims of this work folder's run so far."""
    return _number(_newest(folder))


def _newest(folder: Path) -> Path | None:
    return max(folder.glob("owner.*"), key=_number, default=None)


def _number(path: Path | None) -> int:
    suffix = "" if path is None else path.suffix[1:]
    return int(suffix) if suffix.isdigit() else 0


def _time_there(folder: Path) -> float:
    """Return the time by the file system's clock, or by this machine's where we cannot write."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()


def _slurm_start() -> dict:
    """Identify this process's start of its SLURM job; the job is None outside of SLURM."""
    restart = os.environ.get("SLURM_RESTART_COUNT", "0")
    return {"slurm_job": os.environ.get("SLURM_JOB_ID"), "slurm_restart": int(restart) if restart.isdigit() else 0}


def _this_process() -> dict:
    return {**machine(), "pid": os.getpid(), "started": start_of(os.getpid())}


@cache
def machine() -> dict:
    """Identify this machine, its present start, and the container: the place where its process numbers are valid.

    A value is None if it is unknown.
    """
    boot, processes = None, None
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        processes = os.readlink("/proc/self/ns/pid")  # containers count their processes for themselves
    if psutil.MACOS:
        boot = f"{psutil.boot_time():.0f}"
    return {"host": socket.gethostname(), "boot": boot, "processes": processes}


def start_of(process: int) -> str | None:
    """Return the start of a living process, in hundredths of a second after the machine's; None without one.

    As a difference it does not depend on the clock, which may be set anew. On Linux it is the kernel's own number.
    """
    try:
        found = psutil.Process(process)
        dead = found.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        return None if dead else f"{100 * (found.create_time() - psutil.boot_time()):.0f}"
    except psutil.NoSuchProcess:
        return None


def lives(process, started) -> bool:
    """Return whether a process with this number and start lives, to a second, because clocks are set."""
    if not isinstance(process, int) or not str(started).isdigit() or (found := start_of(process)) is None:
        return False
    return abs(int(found) - int(started)) <= 100
