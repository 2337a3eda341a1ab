"""The error on the test images that are exact in a copy of the data: measured of every run, published, told."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import make_experiment
from trained import leave, synthetic

from reproductions import cifar_table
from reproductions.cifar_imagenet_stem.predictions import PREDICTIONS
from reproductions.harness import measurements, provenance, publish
from reproductions.harness.cli import run_experiment
from reproductions.harness.exact_errors import EXACT_ERRORS
from reproductions.harness.experiment import Variant
from reproductions.harness.launching.run_paths import RunPaths
from reproductions.harness.measurements import MeasurementError, seal
from reproductions.layer_responses.responses import RESPONSES
from resnet.data import INEXACT_TEST_IMAGES, KNOWN_COPIES
from resnet.run import Run

POSITIONS, CPU = (3, 4, 11, 50), torch.device("cpu")
COPY = next(iter(INEXACT_TEST_IMAGES))
RUN = Run("cifar_resnet8", cifar_table.RECIPE, "synthetic")


@pytest.fixture
def copied(monkeypatch):
    """The synthetic images as a copy in which some test images are known not to be exact."""
    digest = hashlib.sha256(np.array(POSITIONS, "<i8")).hexdigest()
    monkeypatch.setitem(INEXACT_TEST_IMAGES, synthetic().digest, digest)
    monkeypatch.setattr(measurements, "load", lambda name, folder: replace(synthetic(), inexact_test=POSITIONS))


def test_the_positions_known_are_of_a_known_copy():
    assert set(INEXACT_TEST_IMAGES) <= set(KNOWN_COPIES) and "20 test" in KNOWN_COPIES[COPY]


def test_the_numbers_are_those_of_the_predictions(copied, tmp_path):
    record, paths = leave(tmp_path, RUN), RunPaths(tmp_path, tmp_path)
    assert [kind.make_missing([record], paths, CPU) for kind in (EXACT_ERRORS, PREDICTIONS)] == [[], []]
    found, predicted = (kind.find(tmp_path, record) for kind in (EXACT_ERRORS, PREDICTIONS))
    wrong = np.array(predicted["labels"]) != np.array(predicted["predicted"])
    exact = np.delete(wrong, POSITIONS)
    assert wrong[list(POSITIONS)].any() and 0 < exact.sum() < len(exact)
    assert (found["images"], found["exact_images"]) == (len(wrong), len(wrong) - 4)
    assert (found["wrong"], found["exact_wrong"]) == (wrong.sum(), exact.sum())
    assert (found["error"], found["exact_error"]) == pytest.approx((100 * wrong.mean(), 100 * exact.mean()))


def test_other_data_are_not_even_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(measurements, "load", lambda *arguments: pytest.fail("data were loaded"))
    record = leave(tmp_path, RUN)
    assert EXACT_ERRORS.make_missing([record], RunPaths(tmp_path, tmp_path), CPU) == []
    assert EXACT_ERRORS.find(tmp_path, record) is None


@pytest.mark.parametrize("positions", [(), (3, 4, 11, 51)])
def test_positions_that_are_not_those_of_the_copy_are_a_problem(copied, tmp_path, monkeypatch, positions):
    monkeypatch.setattr(measurements, "load", lambda name, folder: replace(synthetic(), inexact_test=positions))
    (problem,) = EXACT_ERRORS.make_missing([leave(tmp_path, RUN)], RunPaths(tmp_path, tmp_path), CPU)
    assert "the positions of inexact images" in problem and not (tmp_path / "exact_errors").exists()


def own_results(out, wrong=832, exact_wrong=830, **changes):
    """A record of the paper's profile in ``out``, and its errors on a copy of CIFAR-10."""
    run, code = cifar_table.rows("paper")[0].run(0), provenance.code_identity()
    data = {"name": "cifar10", "official": False, "sha256": COPY}
    record = leave(out, run, code=code, data=data)
    content = {
        "schema": 1, "identity": run.identity, "weights_sha256": record["weights_sha256"], "data": data,
        "images": 10_000, "how": EXACT_ERRORS.how, "wrong": wrong, "error": wrong / 100, "exact_images": 9_980,
        "exact_wrong": exact_wrong, "exact_error": 100 * exact_wrong / 9_980,
        "inexact_sha256": INEXACT_TEST_IMAGES[COPY], "hardware": record["hardware"], "versions": record["versions"],
        "code": code, **changes,
    }  # fmt: skip
    measurements.write(EXACT_ERRORS.path(out, record), seal(content))
    return record


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"error": 8.31}, "its errors contradict its numbers"),
        ({"exact_error": 8.3}, "its errors contradict its numbers"),
        ({"exact_wrong": 833}, "wrong answers are impossible"),
        ({"exact_wrong": 811}, "wrong answers are impossible"),
        ({"exact_images": 10_000}, "numbers of images are impossible"),
        ({"inexact_sha256": "0" * 64}, "its inexact images"),
        ({"wrong": 832.0}, "wrong is 832.0"),
        ({"schema": 2, "new": 1}, "newer code wrote it, in schema 2, .*: update the code"),
    ],
)
def test_numbers_that_do_not_fit_are_damage(tmp_path, changes, problem):
    record = own_results(tmp_path, **changes)
    with pytest.raises(MeasurementError, match=problem):
        EXACT_ERRORS.find(tmp_path, record)


def test_publish_report_and_check(repository, tmp_path):
    results, experiment = repository / "results", replace(cifar_table.EXPERIMENT, report=write_table)
    own_results(tmp_path / "runs")
    publish.publish(tmp_path / "runs" / "records", results)
    new, refused = publish.publish_measurements([experiment], tmp_path / "runs", results)
    assert [path.parent for path in new] == [results / "exact_errors"] and refused == {}
    publish.report([(experiment, Variant())], results, repository / "README.md")
    said = "On the 9,980 test images of cifar10 that are exact in this copy, the mean test error differs by "
    assert f"- {said}0.00 points (1 run measured, in fp32).\n" in (results / "tables" / "cifar_table.md").read_text()
    (repository / "README.md").write_text("")
    assert publish.check([(experiment, Variant())], results, repository / "README.md") == []
    new[0].write_text(json.dumps(json.loads(new[0].read_text()) | {"exact_wrong": 831}))
    problems = publish.check([(experiment, Variant())], results, repository / "README.md")
    assert any(new[0].name in problem and "digest" in problem for problem in problems)
    assert any("cifar_table.md: differs" in problem for problem in problems)


def write_table(page):
    """The real table without its plots."""
    return page.write([page.net(), page.reproduced()])


@pytest.mark.slow
def test_the_command_line_measures_that_of_every_experiment_beside_its_own(copied, tmp_path):
    arguments = ["--profile", "smoke", "--device", "cpu", "--launcher", "inline", "--out"]
    tiny = make_experiment(depths=(8,))
    assert run_experiment(tiny, [*arguments, str(tmp_path / "one")]) == 0
    assert run_experiment(replace(tiny, measure=RESPONSES.make_missing), [*arguments, str(tmp_path / "both")]) == 0
    counts = {path: len(list((tmp_path / path).glob("*.json"))) for path in ("one/exact_errors", "both/exact_errors")}
    assert set(counts.values()) == {2} and not (tmp_path / "one" / "responses").exists()
    assert len(list((tmp_path / "both" / "responses").glob("*.json"))) == 2
