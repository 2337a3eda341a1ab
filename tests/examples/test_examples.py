"""Examples are short, stand outside of the suite, and work; the plugins' effects are in resnet/test_hooks."""

import re

import pytest

from examples import three_rows
from reproductions.harness import cli
from reproductions.harness.provenance import ROOT
from reproductions.harness.records import read_pool
from resnet.plugins import OWN, Plugin
from resnet.recipe import Recipe

FILES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_is_short(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 60


def test_the_suite_imports_no_example():
    for file in (file for package in ("resnet", "reproductions") for file in (ROOT / package).rglob("*.py")):
        assert not re.search(r"^\s*(from|import) examples\b", file.read_text(encoding="utf-8"), re.MULTILINE), file
    assert "examples" in OWN  # its commit is in every record


LINES = [line.strip() for file in FILES for line in file.read_text(encoding="utf-8").splitlines()]
USES = [line for line in LINES if line.startswith("Recipe(")]


@pytest.mark.parametrize("line", USES)
def test_the_line_that_shows_how_to_use_it_works(line):
    recipe = eval(line, {"Recipe": Recipe, "Plugin": Plugin})
    assert recipe.plugins[0].load()


def test_a_table_of_three_rows_with_paired_differences(tmp_path, monkeypatch, capsys):
    """Make the table with six runs of few steps; ``python -m examples.three_rows`` differs in the recipe alone."""
    short = Recipe().shortened(4, eval_interval=2, batch_size=8, precision="fp32")
    monkeypatch.setattr(three_rows, "recipe_for", lambda profile: short)
    flags = ["--profile", "smoke", "--seeds", "3", "--launcher", "inline", "--out", str(tmp_path)]
    assert cli.run_experiment(three_rows.EXPERIMENT, flags) == 0
    shown = capsys.readouterr().out
    for trick in ("CutMix", "stochastic depth"):
        assert f"| {trick:<16} | plain         | 3     |" in shown
    assert "`python -m examples.three_rows --profile smoke --seeds 3`" in shown
    assert len(read_pool(tmp_path / "records").records) == 9
    assert (tmp_path / "plots" / "three_rows_smoke_curves.svg").exists()
