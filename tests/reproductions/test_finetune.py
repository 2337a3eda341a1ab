"""Fine-tuning against training from scratch: the rows, the table, and the whole way."""

import csv
import statistics
from dataclasses import replace

import pytest
from fakes import make_results
from printed import lines_of

from reproductions.finetune import experiment as finetune
from reproductions.finetune import own_folder as finetune_folder
from reproductions.harness import cli
from reproductions.harness.experiment import PROFILES, Variant
from reproductions.harness.launching.run_paths import RunPaths
from reproductions.harness.records import read_pool
from reproductions.harness.reporting.page import write_report
from resnet import checkpoint
from resnet.data import TRAIN_IMAGES
from resnet.recipe import learning_rate_at

EXPERIMENT = finetune.EXPERIMENT
PAPER, SMOKE = Variant("paper"), Variant("smoke")
ERRORS = {"pretraining": [14.0, 15.0, 13.5], "scratch": [30.0, 31.5, 29.0], "finetuned": [20.0, 22.0, 18.5]}
ERRORS["finetuned_slower"] = [19.0, 21.5, 19.5]


def test_what_is_compared_differs_in_its_first_weights_alone():
    for profile in PROFILES:
        pretraining, scratch, finetuned, slower = EXPERIMENT.rows(profile)
        one, other = scratch.run(3).specification(), finetuned.run(3).specification()
        assert {name for name in one if one[name] != other[name]} == {"pretrained"}
        assert finetuned.run(3).pretrained == pretraining.run(3) and finetuned.after == "scratch"
        assert pretraining.data.endswith("first5") and scratch.data.endswith("last5")
        assert slower.run(3) == replace(finetuned.run(3), recipe=replace(finetuned.recipe, learning_rate=0.01))
        assert slower.after == "scratch"


def test_the_recipes_of_the_paper_profile():
    pretraining, scratch, _, slower = (row.recipe for row in EXPERIMENT.rows("paper"))
    assert (pretraining.batch_size, scratch.batch_size) == (128, 64)
    assert round(pretraining.iterations * 128 / 25_000, 2) == 5 and round(scratch.iterations * 64 / 2_850, 2) == 30
    assert TRAIN_IMAGES["cifar10_last5"] == 2_850
    for recipe, rate in ((pretraining, 0.1), (scratch, 0.05), (slower, 0.005)):
        half, most = recipe.iterations // 2, recipe.iterations * 3 // 4
        at = [learning_rate_at(recipe, i) for i in (0, half - 1, half, most - 1, most, recipe.iterations - 1)]
        assert at == pytest.approx([rate, rate, rate / 10, rate / 10, rate / 100, rate / 100])
        assert sum(map(recipe.evaluates_after, range(1, recipe.iterations + 1))) == 5
        assert (recipe.momentum, recipe.weight_decay, recipe.augment) == (0.9, 1e-4, True)


def test_the_table_pairs_seeds_and_judges_nothing_that_was_measured_on_other_images(tmp_path, no_plots):
    results = make_results(EXPERIMENT, PAPER, ERRORS, tmp_path, seeds=3)
    path, _, steps = write_report(EXPERIMENT, PAPER, results, tmp_path / "out")
    text = path.read_text()
    assert "all of this suite's own protocol" in text and "the paper's protocol" not in text
    heading, pretraining, scratch, finetuned, *_ = lines_of(text)
    column = heading.index("top-1 accuracy, reported on other images")
    assert [line[column] for line in (pretraining, scratch, finetuned)] == [
        "–", "72.6 (single)", "88 (in whole percent)",
    ]  # fmt: skip
    assert "verdict" not in text and "does it do that here" not in text and "are not compared" in text
    assert scratch[1] == finetuned[1] == "2,850, 30 epochs" and pretraining[1] == "25,000, 5 epochs"
    step, slower = csv.DictReader(steps.open())
    assert (slower["step"], slower["after"], float(slower["difference"])) == ("finetuned_slower", "scratch", 10.1667)
    differences = [old - new for old, new in zip(ERRORS["scratch"], ERRORS["finetuned"])]
    assert float(step["difference"]) == pytest.approx(statistics.mean(differences), abs=1e-4)
    half = 6.205347 * statistics.stdev(differences) / 3**0.5  # Student's t with 2 degrees of freedom, for 2 steps
    assert float(step["high_corrected"]) == pytest.approx(statistics.mean(differences) + half, abs=1e-3)
    assert (step["pairs"], step["statement"]) == ("3", "")


@pytest.mark.slow
def test_the_smoke_profile_goes_the_whole_way_from_the_pretrainings_weights(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(finetune, "EPOCHS", {**finetune.EPOCHS, "smoke": (1, 2)})
    monkeypatch.setattr(finetune, "EVALUATIONS", 2)
    out = tmp_path / "runs"
    assert finetune.main(["--profile", "smoke", "--seeds", "2", "--out", str(out)]) == 0
    assert "What fine-tuning is worth" in capsys.readouterr().out
    pool, runs = read_pool(out / "records"), EXPERIMENT.runs(SMOKE, 2)
    assert len(pool.records) == len(runs) == 8
    for run in runs:
        needed = run.pretrained and pool.get(run.pretrained)["weights_sha256"]
        assert pool.get(run)["pretrained_sha256"] == needed
    tuned = next(run for run in runs if run.pretrained)
    weights = checkpoint.load(RunPaths(out, tmp_path).weights(tuned))
    assert weights["fc.weight"].shape == (5, 64)
    names = {path.name for path in (out / "plots").iterdir()}
    assert names == {"finetune_smoke_curves.png", "finetune_smoke_curves.svg"}


def test_the_script_has_the_commands_for_own_images_too(monkeypatch):
    said = []
    monkeypatch.setattr(finetune_folder, "main", lambda arguments: said.append(arguments) or 7)
    monkeypatch.setattr(cli, "run_experiment", lambda experiment, arguments: said.append(experiment.name) or 8)
    assert finetune.main(["train", "x", "--out", "y"]) == finetune.main(["predict", "x"]) == 7
    assert finetune.main([]) == finetune.main(["--profile", "smoke"]) == 8
    assert said == [["train", "x", "--out", "y"], ["predict", "x"], "finetune", "finetune"]
