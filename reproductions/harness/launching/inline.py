"""One run after another in this process."""

from reproductions.harness.launching import Options
from reproductions.harness.launching.job import Outcome, execute
from reproductions.harness.launching.progress import Display
from reproductions.harness.launching.signals import STOPPING, stop_on_signals
from reproductions.harness.launching.workplace import Workplace
from resnet.run import Run


def launch(runs: list[Run], place: Workplace, display: Display, options: Options) -> Outcome:
    with stop_on_signals(message=STOPPING) as stop_requested:
        return execute(runs, place, stop_requested, display.update)
