"""Listing and checking of image files in a folder with one sub-folder for each class."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from resnet.data import synthetic_folder
from resnet.data.dataset import DataError
from resnet.files import some, write_atomically

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
THREADS = 16  # many, because they mostly wait for the file system
TAIL = 1_024  # last bytes of a file that must contain its end marker; some programs append a few bytes
END_MARKERS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}  # by Pillow's name of the format
# Folders that network disks, archives and other programs create, in lower case. Many hold thumbnails, near-copies of
# images that would end up on both sides of a split.
JUNK = {
    "__macosx", "__pycache__", "@eadir", "#recycle", "@recycle", "$recycle.bin", "@recently-snapshot", "#snapshot",
    "lost+found", "network trash folder", "system volume information", "temporary items", "thumbnails", "_thumbnails",
    "_thumbs",
}  # fmt: skip


class Counts(NamedTuple):
    """Counts of a complete data set. ``train_per_class``: smallest and largest number of training images in a class."""

    classes: int
    train_images: int
    test_images: int
    train_per_class: tuple[int, int]

    @property
    def test_per_class(self) -> tuple[int, int]:
        """The smallest and the largest number of test images in a class; all classes have equally many."""
        return 2 * (self.test_images // self.classes,)


EXPECTED = {
    "imagenet": Counts(1_000, 1_281_167, 50_000, (732, 1_300)),
    "synthetic_imagenet": Counts(
        len(synthetic_folder.CLASSES),
        synthetic_folder.TRAIN_IMAGES,
        synthetic_folder.TEST_IMAGES,
        2 * (synthetic_folder.TRAIN_IMAGES // len(synthetic_folder.CLASSES),),
    ),
}


@dataclass(frozen=True, eq=False)
class Files:
    """Files of one part of a data set, ordered by class and name.

    paths: bytes (N,), relative to the data set's folder; an array, because a million strings would take five times the
    memory, and every worker would get a copy. labels: int64 (N,). bytes: int64 (N,), file sizes.
    """

    paths: np.ndarray
    labels: np.ndarray
    bytes: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True, eq=False)
class FolderDataset:
    """Image files below ``root``; labels are positions in ``classes``, which are sorted by name.

    ``official``: whether the numbers of classes and images are the expected ones. ``digest``: SHA-256 of the sorted
    relative paths and the file sizes, without the contents. For generated images it is the SHA-256 of the pixels before
    encoding, because file sizes depend on the JPEG library. ``upright``: whether images are rotated by EXIF's
    orientation.
    """

    name: str
    root: Path
    classes: tuple[str, ...]
    train: Files
    test: Files
    official: bool
    digest: str
    upright: bool = False

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def path(self, files: Files, index: int) -> Path:
        """Return the path of image ``index`` of ``train`` or ``test``."""
        return self.root / os.fsdecode(files.paths[index])


def load_folder(name: str, directory: Path) -> FolderDataset:
    """Load the data set ``name`` of EXPECTED from ``directory/name``, and check its number of images.

    The layout is torchvision's: ``train/<class>/<image>`` and ``val/<class>/<image>``. "synthetic_imagenet" is
    generated if it does not exist. Raises DataError, which names the folder and the remedy.
    """
    root, expected = _root_of(name, directory), EXPECTED[name]
    dataset = scan_folder(name, root)
    _check_classes(name, root / "train", dataset.classes)
    _check_count(root / "train", dataset.train, dataset.classes, expected.train_images, expected.train_per_class)
    _check_count(root / "val", dataset.test, dataset.classes, expected.test_images, expected.test_per_class)
    return dataset


def load_test_folder(name: str, directory: Path) -> FolderDataset:
    """Load a data set like :func:`load_folder`, but without training images, whose folder may be missing.

    It serves to test networks only; its digest covers the test images' files. Raises DataError.
    """
    root = _root_of(name, directory)
    _check_root(name, root)
    expected, classes = EXPECTED[name], tuple(_class_folders(root / "val"))
    _check_classes(name, root / "val", classes)
    test = _scan(root, "val", classes)
    _check_count(root / "val", test, classes, expected.test_images, expected.test_per_class)
    none = Files(np.array([], test.paths.dtype), np.array([], np.int64), np.array([], np.int64))
    return FolderDataset(name, root, classes, none, test, True, digest_of_files(test))


def _root_of(name: str, directory: Path) -> Path:
    """Return the data set's folder in a directory, or the directory itself if it holds the data set's ``val``."""
    root = Path(directory) / name
    if name == "synthetic_imagenet":
        synthetic_folder.make(root)
    itself = not root.exists() and (root.parent / "val").is_dir()
    return root.parent if itself else root


def scan_folder(name: str, root: Path) -> FolderDataset:
    """List the images below ``root/train`` and ``root/val``, without checking their number.

    Images are the files directly in the class folders whose names end in one of SUFFIXES and don't begin with a dot.
    Raises DataError for a missing or empty folder, and if the two have different classes.
    """
    _check_root(name, root)
    classes = {part: _class_folders(root / part) for part in ("train", "val")}
    if classes["train"] != classes["val"]:
        differences = sorted(set(classes["train"]) ^ set(classes["val"]))
        lines = [f"{name} only in {'train' if name in classes['train'] else 'val'}" for name in differences]
        raise DataError(f"{root / 'train'} and {root / 'val'} have different class folders: {some(lines)}; both need a "
                        "folder for every class, with the same names")  # fmt: skip
    parts = {part: _scan(root, part, names) for part, names in classes.items()}
    counts = len(classes["train"]), len(parts["train"]), len(parts["val"])
    official = name in EXPECTED and EXPECTED[name][:3] == counts
    digest = synthetic_folder.digest(root) if name == "synthetic_imagenet" else digest_of_files(*parts.values())
    return FolderDataset(name, root, tuple(classes["train"]), parts["train"], parts["val"], official, digest)


def _check_root(name: str, root: Path) -> None:
    if not root.is_dir():
        raise DataError(f"there is no folder {root}: put {name} there, as train/<class>/<image> and "
                        "val/<class>/<image>, or link to it, or name another folder with --data "
                        "(DATA= with make)")  # fmt: skip


def _class_folders(folder: Path) -> list[str]:
    """List the names of the class folders in ``root/train`` or ``root/val``, sorted."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}: it must have a folder of images for every class")
    with os.scandir(folder) as entries:
        entries = [entry for entry in entries if not is_junk(entry.name)]
    if names := sorted(entry.name for entry in entries if entry.is_dir()):
        return names
    if any(is_image(entry.name) for entry in entries):
        raise DataError(f"{folder} has images directly in it, not in a folder for every class: move each image to "
                        f"{folder}/<class>, with the class names of {folder.parent / 'train'} (the development kit "
                        "lists the class of each ImageNet validation image)")  # fmt: skip
    raise DataError(f"{folder} is empty: it must have a folder of images for every class")


def is_junk(name: str) -> bool:
    """Return whether a folder or file of this name was created by a program, not by a user."""
    return name.startswith(".") or name.lower() in JUNK


def is_image(name: str, suffixes: tuple[str, ...] = SUFFIXES) -> bool:
    """Return whether a file of this name counts as an image."""
    return name.lower().endswith(suffixes) and not name.startswith(".")


def _scan(root: Path, part: str, classes: list[str]) -> Files:
    """List the images of ``root/part``. Raises DataError for a class without images."""

    def images_of(name: str) -> list[tuple[bytes, int]]:
        with os.scandir(root / part / name) as entries:
            found = [(entry.name, entry.stat().st_size) for entry in entries if is_image(entry.name)]
        return [(os.fsencode(f"{part}/{name}/{file}"), size) for file, size in sorted(found)]

    try:
        with ThreadPoolExecutor(THREADS) as threads:
            found = list(threads.map(images_of, classes))
    except OSError as error:
        raise DataError(f"{root / part} can't be read ({error}); make its folders and files readable") from error
    if empty := [str(root / part / name) for name, images in zip(classes, found) if not images]:
        raise DataError(f"no image in {some(empty)} (files that end in {', '.join(SUFFIXES)}): extract the class "
                        "again, or remove its folders if it is not a class")  # fmt: skip
    labels = np.repeat(np.arange(len(classes)), [len(images) for images in found])
    return Files(
        np.array([path for images in found for path, _ in images]),
        labels,
        np.array([size for images in found for _, size in images], np.int64),
    )


def digest_of_files(*parts: Files) -> str:
    """Return the SHA-256 of the files' paths and sizes."""
    digest = hashlib.sha256()
    for files in parts:  # "train" is before "val", and both are sorted
        for path, size in zip(files.paths.tolist(), files.bytes.tolist()):
            digest.update(b"%s %d\n" % (path, size))
    return digest.hexdigest()


def _check_classes(name: str, folder: Path, classes: tuple[str, ...]) -> None:
    if len(classes) != (expected := EXPECTED[name].classes):
        raise DataError(f"{folder} has {len(classes):,} class folders, but {name} has {expected:,}: put exactly its "
                        "class folders there")  # fmt: skip


def _check_count(folder: Path, files: Files, classes: tuple[str, ...], images: int, each: tuple[int, int]) -> None:
    """Raise DataError, which names suspicious classes, if the number of files is not ``images``."""
    if len(files) == images:
        return
    least, most = each
    counts = np.bincount(files.labels, minlength=len(classes))
    odd = [f"{name} has {count:,}" for name, count in zip(classes, counts) if not least <= count <= most]
    wanted = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    where = f"every class should have {wanted}, but {some(odd)}" if odd else (
        f"every class has a plausible number ({wanted}), so the difference may be in any of them"
    )  # fmt: skip
    raise DataError(f"{folder} has {len(files):,} images instead of {images:,}: {where}; extract the archives of the "
                    "affected classes again, and remove other files")  # fmt: skip


def check_images(dataset: FolderDataset) -> None:
    """Open every image, and raise DataError with the names of unreadable ones.

    This finds the damage that an interrupted copy leaves: missing, unreadable, empty, truncated and zero-filled files,
    and files that are not images. Only the header and the end of a JPEG or PNG are checked, so damage in between is not
    found; files without an end marker and other formats are decoded.
    """
    paths = [(files, index) for files in (dataset.train, dataset.test) for index in range(len(files))]
    bad = []
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(paths), 1_024):  # in pieces, so that there are never a million pending results
            piece = [dataset.path(*place) for place in paths[start : start + 1_024]]
            bad += [f"{path} ({why})" for path, why in zip(piece, pool.map(_why_unreadable, piece)) if why]
    if bad:
        raise DataError(f"{len(bad):,} of {len(paths):,} images below {dataset.root} can't be read: {some(bad)}; "
                        "extract them again")  # fmt: skip


def _why_unreadable(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            with Image.open(file) as image:
                marker = END_MARKERS.get(image.format)
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL))
            if marker is None or marker not in file.read():
                file.seek(0)
                with Image.open(file) as image:
                    image.load()
    except Exception as error:  # each format's decoder raises its own types
        return str(error).replace(str(path), "the file")
    return None


def check_images_once(dataset: FolderDataset, cache: Path) -> None:
    """Run :func:`check_images`, unless ``cache`` records that files of these paths and sizes were all readable.

    Raises DataError, and then records nothing.
    """
    note = Path(cache) / f"{dataset.digest}.checked"
    if not note.exists():
        check_images(dataset)
        write_atomically(note, f"{dataset.name}: {len(dataset.train) + len(dataset.test)} images\n".encode())
