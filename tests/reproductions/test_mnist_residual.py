"""The small residual net on MNIST: the reported recipe, what the table says of its epochs, and the whole way."""

import csv
import math
from dataclasses import replace

import printed
import pytest
from fakes import make_record, store

from reproductions import mnist_residual, reported
from reproductions.harness import cli, publish
from reproductions.harness.experiment import RowResult, Variant
from reproductions.harness.records import best_point
from reproductions.harness.reporting import compare
from reproductions.harness.reporting.page import write_report
from reproductions.mnist_residual import errors_over_epochs, mean_losses
from resnet.data import KNOWN_COPIES, TRAIN_IMAGES, mnist
from resnet.recipe import learning_rate_at

EXPERIMENT = mnist_residual.EXPERIMENT
PAPER, SHORT, SMOKE = Variant("paper"), Variant("short"), Variant("smoke")
# Accuracies after epochs 1, 3 and the last, by seed.
ACCURACIES = [(97.3, 98.5, 98.9), (97.4, 98.7, 99.0), (97.1, 98.3, 98.8)]


def make_result(root, accuracies, variant=PAPER, published=None, seeds=None, diverged=(), **changes) -> RowResult:
    (row,) = EXPERIMENT.rows(variant.profile)

    def record(seed, at):
        run = variant.apply(row.run(seed))
        made = make_record(run, 100 - at[-1], diverged=seed in diverged, **changes)
        for point in made["curve"]:
            epoch = point["iteration"] / row.recipe.eval_interval
            if point["test_error"] is not None and epoch < mnist_residual.EPOCHS[variant.profile]:
                point["test_error"] = 100 - (at[0] if epoch < 2 else at[1])
        return made | {"best": best_point(made["curve"])}

    def records(of, pool):
        return store(root / pool, *(record(seed, at) for seed, at in enumerate(of)))

    others = None if published is None else records(published, "published")
    return RowResult(row, records(accuracies, "own"), others, seeds or EXPERIMENT.seeds[variant.profile])


def report(result, out, variant=PAPER):
    return write_report(EXPERIMENT, variant, [result], out)


def lines_of(path) -> list[list[str]]:
    return printed.lines_of(path.read_text().split("\n\n")[2])


# ----------------------------------------------------------------------------------------------------------------- rows


def test_the_recipe_is_the_reported_one():
    (row,) = EXPERIMENT.rows("paper")
    recipe = row.recipe
    assert (row.model, row.data, row.model_options) == ("mnist_residual", "mnist", {})
    assert (recipe.learning_rate, recipe.momentum, recipe.batch_size) == (0.01, 0.5, 64)
    assert (recipe.iterations, recipe.eval_interval) == (10 * 938, 938)
    assert recipe.last_batch == "use" and 937 * 64 < 60_000 <= 938 * 64
    assert {learning_rate_at(recipe, iteration) for iteration in (0, 5_000, 9_379)} == {0.01}
    assert (recipe.weight_decay, recipe.augment, recipe.normalization) == (0, False, "channel_std")
    assert not recipe.nesterov and recipe.label_smoothing == recipe.mixup == 0
    assert recipe.loss_interval == 300 and recipe.precision == "fp32"


def test_all_profiles_have_whole_epochs():
    for profile, epochs in mnist_residual.EPOCHS.items():
        (row,) = EXPERIMENT.rows(profile)
        steps = math.ceil(TRAIN_IMAGES[row.data] / 64)
        assert (row.recipe.iterations, row.recipe.eval_interval) == (epochs * steps, steps)
        assert row.data == ("synthetic_mnist" if profile == "smoke" else "mnist")
    assert EXPERIMENT.rows("smoke")[0].recipe.iterations < 500


# ---------------------------------------------------------------------------------------------------------------- table


def test_every_epoch_stands_beside_what_is_reported(no_plots, tmp_path):
    written = report(make_result(tmp_path, ACCURACIES, seeds=3), tmp_path / "results")
    assert [path.name for path in written] == ["mnist_residual.md", "mnist_residual.csv"]
    heading, *lines = lines_of(written[0])
    # 97.2667 ± 4.3027 · 0.15275 / sqrt(3), and · sqrt(4 / 3): 96 lies below, 96.99 does not
    assert [*zip(heading, lines[0], strict=True)] == [
        ("after epoch", "1"),
        ("top-1 accuracy, reported", "96 (in whole percent, cut off)"),
        ("top-1 accuracy, reproduced", "97.27 ± 0.15 (n = 3)"),
        ("95 % t-interval", "[96.89, 97.65]"),
        ("difference from reported", "+0.27 to +1.27"),
        ("95 % prediction interval (of 1 more run)", "[96.51, 98.03]"),
        ("reported number", "not contradicted (± 0.76)"),
    ]
    assert lines[1][1:3] == ["98 (in whole percent, cut off)", "98.50 ± 0.20 (n = 3)"]
    assert lines[1][-2:] == ["[97.51, 99.49]", "not contradicted (± 0.99)"]
    assert lines[2] == ["10", "–", "98.90 ± 0.10 (n = 3)", "[98.65, 99.15]", "–", "–", "–"]
    text = written[0].read_text()
    assert text.startswith("# A small residual net without BN on MNIST\n\na report by qq_40211493 · ")
    assert "An epoch is 938 steps, as many as batches of 64 need for 60,000 images." in text
    address = "https://blog.csdn.net/qq_40211493/article/details/106762564"
    assert f"- Reported: [qq_40211493 on CSDN]({address}), test accuracy after epochs 1 and 3.\n" in text
    assert "A number in whole percent that was cut off stands for anything up to one point more." in text
    assert "- From 3 records" in text and "Data: 3 runs on the official files of mnist" in text


def test_csv_has_a_line_per_epoch(no_plots, tmp_path):
    written = report(make_result(tmp_path, ACCURACIES, seeds=3), tmp_path / "results")
    with written[1].open(newline="") as file:
        first, second, last = csv.DictReader(file)
    assert [row["epoch"] for row in (first, second, last)] == ["1", "3", "10"]
    assert (first["reported"], first["reported_kind"]) == ("96", "cut_off")
    assert first["reported_number"] == "not contradicted"
    assert (second["reported_number"], last["reported_number"]) == ("not contradicted", "")
    assert last["top1_accuracy_mean"] == "98.9"


def test_a_run_that_diverged_is_in_no_mean_and_named_once(no_plots, tmp_path):
    path, *_ = report(make_result(tmp_path, ACCURACIES, diverged=(1,)), tmp_path / "results")
    assert [line[2] for line in lines_of(path)[1:]] == [
        "97.30, 97.10 (n = 2 of 5, 1 diverged)",
        "98.50, 98.30 (n = 2 of 5, 1 diverged)",
        "98.90, 98.80 (n = 2 of 5, 1 diverged)",
    ]
    assert path.read_text().count("small residual CNN seed 1 (found at iteration 2,814)") == 1


def test_a_users_table_has_published_and_yours(no_plots, tmp_path):
    result = make_result(tmp_path, ACCURACIES[:2], published=ACCURACIES, seeds=2)
    path, *_ = report(result, tmp_path / "runs")
    heading, first, *_ = lines_of(path)
    assert heading[2:4] == ["top-1 accuracy, published here", "top-1 accuracy, yours"]
    assert first[2:4] == ["97.27 ± 0.15 (n = 3)", "97.30, 97.40 (n = 2)"]
    assert "made again by `make reproduce-mnist-residual SEEDS=2`" in path.read_text()


def test_the_short_profile_ends_after_3_epochs_and_is_not_compared(no_plots, tmp_path):
    path, *_ = report(make_result(tmp_path, [(97, 98, 98.5), (97, 98, 98.7)], SHORT), tmp_path / "runs", SHORT)
    heading, *lines = lines_of(path)
    assert [line[0] for line in lines] == ["1", "3"]
    assert heading == ["after epoch", "top-1 accuracy, reported", "top-1 accuracy, reproduced"]
    assert lines[1][2] == "98.50, 98.70 (n = 2 of 5)"


def test_the_smoke_profile_is_compared_with_nothing(no_plots, tmp_path):
    path, *_ = report(make_result(tmp_path, [(30, 60, 85), (31, 61, 86)], SMOKE), tmp_path / "runs", SMOKE)
    heading, *lines = lines_of(path)
    assert heading == ["after epoch", "top-1 accuracy, reproduced"] and len(lines) == 3
    assert "reported" not in path.read_text()


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        ([95.9, 96.0, 96.1], "not contradicted ("),
        ([97.2, 97.3, 97.4], "if rounded contradicted, below; if cut off not contradicted ("),
        ([98.0, 98.1, 98.2], "contradicted, below ("),
        ([95.0, 95.1, 95.2], "if rounded not contradicted; if cut off contradicted, above ("),
        ([94.0, 94.1, 94.2], "contradicted, above ("),
    ],
)
def test_a_number_in_whole_percent_may_be_rounded_or_cut_off(sample, said):
    target = replace(reported.target("mnist_residual_epoch1", "top-1 accuracy"), kind="whole")
    found = compare.verdict(sample, target, PAPER)  # 96; intervals of ± 0.4968
    assert str(found) == f"{said}± 0.50)"


@pytest.mark.parametrize(("mean", "side"), [(95.4, ", above"), (95.6, ""), (97.4, ""), (97.6, ", below")])
def test_a_number_that_was_cut_off_stands_for_up_to_one_point_more(mean, side):
    target = reported.target("mnist_residual_epoch1", "top-1 accuracy")
    found = compare.verdict([mean - 0.1, mean, mean + 0.1], target, PAPER)  # from 96 up to 97; ± 0.4968
    assert str(found) == f"{f'contradicted{side}' if side else 'not contradicted'} (± 0.50)"


# ----------------------------------------------------------------------------------------------------------------- plot


def test_the_mean_losses_stand_beside_the_reported_ones_at_the_same_batches(tmp_path):
    result = make_result(tmp_path, ACCURACIES, seeds=3)
    numbers = mnist_residual.reported_losses(result)
    assert len(numbers) == 13 and [*numbers][:4] == [300, 600, 900, 938 + 300]
    assert str(numbers[300]) == "0.535" and str(numbers[4 * 938 + 300]) == "0.039"
    (axis,) = mean_losses(result, numbers, PAPER).axes
    own, others = (line for line in axis.lines if len(line.get_xdata()) > 2)
    assert len(own.get_xdata()) == 30 and list(own.get_xdata()[:13]) == pytest.approx(list(others.get_xdata()))
    assert own.get_ydata()[0] == pytest.approx(result.records[0]["curve"][0]["training_loss"])
    assert mean_losses(make_result(tmp_path / "none", []), numbers, PAPER) is None


def test_the_plot_has_both_curves_over_the_epochs_and_the_reported_errors(tmp_path):
    result = make_result(tmp_path, ACCURACIES, seeds=3)
    lines = {epoch: mnist_residual.after_epoch(result, epoch, PAPER) for epoch in mnist_residual.SHOWN}
    figure = errors_over_epochs(result, lines, PAPER)
    (axis,) = figure.axes
    curves = [line for line in axis.lines if len(line.get_xdata()) == 10]
    assert len(curves) == 2 and list(curves[0].get_xdata()) == list(range(1, 11))
    test = next(line for line in curves if line.get_linestyle() == "-")
    assert test.get_ydata()[0] == pytest.approx(100 - 97.2667, abs=1e-3)
    boxes = {(box.get_x() + 0.25, box.get_y(), box.get_height()) for box in axis.patches}
    assert boxes == {(1, 3, 1), (3, 1, 1)}  # from 96 up to 97 %, and from 98 up to 99 %
    assert not [line for line in axis.lines if line.get_marker() == "D"]
    assert (axis.get_yscale(), axis.get_xlabel()) == ("log", "epochs")
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert "small residual CNN (n = 3)" in names and "training error" in names
    assert names[-1] == "reported, cut off to whole percent: anywhere in the box"


def test_there_is_no_plot_without_completed_runs_and_nothing_reported_on_other_profiles(tmp_path):
    assert errors_over_epochs(make_result(tmp_path / "none", []), {}, PAPER) is None
    result = make_result(tmp_path, ACCURACIES[:2], SHORT)
    figure = errors_over_epochs(result, {1: mnist_residual.after_epoch(result, 1, SHORT)}, SHORT)
    assert not figure.axes[0].patches
    assert figure.get_suptitle().startswith("MNIST · short profile")


# ------------------------------------------------------------------------------------------------------------ the whole


def test_from_the_command_line_to_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(mnist_residual.EPOCHS, "smoke", 1)
    assert cli.run_experiment(EXPERIMENT, ["--profile", "smoke", "--seeds", "1", "--out", str(tmp_path)]) == 0
    assert {path.name for folder in ("tables", "plots") for path in (tmp_path / folder).iterdir()} == {
        f"mnist_residual_smoke{end}"
        for end in (".md", ".csv", "_curves.png", "_curves.svg", "_losses.png", "_losses.svg")
    }
    assert "| 1           |" in capsys.readouterr().out


def test_records_of_the_known_copy_may_be_published_and_synthetic_ones_may_not():
    run = EXPERIMENT.rows("paper")[0].run(0)
    copy = {"official": False, "sha256": next(iter(mnist.KNOWN_COPIES))}
    assert copy["sha256"] in KNOWN_COPIES
    data = "its data, SHA-256"
    assert not any(data in text for text in publish.objections(make_record(run, 1.0, data=copy), history=False))
    unknown = make_record(run, 1.0, data=copy | {"sha256": "ab" * 32})
    assert any(data in text for text in publish.objections(unknown, history=False))
    made_up = make_record(EXPERIMENT.rows("smoke")[0].run(0), 1.0)
    assert "it is from synthetic data" in publish.objections(made_up, history=False)
