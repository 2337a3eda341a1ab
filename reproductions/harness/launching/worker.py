"""The worker on a device: it trains runs, several at once where that is faster, and leaves their records."""

import gc
import sys
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Generator
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, replace

import torch

from reproductions.harness import provenance
from reproductions.harness.final_weights import read_backbone, read_final_weights
from reproductions.harness.launching.claims import Claim, claim
from reproductions.harness.launching.curve_file import NAME as CURVE
from reproductions.harness.launching.curve_file import CurveFile
from reproductions.harness.launching.options import DEFAULTS, Options
from reproductions.harness.launching.recording import begun_in_vain, make_record, note_start, origin, take_back_start
from reproductions.harness.launching.run_paths import RunPaths, Status, failures
from reproductions.harness.record_files import RecordError, outcome, record_path
from reproductions.harness.records import read_record, write_record
from resnet import checkpoint
from resnet.data import FOLDERS, Data, DataError, arrays, load, place
from resnet.device import DeviceLost, find_device
from resnet.distributed import ALONE, Group
from resnet.draws import DrawsError
from resnet.files import remove_unfinished, write_atomically
from resnet.packing import Pack
from resnet.plugins import PluginError
from resnet.progress import Progress
from resnet.run import Run
from resnet.trainer import Trainer
from resnet.training import Interrupted, training
from resnet.weights import WeightsError

CLAIM_SECONDS = 1.0  # between two looks at runs that other processes train
# Errors whose messages name the remedy.
_KNOWN_ERRORS = (DataError, RecordError, PluginError, DrawsError, WeightsError, checkpoint.CheckpointError)
ROLE_NAMES = {"teacher": "teacher", "pretrained": "pre-training"}  # of needed runs, in messages
_GO_ON = {  # how a run can go on from a checkpoint, by the part of it that does not fit here
    "precision": "continue it on a device with this precision",
    "kernels": "continue it on a device that can run them",
    "data": "name the folder of the data that it was begun with (DATA= with make)",
    **{role: f"put back the {called}'s weights that it was begun with" for role, called in ROLE_NAMES.items()},
}


@dataclass(frozen=True)
class Outcome:
    """The end of a launch.

    failures: traceback or last words of each failed run. interrupted: the message of a stopped launch. detached: the
    message of a launch whose jobs continue without it. Both are empty for a launch that ran to its end.
    """

    failures: dict[Run, str]
    interrupted: str = ""
    detached: str = ""


def execute(
    runs: list[Run],
    paths: RunPaths,
    stop_requested: Callable[[], bool],
    on_status: Callable[[Run, Status], None] = lambda run, status: None,
    options: Options = DEFAULTS,
    say: Callable[[str], None] = lambda text: None,
    group: Group = ALONE,
) -> Outcome:
    """Train the runs that have no record yet, in this order, side by side where that is faster.

    A run that fails does not stop the others, and a run that another process trains is not trained; after
    ``stop_requested`` returns true, runs in training write a checkpoint and no other run is started. Raises ValueError
    for an unusable device, and DeviceLost if it became unusable. The job of a launch (``options.launch``) leaves runs
    that other processes train; any other process waits for their records.

    The processes of a ``group`` train every run together, one after another: rank 0 chooses the run, and alone claims
    runs and writes. An exception in one of them is written down and raised, because the others cannot continue.
    """
    worker = _Worker(runs, paths, stop_requested, on_status, options, say, group)
    return worker.work()


class _Worker:
    """The state of :func:`execute`: the remaining runs, and the failures of others."""

    def __init__(self, runs, paths: RunPaths, stop_requested, on_status, options: Options, say, group: Group):
        self.runs, self.waiting = list(runs), deque(runs)
        self.paths, self.stop_requested, self.on_status, self.options = paths, stop_requested, on_status, options
        self.device, self.code, self.group = find_device(options.device), provenance.code_identity(), group
        # A group trains its runs one after another, and runs that fill the device have no neighbours.
        one_by_one = group.size > 1 or all(map(_fills_the_device, runs))
        self.pack = Pack(self.device, 1 if one_by_one else options.pack, say)
        self.failures: dict[Run, str] = {}
        self.interrupted = ""
        self._data: dict[tuple, Data] = {}
        self._progress: dict[Run, Progress] = {}  # last known
        self._next_look = 0.0
        self._alone: Run | None = None  # in training, and without neighbours

    def work(self) -> Outcome:
        self.pack.train(self._begin)
        while self.waiting and not self.options.launch and not self.stop_requested():
            time.sleep(CLAIM_SECONDS)
            self.pack.train(self._begin)
        if self.waiting and self.stop_requested():
            self.interrupted = self.interrupted or "stopped between two runs"
        return Outcome(self.failures, self.interrupted)

    def _begin(self) -> Generator[int, None, None] | None:
        """Start this process's next run as a generator of small parts; None if there is none now."""
        begun = self._claim_next() if self.group.rank == 0 else None
        number = self.group.broadcast(-1 if begun is None else self.runs.index(begun.run))
        if begun is None and number >= 0:
            begun = _Begun(self.runs[number], None, [])
        return None if begun is None else self._train(begun)

    def _claim_next(self) -> "_Begun | None":
        """Claim the next run that no other process trains; finished runs are removed.

        A run that fills the device has no neighbours. A run whose earlier start made no progress may have killed its
        neighbours, so it has none until it has a checkpoint.
        """
        if time.monotonic() < self._next_look or self.interrupted or self.stop_requested():
            return None
        if self._alone is not None and self._must_train_alone(self._alone):
            self._next_look = time.monotonic() + CLAIM_SECONDS
            return None
        self._set_alone(None)
        self.waiting = deque(sorted(self.waiting, key=self._rank))
        for _ in range(len(self.waiting)):
            run = self.waiting.popleft()
            if self._has_ended(run) or self._need_is_lost(run):
                continue
            by_itself = self._must_train_alone(run)
            if (by_itself and self.pack.size) or self._needs_missing(run):
                self.waiting.append(run)
                continue
            try:
                claimed = claim(self.paths.work(run), self.paths.stale_seconds)
            except OSError as error:  # a full or read-only disk
                self._fail(run, f"the run can't be started: {error}")
                continue
            if claimed is None:
                message = "another process trains it"
                self.on_status(run, Status("waiting", str(run), time.time(), message=message))
                self.waiting.append(run)
            elif self._has_ended(run):  # while it was being claimed
                claimed.release()
            elif (begun := self._note_start(run, claimed)) is not None:
                self._set_alone(run if by_itself else None)
                return begun
        self._next_look = time.monotonic() + CLAIM_SECONDS
        return None

    def _needs_missing(self, run: Run) -> dict[str, Run]:
        """Find the needed runs to wait for, by their roles.

        A run that is published with its weights is waited for only if this launch trains it all the same.
        """
        unrecorded = {r: need for r, need in run.needs.items() if not record_path(self.paths.records, need).exists()}
        return {r: need for r, need in unrecorded.items() if need in self.runs or not self.paths.only_published(need)}

    def _need_is_lost(self, run: Run) -> bool:
        """Return whether a needed run cannot be trained, and write that failure down for this one."""
        for role, need in self._needs_missing(run).items():
            if need in self.failures or self._has_ended(need):
                self._fail(run, f"its {ROLE_NAMES[role]} failed: {need}\n{self.failures[need]}")
                return True
            if need not in self.runs:
                self._fail(run, f"its {ROLE_NAMES[role]} has no record in {self.paths.records}: {need}")
                return True
        return False

    def _set_alone(self, run: Run | None) -> None:
        """Note the run in training that has no neighbours, None for none, so that the pack measures nothing with it."""
        self._alone, self.pack.alone = run, run is not None

    def _rank(self, run: Run) -> tuple[float, bool]:
        """Rank a waiting run: runs that fill the device come first among equals, while they need wait for no other."""
        return self.options.budget.rank(run, self.pack.size), not _fills_the_device(run)

    def _must_train_alone(self, run: Run) -> bool:
        return _fills_the_device(run) or begun_in_vain(self.paths.work(run), self.options.launch) > 0

    def _note_start(self, run: Run, claimed: Claim) -> "_Begun | None":
        """Write down the run's start; if that fails, release the claim and return None."""
        options, folder = self.options, self.paths.work(run)
        with ExitStack() as stack:
            stack.enter_context(claimed)
            try:
                begun = _Begun(run, claimed, note_start(folder, options.launch, options.max_starts))
            except (OSError, ValueError) as error:
                failure = str(error)
            else:
                stack.pop_all()
                return begun
        self._fail(run, failure)
        return None

    def _has_ended(self, run: Run) -> bool:
        """Return whether the run has a record, or failed in another job of the same launch."""
        if (path := record_path(self.paths.records, run)).exists():
            try:
                self.on_status(run, _done(run, read_record(path)))
            except RecordError as error:  # never trained over: it may be all that is left of a result
                self.failures[run] = f"{error}\n{error.advice}"
            return True
        failed = failures([run], self.paths, self.options.launch) if self.options.launch else {}
        self.failures |= failed
        return run in failed

    def _train(self, begun: "_Begun") -> Generator[int, None, None]:
        """Train the run in small parts and report its end."""
        run, claimed = begun.run, begun.claimed
        alone = self.pack.limit == 1 or _fills_the_device(run)
        if _fills_the_device(run) and self.device.type == "cuda":  # it may need the memory of runs that have ended
            gc.collect()
            torch.cuda.empty_cache()
        with claimed or nullcontext():
            try:
                record = yield from self._train_and_record(begun)
                self.on_status(run, _done(run, record))
            except Interrupted as interrupted:
                if claimed is not None and claimed.lost:
                    self.waiting.append(run)
                else:
                    self.interrupted = str(interrupted)
                    self._report(run, "stopped", self._progress.get(run), str(interrupted))
                    if not interrupted.saved:
                        self.failures[run] = str(interrupted)
            except torch.OutOfMemoryError:
                if self.pack.size > 1 or not alone:  # there will be more memory when others have ended
                    self.waiting.append(run)
                    with suppress(OSError):  # the start then counts as one in vain
                        take_back_start(self.paths.work(run), begun.starts)
                    raise
                self._fail(run, traceback.format_exc())
            except Exception as error:  # of any kind: the other runs go on
                self._fail(run, self._explain(run, error))
            finally:
                self._set_alone(None)
                self._next_look = 0.0  # others may have waited for this one

    def _explain(self, run: Run, error: Exception) -> str:
        """Describe the error that ended the run: in its own words if it is a known one, else by its traceback.

        Raises DeviceLost if the device was the cause.
        """
        if isinstance(error, _KNOWN_ERRORS):
            return str(error)
        if isinstance(error, checkpoint.MismatchError):
            folder, way = self.paths.work(run), _GO_ON.get(error.what, "continue it where it was begun")
            text = f"it can't continue from its checkpoint in {folder}: {error}"
            return f"{text}. Either {way}, or remove that folder to begin again"
        if isinstance(error, OSError):  # a disk that is full, or another user's files
            return f"{error}\nThe same command goes on from the last checkpoint."
        if self._device_is_lost():
            raise DeviceLost(f"the device answers only with errors: {error}") from error
        return "".join(traceback.format_exception(error))

    def _device_is_lost(self) -> bool:
        """Return whether the device answers with nothing but errors; another process may find it well.

        A group does not ask: the device may be waiting for a process that is gone.
        """
        if self.device.type == "cuda" and self.group.size == 1:
            try:
                torch.cuda.synchronize(self.device)
                torch.cuda.empty_cache()  # every recording begins with it, and one that failed may have broken it
            except RuntimeError:
                return True
        return False

    def _train_and_record(self, begun: "_Begun") -> Generator[int, None, dict]:
        run, folder = begun.run, self.paths.work(begun.run)
        precision = self.options.budget.plan.precisions.get(run)
        trainer = _trainer_of(run)(run, self._data_of(run), self.group, **self._needed_by(run), precision=precision)
        curve_file = CurveFile(folder)

        def begin() -> dict:  # called once a checkpoint is loaded
            self._write_curve(trainer, curve_file)
            return origin(trainer, self.code)

        def on_progress(progress: Progress) -> None:
            self._write_curve(trainer, curve_file)
            self._progress[run] = progress
            self._report(run, "running", progress)

        try:
            history = yield from training(
                trainer,
                folder,
                self.paths.checkpoint_seconds,
                on_progress=on_progress,
                stop_requested=lambda: (begun.claimed is not None and begun.claimed.lost) or self.stop_requested(),
                neighbours=lambda: self.pack.neighbours,
                origin=begin,
                clock=self.pack.clock,
                may_save=lambda: begun.claimed is None or begun.claimed.holds(),
            )
        except Interrupted:
            if run in self._progress:
                self._progress[run] = replace(self._progress[run], iteration=trainer.iteration)
            raise
        tests = {} if trainer.diverged else trainer.final_tests()
        record = make_record(trainer, history, tests, begun.starts)
        if self.group.rank == 0:
            if begun.claimed is not None and not begun.claimed.holds():  # the new owner's weights fit its record
                raise Interrupted(f"{run} was taken over by another process", saved=False)
            write_atomically(self.paths.weights(run), checkpoint.pack(trainer.evaluated().state_dict()))
            path = write_record(self.paths.records, record)
            checkpoint.remove(folder)
            notes = [folder / name for name in ("status.json", "starts.json", CURVE)]
            for note in notes:
                note.unlink(missing_ok=True)
            remove_unfinished(path, self.paths.weights(run), *notes)
        return record

    def _data_of(self, run: Run) -> Data:
        key = (run.data, run.arrays, run.train_images)
        if key not in self._data:
            given = run.arrays and arrays.read(run.data, run.arrays, self.paths.arrays)
            dataset = given or load(run.data, self.paths.data)
            self._data = {key: place(dataset, run.train_images, self.device, workers=torch.get_num_threads())}
        return self._data[key]

    def _needed_by(self, run: Run) -> dict[str, dict]:
        """Read the weights of the needed runs, by their roles. Raises WeightsError, with the remedy."""
        if run.task is not None and run.task.backbone is not None:
            return {"pretrained": read_backbone(self.paths.out, run.task.backbone, self.device)}
        return {role: self._weights_of(need, ROLE_NAMES[role]) for role, need in run.needs.items()}

    def _weights_of(self, need: Run, called: str) -> dict:
        published = self.paths.only_published(need)
        home = self.paths.published if published else self.paths.out
        path = record_path(home / "records", need)
        record = read_record(path)
        if record["status"] == "diverged":
            raise WeightsError(f"its {called} diverged, so it left nothing to learn from: {need}")
        try:
            return read_final_weights(home, record, self.device)
        except WeightsError as error:
            again = f"Move its record {path} away to have it trained again."
            if published:
                again = "Restore that file, or move it away to have the run trained here."
            raise WeightsError(f"the weights of its {called} can't be used: {error}\n{again}") from error

    def _fail(self, run: Run, text: str) -> None:
        """Write down the run's failure; in a group, raise the exception that is being handled again."""
        self.failures[run] = text
        self._report(run, "failed", message=text)
        if self.group.size > 1 and (error := sys.exception()) is not None:
            raise error

    def _write_curve(self, trainer: Trainer, file: CurveFile) -> None:
        """Write down the evaluations so far; if that fails, on a full disk, the next time writes them all."""
        try:
            if self.group.rank == 0:
                file.write(trainer.curve)
        except OSError as error:
            warnings.warn(f"the curve of {trainer.run} could not be written: {error.strerror}", stacklevel=2)

    def _report(self, run: Run, state: str, progress=None, message: str = "") -> None:
        """Write down and show the run's status; a status that cannot be written, on a full disk, is only shown."""
        if self.group.rank != 0:
            return
        status = Status(state, str(run), time.time(), progress, message, self.options.launch)
        try:
            status.write(self.paths.work(run))
        except OSError as error:  # without the file's name, which is new every second: once is enough to say it
            warnings.warn(f"the status of {run} could not be written: {error.strerror}", stacklevel=2)
        self.on_status(run, status)


@dataclass(frozen=True)
class _Begun:
    """A run that is being started: its claim (None if another process of the group has it), and all its starts."""

    run: Run
    claimed: Claim | None
    starts: list[dict]


def _fills_the_device(run: Run) -> bool:
    """Return whether the run trains by itself: it reads files all the time, or its images and nets are large."""
    return run.data in FOLDERS or run.task is not None


def _trainer_of(run: Run) -> type:
    """Return the class of the run's trainer."""
    if run.task is None:
        return Trainer
    from resnet.tasks.trainer import TaskTrainer  # whose torchvision takes a second to load

    return TaskTrainer


def _done(run: Run, record: dict) -> Status:
    return Status("done", str(run), time.time(), message=outcome(record))
