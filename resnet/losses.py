"""What a network is trained to make small, beside plain cross-entropy: smoothed, mixed and taught targets."""

import torch
import torch.nn.functional as F
from torch import Tensor

from resnet.data.sampling import seeded_numbers


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0, over: str = "others") -> Tensor:
    """Mean cross-entropy of logits (N, K) and labels (N,), in fp32.

    ``smoothing`` is the share of a target that is spread evenly over the K - 1 other classes (Bag of Tricks, section
    5.2, equation 5), or ``over`` "all" K. PyTorch's option does the latter, so for the former it is given K / (K - 1)
    times as much.
    """
    classes = logits.shape[1]
    share = smoothing if over == "all" else smoothing * classes / max(1, classes - 1)
    return F.cross_entropy(logits.float(), labels, label_smoothing=share)


def distillation_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of the teacher's and the student's softened predictions, times the temperature squared.

    Both logits are (N, K); it is computed in fp32.

    The square makes up for the gradients, which softening divides by it (Bag of Tricks, section 5.3; Hinton et al.
    2015, section 2).
    """
    targets = F.softmax(teacher_logits.float() / temperature, dim=1)
    return temperature**2 * F.cross_entropy(logits.float() / temperature, targets)


def partners(count: int, device: torch.device, kind: str = "neighbour") -> Tensor:
    """With which image each of ``count`` is mixed, int64 (count,): its neighbour, 1 0 3 2 5 4, as batches are shuffled.

    So any even part of a batch has the partners of its images in it. ``kind`` "reversed": 5 4 3 2 1 0, as in the
    paper's authors' scripts.
    """
    places = torch.arange(count, device=device)
    return places.flip(0) if kind == "reversed" else places ^ 1


def mix(values: Tensor, weight: Tensor, kind: str = "neighbour") -> Tensor:
    """``weight`` of each of an even number of images (N, ...) and the rest of its partner, in the same shape (Bag of
    Tricks, section 5.4)."""
    return weight * values + (1 - weight) * values[partners(len(values), values.device, kind)]


def mixing_weight(seed: int, iteration: int, alpha: float) -> float:
    """The weight of the first image of each pair in training step ``iteration`` of a run: Beta(alpha, alpha),
    in 0..1 (Bag of Tricks, section 5.4)."""
    return float(seeded_numbers(seed, "mixup", iteration).beta(alpha, alpha))
