"""Data sets by name, and how they get onto a device: small images in memory, large ones from a folder."""

from pathlib import Path

import torch

from resnet.data import cifar, folder, mnist, subsets, synthetic
from resnet.data.dataset import Data, DataError, ImageDataset
from resnet.data.folder import FolderData, FolderDataset
from resnet.data.resident import ResidentData

__all__ = [
    "FOLDERS",
    "IMAGE_SHAPES",
    "INEXACT_TEST_IMAGES",
    "KNOWN_COPIES",
    "NUM_CLASSES",
    "TRAIN_IMAGES",
    "Data",
    "DataError",
    "FolderDataset",
    "ImageDataset",
    "load",
    "place",
]

# The data sets' names, and how many training images each has.
TRAIN_IMAGES = {
    "cifar10": cifar.SHAPES["train_labels"][0],
    "mnist": mnist.SHAPES["train_labels"][0],
    "synthetic": synthetic.TRAIN_IMAGES,
    "synthetic_mnist": synthetic.TRAIN_IMAGES,
    **{name: subset.train_images for name, subset in subsets.SUBSETS.items()},
    **{name: counts.train_images for name, counts in folder.EXPECTED.items()},
}
# Those that are held in memory: their images' height, width and channels.
IMAGE_SHAPES = {
    "cifar10": cifar.SHAPES["train_images"][1:],
    "mnist": (mnist.SIZE, mnist.SIZE, 1),
    "synthetic": (synthetic.SIZE, synthetic.SIZE, 3),
    "synthetic_mnist": (mnist.SIZE, mnist.SIZE, 1),
}
IMAGE_SHAPES |= {name: IMAGE_SHAPES[subset.whole] for name, subset in subsets.SUBSETS.items()}
NUM_CLASSES = {
    **dict.fromkeys(("cifar10", "mnist", "synthetic", "synthetic_mnist"), 10),
    **{name: subset.num_classes for name, subset in subsets.SUBSETS.items()},
    **{name: counts.classes for name, counts in folder.EXPECTED.items()},
}
FOLDERS = tuple(folder.EXPECTED)  # those that are read from a folder of image files while a run trains
# Copies other than the official files that are known, by the digest of their arrays, and how they differ.
KNOWN_COPIES = cifar.KNOWN_COPIES | mnist.KNOWN_COPIES | subsets.KNOWN_COPIES
INEXACT_TEST_IMAGES = cifar.INEXACT_TEST_IMAGES  # of such copies, by the same digest: of the test images' positions


def load(name: str, directory: Path | str = "data", download: bool = True) -> ImageDataset | FolderDataset:
    """Load the data set ``name``.

    cifar10, mnist: from ``directory/cifar10.npz`` or ``mnist.npz`` if that exists, else from torchvision's files in
    ``directory``, which are downloaded if they are missing and ``download`` is true.
    synthetic, synthetic_mnist (grey, of MNIST's size): made by the code; ``directory`` is not used.
    cifar10_first5, cifar10_last5, synthetic_first5, synthetic_last5: some classes of these; see
    :mod:`resnet.data.subsets`.
    imagenet: the list of the files below ``directory/imagenet/train`` and ``val``, a folder per class in each.
    synthetic_imagenet: such a folder in small, made by the code in ``directory`` if it is not there.
    Raises DataError, which names the file and says what to do, and ValueError for an unknown name.
    """
    try:
        return _load(name, Path(directory), download)
    except PermissionError as error:
        text = f"{error.filename} can't be used ({error.strerror}); have it made accessible for this user"
        raise DataError(f"{text}, or name another folder with --data (DATA= with make)") from error


def _load(name: str, directory: Path, download: bool) -> ImageDataset | FolderDataset:
    if name == "cifar10":
        return cifar.load_cifar10(directory, download)
    if name == "mnist":
        return mnist.load_mnist(directory, download)
    if name == "synthetic":
        return synthetic.make_synthetic()
    if name == "synthetic_mnist":
        return synthetic.make_synthetic(pixels=mnist.SIZE, channels=1, name=name)
    if name in subsets.SUBSETS:
        return subsets.take_subset(name, load(subsets.SUBSETS[name].whole, directory, download))
    if name in FOLDERS:
        return folder.load_folder(name, directory)
    raise ValueError(f"there is no data set {name!r}; the data sets are: {', '.join(TRAIN_IMAGES)}")


def place(
    dataset: ImageDataset | FolderDataset, train_images: int | None, device: torch.device | str, workers: int = 0
) -> Data:
    """The data set for training on a device, with the first ``train_images`` images (None: all) to train on.

    ``workers``: processes that read an image folder's files; 0 reads them in this one. Raises ValueError.
    """
    if isinstance(dataset, FolderDataset):
        return FolderData(dataset, torch.device(device), workers)
    return ResidentData(dataset, train_images, torch.device(device))
