"""Work that other processes do ahead of time, such as reading images: its results in order."""

import atexit
import gc
import os
import signal
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch.utils.data import DataLoader, Dataset

from resnet.data.dataset import DataError

PREFETCH = 4  # pieces that each process has ready or in work
WATCH_SECONDS = 0.5

# What a scheduler or Ctrl-C sends to all processes of a job. The main process decides what follows.
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Loader:
    """``work(task)`` for each of ``tasks``, in their order, done by ``workers`` processes; with 0 in this one.

    A DataError in a worker is raised here, by the ``next`` that wants its result; the loader can't be used after it.

    Workers are forked: that takes milliseconds, imports nothing again, and shares the lists of files. They may be
    forked from a process that uses a GPU because they never do. They do not react to signals that ask for a stop, and
    end when they are told to, or when the process that began them is no more.
    """

    def __init__(self, work: Callable, tasks: Iterable, workers: int):
        loader = DataLoader(
            _Work(work),
            batch_size=None,
            sampler=tasks,
            num_workers=workers,
            collate_fn=_unchanged,
            prefetch_factor=PREFETCH if workers else None,
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
            worker_init_fn=partial(_begin, os.getpid()),
            generator=torch.Generator(),  # else it would draw from the global one
        )
        with _signals_held_back(), _nothing_collected():
            self._results = [iter(loader)]
        # Not left to the garbage collector: of objects that refer to each other it may clear away first those by which
        # workers are told to end. So ``tasks`` must not refer to whoever has this loader.
        self._end = weakref.finalize(self, self._results.clear)
        _open.add(self)

    def __iter__(self) -> Iterator:
        return self

    def __next__(self):
        result = next(self._results[0])
        if isinstance(result, DataError):
            raise result
        return result

    def close(self) -> None:
        """End the workers; no result can be had any more."""
        self._end()


class _Work(Dataset):
    """A task's result is its item. A DataError is one, too: raised in a worker, it would bring a worker's traceback."""

    def __init__(self, work: Callable):
        self._work = work

    def __getitem__(self, task):
        try:
            return self._work(task)
        except DataError as error:
            return error


def _unchanged(result):
    return result


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Processes that are begun in this context never get the signals; this one gets them afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Processes that are begun in this context clear nothing away that they inherit, such as memory of a GPU."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _begin(parent: int, worker: int) -> None:
    """What a worker does first."""
    gc.freeze()  # what it has inherited is not its to clear away
    gc.enable()
    warnings.filterwarnings("ignore", module="PIL")  # of odd EXIF data, which many images have
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent has. PyTorch looks only every 5 s, and only between two tasks."""
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(1)


_open: "weakref.WeakSet[Loader]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Before multiprocessing's own end, which asks workers by a signal that they do not hear, and waits for them."""
    for loader in list(_open):
        loader.close()
