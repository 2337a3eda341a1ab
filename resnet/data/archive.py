"""Reading and validation of data sets that are stored as one NumPy archive."""

import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from resnet.data.dataset import DataError


def as_folder(path: Path, archive: str) -> Path:
    """Return the data folder, given the folder or the archive in it. Raises DataError for any other file."""
    if not path.is_file():
        return path
    if path.name != archive:
        raise DataError(f"{path} is a file: name its folder instead, and rename it to {archive} if it is such an "
                        "archive")  # fmt: skip
    return path.parent


def read_archive(path: Path, shapes: dict[str, tuple[int, ...]], num_classes: int = 10) -> dict[str, np.ndarray]:
    """Read the arrays named in ``shapes`` from an .npz file: uint8, of these shapes, with labels below ``num_classes``.

    Raises DataError for anything else. No code in the file is executed.
    """
    remedy = f"replace the file, or remove it to download the official files to {path.parent}"
    arrays = _read(path, shapes, remedy)
    if missing := [name for name in shapes if name not in arrays]:
        raise DataError(f"{path} has no array {', '.join(missing)}; {remedy}")
    for name, shape in shapes.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != np.uint8:
            found = f"{array.dtype} {array.shape}"
            raise DataError(f"{path}: {name} is {found}, not uint8 {shape}; {remedy}")
        if name.endswith("labels") and array.max() >= num_classes:
            classes = f"the classes are 0 to {num_classes - 1}"
            raise DataError(f"{path}: {name} has a label {array.max()}, but {classes}; {remedy}")
    return arrays


def _read(path: Path, names: Iterable[str], remedy: str) -> dict[str, np.ndarray]:
    """Read the arrays of these names that an .npz file has."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: np.asarray(archive[name]) for name in names if name in archive.files}
    except PermissionError:
        raise
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}); {remedy}") from error


def read_positions(path: Path, name: str, count: int) -> tuple[int, ...]:
    """Read the array ``name`` of an .npz file, if it has one: positions among ``count`` images. Raises DataError."""
    positions = _read(path, [name], "replace the file").get(name, np.zeros(0, np.int64))
    right = positions.ndim == 1 and positions.dtype.kind in "iu"
    if not right or any(not 0 <= position < count for position in positions.tolist()):
        raise DataError(f"{path}: {name} is not a list of positions from 0 to {count - 1}; replace the file")
    return tuple(positions.tolist())
