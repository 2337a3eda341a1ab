"""The recipes of the Bag of Tricks tables against the papers' protocols, and what each row changes of another."""

from dataclasses import replace

import pytest
import torch

from reproductions.bag_of_tricks import efficient as bag_of_tricks_efficient
from reproductions.bag_of_tricks import protocol as bag_of_tricks
from reproductions.bag_of_tricks import refinements as bag_of_tricks_refinements
from reproductions.bag_of_tricks import tweaks as bag_of_tricks_tweaks
from reproductions.harness.experiment import PROFILES, Variant, kept_runs
from resnet.models import create_model
from resnet.models.net import initialize
from resnet.recipe import learning_rate_at

EFFICIENT = bag_of_tricks_efficient.EXPERIMENTS
TWEAKS = bag_of_tricks_tweaks.EXPERIMENTS
REFINEMENTS = bag_of_tricks_refinements.EXPERIMENTS
ALL = [experiment for scripts in (EFFICIENT, TWEAKS, REFINEMENTS) for experiment in scripts.values()]
IMAGES = 1_281_167  # ImageNet's for training


def row_of(experiment, key, profile="paper"):
    return next(row for row in experiment.rows(profile) if row.key == key)


def flat(run) -> dict:
    """A run's specification, its values by names such as ``recipe.mixup``; of a teacher its model."""
    values = run.specification()
    inner = {name: values.pop(name) for name in ("recipe", "model_options")}
    values |= {f"{name}.{key}": value for name, section in inner.items() for key, value in section.items()}
    return values | {"teacher": run.teacher and run.teacher.model}


def changes(experiment, profile="paper") -> dict[str, dict]:
    """What each row that comes after another changes of that one's run."""
    rows = {row.key: row for row in experiment.rows(profile)}
    pairs = {row.key: (flat(rows[row.after].run(0)), flat(row.run(0))) for row in rows.values() if row.after}
    return {
        key: {name: new.get(name) for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
        for key, (old, new) in pairs.items()
    }


# ------------------------------------------------------------------------------------------------- the size of CIFAR-10


@pytest.mark.parametrize(
    ("batch_size", "iterations", "warmup", "peak"), [(128, 64_000, 1_953, 0.1), (1024, 8_000, 244, 0.8)]
)
def test_the_protocol_on_cifar10(batch_size, iterations, warmup, peak):
    plain = row_of(EFFICIENT["cifar10"], f"{batch_size}_scaling").recipe
    assert (plain.iterations, plain.batch_size, plain.eval_interval) == (iterations, batch_size, iterations // 64)
    assert plain.nesterov and (plain.momentum, plain.weight_decay, plain.decay_all) == (0.9, 1e-4, True)
    assert plain.batch_norm_size is None and plain.crop == "pad" and plain.precision == "fp32"
    half, three_quarters = iterations // 2, 3 * iterations // 4
    rates = [
        learning_rate_at(plain, i) for i in (0, half - 1, half, three_quarters - 1, three_quarters, iterations - 1)
    ]
    assert rates == pytest.approx([peak, peak, peak / 10, peak / 10, peak / 100, peak / 100])

    warmed = row_of(EFFICIENT["cifar10"], f"{batch_size}_warmup").recipe
    assert warmed.linear_warmup == warmup == round(5 * 50_000 / batch_size)
    rates = [learning_rate_at(warmed, i) for i in (0, warmup // 2, warmup - 1, warmup, half - 1, half)]
    assert rates[0] == pytest.approx(peak / warmup) and rates[1] == pytest.approx(peak / 2, rel=1e-2)
    assert rates[2:] == pytest.approx([peak, peak, peak, peak / 10])


# ------------------------------------------------------------------------------------------------- the size of ImageNet


@pytest.mark.parametrize(
    ("batch_size", "iterations", "drops", "warmup", "peak", "batch_norm"),
    [
        (256, 600_547, (150_137, 300_274, 450_410), 25_023, 0.1, 32),
        (1024, 150_137, (37_534, 75_068, 112_603), 6_256, 0.4, 128),
    ],
)
def test_the_protocol_on_imagenet(batch_size, iterations, drops, warmup, peak, batch_norm):
    """120 epochs, drops after 30, 60, 90, a warm-up over 5, on 8 GPUs (section 2.1 and 3.1)."""
    recipe = row_of(EFFICIENT["imagenet"], f"{batch_size}_warmup").recipe
    assert recipe.iterations == iterations == round(120 * IMAGES / batch_size)
    assert recipe.milestones == drops == tuple(round(epoch * IMAGES / batch_size) for epoch in (30, 60, 90))
    assert recipe.linear_warmup == warmup == round(5 * IMAGES / batch_size)
    assert recipe.batch_norm_size == batch_norm and recipe.batch_size == batch_size
    assert recipe.eval_interval == round(IMAGES / batch_size)
    assert recipe.nesterov and (recipe.momentum, recipe.weight_decay) == (0.9, 1e-4)
    assert (recipe.crop, recipe.image_size, recipe.colour_jitter, recipe.pca_noise) == ("area", 224, 0.4, 0.1)
    rates = [learning_rate_at(recipe, i) for i in (warmup - 1, drops[0] - 1, *drops, iterations - 1)]
    assert rates == pytest.approx([peak, peak, peak / 10, peak / 100, peak / 1000, peak / 1000])


@pytest.mark.parametrize(
    ("dataset", "basic", "bottleneck"),
    [("cifar10", "cifar_resnet56", "cifar_bottleneck56"), ("imagenet", "resnet50", "resnet50")],
)
def test_the_nets(dataset, basic, bottleneck):
    for script, model in ((EFFICIENT, basic), (TWEAKS, bottleneck), (REFINEMENTS, bottleneck)):
        assert {(row.model, row.data) for row in script[dataset].rows("paper")} == {(model, dataset)}
    assert {row.model_options["variant"] for row in REFINEMENTS[dataset].rows("paper")} == {"d"}


# --------------------------------------------------------------------------------------------- what each step changes


@pytest.mark.parametrize("dataset", ["cifar10", "imagenet"])
def test_every_heuristic_of_table_4_changes_one_thing(dataset):
    small, large = bag_of_tricks.PROTOCOLS[dataset]["paper"].batch_sizes
    found = changes(EFFICIENT[dataset])
    for batch_size in (small, large):
        warmup = row_of(EFFICIENT[dataset], f"{batch_size}_warmup").recipe.linear_warmup
        steps = {key: change for key, change in found.items() if key.startswith(f"{batch_size}_")}
        assert list(steps.values()) == [
            {"recipe.linear_warmup": warmup},
            {"model_options.zero_gamma": True},
            {"recipe.decay_all": False},
            {"recipe.precision": "fp16"},
        ]
    first, *_ = EFFICIENT[dataset].rows("paper")
    assert first.recipe.base_batch_size == small and first.recipe.linear_warmup == 0
    assert first.model_options == {"shortcut": "B"}


@pytest.mark.parametrize(("shortcut", "dead"), [("A", 48), ("B", 0)])
def test_every_channel_learns_with_zero_gamma_only_if_shortcuts_are_projections(shortcut, dead):
    draw = torch.Generator().manual_seed(0)
    model = create_model("cifar_resnet8", shortcut=shortcut).train()
    initialize(model, draw, zero_gamma=True)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(16, 3, 32, 32, generator=draw)).logsumexp(dim=1).sum().backward()
        optimizer.step()
    assert int((model.layer3[0].bn2.weight == 0).sum()) == dead


@pytest.mark.parametrize("dataset", ["cifar10", "imagenet"])
def test_every_tweak_of_table_5_changes_the_net_alone(dataset):
    assert changes(TWEAKS[dataset]) == {letter: {"model_options.variant": letter} for letter in "bcd"}


@pytest.mark.parametrize(("dataset", "longer"), [("cifar10", 13_333), ("imagenet", round(200 * IMAGES / 1024))])
def test_every_refinement_of_table_6_changes_what_it_is_named_for(dataset, longer):
    assert [(row.key, row.after, row.on_request) for row in REFINEMENTS[dataset].rows("paper")] == [
        ("efficient", None, False),
        ("cosine", "efficient", False),
        ("smoothing", "cosine", False),
        ("distilled", "smoothing", False),
        ("mixup", "smoothing", False),
        ("mixup_distilled", "mixup", False),
        ("smoothing_all", "smoothing", True),
        ("mixup_reversed", "mixup", True),
        ("distilled_half", "distilled", True),
    ]
    teacher = {"cifar10": "cifar_bottleneck164", "imagenet": "resnet152"}[dataset]
    assert changes(REFINEMENTS[dataset]) == {
        "cosine": {"recipe.schedule": "cosine", "recipe.milestones": []},
        "smoothing": {"recipe.label_smoothing": 0.1},
        "distilled": {"recipe.temperature": 20.0, "teacher": teacher},
        "mixup": {"recipe.mixup": 0.2, "recipe.iterations": longer},
        "mixup_distilled": {"recipe.temperature": 20.0, "teacher": teacher},
        "smoothing_all": {"recipe.smoothed_over": "all"},
        "mixup_reversed": {"recipe.mixup_partner": "reversed"},
        "distilled_half": {"recipe.hard_weight": 0.5},
    }


@pytest.mark.parametrize("dataset", ["cifar10", "imagenet"])
def test_a_table_begins_where_the_one_before_ends(dataset):
    """The efficient recipe is Table 4's last row but for the precision, and Table 5's last row is Table 6's first."""
    last = flat(EFFICIENT[dataset].rows("paper")[-1].run(0))
    first = flat(row_of(TWEAKS[dataset], "original").run(0))
    differing = {name for name in last if last[name] != first.get(name)}
    assert differing <= {"model", "model_options.shortcut", "recipe.precision"}  # bottlenecks always have projections
    assert (last["recipe.precision"], first["recipe.precision"]) == ("fp16", "auto")
    best, efficient = row_of(TWEAKS[dataset], "d"), row_of(REFINEMENTS[dataset], "efficient")
    assert best.run(3).identity == efficient.run(3).identity


@pytest.mark.parametrize("dataset", ["cifar10", "imagenet"])
@pytest.mark.parametrize(("taught", "like"), [("distilled", "smoothing"), ("mixup_distilled", "mixup")])
def test_one_teacher_trained_like_its_students_teaches_all_seeds(dataset, taught, like):
    distilled = row_of(REFINEMENTS[dataset], taught)
    assert len({distilled.run(seed).teacher.identity for seed in range(5)}) == 1
    teacher = distilled.run(4).teacher
    assert teacher.seed == 0 and teacher.teacher is None and teacher.model_options["variant"] == "d"
    assert teacher.recipe == row_of(REFINEMENTS[dataset], like).recipe


# ------------------------------------------------------------------------------------------------------------- profiles


@pytest.mark.parametrize(
    ("dataset", "sizes", "with_mixup"),
    [("cifar10", {128: 4_000, 512: 1_000}, 1_667), ("imagenet", {256: 9_384, 1024: 2_346}, 3_910)],
)
def test_the_short_profile_takes_fewer_real_images(dataset, sizes, with_mixup):
    for row in EFFICIENT[dataset].rows("short"):
        assert row.data == dataset and row.recipe.iterations == sizes[row.recipe.batch_size]
        assert row.recipe.linear_warmup <= row.recipe.iterations / 10
    assert row_of(REFINEMENTS[dataset], "mixup", "short").recipe.iterations == with_mixup


def test_the_short_ladders_on_cifar10_have_small_nets_and_a_warm_up_over_a_tenth():
    warmed = [row.recipe for row in EFFICIENT["cifar10"].rows("short") if not row.key.endswith("_scaling")]
    assert all(recipe.linear_warmup == recipe.iterations // 10 for recipe in warmed)
    assert {row.model for row in EFFICIENT["cifar10"].rows("short")} == {"cifar_resnet20"}
    refined = REFINEMENTS["cifar10"].rows("short")
    assert {row.model for row in refined} == {"cifar_bottleneck29"}
    assert {row.teacher.model for row in refined if row.teacher} == {"cifar_bottleneck56"}


@pytest.mark.parametrize("dataset", ["cifar10", "imagenet"])
def test_b_standard_stands_outside_the_ladder(dataset):
    row = row_of(TWEAKS[dataset], "b_standard")
    assert row.after is None and row.model_options == {"variant": "b"}
    before_all_tricks = row_of(EFFICIENT[dataset], f"{row.recipe.batch_size}_scaling").recipe
    assert row.recipe == replace(before_all_tricks, precision="auto") and row.recipe.decay_all


@pytest.mark.parametrize("variant", ["b", "c"])
def test_a_variant_without_zero_gamma_is_trained_on_request_by_the_same_recipe(variant):
    own, row = row_of(TWEAKS["cifar10"], variant), row_of(TWEAKS["cifar10"], f"{variant}_without_zero_gamma")
    assert row.on_request and row.after is None and row.recipe == own.recipe and not row.keep_weights
    assert row.reported is None
    assert own.model_options == row.model_options | {"zero_gamma": True}


@pytest.mark.parametrize("experiment", ALL, ids=lambda e: e.name)
def test_the_smoke_profile_is_tiny_synthetic_and_compared_with_nothing(experiment):
    data = f"synthetic_{experiment.dataset}" if experiment.dataset else "synthetic"
    for row in experiment.rows("smoke"):
        assert row.data == data and row.reported is None and row.recipe.iterations <= 50
        assert row.model in ("cifar_resnet8", "cifar_bottleneck11") and row.recipe.batch_size in (16, 32)
        assert row.teacher is None or row.teacher.model == "cifar_bottleneck20"


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("experiment", ALL, ids=lambda e: e.name)
def test_every_profile_changes_the_same_things(experiment, profile):
    paper, other = changes(experiment), changes(experiment, profile)
    assert [set(change) for change in paper.values()] == [set(change) for change in other.values()]


@pytest.mark.parametrize("experiment", ALL, ids=lambda e: e.name)
def test_every_row_comes_after_one_above_it(experiment):
    keys = [row.key for row in experiment.rows("paper")]
    assert len(set(keys)) == len(keys)
    for row in experiment.rows("paper"):
        assert row.after is None or keys.index(row.after) < keys.index(row.key)


# ------------------------------------------------------------------------------------------------------- teachers' runs


def test_a_teacher_is_trained_first_and_once():
    runs = REFINEMENTS["cifar10"].runs(Variant(), 5)
    assert len(runs) == 2 + 6 * 5 == len({run.identity for run in runs})
    assert {(run.model, run.seed) for run in runs[:2]} == {("cifar_bottleneck164", 0)}
    taught = [run for run in runs if run.teacher]
    assert len(taught) == 10 and {run.teacher for run in taught} == {*runs[:2]}
    assert len(REFINEMENTS["cifar10"].runs(Variant(), 5, ["cosine"])) == 5  # which needs no teacher


def test_weights_that_later_trainings_begin_with_and_learn_from_are_kept():
    kept = kept_runs([*TWEAKS.values(), *REFINEMENTS.values()])
    for profile in ("paper", "short"):
        rows = {row.key: row for table in (TWEAKS, REFINEMENTS) for row in table["cifar10"].rows(profile)}
        wanted = [rows[key].run(seed) for key in ("b_standard", "efficient", "smoothing") for seed in range(3)]
        assert rows["d"].run(0) in wanted  # which is the efficient one in the other table
        wanted += [rows[key].run(0).teacher for key in ("distilled", "mixup_distilled")]
        assert len(set(wanted)) == 11 and set(wanted) <= set(kept)
        kept = [run for run in kept if run not in wanted]
    assert {run.data for run in kept} == {"synthetic"}  # nothing else, and nothing on ImageNet
    rows = {row.key: row for row in REFINEMENTS["cifar10"].rows("paper")}
    assert replace(rows["efficient"], keep_weights=0).run(0).identity == rows["efficient"].run(0).identity


def test_a_variant_is_the_teachers_too():
    for run in REFINEMENTS["cifar10"].runs(Variant("paper", 45_000, "bf16"), 2, ["distilled"]):
        assert (run.train_images, run.recipe.precision) == (45_000, "bf16")
        assert run.teacher is None or (run.teacher.train_images, run.teacher.recipe.precision) == (45_000, "bf16")


def test_rows_that_a_precision_makes_equal_are_trained_once():
    runs = EFFICIENT["cifar10"].runs(Variant(precision="fp32"), 2)
    assert len(runs) == 16  # the FP16 rows are the rows above them


def test_each_data_set_has_a_name_and_a_command_of_its_own():
    assert [(e.name, e.target) for e in TWEAKS.values()] == [
        ("bag_of_tricks_tweaks", "reproduce-bag-of-tricks-tweaks"),
        ("bag_of_tricks_tweaks_cifar100", "reproduce-bag-of-tricks-tweaks DATASET=cifar100"),
        ("bag_of_tricks_tweaks_imagenet", "reproduce-bag-of-tricks-tweaks DATASET=imagenet"),
    ]
