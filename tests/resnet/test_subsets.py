"""Subsets of a data set's classes have the right images and labels, and can be trained on."""

import numpy as np
import pytest

from resnet import data
from resnet.data import subsets
from resnet.data.dataset import ImageDataset
from resnet.data.resident import ResidentData
from resnet.recipe import Recipe
from resnet.run import Run
from resnet.trainer import Trainer


def made_up(train: int = 60, test: int = 30) -> ImageDataset:
    """Images that have their own numbers as pixels."""
    rng = np.random.default_rng(0)

    def images(count):
        return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 4, 4, 3)).copy()

    labels = (rng.integers(0, 10, count).astype(np.uint8) for count in (train, test))
    train_labels, test_labels = labels
    return ImageDataset("cifar10", images(train), train_labels, images(test), test_labels, official=True)


@pytest.mark.parametrize("name", ["cifar10_first5", "cifar10_last5"])
def test_a_subset_has_the_first_images_of_its_classes_in_their_order(name, monkeypatch):
    whole, chosen = made_up(), subsets.SUBSETS[name]._replace(train_per_class=3)
    monkeypatch.setitem(subsets.SUBSETS, name, chosen)
    taken = subsets.take_subset(name, whole)
    seen, wanted = dict.fromkeys(range(chosen.first, chosen.last + 1), 0), []
    for number, label in enumerate(whole.train_labels.tolist()):
        if label in seen and seen[label] < 3:
            seen[label] += 1
            wanted.append((number, label - chosen.first))
    assert list(zip(taken.train_images[:, 0, 0, 0].tolist(), taken.train_labels.tolist())) == wanted
    wanted = [(n, label - chosen.first) for n, label in enumerate(whole.test_labels.tolist()) if label in seen]
    assert list(zip(taken.test_images[:, 0, 0, 0].tolist(), taken.test_labels.tolist())) == wanted
    assert (taken.name, taken.num_classes, taken.official) == (name, 5, True)
    assert taken.train_labels.dtype == np.uint8 and taken.digest != whole.digest


@pytest.mark.parametrize("name", ["synthetic_first5", "synthetic_last5"])
def test_synthetic_subsets_have_as_many_images_as_they_say_and_can_be_trained_on(name):
    dataset = data.load(name)
    assert len(dataset.train_images) == data.TRAIN_IMAGES[name] and len(dataset.test_images) == 250
    assert data.IMAGE_SHAPES[name] == dataset.train_images.shape[1:]
    recipe = Recipe().shortened(2, eval_interval=2, batch_size=4)
    trainer = Trainer(Run("cifar_resnet8", recipe, name), ResidentData(dataset, None, "cpu"))
    for _ in range(2):
        trainer.step()
    trainer.evaluate()
    assert trainer.model.fc.out_features == 5 and len(trainer.curve) == 1
