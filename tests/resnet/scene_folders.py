"""Folders of a few images in the official layouts of PASCAL VOC and ADE20K, and data sets that expect no more."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnet.data import scenes

SIZES = ((150, 110), (96, 130), (120, 120), (140, 100))  # width and height, in turn
OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin>
<ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox><part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2
</xmax><ymax>2</ymax></bndbox></part></object>"""


def expect(patch: pytest.MonkeyPatch, train: int, test: int) -> None:
    """Have the loaders expect so many images instead of the official numbers."""
    for name, layout in scenes.LAYOUTS.items():
        patch.setitem(scenes.LAYOUTS, name, layout._replace(train_images=train, test_images=test))


def make_voc(data: Path, train: int = 8, test: int = 4) -> Path:
    """A folder ``data/voc``: half of the training images are of 2007 and half of 2012."""
    rng, root = np.random.default_rng(0), data / "voc" / "VOCdevkit"
    parts = (("2007", "trainval", train // 2), ("2012", "trainval", train - train // 2), ("2007", "test", test))
    for year, part, count in parts:
        home = root / f"VOC{year}"
        names = [f"{year}_{part}_{number:06}" for number in range(count)]
        for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (home / folder).mkdir(parents=True, exist_ok=True)
        (home / "ImageSets" / "Main" / f"{part}.txt").write_text("".join(f"{name}\n" for name in names))
        for number, name in enumerate(names):
            width, height = SIZES[number % len(SIZES)]
            save(rng, home / "JPEGImages" / f"{name}.jpg", width, height)
            boxes = [(1, 1, width // 2, height // 2), (width // 3, height // 3, width, height)][: 1 + number % 2]
            kinds = (scenes.VOC_CLASSES[number % 3], "person")
            write_boxes(home / "Annotations" / f"{name}.xml", zip(kinds, boxes, (0, number % 4 == 3)))
    return data / "voc"


def write_boxes(path: Path, objects) -> None:
    texts = [OBJECT.format(name=name, box=box, difficult=int(difficult)) for name, box, difficult in objects]
    path.write_text(f"<annotation><filename>x.jpg</filename>{''.join(texts)}</annotation>")


def make_ade20k(data: Path, train: int = 8, test: int = 4) -> Path:
    """A folder ``data/ade20k``; its masks have classes up to 150 and unlabelled pixels."""
    rng, root = np.random.default_rng(1), data / "ade20k" / "ADEChallengeData2016"
    for part, count in (("training", train), ("validation", test)):
        for kind in ("images", "annotations"):
            (root / kind / part).mkdir(parents=True)
        for number in range(count):
            width, height = SIZES[number % len(SIZES)]
            name = f"ADE_{part[:5]}_{number:08}"
            save(rng, root / "images" / part / f"{name}.jpg", width, height)
            mask = np.zeros((height, width), np.uint8)
            mask[: height // 2], mask[height // 2 :, width // 3 :] = 1 + number % 3, 150
            Image.fromarray(mask).save(root / "annotations" / part / f"{name}.png")
    return data / "ade20k"


def save(rng: np.random.Generator, path: Path, width: int, height: int) -> None:
    coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path, format="JPEG")
