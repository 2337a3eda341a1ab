"""Stopping at a checkpoint instead of at once."""

import math
import os
import signal
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass

STOPPING = "\nStopping at a checkpoint; Ctrl-C again stops at once.\n"


@dataclass
class _StopFlag:
    """A function that tells whether training has to stop: after a ``signal``, the first one, or at the time ``until``.

    ``until`` is in seconds since the epoch.
    """

    until: float
    signal: int | None = None

    def __call__(self) -> bool:
        return self.signal is not None or time.time() >= self.until


@contextmanager
def stop_on_signals(*numbers: int, message: str = "", until: float = math.inf):
    """Set a flag on SIGINT, SIGTERM, ``numbers`` and at the time ``until``; earlier handlers are restored at the end.

    The first signal prints ``message``. A second SIGINT raises KeyboardInterrupt at once.
    """
    stop = _StopFlag(until)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number, frame):
        if stop.signal == number == signal.SIGINT:
            raise KeyboardInterrupt
        if stop.signal is None:
            stop.signal = number
            with suppress(OSError):  # of a stderr that is closed, or on a full disk
                os.write(2, message.encode())  # print could be in the middle of printing

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM, *numbers)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
