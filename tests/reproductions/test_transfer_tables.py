"""Transfer to segmentation and detection: rows, tables, pictures, backbones, and the whole way on real layouts."""

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from fakes import make_record, make_results, store, written_in
from printed import lines_of
from waiting import never

from reproductions import evaluate
from reproductions.bag_of_tricks import refinements, tweaks
from reproductions.bag_of_tricks.protocol import PROTOCOLS
from reproductions.export import export_weights
from reproductions.harness import launch, preflight
from reproductions.harness.console import make_console
from reproductions.harness.experiment import RowResult, Variant
from reproductions.harness.final_weights import keep_backbone, read_backbone
from reproductions.harness.launching import cost
from reproductions.harness.launching.worker import execute
from reproductions.harness.measurements import MeasurementError
from reproductions.harness.record_files import outcome
from reproductions.harness.recorded import summarize
from reproductions.harness.records import RecordError, read_pool, read_record, record_path, seal, validate
from reproductions.harness.reporting.frame import runs_frame
from reproductions.harness.reporting.page import make_page, write_report
from reproductions.harness.reporting.text import signed
from reproductions.harness.status import show_status
from reproductions.transfer import backbones, detection, pictures, protocol, report, segmentation
from reproductions.transfer.pictures import PICTURES
from resnet.models import create_model
from resnet.run import Run
from resnet.tasks import Segmentation
from resnet.tasks.metrics import Detections
from resnet.weights import WeightsError, torchvision_file

sys.path.append(str(Path(__file__).parents[1] / "resnet"))
from scene_folders import expect, make_ade20k, make_voc  # noqa: E402

SHORT, SMOKE = Variant("short"), Variant("smoke")
CANVAS = segmentation.EXPERIMENTS["canvas"]
SCRIPTS = {"segmentation": segmentation, "detection": detection}


# ---------------------------------------------------------------------------------------------------------------- rows


def test_the_papers_rows_begin_with_the_ladders_networks_of_the_same_seed():
    for experiments, data in ((segmentation.EXPERIMENTS, "ade20k"), (detection.EXPERIMENTS, "voc")):
        rows = {row.key: row for row in experiments[data].rows("paper")}
        assert [*rows] == [*protocol.STEPS] and not any(row.on_request for row in rows.values())
        ladder = {row.key: row for row in refinements.rows(PROTOCOLS["imagenet"]["paper"])}
        ladder["b_standard"] = tweaks.b_standard(PROTOCOLS["imagenet"]["paper"])
        for key, row in rows.items():
            assert row.run(2).pretrained == ladder[key].run(2) and row.data == data
            assert row.model == "resnet50" and row.run(2).task == rows["cosine"].task
        afters = [row.after for row in rows.values()]
        assert afters == [None, "b_standard", "efficient", "cosine", "smoothing", "smoothing", "mixup"]


def test_on_canvases_a_first_row_begins_with_random_weights_and_short_rows_with_published_networks():
    for profile, classifiers in (("short", "cifar_bottleneck29"), ("paper", "cifar_bottleneck56")):
        rows = {row.key: row for row in CANVAS.rows(profile)}
        assert [*rows] == ["untrained", *protocol.STEPS]
        assert rows["untrained"].pretrained is None and rows["b_standard"].after == "untrained"
        assert {row.model for row in rows.values()} == {classifiers}
        assert rows["efficient"].model_options == {"variant": "d", "zero_gamma": True}
        asked = {key for key, row in rows.items() if row.on_request}
        assert asked == (set() if profile == "paper" else {"cosine", "distilled", "mixup", "mixup_distilled"})
        for row in rows.values():
            if not row.on_request and row.pretrained is not None and profile == "short":
                assert row.pretrained.keep_weights == 3
    assert rows["smoothing"].after == "cosine"
    short = {row.key: row for row in CANVAS.rows("short")}
    assert (short["smoothing"].after, short["smoothing"].label) == ("efficient", "+ cosine and smoothing")


def test_the_protocol_of_the_paper():
    fcn, rcnn = (e.rows("paper")[0] for e in (segmentation.EXPERIMENTS["ade20k"], detection.EXPERIMENTS["voc"]))
    assert (fcn.recipe.iterations, fcn.recipe.batch_size, fcn.recipe.schedule) == (round(50 * 20_210 / 16), 16, "poly")
    assert (fcn.recipe.learning_rate, fcn.recipe.weight_decay, fcn.task) == (0.01, 1e-4, Segmentation())
    assert (fcn.task.stride, fcn.task.base, fcn.task.crop) == (8, 520, 480)
    assert (fcn.task.auxiliary, fcn.task.head_rate) == (0.5, 10)
    epoch = 16_551 / 4
    assert (rcnn.recipe.iterations, rcnn.recipe.batch_size) == (round(20 * epoch), 4)
    assert rcnn.recipe.milestones == (round(14 * epoch), round(20 * epoch))
    assert (rcnn.recipe.learning_rate, rcnn.recipe.weight_decay, rcnn.recipe.precision) == (0.001, 5e-4, "fp32")
    task = rcnn.task
    assert (task.short_side, task.long_side, task.frozen, task.frozen_bn, task.pooled) == (600, 1000, 2, True, 14)
    assert (task.proposals, task.regions, task.positive, task.overlap) == ((12_000, 2_000, 6_000, 300), 128, 0.25, 0.3)
    assert 3 * len(task.anchors) == 15


# ------------------------------------------------------------------------------------------------------------- records


def seg_run(seed=0):
    return CANVAS.rows("short")[1].run(seed)


def test_a_tasks_record_has_its_own_metrics_and_is_described_by_the_first(tmp_path):
    (record,) = store(tmp_path / "records", make_record(seg_run(), 31.5))
    assert set(record["final"]) == {"iteration", "learning_rate", "training_loss", "mean_iou", "pixel_accuracy"}
    assert outcome(record) == "mIoU 31.50 %" and record["best"] == max(record["curve"], key=lambda p: p["mean_iou"])
    for point in record["curve"]:
        del point["mean_iou"]
    record |= {"final": record["curve"][-1], "best": record["curve"][-1]}
    with pytest.raises(RecordError, match="mean_iou missing"):
        validate(seal(record), record_path(tmp_path, seg_run()))
    line = runs_frame(read_pool(tmp_path / "records")).iloc[0]
    assert (line.task, line.mean_iou) == ("segmentation", 31.5)
    (row,) = summarize(tmp_path, [CANVAS])["rows"]
    assert (row["row"], row["done"], row["mean_ious"]) == ("b_standard", 1, [31.5])
    console = make_console()
    with console.capture() as said:
        assert show_status(tmp_path, console, [CANVAS]) == 0
    assert "31.50 (mIoU)" in said.get()


def test_the_cost_of_a_step_is_measured_on_canvases_and_kept_apart_from_classification():
    row = next(row for row in CANVAS.rows("smoke") if row.pretrained)
    run = row.run(0)
    assert cost.measured_rate(run, torch.device("cpu"), steps=1).images_per_second > 0
    assert cost.work_of(run) != cost.work_of(row.pretrained.run(0)) and str(cost.work_of(run)).endswith("segmentation")
    assert cost.measured_rate(segmentation.EXPERIMENTS["ade20k"].rows("paper")[0].run(0), torch.device("cpu")) is None
    known = {cost.work_of(row.pretrained.run(0)): cost.Rate(100.0, 1.1, "x")}
    assert cost.work_of(run) not in cost.estimated_rates([run, row.pretrained.run(0)], known)


# --------------------------------------------------------------------------------------------------------------- table

VALUES = {"untrained": [18.0, 19.0, 17.5], "b_standard": [30.0, 31.0, 31.5], "efficient": [35.0, 35.5, 36.5],
          "smoothing": [33.0, 34.0, 34.0]}  # fmt: skip


@pytest.fixture
def results(tmp_path):
    made = make_results(CANVAS, SHORT, VALUES, tmp_path, seeds=3)
    return [with_classifiers(result, tmp_path / "own") for result in made]


def with_classifiers(result: RowResult, pool: Path) -> RowResult:
    if result.row.pretrained is None:
        return result
    records = [make_record(result.row.pretrained.run(seed), 10.0 + seed) for seed in range(3)]
    return replace(result, pretrained=store(pool, *records))


def test_the_table_has_classifiers_values_paired_steps_and_claims(results, tmp_path, no_plots):
    path, _, steps, claims = write_report(CANVAS, SHORT, results, tmp_path / "out")
    text = path.read_text()
    heading, *lines = lines_of(text)
    untrained, standard = (dict(zip(heading, line)) for line in lines[:2])
    assert standard["top-1 accuracy of the classifier"] == "89.00 ± 1.00"
    assert standard["mIoU, reproduced"].startswith("30.83")
    assert standard["top-1 accuracy of the classifier on ImageNet, reported"] == "76.14"
    assert [line["mIoU on ADE20K, He T. et al. 2018"] for line in (untrained, standard)] == ["–", "37.05"]
    assert "What each step does to mIoU" in text and "What each step does to pixel accuracy" in text
    assert "difference from reported" not in text, "the data are others"
    own = {(line["step"], line["metric"]): line for line in csv.DictReader(steps.open())}
    assert float(own["efficient", "mean_iou"]["difference"]) == pytest.approx((5 + 4.5 + 5) / 3, abs=1e-4)
    assert own["smoothing", "mean_iou"]["after"] == "efficient" and own["smoothing", "mean_iou"]["pairs"] == "3"
    for metric in ("mean_iou", "pixel_accuracy"):  # the text has the file's intervals
        line = own["efficient", metric]
        assert line["comparisons"] == "6", "of all steps in both metrics"
        low, high = (signed(float(line[f"{end}_corrected"])) for end in ("low", "high"))
        assert f"[{low}, {high}]" in text
    found = {line["claim"]: line for line in csv.DictReader(claims.open())}
    assert found["trained"]["statement"] == "shown, in the short profile"
    assert float(found["cosine_smoothing_harms_mean_iou"]["effect"]) == pytest.approx(2.0, abs=1e-4)
    assert "Values are in percent" in text and "mIoU with the step minus mIoU without" in text


def test_a_row_on_request_is_compared_only_with_rows_that_are_there(tmp_path, no_plots):
    values = {key: VALUES[key] for key in ("untrained", "smoothing")} | {"mixup_distilled": [30.0, 30.0, 31.0]}
    made = make_results(CANVAS, SHORT, values, tmp_path, seeds=3)
    made = [result for result in made if result.row.key != "mixup"]
    files = write_report(CANVAS, SHORT, made, tmp_path / "out")
    assert "+ distill w/ mixup" in files[0].read_text()


def test_the_claims_of_the_paper():
    claims = report.claims("segmentation", Variant())
    assert [claim.nets for claim in claims[1:]] == 2 * [("cosine", "smoothing")]
    (_, helps) = report.claims("detection", Variant())
    assert helps.nets == ("smoothing", "cosine") and helps.metric == "map_11_point"
    experiment = detection.EXPERIMENTS["voc"]
    results = [RowResult(row, [], None, 3) for row in experiment.rows("paper")]
    (finding,) = report.find(make_page(experiment, Variant(), results, Path("x")))
    assert finding.reported == pytest.approx(80.71 - 79.23)
    headline = report.headline(make_page(experiment, Variant(), results, Path("x")))
    assert headline.reported == "+1.48" and headline.verdict.startswith("not yet run")


# ------------------------------------------------------------------------------------------------------------ training


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a classifier's run, and a run for each task that begins with it."""
    from reproductions.harness.launching.run_paths import RunPaths

    out = tmp_path_factory.mktemp("trained")
    paths, runs = RunPaths(out, out), []
    for script in SCRIPTS.values():
        row = next(row for row in script.EXPERIMENTS["canvas"].rows("smoke") if row.key == "efficient")
        brief = replace(row.recipe, iterations=2, eval_interval=2)
        classifier = replace(row.pretrained, recipe=replace(tiny.TINY, precision="fp32"))
        runs += [replace(row, recipe=brief, pretrained=classifier).run(0), classifier.run(0)]
    assert execute(list(dict.fromkeys(runs)), paths, never).failures == {}
    return paths, [run for run in runs if run.task]


def test_a_run_begins_with_its_classifier_and_leaves_a_record_and_weights(trained):
    paths, runs = trained
    for run in runs:
        record = read_record(record_path(paths.records, run))
        classifier = read_record(record_path(paths.records, run.pretrained))
        assert record["pretrained_sha256"] == classifier["weights_sha256"]
        assert record["status"] == "completed" and set(record["final"]) >= set(run.task.metrics)
        assert record["specification"]["task"]["name"] == run.task.name and "task" not in classifier["specification"]
        assert record["parameters"] > classifier["parameters"] and paths.weights(run).exists()


def test_what_only_classifiers_can_do_is_refused(trained, capsys):
    paths, (run, _) = trained
    options = SimpleNamespace(model=None, option=[], weights=str(paths.weights(run)))
    with pytest.raises(WeightsError, match="holds a network for segmentation"):
        evaluate.find_weights(options)
    console = make_console()
    assert export_weights(CANVAS, SMOKE, None, paths.out, paths.out / "export", console) == 2
    assert "networks for segmentation: only classifiers are exported" in " ".join(capsys.readouterr().out.split())


def test_pictures_are_measured_once_and_drawn_without_data(trained, monkeypatch):
    paths, runs = trained
    records = [read_record(record_path(paths.records, run)) for run in runs]
    assert PICTURES.make_missing(records, paths, torch.device("cpu")) == []
    for record, run in zip(records, runs):
        file = PICTURES.find(paths.out, record)
        assert len(file["shown"]) == pictures.SHOWN
        kinds = {"segmentation": str, "detection": list}[run.task.name]
        assert all(isinstance(picture[name], kinds) for picture in file["shown"] for name in ("true", "found"))
        row = SCRIPTS[run.task.name].EXPERIMENTS["canvas"].rows("smoke")[2]
        drawn = pictures.figure([RowResult(row, [record], None, 1)], SMOKE, paths.out)
        assert {"image", "truth", "D-efficient"} <= set(written_in(drawn))
    masked, boxed = sorted(records, key=lambda record: record["specification"]["task"]["name"] == "detection")

    def refused(record, problem, change):
        path = PICTURES.path(paths.out, record)
        content = json.loads(path.read_text())
        change(content["shown"])
        path.write_text(json.dumps(seal(content, "sha256")))
        with pytest.raises(MeasurementError, match=problem):
            PICTURES.find(paths.out, record)
        path.unlink()

    refused(masked, "a picture is missing", lambda shown: shown.pop())
    refused(boxed, "a box is not a label, four sides", lambda shown: shown[0]["true"].append([1, 2.0, 3.0, 4.0, 5.0]))
    assert not PICTURES.concerns(make_record(seg_run(1), 30.0)), "the first seed's alone"


def test_a_pictures_masks_have_its_size_and_its_boxes_its_scale():
    pixels, mask = torch.zeros(300, 600, 3, dtype=torch.uint8), torch.ones(40, 80, dtype=torch.uint8)
    scene = SimpleNamespace(pixels=pixels, mask=mask, boxes=torch.tensor([[0, 0, 600, 150]]), labels=torch.tensor([3]))
    picture = pictures.make_picture("segmentation", scene, mask.long())
    assert {pictures.unpack(text).shape[:2] for text in picture.values()} == {(96, 192)}
    found = Detections(np.array([[0, 0, 6, 3], [0, 0, 60, 30]]), np.array([5, 4]), np.array([0.1, 0.3]))
    picture = pictures.make_picture("detection", scene, found)
    assert picture["true"] == [[3, 0, 0, 192, 48, ""]], "in the picture's scale"
    assert picture["found"] == [[4, 0, 0, 19.2, 9.6, "30 %"]], "the surest, as many as there are objects"


# ----------------------------------------------------------------------------------------------------------- backbones


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Files of weights: of torchvision's ResNet-50, named as it names them, and of this suite's variant D."""
    from torchvision.models import resnet50

    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    files = {"theirs": folder / "resnet50-01234567.pth", "own": folder / "own.pt"}
    torch.save(resnet50(weights=None).state_dict(), files["theirs"])
    torch.save(create_model("resnet50", torch.Generator().manual_seed(0), variant="d").state_dict(), files["own"])
    return files


def test_weights_that_exist_make_a_table_of_their_own(weights, tmp_path):
    names = [str(path) for path in weights.values()]
    experiment = backbones.of_backbones(detection.EXPERIMENTS["voc"], names, tmp_path)
    first, second = experiment.rows("paper")
    assert first.model_options == {"variant": "b", "shortcut": "B"}
    assert second.model_options == {"variant": "d", "shortcut": "B"}
    assert second.after == first.key and first.label == "resnet50-01234567.pth"
    assert backbones.of_backbones(detection.EXPERIMENTS["voc"], names[:1], tmp_path).name != experiment.name
    run = first.run(0)
    assert run.task.backbone == keep_backbone(tmp_path, read_backbone(tmp_path, run.task.backbone))
    assert Run.from_specification(run.specification()).identity == run.identity != second.run(0).identity
    assert experiment.command(Variant()) == (
        f'make reproduce-transfer-detection DATASET=voc BACKBONES="{names[0]} {names[1]}"'
    )
    with pytest.raises(WeightsError, match="named twice"):
        backbones.of_backbones(detection.EXPERIMENTS["voc"], names[:1] * 2, tmp_path)
    (tmp_path / "backbones" / f"{run.task.backbone[:16]}.pt").unlink()
    with pytest.raises(WeightsError, match="weights of the backbone can't be read"):
        read_backbone(tmp_path, run.task.backbone)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--backbones", "x"], "--dataset ade20k"),
        (["--dataset", "voc", "--backbones", "x"], "--dataset ade20k"),
        (["--dataset", "ade20k", "--profile", "smoke", "--backbones", "x"], "profiles paper and short"),
        (["--dataset", "ade20k", "--backbones", ""], "no weights are named"),
        (["--dataset", "ade20k", "--backbones", "nowhere.pt"], "there is no file nowhere.pt"),
        (["--dataset", "ade20k", "--backbones", "torchvision:resnet50:BEST"], "has: IMAGENET1K_V1, IMAGENET1K_V2"),
    ],
)  # fmt: skip
def test_weights_that_cannot_be_used_are_refused(arguments, problem, tmp_path, capsys):
    assert backbones.main(segmentation.EXPERIMENTS, [*arguments, "--out", str(tmp_path)]) == 2
    assert problem in " ".join(capsys.readouterr().err.split())


def test_torchvisions_weights_have_names():
    with pytest.raises(WeightsError, match="unknown weights torchvision:resnet51"):
        torchvision_file("resnet51:IMAGENET1K_V1")


# ------------------------------------------------------------------------------------------------------- the whole way


def test_a_job_of_several_processes_is_refused_before_it_is_submitted():
    slurm = SimpleNamespace(processes=2)
    flags = SimpleNamespace(launcher="slurm", options=SimpleNamespace(device="auto", slurm=slurm))
    with pytest.raises(ValueError, match="one process trains a run for segmentation, but a job .* has 2"):
        preflight.check_device(flags, [seg_run()])
    slurm.processes = 1
    preflight.check_device(flags, [seg_run()])


@pytest.mark.parametrize(
    ("task", "data", "flags"),
    [("segmentation", "ade20k", ["--dataset", "ade20k"]), ("detection", "voc", ["--dataset=voc"])],
)
def test_a_missing_folder_is_named_before_anything_is_trained(task, data, flags, weights, tmp_path, capsys):
    arguments = [*flags, "--backbones", str(weights["own"]), "--yes", "--data", str(tmp_path / "data")]
    assert backbones.main(SCRIPTS[task].EXPERIMENTS, [*arguments, "--out", str(tmp_path / "out")]) == 2
    assert f"{tmp_path}/data/{data}" in "".join(capsys.readouterr().err.split())
    assert not list((tmp_path / "out").rglob("status.json"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "data", "make"), [("segmentation", "ade20k", make_ade20k), ("detection", "voc", make_voc)]
)
def test_a_folder_in_the_official_layout_goes_through_the_papers_profile(
    task, data, make, weights, tmp_path, monkeypatch, capsys
):
    """Real sizes of images (a shorter side of 600 or 520), torchvision's trunk and this suite's variant D."""
    expect(monkeypatch, 10, 2)
    make(tmp_path / "data", 10, 2)
    monkeypatch.setattr(launch, "MEASURING_SECONDS", 600)  # on a busy machine
    settings = protocol.SETTINGS[task][data]
    brief = {"segmentation": {}, "detection": {"proposals": (50, 8, 50, 8), "regions": 8}}[task]
    recipe = replace(settings["paper"].recipe, iterations=2, batch_size=2, eval_interval=2, milestones=())
    own = replace(settings["paper"], recipe=recipe, task=replace(settings["paper"].task, **brief))
    monkeypatch.setitem(settings, "paper", own)
    out, names = tmp_path / "out", " ".join(map(str, weights.values()))
    arguments = ["--dataset", data, "--backbones", names, "--seeds", "1", "--yes", "--launcher", "inline"]
    arguments += ["--data", str(tmp_path / "data"), "--out", str(out)]
    assert backbones.main(SCRIPTS[task].EXPERIMENTS, arguments) == 0
    said = capsys.readouterr().out
    assert "from given weights" in said and "the paper's protocol" in said
    records = read_pool(out / "records").records.values()
    assert len(records) == 2 and {record["status"] for record in records} == {"completed"}
    assert {record["specification"]["task"]["short_side" if task == "detection" else "crop"] for record in records} == {
        600 if task == "detection" else 480
    }
    assert len(list((out / "pictures").iterdir())) == 2
    assert len(list((out / "plots").glob(f"transfer_{task}_{data}_backbones_*_pictures.png"))) == 1


@pytest.mark.slow
def test_the_smoke_profile_goes_the_whole_way(tmp_path, capsys):
    out = str(tmp_path / "runs")
    assert backbones.main(segmentation.EXPERIMENTS, ["--profile", "smoke", "--out", out]) == 0
    assert "+ cosine and smoothing" in capsys.readouterr().out
    assert sum(record["specification"].get("task") is not None
               for record in read_pool(Path(out) / "records").records.values()) == 4  # fmt: skip
