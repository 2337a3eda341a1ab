"""The commands for one's own images: what they leave behind, what they print, and what they refuse."""

import json
import math
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from printed import lines_of
from scipy.stats import binomtest

from reproductions.finetune import experiment as finetune
from reproductions.finetune import report as finetune_report
from reproductions.harness.reporting.figure import fonts_for
from resnet import finetuning
from resnet.data.folder import FolderDataset
from resnet.data.image_files import Files
from resnet.data.sampling import seeded_generator
from resnet.finetuning import Training
from resnet.released import read_card

COLOURS = {"blue": (40, 40, 200), "gr|een": (40, 200, 40), "red": (200, 40, 40)}
FLAGS = ("--model", "cifar_resnet8", "--batch", "6", "--device", "cpu", "--workers", "0")


def run(capsys, *arguments) -> tuple[int, str, str]:
    """The exit status, and what was printed."""
    status = finetune.main([*map(str, arguments)])
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten images of each of three colours, one of them truncated."""
    root, rng = tmp_path_factory.mktemp("data") / "colours", np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(10):
            pixels = np.clip(rng.normal(colour, 20, (40, 36, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    broken = root / "red" / "9.png"
    broken.write_bytes(broken.read_bytes()[:900])
    return root


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    flags = (*FLAGS, "--learning-rate", "0.003", "--every", "5", "--epochs", "4")
    assert finetune.main(["train", str(folder), "--out", str(out), *flags]) == 0
    return out


def test_a_training_leaves_weights_report_plots_and_history(trained):
    names = {path.name for path in trained.iterdir() if not path.name.startswith("checkpoint")}
    assert names == {
        "best.safetensors", "last.safetensors", "report.md", "confusion.png", "curves.png", "history.json",
    }  # fmt: skip
    history = json.loads((trained / "history.json").read_text())
    assert history["classes"] == [*COLOURS] and len(history["history"]) == 4
    assert [each["image"] for each in history["unreadable"]] == ["red/9.png"]
    text = (trained / "report.md").read_text()
    last = history["history"][-1]
    assert f"**Validation accuracy {last['validation_accuracy']:.2f} %**" in text and "red/9.png" in text
    assert "24 training images, 5 held out: image 5, 10, 15, ... of the sorted list" in text
    assert "| gr\\|een" in text  # a bar in a name is none of the table
    assert sum(map(sum, history["confusion"])) == 5
    for name in ("confusion.png", "curves.png"):
        with Image.open(trained / name) as image:
            assert image.width > 400


def test_predictions_are_sorted_and_unreadable_images_are_named(folder, trained, capsys):
    best = trained / "best.safetensors"
    status, out, err = run(capsys, "predict", best, folder / "red", folder / "blue" / "0.png", "nothing.png")
    assert status == 1 and "red/9.png can't be read" in err and "nothing.png can't be read" in err
    assert out.count(".png") == 10 and "9.png" not in out and "| 1 " in out and "| 3 " in out
    status, out, err = run(capsys, "predict", best, folder / "blue", "--json", "--workers", "2")
    found = json.loads(out)
    assert status == 0 and err == "" and len(found) == 10
    for each in found:
        chances = [prediction["probability"] for prediction in each["predictions"]]
        assert chances == sorted(chances, reverse=True) and sum(chances) == pytest.approx(1)
        assert {prediction["class"] for prediction in each["predictions"]} == set(COLOURS)


def test_predictions_of_the_images_held_out_are_those_of_the_report(folder, trained, capsys):
    paths = [path for path in sorted(folder.glob("*/*.png")) if path != folder / "red" / "9.png"]
    held_out = paths[4::5]
    out = run(capsys, "predict", trained / "last.safetensors", *held_out, "--json")[1]
    right = sum(each["predictions"][0]["class"] in each["image"].split("/") for each in json.loads(out))
    history = json.loads((trained / "history.json").read_text())
    assert history["history"][-1]["validation_accuracy"] == 100 * right / len(held_out)


def test_a_photograph_is_predicted_as_it_was_held(folder, trained, tmp_path, capsys):
    exif, names = Image.Exif(), []
    exif[0x0112] = 6  # turn it by 90 degrees
    with Image.open(folder / "blue" / "0.png") as image:
        half = image.copy()
    half.paste((200, 40, 40), (0, 0, 36, 20))  # what is above differs from what is below
    for name, pixels, how in [("lying", half.rotate(90, expand=True), {"exif": exif}), ("upright", half, {})]:
        names.append(tmp_path / f"{name}.png")
        pixels.save(names[-1], **how)
    lying, upright = json.loads(run(capsys, "predict", trained / "last.safetensors", *names, "--json")[1])
    assert lying["predictions"] == upright["predictions"]


def test_more_epochs_go_on_and_other_settings_are_refused(folder, tmp_path, capsys):
    command = ("train", folder, "--out", tmp_path, *FLAGS, "--epochs")
    assert run(capsys, *command, 1)[0] == 0
    status, _, err = run(capsys, *command, 2)
    assert status == 0 and "epoch 2:" in err and "epoch 1:" not in err
    status, _, err = run(capsys, *command, 2, "--seed", 1)
    assert status == 1 and "different settings, data, initial weights" in err and "--out" in err


def test_fine_tuning_says_what_becomes_of_the_last_layer(folder, trained, tmp_path, capsys):
    two = tmp_path / "two"
    two.mkdir()
    for name in ("blue", "red"):
        (two / name).symlink_to(folder / name)
    flags = ("--weights", trained / "last.safetensors", "--batch", "6", "--epochs", "1", "--workers", "0")
    status, _, err = run(capsys, "train", two, "--out", tmp_path / "out", *flags)
    assert status == 0 and "from the weights of last.safetensors" in err and "2 outputs instead of 3" in err


def test_released_weights_are_named_and_pixels_normalised_as_theirs(folder, tmp_path, capsys):
    flags = ("--weights", "cifar_resnet20", "--batch", "6", "--epochs", "1", "--device", "cpu", "--workers", "0")
    status, _, err = run(capsys, "train", folder, "--out", tmp_path, *flags)
    assert status == 0 and "from the weights of cifar_resnet20.safetensors, but with a new last layer" in err
    assert "from 0 to 255: minus 125.307, 122.95, 113.865; divided by 255, 255, 255" in err
    assert json.loads(read_card(tmp_path / "last.safetensors")["std"]) == [255.0] * 3


def test_what_is_passed_over_and_held_out_copies_are_said(folder, tmp_path, capsys):
    root = tmp_path / "colours"
    for name in ("blue", "red"):
        (root / name / "@eaDir").mkdir(parents=True)
        for number in range(5):
            shutil.copy(folder / name / f"{number}.png", root / name)
    shutil.copy(root / "blue" / "0.png", root / "blue" / "4.png")  # which is held out
    flags = ("--every", "5", "--epochs", "1")
    status, out, err = run(capsys, "train", root, "--out", tmp_path / "out", *FLAGS, *flags)
    copies = "1 of the 2 held-out images are exact copies of training images (blue/4.png is blue/0.png)"
    for said in ("blue/@eaDir, a folder that a program created", copies):
        assert status == 0 and said in err and said in out
    history = json.loads((tmp_path / "out" / "history.json").read_text())
    assert history["copies"] == [{"held_out": "blue/4.png", "trained_on": "blue/0.png"}]
    assert [each["name"] for each in history["passed_over"]] == ["blue/@eaDir", "red/@eaDir"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--strict"], "--strict refuses unreadable images"),
        (["--every", "1000"], "no image of"),
        (["--weights", "missing.pt"], "there is no file missing.pt"),
        (["--weights", "resnet50"], "there are no released weights of resnet50; released: cifar_"),
        (["--model", "resnet51"], "there is no model 'resnet51'"),
        (["--model", "mnist_residual"], "only grey images"),
        (["--device", "cuda:77"], "there is no device 'cuda:77'"),
        (["--learning-rate", "-1"], "learning_rate"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(folder, tmp_path, capsys, flags, said):
    status, _, err = run(capsys, "train", folder, "--out", tmp_path / "out", *FLAGS, *flags)
    assert status == 2 and said in err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags", [["--weights", "missing.pt"], ["--model", "resnet51"], ["--learning-rate", "-1"]])
def test_flags_are_looked_at_before_the_images(folder, tmp_path, capsys, monkeypatch, flags):
    monkeypatch.setattr("reproductions.finetune.own_folder.scan_classes", lambda *_: pytest.fail("reads the images"))
    status, _, _ = run(capsys, "train", folder, "--out", tmp_path / "out", *FLAGS, *flags)
    assert status == 2


def test_folders_and_weights_that_will_not_do(folder, trained, tmp_path, capsys):
    for arguments, said in (
        (("train", tmp_path / "none", "--out", tmp_path / "out"), "there is no folder"),
        (("train", tmp_path, "--out", tmp_path.parent / "out"), "but it has no sub-folder"),
        (("train", folder, "--out", folder / "out"), "would be taken for images"),
        (("predict", tmp_path / "none.safetensors", folder), "there is no file"),
        (("predict", trained / "last.safetensors", tmp_path), "there is no image in"),
    ):
        status, _, err = run(capsys, *arguments)
        assert status == 2 and said in err
    both = ["--every", "5", "--validation", "0.1"]
    for flags in (["--batch", "1"], ["--epochs", "0"], ["--every", "1"], ["--validation", "1"], both):
        with pytest.raises(SystemExit) as ended:
            run(capsys, "train", folder, "--out", tmp_path / "out", *flags)
        assert ended.value.code == 2


def test_as_reported_decides_what_the_report_does(folder, tmp_path, capsys):
    flags = ("--as-reported", "--model", "resnet18", "--epochs", "1", "--device", "cpu", "--workers", "0")
    status, out, _ = run(capsys, "train", folder, "--out", tmp_path / "out", *flags)
    history = json.loads((tmp_path / "out" / "history.json").read_text())
    assert status == 0 and "images 0, 5, 10, ... of the sorted list" in out and "central crops" in out
    assert history["settings"] == {
        "batch_size": 64,
        "learning_rate": 1e-3,
        "image_size": 224,
        "crop": "area",
        "augment": False,
        "precision": "fp32",
        "seed": 0,
        "last_batch": "use",
    }
    assert "23 training images, 6 held out" in out  # of 29, in one batch of 23
    card = read_card(tmp_path / "out" / "last.safetensors")
    assert json.loads(card["options"])["variant"] == "original"
    assert json.loads(card["options"])["initialization"] == "uniform"
    for more in (["--every", "4"], ["--batch", "32"], ["--precision", "bf16"], ["--validation", "0.1"]):
        with pytest.raises(SystemExit) as ended:
            run(capsys, "train", folder, "--out", tmp_path / "other", *flags, *more)
        assert ended.value.code == 2


def test_fine_tuning_as_reported_has_a_new_last_layer_as_pytorch_makes_it(folder, tmp_path):
    create = finetuning.create_model
    torch.save(create("resnet18", num_classes=10).state_dict(), tmp_path / "w.pt")
    found = finetuning.from_weights(str(tmp_path / "w.pt"), ("a", "b"), 0, initialization="uniform")
    fresh = create("resnet18", seeded_generator(0, "initialisation"), num_classes=2, initialization="uniform")
    assert torch.equal(found.model.fc.weight, fresh.fc.weight) and found.model.fc.bias.any()
    assert "initialization" not in found.architecture.options


# ---------------------------------------------------------------------------------------------------------- the report


@pytest.mark.parametrize(("right", "images"), [(0, 5), (5, 5), (3, 7), (414, 570)])
def test_the_interval_is_wilsons(right, images):
    bounds = finetune_report.wilson(right, images)
    wanted = binomtest(right, images).proportion_ci(method="wilson")
    assert (bounds.low, bounds.high) == pytest.approx((100 * wanted.low, 100 * wanted.high), abs=1e-4)


def test_of_many_classes_only_the_confusions_are_listed():
    classes = tuple(f"class {number}" for number in range(31))
    confusion = np.diag([4] * 31)
    confusion[7, 3], confusion[7, 30], confusion[12, 0] = 2, 1, 3
    assert lines_of(finetune_report.confusion_table(confusion, classes))[1:] == [
        ["class 12", "class 0", "3", "7"],
        ["class 7", "class 3", "2", "7"],
        ["class 7", "class 30", "1", "7"],
    ]
    assert finetune_report.confusion_plot(confusion, classes)


def test_classes_that_no_font_can_draw_are_numbered(tmp_path, monkeypatch, recwarn):
    from matplotlib import font_manager

    own = [font for font in font_manager.fontManager.ttflist if font.name in ("DejaVu Sans", "Last Resort")]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    fonts_for.cache_clear()
    figure = finetune_report.confusion_plot(np.eye(3, dtype=int), ("a", "猫", "犬"))
    figure.savefig(tmp_path / "x.png")
    fonts_for.cache_clear()
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "no. 2", "no. 3"]
    assert "its place in the tables" in axis.get_ylabel() and not recwarn.list


def test_a_loss_that_is_not_finite_is_null_in_json(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(finetuning, "validate", lambda *_: (math.nan, [[2, 0, 0], [0, 2, 0], [0, 0, 1]]))
    flags = ("--every", "5", "--epochs", "1")
    assert run(capsys, "train", folder, "--out", tmp_path, *FLAGS, *flags)[0] == 0
    history = json.loads((tmp_path / "history.json").read_text(), parse_constant=pytest.fail)
    assert history["history"][0]["validation_loss"] is None and history["history"][0]["training_loss"] > 0


@pytest.mark.parametrize("bad", ["x|y", "line\nbreak", "<b>"])
def test_any_class_name_stays_in_its_place_of_the_report(folder, tmp_path, capsys, bad):
    root = tmp_path / bad
    for name in (bad, "red"):
        shutil.copytree(folder / "blue", root / name)
    (root / bad / f"{bad}.png").write_bytes(b"")
    out = tmp_path / "out"
    assert run(capsys, "train", root, "--out", out, *FLAGS, "--every", "5", "--epochs", "1")[0] == 0
    text = (out / "report.md").read_text()
    shown = {"x|y": r"x\|y", "line\nbreak": "line break", "<b>": r"\<b>"}[bad]
    assert text.startswith(f"# {shown}: cifar_resnet8") and f"- Left out: {shown}/{shown}.png, which" in text
    lines = [line for line in text.splitlines() if line.startswith(f"| {shown} ")]
    assert len(lines) == 2  # the table of classes and the confusion matrix
    assert not re.search(r"(?<!\\)" + re.escape(bad), text)
    assert run(capsys, "predict", out / "last.safetensors", root / bad / "0.png")[1].count("\n") == 3


def test_a_class_without_images_held_out_has_no_accuracy(tmp_path):
    def files(labels):
        return Files(np.array([b"x"] * len(labels)), np.array(labels), np.ones(len(labels), np.int64))

    dataset = FolderDataset("x", tmp_path, ("a", "b"), files([0, 0, 0, 1]), files([0, 0]), False, "")
    table = finetune_report.class_table(dataset, np.array([[1, 1], [0, 0]]))
    assert lines_of(table)[2] == ["b", "1", "25.0 %", "0", "–", "–"]
    entry = {"training_loss": 1.0, "validation_loss": 1.0, "training_accuracy": 50.0}
    done = Training([{"epoch": n + 1, "validation_accuracy": a, **entry} for n, a in enumerate((40.0, 60.0, 60.0))], [])
    assert done.best["epoch"] == 2 and finetune_report.curves_plot(done)
