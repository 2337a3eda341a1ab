"""Layer responses: which runs, measured once, sealed, published beside the records, tabulated without weights."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from printed import lines_of
from scipy import stats
from tiny import make_experiment
from trained import leave, synthetic

from reproductions import cifar_table, degradation
from reproductions.cifar_imagenet_stem.predictions import PREDICTIONS
from reproductions.harness import measurements, provenance, publish
from reproductions.harness.cli import run_experiment
from reproductions.harness.experiment import Experiment, RowResult, Variant
from reproductions.harness.launching.run_paths import RunPaths
from reproductions.harness.measurements import MeasurementError
from reproductions.harness.record_files import weights_path
from reproductions.harness.records import Pool, read_pool, seal
from reproductions.harness.reporting.page import write_report
from reproductions.layer_responses import experiment as layer_responses
from reproductions.layer_responses import report as reporting
from reproductions.layer_responses.responses import RESPONSES, layers_of, response_deviations
from resnet import checkpoint
from resnet.data.cifar import KNOWN_COPIES
from resnet.data.synthetic import make_synthetic
from resnet.models import create_model
from resnet.run import Run

EXPERIMENT, CPU = layer_responses.EXPERIMENT, torch.device("cpu")
PAPER, SMOKE = Variant("paper"), Variant("smoke")
ROWS = {row.key: row for row in EXPERIMENT.rows("smoke")}


@pytest.mark.parametrize("profile", ["paper", "short", "smoke"])
def test_its_runs_are_those_of_the_other_tables(profile):
    others = {
        e.name: {row.key: row for row in e.rows(profile)} for e in (cifar_table.EXPERIMENT, degradation.EXPERIMENT)
    }
    rows = EXPERIMENT.rows(profile)
    assert [row.label for row in rows][:2] == [f"plain-{d}" for d in layer_responses.depths(profile)[:2]]
    for row in rows:
        table = others["degradation" if row.key.startswith("plain") else "cifar_table"]
        assert row.run(3) == table[row.key].run(3)


@pytest.fixture(scope="module", autouse=True)
def loaded_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measurements, "load", lambda name, folder: synthetic())
        yield


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Two seeds of plain-8 and ResNet-8 and one of ResNet-26, with what was measured of them."""
    out = tmp_path_factory.mktemp("measured")
    runs = [ROWS["plain8"].run(0), ROWS["plain8"].run(1), ROWS["resnet8"].run(0), ROWS["resnet8"].run(1)]
    records = [leave(out, run) for run in (*runs, ROWS["resnet26"].run(0))]
    assert RESPONSES.make_missing(records, RunPaths(out, out), CPU) == []
    return out, records


@pytest.fixture
def paths(measured, tmp_path):
    shutil.copytree(measured[0], tmp_path / "out")
    return tmp_path / "out", measured[1]


def make_report(out, seeds=2):
    results = EXPERIMENT.results(SMOKE, seeds, read_pool(out / "records"), Pool(out / "x"))
    return write_report(EXPERIMENT, SMOKE, results, out)


def weights_of(out, record):
    return weights_path(out, Run.from_specification(record["specification"]))


def table_line(out, label):
    text = (out / "tables" / "layer_responses_smoke.md").read_text()
    return next(line for line in lines_of(text) if line[0] == label)


def test_what_is_measured_is_what_a_plain_loop_gives(measured):
    out, (record, *_) = measured
    run = Run.from_specification(record["specification"])
    model = create_model(run.model)
    model.load_state_dict(checkpoint.load(weights_path(out, run)))
    dataset = synthetic()
    mean = torch.from_numpy(dataset.train_images).double().mean(dim=0)
    images = ((torch.from_numpy(dataset.test_images) - mean) / 255).permute(0, 3, 1, 2).float()
    found = RESPONSES.find(out, record)
    assert found["layers"][0] == "conv1" and len(found["std"]) == 7 and found["images"] == len(images)
    expected = response_deviations(model, [(images, None)])
    assert dict(zip(found["layers"], found["std"])) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", [RESPONSES, PREDICTIONS], ids=lambda kind: kind.folder)
def test_every_kind_is_measured_in_fp32_by_deterministic_kernels(measured, kind):
    def note(*arguments):
        cudnn = torch.backends.cudnn
        seen.append((cudnn.enabled, cudnn.deterministic, cudnn.benchmark, cudnn.conv.fp32_precision))
        return {}

    seen = []
    out, (record, *_) = measured
    replace(kind, measure=note).make(record, out, synthetic(), CPU)
    assert seen == [(True, True, False, "ieee")]


def test_what_was_measured_is_not_measured_again_and_needs_no_weights(paths, monkeypatch):
    out, records = paths
    shutil.rmtree(out / "weights")
    monkeypatch.setattr(measurements, "load", lambda *arguments: pytest.fail("data were loaded"))
    assert RESPONSES.make_missing(records, RunPaths(out, out), CPU) == []
    files = make_report(out)
    assert table_line(out, "plain-8")[1:3] == ["7", "n = 2"]
    assert {path.suffix for path in files} == {".md", ".csv", ".png", ".svg"}


def test_runs_without_weights_are_said(paths):
    out, records = paths
    for record in records[1:4]:
        RESPONSES.path(out, record).unlink()
    weights_of(out, records[1]).unlink()
    make_report(out)
    assert table_line(out, "plain-8")[2] == "n = 1 of 2; weights are gone (1)"
    assert table_line(out, "ResNet-8")[2:] == ["n = 0 of 2; not measured (2)", "–", "–"]
    assert table_line(out, "ResNet-26")[2] == "n = 1 of 2"
    text = (out / "tables" / "layer_responses_smoke.md").read_text()
    assert "\nNot yet run: plain-26, ResNet-32.\n" in text
    assert "train again in another OUT: `make reproduce-layer-responses PROFILE=smoke OUT=another`" in text
    assert RESPONSES.make_missing(records, RunPaths(out, out), CPU) == []  # what can be measured is
    make_report(out)
    assert table_line(out, "ResNet-8")[2] == "n = 2"


def test_weights_of_another_run_are_not_measured(paths):
    out, (record, other, *_) = paths
    RESPONSES.path(out, record).unlink()
    shutil.copy(weights_of(out, other), weights_of(out, record))
    (problem,) = RESPONSES.make_missing([record], RunPaths(out, out), CPU)
    assert other["weights_sha256"] in problem and record["weights_sha256"] in problem
    assert not RESPONSES.path(out, record).exists()


def test_other_data_than_the_runs_are_not_measured_on(paths, monkeypatch):
    out, (record, *_) = paths
    RESPONSES.path(out, record).unlink()
    monkeypatch.setattr(measurements, "load", lambda name, folder: make_synthetic(20, 20, seed=5))
    (problem,) = RESPONSES.make_missing([record], RunPaths(out, out), CPU)
    assert "was trained on synthetic with the SHA-256" in problem


def change(path, **values):
    """An edit by hand whose author knew of the digest."""
    path.write_text(json.dumps(measurements.seal({**json.loads(path.read_text()), **values})))


TAMPERING = {
    "an edited number": lambda p: p.write_text(p.read_text().replace('"images": 500', '"images": 501')),
    "no JSON": lambda p: p.write_text("{"),
    "another run": lambda p: change(p, identity="0" * 64),
    "other weights": lambda p: change(p, weights_sha256="0" * 64),
    "other data": lambda p: change(p, data={"name": "synthetic", "sha256": "0" * 64, "official": True}),
    "a layer less": lambda p: change(p, layers=["conv1"], std=[1.0]),
    "too few numbers": lambda p: change(p, std=[1.0]),
    "a negative number": lambda p: change(p, std=[-1.0] * 7),
    "a whole number": lambda p: change(p, std=[1] * 7),
    "a field more": lambda p: change(p, best=1),
    "another schema": lambda p: change(p, schema=2),
}


@pytest.mark.parametrize("what", TAMPERING)
def test_tampering_is_found_and_said(paths, what):
    out, (record, *others) = paths
    path = RESPONSES.path(out, record)
    TAMPERING[what](path)
    with pytest.raises(MeasurementError, match=path.name):
        RESPONSES.find(out, record)
    assert len(RESPONSES.make_missing([record, *others], RunPaths(out, out), CPU)) == 1  # and never written over
    found, problems = RESPONSES.read_all(out, read_pool(out / "records"))
    assert len(found) == 4 and list(problems) == [path]


def test_a_damaged_file_stands_in_the_table(paths):
    out, (record, *_) = paths
    RESPONSES.path(out, record).write_text("{")
    make_report(out)
    assert table_line(out, "plain-8")[2] == "n = 1 of 2; damaged file (1)"


# ------------------------------------------------------------------------------------------------------------- numbers


def make_nets(deviations):
    """Nets of the smoke profile with made-up deviations: by row, those of each seed."""
    nets = []
    for key, row in ROWS.items():
        own = [
            {"layers": [f"l{i}" for i in range(len(s))], "std": s, "sha256": str(s), "code": {}}
            for s in deviations.get(key, [])
        ]
        nets.append(reporting.Net(RowResult(row, [], None, 2), own, reporting.Counter()))
    return nets


PLAIN, RESIDUAL, DEEPER = [[1.0, 3.0, 2.0], [2.0, 5.0, 2.0]], [[0.5, 1.0, 0.6], [0.7, 1.0, 4.0]], [[0.1] * 5, [0.2] * 5]
NETS = {"plain8": PLAIN, "resnet8": RESIDUAL, "resnet26": DEEPER}


def test_layers_in_order_and_sorted():
    numbers = reporting.layer_numbers(make_nets({"plain8": PLAIN}))
    assert numbers["layer"] == [1, 2, 3]
    assert (
        numbers["mean"] == [1.5, 4.0, 2.0] and numbers["low"] == [1.0, 3.0, 2.0] and numbers["high"] == [2.0, 5.0, 2.0]
    )
    assert numbers["sorted_mean"] == [4.0, 2.0, 1.5]
    assert numbers["sorted_low"] == [3.0, 2.0, 1.0] and numbers["sorted_high"] == [5.0, 2.0, 2.0]


def test_the_findings_are_tests_of_the_means_over_layers():
    third = {"plain8": [[2.0, 2.0, 5.0]], "resnet8": [[1.0, 1.0, 1.0]], "resnet26": [[0.2] * 5]}
    nets = {key: seeds + third[key] for key, seeds in NETS.items()}
    comparisons = reporting.compare(make_nets(nets), layer_responses.pairs("smoke"), PAPER)
    residual, deep, deeper, deepest = comparisons
    expected = stats.ttest_ind([0.7, 1.9, 1.0], [2.0, 3.0, 3.0], equal_var=False)
    assert residual.nets == "ResNet-8 − plain-8" and residual.difference == pytest.approx(1.2 - 8 / 3)
    assert residual.test.p == pytest.approx(expected.pvalue) and residual.p == pytest.approx(4 * expected.pvalue)
    bounds = expected.confidence_interval(1 - 0.05 / 4)
    assert (residual.test.interval.low, residual.test.interval.high) == pytest.approx((bounds.low, bounds.high))
    assert residual.layers == (3, 3) and residual.statement == "not shown"
    assert deeper.nets == "ResNet-26 − ResNet-8" and deeper.layers is None
    assert deep.statement == deepest.statement == "–" and deepest.difference is None


@pytest.mark.parametrize(
    ("deviations", "variant", "statement"),
    [
        ([0.1, 0.11, 0.12], PAPER, "yes"),
        ([9.0, 9.01, 9.02], PAPER, "no, larger"),
        ([0.1, 0.11, 0.12], Variant("short"), "smaller in the short profile"),
        ([0.1, 0.11], PAPER, "none: n < 3"),
    ],
)
def test_the_statement_follows_from_the_interval(deviations, variant, statement):
    nets = make_nets({"plain8": [[1.0] * 3, [1.1] * 3, [1.05] * 3], "resnet8": [[d] * 3 for d in deviations]})
    (first, *_) = reporting.compare(nets, layer_responses.pairs("smoke"), variant)
    assert first.statement == statement


def test_the_headline_is_the_last_comparison_that_there_is_else_a_net():
    def headline(samples):
        nets = make_nets(samples)
        found = reporting.headline(nets, reporting.compare(nets, layer_responses.pairs("smoke"), PAPER))
        return found.row, found.reproduced, found.verdict

    two = {"plain8": [[1.0] * 3, [1.1] * 3], "resnet8": [[0.5] * 3, [0.6] * 3]}
    assert headline(two)[0] == "ResNet-8 − plain-8"
    assert headline({"resnet8": [[0.5, 1.0]]}) == ("ResNet-8", "mean over layers 0.750", "nothing to compare with")
    assert headline({})[1] == "–"


def test_the_figure_has_two_panels_with_a_line_for_each_net():
    figure = reporting.figure(make_nets(NETS), SMOKE)
    above, below = figure.axes
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[:3] == ["plain-8 (n = 2)", "ResNet-8 (n = 2)", "ResNet-26 (n = 2)"]
    assert list(above.lines[0].get_ydata()) == [1.5, 4.0, 2.0] and list(below.lines[0].get_ydata()) == [4.0, 2.0, 1.5]
    assert above.lines[0].is_dashed() and not above.lines[1].is_dashed()
    assert names[3] == "lowest to highest seed; lines: mean"
    once = reporting.figure(make_nets({"resnet8": RESIDUAL[:1]}), SMOKE)
    assert [text.get_text() for text in once.legends[0].get_texts()] == ["ResNet-8 (n = 1)"]  # no band
    fewer = reporting.figure(make_nets({"resnet8": RESIDUAL}), SMOKE).axes[0].lines
    assert [line.get_color() for line in fewer] == [above.lines[1].get_color()]
    assert reporting.figure(make_nets({}), SMOKE) is None


# ----------------------------------------------------------------------------------------------------------- published


def own_results(out, **changes):
    """A record of the short profile in ``out`` and responses that would be its own."""
    run = layer_responses.rows("short")[0].run(0)
    code = provenance.code_identity()
    data = {"name": "cifar10", "official": False, "sha256": next(iter(KNOWN_COPIES))}
    record = leave(out, run, code=code, data=data)
    layers = layers_of(record)
    content = {
        "schema": 1, "identity": run.identity, "weights_sha256": record["weights_sha256"], "data": data,
        "images": 10_000, "how": RESPONSES.how, "layers": layers, "std": [1.0] * len(layers),
        "hardware": record["hardware"], "versions": record["versions"], "code": code, **changes,
    }  # fmt: skip
    measurements.write(RESPONSES.path(out, record), measurements.seal(content))
    return record


def test_publish_report_and_check(repository, tmp_path):
    own_results(tmp_path / "runs")
    results, readme = repository / "results", repository / "README.md"
    publish.publish(tmp_path / "runs" / "records", results)
    without, _ = publish.report([(EXPERIMENT, Variant("short"))], results, readme)
    assert not [path for path in without if EXPERIMENT.name in path.name]  # no table of responses without any
    new, refused = publish.publish_measurements([EXPERIMENT], tmp_path / "runs", results)
    assert [path.parent for path in new] == [results / "responses"] and refused == {}
    assert publish.publish_measurements([EXPERIMENT], tmp_path / "runs", results) == ([], {})
    files, _ = publish.report([(EXPERIMENT, Variant("short"))], results, readme)
    assert "layer_responses_short.md" in [path.name for path in files]
    assert publish.check([(EXPERIMENT, Variant("short"))], results, readme) == []
    new[0].write_text(new[0].read_text().replace("1.0", "0.9", 1))
    problems = publish.check([(EXPERIMENT, Variant("short"))], results, readme)
    assert any(new[0].name in problem and "digest" in problem for problem in problems)
    assert any("layer_responses_short.md" in problem for problem in problems)


def test_responses_that_do_not_fit_the_published_record_are_refused(repository, tmp_path):
    record = own_results(tmp_path / "runs")
    published = repository / "results" / "records" / "cifar10" / "cifar_plain20" / f"{record['identity'][:16]}.json"
    published.parent.mkdir(parents=True)
    published.write_text(json.dumps(seal({**record, "weights_sha256": "3" * 64})))
    new, refused = publish.publish_measurements([EXPERIMENT], tmp_path / "runs", repository / "results")
    assert new == [] and "its weights_sha256 differs" in next(iter(refused.values()))


def test_responses_from_modified_code_are_refused(repository, tmp_path):
    own_results(tmp_path / "runs", code={**provenance.code_identity(), "modified": True})
    publish.publish(tmp_path / "runs" / "records", repository / "results")
    new, refused = publish.publish_measurements([EXPERIMENT], tmp_path / "runs", repository / "results")
    assert new == [] and "modified" in next(iter(refused.values()))


def test_responses_without_a_record_are_said_by_the_check(repository, tmp_path):
    (repository / "results" / "responses").mkdir(parents=True)
    (repository / "results" / "responses" / "0123456789abcdef.json").write_text("{}")
    problems = publish.check([(EXPERIMENT, Variant())], repository / "results", repository / "README.md")
    assert "0123456789abcdef.json belongs to no record" in problems[0]


def test_the_command_line_measures_after_training(tmp_path, capsys):
    """A tiny experiment that trains, and measures what it trained."""
    seen = []

    def measure(records, run_paths, device, until):
        seen.append(([r["specification"]["seed"] for r in records], run_paths.out, device.type))
        return RESPONSES.make_missing(records, run_paths, device) + ["something is wrong"]

    tiny = make_experiment(depths=(8,))
    tiny = Experiment(tiny.name, tiny.title, tiny.source, tiny.rows, tiny.report, measure=measure)
    arguments = ["--profile", "smoke", "--out", str(tmp_path), "--device", "cpu", "--launcher", "inline"]
    assert run_experiment(tiny, arguments) == 1
    assert seen == [([0, 1], tmp_path, "cpu")] and len(list((tmp_path / "responses").glob("*.json"))) == 2
    assert "something is wrong" in capsys.readouterr().err
