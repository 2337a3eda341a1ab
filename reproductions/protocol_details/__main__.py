"""``python -m reproductions.protocol_details``."""

import sys

from reproductions.harness.cli import run_experiment
from reproductions.protocol_details.experiment import EXPERIMENT

sys.exit(run_experiment(EXPERIMENT))
