"""Declared experiments: the papers' rows and recipes, and the names of variants."""

import re
from dataclasses import replace

import pytest
from fakes import make_record, store
from tiny import make_experiment

from reproductions import cifar_table, degradation, precision
from reproductions.bag_of_tricks import tweaks
from reproductions.experiments import EXPERIMENTS, PUBLISHED_TABLES, evidence
from reproductions.harness.experiment import PROFILES, Row, Variant
from reproductions.harness.provenance import ROOT
from reproductions.harness.records import Pool, read_pool
from resnet.recipe import Recipe, learning_rate_at

PAPER = Variant("paper")


def test_the_cifar_table_has_the_rows_of_table_6():
    rows = cifar_table.rows("paper")
    assert [row.model for row in rows] == [f"cifar_resnet{depth}" for depth in (20, 32, 44, 56, 110, 1202)]
    assert [row.reported for row in rows] == [row.key for row in rows]
    assert {row.data for row in rows} == {"cifar10"}


def test_the_degradation_figure_has_plain_and_residual_nets_of_five_depths():
    models = [row.model for row in degradation.rows("paper")]
    assert models == [f"cifar_{kind}{depth}" for kind in ("plain", "resnet") for depth in (20, 32, 44, 56, 110)]


def test_rows_on_request_are_trained_when_they_are_named_and_shown_when_they_have_records(tmp_path):
    deepest = "cifar_resnet1202"
    table, figure = cifar_table.EXPERIMENT, degradation.EXPERIMENT
    assert deepest not in {run.model for run in table.runs(PAPER, 1)}
    assert not any("110" in run.model for run in figure.runs(PAPER, 1))
    assert [run.model for run in table.runs(PAPER, 2, ["resnet1202"])] == 2 * [deepest]
    empty = Pool(tmp_path / "empty")
    assert [r.row.key for r in table.results(PAPER, 1, empty, empty)][-2:] == ["resnet56", "resnet110"]
    store(tmp_path, make_record(table.runs(PAPER, 1, ["resnet1202"])[0], 7.9))
    assert table.results(PAPER, 1, read_pool(tmp_path), empty)[-1].row.model == deepest
    assert table.results(PAPER, 1, empty, read_pool(tmp_path))[-1].row.model == deepest
    assert not {one.run.model for one in evidence(on_gpu=True)} & {deepest, "cifar_plain110"}


def test_every_row_of_the_paper_profile_follows_section_4_2_exactly():
    for row in cifar_table.rows("paper") + degradation.rows("paper"):
        recipe = row.recipe
        assert (recipe.iterations, recipe.batch_size, recipe.milestones) == (64_000, 128, (32_000, 48_000)), row
        assert (recipe.learning_rate, recipe.momentum, recipe.weight_decay) == (0.1, 0.9, 1e-4), row
        assert recipe.augment and row.model_options == {}, row


def test_only_nets_of_110_layers_and_more_are_warmed_up_until_a_training_error():
    warmed = [row for row in cifar_table.rows("paper") + degradation.rows("paper") if row.recipe.warmup_learning_rate]
    assert [row.key for row in warmed] == ["resnet110", "resnet1202", "plain110", "resnet110"]
    recipe = warmed[0].recipe
    assert learning_rate_at(recipe, 0) == 0.01 and recipe.warmup_until_error == 80.0
    assert learning_rate_at(recipe, 400, warmup_ended_at=400) == 0.1


def test_the_short_profile_is_a_sixteenth_on_real_data_with_one_warm_up_for_all_nets():
    for row in cifar_table.rows("short") + degradation.rows("short"):
        recipe = row.recipe
        assert row.data == "cifar10" and recipe.batch_size == 128
        assert (recipe.iterations, recipe.milestones) == (64_000 // 16, (2_000, 3_000))
        assert (recipe.linear_warmup, recipe.warmup_learning_rate) == (200, None)
        assert sum(map(recipe.evaluates_after, range(1, 4_001))) == 10


def test_the_recorded_runs_of_the_short_profile_are_its_own():
    """Identities of records that were made before these rows were written."""
    identities = {row.key: row.run(0).short_id for row in degradation.rows("short")}
    assert identities["plain56"] == "8822e3a38d181f04" and identities["resnet20"] == "6fd15853b68a1ed2"


def test_the_smoke_profile_is_synthetic_and_compared_with_no_paper():
    for row in cifar_table.rows("smoke") + degradation.rows("smoke"):
        assert row.data == "synthetic" and row.reported is None and row.recipe.iterations <= 200


def test_synthetic_data_are_compared_with_nothing_whatever_a_row_says():
    real = Row("a", "A", "cifar_resnet8", Recipe(), "cifar10", reported="resnet20")
    for data in ("synthetic", "synthetic_mnist", "synthetic_imagenet", "synthetic_last5"):
        assert real.reported == "resnet20" and replace(real, data=data).reported is None
    assert not any(row.reported for experiment in EXPERIMENTS for row in experiment.rows("smoke"))
    assert real.run(0) == replace(real, reported=None).run(0)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_net_that_stands_in_both_tables_is_trained_once(profile):
    both = (cifar_table.EXPERIMENT, degradation.EXPERIMENT)
    table, figure = ({run.identity for run in e.runs(Variant(profile), 5)} for e in both)
    assert len(table & figure) == 4 * 5
    assert len(table) == 25 and len(figure) == 40


def test_no_run_of_one_profile_serves_another():
    for experiment in EXPERIMENTS:
        identities = [{run.identity for run in experiment.runs(Variant(profile), 5)} for profile in PROFILES]
        assert not set.intersection(*identities) and len(set.union(*identities)) == sum(map(len, identities))


def test_the_default_numbers_of_seeds():
    for experiment in EXPERIMENTS:
        if experiment.script.startswith("transfer"):
            assert experiment.seeds == {"paper": 3 if experiment.dataset else 5, "short": 3, "smoke": 1}
            continue
        on_imagenet = experiment.name.endswith("_imagenet")
        most = 1 if experiment.name == "imagenet_table" else 3 if on_imagenet else 5
        assert experiment.seeds == {"paper": most, "short": 5 if most == 5 else 2, "smoke": 2}


@pytest.mark.parametrize(
    ("variant", "suffix", "said"),
    [
        (Variant(), "", "the paper's protocol"),
        (Variant("smoke"), "_smoke", "synthetic data, not comparable with the paper"),
        (Variant("short"), "_short", "real data, fewer iterations"),
        (Variant(train_images=45_000), "_45000-images", "45,000 training images"),
        (Variant("short", 45_000, "fp32"), "_short_45000-images_fp32", "fp32 throughout"),
        (Variant(precision="fp16", kernels="fused"), "_fp16_fused-kernels", "fused kernels where there are two kinds"),
    ],
)
def test_a_variant_is_named_in_its_files_and_its_heading(variant, suffix, said):
    assert variant.suffix == suffix and said in variant.heading


def test_an_unknown_profile_is_an_error_that_lists_the_profiles():
    with pytest.raises(ValueError, match="'long'.*paper, short, smoke"):
        Variant("long")


def test_an_unknown_row_is_an_error_that_lists_the_rows():
    with pytest.raises(ValueError, match="no row resnet21, vgg in the paper profile; available rows: resnet20, .*110"):
        cifar_table.EXPERIMENT.runs(PAPER, 1, ["resnet20", "resnet21", "vgg"])


def test_chosen_rows_stand_in_the_order_of_the_table():
    runs = cifar_table.EXPERIMENT.runs(PAPER, 2, ["resnet56", "resnet20"])
    assert [(run.model, run.seed) for run in runs] == [
        ("cifar_resnet20", 0),
        ("cifar_resnet20", 1),
        ("cifar_resnet56", 0),
        ("cifar_resnet56", 1),
    ]


def test_all_training_images_are_the_default_and_fewer_are_another_run():
    def identities(variant):
        return [run.identity for run in cifar_table.EXPERIMENT.runs(variant, 1)]

    assert identities(Variant(train_images=50_000)) == identities(PAPER)
    assert not set(identities(Variant(train_images=45_000))) & set(identities(PAPER))


def test_a_variant_leaves_alone_what_it_does_not_name():
    experiment = make_experiment(replace(Recipe(), precision="fp32"))
    assert experiment.runs(PAPER, 1)[0].recipe.precision == "fp32"
    assert experiment.runs(Variant(precision="bf16"), 1)[0].recipe.precision == "bf16"


def test_results_hold_the_records_of_the_seeds_asked_for_beside_the_published(tmp_path):
    experiment = make_experiment()
    runs = experiment.runs(PAPER, 3, ["resnet8"])
    store(tmp_path / "own", *(make_record(run, 8.0 + run.seed) for run in runs[::-1]))
    store(tmp_path / "published", make_record(runs[1], 7.0))
    own, published = read_pool(tmp_path / "own"), read_pool(tmp_path / "published")

    first, second = experiment.results(PAPER, 2, own, published)
    assert [record["final"]["test_error"] for record in first.records] == [8.0, 9.0]
    assert [record["final"]["test_error"] for record in first.published] == [7.0]
    assert second.records == second.published == []
    assert experiment.results(PAPER, 2, own, own)[0].published is None
    assert experiment.results(Variant(precision="fp32"), 2, own, published)[0].records == []


def test_a_table_has_room_for_every_recorded_seed(tmp_path):
    experiment = make_experiment()
    rows = experiment.rows("paper")
    assert experiment.recorded_seeds(PAPER, read_pool(tmp_path)) == 0
    store(tmp_path, make_record(replace(rows[0], recipe=Recipe()).run(200), 8.0))  # no row's
    assert experiment.recorded_seeds(PAPER, read_pool(tmp_path)) == 0
    store(tmp_path, make_record(rows[0].run(1), 8.0))
    assert experiment.recorded_seeds(PAPER, read_pool(tmp_path)) == 5
    store(tmp_path, make_record(rows[1].run(120), 8.0), make_record(rows[1].run(7), 8.0))
    pool = read_pool(tmp_path)
    assert experiment.recorded_seeds(PAPER, pool) == 121
    assert [record["specification"]["seed"] for record in rows[1].records(PAPER, pool)] == [7, 120]
    assert rows[1].records(Variant(precision="bf16"), pool) == []


def test_each_experiment_is_published_in_the_profiles_on_real_data_before_departures_are():
    for experiment in EXPERIMENTS:
        variants = [variant for one, variant in PUBLISHED_TABLES if one is experiment]
        assert variants[0] == PAPER and variants[-1] == Variant("short")
        assert all(experiment.resolve(variant) == variant for variant in variants)
        assert all(variant.profile == "paper" and variant.suffix for variant in variants[1:-1])


def test_kernels_are_chosen_for_runs_that_have_two_kinds_and_change_no_other():
    fused = Variant(kernels="fused")
    fast, full = precision.EXPERIMENT.runs(fused, 1)
    assert fast.recipe.kernels == "fused" and full == precision.EXPERIMENT.runs(PAPER, 1)[1]  # fp32
    default = cifar_table.EXPERIMENT.runs(PAPER, 2)
    for variant in (fused, Variant(kernels="library")):
        assert not set(default) & set(cifar_table.EXPERIMENT.runs(variant, 2))
        assert cifar_table.EXPERIMENT.resolve(variant) == variant
    assert cifar_table.EXPERIMENT.command(fused) == "make reproduce-cifar-table KERNELS=fused"
    (own,) = precision.EXPERIMENT.runs(Variant(kernels="library"), 1, ["fused"])  # a row keeps its own
    assert own == fast
    ladder = tweaks.EXPERIMENTS["cifar10"].runs(fused, 1)
    assert {(run.recipe.kernels, run.recipe.precision) for run in ladder} == {("fused", "auto")}
    with pytest.raises(ValueError, match="fused kernels can't be chosen here: none of these rows"):
        cifar_table.EXPERIMENT.resolve(Variant(precision="fp32", kernels="fused"))


def test_the_fast_row_of_the_precision_table_is_the_cifar_tables_own():
    fast, fused, full = precision.rows("paper")
    (own,) = [row for row in cifar_table.rows("paper") if row.key == "resnet20"]
    assert fast.run(3).identity == own.run(3).identity != full.run(3).identity
    assert full.recipe.precision == "fp32"
    assert fused.on_request and fused.recipe == replace(fast.recipe, kernels="fused")
    assert [row.recipe.precision for row in precision.rows("smoke")] == ["bf16", "bf16", "fp32"]


def test_the_harness_imports_no_table():
    allowed = r"reproductions\.(harness|reported)\b|reproductions import reported$"
    for file in (ROOT / "reproductions" / "harness").rglob("*.py"):
        imports = re.findall(r"^(?:from|import) (reproductions\b.*)", file.read_text(encoding="utf-8"), re.MULTILINE)
        assert not [line for line in imports if not re.match(allowed, line)], file


def test_the_experiments_name_the_measurements_that_are_published_and_one_plot_of_all_profiles():
    kinds = {kind.folder for experiment in EXPERIMENTS for kind in experiment.measurements}
    assert kinds == {"responses", "predictions", "pictures"}
    assert [experiment for experiment in EXPERIMENTS if experiment.overview] == [degradation.EXPERIMENT]


def test_a_smoke_profile_on_data_of_ones_own_is_not_called_synthetic():
    own, synthetic = (make_experiment(data=data).heading(Variant("smoke")) for data in ("cifar10", "synthetic"))
    assert own == "smoke profile: a few iterations, not comparable with the paper" and "synthetic data" in synthetic
