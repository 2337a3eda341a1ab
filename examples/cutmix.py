"""CutMix (Yun et al. 2019): a rectangle of each image, and the same share of its target, are another image's.

Recipe(plugins=(Plugin("examples.cutmix:CutMix", alpha=1.0),))
"""

import torch


class CutMix:
    """One rectangle a batch; the share of its area is 1 minus a draw from Beta(alpha, alpha)."""

    def __init__(self, alpha=1.0):
        self.alpha = alpha

    def model(self, model):
        """Note the number of classes."""
        self.classes = model.fc.out_features
        return model

    def batch(self, images, labels, draws):
        """Mix images (n, C, H, W) and labels (n,); the targets are the classes' shares (n, K)."""
        *_, height, width = images.shape
        side = (1 - draws.beta(self.alpha)).sqrt()  # of the rectangle, in sides of the image
        centre, order = draws.uniform((2,)), draws.permutation(len(images))
        inside = _inside(centre[0], side, height)[:, None] & _inside(centre[1], side, width)
        share = inside.float().mean()  # what lies in the image
        targets = (labels[:, None] == torch.arange(self.classes, device=labels.device)).float()
        return torch.where(inside, images[order], images), targets.lerp(targets[order], share)


def _inside(centre, side, pixels):
    """Return which of the pixels along a side are in the rectangle, bool (pixels,)."""
    places = (torch.arange(pixels, device=centre.device) + 0.5) / pixels
    return (places - centre).abs() < side / 2
