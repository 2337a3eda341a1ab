"""Batched augmentation against a slow loop over single images."""

import numpy as np
import torch

from resnet.data.augment import crop_and_flip, pad, subtract_mean
from resnet.data.sampling import Sampler
from resnet.recipe import Recipe


def slow_crop_and_flip(image, mean, row, column, flip):
    """One image uint8 (H, W, 3): subtract the mean, add a border of 4 zeros, crop, mirror. Returns (3, H, W)."""
    height, width, _ = image.shape
    bordered = np.zeros((height + 8, width + 8, 3), np.float32)
    bordered[4:-4, 4:-4] = (image.astype(np.float32) - mean) / 255
    crop = bordered[row : row + height, column : column + width]
    if flip:
        crop = crop[:, ::-1]
    return crop.transpose(2, 0, 1)


def make_images(n=6, height=32, width=32):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, height, width, 3), dtype=np.uint8)
    return images, images.mean(axis=0, dtype=np.float64).astype(np.float32)


def check(images, mean, index, offset, flip):
    tensor, mean_tensor = torch.from_numpy(images), torch.from_numpy(mean)
    batch = crop_and_flip(pad(tensor), pad(mean_tensor), index, offset, flip)
    expected = [slow_crop_and_flip(images[i], mean, *o, f) for i, o, f in zip(index, offset.tolist(), flip)]
    np.testing.assert_allclose(batch.numpy(), np.stack(expected), atol=1e-6)
    return batch


def test_every_offset_with_and_without_flip():
    images, mean = make_images()
    places = [(row, column, flip) for row in range(9) for column in range(9) for flip in (False, True)]
    offset = torch.tensor([place[:2] for place in places])
    flip = torch.tensor([place[2] for place in places])
    check(images, mean, torch.arange(len(places)) % len(images), offset, flip)


def test_images_that_are_not_square():
    images, mean = make_images(3, height=8, width=12)
    offset = torch.tensor([[0, 8], [8, 0], [4, 4]])
    check(images, mean, torch.tensor([2, 0, 1]), offset, torch.tensor([True, False, True]))


def test_border_is_zero_after_the_mean_was_subtracted():
    images = np.full((1, 32, 32, 3), 200, np.uint8)
    mean = np.full((32, 32, 3), 80, np.float32)
    batch = check(images, mean, torch.tensor([0]), torch.tensor([[0, 8]]), torch.tensor([False]))
    assert not batch[:, :, :4].any() and not batch[:, :, :, -4:].any()
    assert torch.allclose(batch[:, :, 4:, :-4], torch.tensor(120 / 255))


def test_centre_crop_without_flip_is_the_image_as_it_is_evaluated():
    images, mean = (torch.from_numpy(array) for array in make_images())
    centre = torch.full((6, 2), 4)
    batch = crop_and_flip(pad(images), pad(mean), torch.arange(6), centre, torch.zeros(6, dtype=torch.bool))
    assert torch.equal(batch, subtract_mean(images, mean))


def test_batches_are_in_channels_last_memory():
    images, mean = (torch.from_numpy(array) for array in make_images())
    draws = Sampler(0, 6, Recipe(batch_size=4)).batch(0)
    batch = crop_and_flip(pad(images), pad(mean), *draws)
    assert batch.shape == (4, 3, 32, 32) and batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert subtract_mean(images, mean).is_contiguous(memory_format=torch.channels_last)
