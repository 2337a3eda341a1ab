"""The training loop: steps, evaluations, checkpoints, progress and exact resuming."""

import time
import warnings
from collections import deque
from collections.abc import Callable, Generator
from pathlib import Path

from resnet import checkpoint
from resnet.device import available_cores, threads
from resnet.progress import Progress
from resnet.trainer import Trainer

# Steps queued on the device at once, and the largest number of such bursts in its queue: enough that it never waits for
# the host, and few enough that training stops soon after a request.
BURST, AHEAD = {"cpu": 1, "cuda": 4}, 2
TAKEN_OVER = "another process has taken the run over"
POLL_SECONDS = 5e-5  # between two polls of a busy device


class Interrupted(Exception):
    """Training stopped on request, after writing a checkpoint; ``saved`` is false if that failed."""

    def __init__(self, text: str, saved: bool = True):
        super().__init__(text)
        self.saved = saved


def train(
    trainer: Trainer,
    folder: Path,
    checkpoint_seconds: float = 60.0,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    stop_requested: Callable[[], bool] = lambda: False,
) -> dict:
    """Train one run to its end; arguments, errors and result are as in :func:`training`."""
    parts = training(trainer, folder, checkpoint_seconds, on_progress, stop_requested)
    while True:
        try:
            if not next(parts):
                time.sleep(POLL_SECONDS)
        except StopIteration as end:
            return end.value


def training(
    trainer: Trainer,
    folder: Path,
    checkpoint_seconds: float = 60.0,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    stop_requested: Callable[[], bool] = lambda: False,
    neighbours: Callable[[], int] = lambda: 0,
    origin: Callable[[], dict] = dict,
    clock: Callable[[], float] = lambda: time.perf_counter(),
    may_save: Callable[[], bool] = lambda: True,
) -> Generator[int, None, dict]:
    """Train to the end in small parts, from the newest checkpoint in ``folder`` if there is one.

    After each part this yields the number of steps that the device has finished since the last time, which is 0 while
    it is busy. So several trainings can take turns on one device without waiting for it. ``clock`` returns seconds and
    stands still while this training waits for its turn.

    A checkpoint is written about every ``checkpoint_seconds``, and ``on_progress`` is called about once a second. If a
    checkpoint can't be written, for example because the disk is full, there is a warning, the older ones stay, and
    training continues until the next one. When ``stop_requested`` returns true, a checkpoint is written and Interrupted
    is raised; its message says if the checkpoint could not be written. In a group of processes, only rank 0 reads and
    writes checkpoints. ``may_save`` is asked before each: if another process has taken the run over, its own stay.

    Returns the history of the training, summed over all starts without the work that killed processes lost:
    wall_seconds; train_seconds, without evaluations and checkpoints; device_seconds, this run's share of the device's
    time, which it shares with ``neighbours`` other runs; packed_with, the largest number of neighbours; and segments,
    each with the iterations at which it starts ("from") and ends ("to"), its device_seconds and its origin. ``origin``
    is called once a checkpoint is loaded and describes this process's hardware and software in plain values.
    Consecutive starts with the same origin form one segment; a checkpoint without segments becomes one with origin
    None.
    """
    group, history = trainer.group, _resume(trainer, folder)
    own_origin = origin()
    burst = BURST[trainer.device.type]
    first_iteration = kept = trainer.iteration  # kept: iteration of the newest checkpoint
    wall_before = history["wall_seconds"]
    started = last_checkpoint = last_progress = segment = shared = clock()
    marks: deque = deque()  # each with the number of steps since the previous mark
    done = 0  # finished steps that have not been yielded yet
    while not trainer.finished:
        before = trainer.iteration
        with threads(trainer.threads):
            for _ in range(burst):
                trainer.step()
                if trainer.evaluation_due:
                    break
        marks.append((trainer.mark(), trainer.iteration - before))
        stop = group.any(stop_requested())
        save = stop or group.any(clock() - last_checkpoint >= checkpoint_seconds)
        yield done
        done = yield from _reached(trainer, marks, 0 if save or trainer.evaluation_due else AHEAD - 1)
        if evaluated := trainer.evaluation_due:
            history["train_seconds"] += clock() - segment
            with threads(trainer.threads):
                trainer.begin_evaluation()
            marks.append((trainer.mark(), 0))
            done += yield from _reached(trainer, marks, 0)
            trainer.finish_evaluation()
            segment = clock()
        now = clock()
        others = neighbours()
        history["packed_with"] = max(history["packed_with"], others)
        history["device_seconds"] += (now - shared) / (1 + others)
        shared = now
        if evaluated or now - last_progress >= 1:
            last_progress = now
            on_progress(_progress(trainer, (trainer.iteration - first_iteration) / (now - started)))
        if save and not trainer.finished:
            last_checkpoint = now
            history["train_seconds"] += now - segment
            history["wall_seconds"] = wall_before + now - started
            _note_segment(history, trainer.iteration, own_origin)
            state = {**trainer.state_dict(), "history": history}
            problem = _save(folder, state, may_save) if group.rank == 0 else None
            kept = kept if problem else trainer.iteration
            group.barrier()  # a process that ends early could end the others before the checkpoint is written
            segment = clock()
            reached = f"{trainer.run} stopped at iteration {trainer.iteration}"
            if stop and problem:
                raise Interrupted(f"{reached}, but {problem}; it can be resumed from iteration {kept}", saved=False)
            if stop:
                raise Interrupted(f"{reached}; it can be resumed")
            if problem and problem != TAKEN_OVER:  # which soon stops this training
                warnings.warn(f"{trainer.run} at iteration {trainer.iteration}: {problem}; training continues, with "
                              f"the next checkpoint in {checkpoint_seconds:g} s", stacklevel=2)  # fmt: skip
    history["wall_seconds"] = wall_before + clock() - started
    _note_segment(history, trainer.iteration, own_origin)
    return history


def _resume(trainer: Trainer, folder: Path) -> dict:
    """Load the newest checkpoint in ``folder``, if there is one; return the history of the training so far."""
    history = {"wall_seconds": 0.0, "train_seconds": 0.0, "device_seconds": 0.0, "packed_with": 0, "segments": []}
    state = checkpoint.load_latest(folder, trainer.device) if trainer.group.rank == 0 else None
    state = trainer.group.broadcast(state, trainer.device)
    if state is None:
        return history
    trainer.load_state_dict(state)
    history |= state["history"]
    if not history["segments"]:
        _note_segment(history, trainer.iteration, None)
    if trainer.device.type == "cpu" and trainer.threads > (cores := available_cores()):
        warnings.warn(f"{trainer.run} was begun with {trainer.threads} threads and keeps them, because the last "
                      f"bits depend on their number. On fewer cores ({cores}) it can be many times slower: give "
                      f"it more cores, or remove {folder} to begin again", stacklevel=2)  # fmt: skip
    return history


def _save(folder: Path, state: dict, may_save: Callable[[], bool]) -> str:
    """Write a checkpoint; return the reason if it could not be written, else an empty text."""
    try:
        if not may_save():
            return TAKEN_OVER
        checkpoint.save(folder, state)
    except OSError as error:
        return f"its checkpoint could not be written ({error})"
    return ""


def _note_segment(history: dict, iteration: int, origin: dict | None) -> None:
    """Add the iterations since the last note, up to ``iteration``, to the segment with this origin."""
    segments = history["segments"]
    if not segments or segments[-1]["origin"] != origin:
        begin = segments[-1]["to"] if segments else 0
        segments.append({"from": begin, "to": begin, "device_seconds": 0.0, "origin": origin})
    noted = sum(segment["device_seconds"] for segment in segments)
    segments[-1]["to"] = iteration
    segments[-1]["device_seconds"] += history["device_seconds"] - noted


def _reached(trainer: Trainer, marks: deque, left: int) -> Generator[int, None, int]:
    """Yield the number of steps finished since the last time, until at most ``left`` marks are not reached yet.

    Returns the number of steps finished in the last round. Reached marks are removed.
    """
    while True:
        done = 0
        while marks and trainer.reached(marks[0][0]):
            done += marks.popleft()[1]
        if len(marks) <= left:
            return done
        yield done


def _progress(trainer: Trainer, steps_per_second: float) -> Progress:
    last = trainer.curve[-1] if trainer.curve else {}
    return Progress(
        trainer.iteration,
        trainer.recipe.iterations,
        trainer.learning_rate,
        last.get("training_error"),
        last.get("test_error"),
        steps_per_second,
        last.get("validation_error"),
    )
