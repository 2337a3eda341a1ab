"""``python -m reproductions.layer_responses``."""

import sys

from reproductions.harness.cli import run_experiment
from reproductions.layer_responses.experiment import EXPERIMENT

sys.exit(run_experiment(EXPERIMENT))
