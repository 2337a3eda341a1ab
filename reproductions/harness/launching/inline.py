"""The inline launcher: runs in this process, side by side on a GPU, one after another on a CPU."""

from reproductions.harness.launching.options import Options
from reproductions.harness.launching.progress import Display
from reproductions.harness.launching.run_paths import RunPaths
from reproductions.harness.launching.signals import STOPPING, stop_on_signals
from reproductions.harness.launching.worker import Outcome, execute
from resnet.run import Run


def launch(runs: list[Run], paths: RunPaths, display: Display, options: Options) -> Outcome:
    """Train the runs here; the first SIGINT or SIGTERM stops them at a checkpoint."""
    with stop_on_signals(message=STOPPING, until=options.budget.until) as stop_requested:
        return execute(runs, paths, stop_requested, display.update, options, display.say)
