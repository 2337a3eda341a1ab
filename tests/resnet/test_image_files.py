"""Folders of images: their content, and an error with a remedy for everything missing or damaged."""

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from damage import empty, replace, truncate
from image_folder import make_dataset, make_folder, noise
from PIL import Image

from resnet import data
from resnet.data import DataError, image_files, synthetic_folder
from resnet.data.image_files import Counts, check_images, check_images_once, load_folder, scan_folder


@pytest.fixture
def imagenet(tmp_path, monkeypatch):
    """A folder like ImageNet's, where ImageNet has 3 classes of 4 or 5 training images and 2 test images each."""
    monkeypatch.setitem(image_files.EXPECTED, "imagenet", Counts(3, 14, 6, (4, 5)))
    root = make_folder(tmp_path / "imagenet", classes=("n01", "n02", "n03"), train=5, test=2)
    (root / "train" / "n02" / "4.JPEG").unlink()
    return root


def test_expected_counts_are_imagenets():
    assert image_files.EXPECTED["imagenet"] == (1_000, 1_281_167, 50_000, (732, 1_300))
    assert data.TRAIN_IMAGES["imagenet"] == 1_281_167 and data.FOLDERS == ("imagenet", "synthetic_imagenet")


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return folder, load_folder("synthetic_imagenet", folder)


def test_what_is_found(imagenet):
    dataset = data.load("imagenet", imagenet.parent)
    assert (dataset.name, dataset.classes, dataset.num_classes, dataset.official) == (
        "imagenet", ("n01", "n02", "n03"), 3, True,
    )  # fmt: skip
    assert scan_folder("imagenet", imagenet).official
    assert dataset.train.labels.tolist() == 5 * [0] + 4 * [1] + 5 * [2] and len(dataset.train) == 14
    assert dataset.test.paths.tolist() == [f"val/{n}/{i}.JPEG".encode() for n in dataset.classes for i in range(2)]
    assert dataset.path(dataset.train, 6) == imagenet / "train" / "n02" / "1.JPEG"
    assert all(dataset.path(dataset.train, i).stat().st_size == dataset.train.bytes[i] for i in range(14))


def test_the_data_sets_folder_may_be_named_itself(imagenet):
    folder = imagenet.rename(imagenet.with_name("ILSVRC2012"))
    assert len(load_folder("imagenet", folder).train) == 14
    shutil.rmtree(folder / "train")
    assert len(image_files.load_test_folder("imagenet", folder).test) == 6
    with pytest.raises(DataError, match="there is no folder .*nothing/imagenet: put imagenet there"):
        load_folder("imagenet", folder / "nothing")


def test_digest_is_of_the_sorted_paths_and_sizes(imagenet):
    paths = sorted(path for path in imagenet.rglob("*.JPEG"))
    text = "".join(f"{path.relative_to(imagenet)} {path.stat().st_size}\n" for path in paths)
    dataset = load_folder("imagenet", imagenet.parent)
    assert dataset.digest == hashlib.sha256(text.encode()).hexdigest()
    with paths[3].open("ab") as file:
        file.write(b"x")
    assert load_folder("imagenet", imagenet.parent).digest != dataset.digest


def test_only_images_count(imagenet):
    before = load_folder("imagenet", imagenet.parent).digest
    for name in ("._1.JPEG", "Thumbs.db", "list.txt"):
        (imagenet / "train" / "n01" / name).write_bytes(b"no image")
    (imagenet / "train" / ".cache").mkdir()
    (imagenet / "train" / "list.txt").touch()
    assert load_folder("imagenet", imagenet.parent).digest == before


def test_suffixes_in_any_case_and_links(imagenet):
    folder = imagenet / "train" / "n02"
    (folder / "0.JPEG").rename(folder / "0.jpg")
    (imagenet / "train" / "n02").rename(imagenet / "elsewhere")
    (imagenet / "train" / "n02").symlink_to(imagenet / "elsewhere")
    assert len(load_folder("imagenet", imagenet.parent).train) == 14


def flatten(folder):
    """Put the images of all classes into one folder."""
    for path in [*folder.glob("*/*")]:
        path.rename(folder / f"{path.parent.name}_{path.name}")
    for path in folder.glob("n*/"):
        path.rmdir()


def clear(folder, *names):
    """Remove these files, or all."""
    for path in [folder / name for name in names] or [*folder.iterdir()]:
        path.unlink()


ARRANGED = "as train/<class>/<image> and val/<class>/<image>"
INCOMPLETE = {
    "no folder": (shutil.rmtree, "", ARRANGED),
    "no training images": (lambda root: shutil.rmtree(root / "train"), "train", "no folder"),
    "no test images": (lambda root: shutil.rmtree(root / "val"), "val", "no folder"),
    "flat": (lambda root: flatten(root / "val"), "val", "not in a folder for every class: move each image to"),
    "empty": (lambda root: (shutil.rmtree(root / "val"), (root / "val").mkdir()), "val", "is empty"),
    "another class": (lambda root: (root / "val" / "n02").rename(root / "val" / "dog"), "val",
                      "different class folders: dog only in val, n02 only in train"),
    "a class less": (lambda root: [shutil.rmtree(root / part / "n03") for part in ("train", "val")], "train",
                     "2 class folders, but imagenet has 3"),
    "an empty class": (lambda root: clear(root / "train" / "n02"), "train/n02", "no image in"),
    "two training images less": (lambda root: clear(root / "train" / "n02", "0.JPEG", "1.JPEG"), "train",
                                 "12 images instead of 14: every class should have 4 to 5, but n02 has 2;"),
    "a training image less": (lambda root: clear(root / "train" / "n01", "0.JPEG"), "train",
                              r"13 images instead of 14: every class has a plausible number \(4 to 5\)"),
    "a test image less": (lambda root: clear(root / "val" / "n03", "0.JPEG"), "val",
                          "5 images instead of 6: every class should have 2, but n03 has 1;"),
    "a test image more": (lambda root: shutil.copy(root / "val" / "n03" / "0.JPEG", root / "val" / "n03" / "x.JPEG"),
                          "val", "7 images instead of 6: every class should have 2, but n03 has 3;"),
}  # fmt: skip


@pytest.mark.parametrize("what", INCOMPLETE)
def test_incomplete_folder_is_an_error_that_names_it(imagenet, what):
    change, path, problem = INCOMPLETE[what]
    change(imagenet)
    with pytest.raises(DataError, match=problem) as caught:
        load_folder("imagenet", imagenet.parent)
    assert str(imagenet / path) in str(caught.value)
    if what == "a training image less":
        assert not scan_folder("imagenet", imagenet).official


def test_a_message_has_a_few_names_and_how_many_more(imagenet):
    for number in range(20):
        (imagenet / "val" / f"x{number:02}").mkdir()
    with pytest.raises(DataError, match="x00 only in val, x01 .*, x04 only in val and 15 more"):
        load_folder("imagenet", imagenet.parent)


def test_good_images_of_all_kinds_are_good(tmp_path):
    dataset = make_dataset(tmp_path)
    folder = dataset.root / "train" / "a"
    noise(50, 60).save(folder / "0.JPEG", format="PNG")  # ImageNet has one of these
    noise(50, 60).convert("CMYK").save(folder / "1.JPEG", format="JPEG")
    noise(50, 60).convert("L").save(folder / "2.JPEG")
    noise(50, 60).save(folder / "3.JPEG", format="BMP")
    (folder / "4.JPEG").write_bytes((folder / "2.JPEG").read_bytes() + b"more by some program")
    check_images(dataset)


def remade(how, damage):
    """Damage done to an image that is of another format."""
    return lambda path: (noise(50, 60).save(path, format=how), damage(path))


@pytest.mark.parametrize(
    "damage",
    [
        truncate, lambda path: path.write_bytes(path.read_bytes()[:-1_500] + bytes(1_500)), remade("PNG", truncate),
        remade("BMP", truncate), empty, replace, lambda path: path.unlink(),
    ],
    ids=["truncated", "truncated and filled", "truncated PNG", "truncated bitmap", "empty", "replaced", "removed"],
)  # fmt: skip
def test_unreadable_images_are_named(tmp_path, damage):
    dataset = make_dataset(tmp_path)
    paths = [dataset.root / "train" / "b" / "3.JPEG", dataset.root / "val" / "a" / "0.JPEG"]
    for path in paths:
        noise(200, 200).save(path, format="JPEG", quality=95)
        damage(path)
    with pytest.raises(DataError, match="2 of 14 images below .* can't be read: .*; extract them again") as caught:
        check_images(dataset)
    assert all(f"{path} (" in str(caught.value) for path in paths)


def test_images_are_checked_once(tmp_path, monkeypatch):
    dataset, cache = make_dataset(tmp_path), tmp_path / "cache"
    calls, check = [], check_images
    monkeypatch.setattr(image_files, "check_images", lambda *args, **kw: (calls.append(1), check(*args, **kw)))
    path = dataset.path(dataset.test, 0)
    content = path.read_bytes()
    truncate(path)
    for _ in range(2):
        with pytest.raises(DataError, match="1 of 14"):
            check_images_once(dataset, cache)
    assert not cache.exists()
    path.write_bytes(content)
    for _ in range(2):
        check_images_once(dataset, cache)
    assert len(calls) == 3 and [file.name for file in cache.iterdir()] == [f"{dataset.digest}.checked"]


def test_synthetic_folder(synthetic):
    folder, dataset = synthetic
    assert (dataset.num_classes, len(dataset.train), len(dataset.test), dataset.official) == (10, 400, 100, True)
    assert np.bincount(dataset.train.labels).tolist() == 10 * [40]
    check_images(dataset)
    sizes, modes = set(), set()
    for index in range(400):
        with Image.open(dataset.path(dataset.train, index)) as image:
            sizes |= set(image.size)
            modes.add(image.mode)
    assert min(sizes) == 40 and max(sizes) == 90 and modes == {"RGB", "L"}
    assert [path.name for path in folder.iterdir()] == ["synthetic_imagenet"]
    (folder / "ordinary").mkdir()
    assert (folder / "synthetic_imagenet").stat().st_mode == (folder / "ordinary").stat().st_mode


def test_synthetic_folder_is_the_same_every_time(synthetic, tmp_path):
    again = load_folder("synthetic_imagenet", tmp_path)
    assert again.digest == synthetic[1].digest
    assert np.array_equal(again.train.paths, synthetic[1].train.paths)
    assert all(again.path(again.train, i).read_bytes() == synthetic[1].path(again.train, i).read_bytes()
               for i in range(0, 400, 50))  # fmt: skip


def test_synthetic_folder_is_made_once_whole_and_by_many_at_once(tmp_path, monkeypatch):
    calls, write = [], synthetic_folder.write
    monkeypatch.setattr(synthetic_folder, "write", lambda folder: (calls.append(folder), write(folder)))
    with ThreadPoolExecutor(3) as threads:
        datasets = list(threads.map(lambda _: load_folder("synthetic_imagenet", tmp_path), range(3)))
    assert len({dataset.digest for dataset in datasets}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["synthetic_imagenet"]
    made = len(calls)
    load_folder("synthetic_imagenet", tmp_path)
    assert len(calls) == made


def test_synthetic_folder_that_was_not_finished_does_not_matter(tmp_path, monkeypatch):
    def killed(folder):
        (folder / "train" / "disc").mkdir(parents=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(synthetic_folder, "write", killed)
        load_folder("synthetic_imagenet", tmp_path)
    assert not (tmp_path / "synthetic_imagenet").exists()
    (tmp_path / ".synthetic_imagenet.abc.tmp" / "synthetic_imagenet" / "train").mkdir(parents=True)
    assert load_folder("synthetic_imagenet", tmp_path).official


def test_synthetic_folder_where_nothing_can_be_written_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="can't write .*--data"):
        load_folder("synthetic_imagenet", tmp_path / "file")


def test_synthetic_folder_of_unknown_origin_is_an_error(tmp_path):
    make_folder(tmp_path / "synthetic_imagenet")
    with pytest.raises(DataError, match="pixels.sha256 can't be read .*; remove .*synthetic_imagenet to"):
        load_folder("synthetic_imagenet", tmp_path)
