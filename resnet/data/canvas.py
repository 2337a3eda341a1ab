"""Canvases: images of CIFAR-10 on smooth backgrounds, whose classes, boxes and masks are known.

A stand-in for real data of segmentation and detection on which a processor trains in minutes. A canvas has 1 to 3
images that do not overlap, scaled to 24 to 48 pixels, where there are several to at most 40 or 32; an image that finds
no place is left out. Canvases for training have only training images of CIFAR-10, and canvases for tests only test
images. An image's mask is its whole square, because the object's own shape in the square is not known. The pixels
inside along its edge are ignored.

Everything is drawn from generators of its own and computed in whole numbers, so the canvases are the same everywhere.
"""

import hashlib
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from resnet.data import cifar
from resnet.data.dataset import ImageDataset

SIZES = {"canvas64": 64, "canvas96": 96, "synthetic_canvas64": 64, "synthetic_canvas96": 96}  # pixels along a side
SIDES = 24, 48  # pixels of an image on a canvas
SMALLER = 8  # pixels that the largest side of an image is smaller for every further image that is wanted
MOST = 3  # images on a canvas
TRIES = 50  # places that are tried for an image
IGNORED = 255  # in masks
TRAIN_CANVASES, TEST_CANVASES = 6_000, 1_000
SYNTHETIC = 10  # times fewer of synthetic images
CLASSES = 10

# Canvases of known unofficial copies of CIFAR-10, by the digest of their arrays.
KNOWN_COPIES = dict.fromkeys(
    (
        "6b0c6fed56ba36550cc320bd017aff1f79a20b61101346f7078205cdaa01140b",  # canvas64
        "dfd8342bf7d6c4a91106cb41636ad6e5ead250d427d21eb802c2ec6c41830fbd",  # canvas96
    ),
    f"made from CIFAR-10 in {next(iter(cifar.KNOWN_COPIES.values()))}",
)


@dataclass(frozen=True)
class Canvases:
    """Canvases of one part of the data.

    images: uint8 (N, S, S, 3). masks: uint8 (N, S, S), 0 for the background, 1 + class, or IGNORED. boxes: int16 (N,
    MOST, 4): left, top, and the first pixels outside on the right and at the bottom. labels: int16 (N, MOST), 1 +
    class, or 0 where there is no object.
    """

    images: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class CanvasDataset:
    """Canvases for training and tests.

    ``digest``: SHA-256 of all arrays. ``mean``: the channels' means (0..255) over the training images of the data that
    they are made from, which the networks of these data subtract.
    """

    name: str
    train: Canvases
    test: Canvases
    official: bool
    mean: tuple[float, ...]
    num_classes: int = CLASSES + 1
    digest: str = field(init=False)

    def __post_init__(self):
        digest = hashlib.sha256()
        for part in (self.train, self.test):
            for array in (part.images, part.masks, part.boxes, part.labels):
                digest.update(np.ascontiguousarray(array))
        object.__setattr__(self, "digest", digest.hexdigest())


def make_canvases(name: str, dataset: ImageDataset) -> CanvasDataset:
    """Make the canvases ``name`` of SIZES from a data set of small images."""
    fewer = SYNTHETIC if name.startswith("synthetic") else 1
    parts = [
        _make(np.random.Generator(np.random.PCG64([2, stream])), images, labels, count // fewer, SIZES[name])
        for stream, (images, labels, count) in enumerate(
            (
                (dataset.train_images, dataset.train_labels, TRAIN_CANVASES),
                (dataset.test_images, dataset.test_labels, TEST_CANVASES),
            )
        )
    ]
    mean = tuple(dataset.train_images.mean(axis=(0, 1, 2), dtype=np.float64).round(6).tolist())
    return CanvasDataset(name, *parts, dataset.official, mean)


def _make(rng: np.random.Generator, images: np.ndarray, labels: np.ndarray, count: int, size: int) -> Canvases:
    made = Canvases(
        np.empty((count, size, size, 3), np.uint8),
        np.zeros((count, size, size), np.uint8),
        np.zeros((count, MOST, 4), np.int16),
        np.zeros((count, MOST), np.int16),
    )
    for canvas, mask, boxes, own_labels in zip(made.images, made.masks, made.boxes, made.labels):
        coarse = rng.integers(0, 256, (3, 3, 3), dtype=np.uint8)
        canvas[:] = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))
        wanted, placed = rng.integers(1, MOST + 1), 0
        for _ in range(wanted):
            most = SIDES[1] - SMALLER * (int(wanted) - 1)
            if (box := _find_place(rng, boxes[:placed], size, most)) is None:
                continue
            left, top, right, bottom = box
            number = rng.integers(len(images))
            scaled = Image.fromarray(images[number]).resize((right - left,) * 2, Image.Resampling.BILINEAR)
            canvas[top:bottom, left:right] = np.asarray(scaled)
            mask[top:bottom, left:right] = IGNORED
            mask[top + 1 : bottom - 1, left + 1 : right - 1] = labels[number] + 1
            boxes[placed], own_labels[placed] = box, labels[number] + 1
            placed += 1
    return made


def _find_place(rng: np.random.Generator, taken: np.ndarray, size: int, most: int) -> tuple[int, int, int, int] | None:
    """Draw a square with sides of up to ``most`` pixels that overlaps none of the boxes; None if no try finds one."""
    for _ in range(TRIES):
        side = int(rng.integers(SIDES[0], most + 1))
        left, top = map(int, rng.integers(0, size - side + 1, 2))
        box = left, top, left + side, top + side
        if not any(left < r and l < box[2] and top < b and t < box[3] for l, t, r, b in taken):  # noqa: E741
            return box
    return None
