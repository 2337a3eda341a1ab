"""Ladders of steps: paired differences, what is said of them, and the tables and plots that show them."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import make_record, make_results, move, numbers_of, report_on, written_in
from matplotlib.collections import PathCollection
from printed import lines_of
from scipy import stats

from examples import three_rows
from reproductions.bag_of_tricks import efficient as bag_of_tricks_efficient
from reproductions.bag_of_tricks import refinements as bag_of_tricks_refinements
from reproductions.bag_of_tricks import tweaks as bag_of_tricks_tweaks
from reproductions.bag_of_tricks.ladder import ladder, step_curves
from reproductions.bag_of_tricks.refinements import schedules
from reproductions.harness.experiment import Row, RowResult, Variant
from reproductions.harness.records import ORIGIN, Pool
from reproductions.harness.reporting import footnotes, frame, intervals
from reproductions.harness.reporting.compare import Step, find_steps, statement, steps_numbers, steps_section
from reproductions.harness.reporting.page import Page

EFFICIENT = bag_of_tricks_efficient.EXPERIMENTS["cifar10"]
TWEAKS = bag_of_tricks_tweaks.EXPERIMENTS
REFINEMENTS = bag_of_tricks_refinements.EXPERIMENTS
PAPER, SHORT, SMOKE = Variant("paper"), Variant("short"), Variant("smoke")

ERRORS = {
    "original": [6.40, 6.20, 6.30, 6.50, 6.10],
    "b": [6.10, 6.00, 5.90, 6.30, 5.90],
    "c": [6.60, None, 6.40, 6.90, 6.30],
    "d": [6.20, 6.30, "", "", 6.40],
}


@pytest.fixture
def steps(tmp_path) -> dict[str, Step]:
    return {s.row.row.key: s for s in find_steps(make_results(TWEAKS["cifar10"], PAPER, ERRORS, tmp_path))}


# --------------------------------------------------------------------------------------------------- paired differences


def test_differences_are_of_accuracies_with_the_same_seed(steps):
    assert steps["b"].differences == pytest.approx([0.30, 0.20, 0.40, 0.20, 0.20])
    # mean 0.26, standard deviation sqrt(0.032 / 4) = 0.0894427, t(4) = 2.776445: 0.26 ± 0.111058
    assert steps["b"].mean == pytest.approx(0.26)
    bounds = steps["b"].interval()
    assert (bounds.low, bounds.high) == pytest.approx((0.148942, 0.371058), abs=1e-6)


def test_the_interval_is_that_of_scipys_paired_test(steps):
    old, new = (100 - np.array(ERRORS[key]) for key in ("original", "b"))
    for comparisons in (1, 3):
        expected = stats.ttest_rel(new, old).confidence_interval(1 - 0.05 / comparisons)
        bounds = steps["b"].interval(comparisons)
        assert (bounds.low, bounds.high) == pytest.approx((expected.low, expected.high))


def test_seeds_without_both_runs_are_in_no_pair(steps):
    assert steps["c"].differences == pytest.approx([-0.50, -0.50, -0.60, -0.40])  # seed 1 diverged
    assert steps["d"].differences == pytest.approx([0.40, -0.10])  # seeds 2 and 3 missing; 1 has nothing to pair with
    assert steps["d"].interval() is None  # of two pairs


def test_one_pair_has_a_difference_and_no_interval(tmp_path):
    (step, *_) = find_steps(make_results(TWEAKS["cifar10"], PAPER, {"original": [6.4], "b": [6.1, 6.2]}, tmp_path))
    assert step.differences == pytest.approx([0.3]) and step.mean == pytest.approx(0.3) and step.interval() is None
    (step, *_) = find_steps(make_results(TWEAKS["cifar10"], PAPER, {"b": [6.1]}, tmp_path / "less"))
    assert step.differences == [] and step.mean is None and step.interval() is None


CPU = {"hardware": {"type": "cpu", "device": "AMD EPYC"}}


def step_of(old, new):
    """A step from records to others, whatever rows they are of."""
    before, row = TWEAKS["cifar10"].rows("paper")[:2]
    return Step(RowResult(row, new, None, 5), RowResult(before, old, None, 5))


def test_only_runs_of_one_kind_of_device_and_one_precision_are_pairs():
    before, row = ([row.run(seed) for seed in range(5)] for row in TWEAKS["cifar10"].rows("paper")[:2])
    old = [make_record(run, 6.4) for run in before]
    new = [
        make_record(row[0], 6.1),
        make_record(row[1], 6.2, **CPU),
        make_record(row[2], 6.3, precision="fp32"),
        move(make_record(row[3], 6.0), 1_000, **CPU),
        move(make_record(row[4], 6.0), 1_000, hardware={"device": "NVIDIA H100"}),
    ]
    step = step_of(old, new)
    assert step.differences == pytest.approx([0.3, 0.4])
    assert step.left_out == {"of other devices": 2, "of other precision": 1}
    text = steps_section([step], PAPER, "carries over")
    assert "| 2 of 5 (2 of other devices, 1 of other precision) |" in text and "counted in brackets" in text
    columns = steps_numbers([step], PAPER, "carries over")
    assert (columns["pairs"], columns["pairs_left_out"]) == ([2], [3])
    unknown = move(make_record(row[0], 6.1), 1_000, **dict.fromkeys(ORIGIN))
    assert step_of(old, [unknown]).differences == []


def test_a_step_of_precision_compares_other_precisions_on_one_kind_of_device():
    """+ FP16 comes after a row in fp32."""
    new, old = (row_of(EFFICIENT, key) for key in ("128_fp16", "128_no_bias_decay"))
    full = [make_record(old.run(seed), 6.4) for seed in range(2)]
    half = [make_record(new.run(0), 6.1), make_record(new.run(1), 6.1, **CPU)]
    step = step_of(full, half)
    assert step.differences == pytest.approx([0.3]) and step.left_out == {"of other devices": 1}
    alone = steps_section([step_of(full, half[:1])], PAPER, "carries over")
    assert "counted in brackets" not in alone and "corrected for 1 step (Bonferroni)" in alone


def row_of(experiment, key):
    return next(row for row in experiment.rows("paper") if row.key == key)


def test_the_papers_differences_are_exact_and_by_source(steps):
    assert {source.key: value for source, value in steps["d"].reported.items()} == {"bot2018": 0.29}
    both = find_steps(REFINEMENTS["cifar10"].results(PAPER, 0, *[Pool(Path("nowhere"))] * 2))
    found = {step.row.row.key: {source.key: value for source, value in step.reported.items()} for step in both}
    assert found == {
        "cosine": {"bot2018": 0.75, "bot2019": 0.47},
        "smoothing": {"bot2018": 0.4, "bot2019": 0.64},
        "distilled": {"bot2018": 0.36, "bot2019": 0.26},
        "mixup": {"bot2018": 0.84, "bot2019": 0.64},
        "mixup_distilled": {"bot2018": 0.14, "bot2019": 0.32},
    }


# ----------------------------------------------------------------------------------------------------------- statements


class FakeStep:
    """A step with the differences given."""

    changes_nothing, noise = False, 0.13

    def __init__(self, differences, reported=0.3):
        self.differences = differences
        self.expected = reported
        self.mean = intervals.mean(differences)

    def interval(self, comparisons):
        return intervals.mean_interval(self.differences, intervals.corrected(comparisons))


@pytest.mark.parametrize(
    ("step", "variant", "said"),
    [
        (FakeStep([0.2, 0.3, 0.25]), PAPER, "carries over"),
        (FakeStep([-0.2, -0.3, -0.25]), PAPER, "reversed"),
        (FakeStep([-0.2, 0.3, 0.25]), PAPER, "not shown"),
        (FakeStep([-0.2, -0.3, -0.25], -0.14), PAPER, "carries over"),
        (FakeStep([0.2, 0.3, 0.25], -0.14), PAPER, "reversed"),
        (FakeStep([-0.2, -0.3, -0.25], -0.03), PAPER, "none: reported is within the noise"),
        (FakeStep([0.2, 0.3, 0.25], 0.13), PAPER, "none: reported is within the noise"),
        (FakeStep([0.2, 0.3, 0.25], 0.0), PAPER, "none: reported is within the noise"),
        (FakeStep([0.2, 0.3]), PAPER, "none: n < 3"),
        (FakeStep([]), PAPER, "none: n < 3"),
        (FakeStep([0.0, 0.0, 0.0]), PAPER, "none: no spread"),
        (FakeStep([0.2, 0.2, 0.2]), PAPER, "none: no spread"),
        (FakeStep([0.2, 0.3, 0.25]), SHORT, "not comparable"),
        (FakeStep([0.2]), SHORT, "not comparable"),
        (FakeStep([0.2, 0.3, 0.25], None), PAPER, None),
        (FakeStep([0.2, 0.3, 0.25], None), SMOKE, None),
    ],
)
def test_statement(step, variant, said):
    assert statement(step, variant, "carries over") == said


def test_a_step_is_corrected_and_too_small_a_one_is_not_resolvable():
    step = FakeStep([0.2, 0.4, 0.3, 0.1])
    assert statement(step, PAPER, "carries over", 1, 0.13) == "carries over"
    assert statement(step, PAPER, "carries over", 10, 0.05) == "not shown"
    assert statement(step, PAPER, "carries over", 10, 0.13) == "not resolvable with n = 4"


def test_the_papers_means_come_first_and_its_largest_std_is_the_noise():
    *_, step = find_steps(REFINEMENTS["cifar10"].results(PAPER, 0, *[Pool(Path("nowhere"))] * 2))
    assert [source.key for source in step.reported] == ["bot2019", "bot2018"] and step.expected == 0.32
    noises = step.noise, replace(step, metric="top5_accuracy").noise
    assert noises == pytest.approx((0.13 * 2**0.5, 0.08 * 2**0.5))  # of a difference of two runs


def test_rows_that_a_precision_makes_equal_are_no_step(tmp_path):
    fp32 = Variant(precision="fp32")
    errors = {"128_no_bias_decay": [6.0, 6.1], "128_fp16": [6.0, 6.1]}
    step = {s.row.row.key: s for s in find_steps(make_results(EFFICIENT, fp32, errors, tmp_path))}["128_fp16"]
    assert step.changes_nothing and statement(step, fp32, "carries over") == "none: the same runs"


# --------------------------------------------------------------------------------------------------------------- tables


def test_the_table_of_tweaks(tmp_path, no_plots):
    written = report_on(TWEAKS["cifar10"], PAPER, ERRORS, tmp_path)
    assert [path.name for path in written] == [f"bag_of_tricks_tweaks{end}" for end in (".md", ".csv", "_steps.csv")]
    text = written[0].read_text()
    assert text.startswith(
        "# Tweaks of bottleneck nets on CIFAR-10\n\n"
        "He T. et al. 2018, Table 5, on CIFAR-10 by the protocol of He et al. 2015, section 4.2 · the paper's protocol"
    )
    lines = lines_of(text)
    table, steps = lines[:5], lines[5:]
    assert "\nNot yet run: bottleneck ResNet-56-B, standard training.\n" in text
    assert table[0][3:] == [
        "top-1 accuracy, reproduced", "95 % t-interval", "top-1 accuracy on ImageNet, He T. et al. 2018",
    ]  # fmt: skip
    # 93.70 ± 2.776445 · 0.158114 / sqrt(5)
    assert (table[1][0], *table[1][3:]) == ("bottleneck ResNet-56", "93.70 ± 0.16 (n = 5)", "[93.50, 93.90]", "76.21")
    assert table[3][3] == "93.45 ± 0.26 (n = 4 of 5, 1 diverged)"
    assert table[4][3] == "93.70 ± 0.10 (n = 3 of 5)"
    net = "bottleneck ResNet-56"
    assert steps[1:] == [
        [f"{net}-B", net, "5", "+0.26", "[+0.10, +0.42]", "+0.45", "carries over", "0.20", "4"],
        [f"{net}-C", f"{net}-B", "4 of 5", "−0.50", "[−0.70, −0.30]", "+0.21", "reversed", "0.20", "5"],
        [f"{net}-D", f"{net}-C", "2 of 5", "+0.15", "–", "+0.29", "none: n < 3", "0.20", "4"],
    ]
    assert steps[0] == [
        "step", "compared with", "pairs", "difference in accuracy", "95 % interval, corrected",
        "reported, He T. et al. 2018", "does it do that here?",
        "smallest found by 5 pairs", "pairs for the reported one",
    ]  # fmt: skip
    assert "- Accuracies are in percent: mean ± sample standard deviation over n seeds" in text
    assert "corrected for 3 steps (Bonferroni)" in text and "pooled over the steps: 0.09 (top-1 accuracy)." in text
    assert "in no mean: bottleneck ResNet-56-C seed 1 (found at" in text
    assert "Table 5; Tables 8 and 9.\n" in text and "verdict" not in text and "difference from reported" not in text


def test_the_minutes_of_an_epoch_stand_beside_table_3(tmp_path, no_plots):
    errors = {"128_scaling": [6.5, 6.6], "1024_fp16": [6.4, 6.5]}
    table, numbers_file, *_ = report_on(EFFICIENT, PAPER, errors, tmp_path)
    text = table.read_text()
    assert "| minutes per epoch, reported | minutes per epoch, measured |" in text
    minutes = 60 / (64_000 * 128 / 50_000)  # of an hour each
    assert f"| 13.3                        | {minutes:.3g} " in text and "| 4.4 " in text
    assert "gets 3.0 times faster in the paper; 1.0 times in these runs." in text
    first = numbers_of(numbers_file)["128_scaling"]
    assert float(first["epoch_minutes"]) == pytest.approx(minutes, rel=1e-5)


def test_the_numbers_of_the_tweaks(tmp_path, no_plots):
    _, table, steps = report_on(TWEAKS["cifar10"], PAPER, ERRORS, tmp_path)
    first = numbers_of(table)["original"]
    assert (first["top1_accuracy_mean"], first["n"], first["bot2018_top1_accuracy"]) == ("93.7", "5", "76.21")
    line = numbers_of(steps, "step")["c"]
    expected = {"after": "b", "metric": "top1_accuracy", "pairs": "4", "seeds": "5", "difference": "-0.5"}
    expected |= {"bot2018_difference": "0.21", "statement": "reversed", "command": "make report"}
    assert {name: line[name] for name in expected} == expected
    assert float(line["std"]) == pytest.approx(math.sqrt(0.02 / 3), abs=1e-6)
    assert line["records_sha256"] == first["records_sha256"]


def test_single_seeds_and_no_records_say_nothing(tmp_path, no_plots):
    text = report_on(TWEAKS["cifar10"], PAPER, {"original": [6.4], "b": [6.1]}, tmp_path)[0].read_text()
    assert "| 1 of 5 | +0.30                  | +0.45                       | none: n < 3" in text
    assert "| 0 of 5 | –                      | +0.29                       | none: n < 3" in text


def test_short_is_not_comparable_and_smoke_compares_nothing(tmp_path, no_plots):
    text = report_on(TWEAKS["cifar10"], SHORT, {"original": [60, 61], "b": [50, 51]}, tmp_path / "short")[0].read_text()
    assert len(re.findall(r"not comparable +\|", text)) == 3 and "| 2 of 5 | +10.00 " in text
    assert "make report" in text and "short profile: real data, fewer iterations" in text
    text = report_on(TWEAKS["cifar10"], SMOKE, {"original": [60, 61], "b": [50, 51]}, tmp_path / "smoke")[0].read_text()
    assert "ImageNet" not in text and "reported" not in text and "does it do that" not in text and "+10.00" in text


def test_imagenet_has_two_accuracies_a_verdict_and_a_command_of_its_own(tmp_path, no_plots):
    errors = {"efficient": [23.0, 22.8, 22.9], "cosine": [22.2, 22.1, 22.0]}
    text = report_on(REFINEMENTS["imagenet"], PAPER, errors, tmp_path, published={}, seeds=3)[0].read_text()
    assert text.startswith("# Refinements of training on ImageNet\n\nHe T. et al. 2018, Table 6 · the paper")
    assert "| top-5 accuracy, yours " in text and "| reported number " in text
    assert "| 77.10 ± 0.10 (n = 3) " in text and "| 94.28 ± 0.03 (n = 3) " in text
    # 77.26 in 77.10 ± 4.302653 · 0.1 · sqrt(4 / 3)
    assert "| [76.60, 77.60]                           | not contradicted (± 0.50) |" in text
    assert "Difference and interval are compared with the numbers of He T. et al. 2019, CVPR." in text
    assert "| + cosine decay      | efficient           | top-5    | 3      | +0.20                  |" in text
    assert "| not resolvable with n = 3 " in text and "“Confirmed”: the interval excludes 0" in text
    assert "corrected for 10 steps" in text and "77.26 ± 0.07" in text
    taught = "All seeds of “+ distill w/o mixup” and of “+ distill w/ mixup” learn from one teacher each"
    assert taught in text and "0.10 (top-1 accuracy) and 0.03 (top-5 accuracy)" in text
    assert "made again by `make reproduce-bag-of-tricks-refinements DATASET=imagenet`" in text


def test_the_teacher_is_named_with_what_it_came_to(tmp_path, no_plots):
    experiment = REFINEMENTS["cifar10"]
    errors = {"smoothing": [5.8, 5.9], "distilled": [5.6, 5.7]}
    run, other = (run for run in experiment.runs(PAPER, 1) if run.model == "cifar_bottleneck164")
    who = f"Teacher of “+ distill w/o mixup”: bottleneck ResNet-164-D, seed 0 (run `{run.short_id}`)"
    with_mixup = f"Teacher of “+ distill w/ mixup”: bottleneck ResNet-164-D with mixup, seed 0 (run `{other.short_id}`)"
    text = report_on(experiment, PAPER, errors, tmp_path / "a", teacher_error=4.87)[0].read_text()
    assert f"- {who}, top-1 accuracy 95.13 after the last iteration.\n" in text
    assert f"- {with_mixup}, top-1 accuracy 95.13 after the last iteration.\n" in text
    assert "- From 6 records, " in text  # the teachers' are among them
    assert f"- {who}, no record here.\n" in report_on(experiment, PAPER, errors, tmp_path / "b")[0].read_text()
    lost = make_record(run, 9.0, diverged=True)
    results = make_results(experiment, PAPER, errors, tmp_path / "c")
    results = [replace(result, teacher=lost if result.row.teacher else None) for result in results]
    assert footnotes.teacher_notes(PAPER, results, "top1_accuracy") == [f"{who}, diverged.", f"{with_mixup}, diverged."]
    assert footnotes.teacher_notes(PAPER, make_results(TWEAKS["cifar10"], PAPER, {}, tmp_path), "top1_accuracy") == []


def test_a_record_that_several_rows_have_counts_once(tmp_path):
    results = make_results(REFINEMENTS["cifar10"], PAPER, {"distilled": [5.6], "mixup_distilled": [5.5]}, tmp_path,
                         teacher_error=4.9)  # fmt: skip
    assert all(result.teacher for result in results if result.row.teacher)
    assert len(footnotes.all_records([*results, *results])) == 4


def test_a_page_of_accuracies_takes_the_highest_for_the_best(tmp_path):
    experiment = TWEAKS["cifar10"]
    page = Page(experiment, PAPER, make_results(experiment, PAPER, ERRORS, tmp_path), tmp_path, "top1_accuracy")
    assert page.best_of_n().cells[0] == "93.90"
    assert "highest top-1 accuracy" in page.best_over_curve().note
    assert float(page.best_over_curve().numbers["best_over_curve_mean"][0]) >= 93.7 - 1e-9
    assert page.reported().heading == "top-1 accuracy, reported" and page.reported().cells[0] == "76.21 (single)"


@pytest.mark.parametrize(
    ("metric", "value"),
    [("test_error", 6.5), ("training_error", 1.0), ("top1_accuracy", 93.5), ("top5_accuracy", 99.5)],
)
def test_measured(metric, value):
    point = {"test_error": 6.5, "test_top5_error": 0.5, "training_error": 1.0}
    assert metric in frame.METRICS and frame.measured(point, metric) == value


def test_a_ladder_without_a_paper_has_differences_only(tmp_path):
    rows = [Row(k, k, "cifar_resnet8", EFFICIENT.rows("smoke")[0].recipe, "synthetic", after=a) for k, a in
            (("one", None), ("two", "one"))]  # fmt: skip
    text = steps_section(find_steps([RowResult(row, [], None, 2) for row in rows]), PAPER, "carries over")
    assert "| two  | one           | 0 of 2 |\n" in text and "smallest found" not in text


# ---------------------------------------------------------------------------------------------------------------- plots


def dots(axis) -> list[float]:
    drawn = [points for points in axis.collections if isinstance(points, PathCollection)]
    return sorted(round(float(x), 2) for points in drawn for x, _ in points.get_offsets())


def test_the_ladder_draws_every_seed_of_both_batch_sizes_from_top_to_bottom(tmp_path):
    errors = {"128_scaling": [6.4, 6.2], "1024_scaling": [7.0, 7.2], "128_warmup": [6.3]}
    results = make_results(EFFICIENT, PAPER, errors, tmp_path)
    figure = ladder({"batch 128": results[:5], "batch 1,024": results[5:]}, PAPER, "top1_accuracy")
    (axis,) = figure.axes
    assert dots(axis) == [92.8, 93.0, 93.6, 93.7, 93.8]
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels == ["linear scaling (n = 2, 2)", "+ LR warm-up (n = 1, 0)"]
    assert "not yet run: + zero γ, + no bias decay, + FP16" in figure.get_suptitle().replace("\n", " ")
    assert axis.get_ylim()[0] > axis.get_ylim()[1]
    said = written_in(figure)
    assert said.count("no completed runs, batch 1,024") == 1 and "no completed runs, batch 128" not in said
    assert {"one seed, batch 128", "one seed, batch 1,024"} <= set(said)
    assert "He T. et al. 2018" not in said  # measured on other data
    assert "mean" in said and not [text for text in said if "interval" in text]  # two runs have none
    wide = make_results(EFFICIENT, PAPER, {"128_scaling": [6.4, 6.2, 7.4]}, tmp_path / "wide")
    said = written_in(ladder({"": wide}, PAPER, "top1_accuracy"))
    assert "mean, 95 % t-interval (some leave the axis)" in said


def test_the_ladder_draws_reported_numbers_of_the_same_data_in_the_paper_profile(tmp_path):
    experiment, errors = REFINEMENTS["imagenet"], {"efficient": [23.0, 22.8, 22.9]}
    results = make_results(experiment, PAPER, errors, tmp_path / "paper")
    (axis,) = ladder({"": results}, PAPER, "top1_accuracy").axes
    reported = {float(line.get_xdata()[0]) for line in axis.lines if line.get_marker() == "D"}
    assert reported >= {77.16, 77.26, 79.29, 79.33} and axis.get_xlim()[1] > 79.33
    short = make_results(experiment, SHORT, {"efficient": [90.0, 91.0]}, tmp_path / "short")
    (axis,) = ladder({"": short}, SHORT, "top1_accuracy").axes
    assert not [line for line in axis.lines if line.get_marker() == "D"]


def test_every_step_has_a_panel_with_and_without_it(tmp_path):
    results = make_results(TWEAKS["cifar10"], PAPER, ERRORS | {"d": []}, tmp_path)
    figure = step_curves(find_steps(results), PAPER)
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles == [f"({panel}) bottleneck ResNet-56-{letter}" for panel, letter in zip("ab", "BC")]
    ends = [{round(float(line.get_ydata()[-1]), 2) for line in axis.lines if len(line.get_xdata()) == 64}
            for axis in figure.axes]  # fmt: skip
    assert ends == [{6.3, 6.04, 5.0}, {6.04, 6.55, 5.0}]  # and none of D, which has no runs
    assert {"with the step", "without the step", "learning rate ÷ 10"} <= set(written_in(figure))
    epochs = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_linestyle() == ":"]
    assert set(epochs) == {4000 * 1024 / 50_000, 6000 * 1024 / 50_000}


def test_schedules_are_drawn_with_and_without_records(tmp_path):
    empty = make_results(REFINEMENTS["cifar10"], PAPER, {}, tmp_path / "none")
    figure = schedules({"step decay": empty[0], "cosine decay": empty[1]}, PAPER)
    (axis,) = figure.axes
    step, cosine = axis.lines
    assert max(step.get_ydata()) == pytest.approx(0.8) and min(cosine.get_ydata()) < 1e-5
    values = dict(zip(np.round(step.get_xdata(), 2), step.get_ydata()))
    assert values[round(3999 * 1024 / 50_000, 2)] == pytest.approx(0.8)
    assert values[round(4000 * 1024 / 50_000, 2)] == pytest.approx(0.08)
    some = make_results(REFINEMENTS["cifar10"], PAPER, {"efficient": [6.2, 6.4]}, tmp_path / "some")
    figure = schedules({"step decay": some[0], "cosine decay": some[1]}, PAPER)
    (line,) = figure.axes[1].lines
    assert float(line.get_ydata()[-1]) == pytest.approx(93.7)
    assert figure.axes[1].get_title(loc="left") == "(b) top-1 accuracy, mean and range of seeds"


def test_nothing_to_draw(tmp_path):
    results = make_results(TWEAKS["cifar10"], PAPER, {"b": [None]}, tmp_path)
    assert ladder({"": results}, PAPER, "top1_accuracy") is None
    assert step_curves(find_steps(results), PAPER) is None


def test_a_table_without_steps_is_written_without_their_section(tmp_path):
    variant = Variant("smoke")
    rows = [replace(row, after=None) for row in three_rows.rows("smoke")]
    experiment = replace(three_rows.EXPERIMENT, rows=lambda profile: rows)
    files = report_on(experiment, variant, {"plain": [20.0, 21.0], "cutmix": [19.0, 20.0]}, tmp_path)
    assert "CutMix" in files[0].read_text() and "What each trick does" not in files[0].read_text()
    assert len({len(column) for column in steps_numbers([], variant, "shown").values()}) == 1
