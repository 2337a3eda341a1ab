"""The benchmark of reading ImageNet, as far as a CPU can try it: what it measures, and what its page says."""

import json

import pytest

from benchmarks import imagenet_input
from benchmarks.imagenet_input import Reading, Results, main, make_images, page
from benchmarks.measuring import Rates
from resnet.data import image_files
from resnet.data.image_files import Counts


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Fewer and smaller images, and the smallest of the nets."""
    monkeypatch.setattr(imagenet_input, "SIZE", (60, 40))
    monkeypatch.setattr(imagenet_input, "MODEL", "resnet18")
    monkeypatch.setattr(imagenet_input, "VARIANT", "original")


QUICK = ["--device", "cpu", "--rounds", "1", "--seconds", "0.01", "--images", "8", "--training-batch", "2"]


def results(**changes):
    rows = [
        Reading(crop, workers, Rates(3, (rate * 0.9, rate, rate * 1.1)))
        for crop, rates in (("scale", (100.0, 180.0)), ("area", (80.0, 150.0)))
        for workers, rate in zip((1, 2), rates)
    ]
    values = {
        "hardware": {"type": "cuda", "device": "GPU of tests", "threads": 2, "processes": 1},
        "versions": {"python": "3", "torch": "2", "cuda": None, "cudnn": None},
        "code": {"commit": "abc", "modified": False}, "rounds": 3, "seconds": 2.0, "cores": 2, "made": True,
        "images": 256, "pixels": (500.0, 375.0), "kilobytes": 110.0, "reading": tuple(rows),
        "device_work": Rates(3, (10_000.0,)), "training": Rates(3, (1_000.0,)), "training_batch": 256,
        "precision": "bf16",
    }  # fmt: skip
    return Results(**values | changes)


def test_everything_is_measured_and_written(tmp_path):
    assert main([*QUICK, "--workers", "0", "1", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    (path,) = (tmp_path / "out").glob("imagenet-input-*.json")
    values = json.loads(path.read_text())
    assert [(row["crop"], row["workers"]) for row in values["reading"]] == [
        ("scale", 0), ("scale", 1), ("area", 0), ("area", 1),
    ]  # fmt: skip
    assert all(row["rates"]["images_per_second"][0] > 0 for row in values["reading"])
    assert values["training"]["images_per_second"][0] > 0 and values["device_work"]["images_per_second"][0] > 0
    assert values["made"] and values["pixels"] == [60, 40] and values["images"] == 8
    text = path.with_suffix(".md").read_text()
    assert "not ImageNet but 8 generated images" in text and "resnet18" in text


def test_imagenet_is_used_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setitem(image_files.EXPECTED, "imagenet", Counts(2, 8, 2, (4, 4)))
    make_images(tmp_path / "imagenet", 8)
    assert main([*QUICK, "--workers", "0", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    (path,) = (tmp_path / "out").glob("*.md")
    assert "The images read are 8 images of ImageNet: 60 by 40 pixels" in path.read_text()


def test_an_incomplete_imagenet_is_an_error(tmp_path, capsys):
    make_images(tmp_path / "imagenet", 8)
    assert main([*QUICK, "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "2 class folders, but imagenet has 1,000" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_page_names_the_limit_and_the_cores_that_would_feed_the_device():
    text = " ".join(page(results()).split())
    assert "Reading is the bottleneck" in text
    assert "takes 10 for scale and 13 for area cores" in text  # 1,000 / 100 and 80
    assert "100.0 µs an image" in text and "| area | 2 | 150 (135 to 165) | 75 | 0.15 |" in text
    assert "The device is the bottleneck" in page(results(training=Rates(3, (90.0,))))


def test_there_are_never_more_cores_than_the_machine_has():
    row = Reading("area", 8, Rates(1, (200.0,)))
    assert results(cores=2).per_core(row) == 100 and results(cores=16).per_core(row) == 25


def test_made_images_have_the_size_of_imagenets(tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet_input, "SIZE", (500, 375))
    dataset = make_images(tmp_path / "made", 2)
    assert 90_000 < dataset.train.bytes.mean() < 130_000 and dataset.name == "made" and not dataset.official


@pytest.mark.parametrize(
    "options", [["--rounds", "0"], ["--workers", "-1"], ["--images", "1"], ["--device", "nonsense"]]
)
def test_wrong_options_are_errors(options, tmp_path):
    with pytest.raises(SystemExit) as caught:
        main([*options, "--out", str(tmp_path)])
    assert caught.value.code == 2
