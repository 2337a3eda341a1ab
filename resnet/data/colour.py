"""Colour augmentation and normalisation of pixels, batched on the device.

Bag of Tricks, section 2.1, scales "hue, saturation, and brightness with coefficients uniformly drawn from [0.6, 1.4]".
The paper does not say how to scale a hue, which is an angle. By default this module follows its authors' released
script (GluonCV's train_imagenet.py): it scales brightness, contrast and saturation, but no hue. ``third="hue"`` turns
the hue in place of the contrast, by (coefficient - 1) times 180 degrees, as MXNet's HueJitterAug does. As in the
script, the order is drawn per image, and each result is clipped to 0 and 255, but not rounded to whole numbers.
"""

import math

import torch
from torch import Tensor

# For red, green and blue, of pixels in 0..255: Bag of Tricks, section 2.1. He et al. 2015 (section 3.4) subtracts the
# per-pixel mean and does not divide; here it gets the same normalisation.
MEAN = 123.68, 116.779, 103.939
STD = 58.393, 57.12, 57.375

GREY = 0.299, 0.587, 0.114  # brightness of red, green and blue (ITU-R BT.601)
IN_PHASE, QUADRATURE = (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135)  # colour in YIQ (NTSC, 1953)

# The principal components of ImageNet's RGB values as in the authors' script: the standard deviation along each, for
# pixels in 0..255, and the components as columns. The method is from Krizhevsky et al. 2012, section 4.1, which does
# not give the numbers; they were published with fb.resnet.torch, for pixels in 0..1.
DEVIATIONS = 55.46, 4.794, 1.148
COMPONENTS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)


def draw_colours(generator: torch.Generator, jitter: float, noise: float, third: str = "contrast") -> Tensor:
    """Draw one image's colour transformation, float32 (4, 3), for :meth:`ToInput.__call__`.

    The first three rows are brightness, saturation and ``third`` ("contrast" or "hue") in random order, with factors
    uniform in 1 - jitter to 1 + jitter. Each row holds the weights of three parts of the new pixel: the pixel, its grey
    value, and the image's mean grey value, or for "hue" the pixel's colour turned by 90 degrees. The last row is
    then added to red, green and blue: a normal number of standard deviation ``noise`` along each principal component,
    times the standard deviation of ImageNet's pixels along it.
    """
    factors = 1 + jitter * (2 * torch.rand(3, generator=generator, dtype=torch.float64) - 1)
    brightness, other, saturation = factors.tolist()
    angle = math.pi * (other - 1)
    row = [math.cos(angle), 1 - math.cos(angle), math.sin(angle)] if third == "hue" else [other, 0, 1 - other]
    steps = torch.tensor([[brightness, 0, 0], row, [saturation, 1 - saturation, 0]], dtype=torch.float64)
    steps = steps[torch.randperm(3, generator=generator)]
    weights = noise * torch.randn(3, generator=generator, dtype=torch.float64)
    shift = torch.tensor(COMPONENTS, dtype=torch.float64) @ (weights * torch.tensor(DEVIATIONS, dtype=torch.float64))
    return torch.cat([steps, shift[None]]).float()


class ToInput:
    """Conversion of uint8 pixels (n, H, W, 3) to normalised float32 (n, 3, H, W) in channels-last memory.

    Its constants are on the device before the first call, so that calls can be recorded in a CUDA graph.
    """

    def __init__(self, device: torch.device):
        self.mean, self.std, self.grey = (torch.tensor(values, device=device) for values in (MEAN, STD, GREY))
        self.quarter_turn = _quarter_turn().to(device)

    def __call__(self, pixels: Tensor, colours: Tensor | None = None, third: str = "contrast") -> Tensor:
        """Convert pixels, with ``colours`` (n, 4, 3) from :func:`draw_colours` with the same ``third`` if given."""
        images = pixels.float()
        if colours is not None:
            images = self._recoloured(images, colours[..., None, None, :], third)
        return images.sub_(self.mean).div_(self.std).permute(0, 3, 1, 2)

    def _recoloured(self, images: Tensor, colours: Tensor, third: str) -> Tensor:
        """Apply colours (n, 4, 1, 1, 3) to images (n, H, W, 3) in 0..255."""
        for step in colours[:, :3].unbind(1):
            of_pixel, of_grey, of_third = step.split(1, dim=-1)
            grey = (images * self.grey).sum(-1, keepdim=True)
            other = images @ self.quarter_turn if third == "hue" else grey.mean((1, 2), keepdim=True)
            ground = grey * of_grey + other * of_third
            images = images.mul_(of_pixel).add_(ground).clamp_(0, 255)
        return images.add_(colours[:, 3]).clamp_(0, 255)


def _quarter_turn() -> Tensor:
    """Return the float32 (3, 3) matrix that turns a pixel's colour in YIQ by 90 degrees and drops its grey value."""
    to_yiq = torch.tensor([GREY, IN_PHASE, QUADRATURE], dtype=torch.float64)
    turn = torch.tensor([[0, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=torch.float64)
    return (torch.linalg.inv(to_yiq) @ turn @ to_yiq).T.float().contiguous()
