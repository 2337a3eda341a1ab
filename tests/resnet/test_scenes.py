"""PASCAL VOC and ADE20K in folders of the official layouts: their content, and errors for damaged folders."""

import numpy as np
import pytest
import torch
from PIL import Image
from scene_folders import SIZES, expect, make_ade20k, make_voc, save, write_boxes

from resnet.data import DataError, load, place, scenes
from resnet.data.canvas import IGNORED
from resnet.data.colour import MEAN, STD
from resnet.recipe import Recipe
from resnet.tasks import Detection, Segmentation

RECIPE = Recipe(iterations=4, batch_size=3, milestones=(), eval_interval=4)
FCN = Segmentation(base=64, crop=48)


@pytest.fixture
def voc(tmp_path, monkeypatch):
    expect(monkeypatch, 8, 4)
    return make_voc(tmp_path)


@pytest.fixture
def ade20k(tmp_path, monkeypatch):
    expect(monkeypatch, 8, 4)
    return make_ade20k(tmp_path)


def check(name, root):
    dataset = load(name, root.parent)
    scenes.check_scenes_once(dataset, root.parent / "notes")
    return dataset


def test_boxes_of_voc(voc):
    dataset = check("voc", voc)
    assert (len(dataset.train), len(dataset.test), dataset.num_classes) == (8, 4, 21)
    years = [path.parent.parent.name for path in dataset.train.images]
    assert years == 4 * ["VOC2007"] + 4 * ["VOC2012"] and "test" in dataset.test.images[0].name
    scene = scenes.read_scene(dataset.test, 3)
    width, height = SIZES[3]
    assert scene.pixels.shape == (height, width, 3)
    assert scene.boxes.tolist() == [[0, 0, width // 2, height // 2], [width // 3 - 1, height // 3 - 1, width, height]]
    assert scene.labels.tolist() == [1, 1 + scenes.VOC_CLASSES.index("person")] and scene.difficult.tolist() == [0, 1]


def test_masks_of_ade20k(ade20k):
    dataset = check("ade20k", ade20k)
    assert (len(dataset.train), len(dataset.test), dataset.num_classes) == (8, 4, 150)
    scene = scenes.read_scene(dataset.test, 1)
    width, height = SIZES[1]
    assert scene.mask.shape == (height, width)
    assert (scene.mask[0] == 1).all() and scene.mask[-1, 0] == IGNORED and scene.mask[-1, -1] == 149


def test_training_scenes_are_scaled_and_cropped_and_images_and_masks_stay_together(ade20k):
    dataset = check("ade20k", ade20k)
    for path in (ade20k / "ADEChallengeData2016" / "images" / "training").glob("*.jpg"):
        mask = Image.open(str(path).replace("images", "annotations").replace("jpg", "png"))
        Image.fromarray(np.repeat(np.asarray(mask)[..., None], 3, axis=2)).save(path, quality=100)
    batch = place(dataset, None, "cpu").batches(0, RECIPE, FCN)(2)
    assert all(image.shape == (3, 48, 48) for image in batch.images)
    seen = set()
    for image, scene in zip(batch.images, batch.scenes):
        pixels = image * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
        inside = scene.mask != IGNORED
        seen |= set(scene.mask.flatten().tolist())
        near = (pixels[0][inside] - scene.mask[inside].float() - 1).abs() < 12  # blurred, and JPEG
        assert near.float().mean() > 0.8
    assert 149 in seen
    large = scenes._ReadTraining(dataset.train, Segmentation(base=20, crop=90), 0, False)
    scene = large([scenes._Place(0, 0, 0, False)])[0]
    assert scene.mask.shape == (90, 90) and (scene.mask[25:] == IGNORED).all() and not scene.pixels[25:].any()


def test_tests_show_every_image_once_and_masks_in_their_own_size(ade20k, voc):
    data = place(check("ade20k", ade20k), None, "cpu")
    shown = list(data.tests(FCN))
    assert len(shown) == 4 and len(list(data.tests(FCN, first=2))) == 2
    for batch, (width, height) in zip(shown, SIZES):
        assert batch.scenes[0].mask.shape == (height, width) and min(batch.images[0].shape[1:]) == 64
    (batch, *_) = place(check("voc", voc), None, "cpu").tests(Detection())
    assert batch.images[0].shape[1:] == SIZES[0][::-1], "Faster R-CNN scales images itself"


def test_files_are_read_by_workers_as_without(voc):
    dataset = check("voc", voc)
    alone, several = (place(dataset, None, "cpu", workers=n).batches(3, RECIPE, Detection()) for n in (0, 2))
    for step in (0, 1, 5):
        one, other = alone(step), several(step)
        assert all(torch.equal(a, b) for a, b in zip(one.images, other.images))
        assert all(torch.equal(a.boxes, b.boxes) for a, b in zip(one.scenes, other.scenes))
    several.close()


@pytest.mark.parametrize(("name", "make"), [("voc", make_voc), ("ade20k", make_ade20k)])
def test_a_missing_or_incomplete_folder_is_named(name, make, tmp_path, monkeypatch):
    with pytest.raises(DataError, match=f"not (complete )?in .*{name}"):
        load(name, tmp_path)
    make(tmp_path)
    with pytest.raises(DataError, match="8 training images instead of"):
        load(name, tmp_path)
    expect(monkeypatch, 8, 4)
    dataset = load(name, tmp_path)
    assert load(name, tmp_path).digest == dataset.digest
    dataset.train.annotations[3].unlink()
    with pytest.raises(DataError, match=f"lacks 1 files of its training part: .*{dataset.train.annotations[3].name}"):
        load(name, tmp_path)


def test_a_part_that_is_missing_is_named(voc, ade20k):
    (voc / "VOCdevkit" / "VOC2012").rename(voc / "elsewhere")
    with pytest.raises(DataError, match="PASCAL VOC 2012 trainval is not in"):
        load("voc", voc.parent)
    (ade20k / "ADEChallengeData2016" / "annotations" / "validation").rename(ade20k / "elsewhere")
    with pytest.raises(DataError, match="annotations/validation missing"):
        load("ade20k", ade20k.parent)


@pytest.mark.parametrize(
    ("objects", "problem"),
    [
        ([("cat", (1, 1, 200, 50), 0)], r"the box 1 1 200 50 is not in its image of 150x110"),
        ([("cat", (0, 1, 20, 50), 0)], r"the box 0 1 20 50 is not in its image"),
        ([("cat", (30, 1, 20, 50), 0)], r"the box 30 1 20 50 is not in its image"),
        ([("unicorn", (1, 1, 20, 50), 0)], "unknown class 'unicorn'"),
    ],
)
def test_an_annotation_of_voc_that_does_not_fit_is_named(voc, objects, problem):
    check("voc", voc)
    bad = voc / "VOCdevkit" / "VOC2007" / "Annotations" / "2007_trainval_000000.xml"
    write_boxes(bad, objects)
    with pytest.raises(DataError, match=f"1 of 12 annotations .*{bad.name} \\({problem}"):
        check("voc", voc)
    bad.write_text("<annotation>")
    with pytest.raises(DataError, match=f"{bad.name} \\(no element found"):
        check("voc", voc)


def test_a_mask_of_ade20k_that_does_not_fit_is_named(ade20k):
    bad = ade20k / "ADEChallengeData2016" / "annotations" / "validation" / "ADE_valid_00000001.png"
    width, height = SIZES[1]
    Image.fromarray(np.full((height, width), 151, np.uint8)).save(bad)
    with pytest.raises(DataError, match=f"{bad.name} \\(unknown class 151"):
        check("ade20k", ade20k)
    Image.fromarray(np.ones((height, width + 1), np.uint8)).save(bad)
    with pytest.raises(DataError, match=f"its size is {width + 1}x{height}, but the image's {width}x{height}"):
        check("ade20k", ade20k)


def test_files_are_checked_again_only_if_they_changed(voc, monkeypatch):
    check("voc", voc)
    monkeypatch.setattr(scenes, "why_unusable", lambda *_: "looked at")
    check("voc", voc)
    image = next((voc / "VOCdevkit" / "VOC2007" / "JPEGImages").iterdir())
    save(np.random.default_rng(5), image, 33, 44)
    with pytest.raises(DataError, match="looked at"):
        check("voc", voc)
