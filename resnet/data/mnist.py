"""MNIST from torchvision's files or from one NumPy archive."""

import hashlib
from pathlib import Path

import numpy as np

from resnet.data.archive import as_folder, read_archive
from resnet.data.dataset import DataError, ImageDataset

SIZE = 28  # pixels on a side
ARCHIVE = "mnist.npz"
SHAPES = {
    "train_images": (60_000, SIZE, SIZE),
    "train_labels": (60_000,),
    "test_images": (10_000, SIZE, SIZE),
    "test_labels": (10_000,),
}

# Known unofficial copies, by the digest of their arrays, and their differences from the official files.
KNOWN_COPIES = {
    "17df02c76ecca66ea75f7b0b12331d6d1e42409fab0b8c07217123f6e0116ec8": (
        "the official images, labels and split, the test images and all labels in the official order, but the training "
        "images of each class in another order"
    ),
}

# The official files of the arrays, unpacked, and their MD5. torchvision checks only the packed files that it downloads.
FILES = {
    "train_images": ("train-images-idx3-ubyte", "6bbc9ace898e44ae57da46a324031adb"),
    "train_labels": ("train-labels-idx1-ubyte", "a25bea736e30d166cdddb491f175f624"),
    "test_images": ("t10k-images-idx3-ubyte", "2646ac647ad5339dbf082846283269ea"),
    "test_labels": ("t10k-labels-idx1-ubyte", "27ae3e4e09519cfbb04c329615203637"),
}


def load_mnist(folder: Path, download: bool = True) -> ImageDataset:
    """Load MNIST (LeCun et al. 1998), images (N, 28, 28, 1), from ``folder``; see :func:`resnet.data.load`.

    Raises DataError.
    """
    archive = as_folder(folder, ARCHIVE) / ARCHIVE
    official = not archive.exists()
    arrays = _read_files(archive.parent, download) if official else read_archive(archive, SHAPES)
    images = {name: array[..., None] for name, array in arrays.items() if name.endswith("images")}
    return ImageDataset("mnist", **{**arrays, **images}, official=official)


def _read_files(folder: Path, download: bool) -> dict[str, np.ndarray]:
    """Read the arrays of the official files, which are downloaded if one is missing."""
    from torchvision.datasets import MNIST

    files = folder / "MNIST" / "raw"  # torchvision's folder for them
    for itself in (folder, folder / "raw"):
        if all((itself / name).exists() for name, _ in FILES.values()):
            files = itself
    if missing := [name for name, _ in FILES.values() if not (files / name).exists()]:
        try:
            if not download:
                raise FileNotFoundError("downloading is off")
            MNIST(folder, download=True)
        except (RuntimeError, OSError, EOFError) as error:
            raise DataError(
                f"MNIST is not in {folder}: {files} lacks {', '.join(missing)}, which could not be downloaded "
                f"({error}). Put the unpacked official files there, or an archive {folder / ARCHIVE} with the uint8 "
                f"arrays {', '.join(SHAPES)}, or name another folder with --data (DATA= with make)."
            ) from error
    return {name: _read_idx(files / file, md5, SHAPES[name]) for name, (file, md5) in FILES.items()}


def _read_idx(path: Path, md5: str, shape: tuple[int, ...]) -> np.ndarray:
    """Read the array in an official file, whose header has 4 bytes and 4 more for each dimension."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} can't be read ({error})") from error
    if (found := hashlib.md5(content, usedforsecurity=False).hexdigest()) != md5:
        raise DataError(f"{path} is damaged: its MD5 is {found}, not {md5}; remove it to have it downloaded again")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape).copy()
