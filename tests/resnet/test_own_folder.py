"""One's own images in a folder: listing, splitting, and errors for unusable folders."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from image_folder import noise
from PIL import Image, ImageOps

from resnet.data import DataError
from resnet.data.folder import FolderData
from resnet.data.own_folder import every_nth, find_copies, find_images, scan_classes, split, stratified
from resnet.recipe import Recipe

CLASSES = {"a": 7, "b": 4, "c": 1}


@pytest.fixture
def root(tmp_path):
    for name, count in CLASSES.items():
        (tmp_path / "own" / name).mkdir(parents=True)
        for number in range(count):
            noise(20 + number, 24, number).save(tmp_path / "own" / name / f"{number}.png")
    return tmp_path / "own"


def names(files) -> list[str]:
    return [path.decode() for path in files.paths.tolist()]


def test_images_are_sorted_by_class_and_path_and_found_however_deep(root):
    (root / "b" / "deep").mkdir()
    noise(20, 20).save(root / "b" / "deep" / "x.png")
    (root / "a" / "notes.txt").write_text("no image")
    (root / "a" / ".hidden.png").write_bytes(b"")
    (root / ".git").mkdir()
    images = scan_classes(root)
    assert images.classes == ("a", "b", "c") and (images.empty, images.unreadable) == ((), ())
    found = names(images.files)
    assert found == sorted(found) and found[7:12] == ["b/0.png", "b/1.png", "b/2.png", "b/3.png", "b/deep/x.png"]
    assert images.files.labels.tolist() == [0] * 7 + [1] * 5 + [2]
    assert images.files.bytes.tolist() == [(root / name).stat().st_size for name in found]


def test_images_whose_value_of_white_is_unknown_are_named(root):
    values = np.arange(64 * 64).reshape(64, 64) * 1_024
    Image.fromarray(values.astype(np.float32)).save(root / "a" / "x.tiff")
    Image.fromarray(values.astype(np.int32)).save(root / "a" / "y.tiff")
    (_, first), (_, second) = scan_classes(root).unreadable
    assert "floating-point" in first and "more than 16 bits" in second


def test_files_of_phones_and_of_the_web_are_read_or_named(root):
    noise(20, 20).save(root / "a" / "x.gif")
    noise(20, 20).save(root / "a" / "x.JFIF", format="JPEG")
    (root / "a" / "x.heic").write_bytes(b"\0\0\0\x18ftypheic")
    images = scan_classes(root)
    assert {"a/x.gif", "a/x.JFIF"} < set(names(images.files))
    assert [name for name, _ in images.unreadable] == ["a/x.heic"]


def test_names_that_are_not_utf8(root):
    Path(os.fsdecode(os.fsencode(root / "a") + b"/caf\xe9.png")).write_bytes(b"")
    assert [name for name, _ in scan_classes(root).unreadable] == ["a/caf\ufffd.png"]
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9")).mkdir()
    with pytest.raises(DataError, match="names are not UTF-8 .caf\ufffd., .*: rename them"):
        scan_classes(root)


@pytest.mark.parametrize("other", ["cafe\u0301", "caf\u00e9 "])
def test_names_that_look_the_same_are_an_error(root, other):
    for name in ("caf\u00e9", other):
        (root / name).mkdir()
    with pytest.raises(DataError, match=r"names look the same \('caf.*', 'caf.*'\).*: merge them"):
        scan_classes(root)


def test_large_images_are_read_without_a_word(root, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    noise(20, 20).save(root / "a" / "large.png")
    noise(40, 40).save(root / "a" / "too large.png")
    images = scan_classes(root)
    assert "a/large.png" in names(images.files) and not recwarn.list
    assert "a/too large.png" in [name for name, why in images.unreadable if "exceeds limit" in why]


def test_images_that_cannot_be_read_are_left_out_and_named(root):
    noise(64, 64).save(root / "a" / "cut.jpg", quality=95)
    whole = (root / "a" / "cut.jpg").read_bytes()
    (root / "a" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "b" / "empty.png").write_bytes(b"")
    (root / "d").mkdir()
    (root / "d" / "text.jpg").write_text("no image")
    told = []
    images = scan_classes(root, lambda done, of: told.append((done, of)))
    assert [name for name, _ in images.unreadable] == ["a/cut.jpg", "b/empty.png", "d/text.jpg"]
    assert all(why and str(root) not in why for _, why in images.unreadable)
    assert images.classes == ("a", "b", "c") and images.empty == ("d",)
    assert told[-1] == (15, 15) and len(images.files) == 12


def test_every_fifth_image_of_the_sorted_list_is_held_out(root):
    images = scan_classes(root)
    dataset = split(images, every_nth(images, 5))
    everything = names(images.files)
    assert names(dataset.test) == everything[4::5] == ["a/4.png", "b/2.png"]
    assert sorted(names(dataset.train) + names(dataset.test)) == everything
    assert dataset.path(dataset.test, 1) == root / "b" / "2.png"
    assert dataset.test.labels.tolist() == [0, 1] and not dataset.official


def test_the_first_image_held_out_may_be_named(root):
    images = scan_classes(root)
    everything = names(images.files)
    assert names(split(images, every_nth(images, 5, first=0)).test) == everything[::5]


def test_a_share_of_each_class_is_held_out_by_the_seed(root):
    images = scan_classes(root)
    held_out = stratified(images, 0.4, seed=3)
    counts = np.bincount(images.files.labels[held_out], minlength=3).tolist()
    assert counts == [3, 2, 0]  # 40 % of 7, of 4, and none of a class with a single image
    assert np.array_equal(held_out, stratified(images, 0.4, seed=3))
    assert any(not np.array_equal(held_out, stratified(images, 0.4, seed)) for seed in range(4))
    for share, wanted in ((0.01, [1, 1, 0]), (0.99, [6, 3, 0])):
        held_out = stratified(images, share, 0)
        assert np.bincount(images.files.labels[held_out], minlength=3).tolist() == wanted
    another = split(images, stratified(images, 0.4, 0)).digest
    assert another != split(images, stratified(images, 0.2, 0)).digest


def test_splits_that_will_not_do(root):
    images = scan_classes(root)
    with pytest.raises(DataError, match="all images of c are held out.*--validation"):
        split(images, every_nth(images, 12))
    with pytest.raises(DataError, match="no image of .* is held out"):
        split(images, every_nth(images, 100))
    for share in (0, 1, -1, 1.5):
        with pytest.raises(ValueError, match="between 0 and 1"):
            stratified(images, share, 0)
    with pytest.raises(ValueError, match="no image would be left"):
        every_nth(images, 1)


def test_folders_that_will_not_do(tmp_path):
    def refused(said):
        with pytest.raises(DataError, match=said):
            scan_classes(tmp_path / "own")

    refused("there is no folder")
    (tmp_path / "own").mkdir()
    refused("but it has no sub-folder")
    noise(20, 20).save(tmp_path / "own" / "x.png")
    refused("only images directly in it")
    (tmp_path / "own" / "a").mkdir()
    (tmp_path / "own" / "b").mkdir()
    refused("there is no image in a, b .files that end in .jpg")
    noise(20, 20).save(tmp_path / "own" / "a" / "x.png")
    refused("but only a has readable images")
    for name in ("Train", "val"):
        (tmp_path / "parts" / name / "a").mkdir(parents=True)
    with pytest.raises(DataError, match="Train, val, which are not classes"):
        scan_classes(tmp_path / "parts")


@pytest.mark.parametrize(
    ("names", "such"),
    [
        (("train", "test", "val", "docs"), "train"),
        (("Training", "Testing"), "Training"),
        (("test_images", "train_images", "__MACOSX"), "train_images"),
        (("train2017", "val2017", "annotations"), "train2017"),
        (("train",), "train"),
        (("Validation set", "eval"), "Validation set"),
        (("fold_1", "fold_2", "docs"), "fold_1"),
    ],
)
def test_parts_of_a_split_are_no_classes(tmp_path, names, such):
    for name in names:
        for inner in ("a", "b"):
            (tmp_path / name / inner).mkdir(parents=True)
            noise(20, 20).save(tmp_path / name / inner / "x.png")
    with pytest.raises(DataError, match=f"which are not classes: name one of them, such as {tmp_path / such}, to"):
        scan_classes(tmp_path)
    assert scan_classes(tmp_path / such).classes == ("a", "b")


def test_a_class_may_be_named_like_a_part_and_a_folder_too_high_is_an_error(tmp_path):
    for name in ("bus/0", "train/0", "train/1"):
        (tmp_path / name).mkdir(parents=True)
        noise(20, 20).save(tmp_path / name / "x.png")
    assert scan_classes(tmp_path).classes == ("bus", "train")
    shutil.rmtree(tmp_path / "bus")
    (tmp_path / "labels").mkdir()
    with pytest.raises(DataError, match=f"if the classes are its sub-folders, name {tmp_path / 'train'}$"):
        scan_classes(tmp_path)


def test_folders_that_programs_make_are_passed_over_and_named(root):
    expected = names(scan_classes(root).files)
    for place in ("__MACOSX", "@eaDir", "#recycle", "a/@eaDir/0.png", "b/.thumbnails", "b/thumbnails", ".cache"):
        (root / place).mkdir(parents=True)
        if place != ".cache":  # a name without a dot is reported, even of an empty folder
            noise(10, 10).save(root / place / "SYNOPHOTO_THUMB_M.jpg")
    images = scan_classes(root)
    assert names(images.files) == expected and images.classes == ("a", "b", "c")
    assert [name for name, _ in images.passed_over] == [
        "#recycle", "@eaDir", "__MACOSX", "a/@eaDir", "b/.thumbnails", "b/thumbnails",
    ]  # fmt: skip
    assert len(find_images(root)) == len(expected)


def test_links_are_followed_but_not_in_circles(root, tmp_path):
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    for number in range(5):
        noise(20, 20).save(tmp_path / "elsewhere" / "deep" / f"{number}.png")
    (root / "a" / "more").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "more" / "deep" / "circle").symlink_to(root / "a")
    (root / "a" / "again").symlink_to(tmp_path / "elsewhere" / "deep")
    (root / "b" / "itself").symlink_to(root / "b" / "itself")
    (root / "b" / "gone").symlink_to(tmp_path / "nothing")
    (root / "b" / "all").symlink_to(root)
    (root / "b" / "others").symlink_to(root / "c")
    (root / "d").symlink_to(tmp_path / "nothing")
    (root / "b" / "gone.png").symlink_to(tmp_path / "nothing")
    images = scan_classes(root)
    assert sum(name.startswith("a/") for name in names(images.files)) == 7 + 5
    assert [name for name, _ in images.unreadable] == ["b/gone.png"]
    assert {name: why.split()[1] for name, why in images.passed_over} == {
        "a/again/circle": "folder", "a/more/deep": "folder", "b/all": "folder", "b/others": "folder",
        "b/gone": "broken", "b/itself": "broken", "d": "broken",
    }  # fmt: skip


def test_images_in_no_class_and_pipes_are_named(root):
    for number in range(3):
        noise(20, 20).save(root / f"{number}.png")
    os.mkfifo(root / "a" / "pipe.png")
    assert scan_classes(root).passed_over == (
        ("a/pipe.png", "not a regular file"),
        ("0.png", "an image and 2 more directly in the folder, without a class"),
    )


def test_a_sub_folder_that_cannot_be_read_is_an_error(root, monkeypatch):
    scandir = os.scandir

    def refusing(path):
        if Path(path).name == "deep":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    (root / "a" / "deep").mkdir()
    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataError, match="deep can't be read .*Permission denied"):
        scan_classes(root)


def test_held_out_copies_of_images_to_train_on_are_found(root):
    shutil.copy(root / "a" / "0.png", root / "b" / "copy.png")
    shutil.copy(root / "a" / "1.png", root / "a" / "9.png")
    other = bytearray((root / "a" / "2.png").read_bytes())
    other[-1] ^= 1  # of the same size
    (root / "b" / "other.png").write_bytes(other)
    images = scan_classes(root)
    held_out = np.isin(images.files.paths, [b"a/9.png", b"b/copy.png", b"b/other.png"])
    assert find_copies(split(images, held_out)) == [("a/9.png", "a/1.png"), ("b/copy.png", "a/0.png")]


def test_images_to_predict(root):
    assert find_images(root / "c") == [root / "c" / "0.png"] and len(find_images(root)) == 12
    assert find_images(root / "nothing.png") == [root / "nothing.png"]


def test_photographs_are_turned_as_exif_says(root):
    """In training and held out: the same as if they had been stored upright."""
    exif = Image.Exif()
    exif[0x0112] = 3  # turn it by 180 degrees
    for path in root.glob("a/*.png"):
        Image.open(path).rotate(180).save(path, exif=exif)
    recipe = Recipe(batch_size=8, milestones=(), crop="area", image_size=16)
    turned = FolderData(split(scan_classes(root), np.arange(12) % 2 == 0), "cpu", 0)
    found = [turned.batches(0, recipe, [slice(0, 8)]), turned.tests("test", slice(None), recipe)]
    found[0].load(0)
    images = [[pixels.clone() for pixels, _ in part] for part in (found[0].take(8), found[1])]
    for path in root.glob("a/*.png"):
        ImageOps.exif_transpose(Image.open(path)).save(path)
    upright = FolderData(split(scan_classes(root), np.arange(12) % 2 == 0), "cpu", 0)
    expected = upright.batches(0, recipe, [slice(0, 8)])
    expected.load(0)
    for own, part in zip(images, (expected.take(8), upright.tests("test", slice(None), recipe))):
        assert all(torch.equal(a, b) for a, (b, _) in zip(own, part, strict=True))
