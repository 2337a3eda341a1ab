"""ImageNet's nets on small images: the reported three stages, and the stem as the only thing that changes."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from fakes import make_results
from printed import lines_of

from reproductions.cifar_imagenet_stem import report as predictions
from reproductions.cifar_imagenet_stem.experiment import EXPERIMENT
from reproductions.cifar_imagenet_stem.predictions import PREDICTIONS
from reproductions.harness import measurements
from reproductions.harness.experiment import RowResult, Variant
from reproductions.harness.launching.run_paths import RunPaths
from reproductions.harness.launching.worker import execute
from reproductions.harness.measurements import MeasurementError
from reproductions.harness.records import read_pool
from reproductions.harness.reporting.page import write_report
from resnet.data import DataError, load
from resnet.models import create_model
from resnet.recipe import learning_rate_at

PAPER = Variant("paper")


def test_the_three_stages_of_the_recipe():
    (recipe,) = {row.recipe for row in EXPERIMENT.rows("paper") if not row.on_request}
    epochs = [0, 149.9, 150, 209.9, 210, 269.9]
    rates = [learning_rate_at(recipe, round(epoch * 391)) for epoch in epochs]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert recipe.iterations == 270 * 391 and recipe.last_batch == "use"
    assert (recipe.weight_decay, recipe.momentum, recipe.batch_size, recipe.nesterov) == (5e-4, 0.9, 128, False)
    assert (recipe.normalization, recipe.momentum_at_drops) == ("image_std", "forgotten")


def test_rows_on_request_do_without_one_piece_of_the_reports_advice_each():
    rows = {row.key: row for row in EXPERIMENT.rows("paper")}
    asked = {key: row.recipe.changes() for key, row in rows.items() if row.on_request}
    reported = rows["resnet18"].recipe.changes()
    found = {key: {n for n in c | reported if c.get(n) != reported.get(n)} for key, c in asked.items()}
    assert found == {
        "resnet18-no-decay": {"weight_decay"},
        "resnet18-no-momentum": {"momentum", "momentum_at_drops"},
        "resnet18-batch64": {"batch_size", "iterations", "milestones", "eval_interval"},
    }
    assert rows["resnet18-batch64"].recipe.iterations == 270 * 782
    assert {row.after for row in rows.values() if row.on_request} == {"resnet18"}


def test_the_rows_differ_in_depth_and_stem_alone():
    rows = {row.key: row for row in EXPERIMENT.rows("paper") if not row.on_request}
    as_reported = {"variant": "b", "conv_bias": True, "first_projection": True}
    assert [(row.model, row.run(0).model_options, row.after) for row in rows.values()] == [
        ("resnet18", as_reported, None),
        ("resnet34", as_reported, "resnet18"),
        ("resnet18", as_reported | {"small_stem": True}, "resnet18"),
    ]
    net = create_model("resnet18", variant="b", small_stem=True, num_classes=10)
    assert net.conv1.kernel_size == (3, 3)
    assert {row.data for row in rows.values()} == {"cifar10"} and rows["resnet18"].reported == "stem_resnet18"


def test_the_table_has_the_cost_at_32_pixels_and_the_reported_accuracy(tmp_path):
    errors = {"resnet18": [13.0, 12.8, 13.3], "resnet18-small": [4.9, 5.1, 5.0]}
    results = make_results(EXPERIMENT, PAPER, errors, tmp_path / "records")
    files = write_report(EXPERIMENT, PAPER, results, tmp_path)
    lines = lines_of(files[0].read_text())
    cells = next(line for line in lines if line[0] == "ResNet-18, 7x7 stem")
    assert cells[2] == "37.3 M", "a 49th of 1,813.6 M of convolutions at 224 pixels, 64 x 64 x 8 x 8 more, 10 classes"
    assert cells[-4:] == ["99.4 (the last epoch)", "95.00", "0.018 (the last epoch)", "0.100"]
    assert "86.79 (single)" in cells and "86.97 ± 0.25 (n = 3 of 5)" in cells
    assert "+8.03" in next(line for line in lines if line[:2] == ["ResNet-18, 3x3 stem", "ResNet-18, 7x7 stem"])
    assert {path.name for path in files} >= {"cifar_imagenet_stem_steps.csv", "cifar_imagenet_stem_curves.png"}


# --------------------------------------------------------------------------------------------------------- predictions

SMOKE = Variant("smoke")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A folder in which the smoke profile's first row was trained with two seeds, and its predictions measured."""
    out = tmp_path_factory.mktemp("out")
    paths = RunPaths(out, out)
    runs = EXPERIMENT.runs(SMOKE, 2, ["resnet18"])
    shorter = [replace(run, recipe=replace(run.recipe, iterations=2, milestones=(1,))) for run in runs]
    assert execute(shorter, paths, lambda: False).failures == {}
    records = list(read_pool(paths.records).records.values())
    assert EXPERIMENT.measure(records, paths, torch.device("cpu")) == []
    return out, records


def predicted(out):
    folder, records = out
    row = replace(EXPERIMENT.rows("smoke")[0])
    (found,) = predictions.find([RowResult(row, sorted(records, key=lambda r: r["identity"]), None, 2)], folder)
    return found


def test_the_predictions_are_those_of_the_final_network(out):
    folder, (record, _) = out
    file = PREDICTIONS.find(folder, record)
    wrong = sum(label != guess for label, guess in zip(file["labels"], file["predicted"], strict=True))
    assert 100 * wrong / 500 == pytest.approx(record["final"]["test_error"]) and file["images"] == 500
    assert file["labels"] == load("synthetic").test_labels.tolist()
    assert all(0.1 - 1e-6 <= p <= 1 for p in file["probability"]), "the largest of ten"


def test_the_images_are_shown_once(out, monkeypatch):
    folder, records = out
    monkeypatch.setattr("reproductions.cifar_imagenet_stem.experiment.load", lambda *_: pytest.fail("loads again"))
    assert EXPERIMENT.measure(records, RunPaths(folder, folder), torch.device("cpu")) == []


def test_what_keeps_the_images_from_being_shown_is_a_problem_and_no_end(out, tmp_path, monkeypatch):
    shutil.copytree(out[0], tmp_path / "out")
    paths, (record, _) = RunPaths(tmp_path / "out", tmp_path), sorted(out[1], key=lambda r: r["specification"]["seed"])

    def absent(*_):
        raise DataError("no data here")

    monkeypatch.setattr("reproductions.cifar_imagenet_stem.experiment.load", absent)
    for plot in (paths.out / "plots").glob("predictions_*"):
        plot.write_bytes(b"damaged")
    (problem,) = EXPERIMENT.measure(out[1], paths, torch.device("cpu"))
    assert "can't be shown: no data here" in problem
    file = PREDICTIONS.path(paths.out, record)
    file.write_text(file.read_text().replace('"probability"', '"likelihood"'))
    (problem,) = EXPERIMENT.measure(out[1], paths, torch.device("cpu"))
    assert str(file) in problem


def test_the_confusion_matrix_adds_up(out):
    found = predicted(out)
    matrix = found.confusion
    assert matrix.sum(axis=1) == pytest.approx([100] * 10)
    errors = [record["final"]["test_error"] for record in out[1]]
    assert 100 - matrix.diagonal().mean() == pytest.approx(sum(errors) / 2)  # as many images of each class


def test_the_surest_mistakes_are_mistakes_in_order():
    file = {"labels": [0, 1, 2, 3, 4], "predicted": [0, 2, 2, 1, 3], "probability": [0.99, 0.4, 0.9, 0.8, 0.8]}
    assert predictions.surest_mistakes(file) == [3, 4, 1]


def test_tables_and_plots_show_them(out):
    folder, _ = out
    text = predictions.section([predicted(out)])
    assert "the first of 2 runs with predictions" in text and predictions.section([]) == ""
    assert len([line for line in text.splitlines() if line.startswith("|")]) == 12
    figure = predictions.confusion_figure([predicted(out)], SMOKE)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][:2] == ["disc", "ring"]
    assert predictions.confusion_figure([], SMOKE) is None
    assert len(list((folder / "plots").glob("predictions_*.png"))) == 1, "of seed 0 alone"


@pytest.mark.parametrize("change", [{"predicted": []}, {"probability": [2.0] * 500}, {"labels": [-1] * 500}])
def test_damaged_predictions_are_refused_and_count_as_none(out, tmp_path, change):
    folder, (record, _) = out
    content = PREDICTIONS.find(folder, record)
    path = PREDICTIONS.path(tmp_path, record)
    path.parent.mkdir()
    path.write_text(json.dumps(measurements.seal(content | change)))
    with pytest.raises(MeasurementError, match="does not hold the predictions of its run"):
        PREDICTIONS.find(tmp_path, record)
    row = EXPERIMENT.rows("smoke")[0]
    assert predictions.find([RowResult(row, [record], None, 2)], tmp_path) == []
