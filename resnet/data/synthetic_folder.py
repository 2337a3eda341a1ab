"""A small generated folder with ImageNet's layout: JPEG files of the synthetic shapes in many sizes.

It is for trials and tests; results are not comparable with a real data set. Some images are grey, like a few of
ImageNet's.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from resnet.data.dataset import DataError
from resnet.data.synthetic import _shape_mask

CLASSES = ("disc", "ring", "square", "frame", "triangle", "cross", "bar", "two_bars", "two_squares", "half_disc")
TRAIN_IMAGES, TEST_IMAGES = 400, 100
SIDES = 40, 90  # pixels, of either side
GREY = 0.05  # share of grey images
QUALITY = 90
DIGEST = "pixels.sha256"  # file of the digest in the folder


def make(root: Path) -> None:
    """Generate the folder ``root`` if it does not exist.

    The folder is written under a temporary name and then renamed, so it is always complete, and if two processes
    generate it at once, one of the two is kept. Raises DataError if it can't be written.
    """
    if root.exists():
        return
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}.", suffix=".tmp"))
        try:
            folder = temporary / root.name  # a sub-folder, because only its owner can read a temporary folder
            write(folder)
            try:
                folder.rename(root)
            except OSError:  # not empty: another process was faster
                if not (root / DIGEST).exists():
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise DataError(f"can't write {root} ({error}); name another folder with --data (DATA= with make)") from error


def digest(root: Path) -> str:
    """Return the SHA-256 of all images' pixels before they were encoded. Raises DataError."""
    try:
        return (root / DIGEST).read_text().strip()
    except OSError as error:
        raise DataError(f"{root / DIGEST} can't be read ({error}); remove {root} to have it generated again") from error


def write(folder: Path) -> None:
    """Write the images of both parts, and the digest of their pixels, into a folder."""
    pixels = hashlib.sha256()
    for stream, (part, count) in enumerate((("train", TRAIN_IMAGES), ("val", TEST_IMAGES))):
        rng = np.random.Generator(np.random.PCG64([1, stream]))
        for name in CLASSES:
            (folder / part / name).mkdir(parents=True)
        for number, (label, image) in enumerate(_images(rng, count)):
            pixels.update(image)
            path = folder / part / CLASSES[label] / f"{number:05}.JPEG"
            Image.fromarray(image).save(path, format="JPEG", quality=QUALITY)
    (folder / DIGEST).write_text(pixels.hexdigest() + "\n")


def _images(rng: np.random.Generator, count: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield labels in turn and images uint8 (H, W, 3) or, if grey, (H, W): a slightly rotated shape on a gradient."""
    for number in range(count):
        label = number % len(CLASSES)
        height, width = rng.integers(SIDES[0], SIDES[1] + 1, 2)
        radius = min(height, width) * rng.uniform(0.3, 0.42)
        angle = rng.uniform(-0.3, 0.3)
        row, column = (side / 2 + rng.uniform(-0.5, 0.5) * (side / 2 - radius) for side in (height, width))
        y = ((np.arange(height) + 0.5 - row) / radius)[:, None]
        x = (np.arange(width) + 0.5 - column) / radius
        u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
        contrast = rng.choice([-1, 1]) * rng.uniform(0.3, 0.6) * rng.uniform(0.8, 1.2, 3)
        slope = rng.uniform(-0.1, 0.1, 3) * x[..., None]
        image = rng.uniform(0.4, 0.6, 3) + slope + np.where(_shape_mask(label, u, v)[..., None], 0.5, -0.5) * contrast
        image += 0.04 * rng.standard_normal(image.shape)
        image = (image.clip(0, 1) * 255).round().astype(np.uint8)
        yield label, np.ascontiguousarray(image[..., 1]) if rng.uniform() < GREY else image
