"""Scenes: images with masks or boxes, for segmentation and detection, from canvases in memory or from folders.

The folders have the official layouts: ``voc`` is ``VOCdevkit/VOC2007`` and ``VOCdevkit/VOC2012`` of PASCAL VOC, of
which the trainval parts are trained on and the test part of 2007 is tested on; ``ade20k`` is ``ADEChallengeData2016``
with ``images`` and ``annotations``, each with ``training`` and ``validation``.
"""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from resnet.data.canvas import IGNORED, CanvasDataset, Canvases
from resnet.data.colour import MEAN, STD
from resnet.data.crops import read_image, uniform
from resnet.data.dataset import DataError
from resnet.data.image_files import THREADS
from resnet.data.loading import Loader, read_pieces
from resnet.data.sampling import Sampler, seeded_generator
from resnet.files import some, write_atomically
from resnet.recipe import Recipe
from resnet.tasks import Segmentation, Task

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
TEST_BATCH = 32  # canvases tested at once; images of other sizes are tested one by one
BLUR = 0.5  # chance of a blur in training for segmentation, whose radius is drawn from 0 to 1 pixel


class Layout(NamedTuple):
    """The content of a complete folder. ``num_classes``: with the background where that is a class."""

    task: str
    num_classes: int
    train_images: int
    test_images: int


LAYOUTS = {
    "voc": Layout("detection", len(VOC_CLASSES) + 1, 16_551, 4_952),
    "ade20k": Layout("segmentation", 150, 20_210, 2_000),
}


class Scene(NamedTuple):
    """An image uint8 (H, W, 3) and its annotations, of which a data set may have only some.

    mask: uint8 (H, W), classes from 0 on, or IGNORED. boxes: float32 (n, 4): left, top, right, bottom in pixels from
    the image's corner. labels: int64 (n,), 1 + class. difficult: bool (n,), objects that a test does not count.
    """

    pixels: np.ndarray
    mask: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray


_NO_MASK = np.empty((0, 0), np.uint8)
_NO_BOXES = np.empty((0, 4), np.float32), np.empty(0, np.int64), np.empty(0, bool)


@dataclass(frozen=True, eq=False)
class SceneFiles:
    """Files of one part of a data set: images and their annotations, in the same order."""

    images: list[Path]
    annotations: list[Path]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, eq=False)
class SceneDataset:
    """Image files below ``root`` with annotations; ``digest``: SHA-256 of the relative paths and sizes of all files."""

    name: str
    root: Path
    train: SceneFiles
    test: SceneFiles
    official: bool
    num_classes: int
    digest: str


# ------------------------------------------------------------------------------------------------------------- folders


def load_scenes(name: str, directory: Path) -> SceneDataset:
    """List the files of a folder of LAYOUTS below ``directory/name``.

    Raises DataError, which names the missing files and their place, for a missing folder, an image without its
    annotation, and a number of images that is not the expected one.
    """
    root, layout = Path(directory) / name, LAYOUTS[name]
    parts = {"voc": _voc_files, "ade20k": _ade20k_files}[name](root)
    for part, files, expected in zip(("training", "test"), parts, (layout.train_images, layout.test_images)):
        gone = [str(path) for path in (*files.images, *files.annotations) if not path.is_file()]
        if gone:
            raise DataError(f"{root} lacks {len(gone):,} files of its {part} part: {some(gone)}; every image needs its "
                            "annotation: extract the archives again")  # fmt: skip
        if len(files) != expected:
            raise DataError(f"{root} has {len(files):,} {part} images instead of {expected:,}: extract the archives of "
                            "the official data again, and remove other files")  # fmt: skip
    digest = hashlib.sha256()
    for files in parts:
        for path in (*files.images, *files.annotations):
            digest.update(f"{path.relative_to(root)} {path.stat().st_size}\n".encode())
    return SceneDataset(name, root, *parts, True, layout.num_classes, digest.hexdigest())


def _voc_files(root: Path) -> tuple[SceneFiles, SceneFiles]:
    from torchvision.datasets import VOCDetection

    found = []
    for year, part in (("2007", "trainval"), ("2012", "trainval"), ("2007", "test")):
        try:
            own = VOCDetection(str(root), year=year, image_set=part)
        except (RuntimeError, OSError) as error:
            raise DataError(f"PASCAL VOC {year} {part} is not in {root}: {error}. Extract the "
                            f"official archives there, so that there are {root / 'VOCdevkit' / 'VOC2007'} and VOC2012, "
                            "or name another folder with --data (DATA= with make)") from error  # fmt: skip
        found.append(SceneFiles([*map(Path, own.images)], [*map(Path, own.annotations)]))
    first, second, test = found
    return SceneFiles(first.images + second.images, first.annotations + second.annotations), test


def _ade20k_files(root: Path) -> tuple[SceneFiles, SceneFiles]:
    home, parts = root / "ADEChallengeData2016", []
    for part in ("training", "validation"):
        images, annotations = (home / kind / part for kind in ("images", "annotations"))
        if lacking := [str(folder) for folder in (images, annotations) if not folder.is_dir()]:
            raise DataError(f"ADE20K is not complete in {root}: {' and '.join(lacking)} missing. Extract "
                            "ADEChallengeData2016.zip there, or name another folder with --data (DATA= with "
                            "make)")  # fmt: skip
        paths = sorted(images.glob("*.jpg"))
        parts.append(SceneFiles(paths, [annotations / f"{path.stem}.png" for path in paths]))
    return parts[0], parts[1]


def check_scenes_once(dataset: SceneDataset, cache: Path) -> None:
    """Read every annotation, and raise DataError for those that don't fit their images.

    It is not done again for files of which ``cache`` records that they were good.
    """
    note = Path(cache) / f"{dataset.digest}.checked"
    if note.exists():
        return
    pairs = [pair for part in (dataset.train, dataset.test) for pair in zip(part.images, part.annotations)]
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(partial(why_unusable, dataset.name), *zip(*pairs))
        bad = [f"{path} ({why})" for (_, path), why in zip(pairs, found) if why]
    if bad:
        raise DataError(f"{len(bad):,} of {len(pairs):,} annotations below {dataset.root} can't be used: {some(bad)}; "
                        "extract the archives again")  # fmt: skip
    write_atomically(note, f"{dataset.name}: {len(pairs)} images\n".encode())


def why_unusable(name: str, image: Path, annotation: Path) -> str | None:
    """Describe the problem with an image or its annotation; None if both can be used."""
    try:
        with Image.open(image) as opened:
            size = opened.size
        if name == "ade20k":
            mask = _read_mask(annotation)
            if mask.shape[::-1] != size:
                return f"its size is {mask.shape[1]}x{mask.shape[0]}, but the image's {size[0]}x{size[1]}"
            highest = int(mask.max())
            return f"unknown class {highest}" if highest > LAYOUTS[name].num_classes else None
        boxes, _, _ = _read_boxes(annotation)
        for left, top, right, bottom in boxes.tolist():
            if not (0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]):
                return (
                    f"the box {left + 1:g} {top + 1:g} {right:g} {bottom:g} is not in its image of {size[0]}x{size[1]}"
                )
    except Exception as error:  # each reader raises its own types
        return str(error).replace(str(annotation), "the file") or type(error).__name__
    return None


def _read_mask(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("L") if image.mode not in ("L", "P") else image)


def _read_boxes(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read boxes, labels and difficult flags of a VOC annotation, whose corners are pixels, counted from 1.

    Raises DataError for an unknown class.
    """
    boxes, labels, difficult = [], [], []
    for one in ElementTree.parse(path).getroot().iter("object"):
        kind = (one.findtext("name") or "").strip()
        if kind not in VOC_CLASSES:
            raise DataError(f"unknown class {kind!r}")
        corners = [float(one.findtext(f"bndbox/{name}")) for name in ("xmin", "ymin", "xmax", "ymax")]
        boxes.append([corners[0] - 1, corners[1] - 1, *corners[2:]])
        labels.append(1 + VOC_CLASSES.index(kind))
        difficult.append(one.findtext("difficult") == "1")
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), np.array(difficult, bool)


def read_scene(part: Canvases | SceneFiles, index: int) -> Scene:
    """Return a scene. Raises DataError for a file that can't be read."""
    if isinstance(part, Canvases):
        there = part.labels[index] > 0
        boxes, labels = part.boxes[index][there].astype(np.float32), part.labels[index][there].astype(np.int64)
        return Scene(part.images[index], part.masks[index], boxes, labels, np.zeros(len(labels), bool))
    pixels, annotation = np.asarray(read_image(part.images[index])), part.annotations[index]
    try:
        if annotation.suffix == ".xml":
            return Scene(pixels, _NO_MASK, *_read_boxes(annotation))
        return Scene(pixels, _read_mask(annotation) - np.uint8(1), *_NO_BOXES)  # 0, unlabelled, becomes IGNORED
    except (OSError, ElementTree.ParseError, TypeError, ValueError) as error:
        raise DataError(f"{annotation} can't be read as an annotation: {error}") from error


# --------------------------------------------------------------------------------------------------------- preparation


class _Place(NamedTuple):
    """An image of a batch: the step, its row there, its index in the data, and whether it is flipped."""

    iteration: int
    row: int
    index: int
    flip: bool


@dataclass(frozen=True)
class _ReadTraining:
    """A worker's function: the scenes of a batch, flipped, scaled and cropped."""

    part: Canvases | SceneFiles
    task: Task
    seed: int
    augment: bool

    def __call__(self, places: list[_Place]) -> list[Scene]:
        return [self._one(place) for place in places]

    def _one(self, place: _Place) -> Scene:
        scene = read_scene(self.part, place.index)
        if place.flip:
            scene = flip(scene)
        if isinstance(self.task, Segmentation) and self.task.crop is not None:
            generator = seeded_generator(self.seed, "augmentation", place.iteration, place.row)
            scene = _cropped(scene, self.task, generator, self.augment)
        return scene


@dataclass(frozen=True)
class _ReadTests:
    """A worker's function: the numbered scenes, whose images are scaled for segmentation, and their masks are not."""

    part: Canvases | SceneFiles
    task: Task

    def __call__(self, numbers: range) -> list[Scene]:
        scenes = [read_scene(self.part, number) for number in numbers]
        if isinstance(self.task, Segmentation) and self.task.base is not None:
            sizes = [_size_with(scene.pixels, self.task.base) for scene in scenes]
            scenes = [s._replace(pixels=_resized(s.pixels, size)) for s, size in zip(scenes, sizes)]
        return scenes


def flip(scene: Scene) -> Scene:
    """Mirror a scene: pixels, boxes and mask."""
    left, top, right, bottom = scene.boxes.T
    width = scene.pixels.shape[1]
    boxes = np.stack([width - right, top, width - left, bottom], axis=1)
    return scene._replace(pixels=scene.pixels[:, ::-1], mask=scene.mask[:, ::-1], boxes=boxes)


def _size_with(pixels: np.ndarray, shorter: int) -> tuple[int, int]:
    """Return the width and height of an image that is scaled to this shorter side."""
    height, width = pixels.shape[:2]
    scale = shorter / min(height, width)
    return max(shorter, int(width * scale)), max(shorter, int(height * scale))


def _resized(array: np.ndarray, size: tuple[int, int], how=Image.Resampling.BILINEAR) -> np.ndarray:
    return np.asarray(Image.fromarray(np.ascontiguousarray(array)).resize(size, how))


def _cropped(scene: Scene, task: Segmentation, generator: torch.Generator, augment: bool) -> Scene:
    """Scale a scene at random, pad it with black pixels that are ignored, crop it at random, and blur it at random."""
    scale, down, across, blur, radius = uniform(generator, 5)
    shorter = round(task.base * (0.5 + 1.5 * scale)) if augment else task.base
    size = _size_with(scene.pixels, shorter)
    pixels, mask = _resized(scene.pixels, size), _resized(scene.mask, size, Image.Resampling.NEAREST)
    lacking = [max(0, task.crop - side) for side in mask.shape]
    pixels = np.pad(pixels, [(0, lacking[0]), (0, lacking[1]), (0, 0)])
    mask = np.pad(mask, [(0, lacking[0]), (0, lacking[1])], constant_values=IGNORED)
    top, left = (int(share * (side - task.crop + 1)) for share, side in zip((down, across), mask.shape))
    rows, columns = slice(top, top + task.crop), slice(left, left + task.crop)
    pixels, mask = np.ascontiguousarray(pixels[rows, columns]), mask[rows, columns]
    if augment and blur < BLUR:
        pixels = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))
    return scene._replace(pixels=pixels, mask=mask)


# -------------------------------------------------------------------------------------------------------- on the device


class Batch(NamedTuple):
    """Scenes on a device: normalised float32 images, each (3, H, W), and every Scene, with tensors as arrays."""

    images: list[Tensor]
    scenes: list[Scene]


class SceneData:
    """Scenes for training on a device.

    ``test_images``: their number, by split. Images are normalised as for the networks that they are shown to: canvases
    lose their mean, as images of CIFAR-10 do, and images from files are normalised like ImageNet's.
    """

    def __init__(self, dataset: CanvasDataset | SceneDataset, device: torch.device, workers: int):
        self.dataset, self.device = dataset, device
        self.on_canvas = isinstance(dataset, CanvasDataset)
        self.workers = 0 if self.on_canvas else workers
        self.name, self.num_classes = dataset.name, dataset.num_classes
        self.digest, self.official = dataset.digest, dataset.official
        count = len(dataset.test.images)
        self.test_images = {"test": count}
        mean, std = (dataset.mean, (255.0,) * 3) if self.on_canvas else (MEAN, STD)
        self._mean, self._std = (torch.tensor(each, device=device)[:, None, None] for each in (mean, std))

    def batches(self, seed: int, recipe: Recipe, task: Task) -> Callable[[int], Batch]:
        """Return a function of a step that returns its batch, which depends on nothing but seed and step."""
        read = _ReadTraining(self.dataset.train, task, seed, recipe.augment)
        return _Batches(self, read, Sampler(seed, len(self.dataset.train.images), recipe))

    def tests(self, task: Task, first: int | None = None) -> Iterator[Batch]:
        """Yield the test scenes, or the ``first`` of them, each once."""
        total, piece = len(self.dataset.test.images), TEST_BATCH if self.on_canvas else 1
        numbers = range(total if first is None else min(first, total))
        for scenes in read_pieces(_ReadTests(self.dataset.test, task), numbers, piece, self.workers):
            yield self.to_device(scenes)

    def to_device(self, scenes: list[Scene]) -> Batch:
        """Move scenes to the device and normalise their images."""
        moved = [Scene(*map(self._move, scene)) for scene in scenes]
        return Batch([(s.pixels.permute(2, 0, 1).float() - self._mean) / self._std for s in moved], moved)

    def _move(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.array(array, order="C"))
        if self.device.type == "cuda":  # from pinned memory, so that the copy need not wait for the step before
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)


class _Batches:
    """The training batches of a run, read ahead."""

    def __init__(self, data: SceneData, read: _ReadTraining, sampler: Sampler):
        self._data, self._read, self._sampler = data, read, sampler
        self._loader: Loader | None = None
        self._next: int | None = None

    def __call__(self, iteration: int) -> Batch:
        if iteration != self._next:
            self.close()
            self._loader = Loader(self._read, _tasks(iteration, self._sampler), self._data.workers)
        self._next = None  # if reading fails
        scenes = next(self._loader)
        self._next = iteration + 1
        return self._data.to_device(scenes)

    def close(self) -> None:
        if self._loader is not None:
            self._loader.close()
            self._loader = None


def _tasks(first: int, sampler: Sampler) -> Iterator[list[_Place]]:
    for iteration in count(first):
        draws = sampler.batch(iteration)
        yield [
            _Place(iteration, row, *drawn) for row, drawn in enumerate(zip(draws.index.tolist(), draws.flip.tolist()))
        ]
