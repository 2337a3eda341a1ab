"""Data order and augmentation draws: seeded, without gaps, independent of interruptions and of one another."""

import pytest
import torch

from resnet.data.sampling import Sampler, seeded_generator
from resnet.recipe import Recipe


def indices(sampler, iterations):
    return torch.cat([sampler.batch(iteration).index for iteration in range(iterations)])


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second))


@pytest.mark.parametrize(("images", "batch_size"), [(10, 3), (12, 4), (7, 7), (5, 12), (1, 3)])
def test_batches_are_consecutive_slices_of_permutations(images, batch_size):
    sampler = Sampler(0, images, Recipe(batch_size=batch_size))
    epochs = 6
    drawn = indices(sampler, epochs * images // batch_size)
    for epoch in range(len(drawn) // images):
        part = drawn[epoch * images : (epoch + 1) * images]
        assert sorted(part.tolist()) == list(range(images))
    for iteration in range(len(drawn) // batch_size):
        assert len(sampler.batch(iteration).index) == batch_size


def test_offsets_and_flips_stay_with_their_images():
    sampler = Sampler(0, 10, Recipe(batch_size=4))
    first, second, third = (Sampler(0, 10, Recipe(batch_size=4)).epoch(n) for n in range(3))
    for part in range(3):  # index, offset, flip
        expected = torch.cat([first[part], second[part], third[part]])
        assert torch.equal(torch.cat([sampler.batch(n)[part] for n in range(7)]), expected[:28])


def test_a_batch_depends_on_its_iteration_alone():
    in_order = Sampler(5, 10, Recipe(batch_size=4))
    batches = [in_order.batch(iteration) for iteration in range(12)]
    jumping = Sampler(5, 10, Recipe(batch_size=4))
    for iteration in (11, 3, 3, 0, 7, 11, 1):
        assert same(jumping.batch(iteration), batches[iteration])
        assert same(Sampler(5, 10, Recipe(batch_size=4)).batch(iteration), batches[iteration])


def test_the_order_is_the_same_with_and_without_augmentation():
    with_it, without = (Sampler(0, 50, Recipe(batch_size=20, augment=augment)) for augment in (True, False))
    assert torch.equal(indices(with_it, 8), indices(without, 8))
    assert (without.batch(0).offset == 4).all() and not without.batch(0).flip.any()


def test_the_order_does_not_depend_on_the_batch_size():
    assert torch.equal(
        indices(Sampler(0, 30, Recipe(batch_size=10)), 6), indices(Sampler(0, 30, Recipe(batch_size=15)), 4)
    )


def test_epochs_and_seeds_differ():
    first = Sampler(0, 100, Recipe(batch_size=100))
    for other in (first.batch(1), Sampler(1, 100, Recipe(batch_size=100)).batch(0)):
        assert not any(torch.equal(a, b) for a, b in zip(first.batch(0), other))


@pytest.mark.parametrize(
    ("images", "last", "said"),
    [(0, "carry", "no training images"), (3, "drop", "3 training images don't fill a batch of 4")],
)
def test_images_that_are_too_few(images, last, said):
    with pytest.raises(ValueError, match=said):
        Sampler(0, images, Recipe(batch_size=4, last_batch=last))


def test_streams_differ_from_one_another():
    streams = [(0, "order", 0), (0, "augmentation", 0), (0, "initialisation"), (0, "order", 1), (1, "order", 0)]
    drawn = [tuple(torch.randint(2**31, (4,), generator=seeded_generator(*stream)).tolist()) for stream in streams]
    assert len(set(drawn)) == len(streams)


def test_offsets_are_uniform_over_0_to_8_and_flips_are_fair():
    draws = Sampler(0, 9_000, Recipe(batch_size=9_000)).batch(0)
    for direction in (0, 1):
        counts = torch.bincount(draws.offset[:, direction], minlength=9)
        assert len(counts) == 9
        assert ((counts - 1_000).abs() < 4 * (1_000 * 8 / 9) ** 0.5).all()
    assert abs(draws.flip.sum().item() - 4_500) < 4 * 9_000**0.5 / 2


def test_the_last_images_of_an_epoch_can_be_dropped_or_make_a_smaller_batch():
    whole = [Sampler(3, 10, Recipe(batch_size=4)).epoch(number) for number in range(3)]
    dropping, using = (Sampler(3, 10, Recipe(batch_size=4, last_batch=kind)) for kind in ("drop", "use"))
    assert [dropping.size(i) for i in range(6)] == [4] * 6
    assert [using.size(i) for i in range(6)] == [4, 4, 2, 4, 4, 2]
    assert (dropping.sizes, using.sizes, Sampler(3, 12, using.recipe).sizes) == ((4,), (4, 2), (4,))
    assert Sampler(3, 3, using.recipe).sizes == (3,) and Sampler(3, 3, Recipe(batch_size=4)).sizes == (4,)
    for part in range(3):  # index, offset, flip
        expected = torch.cat([epoch[part][:8] for epoch in whole])
        assert torch.equal(torch.cat([dropping.batch(i)[part] for i in range(6)]), expected)
        expected = torch.cat([epoch[part] for epoch in whole])
        assert torch.equal(torch.cat([using.batch(i)[part] for i in range(9)]), expected)
    for sampler in (dropping, using):
        in_order = [sampler.batch(i) for i in range(9)]
        for iteration in (8, 2, 2, 5, 0, 7):
            assert same(sampler.batch(iteration), in_order[iteration])


@pytest.mark.parametrize("count", [8, 9])
def test_crops_have_as_many_corners_as_the_recipe_says(count):
    offset = Sampler(0, 2_000, Recipe(batch_size=2_000, crop_offsets=count)).batch(0).offset
    assert sorted(offset.unique().tolist()) == list(range(count))
