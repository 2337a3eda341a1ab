"""Ten classes of procedurally made images: for trying things out, never comparable with a real data set.

A class is a shape. Its position, size, rotation, colours and background vary at random, and it is as often darker as
brighter than the background, so that no single pixel says much about the class.
"""

import numpy as np

from resnet.data.dataset import ImageDataset

SIZE = 32
TRAIN_IMAGES = 2_000
TEST_IMAGES = 500
RADIUS = 8.5, 12.0  # of the shape, in pixels
ROTATION = 0.35  # radians, to either side
CONTRAST = 0.4, 0.7  # between shape and background in each channel, in units of 0..1
SLOPE = 0.15  # of the background's brightness, from the centre to a border
NOISE = 0.04  # standard deviation


def _shape_mask(kind: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Where shape ``kind`` (0..9) is, in coordinates (..., H, W) in which it fills the square from -1 to 1."""
    r, box = np.hypot(u, v), np.maximum(np.abs(u), np.abs(v))
    return (
        r < 1,  # disc
        (r < 1) & (r > 0.55),  # ring
        box < 0.85,  # square
        (box < 0.9) & (box > 0.5),  # frame
        (v > -0.7) & (v < 1 - 2 * np.abs(u)),  # triangle
        (np.minimum(np.abs(u), np.abs(v)) < 0.28) & (box < 1),  # cross
        (np.abs(u) < 0.3) & (np.abs(v) < 1),  # bar
        (np.abs(np.abs(u) - 0.6) < 0.25) & (np.abs(v) < 1),  # two bars
        (u * v > 0) & (box < 0.95),  # two squares, corner to corner
        (r < 1) & (u > 0),  # half disc
    )[kind]


def _background(rng: np.random.Generator, n: int) -> np.ndarray:
    """Changes of brightness along both directions, (n, 32, 32, 3)."""
    ramp = np.linspace(-1, 1, SIZE, dtype=np.float32)
    down, across = rng.uniform(-SLOPE, SLOPE, (2, n, 3)).astype(np.float32)
    return ramp[:, None, None] * down[:, None, None] + ramp[:, None] * across[:, None, None]


def _masks(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Where each image's shape is: bool (n, 32, 32)."""
    n = len(labels)
    size = rng.uniform(*RADIUS, n)
    row, column = rng.uniform(RADIUS[1], SIZE - RADIUS[1], (2, n))
    angle = rng.uniform(-ROTATION, ROTATION, n)
    size, row, column, angle = (a.astype(np.float32)[:, None, None] for a in (size, row, column, angle))
    pixels = np.arange(SIZE, dtype=np.float32) + 0.5
    y, x = (pixels[:, None] - row) / size, (pixels - column) / size
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    mask = np.empty((n, SIZE, SIZE), bool)
    for kind in range(10):
        chosen = labels == kind
        mask[chosen] = _shape_mask(kind, u[chosen], v[chosen])
    return mask


def _make(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 32, 32, 3) and labels (n,), both uint8."""
    labels = rng.permutation(np.arange(n) % 10).astype(np.uint8)
    middle = rng.uniform(0.3, 0.7, (n, 1, 1, 3)).astype(np.float32)
    sign = rng.choice([-0.5, 0.5], (n, 1, 1, 1))  # of all channels together: the shape is darker or brighter
    difference = (sign * rng.uniform(*CONTRAST, (n, 1, 1, 3))).astype(np.float32)
    images = np.where(_masks(rng, labels)[..., None], middle + difference, middle - difference + _background(rng, n))
    images += NOISE * rng.standard_normal(images.shape, dtype=np.float32)
    return (images.clip(0, 1) * 255).round().astype(np.uint8), labels


def make_synthetic(train_images: int = TRAIN_IMAGES, test_images: int = TEST_IMAGES, seed: int = 0) -> ImageDataset:
    """A seeded data set with balanced classes; see the module's text."""
    streams = (np.random.Generator(np.random.PCG64([seed, stream])) for stream in (0, 1))
    train, test = (_make(rng, n) for rng, n in zip(streams, (train_images, test_images)))
    return ImageDataset("synthetic", *train, *test, official=True)
