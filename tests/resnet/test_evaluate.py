"""Tests of a network on an image folder equal plain tests, one image and one view at a time."""

import numpy as np
import pytest
import torch
from image_folder import make_dataset, noise
from torch import nn
from torchvision.models import ResNet50_Weights

from resnet.data.colour import MEAN, STD
from resnet.data.dataset import DataError
from resnet.data.folder import FolderData
from resnet.data.image_files import EXPECTED, Counts, load_folder, load_test_folder
from resnet.distributed import Group
from resnet.evaluate import TESTS, count_wrong_in
from resnet.recipe import Recipe

SIZE = 28
RECIPE = Recipe(crop="scale", image_size=SIZE, milestones=())
CLASSES = tuple("abcdefgh")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """32 test images of 8 classes, two of which have the same size and one of which is grey."""
    dataset = make_dataset(tmp_path_factory.mktemp("folder"), classes=CLASSES, train=1, test=4)
    for number in (4, 7):
        noise(80, 41, number).save(dataset.path(dataset.test, number))
    noise(50, 67, 9).convert("L").save(dataset.path(dataset.test, 9))
    return dataset


@pytest.fixture(scope="module")
def model():
    """A net whose predictions differ so much between views that averaging something else gives other errors."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 16, 5, stride=2), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveMaxPool2d(1))
    head = nn.Linear(16, len(CLASSES))
    nn.init.normal_(head.weight, std=3)
    return nn.Sequential(body, nn.Flatten(), head).eval()


def plainly(model, dataset, test: str) -> list[tuple[bool, bool]]:
    """Of each image whether it is classified wrong, and whether the right class is not among the first 5.

    :mod:`test_folder` has statements of the views themselves.
    """
    wrong, data = [], FolderData(dataset, "cpu", 0)
    for number in range(len(dataset.test)):
        part = slice(number, number + 1)
        found = data.tests("test", part, RECIPE) if test == "center" else data.views(test, part, RECIPE)
        ((views, (label,)),) = ((one if isinstance(one, list) else [one], labels) for one, labels in found)
        with torch.no_grad():
            logits = [model(view)[0].double() for view in views]
        predictions = [logit.exp().numpy() / logit.exp().sum().item() for logit in logits]
        ranked = np.argsort(-np.mean(predictions, axis=0))
        wrong.append((ranked[0] != label, label not in ranked[:5]))
    return wrong


@pytest.mark.parametrize("test", TESTS)
def test_errors_are_those_of_a_plain_statement(model, dataset, test):
    expected = np.array(plainly(model, dataset, test)).sum(axis=0)
    found = count_wrong_in(test, model, FolderData(dataset, "cpu", 0), RECIPE)
    assert found.tolist() == expected.tolist()
    assert 0 < expected[1] < expected[0] < len(dataset.test)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("test", TESTS)
def test_processes_count_every_image_once(model, dataset, test, workers):
    data, images = FolderData(dataset, "cpu", workers), len(dataset.test)
    whole = count_wrong_in(test, model, data, RECIPE)
    parts = [Group(rank, 2).share(images) for rank in range(2)]
    assert torch.equal(sum(count_wrong_in(test, model, data, RECIPE, part) for part in parts), whole)


@pytest.mark.parametrize("test", TESTS)
def test_errors_do_not_depend_on_the_batch(model, dataset, test):
    counts = [count_wrong_in(test, model, FolderData(dataset, "cpu", 0, batch), RECIPE).tolist() for batch in (None, 3)]
    assert counts[0] == counts[1]


def test_normalisation_is_torchvisions_but_for_half_a_grey_value():
    transforms = ResNet50_Weights.IMAGENET1K_V1.transforms()
    mean, std = (255 * np.array(values) for values in (transforms.mean, transforms.std))
    assert np.abs(mean - MEAN).max() < 0.5 and np.abs(std - STD).max() < 0.01
    assert (np.abs(mean - MEAN) / STD).max() < 0.01


# ----------------------------------------------------------------------------------------------- test images alone


def test_test_images_alone_are_those_of_the_whole_folder(tmp_path):
    whole = load_folder("synthetic_imagenet", tmp_path)
    alone = load_test_folder("synthetic_imagenet", tmp_path)
    assert alone.classes == whole.classes and len(alone.train) == 0 and alone.official
    assert alone.test.paths.tolist() == whole.test.paths.tolist()
    assert np.array_equal(alone.test.labels, whole.test.labels)


def test_no_training_images_are_needed_but_all_test_images_are(tmp_path, monkeypatch):
    monkeypatch.setitem(EXPECTED, "small", Counts(2, 10, 4, (5, 5)))
    root = make_dataset(tmp_path).root
    (root / "train").rename(tmp_path / "elsewhere")
    assert len(load_test_folder("small", tmp_path).test) == 4
    (root / "val" / "b" / "0.JPEG").unlink()
    with pytest.raises(DataError, match=r"val has 3 images instead of 4: every class should have 2, but b has 1"):
        load_test_folder("small", tmp_path)
    (root / "val" / "b").rename(tmp_path / "b")
    with pytest.raises(DataError, match=r"val has 1 class folders, but small has 2"):
        load_test_folder("small", tmp_path)
    with pytest.raises(DataError, match=r"there is no folder .*imagenet: put imagenet there"):
        load_test_folder("imagenet", tmp_path)
