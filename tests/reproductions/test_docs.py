"""The pages in docs: what they name is there."""

import re

import pytest

from reproductions.experiments import EXPERIMENTS
from reproductions.harness.provenance import ROOT
from resnet.recipe import Recipe

PAGES = ("fidelity.md", "scope.md")


def test_the_scope_has_every_experiment_and_no_other():
    named = set(re.findall(r"make (reproduce-[a-z-]+)", (ROOT / "docs" / "scope.md").read_text()))
    assert named == {experiment.target.split()[0] for experiment in EXPERIMENTS}


def test_rows_that_pages_name_are_there():
    assert "ROWS=plain110,resnet110" in (ROOT / "docs" / "scope.md").read_text()
    rows = {row.key for experiment in EXPERIMENTS for row in experiment.rows("paper")}
    for page in (*(ROOT / "docs" / name for name in PAGES), ROOT / "README.md"):
        named = [row for rows in re.findall(r"ROWS=([a-z][\w,-]*)", page.read_text()) for row in rows.split(",")]
        assert set(named) <= rows | {"resnet20-b"}, page  # which the README adds as an example
    in_fidelity = set(re.findall(r"row `(\w+)`", (ROOT / "docs" / "fidelity.md").read_text()))
    assert in_fidelity == {"smoothing_all", "mixup_reversed", "distilled_half"} <= rows


def test_options_that_fidelity_names_are_fields_of_the_recipe():
    text = (ROOT / "docs" / "fidelity.md").read_text()
    fields = set(Recipe.__dataclass_fields__)
    for name in ("last_batch", "statistics_batches", "batch_norm_size", "normalization", "decay_all", "hard_weight"):
        assert f"`{name}`" in text and name in fields
    named = dict(re.findall(r"`(momentum_at_drops|smoothed_over|mixup_partner)=\"(\w+)\"`", text))
    assert set(named) <= fields and len(named) == 3


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{name}" for name in PAGES)])
def test_links_lead_somewhere(page):
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#\s]+)\)", path.read_text()):
        assert target.startswith("https://") or (path.parent / target).exists(), target
