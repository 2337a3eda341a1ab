"""Runs trained to their end, at once or with interruptions."""

import pytest

from resnet.training import Interrupted, train


def finish(trainer):
    """Take the steps and evaluations that are left."""
    while not trainer.finished:
        trainer.step()
        if trainer.evaluation_due:
            trainer.evaluate()
    return trainer


def train_in_parts(make, folder, iterations):
    """Train a run to its end by trainers that ``make`` returns; each of these iterations interrupts one of them."""
    for iteration in iterations:
        trainer = make()
        with pytest.raises(Interrupted, match=f"iteration {iteration};"):
            train(trainer, folder, stop_requested=lambda: trainer.iteration == iteration)  # noqa: B023
    trainer = make()
    train(trainer, folder)
    return trainer
