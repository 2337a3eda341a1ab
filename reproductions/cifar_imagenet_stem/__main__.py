"""``python -m reproductions.cifar_imagenet_stem``."""

import sys

from reproductions.cifar_imagenet_stem.experiment import EXPERIMENT
from reproductions.harness.cli import run_experiment

sys.exit(run_experiment(EXPERIMENT))
