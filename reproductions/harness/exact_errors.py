"""Test errors of finished runs on the exact test images of a copy of the data that has inexact images, too."""

import hashlib

import numpy as np
import torch
from torch import nn

from reproductions.harness.measurements import Measurement, MeasurementError
from resnet.data import INEXACT_TEST_IMAGES, Data
from resnet.run import Run


@torch.no_grad()
def _measure(model: nn.Module, data: Data, run: Run) -> dict:
    digest = hashlib.sha256(np.array(data.inexact_test, "<i8")).hexdigest()
    if digest != INEXACT_TEST_IMAGES[data.digest]:
        raise MeasurementError(f"{run} can't be measured on exact test images alone: the positions of inexact "
                               f"images in its data have the SHA-256 {digest}, which is not this copy's")  # fmt: skip
    model.eval()
    batches = data.tests("test", slice(None), run.recipe)
    wrong = torch.cat([model(images).argmax(dim=1) != labels for images, labels in batches]).cpu()
    exact = torch.ones_like(wrong)
    exact[list(data.inexact_test)] = False
    numbers = [int(wrong.sum()), int(exact.sum()), int(wrong[exact].sum())]
    return _fields(len(wrong), *numbers) | {"inexact_sha256": digest}


def _fields(images: int, wrong: int, exact_images: int, exact_wrong: int) -> dict:
    return {
        "wrong": wrong,
        "error": 100 * wrong / images,
        "exact_images": exact_images,
        "exact_wrong": exact_wrong,
        "exact_error": 100 * exact_wrong / exact_images,
    }


def _problem(content: dict, record: dict) -> str | None:
    images, wrong, exact_images, exact_wrong = (
        content[name] for name in ("images", "wrong", "exact_images", "exact_wrong")
    )
    if content["inexact_sha256"] != INEXACT_TEST_IMAGES.get(record["data"]["sha256"]):
        return "its inexact images are not the run's"
    if not 0 < exact_images < images or not 0 <= exact_wrong <= exact_images:
        return "its numbers of images are impossible"
    if not exact_wrong <= wrong <= exact_wrong + images - exact_images:
        return "its numbers of wrong answers are impossible"
    expected = _fields(images, wrong, exact_images, exact_wrong)
    return (
        None if all(content[name] == value for name, value in expected.items()) else "its errors contradict its numbers"
    )


EXACT_ERRORS = Measurement(
    folder="exact_errors",
    how="test images, evaluation mode, fp32",
    fields={
        "wrong": int,  # answers, of all test images
        "error": float,  # in percent
        "exact_images": int,
        "exact_wrong": int,
        "exact_error": float,
        "inexact_sha256": str,  # of the positions of the other images in the test set, int64, little-endian
    },
    measure=_measure,
    problem=_problem,
    concerns=lambda record: record["data"]["sha256"] in INEXACT_TEST_IMAGES,
)
