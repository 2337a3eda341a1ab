"""Training losses: cross-entropy with label smoothing, mixup and distillation."""

import torch
import torch.nn.functional as F
from torch import Tensor

from resnet.data.sampling import seeded_numbers


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0, over: str = "others") -> Tensor:
    """Return the mean cross-entropy of logits (N, K) and labels (N,), in fp32.

    ``smoothing`` is the share of a target that is spread evenly ``over`` the K - 1 "others" (Bag of Tricks, section
    5.2, equation 5) or "all" K classes. PyTorch's option spreads it over all, so for "others" it is given K / (K - 1)
    times the share.
    """
    classes = logits.shape[1]
    share = smoothing if over == "all" else smoothing * classes / max(1, classes - 1)
    return F.cross_entropy(logits.float(), labels, label_smoothing=share)


def distillation_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Return the mean cross-entropy of the teacher's and student's softened predictions, times temperature squared.

    Both logits are (N, K); the loss is computed in fp32. The square cancels the factor by which softening shrinks the
    gradients (Bag of Tricks, section 5.3; Hinton et al. 2015, section 2).
    """
    targets = F.softmax(teacher_logits.float() / temperature, dim=1)
    return temperature**2 * F.cross_entropy(logits.float() / temperature, targets)


def partners(count: int, device: torch.device, kind: str = "neighbour") -> Tensor:
    """Return each image's mixup partner in a batch of ``count``, int64 (count,).

    ``kind`` "neighbour" pairs neighbours, 1 0 3 2 5 4, so any even part of a batch holds the partners of its images;
    batches are shuffled anyway. "reversed" gives 5 4 3 2 1 0, as in the paper's authors' scripts.
    """
    places = torch.arange(count, device=device)
    return places.flip(0) if kind == "reversed" else places ^ 1


def mix(values: Tensor, weight: Tensor, kind: str = "neighbour") -> Tensor:
    """Mix each of an even number of images (N, ...) with its partner: ``weight`` and 1 - ``weight``.

    The result has the same shape (Bag of Tricks, section 5.4).
    """
    return weight * values + (1 - weight) * values[partners(len(values), values.device, kind)]


def mixing_weight(seed: int, iteration: int, alpha: float) -> float:
    """Draw the weight, in 0..1, of the first image of each pair in training step ``iteration`` of a run.

    It is distributed as Beta(alpha, alpha) (Bag of Tricks, section 5.4).
    """
    return float(seeded_numbers(seed, "mixup", iteration).beta(alpha, alpha))
