"""CIFAR-10 from torchvision's files or from one NumPy archive."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from resnet.data.dataset import DataError, ImageDataset

ARCHIVE = "cifar10.npz"
SHAPES = {
    "train_images": (50_000, 32, 32, 3),
    "train_labels": (50_000,),
    "test_images": (10_000, 32, 32, 3),
    "test_labels": (10_000,),
}

# Copies other than the official files that are known, by the digest of their arrays, and how they differ.
KNOWN_COPIES = {
    "3940445b01c63e6f8d5cea7a3f880c20443a7fdcbed4056132cffd594183447c": (
        "the official images, order, labels and split, but 96 images (76 training, 20 test) decoded from JPEG copies"
    ),
}


def load_cifar10(folder: Path, download: bool = True) -> ImageDataset:
    """CIFAR-10 (Krizhevsky 2009) from ``folder``; see :func:`resnet.data.load`. Raises DataError."""
    archive = folder / ARCHIVE
    if archive.exists():
        return ImageDataset("cifar10", **_read_archive(archive), official=False)
    return ImageDataset("cifar10", **_read_torchvision(folder, download), official=True)


def _read_archive(path: Path) -> dict[str, np.ndarray]:
    remedy = f"replace the file, or remove it to have the official files downloaded to {path.parent}"
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in SHAPES if name not in archive.files]
            if missing:
                raise DataError(f"{path} has no array {', '.join(missing)}; {remedy}")
            arrays = {name: np.asarray(archive[name]) for name in SHAPES}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}); {remedy}") from error
    for name, shape in SHAPES.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != np.uint8:
            found = f"{array.dtype} {array.shape}"
            raise DataError(f"{path}: {name} is {found}, not uint8 {shape}; {remedy}")
        if name.endswith("labels") and array.max() > 9:
            raise DataError(f"{path}: {name} has a label {array.max()}, but the classes are 0 to 9; {remedy}")
    return arrays


def _read_torchvision(folder: Path, download: bool) -> dict[str, np.ndarray]:
    from torchvision.datasets import CIFAR10

    files = folder / CIFAR10.base_folder
    try:
        train, test = (CIFAR10(folder, train=train, download=download) for train in (True, False))
    except (RuntimeError, OSError, EOFError) as error:
        # torchvision checks MD5 sums; it raises RuntimeError for missing or damaged files and OSError off line.
        raise DataError(
            f"CIFAR-10 is not in {folder}: {files} is missing or damaged and "
            f"{'could not be downloaded' if download else 'downloading is off'} ({error}). "
            f"Put the files of cifar-10-python.tar.gz into {files}, or an archive {folder / ARCHIVE} with the "
            f"uint8 arrays {', '.join(SHAPES)}, or name another folder with --data (DATA= with make)."
        ) from error
    return {
        "train_images": train.data,
        "train_labels": np.array(train.targets, np.uint8),
        "test_images": test.data,
        "test_labels": np.array(test.targets, np.uint8),
    }
