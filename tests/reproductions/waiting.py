"""Stopping and waiting: functions that ask a run to stop, faults that end it, and waits for other processes."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn


class Killed(BaseException):
    """Stands for SIGKILL: no code catches it."""


def never() -> bool:
    """Never ask to stop."""
    return False


def after_two_steps() -> Callable[[], bool]:
    """Make a function that asks a run to stop after two of its iterations."""
    looks = iter([False, False])
    return lambda: next(looks, True)


def find_disk_full(*arguments, **more) -> NoReturn:
    """Fail as writing to a full disk does; stands for any function that writes, to its first argument if to a path."""
    path = [str(arguments[0])] if arguments and isinstance(arguments[0], Path) else []
    raise OSError(28, "No space left on device", *path)


def wait_until(condition, seconds=120, pause=0.01) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(pause)
