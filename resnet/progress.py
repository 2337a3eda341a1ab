"""The progress of a run, in plain values; this module needs no torch, which takes a second to load."""

from dataclasses import dataclass

CHECKPOINTS = "checkpoint.pt", "checkpoint.previous.pt"  # in a run's work folder, the newest first


@dataclass(frozen=True)
class Progress:
    """Progress of a run; errors are in percent and None before the first evaluation."""

    iteration: int
    iterations: int
    learning_rate: float
    training_error: float | None
    test_error: float | None
    steps_per_second: float
    validation_error: float | None = None  # on training images that are held out
