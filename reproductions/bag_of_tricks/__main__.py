"""``python -m reproductions.bag_of_tricks``: all three tables, one after the other, with the same flags."""

import sys

from reproductions.bag_of_tricks import efficient, refinements, tweaks
from reproductions.harness.cli import run_experiment

sys.exit(next(filter(None, (run_experiment(script.EXPERIMENTS) for script in (efficient, tweaks, refinements))), 0))
