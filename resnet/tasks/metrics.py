"""Measures of segmentation and detection, in percent."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

IOU = 0.5  # from which on a box is of an object (Everingham et al. 2010)


def confusion(predicted: Tensor, truth: Tensor, classes: int, ignored: int) -> Tensor:
    """Count pixels by true class (rows) and predicted class: int64 (classes, classes), without ``ignored`` pixels."""
    known = truth != ignored
    pairs = truth[known].long() * classes + predicted[known].long()
    return torch.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def segmentation_scores(counts: Tensor) -> dict[str, float]:
    """Compute mean IoU and pixel accuracy from a :func:`confusion`.

    A class's IoU is the share of correct pixels among those that are of it or are predicted to be; the mean is over the
    classes that have such pixels. Raises ValueError without any pixel.
    """
    right, union = counts.diagonal().double(), (counts.sum(0) + counts.sum(1) - counts.diagonal()).double()
    if not counts.sum():
        raise ValueError("there are no pixels to test on: all are ignored")
    mean = (right[union > 0] / union[union > 0]).mean().item()
    return {"mean_iou": 100 * mean, "pixel_accuracy": 100 * (right.sum() / counts.sum()).item()}


class Detections(NamedTuple):
    """Boxes (n, 4) with labels (n,) and scores (n,) that were found in an image."""

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray


class Truth(NamedTuple):
    """Boxes (n, 4) with labels (n,) that are in an image; the ``difficult`` ones (n,) count neither way."""

    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray


def voc_map(found: Sequence[Detections], truths: Sequence[Truth]) -> dict[str, float]:
    """Compute PASCAL VOC's mean average precision over the classes that have objects which are not difficult.

    A detection is right if its IoU with the object of its class that it overlaps most is at least 0.5 and no better
    detection took that object; one of a difficult object counts neither way. ``map_11_point``: the mean of the highest
    precisions at recalls of at least 0, 0.1, ..., 1 (VOC 2007). ``map_area``: the area under the curve of the highest
    precision at each recall or above (VOC 2010). Raises ValueError if no class has an object.
    """
    classes = sorted({int(label) for truth in truths for label in truth.labels[~truth.difficult]})
    if not classes:
        raise ValueError("there are no objects to detect")
    curves = [_precision_and_recall(found, truths, label) for label in classes]
    return {
        "map_11_point": 100 * float(np.mean([_eleven_point(*curve) for curve in curves])),
        "map_area": 100 * float(np.mean([_area(*curve) for curve in curves])),
    }


def _precision_and_recall(found, truths, label: int) -> tuple[np.ndarray, np.ndarray]:
    """Return precision and recall of a class after each of its detections, from the best on."""
    own = [(truth.boxes[truth.labels == label], truth.difficult[truth.labels == label]) for truth in truths]
    objects = sum(int((~difficult).sum()) for _, difficult in own)
    taken = [np.zeros(len(boxes), bool) for boxes, _ in own]
    detections = [
        (float(score), image, box)
        for image, one in enumerate(found)
        for box, score in zip(one.boxes[one.labels == label], one.scores[one.labels == label])
    ]
    right = []
    for _, image, box in sorted(detections, key=lambda each: -each[0]):
        (boxes, difficult), best = own[image], None
        if len(boxes):
            overlaps = _iou(box, boxes)
            best = int(overlaps.argmax())
            if overlaps[best] < IOU:
                best = None
        if best is not None and difficult[best]:
            continue
        right.append(best is not None and not taken[image][best])
        if best is not None:
            taken[image][best] = True
    hits = np.cumsum(right)
    return hits / np.arange(1, len(right) + 1), hits / objects


def _iou(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return the IoU of a box (4,) with boxes (n, 4)."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    common = (high - low).clip(0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return common / ((box[2:] - box[:2]).prod() + areas - common)


def _eleven_point(precision: np.ndarray, recall: np.ndarray) -> float:
    levels = np.arange(11) / 10
    return float(np.mean([precision[recall >= level].max(initial=0.0) for level in levels]))


def _area(precision: np.ndarray, recall: np.ndarray) -> float:
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * highest).sum())
