"""Small data sets of a user's own, given as arrays by a function, and their files for the processes of jobs."""

import io
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from resnet.data.dataset import DataError, ImageDataset
from resnet.files import some, write_atomically

_FIELDS = ("train_images", "train_labels", "test_images", "test_labels")
_makers: dict[str, Callable[[], Sequence]] = {}
_made: dict[str, ImageDataset] = {}


@dataclass(frozen=True)
class Arrays:
    """The properties of a data set that is given as arrays, which identify it.

    ``sha256``: the digest of the arrays. ``shape``: height, width and channels of an image.
    """

    sha256: str
    train_images: int
    shape: tuple[int, int, int]
    num_classes: int

    def __post_init__(self):
        object.__setattr__(self, "shape", tuple(self.shape))

    @classmethod
    def of(cls, dataset: ImageDataset) -> "Arrays":
        """Describe a data set."""
        return cls(dataset.digest, len(dataset.train_images), dataset.train_images.shape[1:], dataset.num_classes)

    def specification(self) -> dict:
        """Return the properties as JSON values."""
        return {**vars(self), "shape": list(self.shape)}


def add(name: str, make: Callable[[], Sequence]) -> None:
    """Have ``make`` called, at the first use, for the data set ``name``. Raises ValueError for an impossible name."""
    if not re.fullmatch(r"[a-z]\w*", name):
        raise ValueError(f"a data set can't have the name {name!r}: write it in lower-case letters, digits and _")
    _makers[name] = make
    _made.pop(name, None)


def is_added(name: str) -> bool:
    """Return whether the data set ``name`` was added in this process."""
    return name in _makers


def make(name: str) -> ImageDataset:
    """Make an added data set, once. Raises DataError for arrays that are no data set; warns of unused classes."""
    if name not in _made:
        try:
            arrays = _makers[name]()
        except Exception as error:  # the function's own
            text = f"the function of the data set {name} failed: {type(error).__name__}: {error}"
            raise DataError(text) from error
        if not isinstance(arrays, (tuple, list)) or len(arrays) != len(_FIELDS):
            raise DataError(f"the function of the data set {name} must return four arrays: {', '.join(_FIELDS)}")
        _made[name] = _checked(name, dict(zip(_FIELDS, map(np.asarray, arrays))))
        _warn_of_unused(_made[name])
    return _made[name]


def _warn_of_unused(dataset: ImageDataset) -> None:
    """Warn of classes without a training image: a net has outputs for them, which it never learns."""
    unused = sorted({*range(dataset.num_classes)} - {*dataset.train_labels.tolist()})
    if unused:
        warnings.warn(f"data set {dataset.name}: no training image has the label {some(list(map(str, unused)))}, but "
                      f"its nets have {dataset.num_classes} outputs, one for each label from 0 to "
                      f"{dataset.num_classes - 1}; number the classes from 0 on", stacklevel=2)  # fmt: skip


def save(dataset: ImageDataset, folder: Path) -> None:
    """Write a data set's arrays into ``folder``, for processes that can't make them; an existing file is kept.

    Raises DataError if the file can't be written.
    """
    path, content = _path(folder, dataset.name, dataset.digest), io.BytesIO()
    if not path.exists():
        np.savez(content, **{field: getattr(dataset, field) for field in _FIELDS})
        try:
            write_atomically(path, content.getvalue())
        except OSError as error:
            raise DataError(f"{path} can't be written ({error}); name another folder with --out") from error


def read(name: str, arrays: Arrays, folder: Path) -> ImageDataset:
    """Read a data set that :func:`save` wrote. Raises DataError, with the remedy."""
    path, remedy = _path(folder, name, arrays.sha256), "start the launch again, which writes it"
    try:
        with np.load(path, allow_pickle=False) as file:
            dataset = _checked(name, {field: file[field] for field in _FIELDS})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}, the data set {name}, can't be read ({error}); {remedy}") from error
    if dataset.digest != arrays.sha256:
        raise DataError(f"{path} holds other arrays than the run's; remove it, and {remedy}")
    return dataset


def _path(folder: Path, name: str, digest: str) -> Path:
    return folder / f"{name}-{digest[:16]}.npz"


def _checked(name: str, arrays: dict[str, np.ndarray]) -> ImageDataset:
    """Make a data set of arrays, images (N, H, W, C) or grey (N, H, W). Raises DataError."""

    def check(right: bool, field: str, wanted: str) -> None:
        if not right:
            found = f"{arrays[field].dtype} {arrays[field].shape}"
            raise DataError(f"data set {name}: {field} must be {wanted}; it is {found}")

    for part in ("train", "test"):
        field, labels = f"{part}_images", f"{part}_labels"
        grey = arrays[field].ndim == 3
        arrays[field] = arrays[field][..., None] if grey else arrays[field]
        right = arrays[field].dtype == np.uint8 and arrays[field].ndim == 4 and arrays[field].shape[3] in (1, 3)
        check(right and len(arrays[field]) > 0, field, "uint8 images (N, H, W, 3), or grey ones (N, H, W)")
        right = arrays[labels].dtype.kind in "iu" and arrays[labels].shape == arrays[field].shape[:1]
        right = right and arrays[labels].min() >= 0 and arrays[labels].max() < 256
        check(right, labels, f"whole numbers ({len(arrays[field])},) from 0 to 255, a label for each image")
        arrays[labels] = arrays[labels].astype(np.uint8)
    shape = arrays["train_images"].shape[1:]
    check(arrays["test_images"].shape[1:] == shape, "test_images", f"of the training images' shape, {shape}")
    classes = 1 + max(int(arrays[labels].max()) for labels in ("train_labels", "test_labels"))
    return ImageDataset(name, **arrays, official=False, num_classes=classes)
