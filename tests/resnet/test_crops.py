"""Places and distributions of crops, and the pixels of image files of all kinds."""

import struct
import zlib

import numpy as np
import pytest
from image_folder import noise
from PIL import Image

from resnet.data import DataError
from resnet.data.crops import area_box, centre_box, crop, read_image, scale_box
from resnet.data.sampling import seeded_generator


def boxes(draw, width, height, count=2_000):
    drawn = [draw(width, height, seeded_generator(0, width, height, number)) for number in range(count)]
    left, top, right, bottom = np.array(drawn, float).T
    assert (left >= 0).all() and (top >= 0).all() and (right <= width).all() and (bottom <= height).all()
    return left, top, right - left, bottom - top


def test_areas_and_aspect_ratios_are_those_of_the_paper():
    left, top, w, h = boxes(area_box, 500, 500)
    area, ratio = w * h / 500**2, w / h
    assert 0.079 < area.min() < 0.09 and 0.95 < area.max() <= 1
    assert 0.745 < ratio.min() < 0.76 and 1.32 < ratio.max() < 1.34
    small = area < 0.5  # all of these fit, so they are as they were drawn
    assert abs(np.log(ratio[small]).mean()) < 0.02
    assert abs((np.log(ratio[small]) > 0.5 * np.log(4 / 3)).mean() - 0.25) < 0.04  # uniform in the logarithm
    assert abs((area[small] < 0.29).mean() - 0.5) < 0.05
    assert (
        abs((left / (500 - w + 1))[small].mean() - 0.5) < 0.03 and abs((top / (500 - h + 1))[small].mean() - 0.5) < 0.03
    )


def test_area_crops_are_whole_pixels():
    assert all(type(side) is int for number in range(20) for side in area_box(90, 60, seeded_generator(0, number)))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1_000, 10), (1_000 / 2 - 20 / 3, 0, 1_000 / 2 + 20 / 3, 10)),
        ((10, 1_000), (0, 500 - 20 / 3, 10, 500 + 20 / 3)),
    ],
)
def test_an_image_in_which_no_rectangle_fits_gives_its_centre(size, expected):
    assert area_box(*size, seeded_generator(0, 0)) == pytest.approx(expected)


def test_a_tiny_image_has_a_crop():
    for number in range(50):
        left, top, right, bottom = area_box(1, 1, seeded_generator(0, number))
        assert (left, top, right, bottom) == (0, 0, 1, 1)


def test_shorter_sides_are_from_256_to_480():
    left, top, w, h = boxes(scale_box, 600, 300)
    assert np.allclose(w, h)
    shorter = 300 / w * 224
    assert np.allclose(shorter, shorter.round()) and {256, 480} <= set(shorter.round()) <= set(range(256, 481))
    assert abs(shorter.mean() - 368) < 6
    assert abs((left / (600 - w)).mean() - 0.5) < 0.03 and abs((top / (300 - h)).mean() - 0.5) < 0.03
    assert (left / (600 - w)).min() < 0.02 and (left / (600 - w)).max() > 0.98


def test_the_test_crop_is_the_centre():
    assert centre_box(256, 256) == (16, 16, 240, 240)
    assert centre_box(512, 1_024) == (32, 288, 480, 736)


def test_a_crop_without_scaling_is_a_slice():
    image = noise(256, 256)
    pixels = np.asarray(image)
    assert np.array_equal(crop(image, centre_box(256, 256), 224), pixels[16:240, 16:240])
    assert np.array_equal(crop(image, (3, 5, 43, 45), 40, flip=True), pixels[5:45, 3:43][:, ::-1])


def test_a_crop_is_that_of_the_scaled_image():
    """Scaled as a whole and cut by hand. To half the size whole pixels meet; the edges of the slice are inside."""
    image = noise(512, 512)
    scaled = np.asarray(image.resize((256, 256), Image.Resampling.BILINEAR))
    assert np.array_equal(crop(image, centre_box(512, 512), 224), scaled[16:240, 16:240])


def test_shrinking_averages():
    checkers = Image.fromarray(np.indices((64, 64)).sum(0).astype(np.uint8) % 2 * 255).convert("RGB")
    pixels = crop(checkers, (0, 0, 64, 64), 8).astype(int)
    assert abs(pixels - 127).max() <= 2


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpegs_are_read_in_rgb(tmp_path, mode):
    image = noise(40, 30).convert(mode)
    image.save(tmp_path / "image.JPEG", quality=95)
    read = read_image(tmp_path / "image.JPEG")
    assert read.mode == "RGB" and read.size == (40, 30)
    assert abs(np.asarray(read).astype(int) - np.asarray(image.convert("RGB"))).mean() < 8


# By Pillow's mode: the value of a pixel there, and its colours as read; None: an error that says why.
MODES = {
    "1": (1, (255, 255, 255)),
    "L": (77, (77, 77, 77)),
    "LA": ((77, 10), (77, 77, 77)),
    "La": ((77, 200), None),
    "P": (3, (90, 100, 110)),
    "PA": ((3, 255), (90, 100, 110)),
    "RGB": ((10, 20, 30), (10, 20, 30)),
    "RGBX": ((10, 20, 30, 0), (10, 20, 30)),
    "RGBA": ((10, 20, 30, 9), (10, 20, 30)),
    "RGBa": ((10, 20, 30, 255), (10, 20, 30)),
    "CMYK": ((255, 0, 0, 0), (0, 255, 255)),
    "YCbCr": ((77, 128, 128), (77, 77, 77)),
    "HSV": ((0, 0, 77), (77, 77, 77)),
    "LAB": ((255, 128, 128), (255, 255, 255)),
    "I": (4_095, (255, 255, 255)),
    "I;16": (4_095, (255, 255, 255)),
    "I;16L": (4_095, (255, 255, 255)),
    "I;16B": (4_095, (255, 255, 255)),
    "I;16N": (4_095, (255, 255, 255)),
    "F": (0.5, None),
}


@pytest.mark.parametrize("mode", Image.MODES)
def test_every_mode_that_pillow_has_is_read_or_an_error(monkeypatch, mode):
    value, expected = MODES[mode]
    image = Image.new(mode, (6, 4), value)
    image.tile = []
    if mode in ("P", "PA"):
        image.putpalette([10 * i for i in range(24)])
        image.paste(value, (0, 0, 6, 4))
    monkeypatch.setattr(Image, "open", lambda path: image)
    if expected is None:
        with pytest.raises(DataError, match="floating-point|conversion from La"):
            read_image("x")
    else:
        read = read_image("x")
        assert read.mode == "RGB" and read.size == (6, 4)
        assert abs(np.asarray(read).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
@pytest.mark.parametrize("bits", [1, 8, 9, 10, 12, 14, 16])
def test_grey_values_are_scaled_by_the_bits_that_are_used(tmp_path, bits, kind):
    values = np.linspace(0, 2**bits - 1, 16 * 16).round().astype(np.uint16).reshape(16, 16)
    if kind == "PPM":  # which Pillow 10 does not write
        (tmp_path / "x").write_bytes(b"P5 16 16 65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(tmp_path / "x", kind)
    assert np.array_equal(np.asarray(read_image(tmp_path / "x"))[..., 1], values >> max(0, bits - 8))


def png(values: np.ndarray, kind: int) -> bytes:
    """16-bit values (H, W, C) as a PNG of a kind: 2 is RGB, 4 grey and alpha, 6 RGBA. Pillow writes none of these."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")]
    )


@pytest.mark.parametrize(("kind", "bands"), [(2, 3), (4, 2), (6, 4)])
def test_colours_of_16_bits_are_read_unless_they_would_be_black(tmp_path, kind, bands):
    values = np.arange(64 * bands, dtype=np.uint16).reshape(8, 8, bands) * (65_535 // (64 * bands))
    (tmp_path / "x.png").write_bytes(png(values, kind))
    assert np.asarray(read_image(tmp_path / "x.png")).max() > 240
    values //= 16
    (tmp_path / "x.png").write_bytes(png(values, kind))
    with pytest.raises(DataError, match="16 bits, but the upper 4 are unused"):
        read_image(tmp_path / "x.png", upright=True)


@pytest.mark.parametrize(("colour", "ground"), [(0, 255), (255, 0)])
@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP"])
def test_a_picture_that_transparency_alone_makes_is_seen(tmp_path, colour, ground, kind):
    image = Image.new("LA", (8, 8), (colour, 0))
    image.paste((colour, 255), (2, 2, 6, 6))
    image.convert("RGBA").save(tmp_path / "x", kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    read = np.asarray(read_image(tmp_path / "x"))
    assert (read[2:6, 2:6] == colour).all() and (read[:2] == ground).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_orientation_is_ignored_unless_asked_for(tmp_path, kind):
    exif, image = Image.Exif(), noise(40, 30)
    exif[0x0112] = 6  # turn it by 90 degrees
    image.save(tmp_path / "image", kind, exif=exif)
    stored = (30, 40) if kind == "TIFF" else (40, 30)  # Pillow turns TIFFs itself
    assert read_image(tmp_path / "image").size == stored
    turned = read_image(tmp_path / "image", upright=True)
    difference = np.asarray(turned).astype(int) - np.rot90(np.asarray(image), -1)
    assert turned.size == (30, 40) and turned.mode == "RGB" and abs(difference).mean() < 8


def test_an_orientation_beside_other_tags_that_are_wrong_counts(tmp_path):
    orientation = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
    resolution_unit = struct.pack(">HHII", 0x0128, 4, 1, 70_000)  # of a type and a value that it can't have
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 2) + orientation + resolution_unit + bytes(4)
    noise(40, 30).save(tmp_path / "image.JPEG", exif=exif)
    assert read_image(tmp_path / "image.JPEG", upright=True).size == (30, 40)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_an_image_whose_exif_cannot_be_read_is_as_stored(tmp_path):
    noise(100, 80).save(tmp_path / "image.JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff no directory")
    assert read_image(tmp_path / "image.JPEG", upright=True).size == (100, 80)
    path = tmp_path / "image.JPEG"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match="truncated"):
        read_image(path, upright=True)


@pytest.mark.parametrize("content", [b"", b"<html>", None])
def test_unreadable_file_is_an_error_that_names_it(tmp_path, content):
    path = tmp_path / "image.JPEG"
    noise(100, 100).save(path)
    path.write_bytes(path.read_bytes()[:-500] if content is None else content)
    with pytest.raises(DataError, match="can't be read .*extract the file again") as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(DataError, match="image.JPEG can't be read"):
        read_image(tmp_path / "image.JPEG")
