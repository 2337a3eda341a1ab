"""Records as frames: a line for each run and evaluation, the page that shows how to use them, and the files of all."""

import gzip
import json
import re
import subprocess
import sys
from dataclasses import replace

import pandas
import pytest
from fakes import make_record, store, with_validation
from pytest import approx

from reproductions import frame, mnist_residual
from reproductions.cifar_table import rows
from reproductions.harness.provenance import ROOT
from reproductions.harness.records import read_pool
from reproductions.harness.reporting.frame import CURVES, RUNS, write_frames


@pytest.fixture
def records(tmp_path):
    """Two runs of ResNet-20 by the short recipe, and one that diverged of ResNet-20 by the paper's."""
    short, paper = (rows(profile)[0] for profile in ("short", "paper"))
    made = [make_record(short.run(seed), 16.0 + seed, 9.0) for seed in (1, 0)]
    store(tmp_path / "records", *made, make_record(paper.run(0), 9.0, diverged=True))
    return tmp_path / "records"


def test_a_frame_has_a_line_for_each_run(records):
    runs = frame(records)
    assert len(runs) == 3 and runs.row.nunique() == 2 and runs.identity.is_unique
    done = runs[runs.status == "completed"]
    assert [*done.seed] == [0, 1] and [*done.test_error] == [16.0, 17.0] and {*done.training_error} == {9.0}
    first = done.iloc[0]
    assert first.run == first.row == first.identity[:16] and done.iloc[1].row == first.row
    changes = json.loads(first.recipe_changes)
    assert changes["iterations"] == first.iterations == 4_000 and "momentum" not in changes
    assert (first.device, first.precision, first.device_seconds) == ("NVIDIA H200", "bf16", 3600.0)
    assert first.best_test_error <= first.test_error and first.commit.startswith("c0ffee")
    lost = runs[runs.status == "diverged"].iloc[0]
    assert pandas.isna(lost.test_error) and lost.recipe_changes == "{}"


def test_a_frame_of_curves_has_a_line_for_each_evaluation(records, tmp_path):
    curves = frame(records, curves=True)
    lengths = curves.groupby(["row", "seed"]).size()
    assert sorted(lengths) == [3, 10, 10]  # 4,000 iterations by 400; the run that diverged did so at the third
    ends = curves[curves.iteration == 4_000].sort_values("seed")
    assert [*ends.test_error] == [16.0, 17.0]
    (row,) = mnist_residual.rows("paper")
    store(tmp_path / "mnist", make_record(row.run(0), 1.0))
    losses = frame(tmp_path / "mnist", curves=True).mean_losses.map(json.loads)
    assert {*losses.map(len)} == {row.recipe.eval_interval // row.recipe.loss_interval}


def test_a_folder_without_records_is_refused_and_a_damaged_one_is_said(records, tmp_path):
    with pytest.raises(ValueError, match="no records below .*; name their folder, such as results/records"):
        frame(tmp_path)
    next(records.rglob("*.json")).write_text("{")
    with pytest.warns(UserWarning, match="left out: .*json"):
        assert len(frame(str(records))) == 2


def test_the_files_hold_the_same_numbers_and_the_same_bytes_every_time(records, tmp_path):
    made = []
    for name in ("a", "b"):
        write_frames(read_pool(records), tmp_path / name)
        made.append([(tmp_path / name / file).read_bytes() for file in (RUNS, CURVES)])
    assert made[0] == made[1]
    pandas.testing.assert_frame_equal(pandas.read_csv(tmp_path / "a" / RUNS).dropna(axis=1, how="all"),
                                      frame(records).dropna(axis=1, how="all"), check_dtype=False)  # fmt: skip
    read = pandas.read_csv(tmp_path / "a" / CURVES)
    assert read.test_error.sum() == approx(frame(records, curves=True).test_error.sum(), rel=1e-8)
    assert gzip.decompress(made[0][1]).count(b"\n") == 24


@pytest.mark.parametrize(
    ("module", "large"),
    [("reproductions", ("pandas", "torch", "scipy")), ("reproductions.commands", ("pandas", "scipy.stats"))],
)
def test_an_import_loads_none_of_the_large_packages(module, large):
    script = f"import sys, {module}; print([name for name in {large} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True).stdout == "[]\n"


def test_the_page_rebuilds_the_published_numbers(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    found: dict = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "frame.md").read_text(), re.DOTALL):
        exec(block, found)  # noqa: S102
    said = capsys.readouterr().out
    assert "plain-20 − ResNet-20: +3." in said and "64000" in said
    printed = pandas.read_csv(ROOT / "results" / "tables" / "cifar_table.csv").set_index("row")
    for model, line in found["table"].iterrows():
        if (key := model.removeprefix("cifar_")) in printed.index:
            row = printed.loc[key]
            assert (line["mean"], line["count"]) == (approx(row.test_error_mean, abs=0.005), row.n)


def test_a_validation_error_has_a_column_where_it_was_measured(tmp_path):
    row = rows("short")[0]
    held_out = replace(row, train_images=45_000).run(0)
    store(tmp_path, make_record(row.run(0), 9.0))
    assert "validation_error" not in frame(tmp_path)
    store(tmp_path, with_validation(make_record(held_out, 9.0), 9.5))
    found = frame(tmp_path).set_index("run").validation_error
    assert found[held_out.short_id] == 9.5 and found.isna().sum() == 1
