"""Data sets by name, and their placement on a device: small images in memory, large ones from a folder."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from resnet.data import arrays, canvas, cifar, image_files, mnist, scenes, subsets, synthetic
from resnet.data.arrays import Arrays
from resnet.data.canvas import CanvasDataset
from resnet.data.dataset import Data, DataError, ImageDataset
from resnet.data.folder import FolderData
from resnet.data.image_files import FolderDataset
from resnet.data.resident import TOP5_FROM, ResidentData
from resnet.data.scenes import SceneData, SceneDataset

__all__ = [
    "FOLDERS",
    "IMAGE_SHAPES",
    "INEXACT_TEST_IMAGES",
    "KNOWN_COPIES",
    "NUM_CLASSES",
    "TASK_DATA",
    "TRAIN_IMAGES",
    "WITH_TOP5",
    "Arrays",
    "Data",
    "DataError",
    "FolderDataset",
    "ImageDataset",
    "add_arrays",
    "find_arrays",
    "load",
    "place",
]

# The number of training images of each data set.
TRAIN_IMAGES = {
    **dict.fromkeys(cifar.NUM_CLASSES, cifar.SHAPES["train_labels"][0]),
    "mnist": mnist.SHAPES["train_labels"][0],
    "synthetic": synthetic.TRAIN_IMAGES,
    "synthetic_cifar100": synthetic.TRAIN_IMAGES,
    "synthetic_mnist": synthetic.TRAIN_IMAGES,
    **{name: subset.train_images for name, subset in subsets.SUBSETS.items()},
    **{name: counts.train_images for name, counts in image_files.EXPECTED.items()},
    **dict.fromkeys(("canvas64", "canvas96"), canvas.TRAIN_CANVASES),
    **dict.fromkeys(("synthetic_canvas64", "synthetic_canvas96"), canvas.TRAIN_CANVASES // canvas.SYNTHETIC),
    **{name: layout.train_images for name, layout in scenes.LAYOUTS.items()},
}
# The task of each data set that is not for classification; see :mod:`resnet.tasks`.
TASK_DATA = {
    "canvas64": "segmentation",
    "canvas96": "detection",
    "synthetic_canvas64": "segmentation",
    "synthetic_canvas96": "detection",
    **{name: layout.task for name, layout in scenes.LAYOUTS.items()},
}
# Height, width and channels of the images of data sets in memory.
IMAGE_SHAPES = {
    **dict.fromkeys(cifar.NUM_CLASSES, cifar.SHAPES["train_images"][1:]),
    "mnist": (mnist.SIZE, mnist.SIZE, 1),
    "synthetic": (synthetic.SIZE, synthetic.SIZE, 3),
    "synthetic_cifar100": (synthetic.SIZE, synthetic.SIZE, 3),
    "synthetic_mnist": (mnist.SIZE, mnist.SIZE, 1),
}
IMAGE_SHAPES |= {name: IMAGE_SHAPES[subset.whole] for name, subset in subsets.SUBSETS.items()}
NUM_CLASSES = {
    **cifar.NUM_CLASSES,
    **dict.fromkeys(("mnist", "synthetic", "synthetic_mnist"), 10),
    "synthetic_cifar100": synthetic.TINTS * 10,
    **{name: subset.num_classes for name, subset in subsets.SUBSETS.items()},
    **{name: counts.classes for name, counts in image_files.EXPECTED.items()},
    **dict.fromkeys(canvas.SIZES, canvas.CLASSES + 1),  # with the background
    **{name: layout.num_classes for name, layout in scenes.LAYOUTS.items()},
}
FOLDERS = tuple(image_files.EXPECTED)  # data sets that are read from a folder of image files during training
# Data sets of which the top-5 error is measured, too.
WITH_TOP5 = {
    *FOLDERS,
    *(name for name, count in NUM_CLASSES.items() if count >= TOP5_FROM and name not in (*FOLDERS, *TASK_DATA)),
}
# Known unofficial copies, by the digest of their arrays, and their differences from the official files.
KNOWN_COPIES = cifar.KNOWN_COPIES | mnist.KNOWN_COPIES | subsets.KNOWN_COPIES | canvas.KNOWN_COPIES
INEXACT_TEST_IMAGES = cifar.INEXACT_TEST_IMAGES  # digests of the positions of such copies' inexact test images

_PROVIDED = frozenset(TRAIN_IMAGES)


def add_arrays(name: str, make: Callable[[], Sequence]) -> None:
    """Add a data set of one's own to this process's data sets.

    ``make()`` returns four arrays: training images uint8 (N, H, W, 3), or grey ones (N, H, W), training labels (N,),
    test images and test labels; it is called once, at the first use. Raises ValueError for a name that is taken.
    """
    if name in _PROVIDED:
        raise ValueError(f"there is a data set {name} already; choose another name")
    arrays.add(name, make)


def find_arrays(name: str) -> Arrays | None:
    """Return the properties of an added data set, None of any other. Raises DataError for unusable arrays."""
    if not arrays.is_added(name):
        return None
    found = Arrays.of(arrays.make(name))
    TRAIN_IMAGES[name], IMAGE_SHAPES[name], NUM_CLASSES[name] = found.train_images, found.shape, found.num_classes
    if found.num_classes >= TOP5_FROM:
        WITH_TOP5.add(name)
    return found


Dataset = ImageDataset | FolderDataset | CanvasDataset | SceneDataset


def load(name: str, directory: Path | str = "data", download: bool = True) -> Dataset:
    """Load the data set ``name``.

    cifar10, cifar100, mnist: read from ``directory/cifar10.npz`` (``cifar100.npz``, ``mnist.npz``) if that exists, else
    from torchvision's files in ``directory``, which are downloaded if they are missing and ``download`` is true.
    synthetic, synthetic_cifar100 (100 classes), synthetic_mnist (grey, of MNIST's size): generated by the code;
    ``directory`` is not used.
    cifar10_first5, cifar10_last5, synthetic_first5, synthetic_last5: subsets of classes; see
    :mod:`resnet.data.subsets`.
    canvas64, canvas96, synthetic_canvas64, synthetic_canvas96: made from the images of cifar10 or synthetic; see
    :mod:`resnet.data.canvas`. voc, ade20k: the list of files in a folder; see :mod:`resnet.data.scenes`.
    imagenet: the list of files below ``directory/imagenet/train`` and ``val``, which have a folder for each class.
    synthetic_imagenet: a small folder of the same layout, generated in ``directory`` if it does not exist.
    Any name that :func:`add_arrays` added.
    Raises DataError, which names the file and the remedy, and ValueError for an unknown name.
    """
    try:
        return _load(name, Path(directory), download)
    except PermissionError as error:
        text = f"{error.filename} can't be accessed ({error.strerror}); change its permissions"
        raise DataError(f"{text}, or name another folder with --data (DATA= with make)") from error


def _load(name: str, directory: Path, download: bool) -> Dataset:
    if name in cifar.NUM_CLASSES:
        return cifar.load_cifar(name, directory, download)
    if name == "mnist":
        return mnist.load_mnist(directory, download)
    if name == "synthetic":
        return synthetic.make_synthetic()
    if name == "synthetic_cifar100":
        return synthetic.make_tinted(name)
    if name == "synthetic_mnist":
        return synthetic.make_synthetic(pixels=mnist.SIZE, channels=1, name=name)
    if name in subsets.SUBSETS:
        return subsets.take_subset(name, load(subsets.SUBSETS[name].whole, directory, download))
    if name in canvas.SIZES:
        whole = "synthetic" if name.startswith("synthetic") else "cifar10"
        return canvas.make_canvases(name, load(whole, directory, download))
    if name in scenes.LAYOUTS:
        return scenes.load_scenes(name, directory)
    if name in FOLDERS:
        return image_files.load_folder(name, directory)
    if arrays.is_added(name):
        return arrays.make(name)
    raise ValueError(f"there is no data set {name!r}; known data sets: {', '.join(TRAIN_IMAGES)}")


def place(dataset: Dataset, train_images: int | None, device: torch.device | str, workers: int = 0) -> Data | SceneData:
    """Prepare a data set for training on a device, with its first ``train_images`` images (None: all) to train on.

    ``workers``: number of data loader workers for an image folder; with 0 this process reads the files. Raises
    ValueError.
    """
    if isinstance(dataset, (CanvasDataset, SceneDataset)):
        return SceneData(dataset, torch.device(device), workers)
    if isinstance(dataset, FolderDataset):
        return FolderData(dataset, torch.device(device), workers)
    return ResidentData(dataset, train_images, torch.device(device))
