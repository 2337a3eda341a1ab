"""The tables on CIFAR-100: rows, classes, top-5 errors, reported numbers, and a launch with files of its layout."""

import hashlib
import pickle
from dataclasses import replace

import numpy as np
import pytest
from fakes import make_results
from tiny import TINY, make_experiment
from torchvision.datasets import CIFAR100

from reproductions import cifar_table, degradation, reported
from reproductions.bag_of_tricks import efficient, refinements, tweaks
from reproductions.experiments import EXPERIMENTS, PUBLISHED_TABLES
from reproductions.harness import cli
from reproductions.harness.experiment import Experiment, Variant
from reproductions.harness.records import read_pool
from reproductions.harness.reporting.page import write_report
from resnet.data import place, synthetic
from resnet.trainer import Trainer

SCRIPTS = (cifar_table, degradation, efficient, tweaks, refinements)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__.split(".")[-1])
@pytest.mark.parametrize("profile", ["paper", "short", "smoke"])
def test_a_table_on_cifar100_has_the_rows_of_cifar10_with_other_data(script, profile):
    ten, hundred = (script.EXPERIMENTS[name] for name in ("cifar10", "cifar100"))
    data = "synthetic_cifar100" if profile == "smoke" else "cifar100"
    for before, row in zip(ten.rows(profile), hundred.rows(profile), strict=True):
        shared = {"data": before.data, "keep_weights": before.keep_weights, "reported": before.reported}
        taught = row.teacher and replace(row.teacher, data=before.data, keep_weights=before.teacher.keep_weights)
        assert replace(row, **shared, teacher=taught) == before
        run = row.run(0)
        assert run.data == data and all(need.data == data for need in run.needs.values())
    assert hundred in EXPERIMENTS and (hundred, Variant()) in PUBLISHED_TABLES
    assert hundred.target.endswith(" DATASET=cifar100") and hundred.name == f"{ten.name}_cifar100"
    assert (hundred.seeds, hundred.metric) == (ten.seeds, ten.metric) and "CIFAR-100" in hundred.source
    assert ten.claims and not hundred.claims  # the papers make none on these data


def test_the_data_set_is_named_on_the_command_line():
    options = cli.parse(cifar_table.EXPERIMENTS, ["--dataset", "cifar100", "--rows", "resnet20", "--seeds", "1"])
    assert options.experiment is cifar_table.EXPERIMENTS["cifar100"]
    assert [(run.model, run.data) for run in options.runs] == [("cifar_resnet20", "cifar100")]
    assert cli.parse(cifar_table.EXPERIMENTS, []).experiment is cifar_table.EXPERIMENT


def test_a_net_and_its_teacher_have_100_classes_and_a_top_5_error():
    row = next(row for row in refinements.EXPERIMENTS["cifar100"].rows("smoke") if row.key == "distilled")
    run = row.run(0)
    short = replace(run, recipe=replace(run.recipe, iterations=3, eval_interval=3, linear_warmup=1))
    data = place(synthetic.make_tinted("synthetic_cifar100"), None, "cpu")
    taught = Trainer(run.teacher, data)
    assert taught.model.fc.out_features == 100
    trainer = Trainer(replace(short, teacher=None, recipe=replace(short.recipe, temperature=None)), data)
    while not trainer.finished:
        trainer.step()
    trainer.evaluate()
    last = trainer.curve[-1]
    assert trainer.model.fc.out_features == 100 and 0 < last["test_top5_error"] <= last["test_error"] <= 100


def test_the_page_has_top_5_errors_and_says_that_the_real_data_have_not_been_run(tmp_path, no_plots):
    experiment = cifar_table.EXPERIMENTS["cifar100"]
    results = make_results(experiment, Variant(), {"resnet20": [32.0, 32.4]}, tmp_path, {})
    files = write_report(experiment, Variant(), results, tmp_path)
    text = files[0].read_text()
    assert files[0].name == "cifar_table_cifar100.md" and text.startswith("# CIFAR-100 test error of residual nets")
    assert "He et al. 2015, Table 6, on CIFAR-100 · the protocol of He et al. 2015, section 4.2\n" in text
    assert cifar_table.NOT_RUN in text and "8.00, 8.10 (n = 2 of 5)" in text
    assert "difference from reported" not in text
    assert "31.17 (" in text and "8.99 (" in text and "chenyaofo/pytorch-cifar-models" in text
    published = make_results(experiment, Variant(), {"resnet20": [32.0]}, tmp_path / "x", {"resnet20": [32.1]})
    assert cifar_table.NOT_RUN not in write_report(experiment, Variant(), published, tmp_path / "y")[0].read_text()
    results = make_results(cifar_table.EXPERIMENT, Variant(), {"resnet20": [8.5]}, tmp_path / "z", {})
    ten = write_report(cifar_table.EXPERIMENT, Variant(), results, tmp_path / "z")[0].read_text()
    assert cifar_table.NOT_RUN not in ten and "top-5" not in ten and "31.17" not in ten


@pytest.mark.parametrize("script", SCRIPTS[1:], ids=lambda script: script.__name__.split(".")[-1])
def test_the_other_pages_are_made_too(script, tmp_path, no_plots):
    experiment = script.EXPERIMENTS["cifar100"]
    key = experiment.rows("short")[0].key
    results = make_results(experiment, Variant("short"), {key: [40.0, 41.0, 42.0]}, tmp_path, {})
    text = write_report(experiment, Variant("short"), results, tmp_path)[0].read_text()
    assert "on CIFAR-100" in text and "top-5" in text and cifar_table.NOT_RUN in text


def test_reported_numbers_are_other_implementations_on_cifar100():
    rows = cifar_table.EXPERIMENTS["cifar100"].rows("paper")
    found = {row.key: reported.elsewhere(row.reported) for row in rows}
    assert {key: str(numbers[0]) for key, numbers in found.items() if numbers} == {
        "resnet20": "31.17",
        "resnet32": "29.84",
        "resnet44": "28.37",
        "resnet56": "27.37",
        "resnet110": "28.86",
    }
    assert all(number.data == "CIFAR-100" and number.source.url for numbers in found.values() for number in numbers)
    assert not any(reported.in_paper(row.reported) for row in rows)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder with files of the official layout, of 64 and 40 images, whose checksums torchvision takes."""
    folder, rng = tmp_path / "data" / "cifar-100-python", np.random.default_rng(0)
    folder.mkdir(parents=True)

    def write(name, content):
        pickled = pickle.dumps(content)
        (folder / name).write_bytes(pickled)
        return [name, hashlib.md5(pickled).hexdigest()]

    def split(name, count):
        fine = rng.permutation(100)[:count]
        images = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        return write(name, {"data": images, "fine_labels": fine.tolist(), "coarse_labels": (fine // 5).tolist()})

    monkeypatch.setattr(CIFAR100, "train_list", [split("train", 64)])
    monkeypatch.setattr(CIFAR100, "test_list", [split("test", 40)])
    name, checksum = write("meta", {"fine_label_names": [str(number) for number in range(100)]})
    monkeypatch.setattr(CIFAR100, "meta", {"filename": name, "key": "fine_label_names", "md5": checksum})
    return tmp_path / "data"


def test_a_launch_trains_on_files_of_the_official_layout(files, tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "PUBLISHED", tmp_path / "published")
    experiment: Experiment = make_experiment(TINY, "cifar100", (8,))
    flags = ["--seeds", "1", "--launcher", "inline", "--data", str(files), "--out", str(tmp_path / "out"), "--yes"]
    assert cli.run_experiment(experiment, flags) == 0
    (record,) = read_pool(tmp_path / "out" / "records").records.values()
    assert record["data"]["name"] == "cifar100" and record["data"]["official"]
    assert record["parameters"] == 75_290 + 90 * 65  # the last layer has 90 classes more than for CIFAR-10
    assert 0 <= record["final"]["test_top5_error"] <= record["final"]["test_error"]
