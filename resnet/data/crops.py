"""Decoding, cropping and resizing of image files.

A box is (left, top, right, bottom) in pixels, possibly fractional, from the image's upper left corner. A box is resized
to a square with a bilinear filter that is as wide as an output pixel, so shrinking averages.
"""

import math
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image

from resnet.data.dataset import DataError

Box = tuple[float, float, float, float]

# Bag of Tricks, section 2.1.
AREA = 0.08, 1.0  # share of the image
ASPECT_RATIO = 3 / 4, 4 / 3  # width to height
TRIES = 10  # for a rectangle that lies in the image

# By EXIF's orientation. ImageOps.exif_transpose would rewrite the other tags, too, and fails if one of them is invalid.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Lengths of the shorter side for crops of 224 pixels, scaled in proportion for other crops.
CROP = 224
SHORTER_SIDES = 256, 480  # training: He et al. 2015, section 3.4
TEST_SHORTER_SIDE = 256  # both papers
TEST_SCALES = 224, 256, 384, 480, 640  # multi-scale testing: He et al. 2015, section 3.4


def uniform(generator: torch.Generator, count: int) -> list[float]:
    """Draw ``count`` numbers from [0, 1)."""
    return torch.rand(count, generator=generator, dtype=torch.float64).tolist()


def area_box(width: int, height: int, generator: torch.Generator) -> Box:
    """Draw a rectangle of 8 to 100 % of the area with an aspect ratio from 3/4 to 4/3 (Bag of Tricks, section 2.1).

    Area, position and the logarithm of the aspect ratio are uniform. After 10 draws that don't fit into the image, it
    is the largest rectangle in the centre with an allowed aspect ratio.
    """
    low, high = (math.log(ratio) for ratio in ASPECT_RATIO)
    for _ in range(TRIES):
        area, ratio, across, down = uniform(generator, 4)
        area = (AREA[0] + (AREA[1] - AREA[0]) * area) * width * height
        ratio = math.exp(low + (high - low) * ratio)
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(across * (width - w + 1)), int(down * (height - h + 1))
            return left, top, left + w, top + h
    w, h = min(width, height * ASPECT_RATIO[1]), min(height, width / ASPECT_RATIO[0])
    return _placed(width, height, w, h, 0.5, 0.5)


def scale_box(width: int, height: int, generator: torch.Generator) -> Box:
    """Draw a square crop for a shorter side of 256 to 480 pixels (He et al. 2015, section 3.4).

    The shorter side is a whole number of pixels for crops of 224, scaled in proportion for others. The position is
    uniform and may be fractional.
    """
    low, high = SHORTER_SIDES
    shorter, across, down = uniform(generator, 3)
    side = min(width, height) * CROP / (low + int(shorter * (high - low + 1)))
    return _placed(width, height, side, side, across, down)


def centre_box(width: int, height: int) -> Box:
    """Return the centre crop of 224 pixels for a shorter side of 256, or in that proportion."""
    side = min(width, height) * CROP / TEST_SHORTER_SIDE
    return _placed(width, height, side, side, 0.5, 0.5)


def centre_square(width: int, height: int) -> Box:
    """Return the largest square in the centre."""
    return _placed(width, height, min(width, height), min(width, height), 0.5, 0.5)


def ten_crops(squares: torch.Tensor, size: int) -> list[torch.Tensor]:
    """Cut squares (n, H, H, C) into 10 crops (n, size, size, C): the corners, the centre, and their flips.

    This is the "standard 10-crop testing" of He et al. 2015, section 3.4, which cites Krizhevsky et al. 2012, section
    4.1: the square is 256 pixels wide for crops of 224, so images that are not square lose their ends. Other software
    takes the corners of the whole image.
    """
    far = squares.shape[1] - size
    corners = [(top, left) for top in (0, far) for left in (0, far)] + [(far // 2, far // 2)]
    crops = [squares[:, top : top + size, left : left + size] for top, left in corners]
    return crops + [crop.flip(2) for crop in crops]


def _placed(width: float, height: float, w: float, h: float, across: float, down: float) -> Box:
    """Place a box of w by h in the image; ``across`` and ``down``, in 0..1, give its position."""
    left, top = across * (width - w), down * (height - h)
    return left, top, min(left + w, width), min(top + h, height)


def read_image(path: Path, upright: bool = False) -> Image.Image:
    """Read an image file as RGB; of an animation or a file with several pages, read the first image.

    =========================  =========================================================================
    Pillow's mode              result
    =========================  =========================================================================
    RGB, RGBX                  the image itself
    L, 1                       grey
    P, PA                      the palette's colours
    RGBA, RGBa, LA, P and      the colours without the transparency; if the whole image has one colour,
    others with transparency   the transparency is the picture, on white or on black
    CMYK, YCbCr, HSV, LAB      converted by Pillow
    I;16, I;16B, I;16L, I;16N  grey: the upper 8 of the bits that the image uses, so values up to 4,095 are
                               divided by 16, and values up to 255 stay unchanged
    I (32 bits)                the same up to 65,535; an error for negative and larger values
    RGB and others of a file   the upper 8 bits, as Pillow reads them; an error if the image uses none of
    with 16 bits a colour      the upper 4
    F, La                      an error: the value of white is unknown; Pillow can't convert it
    =========================  =========================================================================

    By default EXIF's orientation is ignored, as in published work on ImageNet. ``upright`` rotates images by it, which
    cameras' and phones' images need. Raises DataError, which names the file, if it can't be read or decoded.
    """
    try:
        with Image.open(path) as image:
            cut = len(image.getbands()) > 1 and any(";16" in str(tile[3]) for tile in image.tile)
            colours = as_shown(image, upright).convert("RGB")
            if cut and max(high for _, high in colours.getextrema()) < 16:
                raise ValueError("its colours have 16 bits, but the upper 4 are unused, and only the upper 8 are read: "
                                 "save it with 8 bits")  # fmt: skip
            return colours
    except Exception as error:  # each format's decoder raises its own types
        raise DataError(f"{path} can't be read ({error}); extract the file again") from error


def as_shown(image: Image.Image, upright: bool = False) -> Image.Image:
    """Return an image of 8 bits, opaque where its transparency is the picture; see :func:`read_image`.

    Raises ValueError for pixels whose value of white is unknown.
    """
    return _opaque(_of_8_bits(_upright(image) if upright else image))


def _upright(image: Image.Image) -> Image.Image:
    """Rotate an image by EXIF's orientation; return it unchanged if that can't be read."""
    image.load()
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # of many types
        turn = None
    return image if turn is None else image.transpose(turn)


def _of_8_bits(image: Image.Image) -> Image.Image:
    """Convert grey values of 16 or 32 bits, which Pillow would clip at 255, to 8; return other images unchanged.

    Files don't record the number of used bits, which is 10, 12 or 14 for cameras, so it follows from the largest value.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose value of white is unknown")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    if values.min() < 0 or values.max() >= 1 << 16:
        raise ValueError("its pixels have more than 16 bits")
    return Image.fromarray((values >> max(0, int(values.max()).bit_length() - 8)).astype(np.uint8))


def _opaque(image: Image.Image) -> Image.Image:
    """Put a one-colour image, whose picture is its transparency, on white, or on black if the colour is light."""
    if "transparency" not in image.info and image.mode not in ("LA", "PA", "RGBA"):
        return image
    alpha = image.convert("RGBA").getchannel("A")
    bands = image.convert("RGB").getextrema()
    if any(low != high for low, high in bands) or alpha.getextrema()[0] == alpha.getextrema()[1]:
        return image
    ground = Image.new("RGB", image.size, "black" if sum(high for _, high in bands) > 3 * 127 else "white")
    ground.paste(image.convert("RGB"), mask=alpha)
    return ground


def crop(image: Image.Image, box: Box, size: int, flip: bool = False) -> np.ndarray:
    """Return the image's box as uint8 (size, size, 3), mirrored if ``flip``."""
    pixels = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))
    return pixels[:, ::-1] if flip else pixels


def scaled(image: Image.Image, shorter: int) -> np.ndarray:
    """Return the whole image as uint8 (H, W, 3), with a shorter side of ``shorter`` pixels."""
    factor = shorter / min(image.size)
    size = [max(shorter, round(side * factor)) for side in image.size]
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR))
