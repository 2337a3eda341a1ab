"""Worker processes deliver results in order, report errors, and end in time."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from resnet.data import DataError
from resnet.data.loading import Loader, ReaderError

ROOT = Path(__file__).resolve().parents[2]


def work(task):
    if task == 5:
        raise DataError(f"file {task} can't be read")
    if task == 7:
        raise ZeroDivisionError
    return torch.full((2,), task)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_are_in_order(workers):
    tasks = [0, 1, 2, 3, 4, 6, 8, 9, 10, 11, 12, 13, 14]
    assert [result[0].item() for result in Loader(work, tasks, workers)] == tasks


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_error_comes_in_its_turn_and_without_a_workers_traceback(workers):
    loader = Loader(work, iter(range(3, 100)), workers)
    assert [next(loader)[0].item() for _ in range(2)] == [3, 4]
    with pytest.raises(DataError, match="^file 5 can't be read$"):
        next(loader)


@pytest.mark.parametrize("workers", [0, 2])
def test_any_other_error_is_raised_too(workers):
    loader = Loader(work, [7], workers)
    with pytest.raises(ZeroDivisionError):
        next(loader)


def large(task):
    return np.full((5, 1 << 20), task, np.uint8)  # of which much is on the way at any time


@pytest.mark.parametrize("step", range(4))
def test_a_worker_that_is_killed_ends_the_waiting_with_words(step):
    before = set(multiprocessing.active_children())
    loader = Loader(large, iter(range(1_000_000)), 2)
    next(loader)
    victim = (set(multiprocessing.active_children()) - before).pop()
    threading.Timer(0.05 + 0.004 * step, os.kill, (victim.pid, signal.SIGKILL)).start()
    begin = time.perf_counter()
    with pytest.raises(ReaderError, match=rf"worker died: \(pid.*{victim.pid}.*memory probably ran out"):
        while time.perf_counter() - begin < 20:
            next(loader)
    loader.close()


def test_a_result_that_cannot_be_sent_is_not_waited_for_without_end(capfd):
    loader = Loader(lambda task: lambda: task, [1], 1)
    with pytest.raises(ReaderError, match="a data loader worker died"):
        next(loader)
    assert "can't send its images: Can't pickle" in capfd.readouterr().err


SMALL = """
import sys
import numpy as np
sys.path.append("tests/resnet")
from image_folder import make_dataset
from pathlib import Path
from resnet.data.folder import FolderData
from resnet.recipe import Recipe

recipe = Recipe(crop="area", image_size=224, batch_size=32, milestones=())
data = FolderData(make_dataset(Path(sys.argv[1]), train=20), "cpu", 2)
batches = data.batches(0, recipe, [slice(0, 32)])
for step in range(3):
    batches.load(step)
print(len(list(batches.take(32))[0][1]), len(list(data.tests("test", slice(None), recipe))))
batches.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mounted", "said"),
    [
        ("mount -t tmpfs -o size=1m tmpfs /dev/shm", ""),  # a tenth of what is ready ahead of time
        ("mount -t tmpfs -o ro tmpfs /dev/shm", "the training process reads the images itself"),
    ],
)
def test_images_need_next_to_no_shared_memory(tmp_path, mounted, said):
    """A container's /dev/shm has 64 MB for all of its processes."""
    script = f'{mounted} || exit 77; exec "$0" -c "$1" "$2"'
    command = ["unshare", "-m", "sh", "-c", script, sys.executable, SMALL, str(tmp_path)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("needs unshare")
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("a tmpfs can't be mounted here")
    assert (done.stdout, done.returncode) == ("32 1\n", 0) and said in done.stderr and "Error" not in done.stderr


def test_workers_end_when_the_loader_does():
    before = set(multiprocessing.active_children())
    loaders = [Loader(work, range(8, 1_000), 2) for _ in range(2)]
    for loader in loaders:
        next(loader)
    workers = set(multiprocessing.active_children()) - before
    assert len(workers) == 4
    start = time.perf_counter()
    loaders.pop().close()
    assert sum(worker.is_alive() for worker in workers) == 2
    del loader, loaders  # without close
    assert not any(worker.is_alive() for worker in workers)
    assert time.perf_counter() - start < 5  # else PyTorch gives up after 5 s with each


def test_workers_end_when_the_garbage_collector_finds_the_loader():
    import gc

    class Cycle:
        pass

    before = set(multiprocessing.active_children())
    cycle = Cycle()
    cycle.own, cycle.loader = cycle, Loader(work, range(8, 1_000), 2)
    next(cycle.loader)
    workers = set(multiprocessing.active_children()) - before
    del cycle
    start = time.perf_counter()
    gc.collect()
    assert len(workers) == 2 and not any(worker.is_alive() for worker in workers)
    assert time.perf_counter() - start < 5


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    next(Loader(work, [1], 1))
    assert torch.equal(torch.rand(3), expected)


PROCESS = """
import multiprocessing, signal, sys, time
import torch
from resnet.data.loading import Loader

def work(task):
    time.sleep(0.02)
    return torch.full((2,), task)

loader = Loader(work, iter(range(10**9)), 2)
assert next(loader)[0] == 0
print(*(process.pid for process in multiprocessing.active_children()), flush=True)
"""


def start(code, first=""):
    """A process with two workers in a group of their own; their process numbers. ``first`` comes before all imports."""
    process = subprocess.Popen(
        [sys.executable, "-c", first + PROCESS + textwrap.dedent(code)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True, cwd=ROOT,
    )  # fmt: skip
    return process, [int(number) for number in process.stdout.readline().split()]


def running(number):
    try:
        status = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return status != "Z"  # dead, only nobody has asked yet


def all_end_within(seconds, numbers):
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(running(number) for number in numbers):
        time.sleep(0.05)
    return not any(running(number) for number in numbers)


def test_signals_to_the_whole_group_do_not_end_the_workers():
    process, workers = start("""
        seen = []
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, lambda number, frame: seen.append(number))
        print("ready", flush=True)
        while len(seen) < 4:
            next(loader)
        for _ in range(20):  # so the last checkpoint can still be reached
            next(loader)
        print("done", flush=True)
    """)
    try:
        assert len(workers) == 2 and process.stdout.readline() == "ready\n"
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            os.killpg(process.pid, number)
        out, errors = process.communicate(timeout=30)
        assert (out, errors, process.returncode) == ("done\n", "", 0)
        assert all_end_within(3, workers)
    finally:
        process.kill()


def test_workers_do_not_outlive_a_killed_process():
    process, workers = start("while True: next(loader)")
    assert len(workers) == 2 and all(running(worker) for worker in workers)
    process.kill()
    process.communicate(timeout=10)
    assert all_end_within(5, workers)


@pytest.mark.slow
@pytest.mark.parametrize("end", ["", "raise SystemExit(3)", "raise ValueError", "loader.itself = loader"])
@pytest.mark.parametrize("first", ["", "import multiprocessing.util"])
def test_a_process_ends_at_once_with_a_loader_still_open(end, first):
    process, workers = start(end, first)
    begin = time.perf_counter()
    process.communicate(timeout=20)
    assert time.perf_counter() - begin < 8  # each worker that is not heard of costs PyTorch 5 s
    assert all_end_within(3, workers)


def leave_a_loader_open():
    global kept
    kept = Loader(work, range(8, 1_000), 2)
    next(kept)
    raise SystemExit(3)


def test_a_process_that_multiprocessing_started_ends_at_once_too():
    """It waits for its children before the functions that atexit knows are called."""
    process = multiprocessing.get_context("fork").Process(target=leave_a_loader_open)
    process.start()
    process.join(30)
    process.kill()
    assert process.exitcode == 3
