"""Mean IoU, pixel accuracy and VOC's mean average precision."""

import numpy as np
import pytest
import torch

from resnet.tasks.metrics import Detections, Truth, confusion, segmentation_scores, voc_map


def test_mean_iou_and_pixel_accuracy_by_hand():
    truth = torch.tensor([[0, 0, 1, 1], [255, 2, 2, 255]])
    predicted = torch.tensor([[0, 1, 1, 1], [3, 2, 0, 1]])
    counts = confusion(predicted, truth, 4, 255)
    assert counts.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    scores = segmentation_scores(counts)
    assert scores["pixel_accuracy"] == pytest.approx(100 * 4 / 6)
    assert scores["mean_iou"] == pytest.approx(100 * (1 / 3 + 2 / 3 + 1 / 2) / 3), "class 3 is seen nowhere"
    twice = counts + confusion(predicted, truth, 4, 255)
    assert segmentation_scores(twice) == pytest.approx(scores)
    with pytest.raises(ValueError, match="all are ignored"):
        segmentation_scores(confusion(predicted, torch.full_like(truth, 255), 4, 255))


def boxes(*values):
    return np.array(values, np.float64).reshape(-1, 4)


def found(box_list, scores, labels=None):
    return Detections(boxes(*box_list), np.array(labels or [1] * len(scores)), np.array(scores, float))


def true(box_list, labels=None, difficult=None):
    n = len(box_list)
    return Truth(boxes(*box_list), np.array(labels or [1] * n, int), np.array(difficult or [False] * n, bool))


SQUARE, FAR = (0, 0, 10, 10), (50, 50, 60, 60)


def test_average_precision_by_hand():
    # Right, wrong, right: precisions 1, 1/2, 2/3 at recalls 1/2, 1/2, 1.
    scores = voc_map([found([SQUARE, (80, 0, 90, 10), FAR], [0.9, 0.8, 0.7])], [true([SQUARE, FAR])])
    assert scores["map_area"] == pytest.approx(100 * (0.5 * 1 + 0.5 * 2 / 3))
    assert scores["map_11_point"] == pytest.approx(100 * (6 * 1 + 5 * 2 / 3) / 11)
    assert voc_map([found([SQUARE], [0.9])], [true([SQUARE])])["map_11_point"] == 100
    assert voc_map([found([], [])], [true([SQUARE])]) == {"map_11_point": 0, "map_area": 0}


def test_a_second_detection_of_an_object_is_wrong_and_an_iou_of_half_is_enough():
    twice = voc_map([found([SQUARE, SQUARE, FAR], [0.9, 0.8, 0.7])], [true([SQUARE, FAR])])
    assert twice["map_area"] == pytest.approx(100 * (0.5 + 0.5 * 2 / 3))
    assert voc_map([found([(0, 0, 10, 5)], [0.9])], [true([SQUARE])])["map_area"] == 100
    assert voc_map([found([(0, 0, 10, 4.9)], [0.9])], [true([SQUARE])])["map_area"] == 0


def test_difficult_objects_count_neither_way():
    truth = true([SQUARE, FAR], difficult=[False, True])
    alone = voc_map([found([SQUARE], [0.5])], [truth])
    assert alone["map_area"] == 100, "it is not missed"
    assert voc_map([found([FAR, FAR, SQUARE], [0.9, 0.8, 0.5])], [truth])["map_area"] == 100, "nor wrong, nor taken"
    with pytest.raises(ValueError, match="no objects"):
        voc_map([found([], [])], [true([FAR], difficult=[True])])


def test_images_and_classes_are_kept_apart_and_classes_without_objects_left_out():
    detections = [found([SQUARE, FAR], [0.9, 0.8], [1, 2]), found([SQUARE], [0.7], [3])]
    truths = [true([SQUARE], [1]), true([FAR], [2])]
    scores = voc_map(detections, truths)
    assert scores["map_area"] == pytest.approx(50), "class 1 is right, class 2 was found in another image"


def test_eleven_points_agree_with_torchmetrics():
    """Both define the same where no box could be of two objects: here an image has at most one object of a class."""
    detection = pytest.importorskip("torchmetrics.detection")
    pytest.importorskip("pycocotools")
    rng, detections, truths = np.random.default_rng(0), [], []
    for _ in range(40):
        labels = rng.permutation(4)[: rng.integers(1, 4)] + 1
        corners = rng.uniform(0, 60, (len(labels), 2))
        own = np.concatenate([corners, corners + rng.uniform(15, 40, (len(labels), 2))], axis=1)
        truths.append(Truth(own, labels, np.zeros(len(labels), bool)))
        which = rng.integers(0, len(labels), rng.integers(0, 7))
        moved = own[which] + rng.uniform(-8, 8, (len(which), 4))
        guesses = np.where(rng.random(len(which)) < 0.8, labels[which], rng.integers(1, 5, len(which)))
        detections.append(Detections(moved, guesses, rng.random(len(which))))
    oracle = detection.MeanAveragePrecision(iou_thresholds=[0.5], rec_thresholds=(np.arange(11) / 10).tolist())
    names = ("boxes", "labels", "scores")
    oracle.update(
        [{name: torch.tensor(getattr(one, name)) for name in names} for one in detections],
        [{name: torch.tensor(getattr(one, name)) for name in names[:2]} for one in truths],
    )
    expected, scores = 100 * oracle.compute()["map"].item(), voc_map(detections, truths)
    assert scores["map_11_point"] == pytest.approx(expected, abs=1e-4) and 10 < expected < 90
    assert scores["map_area"] != pytest.approx(expected, abs=0.1)
