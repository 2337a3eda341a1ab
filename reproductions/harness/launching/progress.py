"""Live progress of many runs: bars on a terminal, a line a minute elsewhere."""

import time
from collections.abc import Mapping
from contextlib import suppress

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from reproductions.harness.console import make_console
from reproductions.harness.launching.claims import owned
from reproductions.harness.launching.run_paths import RunPaths, Status, describe, duration
from reproductions.harness.launching.tracking import Tracker
from reproductions.harness.record_files import RecordError, outcome, record_path
from reproductions.harness.records import read_record
from resnet.run import Run

LINE_SECONDS = 60.0


class Display:
    """Progress of the runs of a launch; a context manager.

    An in-process launcher calls :meth:`update`, one that starts processes :meth:`poll`. ``say`` prints a line without
    disturbing the bars. A ``tracker`` follows the runs' curves meanwhile. ``names``: of the runs.
    """

    def __init__(
        self,
        total: int,
        console: Console | None = None,
        tracker: Tracker | None = None,
        names: Mapping[Run, str] | None = None,
    ):
        self.total, self.tracker, self._names = total, tracker, names or {}
        self.console = console or make_console(stderr=True)
        self._statuses: dict[Run, Status] = {}  # of the running ones
        self._finished: set[Run] = set()
        self._waiting: set[Run] = set()
        self._started = self._last_line = time.monotonic()
        columns = (_text_column("description"), BarColumn(), _text_column("fields[info]"))
        self._bars = Progress(*columns, console=self.console) if self.console.is_terminal else None
        self._tasks: dict[Run, int] = {}

    @property
    def done(self) -> int:
        """Number of finished runs."""
        return len(self._finished)

    def __enter__(self) -> "Display":
        if self._bars is not None:
            self._bars.start()
            self._all = self._bars.add_task("all runs", total=self.total, info=f"0/{self.total}")
        return self

    def __exit__(self, *exception) -> None:
        if self._bars is not None:
            self._bars.stop()
        if self.tracker is not None:
            self.tracker.close()

    def say(self, text: str) -> None:
        """Print a line above the progress bars."""
        self.console.print(text)

    def update(self, run: Run, status: Status) -> None:
        """Show a run's new status."""
        if status.state == "done":
            self._finish(run, status.message)
        elif status.state == "waiting" and run not in self._waiting:
            self._waiting.add(run)
            self.say(f"{self._name(run)} ({run.short_id}): {status.message}")
        elif status.state == "running":
            self._statuses[run] = status
        else:
            self._forget(run)
        self._show()

    def poll(self, paths: RunPaths, runs: list[Run]) -> None:
        """Read and show the statuses of these runs, which their jobs have written."""
        for run in runs:
            if (path := record_path(paths.records, run)).exists():
                with suppress(RecordError):  # a damaged one is its job's to report
                    self._finish(run, outcome(read_record(path)))
            elif (status := Status.read(paths.work(run))) is not None and _is_running(status, run, paths):
                self._statuses[run] = status
            else:
                self._forget(run)
        self._show()

    def _finish(self, run: Run, how: str) -> None:
        """Count a run as done, once."""
        self._forget(run)
        if run not in self._finished:
            self._finished.add(run)
            self.say(f"{clock()} done {self.done}/{self.total}: {self._name(run)} ({run.short_id}), {how}")

    def _forget(self, run: Run) -> None:
        self._statuses.pop(run, None)
        if self._bars is not None and run in self._tasks:
            self._bars.remove_task(self._tasks.pop(run))

    def _show(self) -> None:
        if self.tracker is not None:
            self.tracker.update()
        running = {run: status for run, status in self._statuses.items() if status.progress is not None}
        if self._bars is not None:
            self._bars.update(self._all, completed=self.done, info=f"{self.done}/{self.total}{self._eta()}")
            for run, status in running.items():
                if run not in self._tasks:
                    self._tasks[run] = self._bars.add_task(self._name(run), total=None, info="")
                progress = status.progress
                self._bars.update(
                    self._tasks[run], completed=progress.iteration, total=progress.iterations, info=describe(status)
                )
        elif running and time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = time.monotonic()
            for run, status in running.items():
                self.say(f"{clock()} {self.done}/{self.total} done; {self._name(run)}: {describe(status)}")

    def _name(self, run: Run) -> str:
        return self._names.get(run, f"{run.model} seed {run.seed}")

    def _eta(self) -> str:
        """Estimate the time left for all runs from the finished ones."""
        if not self.done or self.done == self.total:
            return ""
        elapsed = time.monotonic() - self._started
        return f", about {duration(elapsed / self.done * (self.total - self.done))} left"


def _is_running(status: Status, run: Run, paths: RunPaths) -> bool:
    """Return whether a process trains the run: its status is old during long tests, and after it was killed."""
    fresh = time.time() - status.updated < paths.stale_seconds
    return status.state == "running" and (fresh or owned(paths.work(run), paths.stale_seconds))


def _text_column(field: str) -> TextColumn:
    return TextColumn(f"{{task.{field}}}", markup=False)


def clock() -> str:
    """Return the time of day as HH:MM:SS."""
    return time.strftime("%H:%M:%S")
