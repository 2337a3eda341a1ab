"""Recipes: the paper's schedule at its edges, shortened recipes, and errors for impossible values."""

from dataclasses import replace

import pytest

from resnet.recipe import Recipe, learning_rate_at

WARMED_UP = Recipe(warmup_learning_rate=0.01)


@pytest.mark.parametrize(
    ("iteration", "expected"),
    [
        (0, 0.1),
        (399, 0.1),
        (400, 0.1),
        (31_999, 0.1),
        (32_000, 0.01),
        (47_999, 0.01),
        (48_000, 0.001),
        (63_999, 0.001),
    ],
)
def test_schedule_at_its_edges(iteration, expected):
    assert learning_rate_at(Recipe(), iteration) == pytest.approx(expected, rel=1e-12)
    assert learning_rate_at(Recipe(), iteration, warmup_ended_at=400) == pytest.approx(expected, rel=1e-12)
    warm = 0.01 if iteration < 400 else expected
    assert learning_rate_at(WARMED_UP, iteration, warmup_ended_at=400) == pytest.approx(warm, rel=1e-12)


def test_warm_up_lasts_until_it_is_ended():
    assert {learning_rate_at(WARMED_UP, iteration) for iteration in (0, 400, 32_000, 63_999)} == {0.01}


def test_shortened_moves_the_milestones_in_proportion():
    short = WARMED_UP.shortened(1_000, eval_interval=100)
    assert (short.iterations, short.milestones, short.eval_interval) == (1_000, (500, 750), 100)
    assert replace(short, iterations=64_000, milestones=(32_000, 48_000), eval_interval=1_000) == WARMED_UP
    assert Recipe().shortened(100, eval_interval=10, batch_size=32).batch_size == 32


def test_evaluated_at_every_interval_and_at_the_end():
    recipe = Recipe(iterations=10, milestones=(), eval_interval=4)
    assert [n for n in range(11) if recipe.evaluates_after(n)] == [4, 8, 10]


@pytest.mark.parametrize(
    "values",
    [
        {"iterations": 0},
        {"loss_interval": 0},
        {"loss_interval": 1_001},
        {"iterations": -1},
        {"iterations": 1.5},
        {"iterations": True},
        {"batch_size": 0},
        {"batch_size": "128"},
        {"warmup_window": 0},
        {"eval_interval": 0},
        {"milestones": (48_000, 32_000)},
        {"milestones": (100, 100)},
        {"milestones": (0.5,)},
        {"milestones": (-1,)},
        {"learning_rate": -0.1},
        {"learning_rate": float("nan")},
        {"learning_rate": "fast"},
        {"warmup_learning_rate": float("inf")},
        {"momentum": -0.9},
        {"weight_decay": -1e-4},
        {"precision": "fp8"},
        {"kernels": "own"},
        {"augment": "no"},
    ],
)
def test_a_value_that_makes_no_sense_is_an_error_that_names_it(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        Recipe(**values)


def test_equal_numbers_make_equal_recipes():
    whole = Recipe(learning_rate=1, weight_decay=0, milestones=[10, 20])
    fraction = Recipe(learning_rate=1.0, weight_decay=0.0, milestones=(10.0, 20.0))
    assert whole == fraction and repr(whole.changes()) == repr(fraction.changes())


def test_changes_are_the_fields_that_differ():
    assert Recipe().changes() == {} == Recipe(milestones=[32_000, 48_000], learning_rate=0.1).changes()
    assert Recipe(iterations=5, milestones=()).changes() == {"iterations": 5, "milestones": []}
