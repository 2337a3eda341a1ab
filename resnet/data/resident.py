"""Data sets of small images that reside on the device as a whole, and training batches made from them there."""

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from resnet.data.augment import PADDING, crop_and_flip, pad, subtract_mean
from resnet.data.dataset import ImageDataset
from resnet.data.sampling import Sampler
from resnet.recipe import Recipe

# Images tested at once: few, so that an evaluation adds little to the memory of a training step, which decides how many
# runs fit on a GPU. Memory that a run's evaluation has used stays reserved for its stream.
TEST_BATCH = 250
TOP5_FROM = 100  # classes; of fewer, the top-5 error says little


class ResidentData:
    """A data set on a device: uint8 images, int64 labels, and the training images' statistics in units of 0..255.

    It is a :class:`resnet.data.Data`. Raises ValueError if the data set has fewer images than ``train_images``.
    """

    def __init__(self, dataset: ImageDataset, train_images: int | None, device: torch.device | str):
        available = len(dataset.train_images)
        count = available if train_images is None else train_images
        if not 0 < count <= available:
            raise ValueError(f"{dataset.name} has {available} training images, so {count} of them can't be used")
        images, labels = torch.from_numpy(dataset.train_images), torch.from_numpy(dataset.train_labels).long()
        self.name, self.num_classes = dataset.name, dataset.num_classes
        self.digest, self.official = dataset.digest, dataset.official
        self.top5 = dataset.num_classes >= TOP5_FROM
        self.inexact_test = dataset.inexact_test
        self.device = torch.device(device)
        mean = images[:count].sum(dim=0).double() / count
        self._channel_mean = mean.mean(dim=(0, 1))
        self.mean, self.channel_mean = mean.float().to(device), self._channel_mean.expand_as(mean).float().to(device)
        self.train_images, self.train_labels = pad(images[:count]).to(device), labels[:count].to(device)
        test = torch.from_numpy(dataset.test_images), torch.from_numpy(dataset.test_labels).long()
        held_out = {"validation": (images[count:], labels[count:])} if count < available else {}
        sets = {"test": test, **held_out}
        self._tests = {name: tuple(part.to(device) for part in parts) for name, parts in sets.items()}
        self.test_images = {name: len(labels) for name, (_, labels) in self._tests.items()}

    @cached_property
    def channel_std(self) -> Tensor:
        """Standard deviation of each channel (C,), in 0..255; computed on first use, because few recipes need it."""
        inside = slice(PADDING, -PADDING)
        squares = self.train_images[:, inside, inside].int().square_().sum(dim=0).cpu().double()
        mean_square = (squares / len(self.train_images)).mean(dim=(0, 1))
        return (mean_square - self._channel_mean**2).sqrt().float().to(self.device)

    @cached_property
    def image_std(self) -> Tensor:
        """Standard deviation of each channel in an image, averaged over the training images (C,), in 0..255."""
        inside = slice(PADDING, -PADDING)
        parts = self.train_images[:, inside, inside].split(TEST_BATCH)
        return torch.cat([part.double().std(dim=(1, 2)) for part in parts]).mean(dim=0).float()

    def batches(self, seed: int, recipe: Recipe, groups: list[slice]) -> "ResidentBatches":
        """Create a run's training batches; see :class:`resnet.data.Data`."""
        return ResidentBatches(self, seed, recipe, groups)

    def tests(self, which: str, part: slice, recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images to test on; see :class:`resnet.data.Data`."""
        images, labels = (tensor[part] for tensor in self._tests[which])
        mean, scale = self.normalization(recipe)
        for batch, answers in zip(images.split(TEST_BATCH), labels.split(TEST_BATCH)):
            yield subtract_mean(batch, mean, scale), answers

    def normalization(self, recipe: Recipe) -> tuple[Tensor, float | Tensor]:
        """Return the mean to subtract from images, (H, W, C) in 0..255, and the factor to multiply by.

        The factor is a number or a tensor (C,).
        """
        mean = self.mean if recipe.normalization == "pixel_mean" else self.channel_mean
        scales = {"channel_std": lambda: 1 / self.channel_std, "image_std": lambda: 1 / self.image_std}
        return mean, scales.get(recipe.normalization, lambda: 1 / 255)()


class ResidentBatches:
    """A run's training batches from :class:`ResidentData`, cropped and flipped on the device."""

    def __init__(self, data: ResidentData, seed: int, recipe: Recipe, groups: list[slice]):
        self._data, self._groups = data, groups
        self.sampler = Sampler(seed, len(data.train_labels), recipe, data.device)
        self.sizes = self.sampler.sizes
        self.size, self.seek, self.load = self.sampler.size, self.sampler.seek, self.sampler.load
        mean, self._scale = data.normalization(recipe)
        self._padded_mean = pad(mean)

    def take(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the groups of the next batch; see :class:`resnet.data.dataset.Batches`."""
        draws = self.sampler.take(size)
        for group in self._groups:
            drawn = draws.part(group)
            images = crop_and_flip(self._data.train_images, self._padded_mean, *drawn, scale=self._scale)
            yield images, self._data.train_labels[drawn.index]
