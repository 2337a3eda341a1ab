"""What stops a run, and waiting for what other processes do."""

import time


class Killed(BaseException):
    """What a SIGKILL looks like to the code: nothing catches it."""


def never() -> bool:
    """Nobody asks to stop."""
    return False


def wait_until(condition, seconds=120, pause=0.01) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(pause)
