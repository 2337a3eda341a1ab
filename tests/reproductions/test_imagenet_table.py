"""He et al.'s ImageNet tables: their nets and recipe, and a page with a table per test of the final networks."""

import csv

import pytest
from fakes import leave_out_plots, make_record, make_results
from printed import rows_of

from reproductions import reported
from reproductions.harness.experiment import Variant
from reproductions.harness.reporting import frame
from reproductions.harness.reporting.page import write_report
from reproductions.imagenet import table as imagenet_table
from resnet.models import count_parameters, create_model
from resnet.models.complexity import multiply_adds
from resnet.recipe import Recipe, learning_rate_at
from resnet.run import Run

EXPERIMENT = imagenet_table.EXPERIMENT
PAPER, SMOKE = Variant("paper"), Variant("smoke")
ERRORS = {"plain18": [27.9], "resnet34b": [24.5, 24.4, 24.7], "resnet50": [22.8, 23.0], "resnet152": [None]}


@pytest.fixture(autouse=True, scope="module")
def no_plots():
    with pytest.MonkeyPatch.context() as patch:
        leave_out_plots(patch)
        yield


def report(variant, results, out):
    return write_report(EXPERIMENT, variant, results, out)


def tables_of(path) -> list[dict[str, dict[str, str]]]:
    """The tables of a Markdown file: rows by net."""
    return [rows_of(block) for block in path.read_text().split("\n\n") if block.startswith("|")]


# ----------------------------------------------------------------------------------------------------- nets and recipe


def test_the_nets_of_the_papers_tables():
    rows = EXPERIMENT.rows("paper")
    keys = "plain18 plain34 resnet18 resnet34a resnet34b resnet34c resnet50 resnet101 resnet152"
    assert [row.key for row in rows] == keys.split()
    nets = "plain18 plain34 resnet18 resnet34 resnet34 resnet34 resnet50 resnet101 resnet152"
    assert [row.model for row in rows] == nets.split()
    assert [row.model_options.get("shortcut") for row in rows] == [None, None, *"AABCBBB"]
    for row in rows:
        assert row.data == "imagenet" and row.reported == f"imagenet_{row.key}"
        assert reported.target(row.reported, "top-1 error, 10-crop") and "variant" not in row.run(0).model_options
    models = [create_model(row.model, **row.model_options) for row in rows[:4]]
    assert count_parameters(models[0]) == count_parameters(models[2])
    assert count_parameters(models[1]) == count_parameters(models[3])


def test_the_recipe_of_section_3_4():
    (recipe,) = {row.recipe for row in EXPERIMENT.rows("paper")}
    assert recipe.changes() == {
        "iterations": 600_000,
        "batch_size": 256,
        "milestones": [150_000, 300_000, 450_000],
        "batch_norm_size": 32,
        "crop": "scale",
        "pca_noise": 0.1,
        "eval_interval": 5_000,
        "tests": ["ten_crop", "multi_scale"],
    }
    assert (recipe.learning_rate, recipe.momentum, recipe.weight_decay) == (0.1, 0.9, 1e-4)
    assert recipe.decay_all and not recipe.nesterov and recipe.image_size == 224
    rates = [learning_rate_at(recipe, i) for i in (0, 149_999, 150_000, 300_000, 450_000, 599_999)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 1e-3, 1e-4, 1e-4])


def test_the_profiles():
    (recipe,) = {row.recipe for row in EXPERIMENT.rows("short")}
    assert (recipe.iterations, recipe.milestones, recipe.eval_interval) == (9_375, (2_344, 4_688, 7_031), 937)
    assert recipe.batch_size == 256 and recipe.tests == ("ten_crop", "multi_scale")
    for row in EXPERIMENT.rows("smoke"):
        assert row.data == "synthetic_imagenet" and row.reported is None and row.recipe.tests == recipe.tests
    assert EXPERIMENT.seeds == {"paper": 1, "short": 2, "smoke": 2}


def test_what_a_seed_of_all_rows_costs():
    """As the script's first lines have it."""
    rows = EXPERIMENT.rows("paper")
    forward = [2 * multiply_adds(r.model, r.model_options) * r.recipe.batch_size * r.recipe.iterations for r in rows]
    assert f"{3 * sum(forward):.0e}" == "4e+19" and sum(forward[-3:]) > sum(forward) / 2
    assert "about 4e19 floating-point operations" in imagenet_table.__doc__


# ------------------------------------------------------------------------------------------------------------- metrics


def test_further_tests_are_read_where_records_have_them():
    recipe = Recipe(iterations=3, eval_interval=1, milestones=(), crop="scale", tests=("ten_crop", "multi_scale"))
    tests = {
        "ten_crop": {"test_error": 20.0, "test_top5_error": 5.0},
        "multi_scale": {"test_error": 19.0, "test_top5_error": 4.0},
    }
    record = make_record(Run("resnet50", recipe, "imagenet"), 24.0) | {"tests": tests}
    values = {metric: frame.final_values([record], metric) for metric in frame.METRICS if "crop" in metric}
    assert values == {
        "one_crop_error": [24.0],
        "one_crop_top5_error": [6.0],
        "ten_crop_error": [20.0],
        "ten_crop_top5_error": [5.0],
    }
    assert frame.by_seed([record], "multi_scale_error") == {0: 19.0}
    assert frame.by_seed([record], "multi_scale_top5_error") == {0: 4.0}
    assert frame.curve([record], "one_crop_error")["mean"].iloc[-1] == 24.0


# --------------------------------------------------------------------------------------------------------------- page


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Files of the published page."""
    folder = tmp_path_factory.mktemp("page")
    return report(PAPER, make_results(EXPERIMENT, PAPER, ERRORS, folder / "pool", seeds=3), folder / "results")


def test_a_page_has_a_table_for_every_test(published):
    text = published[0].read_text()
    title, _, source, *lines = text.splitlines()
    assert title == "# ImageNet validation error of plain and residual nets"
    assert source == "He et al. 2015, Tables 2 to 4 · the paper's protocol"
    assert [line for line in lines if line.startswith("## ")] == ["## 10-crop", "## Multi-scale", "## 1-crop"]
    nets, *tests = tables_of(published[0])
    assert nets["ResNet-152"]["multiply-adds"] == "11,282.4 M"
    assert len(tests) == 3 and all(list(table) == list(nets) and len(nets) == 4 for table in tests)


def test_every_cell_of_a_row(published):
    _, ten_crop, multi_scale, one_crop = tables_of(published[0])
    interval = "[23.77, 25.29]"  # 24.533 ± 4.3027 · 0.15275 · sqrt(4 / 3)
    top5 = "[5.94, 6.32]"  # a quarter of that
    assert ten_crop["ResNet-34 B"] == {
        "top-1 error, reported": "24.52 (single)",
        "top-1 error, reproduced": "24.53 ± 0.15 (n = 3)",
        "top-1 error, difference from reported": "+0.01",
        "top-1 error, 95 % prediction interval (of 1 more run)": interval,
        "top-1 error, reported number": "not contradicted (± 0.76)",
        "top-5 error, reported": "7.46 (single)",
        "top-5 error, reproduced": "6.13 ± 0.04 (n = 3)",
        "top-5 error, difference from reported": "−1.33",
        "top-5 error, 95 % prediction interval (of 1 more run)": top5,
        "top-5 error, reported number": "contradicted, above (± 0.19)",
    }
    assert multi_scale["ResNet-34 B"]["top-1 error, reported"] == "21.84 (single)"
    assert multi_scale["ResNet-34 B"]["top-1 error, reported number"] == "contradicted, below (± 0.76)"
    assert multi_scale["ResNet-34 B"]["top-5 error, reported"] == "5.71 (single)"
    assert one_crop["ResNet-50"] == {
        "top-1 error, other implementations": "24.7 (a)",
        "top-1 error, reproduced": "22.80, 23.00 (n = 2 of 3)",
        "top-5 error, other implementations": "7.8 (a)",
        "top-5 error, reproduced": "5.70, 5.75 (n = 2 of 3)",
    }


def test_what_is_missing_is_said(published):
    _, ten_crop, multi_scale, one_crop = tables_of(published[0])
    assert ten_crop["plain-18"]["top-1 error, reported number"] == "none: n < 3"
    assert ten_crop["plain-18"]["top-5 error, reported"] == "–"
    assert multi_scale["plain-18"]["top-1 error, reported"] == "–"
    assert multi_scale["plain-18"]["top-1 error, reproduced"] == "27.90 (n = 1 of 3)"
    assert "ResNet-101" not in ten_crop
    assert "\nNot yet run: plain-34, ResNet-18 A, ResNet-34 A, ResNet-34 C, ResNet-101.\n" in published[0].read_text()
    assert multi_scale["ResNet-152"]["top-5 error, reproduced"] == "– (n = 0 of 3, 1 diverged)"


def test_notes_are_of_all_tables(published):
    lines = published[0].read_text().splitlines()
    (source,) = [line for line in lines if line.startswith("- Reported: ")]
    assert source.startswith("- Reported: [He et al. 2015](https://arxiv.org/abs/1512.03385), *Deep Residual Learning")
    assert source.endswith("*, Table 2; Tables 2 and 3; Table 3; Table 4.")
    assert sum("KaimingHe/deep-residual-networks" in line for line in lines) == 2  # top-1 and top-5
    assert any(line.startswith("- Errors are in percent: mean") and line.endswith("(600,000).") for line in lines)
    assert any(line.startswith("- Reported number: contradicted where it lies outside") for line in lines)


def test_the_csv_has_the_numbers_of_all_tables(published):
    with published[1].open(newline="") as file:
        names = next(csv.reader(file))
        file.seek(0)
        rows = {row["row"]: row for row in csv.DictReader(file)}
    assert len(names) == len(set(names))
    expected = {"ten_crop_error_reported": "24.52", "ten_crop_error_mean": "24.5333", "ten_crop_error_n": "3"}
    expected |= {"multi_scale_error_reported": "21.84", "multi_scale_error_difference": "2.69333"}
    expected |= {"multi_scale_top5_error_reported": "5.71", "multi_scale_top5_error_mean": "6.13333"}
    expected |= {"one_crop_error_mean": "24.5333", "one_crop_top5_error_std": "0.0381881", "command": "make report"}
    expected |= {"ten_crop_error_reported_number": "not contradicted"}
    expected |= {"multi_scale_error_reported_number": "contradicted, below"}
    assert {name: rows["resnet34b"][name] for name in expected} == expected
    assert rows["resnet50"]["one_crop_error_other_implementations"] == "24.7 KaimingHe/deep-residual-networks"


def test_a_users_page_has_published_and_yours(tmp_path):
    results = make_results(EXPERIMENT, PAPER, {"resnet50": [22.9]}, tmp_path, published=ERRORS, seeds=1)
    path = report(PAPER, results, tmp_path / "runs")[0]
    row = tables_of(path)[1]["ResNet-50"]
    assert row["top-1 error, published here"] == "22.80, 23.00 (n = 2)" and row["top-1 error, yours"] == "22.90 (n = 1)"
    assert "made again by `make reproduce-imagenet-table`" in path.read_text()


def test_synthetic_images_are_compared_with_nothing(tmp_path):
    results = make_results(EXPERIMENT, SMOKE, {"resnet8": [50.0, 60.0]}, tmp_path, published={})
    path = report(SMOKE, results, tmp_path / "runs")[0]
    assert tables_of(path)[2]["ResNet-8 A"] == {
        "top-1 error, yours": "50.00, 60.00 (n = 2)",
        "top-5 error, yours": "12.50, 15.00 (n = 2)",
    }
    assert "reported" not in path.read_text().lower() and "not comparable with the paper" in path.read_text()


def test_panels_of_the_learning_curves(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(imagenet_table, "learning_curves", lambda panels, variant: drawn.append(panels))
    report(PAPER, make_results(EXPERIMENT, PAPER, {}, tmp_path), tmp_path / "results")
    labels = [{title: [result.row.label for result in panel] for title, panel in panels.items()} for panels in drawn]
    assert labels == [
        {"plain nets": ["plain-18", "plain-34"], "residual nets, option A": ["ResNet-18 A", "ResNet-34 A"]},
        {"residual nets with projections": [f"ResNet-{net}" for net in ("34 B", "34 C", 50, 101, 152)]},
    ]
