"""Colour augmentation and normalisation of pixels, batched on the device.

Bag of Tricks, section 2.1, scales "hue, saturation, and brightness with coefficients uniformly drawn from [0.6, 1.4]".
The paper does not say how to scale a hue, which is an angle. Like its authors' released script (GluonCV's
train_imagenet.py), this module scales brightness, contrast and saturation, but no hue. As in the script, their order is
drawn per image, and each result is clipped to 0 and 255, but it is not rounded to whole numbers.
"""

import torch
from torch import Tensor

# For red, green and blue, of pixels in 0..255: Bag of Tricks, section 2.1. He et al. 2015 (section 3.4) subtracts the
# per-pixel mean and does not divide; here it gets the same normalisation.
MEAN = 123.68, 116.779, 103.939
STD = 58.393, 57.12, 57.375

GREY = 0.299, 0.587, 0.114  # brightness of red, green and blue (ITU-R BT.601)

# The principal components of ImageNet's RGB values as in the authors' script: the standard deviation along each, for
# pixels in 0..255, and the components as columns. The method is from Krizhevsky et al. 2012, section 4.1, which does
# not give the numbers; they were published with fb.resnet.torch, for pixels in 0..1.
DEVIATIONS = 55.46, 4.794, 1.148
COMPONENTS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)


def draw_colours(generator: torch.Generator, jitter: float, noise: float) -> Tensor:
    """Draw one image's colour transformation, float32 (4, 3), for :meth:`ToInput.__call__`.

    The first three rows are brightness, contrast and saturation in random order, with factors uniform in 1 - jitter to
    1 + jitter. Each row holds the weights of the pixel, of its grey value, and of the image's mean grey value in the
    new pixel. The last row is then added to red, green and blue: a normal number of standard deviation ``noise`` along
    each principal component, times the standard deviation of ImageNet's pixels along it.
    """
    factors = 1 + jitter * (2 * torch.rand(3, generator=generator, dtype=torch.float64) - 1)
    brightness, contrast, saturation = factors.tolist()
    steps = torch.tensor(
        [[brightness, 0, 0], [contrast, 0, 1 - contrast], [saturation, 1 - saturation, 0]], dtype=torch.float64
    )[torch.randperm(3, generator=generator)]
    weights = noise * torch.randn(3, generator=generator, dtype=torch.float64)
    shift = torch.tensor(COMPONENTS, dtype=torch.float64) @ (weights * torch.tensor(DEVIATIONS, dtype=torch.float64))
    return torch.cat([steps, shift[None]]).float()


class ToInput:
    """Conversion of uint8 pixels (n, H, W, 3) to normalised float32 (n, 3, H, W) in channels-last memory.

    Its constants are on the device before the first call, so that calls can be recorded in a CUDA graph.
    """

    def __init__(self, device: torch.device):
        self.mean, self.std, self.grey = (torch.tensor(values, device=device) for values in (MEAN, STD, GREY))

    def __call__(self, pixels: Tensor, colours: Tensor | None = None) -> Tensor:
        """Convert pixels, with ``colours`` (n, 4, 3) from :func:`draw_colours` if they are given."""
        images = pixels.float()
        if colours is not None:
            images = self._recoloured(images, colours[..., None, None, :])
        return images.sub_(self.mean).div_(self.std).permute(0, 3, 1, 2)

    def _recoloured(self, images: Tensor, colours: Tensor) -> Tensor:
        """Apply colours (n, 4, 1, 1, 3) to images (n, H, W, 3) in 0..255."""
        for step in colours[:, :3].unbind(1):
            of_pixel, of_grey, of_mean = step.split(1, dim=-1)
            grey = (images * self.grey).sum(-1, keepdim=True)
            ground = grey * of_grey + grey.mean((1, 2), keepdim=True) * of_mean
            images = images.mul_(of_pixel).add_(ground).clamp_(0, 255)
        return images.add_(colours[:, 3]).clamp_(0, 255)
