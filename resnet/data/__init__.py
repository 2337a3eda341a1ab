"""Data sets by name, as uint8 arrays with a digest that says which copy they are."""

from pathlib import Path

from resnet.data import cifar, synthetic
from resnet.data.dataset import DataError, ImageDataset

__all__ = ["TRAIN_IMAGES", "DataError", "ImageDataset", "load"]

# The data sets' names, and how many training images each has.
TRAIN_IMAGES = {"cifar10": cifar.SHAPES["train_labels"][0], "synthetic": synthetic.TRAIN_IMAGES}


def load(name: str, folder: Path | str = "data", download: bool = True) -> ImageDataset:
    """Load the data set ``name``.

    cifar10: from ``folder/cifar10.npz`` if that exists, else from torchvision's files in ``folder``, which are
    downloaded if they are missing and ``download`` is true. synthetic: made by the code; ``folder`` is not used.
    Raises DataError, which names the file and says what to do, and ValueError for an unknown name.
    """
    if name == "cifar10":
        return cifar.load_cifar10(Path(folder), download)
    if name == "synthetic":
        return synthetic.make_synthetic()
    raise ValueError(f"there is no data set {name!r}; the data sets are: {', '.join(TRAIN_IMAGES)}")
