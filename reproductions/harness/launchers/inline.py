"""One run after another in this process."""

from reproductions.harness.job import Outcome, Workplace, execute, stop_on_signals
from reproductions.harness.launchers import Options
from reproductions.harness.progress import Display
from resnet.run import Run


def launch(runs: list[Run], place: Workplace, display: Display, options: Options) -> Outcome:
    with stop_on_signals() as stop_requested:
        return execute(runs, place, stop_requested, display.update)
