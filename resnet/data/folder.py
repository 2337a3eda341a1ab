"""Data sets in folders of image files, read during training by data loader workers.

:mod:`resnet.data.image_files` lists the files. Workers decode and crop with :mod:`resnet.data.crops`; the device does
the rest with :mod:`resnet.data.colour`.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, count, pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from resnet.data.colour import ToInput, draw_colours
from resnet.data.crops import (
    CROP,
    TEST_SCALES,
    TEST_SHORTER_SIDE,
    Box,
    area_box,
    centre_box,
    centre_square,
    crop,
    read_image,
    scale_box,
    scaled,
    ten_crops,
    uniform,
)
from resnet.data.image_files import FolderDataset
from resnet.data.loading import Loader, read_pieces
from resnet.data.sampling import images_before, seeded_generator
from resnet.recipe import TESTS, Recipe

PIECE = 32  # images that a worker reads at once: few, so that many workers share a batch
TEST_PIECE = 64  # also the number of images tested at once
SCALES_PIECE = 8  # the same for the multi-scale test, in which an image takes megabytes


class FolderData:
    """A folder of images for training on a device; it is a :class:`resnet.data.Data`.

    ``workers``: number of data loader workers; with 0 this process reads the files. A run's training batches have their
    own workers, and each evaluation has others. ``test_batch``: number of images tested at once; None means 64, and 8
    for the multi-scale test.
    """

    top5 = True

    def __init__(self, dataset: FolderDataset, device: torch.device | str, workers: int, test_batch: int | None = None):
        if workers < 0:
            raise ValueError(f"the number of workers must be at least 0, not {workers}")
        self.dataset, self.device, self.workers = dataset, torch.device(device), workers
        self.test_batch = test_batch
        self.name, self.num_classes = dataset.name, dataset.num_classes
        self.digest, self.official = dataset.digest, dataset.official
        self.test_images = {"test": len(dataset.test)}
        self.to_input = ToInput(self.device)

    def batches(self, seed: int, recipe: Recipe, groups: list[slice]) -> "FolderBatches":
        """Create a run's training batches; see :class:`resnet.data.Data`."""
        return FolderBatches(self, seed, recipe, groups)

    def tests(self, which: str, part: slice, recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the centre crop of each image; see :func:`resnet.data.crops.centre_box`.

        Raises DataError for an image that can't be read, and ValueError for any split but "test".
        """
        if which not in self.test_images:
            raise ValueError(f"{self.name} has no split {which!r} to test on; it has: {', '.join(self.test_images)}")
        read = _ReadSquares(self.dataset, recipe.image_size, centre_box)
        for pixels, labels in self._read_tests(read, part, TEST_PIECE):
            yield self.to_input(pixels), labels

    def views(self, kind: str, part: slice, recipe: Recipe) -> Iterator[tuple[list[Tensor], Tensor]]:
        """Yield test images as the 10 crops of :func:`resnet.data.crops.ten_crops`, or whole at several scales.

        "multi_scale" uses the scales of He et al. 2015, section 3.4. The nets are applied in a fully convolutional
        form: their average pooling covers maps of any size. The paper does not mention flips, so there are none. Only
        images of the same size share a batch, so batches are small. Raises DataError for an image that can't be read,
        and ValueError for another kind.
        """
        if kind == "ten_crop":
            square = round(recipe.image_size * TEST_SHORTER_SIDE / CROP)
            read = _ReadSquares(self.dataset, square, centre_square)
            for pixels, labels in self._read_tests(read, part, TEST_PIECE):
                yield [self.to_input(view) for view in ten_crops(pixels, recipe.image_size)], labels
        elif kind == "multi_scale":
            lengths = tuple(round(recipe.image_size * scale / CROP) for scale in TEST_SCALES)
            for groups in self._read_tests(_ReadScales(self.dataset, lengths), part, SCALES_PIECE):
                for *pixels, labels in groups:
                    yield [self.to_input(view) for view in pixels], labels
        else:
            raise ValueError(f"there is no test {kind!r}; known tests: {', '.join(TESTS)}")

    def _read_tests(self, read: "_ReadSquares | _ReadScales", part: slice, piece: int) -> Iterator:
        """Read these test images and yield them on the device."""
        numbers = range(len(self.dataset.test))[part]
        for found in read_pieces(read, numbers, self.test_batch or piece, self.workers):
            yield _to(self.device, found)


def _to(device: torch.device, found):
    """Move tensors and arrays, in nested lists and tuples, to the device."""
    if isinstance(found, (list, tuple)):
        return [_to(device, each) for each in found]
    return torch.as_tensor(found).to(device)


class FolderBatches:
    """A run's training batches from :class:`FolderData`; only this process's rows are read.

    The order is the same as in :class:`resnet.data.sampling.Sampler`: random permutations of the training images, one
    after another without a gap, or, with ``recipe.last_batch`` "use", with a smaller batch at the end of each. The
    augmentation of an image is drawn from a generator for (seed, "augmentation", epoch, position in the epoch), and so
    depends neither on the workers nor on interruptions.

    :meth:`load` raises DataError, which names the file, for an image that can't be read. ValueError is raised for a
    recipe with crop "pad", and by :meth:`take` for a wrong number of images.
    """

    def __init__(self, data: FolderData, seed: int, recipe: Recipe, groups: list[slice]):
        if recipe.crop == "pad":
            raise ValueError("crop 'pad' is for images in memory; image folders take crop 'scale' or 'area'")
        self._data = data
        # Not a method, because the loader's tasks must not refer to this object, which holds the loader.
        self._begin = partial(images_before, recipe, len(data.dataset.train))
        last = self.size(len(data.dataset.train) // recipe.batch_size)
        self.sizes = tuple(sorted({self.size(0), last}, reverse=True))
        self._order = _Order(seed, len(data.dataset.train))
        rows = [range(recipe.batch_size)[group] for group in groups]
        ends = accumulate((len(group) for group in rows), initial=0)
        self._groups = [slice(*ends) for ends in pairwise(ends)]  # positions in the buffers
        self._rows = [row for group in rows for row in group]
        self._read = _ReadTraining(data.dataset, recipe, seed)
        self._buffers = _Buffers.make(len(self._rows), recipe, data.device)
        # The device copies from pinned memory asynchronously; two buffers, so that one can be filled meanwhile.
        on_gpu = data.device.type == "cuda"
        self._staging = [_Buffers.make(len(self._rows), recipe, None) for _ in range(2)] if on_gpu else []
        self._copied = [torch.cuda.Event() for _ in self._staging]
        self._loader: Loader | None = None
        self._loaded: int | None = None  # the step whose batch is in the buffers
        self._next: int | None = None  # the step whose batch the loader yields next

    def size(self, iteration: int) -> int:
        """Return the number of images in the batch of training step ``iteration`` (the first is 0)."""
        return self._begin(iteration + 1) - self._begin(iteration)

    def seek(self, iteration: int) -> None:
        """Do nothing: :meth:`load` is given the step, and the buffers hold only its batch."""

    def load(self, iteration: int) -> None:
        """Copy the batch of a training step to the device, on the current stream."""
        if iteration == self._loaded:
            return
        if iteration != self._next:
            self.close()
            tasks = _tasks(iteration, self._begin, self._rows, self._order)
            self._loader = Loader(self._read, tasks, self._data.workers)
        self._loaded = self._next = None  # if reading fails
        if not self._staging:
            self._fill(self._buffers)
        else:
            staging, copied = self._staging[iteration % 2], self._copied[iteration % 2]
            copied.synchronize()
            self._fill(staging)
            for buffer, staged in zip(self._buffers, staging):
                buffer.copy_(staged, non_blocking=True)
            copied.record()
        self._loaded, self._next = iteration, iteration + 1

    def take(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the groups of the loaded batch; see :class:`resnet.data.dataset.Batches`."""
        if size not in self.sizes:
            raise ValueError(f"batches have {' or '.join(map(str, self.sizes))} images, not {size}")
        for group in self._groups:
            pixels, labels, colours = (buffer[group][:size] for buffer in self._buffers)
            colours = colours if self._read.recolours else None
            yield self._data.to_input(pixels, colours, self._read.recipe.jittered), labels.clone()

    def close(self) -> None:
        """Stop the workers; :meth:`load` starts new ones."""
        if self._loader is not None:
            self._loader.close()
            self._loader = self._next = None

    def _fill(self, buffers: "_Buffers") -> None:
        for start in range(0, len(self._rows), PIECE):
            for buffer, part in zip(buffers, next(self._loader)):
                buffer[start : start + len(part)].copy_(torch.as_tensor(part))


class _Buffers(NamedTuple):
    """A batch: pixels uint8 (n, H, W, 3), labels int64 (n,), colours float32 (n, 4, 3)."""

    pixels: Tensor
    labels: Tensor
    colours: Tensor

    @classmethod
    def make(cls, n: int, recipe: Recipe, device: torch.device | None) -> "_Buffers":
        """Allocate a batch of ``n`` images on a device; None means pinned memory."""
        where = {"pin_memory": True} if device is None else {"device": device}
        return cls(
            torch.zeros(n, recipe.image_size, recipe.image_size, 3, dtype=torch.uint8, **where),
            torch.zeros(n, dtype=torch.int64, **where),
            torch.zeros(n, 4, 3, **where),
        )


class _Place(NamedTuple):
    """An image's epoch, its position in the epoch, and its index in the list of files."""

    epoch: int
    position: int
    index: int


class _Order:
    """The order of a run's training images: a permutation per epoch, from its own generator."""

    def __init__(self, seed: int, images: int):
        self._seed, self._images, self._epochs = seed, images, {}

    def place(self, number: int) -> _Place:
        """Return the place of image ``number``, counted from 0 over the whole training."""
        epoch, position = divmod(number, self._images)
        if epoch not in self._epochs:
            drawn = torch.randperm(self._images, generator=seeded_generator(self._seed, "order", epoch))
            self._epochs = dict([*self._epochs.items()][-1:]) | {epoch: drawn.numpy()}  # the last two
        return _Place(epoch, position, int(self._epochs[epoch][position]))


def _tasks(first: int, begin: Callable[[int], int], rows: list[int], order: _Order) -> Iterator[list[_Place]]:
    """Yield the places of these rows of the batches from step ``first`` on, in pieces of one step.

    ``begin`` returns the number of images before a step. The rows of a smaller last batch extend into the next epoch.
    """
    for step in count(first):
        for start in range(0, len(rows), PIECE):
            yield [order.place(begin(step) + row) for row in rows[start : start + PIECE]]


@dataclass(frozen=True)
class _ReadTraining:
    """A worker's function: pixels uint8 (n, H, W, 3), labels int64 (n,) and colours float32 (n, 4, 3) of places."""

    dataset: FolderDataset
    recipe: Recipe
    seed: int

    @property
    def recolours(self) -> bool:
        """True if the recipe has colour augmentation."""
        return self.recipe.augment and (self.recipe.colour_jitter > 0 or self.recipe.pca_noise > 0)

    def __call__(self, places: list[_Place]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        recipe, files = self.recipe, self.dataset.train
        pixels = np.empty((len(places), recipe.image_size, recipe.image_size, 3), np.uint8)
        colours = np.zeros((len(places), 4, 3), np.float32)
        for own, colour, place in zip(pixels, colours, places):
            image = read_image(self.dataset.path(files, place.index), self.dataset.upright)
            if not recipe.augment:
                own[:] = crop(image, centre_box(*image.size), recipe.image_size)
                continue
            generator = seeded_generator(self.seed, "augmentation", place.epoch, place.position)
            box = {"area": area_box, "scale": scale_box}[recipe.crop](*image.size, generator)
            own[:] = crop(image, box, recipe.image_size, flip=uniform(generator, 1)[0] < 0.5)
            if self.recolours:
                colour[:] = draw_colours(generator, recipe.colour_jitter, recipe.pca_noise, recipe.jittered)
        return pixels, files.labels[[place.index for place in places]], colours


@dataclass(frozen=True)
class _ReadSquares:
    """A worker's function: a crop of each numbered test image, uint8 (n, size, size, 3), and labels int64 (n,)."""

    dataset: FolderDataset
    size: int
    box: Callable[[int, int], Box]

    def __call__(self, numbers: range) -> tuple[np.ndarray, np.ndarray]:
        files = self.dataset.test
        pixels = np.empty((len(numbers), self.size, self.size, 3), np.uint8)
        for own, number in zip(pixels, numbers):
            image = read_image(self.dataset.path(files, number), self.dataset.upright)
            own[:] = crop(image, self.box(*image.size), self.size)
        return pixels, files.labels[numbers]


@dataclass(frozen=True)
class _ReadScales:
    """A worker's function: the numbered test images at several scales, grouped by their original size.

    A group holds one array uint8 (n, H, W, 3) for each length of the shorter side, and the labels int64 (n,).
    """

    dataset: FolderDataset
    lengths: tuple[int, ...]

    def __call__(self, numbers: range) -> list[list[np.ndarray]]:
        files, by_size = self.dataset.test, defaultdict(list)
        for number in numbers:
            image = read_image(self.dataset.path(files, number), self.dataset.upright)
            by_size[image.size].append((number, [scaled(image, length) for length in self.lengths]))
        groups = []
        for images in by_size.values():
            own, views = zip(*images)
            groups.append([*map(np.stack, zip(*views)), files.labels[list(own)]])
        return groups
