"""The conversion of images to a network's input, with its values as they are kept on the cards of weights files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from resnet.data.augment import subtract_mean
from resnet.data.colour import MEAN, STD
from resnet.data.crops import as_shown, centre_box, centre_square, crop
from resnet.data.resident import ResidentData
from resnet.recipe import Recipe
from resnet.run import Run
from resnet.weight_files import WeightsError

# Per-pixel means of all training images, by the digest of the data: for files whose cards are older than the values.
KNOWN_MEANS = {
    "3940445b01c63e6f8d5cea7a3f880c20443a7fdcbed4056132cffd594183447c": (
        Path(__file__).parent / "data" / "cifar10_mean_3940445b.npy"
    ),
}


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """A network's preprocessing, ``(image - mean) * scale``; call it to convert images.

    ``mean``: float32 (H, W, C) or (C,), for pixels in 0..255. ``scale``: a number, or float32 (C,). ``image_size``:
    pixels along a side. ``whole``: whether a picture of another size is taken up to its edges, as for nets for small
    images; otherwise its shorter side is scaled to 256 pixels for a centre crop of 224, or in that proportion.
    ``upright``: whether a picture is rotated by EXIF's orientation first, as for fine-tuned nets.
    """

    mean: Tensor
    scale: float | Tensor
    image_size: int
    whole: bool = True
    upright: bool = False

    def __repr__(self) -> str:
        values = self.mean, self.scale
        mean, scale = (f"float32 {tuple(v.shape)}" if isinstance(v, Tensor) else f"{v:.6g}" for v in values)
        return f"Preprocessing(mean={mean}, scale={scale}, image_size={self.image_size}, whole={self.whole})"

    @property
    def channels(self) -> int:
        """The number of channels of the images, 3 for RGB and 1 for grey."""
        return self.mean.shape[-1]

    def __call__(self, images) -> Tensor:
        """Return images as float32 (C, S, S), a batch as (N, C, S, S), with S the ``image_size``, on their device.

        ``images``: a Pillow image; or a uint8 array or tensor of one image (S, S, C) or (C, S, S), of a grey image
        (S, S), or of a batch of these with N in front. A Pillow image is converted as files are for training
        (:func:`resnet.data.crops.read_image`); one of another size is cut to its central square and scaled. Raises
        ValueError for other shapes, and for numbers other than uint8: pixels are from 0 to 255. Raises TypeError for
        other objects, such as the path of a file.
        """
        pixels = self._of_picture(images) if type(images).__module__.startswith("PIL.") else images
        if isinstance(pixels, np.ndarray):
            pixels = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))  # what PyTorch takes
        if not isinstance(pixels, Tensor):
            text = f"images must be a Pillow image, or a uint8 array or tensor, not {type(images).__name__}"
            raise TypeError(f"{text}: open a file with PIL.Image.open" if isinstance(images, str | Path) else text)
        if pixels.dtype != torch.uint8:
            raise ValueError(f"images must be uint8, with pixels from 0 to 255, not {pixels.dtype}")
        size, shape = self.image_size, tuple(pixels.shape)
        if self.channels == 1 and shape[-2:] == (size, size) and shape[-3:] != (1, size, size):
            pixels = pixels[..., None]
        elif shape[-3:] == (self.channels, size, size):
            pixels = pixels.movedim(-3, -1)
        if tuple(pixels.shape[-3:]) != (size, size, self.channels) or pixels.dim() not in (3, 4):
            wanted = f"({size}, {size}, {self.channels}) or ({self.channels}, {size}, {size})"
            raise ValueError(f"images must have the shape {wanted}, or that with N in front, not {shape}")
        scale = self.scale.to(pixels.device) if isinstance(self.scale, Tensor) else self.scale
        batch = pixels if pixels.dim() == 4 else pixels[None]
        result = subtract_mean(batch, self.mean.to(pixels.device), scale)
        return result if pixels.dim() == 4 else result[0]

    def _of_picture(self, image) -> np.ndarray:
        """Return a Pillow image as uint8 (S, S, C)."""
        image = as_shown(image, self.upright).convert("RGB" if self.channels == 3 else "L")
        if image.size != (self.image_size, self.image_size):
            box = (centre_square if self.whole else centre_box)(*image.size)
            pixels = crop(image, box, self.image_size)
        else:
            pixels = np.asarray(image)
        return pixels if pixels.ndim == 3 else pixels[..., None]

    def card(self) -> dict[str, str]:
        """Return the values as entries of a card; ``mean`` and ``scale`` are JSON, exact for float32."""
        scale = self.scale if isinstance(self.scale, float) else _rounded(self.scale)
        mean, size = json.dumps(_rounded(self.mean), separators=(",", ":")), str(self.image_size)
        return {"mean": mean, "scale": json.dumps(scale), "image_size": size}


def _rounded(values: Tensor) -> list:
    """Return float32 values as nested lists of numbers with no more digits than tell them apart."""
    return [_rounded(each) for each in values] if values.dim() else float(str(values.numpy()))


def of_image_files(image_size: int) -> Preprocessing:
    """Return the preprocessing of nets that are trained on folders of image files."""
    return Preprocessing(torch.tensor(MEAN), 1 / torch.tensor(STD), image_size, whole=False)


def of_resident_data(data: ResidentData, recipe: Recipe) -> Preprocessing:
    """Return the preprocessing of a recipe whose training images are these."""
    mean, scale = (value.cpu() if isinstance(value, Tensor) else value for value in data.normalization(recipe))
    per_channel = mean[0, 0].clone()
    return Preprocessing(per_channel if (mean == per_channel).all() else mean, scale, mean.shape[0])


def of_known_data(run: Run, data_sha256: str) -> Preprocessing | None:
    """Return a run's preprocessing if it follows from its recipe and the digest of its data alone, else None."""
    if run.recipe.crop != "pad":
        return of_image_files(run.recipe.image_size)
    if run.recipe.normalization == "pixel_mean" and run.train_images is None and data_sha256 in KNOWN_MEANS:
        mean = _known_mean(data_sha256)
        return Preprocessing(mean, 1 / 255, mean.shape[0])
    return None


@cache
def _known_mean(data_sha256: str) -> Tensor:
    return torch.from_numpy(np.load(KNOWN_MEANS[data_sha256], allow_pickle=False))


def of_card(card: Mapping[str, str], path: str | Path) -> Preprocessing | None:
    """Return the preprocessing that the card of the file ``path`` gives, or that follows from it; None without.

    A card without the values names a run; the values follow from it if the run is certain and its data are known.
    Raises WeightsError for values that can't be read.
    """
    try:
        if {"mean", "image_size"} <= card.keys() and ("scale" in card or "std" in card):
            return _written(card)
        return _of_old_card(card)
    except (ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"the preprocessing on the card of {path} can't be read: {error}") from error


def _written(card: Mapping[str, str]) -> Preprocessing:
    mean, size = torch.tensor(json.loads(card["mean"])), int(card["image_size"])
    if (scale := json.loads(card.get("scale", "null"))) is None:
        scale = (1 / torch.tensor(json.loads(card["std"]))).tolist()  # a fine-tuned net's
    scale = scale if isinstance(scale, float) else torch.tensor(scale)
    if mean.dtype != torch.float32 or mean.shape[:-1] not in ((), (size, size)):
        raise ValueError(f"its mean has the shape {tuple(mean.shape)}")
    if isinstance(scale, Tensor) and scale.shape != mean.shape[-1:]:
        raise ValueError(f"its scale has the shape {tuple(scale.shape)}")
    whole = "std" not in card and json.loads(card.get("recipe", "{}")).get("crop", "pad") == "pad"
    return Preprocessing(mean, scale, size, whole, upright="std" in card)


def _of_old_card(card: Mapping[str, str]) -> Preprocessing | None:
    if not {"recipe", "data", "seed", "data_sha256", "record_identity"} <= card.keys():
        return None
    try:
        recipe = Recipe(**json.loads(card["recipe"]))
        run = Run(card["model"], recipe, card["data"], int(card["seed"]), json.loads(card.get("options", "{}")))
    except (ValueError, TypeError):  # a network or a recipe of other code
        return None
    # A run with a teacher, or on a part of the images, which an old card does not name, has another identity.
    return of_known_data(run, card["data_sha256"]) if run.identity == card["record_identity"] else None
