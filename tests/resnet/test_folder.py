"""Batches from image folders have the right order and pixels, bit for bit however they are read."""

import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from image_folder import make_dataset, noise
from PIL import Image

from resnet import data
from resnet.data import DataError, folder
from resnet.data.colour import MEAN, STD, ToInput, draw_colours
from resnet.data.crops import area_box, centre_box, crop, scale_box, uniform
from resnet.data.dataset import Batches, Data
from resnet.data.folder import FolderData
from resnet.data.sampling import Sampler, seeded_generator
from resnet.recipe import Recipe

SIZE = 16
RECIPE = Recipe(
    crop="area", image_size=SIZE, batch_size=6, iterations=20, milestones=(), colour_jitter=0.4, pca_noise=0.1
)
WHOLE = [slice(0, 6)]
to_input = ToInput(torch.device("cpu"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """10 training and 4 test images of 2 classes."""
    return make_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """So that a batch is of several pieces."""
    monkeypatch.setattr(folder, "PIECE", 4)
    monkeypatch.setattr(folder, "TEST_PIECE", 3)


def batches_of(dataset, workers=0, seed=0, recipe=RECIPE, groups=WHOLE):
    return FolderData(dataset, "cpu", workers).batches(seed, recipe, groups)


def taken(batches, iteration):
    """Of one step: images and labels of all groups."""
    batches.load(iteration)
    return [(images.clone(), labels.clone()) for images, labels in batches.take(batches.size(iteration))]


def steps(batches, iterations):
    return [taken(batches, iteration) for iteration in iterations]


def same(first, second):
    """Nested lists of tensors that are equal bit for bit."""
    if torch.is_tensor(first):
        return torch.equal(first, second)
    return len(first) == len(second) and all(same(a, b) for a, b in zip(first, second))


def test_attributes(dataset):
    here = data.place(dataset, None, "cpu", workers=0)
    assert isinstance(here, FolderData) and here.top5 and here.test_images == {"test": 4}
    assert (here.name, here.num_classes, here.digest, here.official) == ("small", 2, dataset.digest, False)
    assert here.device == torch.device("cpu")
    wanted = {name for name in vars(Data) if not name.startswith("_")} | set(Data.__annotations__)
    assert {"tests", "views", "digest"} <= wanted <= set(dir(here))
    wanted = {name for name in vars(Batches) if not name.startswith("_")}
    assert {"load", "take"} <= wanted <= set(dir(here.batches(0, RECIPE, WHOLE)))


@pytest.mark.parametrize(("kind", "draw"), [("area", area_box), ("scale", scale_box)])
def test_a_batch_by_hand(dataset, kind, draw):
    """Every image of the second batch, which spans two epochs, by Pillow and the stated draws."""
    ((images, labels),) = taken(batches_of(dataset, seed=3, recipe=replace(RECIPE, crop=kind)), 1)
    assert images.is_contiguous(memory_format=torch.channels_last) and labels.dtype == torch.int64
    order = [torch.randperm(10, generator=seeded_generator(3, "order", epoch)) for epoch in (0, 1)]
    places = [(0, 6), (0, 7), (0, 8), (0, 9), (1, 0), (1, 1)]
    for image, label, (epoch, position) in zip(images, labels, places):
        index = order[epoch][position].item()
        path = dataset.root / "train" / "ab"[index // 5] / f"{index % 5}.JPEG"
        generator = seeded_generator(3, "augmentation", epoch, position)
        with Image.open(path) as opened:
            box = draw(*opened.size, generator)
            pixels = np.asarray(opened.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box))
        pixels = pixels[:, ::-1] if uniform(generator, 1)[0] < 0.5 else pixels
        colours = draw_colours(generator, 0.4, 0.1)
        expected = to_input(torch.from_numpy(pixels.copy())[None], colours[None])[0]
        assert label == index // 5 and torch.equal(image, expected)


@pytest.mark.parametrize("batch_size", [3, 6, 10, 23])
def test_the_order_is_that_of_images_in_memory(dataset, batch_size):
    recipe = Recipe(crop="area", image_size=SIZE, batch_size=batch_size, iterations=20, milestones=())
    batches, sampler = (
        batches_of(dataset, seed=5, recipe=recipe, groups=[slice(None)]),
        Sampler(5, 10, recipe),
    )
    for iteration in range(4):
        ((_, labels),) = taken(batches, iteration)
        assert labels.tolist() == [index // 5 for index in sampler.batch(iteration).index.tolist()]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing(dataset, workers):
    assert same(steps(batches_of(dataset, workers), range(6)), steps(batches_of(dataset), range(6)))


def test_parts_and_groups_are_the_whole(dataset):
    whole = steps(batches_of(dataset), range(4))
    parts = [steps(batches_of(dataset, groups=[part]), range(4)) for part in (slice(0, 3), slice(3, 6))]
    grouped = steps(batches_of(dataset, groups=[slice(0, 2), slice(2, 4), slice(4, 6)]), range(4))
    for expected, first, second, groups in zip(whole, *parts, grouped):
        assert same([torch.cat(both) for both in zip(first[0], second[0])], expected[0])
        assert len(groups) == 3 and same([torch.cat(all_) for all_ in zip(*groups)], expected[0])


def test_only_the_own_rows_are_read(dataset, monkeypatch):
    read, real = [], folder.read_image
    monkeypatch.setattr(folder, "read_image", lambda path, *how: (read.append(path), real(path, *how))[1])
    taken(batches_of(dataset, groups=[slice(4, 6)]), 0)
    assert len(read) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_any_step_can_be_next(dataset, workers):
    expected = steps(batches_of(dataset), range(8))
    batches = batches_of(dataset, workers)
    for iteration in (5, 6, 2, 2, 3, 0, 7):
        batches.seek(iteration)
        assert same(taken(batches, iteration), expected[iteration])


def test_a_loaded_batch_is_taken_again_without_reading_it_again(dataset, monkeypatch):
    batches = batches_of(dataset)
    first = taken(batches, 3)
    monkeypatch.setattr(folder, "read_image", None)
    assert same([*batches.take(6)], first)
    batches.seek(3)  # as a trainer does that records its step
    assert same([*batches.take(6)], first)
    batches.load(3)
    assert same([*batches.take(6)], first)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_evaluation_in_between_changes_nothing(dataset, workers):
    here = FolderData(dataset, "cpu", workers)
    batches, expected = here.batches(0, RECIPE, WHOLE), steps(batches_of(dataset), range(5))
    tests = here.tests("test", slice(None), RECIPE)
    for iteration in range(5):
        assert same(taken(batches, iteration), expected[iteration])
        if iteration == 1:
            next(tests)  # and left unfinished
        if iteration == 2:
            assert len(list(here.tests("test", slice(None), RECIPE))) == 2


def test_runs_that_share_the_data(dataset):
    here = FolderData(dataset, "cpu", 1)
    several = [here.batches(seed, RECIPE, WHOLE) for seed in (0, 1)]
    expected = [batches_of(dataset, seed=seed) for seed in (0, 1)]
    for iteration in range(3):
        for own, alone in zip(several, expected):
            assert same(taken(own, iteration), taken(alone, iteration))


def test_colours_do_not_change_crops(dataset):
    plain = Recipe(crop="area", image_size=SIZE, batch_size=6, iterations=20, milestones=())
    with_colours, without = batches_of(dataset), batches_of(dataset, recipe=plain)
    with_colours.load(0), without.load(0)
    assert torch.equal(with_colours._buffers.pixels, without._buffers.pixels)
    assert not torch.equal(next(with_colours.take(6))[0], next(without.take(6))[0])


def test_without_augmentation_it_is_the_test_crop(dataset):
    recipe = Recipe(crop="area", image_size=SIZE, batch_size=10, iterations=20, milestones=(), augment=False)
    ((images, labels),) = taken(batches_of(dataset, recipe=recipe, groups=[slice(None)]), 0)
    order = torch.randperm(10, generator=seeded_generator(0, "order", 0)).tolist()
    for image, index in zip(images, order):
        with Image.open(dataset.path(dataset.train, index)) as opened:
            pixels = crop(opened, centre_box(*opened.size), SIZE)
        assert torch.equal(image, to_input(torch.tensor(pixels)[None])[0])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("part", [slice(0, 4), slice(0, 2), slice(3, 4), slice(2, 2)])
def test_test_images(dataset, workers, part):
    found = list(FolderData(dataset, "cpu", workers).tests("test", part, RECIPE))
    labels = [label for _, labels in found for label in labels.tolist()]
    assert labels == [0, 0, 1, 1][part] and all(len(labels) <= 3 for _, labels in found)
    images = [image for images, _ in found for image in images]
    for image, number in zip(images, range(4)[part]):
        path = dataset.root / "val" / "ab"[number // 2] / f"{number % 2}.JPEG"
        with Image.open(path) as opened:
            width, height = opened.size
            side = min(width, height) * 224 / 256
            box = (width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2
            pixels = opened.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box)
        expected = to_input(torch.from_numpy(np.array(pixels))[None])[0]
        assert torch.allclose(image, expected, atol=0.03)  # a grey value may be rounded otherwise


def test_what_there_is_to_test_on(dataset):
    with pytest.raises(ValueError, match="small has no split 'validation' to test on; it has: test"):
        next(FolderData(dataset, "cpu", 0).tests("validation", slice(None), RECIPE))


def pixels_of(images):
    """Undo the normalisation: whole numbers (n, H, W, 3)."""
    return (images.permute(0, 2, 3, 1) * torch.tensor(STD) + torch.tensor(MEAN)).round().to(torch.uint8).numpy()


@pytest.mark.parametrize("workers", [0, 2])
def test_ten_crops(dataset, workers):
    recipe = Recipe(crop="area", image_size=28, milestones=(), tests=("ten_crop",))
    found = list(FolderData(dataset, "cpu", workers).views("ten_crop", slice(1, 4), recipe))
    assert [label for _, labels in found for label in labels.tolist()] == [0, 1, 1]
    views = [pixels_of(torch.cat(view)) for view in zip(*(views for views, _ in found))]
    assert len(views) == 10 and all(view.shape == (3, 28, 28, 3) for view in views)
    for number in (1, 2, 3):
        with Image.open(dataset.path(dataset.test, number)) as opened:
            (width, height), side = opened.size, min(opened.size)
            box = (width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2
            square = np.asarray(opened.resize((32, 32), Image.Resampling.BILINEAR, box=box))
        expected = [square[:28, :28], square[:28, 4:], square[4:, :28], square[4:, 4:], square[2:30, 2:30]]
        expected += [crop[:, ::-1] for crop in expected]
        assert all(np.array_equal(view[number - 1], crop) for view, crop in zip(views, expected))


@pytest.mark.parametrize("workers", [0, 2])
def test_several_scales(dataset, workers, monkeypatch):
    monkeypatch.setattr(folder, "SCALES_PIECE", 3)
    recipe = Recipe(crop="area", image_size=14, milestones=(), tests=("multi_scale",))
    seen = []
    for views, labels in FolderData(dataset, "cpu", workers).views("multi_scale", slice(None), recipe):
        assert [min(view.shape[2:]) for view in views] == [14, 16, 24, 30, 40]
        for *images, label in zip(*views, labels.tolist()):
            matching = [number for number in range(4) if same_image(dataset, number, pixels_of(images[4][None])[0])]
            assert len(matching) == 1 and label == matching[0] // 2
            seen += matching
    assert sorted(seen) == [0, 1, 2, 3]


def same_image(dataset, number, pixels):
    with Image.open(dataset.path(dataset.test, number)) as opened:
        height, width, _ = pixels.shape
        return np.array_equal(np.asarray(opened.resize((width, height), Image.Resampling.BILINEAR)), pixels)


def test_images_of_one_size_are_tested_together_at_several_scales(tmp_path):
    dataset = make_dataset(tmp_path, test=4)
    for number in (1, 2, 6):
        noise(80, 40, number).save(dataset.path(dataset.test, number))
    recipe = Recipe(crop="area", image_size=14, milestones=(), tests=("multi_scale",))
    found = list(FolderData(dataset, "cpu", 0).views("multi_scale", slice(None), recipe))
    together = [(views, labels) for views, labels in found if len(labels) == 3]
    assert sum(len(labels) for _, labels in found) == 8 and len(together) == 1
    ((views, labels),) = together
    assert labels.tolist() == [0, 0, 1]
    assert [view.shape for view in views] == [(3, 3, side, 2 * side) for side in (14, 16, 24, 30, 40)]


def test_an_unknown_test_is_an_error(dataset):
    with pytest.raises(ValueError, match="no test 'five_crop'; known tests: ten_crop, multi_scale"):
        next(FolderData(dataset, "cpu", 0).views("five_crop", slice(None), RECIPE))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_cannot_be_read_is_an_error_that_names_it(tmp_path, workers):
    dataset = make_dataset(tmp_path)
    path = dataset.path(dataset.train, 7)
    content = path.read_bytes()
    path.write_bytes(content[:-300])
    batches, position = (
        batches_of(dataset, workers),
        torch.randperm(10, generator=seeded_generator(0, "order", 0)).tolist().index(7),
    )
    for iteration in range(position // 6):
        batches.load(iteration)
    for _ in range(2):
        with pytest.raises(DataError, match=f"^{path} can't be read"):
            batches.load(position // 6)
    path.write_bytes(content)
    assert same(taken(batches, position // 6), taken(batches_of(dataset), position // 6))

    path = dataset.path(dataset.test, 1)
    path.unlink()
    with pytest.raises(DataError, match=f"{path} can't be read"):
        list(FolderData(dataset, "cpu", workers).tests("test", slice(None), RECIPE))


def test_wrong_options_are_errors(dataset):
    with pytest.raises(ValueError, match="workers must be at least 0"):
        FolderData(dataset, "cpu", -1)
    with pytest.raises(ValueError, match="crop 'pad' is for images in memory"):
        batches_of(dataset, recipe=Recipe(batch_size=6))


def test_a_batch_of_another_size_is_an_error(dataset):
    batches = batches_of(dataset)
    batches.load(0)
    with pytest.raises(ValueError, match="batches have 6 images, not 5"):
        next(batches.take(5))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_smaller_last_batch_ends_each_epoch_where_it_is_used(dataset, workers):
    recipe = replace(RECIPE, last_batch="use", augment=False, colour_jitter=0, pca_noise=0)
    batches = batches_of(dataset, workers, recipe=recipe)
    assert batches.sizes == (6, 4) and [batches.size(step) for step in range(4)] == [6, 4, 6, 4]
    order = [torch.randperm(10, generator=seeded_generator(0, "order", epoch)) for epoch in (0, 1)]
    labels = torch.as_tensor(dataset.train.labels)
    for epoch in (0, 1):
        found = [taken(batches, 2 * epoch + step)[0] for step in (0, 1)]
        assert torch.equal(torch.cat([own for _, own in found]), labels[order[epoch]])
        assert [len(images) for images, _ in found] == [6, 4]
    again = batches_of(dataset, recipe=recipe)
    assert same(taken(again, 3), [(found[1])])


def test_batches_that_nobody_needs_end_at_once(dataset):
    """Else their workers would keep the program from ending."""
    batches = batches_of(dataset)
    batches.load(0)
    batches, left = None, weakref.ref(batches)
    assert left() is None


def test_steps_beyond_the_last_can_be_loaded(dataset):
    batches = batches_of(dataset)
    assert len(taken(batches, 19)[0][1]) == len(taken(batches, 20)[0][1]) == 6


@pytest.mark.gpu
def test_the_same_on_a_gpu_and_in_a_graph(dataset):
    here = FolderData(dataset, "cuda", 2)
    batches, expected = here.batches(0, RECIPE, WHOLE), steps(batches_of(dataset), range(6))
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        batches.load(0)
        list(batches.take(6))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            ((images, labels),) = batches.take(6)
        for iteration in range(6):
            batches.load(iteration)
            graph.replay()
            assert torch.equal(labels.cpu(), expected[iteration][0][1])
            assert torch.allclose(images.cpu(), expected[iteration][0][0], atol=1e-5)
    for found, wanted in zip(
        here.tests("test", slice(None), RECIPE), batches_of(dataset)._data.tests("test", slice(None), RECIPE)
    ):
        assert torch.allclose(found[0].cpu(), wanted[0], atol=1e-5)
