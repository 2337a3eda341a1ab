"""Folders of a few images, for tests."""

from pathlib import Path

import numpy as np
from PIL import Image

from resnet.data.image_files import FolderDataset, scan_folder


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Coarse noise, which survives JPEG."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def make_folder(root: Path, classes: tuple[str, ...] = ("a", "b"), train: int = 5, test: int = 2) -> Path:
    """So many images of each class, each of another size, named by numbers."""
    seed = 0
    for part, count in (("train", train), ("val", test)):
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                seed += 1
                image = noise(40 + 7 * seed % 30, 40 + 11 * seed % 30, seed)
                image.save(root / part / name / f"{number}.JPEG", quality=90)
    return root


def make_dataset(root: Path, **options) -> FolderDataset:
    return scan_folder("small", make_folder(root / "small", **options))
