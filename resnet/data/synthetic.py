"""Ten classes of procedurally made images: for trying things out, never comparable with a real data set.

A class is a shape; its colours, position, size, rotation and background vary at random, a second small shape and
noise distract. A linear classifier stays near chance, a deeper net does better than a shallow one, and a small net
learns it in a minute.
"""

import numpy as np

from resnet.data.dataset import ImageDataset

SIZE = 32
TRAIN_IMAGES = 2_000
TEST_IMAGES = 500


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


def _draw(rng: np.random.Generator, images: np.ndarray, kinds: np.ndarray, radius: tuple[float, float]) -> None:
    """Paint one shape onto each of the images, float (N, 32, 32, 3) in 0..1, in place."""
    n = len(images)
    row, column = np.mgrid[:SIZE, :SIZE] + 0.5
    size = rng.uniform(*radius, n)[:, None, None]
    centre = rng.uniform(radius[1], SIZE - radius[1], (2, n))[:, :, None, None]
    angle = rng.uniform(-0.5, 0.5, n)[:, None, None]
    y, x = (row - centre[0]) / size, (column - centre[1]) / size
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    colour = rng.uniform(0, 1, (n, 3))
    for kind in range(10):
        chosen = np.flatnonzero(kinds == kind)
        mask = _shape_mask(kind, u[chosen], v[chosen])[..., None]
        images[chosen] = np.where(mask, colour[chosen, None, None], images[chosen])


def make_synthetic(train_images: int = TRAIN_IMAGES, test_images: int = TEST_IMAGES, seed: int = 0) -> ImageDataset:
    """A seeded data set with balanced classes; see the module's text."""

    def make(n: int, stream: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.Generator(np.random.PCG64([seed, stream]))
        labels = rng.permutation(np.arange(n) % 10).astype(np.uint8)
        slope = rng.uniform(-0.3, 0.3, (n, 2, 1, 1, 3)) * np.linspace(-1, 1, SIZE)[:, None]
        images = rng.uniform(0, 1, (n, 1, 1, 3)) + slope[:, 0].reshape(n, SIZE, 1, 3) + slope[:, 1].reshape(n, 1, SIZE, 3)
        _draw(rng, images, rng.integers(0, 10, n), (2.0, 4.0))
        _draw(rng, images, labels, (7.0, 12.0))
        images += rng.normal(0, 0.08, images.shape)
        return (np.clip(images, 0, 1) * 255).astype(np.uint8), labels

    train, test = make(train_images, 0), make(test_images, 1)
    return ImageDataset("synthetic", *train, *test, official=True)
