"""All printed statistics of the published tables once more, by a few lines of pandas and SciPy from ``runs.csv``."""

import json
from itertools import product

import numpy as np
import pandas
import pytest
from scipy import stats

from reproductions.harness.provenance import ROOT

RESULTS = ROOT / "results"
DIGITS = {"rel": 2e-5, "abs": 2e-6}  # CSVs have six


@pytest.fixture(scope="module")
def runs():
    """The completed runs, with the error of the table's rows by key."""
    runs = pandas.read_csv(RESULTS / "runs.csv").query("status == 'completed'")
    changes = runs.recipe_changes.map(json.loads)
    short = changes.map(lambda c: c.get("iterations") == 4_000 and "nesterov" not in c)
    paper = changes.map(lambda c: not c)
    bf16 = changes.map(lambda c: c == {"precision": "bf16"})
    runs["table"] = np.select([paper, short, bf16], ["", "_short", "_bf16"], "other")
    runs["key"] = runs.model.str.removeprefix("cifar_")
    return runs[runs.data == "cifar10"]


def sample(runs, table, key, metric="test_error"):
    return runs[(runs.table == table) & (runs.key == key)][metric].to_numpy()


def same(found, printed):
    """Whether a printed number is the one found; where there is nothing to find, nothing is printed."""
    assert (pandas.isna(printed) and found is None) or printed == pytest.approx(found, **DIGITS)


@pytest.mark.parametrize(("name", "table"), [*product(("cifar_table", "degradation"), ("", "_short", "_bf16"))])
def test_means_and_intervals(runs, name, table):
    path = RESULTS / "tables" / f"{name}{table}.csv"
    if not path.exists():
        pytest.skip("not published")
    for _, line in pandas.read_csv(path).iterrows():
        for metric in ("test_error", "training_error"):
            if f"{metric}_mean" not in line:
                continue
            values = sample(runs, table, line["row"], metric)
            assert line.n == len(values)
            same(values.mean() if len(values) else None, line[f"{metric}_mean"])
            same(values.std(ddof=1) if len(values) > 1 else None, line[f"{metric}_std"])
            low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values)) if len(
                values) > 2 else (None, None)  # fmt: skip
            same(low, line[f"{metric}_low"]), same(high, line[f"{metric}_high"])
        if not pandas.isna(line.get("prediction_low")):
            half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) * (1 + 1 / len(values)) ** 0.5
            assert line.prediction_runs == 1
            same(values.mean() - half, line.prediction_low), same(values.mean() + half, line.prediction_high)
            inside = line.prediction_low <= line.reported <= line.prediction_high
            assert (line.reported_number == "not contradicted") == inside


@pytest.mark.parametrize("table", ["", "_short"])
def test_claims(runs, table):
    for _, line in pandas.read_csv(RESULTS / "tables" / f"degradation{table}_claims.csv").iterrows():
        weights = np.array([float(weight) for weight in line.weights.split()])
        samples = [sample(runs, table, key, line.metric) for key in line.nets.split()]
        assert line.n == " ".join(str(len(values)) for values in samples)
        if min(map(len, samples)) < 3:
            assert pandas.isna(line.p_corrected) and line.statement.startswith(("too few runs", "not yet run"))
            continue
        parts = weights**2 * [values.var(ddof=1) / len(values) for values in samples]
        effect, error = weights @ [values.mean() for values in samples], parts.sum() ** 0.5
        df = parts.sum() ** 2 / sum(part**2 / (len(values) - 1) for part, values in zip(parts, samples))
        low, high = stats.t.interval(1 - 0.05 / line.comparisons, df, effect, error)
        same(effect, line.effect), same(df, line.df), same(low, line.low_corrected), same(high, line.high_corrected)
        p = min(1, line.comparisons * 2 * stats.t.sf(abs(effect) / error, df))
        assert line.p_corrected == pytest.approx(p, rel=1e-4)
        assert line.statement.startswith("shown") == (low > 0) and line.statement.startswith("contra") == (high < 0)


def test_paired_steps():
    runs = pandas.read_csv(RESULTS / "runs.csv").query("status == 'completed' and data == 'cifar10_last5'")
    rate = runs.recipe_changes.map(lambda text: json.loads(text).get("learning_rate", 0.1))
    began = runs.pretrained.notna()
    rows = {
        "scratch": runs[~began],
        "finetuned": runs[began & (rate == rate[~began].iloc[0])],
        "finetuned_slower": runs[began & (rate != rate[~began].iloc[0])],
    }
    for _, line in pandas.read_csv(RESULTS / "tables" / "finetune_steps.csv").iterrows():
        new, old = (rows[key].set_index("seed").test_error for key in (line["step"], line["after"]))
        gains = (old - new).dropna().to_numpy()
        bounds = stats.ttest_1samp(gains, 0).confidence_interval(1 - 0.05 / line.comparisons)
        assert line.pairs == len(gains)
        same(gains.mean(), line.difference), same(gains.std(ddof=1), line["std"])
        same(bounds.low, line.low_corrected), same(bounds.high, line.high_corrected)


def test_accuracies_after_epochs_of_mnist():
    runs = pandas.read_csv(RESULTS / "runs.csv").query("status == 'completed' and data == 'mnist'")
    curves = pandas.read_csv(RESULTS / "curves.csv.gz").merge(runs[["run"]])
    for _, line in pandas.read_csv(RESULTS / "tables" / "mnist_residual.csv").iterrows():
        values = 100 - curves.test_error[curves.iteration == 938 * line.epoch].to_numpy()
        assert line.n == len(values)
        same(values.mean(), line.top1_accuracy_mean), same(values.std(ddof=1), line.top1_accuracy_std)
        low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
        same(low, line.top1_accuracy_low), same(high, line.top1_accuracy_high)
        if not pandas.isna(line.reported):
            half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) * (1 + 1 / len(values)) ** 0.5
            same(values.mean() - half, line.prediction_low), same(values.mean() + half, line.prediction_high)
