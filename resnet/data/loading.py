"""Data loader: worker processes do tasks, such as reading images, ahead of time and deliver the results in order."""

import atexit
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import cache, partial
from multiprocessing.queues import Queue
from multiprocessing.util import Finalize, _run_finalizers

import torch
from torch.utils.data import DataLoader, Dataset

from resnet.data.dataset import DataError
from resnet.device import no_garbage_collection

PREFETCH = 4  # pieces that each worker has ready or in progress
WATCH_SECONDS = 0.5

# Before PyTorch's function for the exit, after which it stops no worker: functions registered last run first. Programs
# can have imported multiprocessing, which calls the finalizers too, before PyTorch.
atexit.register(_run_finalizers, 100)

# Signals that a scheduler or Ctrl-C sends to all processes of a job. Only the main process handles them.
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class ReaderError(DataError):
    """A data loader worker died. The message gives the reason and the remedy."""


class Loader:
    """Iterator over ``work(task)`` for each of ``tasks``, in order, computed by ``workers`` worker processes.

    With 0 workers, or if there is not even shared memory for a lock, this process does the work. A DataError in a
    worker is raised here by the ``next`` that asks for its result; after that the loader can't be used. If a worker
    dies, ReaderError is raised within seconds in the main thread, wherever it is then.

    Results should be NumPy arrays, which are sent through pipes: tensors would need shared memory, and containers often
    have only 64 MB of it.

    Workers are forked, which takes milliseconds, imports nothing again, and shares the lists of files. Forking from a
    process that uses a GPU is safe because workers never use it. Workers ignore signals that request a stop; they end
    when they are told to, or when their parent process has ended.
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
        # Workers start without garbage collection, so that they free nothing they inherit, such as GPU memory.
        with _blocked_signals(), no_garbage_collection():
            self._results = [iter(loader)]
        _convert_worker_errors()
        # A finalizer, because in a reference cycle the garbage collector may free the queues that tell workers to end
        # too early. For the same reason ``tasks`` must not refer to the owner of this loader. At exit it runs before
        # the queues' finalizers (10), and before multiprocessing sends workers SIGTERM, which they block, and waits.
        self._end = Finalize(self, self._results.clear, exitpriority=100)

    def __iter__(self) -> Iterator:
        return self

    def __next__(self):
        try:
            result = next(self._results[0])
        except RuntimeError as error:
            _raise_if_worker_died(error)
            raise
        if isinstance(result, DataError):
            raise result
        return result

    def close(self) -> None:
        """Stop the workers; the loader can't be used any more."""
        self._end()


def read_pieces(read: Callable, numbers: range, size: int, workers: int) -> Iterator:
    """Yield ``read(piece)`` for pieces of ``size`` of the numbers, in order, by at most ``workers`` processes."""
    pieces = [numbers[start : start + size] for start in range(0, len(numbers), size)]
    with closing(Loader(read, pieces, min(workers, len(pieces)))) as loader:
        yield from loader


class _Work(Dataset):
    """Dataset of the tasks' results. A DataError is returned as a result, because raising it adds a long traceback."""

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
    """Return whether there is shared memory for the workers' locks; warn if not."""
    try:
        multiprocessing.Lock()
    except OSError as error:
        warnings.warn("the training process reads the images itself, which is slower: data loader workers need shared "
                      f"memory for locks ({error}); free some space in /dev/shm", stacklevel=3)  # fmt: skip
        return False
    return True


def _raise_if_worker_died(error: RuntimeError) -> None:
    """Raise ReaderError if the message of PyTorch's error reports a worker's death."""
    said = str(error).strip()
    if said.startswith("DataLoader worker (pid"):
        said = said.removeprefix("DataLoader worker ").partition(". ")[0].rstrip(".")
        raise ReaderError(f"a data loader worker died: {said}. If it was killed, memory probably ran out: request more "
                          "memory, or use fewer workers (default: one per thread)") from error  # fmt: skip


def _convert_worker_errors() -> None:
    """Make PyTorch's signal handler, which raises an error when a worker dies, raise ReaderError instead."""
    raising = signal.getsignal(signal.SIGCHLD)
    if threading.current_thread() is not threading.main_thread() or getattr(raising, "func", None) is _on_end_of_child:
        return
    if callable(raising):
        signal.signal(signal.SIGCHLD, partial(_on_end_of_child, raising))


def _on_end_of_child(raising: Callable, number: int, frame) -> None:
    try:
        raising(number, frame)
    except RuntimeError as error:
        _raise_if_worker_died(error)
        raise


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """Block stop signals: this process gets them after the context, processes started inside never do."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(parent: int, worker: int) -> None:
    """Initialise a worker."""
    gc.freeze()  # so that it never frees inherited objects
    gc.enable()
    Queue._on_queue_feeder_error = staticmethod(_end_with_words)
    warnings.filterwarnings("ignore", module="PIL")  # many images have invalid EXIF data
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with_words(error: Exception, result) -> None:
    """End this worker if it can't send a result, for which the main process would wait forever."""
    print(f"a data loader worker can't send its images: {error}", file=sys.stderr, flush=True)
    os._exit(1)


def _end_with(parent: int) -> None:
    """End this process when its parent has ended. PyTorch checks only every 5 s, and only between two tasks."""
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(1)
