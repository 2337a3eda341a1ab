"""Test errors of a network."""

from collections.abc import Iterable
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from resnet import recipe as recipes
from resnet.data.dataset import Data
from resnet.device import autocast
from resnet.recipe import Recipe

TESTS = ("center", *recipes.TESTS)
Views = Tensor | list[Tensor]  # images (n, C, H, W), or several views of the same n images, of any sizes


@torch.no_grad()
def count_wrong(
    model: nn.Module, batches: Iterable[tuple[Views, Tensor]], precision: str = "fp32", top5: bool = False
) -> Tensor:
    """Count the top-1 errors of a network, and with ``top5`` also its top-5 errors.

    ``batches`` yields images (n, C, H, W) and labels (n,), like :meth:`resnet.data.Data.tests`. If it yields several
    views of the images instead, their predictions (softmax) are averaged. Returns int64 (1,) or (2,) on the images'
    device, without waiting for the device. ``precision``: fp32, bf16 or fp16. The model is evaluated in evaluation mode
    and then put back into its previous mode.
    """
    training = model.training
    model.eval()
    counts = []
    with ExitStack() as stack:
        for images, labels in batches:
            if not counts:  # autocast forgets the weights that it has converted when its outermost context ends
                stack.enter_context(torch.autocast(labels.device.type, enabled=False))
            with autocast(labels.device, precision):
                scores = model(images) if isinstance(images, Tensor) else _mean_prediction(model, images)
            counts.append([(scores.argmax(dim=1) != labels).sum()])
            if top5:
                best = scores.topk(min(5, scores.shape[1])).indices
                counts[-1].append((best != labels[:, None]).all(dim=1).sum())
    model.train(training)
    return sum(torch.stack(batch) for batch in counts)


def _mean_prediction(model: nn.Module, views: list[Tensor]) -> Tensor:
    """Average the predictions (n, K) over the views of n images."""
    return sum(model(images).float().softmax(dim=1) for images in views) / len(views)


def count_wrong_in(
    test: str, model: nn.Module, data: Data, recipe: Recipe, part: slice = slice(None), precision: str = "fp32"
) -> Tensor:
    """Count top-1 and top-5 errors on images ``part`` of an image folder's test set; see :func:`count_wrong`.

    ``test`` is one of TESTS: "center" takes the centre crop of each image, as evaluations during training do; the
    others are the recipe's additional tests. Only ``image_size`` of the ``recipe`` matters. Raises ValueError.
    """
    views = data.tests("test", part, recipe) if test == "center" else data.views(test, part, recipe)
    return count_wrong(model, views, precision, top5=True)
