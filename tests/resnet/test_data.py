"""Damaged or missing data are errors with a remedy; the synthetic images are always the same."""

import hashlib
import itertools
import pickle
import urllib.error
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets.cifar
from damage import empty, flip_bit, replace, truncate
from torchvision.datasets import CIFAR10, CIFAR100

from resnet import data
from resnet.data import DataError, cifar, synthetic
from resnet.data.synthetic import make_synthetic

SHAPES = {
    "train_images": (50, 32, 32, 3),
    "train_labels": (50,),
    "test_images": (10, 32, 32, 3),
    "test_labels": (10,),
}


@pytest.fixture
def small(monkeypatch):
    """CIFAR-10 with 50 and 10 images."""
    monkeypatch.setattr(cifar, "SHAPES", SHAPES)


def make_arrays():
    rng = np.random.default_rng(0)
    limit = {True: 10, False: 256}
    return {name: rng.integers(0, limit["labels" in name], shape, dtype=np.uint8) for name, shape in SHAPES.items()}


def write_archive(folder, **changes):
    arrays = {name: array for name, array in (make_arrays() | changes).items() if array is not None}
    np.savez_compressed(folder / "cifar10.npz", **arrays)
    return folder / "cifar10.npz"


def test_shapes_are_cifar10s():
    assert cifar.SHAPES["train_images"] == (50_000, 32, 32, 3) and cifar.SHAPES["test_labels"] == (10_000,)
    assert data.TRAIN_IMAGES["cifar10"] == 50_000


def test_archive(small, tmp_path):
    write_archive(tmp_path)
    dataset, arrays = data.load("cifar10", tmp_path, download=False), make_arrays()
    for name, array in arrays.items():
        assert np.array_equal(getattr(dataset, name), array)
    assert (dataset.name, dataset.num_classes, dataset.official) == ("cifar10", 10, False)
    assert dataset.digest == hashlib.sha256(b"".join(arrays[name].tobytes() for name in SHAPES)).hexdigest()


def test_an_archive_may_say_which_test_images_are_not_exact(small, tmp_path):
    write_archive(tmp_path)
    whole = data.load("cifar10", tmp_path)
    write_archive(tmp_path, jpeg_test=np.array([2, 7], np.int32))
    copy = data.load("cifar10", tmp_path)
    assert whole.inexact_test == () and copy.inexact_test == (2, 7) and copy.digest == whole.digest
    assert data.place(copy, None, "cpu").inexact_test == (2, 7)


@pytest.mark.parametrize("positions", [[10], [-1], [0.5], [[1]], ["a"]])
def test_positions_that_are_none_are_an_error(small, tmp_path, positions):
    write_archive(tmp_path, jpeg_test=np.array(positions))
    with pytest.raises(DataError, match="cifar10.npz: jpeg_test is not a list of positions from 0 to 9"):
        data.load("cifar10", tmp_path)


def test_digest_changes_with_a_single_pixel(small, tmp_path):
    write_archive(tmp_path)
    before = data.load("cifar10", tmp_path).digest
    images = make_arrays()["test_images"]
    images[3, 2, 1, 0] ^= 1
    write_archive(tmp_path, test_images=images)
    assert data.load("cifar10", tmp_path).digest != before


LABELS = np.zeros(50, np.uint8)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"train_labels": None}, "no array train_labels"),
        ({"train_labels": LABELS.astype(np.int64)}, "train_labels is int64"),
        ({"train_labels": LABELS[:-1]}, r"train_labels is uint8 \(49,\), not uint8 \(50,\)"),
        ({"train_labels": LABELS + 10}, "train_labels has a label 10"),
        ({"test_images": np.zeros((10, 3, 32, 32), np.uint8)}, "test_images is uint8"),
        ({"test_images": np.zeros((10, 32, 32, 3), np.float32)}, "test_images is float32"),
        ({"train_images": np.array([{"a": "pickled object"}])}, "damaged"),
    ],
)
def test_wrong_array_is_an_error_that_names_it(small, tmp_path, changes, problem):
    path = write_archive(tmp_path, **changes)
    with pytest.raises(DataError, match=problem) as caught:
        data.load("cifar10", tmp_path, download=False)
    assert str(path) in str(caught.value) and "replace the file, or remove it" in str(caught.value)


def a_single_array(path):
    with path.open("wb") as file:
        np.save(file, LABELS)


def other_files(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name in SHAPES:
            archive.writestr(name, b"not an array")


@pytest.mark.parametrize("damage", [truncate, flip_bit, empty, replace, a_single_array, other_files])
def test_damaged_archive_is_an_error_that_names_it(small, tmp_path, damage):
    path = write_archive(tmp_path)
    damage(path)
    said = "train_images is .*, not uint8" if damage is other_files else "is damaged"
    with pytest.raises(DataError, match=said) as caught:
        data.load("cifar10", tmp_path, download=False)
    assert str(path) in str(caught.value) and "replace the file, or remove it" in str(caught.value)


@pytest.mark.parametrize("function", ["is_file", "open"])
def test_an_archive_of_another_user_is_not_called_damaged(small, tmp_path, monkeypatch, function):
    path = write_archive(tmp_path)

    def denied(*arguments, **more):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(*((Path, "is_file") if function == "is_file" else (np, "load")), denied)
    with pytest.raises(DataError, match=rf"^{path} can't be accessed \(Permission denied\); .*--data"):
        data.load("cifar10", tmp_path, download=False)


def test_code_in_an_archive_is_not_executed(small, tmp_path):
    victim = tmp_path / "executed"

    class Malicious:
        def __reduce__(self):
            return open, (str(victim), "w")

    write_archive(tmp_path, train_images=np.array([Malicious()], dtype=object))
    with pytest.raises(DataError):
        data.load("cifar10", tmp_path, download=False)
    assert not victim.exists()


def test_missing_data_say_what_to_do(tmp_path):
    with pytest.raises(DataError) as caught:
        data.load("cifar10", tmp_path, download=False)
    message = str(caught.value)
    assert str(tmp_path / "cifar-10-batches-py") in message and "downloading is off" in message
    assert "cifar-10-python.tar.gz" in message and "cifar10.npz" in message and "--data" in message


def test_failed_download_says_what_to_do(tmp_path, monkeypatch):
    def off_line(*arguments, **options):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torchvision.datasets.cifar, "download_and_extract_archive", off_line)
    with pytest.raises(DataError, match="could not be downloaded.*no network.*cifar-10-python.tar.gz"):
        data.load("cifar10", tmp_path)


def write_official(monkeypatch, kind, folder, train, test, meta, names):
    """Write files like the official ones, given by name, into a folder, and have torchvision expect them."""
    folder.mkdir()

    def write(name, content):
        pickled = pickle.dumps(content)
        (folder / name).write_bytes(pickled)
        return [name, hashlib.md5(pickled).hexdigest()]

    monkeypatch.setattr(kind, "train_list", [write(*file) for file in train.items()])
    monkeypatch.setattr(kind, "test_list", [write(*file) for file in test.items()])
    name, checksum = write(meta, names)
    monkeypatch.setattr(kind, "meta", {"filename": name, "key": next(iter(names)), "md5": checksum})
    return folder


def rows(images):
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


@pytest.fixture
def batches(tmp_path, monkeypatch):
    """CIFAR-10's files, of ten images each."""
    arrays = make_arrays()
    parts = [*zip(np.split(arrays["train_images"], 5), np.split(arrays["train_labels"], 5))]
    files = {f"data_batch_{number}": part for number, part in enumerate(parts, 1)}
    files["test_batch"] = arrays["test_images"], arrays["test_labels"]
    train = {name: {"data": rows(images), "labels": labels.tolist()} for name, (images, labels) in files.items()}
    test = {"test_batch": train.pop("test_batch")}
    folder, names = tmp_path / "cifar-10-batches-py", {"label_names": list("abcdefghij")}
    return write_official(monkeypatch, CIFAR10, folder, train, test, "batches.meta", names)


def test_the_same_arrays_have_the_same_digest_from_an_archive_and_from_official_files(batches, small, tmp_path):
    official = data.load("cifar10", tmp_path, download=False)
    write_archive(tmp_path)
    archive = data.load("cifar10", tmp_path, download=False)
    assert archive.digest == official.digest
    assert official.official and not archive.official
    for name, array in make_arrays().items():
        assert np.array_equal(getattr(official, name), array) and getattr(official, name).dtype == np.uint8


@pytest.mark.parametrize("name", ["cifar-10-batches-py", "renamed"])
def test_the_folder_of_the_official_files_may_be_named_itself(batches, monkeypatch, name):
    monkeypatch.setattr(
        torchvision.datasets.cifar, "download_and_extract_archive", lambda *a, **k: pytest.fail("loads")
    )
    folder = batches.rename(batches.with_name(name))
    assert data.load("cifar10", folder).official
    truncate(folder / "data_batch_3")
    with pytest.raises(DataError, match=f"{folder} is missing or damaged and downloading is off"):
        data.load("cifar10", folder)


def test_the_archive_may_be_named_itself(small, tmp_path):
    path = write_archive(tmp_path)
    assert data.load("cifar10", path).digest == data.load("cifar10", tmp_path).digest
    other = path.rename(tmp_path / "mine.npz")
    with pytest.raises(DataError, match="mine.npz is a file: name its folder.*to cifar10.npz"):
        data.load("cifar10", other)


@pytest.fixture
def cifar100_files(tmp_path, monkeypatch):
    """CIFAR-100's files, of 50 and 10 images."""
    arrays = make_arrays()

    def split(which):
        images, labels = arrays[f"{which}_images"], arrays[f"{which}_labels"]
        content = {"data": rows(images), "fine_labels": (labels + 90).tolist(), "coarse_labels": labels.tolist()}
        return {which: content | {"filenames": [f"{i}.png" for i in range(len(labels))], "batch_label": which}}

    folder, names = tmp_path / "cifar-100-python", {"fine_label_names": [f"fine {i}" for i in range(100)]}
    return write_official(monkeypatch, CIFAR100, folder, split("train"), split("test"), "meta", names)


def test_cifar100_has_the_fine_labels_of_the_official_files(cifar100_files, small, tmp_path):
    official, arrays = data.load("cifar100", tmp_path, download=False), make_arrays()
    assert (official.name, official.num_classes, official.official) == ("cifar100", 100, True)
    for which in ("train", "test"):
        assert np.array_equal(getattr(official, f"{which}_images"), arrays[f"{which}_images"])
        labels = getattr(official, f"{which}_labels")
        assert np.array_equal(labels, arrays[f"{which}_labels"] + 90) and labels.dtype == np.uint8
    assert data.load("cifar100", cifar100_files, download=False).digest == official.digest
    fine = {f"{which}_labels": arrays[f"{which}_labels"] + np.uint8(90) for which in ("train", "test")}
    np.savez_compressed(tmp_path / "cifar100.npz", **arrays | fine)
    copy = data.load("cifar100", tmp_path)
    assert copy.digest == official.digest and not copy.official and copy.num_classes == 100
    assert data.TRAIN_IMAGES["cifar100"] == 50_000 and data.NUM_CLASSES["cifar100"] == 100


@pytest.mark.parametrize("name", ["train", "test", "meta"])
@pytest.mark.parametrize("damage", [truncate, flip_bit, Path.unlink])
def test_a_damaged_file_of_cifar100_is_named(cifar100_files, tmp_path, name, damage):
    damage(cifar100_files / name)
    with pytest.raises(DataError, match="CIFAR-100 is not in .*cifar-100-python is missing or damaged") as caught:
        data.load("cifar100", tmp_path, download=False)
    assert "cifar-100-python.tar.gz" in str(caught.value) and str(tmp_path / "cifar100.npz") in str(caught.value)


def test_an_archive_of_cifar100_has_labels_below_100(small, tmp_path):
    np.savez_compressed(tmp_path / "cifar100.npz", **make_arrays() | {"train_labels": LABELS + 100})
    with pytest.raises(DataError, match="train_labels has a label 100, but the classes are 0 to 99"):
        data.load("cifar100", tmp_path)


def test_torchvisions_checksums_are_the_ones_of_the_published_files():
    assert CIFAR100.tgz_md5 == "eb9058c3a382ffc7106e4002c42a8d85"  # as on the data set's own page
    assert CIFAR100.train_list == [["train", "16019d7e3df5f24257cddd939b257f8d"]]
    assert CIFAR100.test_list == [["test", "f0ef6b0ae62326f3e7ffdfab6717acfc"]]


def test_only_many_classes_have_a_top_5_error():
    few, many = (data.load(name) for name in ("synthetic", "synthetic_cifar100"))
    assert not data.place(few, None, "cpu").top5 and data.place(many, None, "cpu").top5
    assert {"cifar100", "synthetic_cifar100"} < {*data.WITH_TOP5} and "cifar10" not in data.WITH_TOP5


def test_synthetic_images_of_100_classes_are_balanced_and_of_the_shapes_of_ten():
    dataset, ten = data.load("synthetic_cifar100"), data.load("synthetic")
    assert np.bincount(dataset.train_labels).tolist() == 100 * [20] and dataset.num_classes == 100
    assert np.bincount(dataset.test_labels).tolist() == 100 * [5]
    assert np.array_equal(dataset.train_labels // 10, ten.train_labels)
    means = [dataset.train_images[dataset.train_labels % 10 == tint].mean(axis=(0, 1, 2)) for tint in range(10)]
    assert min(np.abs(a - b).max() for a, b in itertools.combinations(means, 2)) > 20


def test_unknown_name_lists_the_data_sets():
    with pytest.raises(ValueError, match="'cifar101'.*cifar10, cifar100, mnist, synthetic"):
        data.load("cifar101")


def test_synthetic_is_the_same_every_time():
    """Records of the smoke profile are of these images."""
    assert make_synthetic(50, 20).digest == "9d76735414c7fe25f6f60621a4fc3ac761af615be9ef2f90c9859ba9767fa9de"
    assert make_synthetic(50, 20, seed=1).digest != make_synthetic(50, 20).digest


def test_synthetic_images():
    dataset = data.load("synthetic")
    assert (dataset.name, dataset.num_classes) == ("synthetic", 10)
    assert dataset.train_images.shape == (synthetic.TRAIN_IMAGES, 32, 32, 3) and dataset.train_images.dtype == np.uint8
    assert dataset.test_images.shape == (synthetic.TEST_IMAGES, 32, 32, 3)
    assert data.TRAIN_IMAGES["synthetic"] == synthetic.TRAIN_IMAGES
    assert np.bincount(dataset.train_labels).tolist() == 10 * [synthetic.TRAIN_IMAGES // 10]
    assert np.bincount(dataset.test_labels).tolist() == 10 * [synthetic.TEST_IMAGES // 10]
    both = np.concatenate([dataset.train_images, dataset.test_images])
    assert len(np.unique(both.reshape(len(both), -1), axis=0)) == len(both)


def test_synthetic_is_too_hard_for_a_linear_classifier():
    """Least squares on all pixels, with the best of three penalties."""
    dataset = make_synthetic()
    train, test = (
        torch.from_numpy(images).float().flatten(1) / 255 for images in (dataset.train_images, dataset.test_images)
    )
    train, test = train - train.mean(dim=0), test - train.mean(dim=0)
    labels = torch.from_numpy(dataset.train_labels).long()
    targets = torch.nn.functional.one_hot(labels).float() - 0.1
    kernel = train @ train.T
    errors = []
    for penalty in (10.0, 100.0, 1_000.0):
        weights = torch.linalg.solve(kernel + penalty * torch.eye(len(train)), targets)
        answers = (test @ train.T @ weights).argmax(dim=1)
        errors.append((answers != torch.from_numpy(dataset.test_labels)).float().mean().item())
    assert min(errors) > 0.6
