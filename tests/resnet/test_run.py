"""A run's identity is the same everywhere, and every change that affects the result makes another one."""

import hashlib
import json
from dataclasses import fields, replace

import pytest

from resnet.plugins import Plugin
from resnet.recipe import Recipe
from resnet.run import Run, canonical_json

# An identity names records that exist. One that changes orphans them: raise resnet.run.TRAINING_VERSION only when
# training itself has changed, and then replace these.
PINNED = [
    (Run("cifar_resnet20"), "2842d568023d987cd84b8d6d272071e930fa460cd4774a2071f830d9a24b4b63"),
    (
        Run("cifar_resnet110", Recipe(warmup_learning_rate=0.01), seed=4),
        "c0703f4ffcc007628dad098023e413a26b9a6551235d10e8d5d170b87548c90f",
    ),
    (
        Run("cifar_plain56", Recipe().shortened(1_000, eval_interval=100), seed=1, train_images=45_000),
        "7eb215104009f284b1e7e39e247be0be221ef61392c0c5ea01965cc680750d9d",
    ),
    (
        Run("cifar_resnet20", data="synthetic", model_options={"conv_bias": True, "shortcut": "B"}),
        "410a78cfcbeb7baee468a9d3816a8e57e77a3b4c994f8476e6ecbccf6be15c4c",
    ),
]

OTHER_RECIPES = {
    "iterations": 1_000,
    "batch_size": 64,
    "learning_rate": 0.2,
    "milestones": (1, 2),
    "warmup_learning_rate": 0.01,
    "warmup_until_error": 70.0,
    "warmup_window": 10,
    "momentum": 0.8,
    "weight_decay": 5e-4,
    "augment": False,
    "precision": "fp32",
    "kernels": "fused",
    "eval_interval": 500,
    "base_batch_size": 256,
    "schedule": "cosine",
    "linear_warmup": 5,
    "nesterov": True,
    "decay_all": False,
    "batch_norm_size": 64,
    "crop": "scale",
    "crop_offsets": 8,
    "normalization": "channel_std",
    "last_batch": "drop",
    "image_size": 192,
    "colour_jitter": 0.4,
    "pca_noise": 0.1,
    "label_smoothing": 0.1,
    "mixup": 0.2,
    "temperature": 20.0,
    "tests": ("ten_crop",),
    "loss_interval": 300,
    "momentum_at_drops": "kept",
    "smoothed_over": "all",
    "mixup_partner": "reversed",
    "hard_weight": 0.5,
    "statistics_batches": 391,
    "jittered": "hue",
    "plugins": (Plugin("examples.cutmix:CutMix"),),
}
# Runs in which a change of the field has a meaning.
BASE_RUNS = {
    "schedule": Run("cifar_resnet20", Recipe(milestones=())),
    "smoothed_over": Run("cifar_resnet20", Recipe(label_smoothing=0.2)),
    "mixup_partner": Run("cifar_resnet20", Recipe(mixup=0.4)),
    "jittered": Run("resnet18", Recipe(crop="area", colour_jitter=0.2), "imagenet"),
    "hard_weight": Run("cifar_resnet20", Recipe(temperature=10), teacher=Run("cifar_resnet32")),
    **dict.fromkeys(
        ("crop", "image_size", "colour_jitter", "pca_noise", "tests"), Run("resnet18", Recipe(crop="area"), "imagenet")
    ),
}
OTHER_RUNS = {
    "model": "cifar_resnet32",
    "data": "synthetic",
    "seed": 1,
    "model_options": {"shortcut": "B"},
    "train_images": 45_000,
    "pretrained": Run("cifar_resnet20", data="cifar10_first5"),
}


@pytest.mark.parametrize(("run", "identity"), PINNED)
def test_identity_is_pinned(run, identity):
    assert run.identity == identity
    assert run.short_id == identity[:16]


SPECIFICATIONS = [  # the digest of the text, with its order
    (PINNED[0][0], "5dafb6bcb2ddf8ee3255c12d802fe9c89870eb36dcd2312bb0d16b9942e188cf"),
    (
        Run("cifar_resnet20", Recipe(temperature=10), teacher=Run("cifar_resnet32")),
        "a989b35b5d13adb8713a9cbaa1a29e5e9ebd9a50876c153d63ad3e25c89ea17b",
    ),
]


@pytest.mark.parametrize(("run", "digest"), SPECIFICATIONS)
def test_specification_without_plugins_and_arrays_is_pinned(run, digest):
    assert hashlib.sha256(json.dumps(run.specification()).encode()).hexdigest() == digest


def test_every_field_makes_another_identity():
    assert set(OTHER_RECIPES) == {field.name for field in fields(Recipe)}
    assert set(OTHER_RUNS) == {field.name for field in fields(Run)} - {"recipe", "teacher", "arrays", "task"}
    run, teacher = Run("cifar_resnet20"), Run("cifar_resnet32")
    others = [replace(run, **{name: value}) for name, value in OTHER_RUNS.items()]
    for name, value in OTHER_RECIPES.items():
        base = BASE_RUNS.get(name, run)
        taught = teacher if name == "temperature" else base.teacher
        others.append(replace(base, recipe=replace(base.recipe, **{name: value}), teacher=taught))
    distilled = next(other for other in others if other.recipe.temperature)
    others.append(replace(distilled, teacher=replace(teacher, seed=1)))
    identities = {other.identity for other in (run, *BASE_RUNS.values(), *others)}
    assert others[-1].recipe.temperature == 20 and len(identities) == 1 + len(set(BASE_RUNS.values())) + len(others)


OPTIONS = {"shortcut": "A", "shortcut_padding": "end", "conv_bias": False, "num_classes": 10}
CHANGED = {"shortcut": "B", "conv_bias": True}
NUMBERS = Recipe(learning_rate=1, milestones=(5, 6), warmup_learning_rate=1)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Run("cifar_resnet20"), Run("cifar_resnet20", Recipe(momentum=0.9), "cifar10", 0, OPTIONS, None)),
        (Run("cifar_resnet20"), Run("cifar_resnet20", train_images=50_000)),
        (
            Run("cifar_resnet20", NUMBERS),
            Run("cifar_resnet20", replace(NUMBERS, learning_rate=1.0, milestones=[5.0, 6.0], warmup_learning_rate=1.0)),
        ),
        (
            Run("cifar_resnet20", model_options=CHANGED),
            Run("cifar_resnet20", model_options=dict(reversed(CHANGED.items()))),
        ),
    ],
    ids=["defaults written out", "all images", "equal numbers", "order of options"],
)
def test_what_is_written_in_another_way_is_the_same_run(one, other):
    assert one == other and hash(one) == hash(other) and one.identity == other.identity


TAUGHT = Run("cifar_resnet20", Recipe(temperature=20, mixup=0.2), teacher=Run("cifar_resnet56", Recipe(momentum=0.8)))
FOLDER = Run("resnet50", Recipe(crop="area", tests=("multi_scale",)), "imagenet", model_options={"variant": "d"})


@pytest.mark.parametrize("run", [*(run for run, _ in PINNED), TAUGHT, FOLDER])
def test_specification_and_back(run):
    specification = run.specification()
    assert canonical_json(specification)  # plain values only
    again = Run.from_specification(specification)
    assert again == run and again.identity == run.identity


def test_a_specification_that_this_code_does_not_understand_is_an_error():
    specification = Run("cifar_resnet20").specification()
    for change in (
        {"training_version": 2},
        {"training_version": None},
        {"colour": "blue"},
        {"recipe": {"lookahead": True}},
        {"teacher": {"model": "cifar_resnet8"}},
        {"model": "vgg"},
        {"recipe": None},
    ):
        with pytest.raises(ValueError):
            Run.from_specification({**specification, **change})


@pytest.mark.parametrize(
    "values",
    [
        {"seed": -1},
        {"seed": 0.5},
        {"seed": True},
        {"data": "cifar11"},
        {"train_images": 0},
        {"train_images": 50_001},
        {"train_images": 100.5},
        {"model_options": {"width": 2}},
        {"model_options": {"conv_bias": 1}},
        {"model_options": {"num_classes": 10.5}},
    ],
)
def test_a_run_that_can_not_be_is_an_error(values):
    with pytest.raises(ValueError):
        Run("cifar_resnet20", **values)


@pytest.mark.parametrize("model", ["cifar_resnet8", "resnet18", "resnet50"])
def test_zero_gamma_needs_projections(model):
    data, recipe = ("cifar10", Recipe()) if "cifar" in model else ("imagenet", Recipe(crop="area"))
    for shortcut in "BC":
        Run(model, recipe, data, model_options={"zero_gamma": True, "shortcut": shortcut})
    with pytest.raises(ValueError, match="zero_gamma needs projections, shortcut 'B' or 'C'"):
        Run(model, recipe, data, model_options={"zero_gamma": True, "shortcut": "A"})


def test_canonical_json_refuses_what_json_does_not_have():
    with pytest.raises(ValueError):
        canonical_json({"loss": float("nan")})
