"""The error of a network on a set of images."""

import torch
from torch import Tensor, nn

from resnet.data.augment import subtract_mean

BATCH = {"cpu": 250, "cuda": 2_500}  # images at once


@torch.no_grad()
def count_wrong(
    model: nn.Module, images: Tensor, labels: Tensor, mean: Tensor, dtype: torch.dtype | None = None
) -> Tensor:
    """How many of the uint8 images (N, H, W, C), each seen once, whole and unflipped, are not classified right.

    An int64 scalar on the images' device: the host does not wait for it. ``dtype`` is autocast's, None for fp32. The
    model is put into evaluation mode and back into the mode it was in.
    """
    training = model.training
    model.eval()
    wrong = torch.zeros((), dtype=torch.int64, device=images.device)
    size = BATCH[images.device.type]
    with torch.autocast(images.device.type, dtype=dtype, enabled=dtype is not None):
        for batch, answers in zip(images.split(size), labels.split(size)):
            wrong += (model(subtract_mean(batch, mean)).argmax(dim=1) != answers).sum()
    model.train(training)
    return wrong


def top1_error(
    model: nn.Module, images: Tensor, labels: Tensor, mean: Tensor, dtype: torch.dtype | None = None
) -> float:
    """Top-1 error in percent over the images; see :func:`count_wrong`."""
    return 100 * count_wrong(model, images, labels, mean, dtype).item() / len(labels)
