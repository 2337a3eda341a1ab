"""Stopping at a checkpoint instead of at once."""

import os
import signal
import threading
from contextlib import contextmanager

STOPPING = "\nStopping at a checkpoint; Ctrl-C again stops at once.\n"


class _StopFlag:
    """Calls as the question whether a signal asked for a stop; ``signal`` is the first that did."""

    signal: int | None = None

    def __call__(self) -> bool:
        return self.signal is not None


@contextmanager
def stop_on_signals(*numbers: int, message: str = ""):
    """A flag that SIGINT, SIGTERM and ``numbers`` set; the handlers before are put back afterwards.

    The first of them prints ``message``. A second SIGINT raises KeyboardInterrupt: it does not wait.
    """
    stop = _StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number, frame):
        if stop.signal == number == signal.SIGINT:
            raise KeyboardInterrupt
        if stop.signal is None:
            stop.signal = number
            os.write(2, message.encode())  # print could be in the middle of printing

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM, *numbers)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
