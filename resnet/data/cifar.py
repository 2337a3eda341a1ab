"""CIFAR-10 and CIFAR-100 from torchvision's files or from one NumPy archive."""

from pathlib import Path

import numpy as np

from resnet.data.archive import as_folder, read_archive, read_positions
from resnet.data.dataset import DataError, ImageDataset

NUM_CLASSES = {"cifar10": 10, "cifar100": 100}
TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
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


def load_cifar(name: str, folder: Path, download: bool = True) -> ImageDataset:
    """Load CIFAR-10 or CIFAR-100 (Krizhevsky 2009) from ``folder``; see :func:`resnet.data.load`.

    ``name`` is one of NUM_CLASSES. The labels of CIFAR-100 are the fine ones. Raises DataError.
    """
    classes, file = NUM_CLASSES[name], f"{name}.npz"
    archive = as_folder(folder, file) / file
    if archive.exists():
        arrays = read_archive(archive, SHAPES, classes)
        inexact = read_positions(archive, POSITIONS, len(arrays["test_images"]))
        return ImageDataset(name, **arrays, official=False, num_classes=classes, inexact_test=inexact)
    arrays = _read_torchvision(name, archive, download)
    return ImageDataset(name, **arrays, official=True, num_classes=classes)


def _read_torchvision(name: str, archive: Path, download: bool) -> dict[str, np.ndarray]:
    """Read torchvision's files beside the ``archive``, which is not there; torchvision checks their MD5 sums."""
    from torchvision import datasets

    kind, folder = getattr(datasets, name.upper()), archive.parent

    class Here(kind):
        """The data set with its files directly in the folder."""

        base_folder = ""

    itself = (folder / kind.train_list[0][0]).is_file()
    files, chosen = (folder, Here) if itself else (folder / kind.base_folder, kind)
    download = download and not itself
    try:
        train, test = (chosen(folder, train=train, download=download) for train in (True, False))
    except (RuntimeError, OSError, EOFError) as error:
        # RuntimeError is torchvision's for missing or damaged files, OSError is raised when offline.
        raise DataError(
            f"{TITLES[name]} is not in {folder}: {files} is missing or damaged and "
            f"{'could not be downloaded' if download else 'downloading is off'} ({error}). "
            f"Put the files of {kind.filename} into {files}, or an archive {archive} with the "
            f"uint8 arrays {', '.join(SHAPES)}, or name another folder with --data (DATA= with make)."
        ) from error
    return {
        "train_images": train.data,
        "train_labels": np.array(train.targets, np.uint8),
        "test_images": test.data,
        "test_labels": np.array(test.targets, np.uint8),
    }
