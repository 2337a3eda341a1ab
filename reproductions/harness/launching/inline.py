"""The runs in this process: on a GPU side by side, on a CPU one after another."""

from reproductions.harness.launching import Options
from reproductions.harness.launching.progress import Display
from reproductions.harness.launching.signals import STOPPING, stop_on_signals
from reproductions.harness.launching.worker import Outcome, Way, execute
from reproductions.harness.launching.workplace import Workplace
from resnet.run import Run


def launch(runs: list[Run], place: Workplace, display: Display, options: Options) -> Outcome:
    """Train the runs here; the first SIGINT or SIGTERM stops them at a checkpoint."""
    with stop_on_signals(message=STOPPING, until=options.budget.until) as stop_requested:
        way = Way(options.pack, options.device, budget=options.budget)
        return execute(runs, place, stop_requested, display.update, way, display.say)
