"""Batched augmentation on the device, with a separate crop offset and flip for every image."""

import torch
from torch import Tensor

PADDING = 4  # pixels on each side (He et al. 2015, section 4.2)


def pad(images: Tensor) -> Tensor:
    """Pad images (..., H, W, C) with ``PADDING`` zero pixels on each side: (..., H + 8, W + 8, C)."""
    return torch.nn.functional.pad(images, (0, 0, PADDING, PADDING, PADDING, PADDING))


def crop_and_flip(
    padded: Tensor, padded_mean: Tensor, index: Tensor, offset: Tensor, flip: Tensor, scale: float | Tensor = 1 / 255
) -> Tensor:
    """Crop and flip a batch of images, subtract the mean image, and multiply by ``scale``, a number or one per channel.

    padded: uint8 (N, H + 8, W + 8, C), the padded data set. padded_mean: float32 (H + 8, W + 8, C), the padded mean
    image in units of 0..255; it is subtracted before the crop, so the border is zero. index: int64 (B,).
    offset: int64 (B, 2), row and column of the crop's corner, each 0..8. flip: bool (B,).
    Returns float32 (B, C, H, W) in channels-last memory, by default in units of 0..1.
    """
    height, width = padded.shape[1] - 2 * PADDING, padded.shape[2] - 2 * PADDING
    rows = offset[:, :1] + torch.arange(height, device=padded.device)  # (B, H)
    columns = torch.arange(width, device=padded.device).expand(len(index), width)
    columns = offset[:, 1:] + torch.where(flip[:, None], width - 1 - columns, columns)  # (B, W)
    rows, columns = rows[:, :, None], columns[:, None, :]
    images = padded[index[:, None, None], rows, columns].float() - padded_mean[rows, columns]
    return images.mul_(scale).permute(0, 3, 1, 2)


def subtract_mean(images: Tensor, mean: Tensor, scale: float | Tensor = 1 / 255) -> Tensor:
    """Subtract the mean image (H, W, C) from uint8 images (B, H, W, C), and multiply by ``scale``.

    Returns float32 (B, C, H, W) in channels-last memory.
    """
    return ((images.float() - mean) * scale).permute(0, 3, 1, 2)
