"""Which part of an image file is looked at, and its pixels.

A box is (left, top, right, bottom) in pixels of the image, whole or not, from its upper left corner. An image is
resampled from its box to a square with a bilinear filter as wide as a pixel of the result, so that shrinking averages.
"""

import math
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image

from resnet.data.dataset import DataError

Box = tuple[float, float, float, float]

# Bag of Tricks, section 2.1.
AREA = 0.08, 1.0  # of the image
ASPECT_RATIO = 3 / 4, 4 / 3  # width to height
TRIES = 10  # for a rectangle that lies in the image

# By what EXIF says of the place of the first row and column. ImageOps.exif_transpose also writes the other tags again,
# and fails where one of them is odd.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Lengths of the shorter side for crops of 224 pixels; for other crops they are in proportion.
CROP = 224
SHORTER_SIDES = 256, 480  # when training: He et al. 2015, section 3.4
TEST_SHORTER_SIDE = 256  # both papers
TEST_SCALES = 224, 256, 384, 480, 640  # when testing at several: He et al. 2015, section 3.4


def uniform(generator: torch.Generator, count: int) -> list[float]:
    """So many numbers from [0, 1)."""
    return torch.rand(count, generator=generator, dtype=torch.float64).tolist()


def area_box(width: int, height: int, generator: torch.Generator) -> Box:
    """A rectangle of 8 to 100 % of the area and an aspect ratio from 3/4 to 4/3 (Bag of Tricks, section 2.1).

    The area is uniform, the aspect ratio in its logarithm, and the place uniform. What does not fit is drawn anew, up
    to 10 times; then it is the largest rectangle in the centre with an allowed aspect ratio.
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
    """A square crop after the shorter side was scaled to 256 to 480 pixels (He et al. 2015, section 3.4).

    The length is a whole number of pixels for crops of 224, in proportion for others; the place is uniform, and need
    not be at whole pixels.
    """
    low, high = SHORTER_SIDES
    shorter, across, down = uniform(generator, 3)
    side = min(width, height) * CROP / (low + int(shorter * (high - low + 1)))
    return _placed(width, height, side, side, across, down)


def centre_box(width: int, height: int) -> Box:
    """The square of 224 pixels in the centre after the shorter side was scaled to 256, or in that proportion."""
    side = min(width, height) * CROP / TEST_SHORTER_SIDE
    return _placed(width, height, side, side, 0.5, 0.5)


def centre_square(width: int, height: int) -> Box:
    """The largest square in the centre."""
    return _placed(width, height, min(width, height), min(width, height), 0.5, 0.5)


def ten_crops(squares: torch.Tensor, size: int) -> list[torch.Tensor]:
    """Of squares (n, H, H, C) the 10 crops (n, size, size, C): the corners, the centre, and all flipped.

    It is the "standard 10-crop testing" of He et al. 2015, section 3.4, by the paper that it cites for it (Krizhevsky
    et al. 2012, section 4.1): the square is 256 pixels wide for crops of 224, so images that are no squares lose their
    ends. Other software takes the corners of the whole image.
    """
    far = squares.shape[1] - size
    corners = [(top, left) for top in (0, far) for left in (0, far)] + [(far // 2, far // 2)]
    crops = [squares[:, top : top + size, left : left + size] for top, left in corners]
    return crops + [crop.flip(2) for crop in crops]


def _placed(width: float, height: float, w: float, h: float, across: float, down: float) -> Box:
    """A box of w by h, so far along the ways that it can go in the image."""
    left, top = across * (width - w), down * (height - h)
    return left, top, min(left + w, width), min(top + h, height)


def read_image(path: Path, upright: bool = False) -> Image.Image:
    """The image in RGB, whatever the file has. Of an animation or a file of several pages it is the first.

    =========================  =========================================================================
    Pillow's mode              what becomes of it
    =========================  =========================================================================
    RGB, RGBX                  the image itself
    L, 1                       grey
    P, PA                      the palette's colours
    RGBA, RGBa, LA, P and      the colours, without the transparency; but where the whole image is of one
    others with transparency   colour, the transparency is the picture, on white or on black
    CMYK, YCbCr, HSV, LAB      converted by Pillow
    I;16, I;16B, I;16L, I;16N  grey: the upper 8 of the bits that the image uses, so that values to 4,095 are
                               divided by 16, and values to 255 are as they are
    I (32 bits)                the same to 65,535; negative and larger values are an error
    RGB and others of a file   as Pillow reads them, the upper 8 bits; an error where the image uses none of
    with 16 bits a colour      the upper 4
    F, La                      an error: nothing says what is white; Pillow can't convert it
    =========================  =========================================================================

    EXIF's orientation is ignored, as it was by those who labelled and published on ImageNet: images are as stored.
    ``upright``: they are turned as EXIF says, as a camera's or phone's want to be. Raises DataError, which names the
    file, if it can't be read or decoded.
    """
    try:
        with Image.open(path) as image:
            cut = len(image.getbands()) > 1 and any(";16" in str(tile[3]) for tile in image.tile)
            colours = _opaque(_of_8_bits(_upright(image) if upright else image)).convert("RGB")
            if cut and max(high for _, high in colours.getextrema()) < 16:
                raise ValueError("its colours have 16 bits of which the upper 4 are not used, and only the upper 8 are "
                                 "read: save it with 8 bits")  # fmt: skip
            return colours
    except Exception as error:  # of many types, with each format's decoder its own
        raise DataError(f"{path} can't be read ({error}); extract the file again") from error


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as EXIF says; as it is where that can't be read, which is no reason to be without it."""
    image.load()
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # of many types
        turn = None
    return image if turn is None else image.transpose(turn)


def _of_8_bits(image: Image.Image) -> Image.Image:
    """Of grey values of 16 or 32 bits, which Pillow's conversion would cut off at 255, 8; else the image itself.

    Files don't say how many bits are used, and cameras have 10, 12 or 14: it is seen from the largest value.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, of which nothing says what is white")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    if values.min() < 0 or values.max() >= 1 << 16:
        raise ValueError("its pixels have more than 16 bits")
    return Image.fromarray((values >> max(0, int(values.max()).bit_length() - 8)).astype(np.uint8))


def _opaque(image: Image.Image) -> Image.Image:
    """An image of one colour, which its transparency alone makes a picture, on white, or on black if it is light."""
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
    """The image's box as uint8 (size, size, 3), from right to left if ``flip``."""
    pixels = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))
    return pixels[:, ::-1] if flip else pixels


def scaled(image: Image.Image, shorter: int) -> np.ndarray:
    """The whole image as uint8 (H, W, 3), its shorter side of so many pixels."""
    factor = shorter / min(image.size)
    size = [max(shorter, round(side * factor)) for side in image.size]
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR))
