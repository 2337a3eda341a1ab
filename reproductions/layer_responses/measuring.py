"""Layer responses of finished runs: the standard deviation of each 3x3 layer's output."""

import math

import torch
from torch import nn

from reproductions.harness.measurements import Measurement
from reproductions.layer_responses.responses import layer_names, response_deviations
from resnet.data import Data
from resnet.models import create_model
from resnet.run import Run


def _measure(model: nn.Module, data: Data, run: Run) -> dict:
    deviations = response_deviations(model, data.tests("test", slice(None), run.recipe))
    return {"layers": list(deviations), "std": list(deviations.values())}


def _problem(content: dict, record: dict) -> str | None:
    if content["layers"] != layers_of(record):
        return "its layers are not the layers of the run's network"
    deviations = content["std"]
    finite = all(isinstance(value, float) and math.isfinite(value) and value >= 0 for value in deviations)
    return None if finite and len(deviations) == len(content["layers"]) else "it lacks valid standard deviations"


def layers_of(record: dict) -> list[str]:
    """Return the layer names of a record's network, in layer order."""
    run = Run.from_specification(record["specification"])
    with torch.device("meta"):  # names only
        return layer_names(create_model(run.model, **run.model_options))


RESPONSES = Measurement(
    folder="responses",
    how="test images, evaluation mode, fp32",
    fields={"layers": list, "std": list},  # names, in layer order; of each layer's response
    measure=_measure,
    problem=_problem,
)
