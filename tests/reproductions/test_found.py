"""The page of all claims, what is found of each, and the notes on tables."""

import statistics

import numpy as np
import pytest
from fakes import make_pool, make_results, page_of

from reproductions import cifar_table, degradation, reported
from reproductions.bag_of_tricks import refinements
from reproductions.experiments import PUBLISHED_TABLES
from reproductions.harness import publish
from reproductions.harness.experiment import Variant
from reproductions.harness.provenance import ROOT
from reproductions.harness.reporting import intervals, notes
from reproductions.harness.reporting.found import Found
from reproductions.harness.reporting.intervals import Interval
from reproductions.harness.reporting.notes import Note, NoteError

TABLE, DEGRADATION, PAPER = cifar_table.EXPERIMENT, degradation.EXPERIMENT, Variant()
ABOVE, AROUND, BELOW = Interval(0.1, 0.5), Interval(-0.2, 0.4), Interval(-0.5, -0.1)


@pytest.mark.parametrize(
    ("counts", "effect", "interval", "power", "said", "statement"),
    [
        ((5, 5), 0.3, ABOVE, 0.5, "", "shown"),
        ((5, 5), -0.3, BELOW, 0.5, "", "contradicted"),
        ((5, 4), 0.1, AROUND, 0.5, "", "not resolvable with n = 5, 4"),
        ((5, 4), 0.1, AROUND, 0.9, "", "not shown with n = 5, 4"),
        ((5, 4), 0.1, AROUND, None, "", "not shown with n = 5, 4"),
        ((5, 5), 0.1, None, 0.9, "", "not shown: no spread"),
        ((5, 2), 0.3, None, 0.9, "not contradicted", "too few runs (n = 5, 2)"),
        ((0, 0), None, None, 0.9, "", "not yet run"),
        ((5,), None, None, None, "not contradicted", "not contradicted"),
    ],
)
def test_the_statement_on_a_claim(counts, effect, interval, power, said, statement):
    assert Found("key", "text", counts, effect, interval, None, power, said).statement == statement


def test_claims_about_depth_and_their_power(tmp_path):
    errors = {"resnet20": [8.4, 8.5, 8.6], "resnet32": [7.4, 7.5, 7.6], "resnet44": [7.1]}
    found = {one.key: one for one in TABLE.claims(page_of(TABLE, PAPER, errors, tmp_path))}
    first, second = found["resnet20_resnet32"], found["resnet32_resnet44"]
    assert first.statement == "shown" and first.effect == pytest.approx(1.0) and first.reported == pytest.approx(1.24)
    assert first.power == pytest.approx(intervals.power(1.24, 0.1, 3, comparisons=4))
    assert second.statement == "too few runs (n = 3, 1)"
    assert second.power == pytest.approx(intervals.power(0.34, 0.1, 5, comparisons=4)), "with the wanted seeds"
    assert found["spread"].statement == "too few runs (n = 3, 3, 1, 0)" and found["spread"].power < 0.2
    assert found["best_resnet20"].statement == "ruled out", "8.75 lies above every run"
    assert found["best_resnet32"].statement == "not ruled out, nor is a single run"


def test_the_power_for_unequal_spreads_is_of_the_runs_that_there_are(tmp_path):
    errors = {f"resnet{depth}": [8.4, 8.5, 8.6] for depth in (20, 32, 44, 56)}
    (found,) = cifar_table.spread_found(page_of(TABLE, PAPER, errors, tmp_path))
    assert found.counts == (3, 3, 3, 3) and found.statement == "not resolvable with 3 seeds"
    theirs = [float(n.std) for n in reported.load() if n.source.key == cifar_table.SPREAD and n.std is not None]
    assert found.power == intervals.spread_power(theirs, 3)


def test_a_step_on_imagenet_has_its_tables_interval(tmp_path):
    errors = {"efficient": [24, 24.2, 24.1], "cosine": [23, 23.1, 23.3]}
    page = page_of(refinements.EXPERIMENTS["imagenet"], PAPER, errors, tmp_path)
    found = {one.key: one for one in page.experiment.claims(page)}
    steps = sum(result.row.after is not None for result in page.results)
    corrected = intervals.corrected(2 * steps)  # of both accuracies
    assert found["cosine_top1_accuracy"].interval == intervals.mean_interval([1.0, 1.1, 0.8], corrected)
    assert "cosine_top5_accuracy" in found


def test_the_lowest_of_several_further_values_lies_where_it_is_predicted():
    rng, hits = np.random.default_rng(1), 0
    for _ in range(400):
        values, lowest = rng.normal(8, 0.2, 5), rng.normal(8, 0.2, 5).min()
        hits += lowest in intervals.best_prediction([*values], 5, draws=4_000)
    assert hits / 400 == pytest.approx(0.95, abs=0.03)
    known, one = [8.3, 8.5, 8.6, 8.9], intervals.best_prediction([8.3, 8.5, 8.6, 8.9], 1)
    assert one.low == pytest.approx(intervals.prediction_interval(known).low, abs=0.02)
    assert intervals.best_prediction([8.0, 8.1], 5) is None and intervals.best_prediction([8.0] * 5, 5) is None


def test_a_step_is_claimed_with_the_sign_that_is_reported(tmp_path):
    experiment = refinements.EXPERIMENTS["cifar10"]
    errors = {"efficient": [20, 20.2, 20.1], "cosine": [19, 19.1, 19.2], "smoothing": [21, 21.2, 21.1]}
    found = {one.key: one for one in experiment.claims(page_of(experiment, Variant("short"), errors, tmp_path))}
    assert found["cosine_top1_accuracy"].effect == pytest.approx(1.0)
    assert found["smoothing_top1_accuracy"].effect == pytest.approx(-2.0)
    assert [found[key].reported for key in found] == [None] * len(found), "nothing is reported of short training"
    assert "raises the top-1 accuracy of “efficient”" in found["cosine_top1_accuracy"].text


def test_the_page_of_claims_follows_the_records(tmp_path):
    pool = make_pool(DEGRADATION, PAPER, {"plain20": [9.1, 9.2, 9.3], "resnet20": [8.4, 8.5, 8.6]}, tmp_path / "pool")
    tables = [table for table in PUBLISHED_TABLES if table[0] in (DEGRADATION, TABLE)]
    publish.write_published(tables, tmp_path / "results", pool)
    text = (tmp_path / "results" / "claims.md").read_text()
    assert "- Shown by the paper's protocol: ResNet-20 has a lower test error than plain-20.\n" in text
    assert "- Shown in the short profile: nothing yet.\n" in text
    (line,) = (
        line for line in text.splitlines() if line.startswith("| ResNet-20 has a lower test error than plain-20")
    )
    assert " +0.70 [" in line and "| shown " in line and "14 %" not in line
    assert "tables: [paper](tables/degradation.md)\n" in text
    readme = publish.with_tables("<!-- begin results/claims.md#in-short -->\n<!-- end -->\n", tmp_path)
    assert readme.count("\n- ") == 3 and "##" not in readme and "| claim" not in readme
    assert publish.with_tables(readme, tmp_path) == readme


# --------------------------------------------------------------------------------------------------------------- notes


NOTED = {"plain20": [9.1, 9.2, 9.3], "resnet20": [8.4, 8.5]}


def test_a_note_is_filled_with_the_records_numbers(tmp_path):
    text = "{label:plain20}: {n:plain20} runs, {mean:plain20} ± {std:plain20},\n {difference:plain20:resnet20};"
    text += " {values:resnet20}; {reported:resnet20}; {mean:plain20:training_error} "
    results = make_results(DEGRADATION, PAPER, NOTED, tmp_path)
    filled = Note("degradation", "plain20", text).fill(results, "test_error")
    training = statistics.mean(record["final"]["training_error"] for record in results[0].records)
    assert filled == f"plain-20: 3 runs, 9.20 ± 0.10, +0.75; 8.40, 8.50; 8.75; {training:.2f}"


@pytest.mark.parametrize("text", ["8.75 lies above", "of plain-20", "{mean:resnet20}, n = 5", "{mean}", "a { b"])
def test_a_digit_or_brace_outside_a_placeholder_is_refused(text):
    with pytest.raises(NoteError, match="the note on resnet20 in degradation: .* outside a placeholder"):
        Note("degradation", "resnet20", text).check()


@pytest.mark.parametrize("text", ["{mean:resnet9}", "{middle:plain20}", "{mean:resnet56}", "{mean:plain20:height}"])
def test_a_placeholder_without_a_value_is_refused(text, tmp_path):
    with pytest.raises(NoteError, match="has no value"):
        Note("degradation", "plain20", text).fill(make_results(DEGRADATION, PAPER, NOTED, tmp_path), "test_error")


def test_notes_stand_on_published_tables_alone_and_a_wrong_one_fails_the_check(tmp_path, monkeypatch):
    pool, table = make_pool(DEGRADATION, PAPER, NOTED, tmp_path / "records"), (DEGRADATION, PAPER)
    note = Note("degradation", "plain20", "The mean is {mean:plain20}.")
    lacking = ("plain56", "{mean:plain56} is left out."), ("plain20", "{difference:plain20:plain56} is left out.")
    monkeypatch.setattr(notes, "load", lambda: (note, *(Note("degradation", *one) for one in lacking)))
    publish.write_published([table], tmp_path / "results", pool)
    text = (tmp_path / "results" / "tables" / "degradation.md").read_text()
    assert "## Notes\n\n- plain-20: The mean is 9.20.\n\n## Claims" in text and "left out" not in text
    page = page_of(DEGRADATION, PAPER, NOTED, tmp_path / "own", published={})
    assert "## Notes" not in page.write([page.net()])[0].read_text()
    on_request = Note("degradation", "plain20", "{mean:resnet110} is left out.")
    monkeypatch.setattr(notes, "load", lambda: (on_request,))
    assert not notes.section("degradation", page.results, page.metric, ["plain20", "resnet110"])
    monkeypatch.setattr(notes, "load", lambda: (Note("degradation", "plain20", "{mean:plain9}"),))
    *_, problem = publish.check([table], tmp_path, tmp_path / "README.md")
    assert problem.endswith("{mean:plain9} has no value: a wrong name, row or metric, or no number")


def test_a_file_of_notes_that_is_damaged_is_named(tmp_path):
    path = tmp_path / "notes.toml"
    for content in ("[[note]\n", '[[note]]\ntable = "x"\n', '[[note]]\ntable = "x"\nrow = "y"\ntext = "about 3"\n'):
        path.write_text(content)
        with pytest.raises(NoteError):  # no error is kept by the cache
            notes.load(path)


def test_the_notes_are_on_rows_of_published_tables():
    tables = {f"{one.name}{variant.suffix}": (one, variant) for one, variant in PUBLISHED_TABLES}
    for note in notes.load():
        experiment, variant = tables[note.table]
        assert note.row in [row.key for row in experiment.rows(variant.profile)], ROOT / "reproductions" / "notes.toml"
