"""Training a run to its end: evaluations, checkpoints, progress; exactly resumable."""

import time
import warnings
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from resnet import checkpoint
from resnet.device import threads
from resnet.trainer import Trainer

# A CUDA device is given so many steps at once, and so many times before it has done the first of them: enough that
# it never waits for the host, and little enough that it stops soon when asked.
BURST, AHEAD = {"cpu": 1, "cuda": 4}, 2
POLL_SECONDS = 5e-5  # between two looks at a device that has enough to do


class Interrupted(Exception):
    """Training was asked to stop; a checkpoint was written first, unless that failed and ``saved`` is false."""

    def __init__(self, text: str, saved: bool = True):
        super().__init__(text)
        self.saved = saved


@dataclass(frozen=True)
class Progress:
    """How far a run is: errors in percent, None before the first evaluation; rate in steps per second."""

    iteration: int
    iterations: int
    learning_rate: float
    training_error: float | None
    test_error: float | None
    steps_per_second: float


def train(
    trainer: Trainer,
    folder: Path,
    checkpoint_seconds: float = 60.0,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    stop_requested: Callable[[], bool] = lambda: False,
) -> dict:
    """Train one run alone to its end; the arguments, the errors and what is returned are those of :func:`training`."""
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
) -> Generator[int, None, dict]:
    """Train to the end in small parts, from the newest checkpoint in ``folder`` if there is one.

    Between two parts it yields how many steps the device has done since the last time: 0 where it has still enough to
    do, too. So several trainings can take turns on one device without any of them waiting for it; ``clock`` gives
    seconds and stands still while this one is kept waiting for its turn.

    A checkpoint is written about every ``checkpoint_seconds``, ``on_progress`` called about once a second. Where one
    can't be written, a full disk say, there is a warning, the older ones stay and training goes on to the next. Where
    ``stop_requested`` turns true, a checkpoint is written and Interrupted raised, which says so if it could not be
    written. Returns how it was trained:
    wall_seconds, and train_seconds without evaluations and checkpoints, of all starts together less what a killed
    process did after its last checkpoint; device_seconds, its share of the device's time, where ``neighbours`` other
    runs had theirs; packed_with, the most others at once; segments, each with the iterations from and to which it went,
    its device_seconds and its origin. ``origin`` says in plain values where and with what this process trains, once a
    checkpoint is loaded; starts of the same origin are one segment, and the origin is None of what a checkpoint
    without segments brings.
    In a group of processes, rank 0 alone reads and writes.
    """
    history = {"wall_seconds": 0.0, "train_seconds": 0.0, "device_seconds": 0.0, "packed_with": 0, "segments": []}
    group = trainer.group
    state = checkpoint.load_latest(folder, trainer.device) if group.rank == 0 else None
    if (state := group.broadcast(state, trainer.device)) is not None:
        trainer.load_state_dict(state)
        history |= state["history"]
        if not history["segments"]:
            _note_segment(history, trainer.iteration, None)
    own_origin = origin()
    burst = BURST[trainer.device.type]
    first_iteration = kept = trainer.iteration  # kept: the iteration of the newest checkpoint
    wall_before = history["wall_seconds"]
    started = last_checkpoint = last_progress = segment = shared = clock()
    marks: deque = deque()  # each with how many steps lie between it and the one before
    done = 0  # steps that are still to be told
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
            problem = _save(folder, state) if group.rank == 0 else None
            kept = kept if problem else trainer.iteration
            group.barrier()  # a process that ends may take the others with it
            segment = clock()
            reached = f"{trainer.run} stopped at iteration {trainer.iteration}"
            if stop and problem:
                raise Interrupted(f"{reached}, but {problem}; it can be resumed from iteration {kept}", saved=False)
            if stop:
                raise Interrupted(f"{reached}; it can be resumed")
            if problem:
                warnings.warn(f"{trainer.run} at iteration {trainer.iteration}: {problem}; training goes on, and the "
                              f"next checkpoint is tried in {checkpoint_seconds:g} s", stacklevel=2)  # fmt: skip
    history["wall_seconds"] = wall_before + clock() - started
    _note_segment(history, trainer.iteration, own_origin)
    return history


def _save(folder: Path, state: dict) -> str:
    """Write a checkpoint; returns why it could not be written, empty if it was."""
    try:
        checkpoint.save(folder, state)
    except OSError as error:
        return f"its checkpoint could not be written ({error})"
    return ""


def _note_segment(history: dict, iteration: int, origin: dict | None) -> None:
    """Write down that what was done since the last note, up to ``iteration``, is of this origin."""
    segments = history["segments"]
    if not segments or segments[-1]["origin"] != origin:
        begin = segments[-1]["to"] if segments else 0
        segments.append({"from": begin, "to": begin, "device_seconds": 0.0, "origin": origin})
    noted = sum(segment["device_seconds"] for segment in segments)
    segments[-1]["to"] = iteration
    segments[-1]["device_seconds"] += history["device_seconds"] - noted


def _reached(trainer: Trainer, marks: deque, left: int) -> Generator[int, None, int]:
    """Yield the steps done since the last time, until no more than ``left`` marks are ahead of the device.

    Returns those that were done in the end. Marks that the device has come to are removed.
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
    )
