"""Networks and images for tests of models."""

import torch

from resnet.models import create_model


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def on_meta(name, **options):
    """Shapes only."""
    with torch.device("meta"):
        return create_model(name, **options)
