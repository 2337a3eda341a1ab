"""CIFAR-10 from torchvision's files or from one NumPy archive."""

from pathlib import Path

import numpy as np

from resnet.data.archive import as_folder, read_archive, read_positions
from resnet.data.dataset import DataError, ImageDataset

ARCHIVE = "cifar10.npz"
SHAPES = {
    "train_images": (50_000, 32, 32, 3),
    "train_labels": (50_000,),
    "test_images": (10_000, 32, 32, 3),
    "test_labels": (10_000,),
}

# Known unofficial copies, by the digest of their arrays, and their differences from the official files.
KNOWN_COPIES = {
    "3940445b01c63e6f8d5cea7a3f880c20443a7fdcbed4056132cffd594183447c": (
        "the official images, order, labels and split, but 96 images (76 training, 20 test) decoded from JPEG copies"
    ),
}
# For such copies, the SHA-256 of the positions (int64, little-endian) of test images that are not exact. The archive
# holds the positions in an array of this name.
POSITIONS = "jpeg_test"
INEXACT_TEST_IMAGES = {
    "3940445b01c63e6f8d5cea7a3f880c20443a7fdcbed4056132cffd594183447c": (
        "dc124f9cd95382927a10004a657cc0e6346aed7d47ce87b4f1267cf41eb71f72"
    ),
}


def load_cifar10(folder: Path, download: bool = True) -> ImageDataset:
    """Load CIFAR-10 (Krizhevsky 2009) from ``folder``; see :func:`resnet.data.load`. Raises DataError."""
    archive = as_folder(folder, ARCHIVE) / ARCHIVE
    if archive.exists():
        arrays = read_archive(archive, SHAPES)
        inexact = read_positions(archive, POSITIONS, len(arrays["test_images"]))
        return ImageDataset("cifar10", **arrays, official=False, inexact_test=inexact)
    return ImageDataset("cifar10", **_read_torchvision(archive.parent, download), official=True)


def _read_torchvision(folder: Path, download: bool) -> dict[str, np.ndarray]:
    from torchvision.datasets import CIFAR10

    class Here(CIFAR10):
        """CIFAR10 with its files directly in the folder."""

        base_folder = ""

    itself = (folder / CIFAR10.train_list[0][0]).exists()
    files, kind = (folder, Here) if itself else (folder / CIFAR10.base_folder, CIFAR10)
    download = download and not itself
    try:
        train, test = (kind(folder, train=train, download=download) for train in (True, False))
    except (RuntimeError, OSError, EOFError) as error:
        # torchvision checks MD5 sums; it raises RuntimeError for missing or damaged files, and OSError when offline.
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
