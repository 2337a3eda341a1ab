"""What each detail is worth: one change at a time, paired by seed, corrected for the number of comparisons."""

from dataclasses import asdict, replace

import pytest
from fakes import make_record, make_results
from printed import lines_of
from scipy import stats

from reproductions.cifar_table import EXPERIMENT as CIFAR_TABLE
from reproductions.harness.experiment import Variant
from reproductions.harness.records import Pool
from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.frame import paired_differences
from reproductions.harness.reporting.page import make_page, write_report
from reproductions.protocol_details import effects
from reproductions.protocol_details import experiment as protocol_details
from reproductions.protocol_details.effects import Effect
from resnet.data.sampling import Sampler

EXPERIMENT, PAPER = protocol_details.EXPERIMENT, Variant("paper")
# What each row changes, of the recipe unless told otherwise.
CHANGED = {
    "conv-bias": {"model_options": {"conv_bias": True}},
    "pad-both": {"model_options": {"shortcut_padding": "both"}},
    "fan-in": {"model_options": {"initialization": "fan_in"}},
    "xavier": {"model_options": {"initialization": "xavier"}},
    "fewer-images": {"train_images": 45_000},
    "bn-half": {"batch_norm_size": 64},
    "bn-recomputed": {"statistics_batches": 391},
    "channel-mean": {"normalization": "channel_mean"},
    "channel-std": {"normalization": "channel_std"},
    "no-bias-decay": {"decay_all": False},
    "nesterov": {"nesterov": True},
    "momentum-kept": {"momentum_at_drops": "kept"},
    "drop-last": {"last_batch": "drop"},
    "use-last": {"last_batch": "use"},
    "fp32": {"precision": "fp32"},
    "fp16": {"precision": "fp16"},
    "offsets": {"crop_offsets": 8},
    "epochs-200": {"iterations": 78_125, "milestones": (39_062, 58_594)},
}


def flat(run):
    values = {name: value for name, value in vars(run).items() if name != "recipe"}
    return values | asdict(run.recipe)


@pytest.mark.parametrize("depth", [20, 56])
def test_every_row_changes_one_thing(depth):
    rows = {row.key: row for row in EXPERIMENT.rows("paper")}
    default = rows[f"resnet{depth}"]
    assert default.run(3) == next(row for row in CIFAR_TABLE.rows("paper") if row.key == default.key).run(3)
    assert {key for key in rows if key.startswith(default.key)} == {
        default.key,
        *(f"{default.key}-{k}" for k in CHANGED),
    }
    for name, changed in CHANGED.items():
        row = rows[f"{default.key}-{name}"]
        old, new = flat(default.run(0)), flat(row.run(0))
        assert {key: new[key] for key in new if new[key] != old[key]} == changed
        assert row.after == default.key


def test_two_hundred_epochs_are_what_they_say():
    row = next(row for row in EXPERIMENT.rows("paper") if row.key == "resnet20-epochs-200")
    images = row.recipe.iterations * 128
    assert images == 200 * 50_000
    assert [round(m * 128 / 50_000) for m in row.recipe.milestones] == [100, 150]
    steps = [Sampler(0, 1_000, replace(row.recipe, last_batch=kind)).size(7) for kind in ("carry", "drop", "use")]
    assert steps == [128, 128, 104]


@pytest.mark.parametrize("profile", ["short", "smoke"])
def test_the_other_profiles_change_the_same_things(profile):
    rows = EXPERIMENT.rows(profile)
    assert len({row.run(0).identity for row in rows}) == len(rows)
    assert max(row.recipe.iterations for row in rows) < 5_000


CHANGED_ERRORS, DEFAULT_ERRORS = {0: 8.4, 1: 8.9, 2: 8.6, 4: 9.0}, {0: 8.1, 1: 8.3, 2: 8.4, 3: 8.2, 4: 8.2}


def make_effect(changed: dict[int, float], default: dict[int, float], seeds: int = 5) -> Effect:
    return Effect("net", "change", paired_differences(changed, default), seeds)


EFFECT = make_effect(CHANGED_ERRORS, DEFAULT_ERRORS)


def test_an_effect_is_paired_and_corrected():
    expected = [0.3, 0.6, 0.2, 0.8]
    assert EFFECT.differences == pytest.approx(expected)
    test = stats.ttest_1samp(expected, 0)
    assert intervals.paired_p(EFFECT.differences) == pytest.approx(test.pvalue)
    assert EFFECT.p(3) == pytest.approx(3 * test.pvalue) and EFFECT.p(1_000) == 1
    bounds = test.confidence_interval(1 - 0.05 / 7)
    assert (EFFECT.interval(7).low, EFFECT.interval(7).high) == pytest.approx((bounds.low, bounds.high))


@pytest.mark.parametrize("comparisons", [1, 2, 5, 30])
def test_interval_and_p_value_say_the_same(comparisons):
    assert (0 in EFFECT.interval(comparisons)) == (EFFECT.p(comparisons) > 0.05)
    assert EFFECT.statement(comparisons) == ("worse" if EFFECT.p(comparisons) < 0.05 else "not shown")
    better = make_effect(DEFAULT_ERRORS, CHANGED_ERRORS)
    assert better.statement(1) == "better"


def test_too_few_pairs_say_nothing():
    alone, none = make_effect({0: 8.0}, {0: 8.5, 1: 8.0}), make_effect({}, {0: 8.5})
    assert alone.statement(3) == "none: n < 3" and alone.p(3) is None and alone.interval(3) is None
    equal = make_effect({0: 8.75, 1: 8.9, 2: 8.9}, {0: 8.6, 1: 8.75, 2: 8.75}, 3)  # 0.15, but for rounding
    assert equal.statement(3) == "none: no spread" and equal.interval(3) is None and equal.p(3) is None
    assert none.statement(3) == "no pairs" and none.mean is None
    assert effects.by_size([none, alone, EFFECT]) == [alone, EFFECT, none]
    assert intervals.paired_p([0.5, 0.5, 0.5]) is intervals.paired_p([0.4, 0.5]) is None


@pytest.fixture
def results(tmp_path):
    errors = {
        "resnet20": [8.6, 8.7, 8.5],
        "resnet20-nesterov": [8.5, 8.6, 8.4],
        "resnet20-offsets": [9.6, 9.8, 9.3],
        "resnet20-fp16": [8.6, None, 8.7],
    }
    results = make_results(EXPERIMENT, PAPER, errors, tmp_path / "records")
    for record in (record for result in results if result.row.key.endswith("fp16") for record in result.records):
        record["precision"] = "fp16"
    return results


def test_table_csv_and_plot(results, tmp_path):
    files = write_report(EXPERIMENT, PAPER, results, tmp_path)
    table = files[0].read_text()
    section = table[table.index("## Effect of each change") :]
    lines = lines_of(section)
    assert [line[0] for line in lines[1:4]] == ["crop offsets 0 to 7", "Nesterov momentum", "fp16"]
    found = {line[0]: line for line in lines if line[1] == "ResNet-20"}
    assert found["crop offsets 0 to 7"][2:4] == ["3 of 5", "+0.97"]
    assert found["fp16"][2:4] == ["2 of 5", "+0.10"]
    assert found["biases in the convolutions"][2:] == ["0 of 5", "–", "–", "–", "–"]
    assert "corrected for 36 comparisons" in section
    names = {path.name for path in files}
    assert {"protocol_details_effects.csv", "protocol_details_forest.png"} <= names
    csv = next(path for path in files if path.name.endswith("effects.csv")).read_text().splitlines()
    assert len(csv) == 39 and csv[1].startswith("crop offsets 0 to 7,ResNet-20,3,5,0,0.966667,")


def test_the_best_evaluation_is_compared_with_the_last(results):
    by_change = {(e.net, e.change): e for e in protocol_details.find_effects(results)}
    best = by_change["ResNet-20", "best of 64 evaluations on the test set"]
    assert best.statement(30) == "lower by selection" and best.p(30) is None
    assert len(best.differences) == 3 and all(difference <= 0 for difference in best.differences)


@pytest.mark.parametrize(
    ("variant", "said"), [(Variant(precision="fp32"), "the same runs"), (PAPER, "the same precision")]
)
def test_a_change_that_changes_nothing_is_no_comparison(variant, said, tmp_path):
    """All in fp32 by the command line, or because "auto" is fp32 on that machine."""
    errors = {key: [8.6, 8.7, 8.5] for key in ("resnet20", "resnet20-fp32", "resnet20-nesterov")}
    results = make_results(EXPERIMENT, variant, errors, tmp_path / "records")
    for record in (record for result in results for record in result.records):
        record["precision"] = "fp32"
    found = protocol_details.find_effects(results)
    fp32 = next(effect for effect in found if effect.change == "fp32" and effect.net == "ResNet-20")
    assert fp32.statement(effects.count(found)) == f"none: {said}"
    assert fp32.interval(1) is None and fp32.p(1) is None
    assert effects.count(found) == 36 - sum(bool(effect.same) for effect in found) < 36
    section = effects.section(found)
    assert f"none: {said}" in section and f"corrected for {effects.count(found)} comparisons" in section


def test_pairs_on_other_devices_are_left_out_and_fp32_is_compared_where_the_default_is_not(tmp_path):
    errors = {key: [8.6, 8.7, 8.5] for key in ("resnet20", "resnet20-fp32", "resnet20-nesterov")}
    results = make_results(EXPERIMENT, PAPER, errors, tmp_path / "records")
    by_key = {result.row.key: result.records for result in results}
    by_key["resnet20"][2]["precision"] = "fp32"  # as "auto" is on a device without bf16
    cpu = {"type": "cpu"}
    for part in by_key["resnet20-nesterov"][0]["segments"]:
        part["hardware"] |= cpu
    found = {(e.net, e.change): e for e in protocol_details.find_effects(results)}
    fp32, nesterov = found["ResNet-20", "fp32"], found["ResNet-20", "Nesterov momentum"]
    assert len(fp32.differences) == 2 and fp32.left_out == {"of the same precision": 1} and not fp32.same
    assert len(nesterov.differences) == 1
    assert nesterov.left_out == {"of other devices": 1, "of other precision": 1}
    section = effects.section(list(found.values()))
    assert "| 1 of 5 (1 of other devices, 1 of other precision) |" in section and "counted in brackets" in section
    assert effects.numbers([nesterov])["pairs_left_out"] == [2]


def test_the_headline_is_the_largest_change(results, tmp_path):
    headline = EXPERIMENT.headline(make_page(EXPERIMENT, PAPER, results, tmp_path))
    assert headline.row == "the largest: ResNet-20, crop offsets 0 to 7" and headline.verdict == "not shown"
    assert headline.reproduced.startswith("test error +0.97 [") and headline.reproduced.endswith("] (3 pairs)")


def test_no_plot_without_pairs(tmp_path):
    results = EXPERIMENT.results(PAPER, 5, Pool(tmp_path), Pool(tmp_path / "published"))
    assert effects.forest(protocol_details.find_effects(results), PAPER) is None


def test_intervals_wider_than_the_plot_are_said_to_leave_it():
    figure = effects.forest([replace(EFFECT, differences=[0.1, 0.1, 0.7])], PAPER)
    texts = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert "mean, 95 % interval, corrected (some leave the axis)" in texts
    low, high = figure.axes[0].get_xlim()
    assert low == -high == pytest.approx(-1.6 * 0.7)


def test_a_record_of_the_default_alone_gives_no_published_table(tmp_path):
    rows = {row.key: row for row in EXPERIMENT.rows("paper")}
    pool = Pool(tmp_path)
    pool.records[rows["resnet20"].run(0).identity] = make_record(rows["resnet20"].run(0), 8.5)
    assert EXPERIMENT.recorded_seeds(PAPER, pool) == 0
    pool.records[rows["resnet20-fp32"].run(0).identity] = make_record(rows["resnet20-fp32"].run(0), 8.5)
    assert EXPERIMENT.recorded_seeds(PAPER, pool) == 5
