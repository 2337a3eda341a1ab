"""Predictions of finished runs for all test images: the most probable class and its probability."""

import torch
from torch import nn

from reproductions.harness.measurements import Measurement
from resnet.data import Data
from resnet.run import Run

DIGITS = 6  # decimal places of a probability; more would only enlarge the files


@torch.no_grad()
def _measure(model: nn.Module, data: Data, run: Run) -> dict:
    found = {"labels": [], "predicted": [], "probability": []}
    model.eval()
    for images, labels in data.tests("test", slice(None), run.recipe):
        probability, predicted = model(images).float().softmax(dim=1).max(dim=1)
        found["labels"] += labels.tolist()
        found["predicted"] += predicted.tolist()
        found["probability"] += [round(value, DIGITS) for value in probability.tolist()]
    return found


def _problem(content: dict, record: dict) -> str | None:
    columns = [content[name] for name in ("labels", "predicted", "probability")]
    if {len(column) for column in columns} != {content["images"]}:
        return "the number of predictions is not the number of images"
    labels, predicted, probabilities = columns
    if not all(type(value) is int and value >= 0 for value in labels + predicted):
        return "a label or prediction is not a class number"
    if not all(isinstance(value, float) and 0 <= value <= 1 for value in probabilities):
        return "a probability is not between 0 and 1"
    return None


PREDICTIONS = Measurement(
    folder="predictions",
    how="test images, evaluation mode, fp32",
    fields={"labels": list, "predicted": list, "probability": list},  # of each test image, in the data's order
    measure=_measure,
    problem=_problem,
)
