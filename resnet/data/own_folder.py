"""A user's own images, in one sub-folder for each class: listing, checking and splitting.

Only the files' names and sizes are kept; the images are read during training.
"""

import hashlib
import os
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

import numpy as np
import torch

from resnet.data import image_files
from resnet.data.crops import read_image
from resnet.data.dataset import DataError
from resnet.data.image_files import Files, FolderDataset, digest_of_files, is_image, is_junk
from resnet.data.sampling import seeded_generator
from resnet.files import some

# Suffixes of common image files; a file that this Pillow can't decode is reported, not skipped silently.
SUFFIXES = (*image_files.SUFFIXES, ".jpe", ".jfif", ".gif", ".jp2", ".tga", ".avif", ".heic", ".heif")
# Names of parts of a split, such as Training, test_images, val2017, fold_1. A single match can be a class, like trains.
PART = re.compile(
    r"(train|val|test|dev|eval)(ing|id|idation|uation)?([ _-]?(set|data|images?|[0-9]{4}))?|(fold|split)[ _-]?[0-9]+",
    re.I,
)


@dataclass(frozen=True, eq=False)
class OwnImages:
    """The images below ``root``, sorted by class and path, and the files and folders left out.

    ``empty``: sub-folders without a readable image, which are not classes. ``unreadable``: files with an image's suffix
    that can't be read, each with the reason. ``passed_over``: skipped folders, links and files, each with the reason.
    """

    root: Path
    classes: tuple[str, ...]
    files: Files
    empty: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...]
    passed_over: tuple[tuple[str, str], ...] = ()


def scan_classes(root: Path, progress: Callable[[int, int], None] | None = None) -> OwnImages:
    """Find the images below the sub-folders of ``root``, at any depth, and decode each once as a check.

    Names that begin with a dot and names in JUNK are ignored. Links are followed. ``progress`` is called with the
    number of files done and the number of all files. Raises DataError if there are fewer than two classes, or if the
    folder seems to be split into training and test parts already.
    """
    passed_over: list[tuple[Path, str]] = []
    if not root.is_dir():
        raise DataError(f"there is no folder {root}: name one that has a sub-folder of images for each class")
    folders, loose = _entries(root, passed_over)
    names = [folder.name for folder in folders]
    _refuse_parts(root, names)
    if odd := [shown(name) for name in names if shown(name) != name]:
        raise DataError(f"{root} has sub-folders whose names are not UTF-8 ({some(odd)}), which class names in a "
                        "weights file must be: rename them")  # fmt: skip
    alike = Counter(normalize("NFC", name).strip() for name in names)
    if odd := [name for name in names if alike[normalize("NFC", name).strip()] > 1]:
        raise DataError(f"{root} has sub-folders whose names look the same ({some([*map(ascii, odd)])}), probably "
                        "copied by different systems: merge them, or rename one")  # fmt: skip
    classes_own = {root.resolve(), *((root / name).resolve() for name in names)}
    found = [(name, path) for name in names for path in _images_below(root / name, passed_over, classes_own)]
    reasons = _reasons(root, [path for _, path in found], progress)
    good = [place for place, reason in zip(found, reasons) if reason is None]
    filled = {own for own, _ in good}
    classes = tuple(name for name in names if name in filled)
    if len(classes) < 2:
        raise DataError(_too_few(root, names, classes, len(found)))
    if loose:
        more = f" and {len(loose) - 1:,} more" if len(loose) > 1 else ""
        passed_over.append((loose[0], f"an image{more} directly in the folder, without a class"))
    position = {name: number for number, name in enumerate(classes)}
    files = Files(
        np.array([os.fsencode(path.relative_to(root)) for _, path in good]),
        np.array([position[name] for name, _ in good], np.int64),
        np.array([path.stat().st_size for _, path in good], np.int64),
    )
    bad = [(shown(path.relative_to(root)), why) for (_, path), why in zip(found, reasons) if why is not None]
    passed = [(shown(path.relative_to(root)), why) for path, why in passed_over]
    return OwnImages(
        root, classes, files, tuple(name for name in names if name not in classes), tuple(bad), tuple(passed)
    )


def _refuse_parts(root: Path, names: list[str]) -> None:
    """Raise DataError if the sub-folders are parts of a split: parts of two kinds, or nothing but parts."""
    parts = {name: (match[1] or name).lower() for name in names if (match := PART.fullmatch(name))}
    if parts and (len(set(parts.values())) > 1 or len(parts) == len(names)):
        train = next((name for name, kind in parts.items() if kind == "train"), next(iter(parts)))
        raise DataError(f"{root} has the sub-folders {', '.join(parts)}, which are not classes: name one of them, such "
                        f"as {root / train}, to have its images split into training and validation; or put all images "
                        "into one folder with a sub-folder for each class")  # fmt: skip


def _images_below(
    folder: Path, passed_over: list[tuple[Path, str]] | None = None, others: Iterable[Path] = ()
) -> list[Path]:
    """List all images below a folder, sorted.

    Links are followed, but no folder is listed twice, and none of ``others``, whose images are listed elsewhere.
    """
    passed_over = [] if passed_over is None else passed_over
    found, seen, waiting = [], {*others} - {folder.resolve()}, [folder]
    while waiting:
        where = waiting.pop()
        if (real := where.resolve()) in seen:
            passed_over.append((where, "a folder whose images are counted already"))
            continue
        seen.add(real)
        folders, images = _entries(where, passed_over)
        waiting += reversed(folders)  # so that the first of them is next
        found += images
    return sorted(found)


def _entries(folder: Path, passed_over: list[tuple[Path, str]]) -> tuple[list[Path], list[Path]]:
    """List the sub-folders and images directly in a folder, sorted, and add other relevant entries to the list."""
    folders, images = [], []
    try:
        with os.scandir(folder) as entries:
            entries = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{shown(folder)} can't be read ({error}); make it readable") from error
    for entry in entries:
        path = Path(entry.path)
        if path.is_dir() if entry.is_symlink() else entry.is_dir():
            if not is_junk(entry.name):
                folders.append(path)
            elif not entry.name.startswith(".") or any(is_image(each, SUFFIXES) for each in os.listdir(path)):
                passed_over.append((path, "a folder that a program created"))
        elif is_image(entry.name, SUFFIXES):
            if entry.is_file(follow_symlinks=False) or path.is_file() or not path.exists():
                images.append(path)
            else:  # reading a pipe would wait for its writer
                passed_over.append((path, "not a regular file"))
        elif entry.is_symlink() and not path.exists() and not is_junk(entry.name):
            passed_over.append((path, "a broken link"))
    return folders, images


def shown(path: Path | str) -> str:
    """Return a path as printable text, with replacement characters for bytes that are not UTF-8."""
    return os.fsencode(path).decode(errors="replace")


def find_images(path: Path) -> list[Path]:
    """List all images below a folder, sorted; return any other path itself, even if it does not exist."""
    return _images_below(path) if path.is_dir() else [path]


def _reasons(root: Path, paths: list[Path], progress: Callable[[int, int], None] | None) -> list[str | None]:
    """Try to read each file; return the reasons for failures, None for readable files."""

    def reason(path: Path) -> str | None:
        try:
            read_image(path)
        except DataError as error:
            return str(error.__cause__).replace(str(path), "the file")
        return None

    found: list[str | None] = []
    with warnings.catch_warnings(), ThreadPoolExecutor(torch.get_num_threads()) as threads:
        warnings.filterwarnings("ignore", module="PIL")  # about large images and invalid EXIF data
        for done, why in enumerate(threads.map(reason, paths), start=1):
            found.append(why)
            if progress:
                progress(done, len(paths))
    return found


def _too_few(root: Path, names: list[str], classes: tuple[str, ...], images: int) -> str:
    wanted = f"{root} must have a sub-folder of images for each of at least two classes"
    endings = f"files that end in {', '.join(SUFFIXES)}"
    if not names:
        loose = any(is_image(path.name, SUFFIXES) for path in root.iterdir())
        return f"{wanted}, but it has no sub-folder{', only images directly in it' if loose else ''}"
    if not images:
        return f"{wanted}, but there is no image in {some(names)} ({endings})"
    found = f"{wanted}, but only {some(list(classes)) or 'none'} has readable images ({endings})"
    inner = classes and _entries(root / classes[0], [])[0]
    return f"{found}; if the classes are its sub-folders, name {root / classes[0]}" if inner else found


def every_nth(images: OwnImages, n: int, first: int | None = None) -> np.ndarray:
    """Choose every ``n``-th image of the sorted list for the validation split: bool (N,). Raises ValueError.

    ``first``: position of the first chosen image, counted from 0; by default n - 1.
    """
    if n < 2:
        raise ValueError(f"every {n}-th image can't be held out: no image would be left to train on")
    return np.arange(len(images.files)) % n == (n - 1 if first is None else first)


def stratified(images: OwnImages, share: float, seed: int) -> np.ndarray:
    """Choose a random ``share`` of each class for the validation split: bool (N,). Raises ValueError.

    A class with two or more images has at least one in each split; a single image is used for training.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share of held-out images must be between 0 and 1, not {share}")
    held_out = np.zeros(len(images.files), bool)
    for number, name in enumerate(images.classes):
        places = np.flatnonzero(images.files.labels == number)
        count = min(max(round(share * len(places)), 1), len(places) - 1)
        order = torch.randperm(len(places), generator=seeded_generator(seed, "validation", name)).numpy()
        held_out[places[order[:count]]] = True
    return held_out


def split(images: OwnImages, held_out: np.ndarray) -> FolderDataset:
    """Split the images into a data set with the held-out images as test images.

    Raises DataError if a class has no image left to train on, or if no image is held out.
    """

    def part(which: np.ndarray) -> Files:
        files = images.files
        return Files(files.paths[which], files.labels[which], files.bytes[which])

    train, test = part(~held_out), part(held_out)
    counts = np.bincount(train.labels, minlength=len(images.classes))
    if lost := [name for name, count in zip(images.classes, counts) if not count]:
        raise DataError(f"all images of {some(lost)} are held out, and none are left to train on: add images, or hold "
                        "out a share of each class with --validation")  # fmt: skip
    if not len(test):
        raise DataError(f"no image of {images.root} is held out, so a network could not be validated: add images, or "
                        "hold out more")  # fmt: skip
    digest = digest_of_files(train, test)
    return FolderDataset(images.root.resolve().name, images.root, images.classes, train, test, False, digest, True)


def find_copies(dataset: FolderDataset) -> list[tuple[str, str]]:
    """Find held-out images with the same content as a training image; return both names. Raises OSError."""
    sizes = np.intersect1d(dataset.train.bytes, dataset.test.bytes)

    def alike(files: Files) -> list[tuple[str, bytes]]:
        """Return names and digests of the files with one of these sizes."""
        paths = [dataset.path(files, place) for place in np.flatnonzero(np.isin(files.bytes, sizes))]
        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            digests = threads.map(lambda path: hashlib.sha256(path.read_bytes()).digest(), paths)
            return [(shown(path.relative_to(dataset.root)), digest) for path, digest in zip(paths, digests)]

    trained_on = defaultdict(list)
    for name, digest in alike(dataset.train):
        trained_on[digest].append(name)
    return [(name, trained_on[digest][0]) for name, digest in alike(dataset.test) if digest in trained_on]
