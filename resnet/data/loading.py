"""Work that other processes do ahead of time, such as reading images: its results in order."""

import atexit
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from multiprocessing.queues import Queue

import torch
from torch.utils.data import DataLoader, Dataset

from resnet.data.dataset import DataError
from resnet.device import no_garbage_collection

PREFETCH = 4  # pieces that each process has ready or in work
WATCH_SECONDS = 0.5

# What a scheduler or Ctrl-C sends to all processes of a job. The main process decides what follows.
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class ReaderError(DataError):
    """A process that did a loader's work has ended before its time. The message says how, and what can be done."""


class Loader:
    """``work(task)`` for each of ``tasks``, in their order, done by ``workers`` processes; with 0 in this one.

    A DataError in a worker is raised here, by the ``next`` that wants its result; the loader can't be used after it.
    For a worker that dies ReaderError is raised: within seconds, and in the main thread wherever it then is.

    Results should be NumPy arrays, which come through pipes: tensors would need shared memory, of which containers
    often have no more than 64 MB for all their processes. Where not even a lock fits there, this process does the work.

    Workers are forked: that takes milliseconds, imports nothing again, and shares the lists of files. They may be
    forked from a process that uses a GPU because they never do. They do not react to signals that ask for a stop, and
    end when they are told to, or when the process that began them is no more.
    """

    def __init__(self, work: Callable, tasks: Iterable, workers: int):
        workers = workers if _can_have_workers() else 0
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
        # Workers begin without collecting, and so clear nothing away that they inherit, such as memory of a GPU.
        with _signals_held_back(), no_garbage_collection():
            self._results = [iter(loader)]
        _name_the_dead()
        # Not left to the garbage collector: of objects that refer to each other it may clear away first those by which
        # workers are told to end. So ``tasks`` must not refer to whoever has this loader.
        self._end = weakref.finalize(self, self._results.clear)
        _open.add(self)

    def __iter__(self) -> Iterator:
        return self

    def __next__(self):
        try:
            result = next(self._results[0])
        except RuntimeError as error:
            _raise_if_of_a_dead_worker(error)
            raise
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


@cache
def _can_have_workers() -> bool:
    """Whether processes can have locks in common, which lie in shared memory; warns if not."""
    try:
        multiprocessing.Lock()
    except OSError as error:
        warnings.warn("images are read by the training process itself, which is slower: other processes need shared "
                      f"memory for locks ({error}); make room in /dev/shm", stacklevel=3)  # fmt: skip
        return False
    return True


def _raise_if_of_a_dead_worker(error: RuntimeError) -> None:
    """Raise ReaderError if PyTorch's error is of a worker's death, which only its message says."""
    said = str(error).strip()
    if said.startswith("DataLoader worker (pid"):
        said = said.removeprefix("DataLoader worker ").partition(". ")[0].rstrip(".")
        raise ReaderError(f"a process that reads images has ended: {said}. If it was killed, the memory was probably "
                          "used up: ask for more, or have fewer processes read (one per thread by default)"
                          ) from error  # fmt: skip


def _name_the_dead() -> None:
    """Have the error that PyTorch raises when a worker dies, wherever the main thread then is, be ReaderError."""
    raising = signal.getsignal(signal.SIGCHLD)
    if threading.current_thread() is not threading.main_thread() or getattr(raising, "func", None) is _on_end_of_child:
        return
    if callable(raising):
        signal.signal(signal.SIGCHLD, partial(_on_end_of_child, raising))


def _on_end_of_child(raising: Callable, number: int, frame) -> None:
    try:
        raising(number, frame)
    except RuntimeError as error:
        _raise_if_of_a_dead_worker(error)
        raise


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Processes that are begun in this context never get the signals; this one gets them afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(parent: int, worker: int) -> None:
    """What a worker does first."""
    gc.freeze()  # what it has inherited is not its to clear away
    gc.enable()
    Queue._on_queue_feeder_error = staticmethod(_end_with_words)
    warnings.filterwarnings("ignore", module="PIL")  # of odd EXIF data, which many images have
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with_words(error: Exception, result) -> None:
    """End this process, a worker, for a result that can't be sent: it would be waited for without end."""
    print(f"a process that reads images can't send them: {error}", file=sys.stderr, flush=True)
    os._exit(1)


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
