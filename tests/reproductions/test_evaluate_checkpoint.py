"""``--evaluate-only``: weights of all origins tested by the papers' protocol, from the command line to the table."""

import json
import re
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from printed import rows_of

from reproductions.harness import cli
from reproductions.imagenet import evaluate_checkpoint
from reproductions.imagenet import table as imagenet_table
from reproductions.imagenet.evaluate_checkpoint import Weights
from resnet.data.folder import FolderData
from resnet.data.image_files import FolderDataset, load_test_folder
from resnet.evaluate import TESTS, count_wrong_in
from resnet.recipe import Recipe
from resnet.weights import Architecture

SYNTHETIC = ["--dataset", "synthetic_imagenet", "--image-size", "32", "--tests", "center"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def out(data, tmp_path_factory):
    """A folder of runs with one run of the smoke profile."""
    out = tmp_path_factory.mktemp("my runs")
    asked = ["--profile", "smoke", "--rows", "resnet8", "--seeds", "1", "--data", str(data), "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "PUBLISHED", out / "published")
        assert imagenet_table.main(asked) == 0
    return out


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=10).eval()


@pytest.fixture
def evaluate(data, capsys):
    """Runs the command; returns its exit status, what it printed, and what it complained of."""

    def run(checkpoint, *options) -> tuple[int, str, str]:
        status = imagenet_table.main([f"--evaluate-only={checkpoint}", "--data", str(data), *options])
        printed = capsys.readouterr()
        return status, printed.out, " ".join(printed.err.split())

    return run


def files_in(*folders) -> dict:
    return {path: path.stat().st_mtime_ns for folder in folders for path in folder.rglob("*")}


# -------------------------------------------------------------------------------------------------------- own weights


def test_own_weights_have_the_errors_that_their_record_says_and_nothing_is_written(evaluate, out, data):
    (weights,), (path,) = (out / "weights").glob("*.pt"), (out / "records").glob("*/*/*.json")
    record, before = json.loads(path.read_text()), files_in(out, data)
    status, text, _ = evaluate(weights)
    assert status == 0 and files_in(out, data) == before
    first, second, *_ = text.splitlines()
    assert first.startswith(f"{weights}: cifar_resnet8 num_classes=10, 75,290 parameters, SHA-256 ")
    assert first.endswith(record["weights_sha256"])
    assert second.startswith("synthetic_imagenet: 100 test images in ") and "crops of 16 pixels; fp32 on the" in second
    expected = {"1-crop": record["final"], "10-crop": record["tests"]["ten_crop"]}
    expected |= {"multi-scale": record["tests"]["multi_scale"]}
    rows = rows_of(text)
    assert list(rows) == list(expected)
    for test, errors in expected.items():
        shown = {name: rows[test][name] for name in rows[test] if "error" in name}
        top1, top5 = f"{errors['test_error']:.2f}", f"{errors['test_top5_error']:.2f}"
        assert shown == {
            "top-1 error": top1,
            "top-1 error, recorded": top1,
            "top-5 error": top5,
            "top-5 error, recorded": top5,
        }
        assert rows[test]["images"] == "100" and re.fullmatch(r"\d+\.\d", rows[test]["seconds"])
    assert "Reported" not in text


def test_what_a_record_says_of_other_crops_is_not_compared(evaluate, out):
    (weights,) = (out / "weights").glob("*.pt")
    status, text, _ = evaluate(weights, "--image-size", "32", "--tests", "center")
    assert status == 0 and "recorded" not in text and "crops of 32 pixels" in text


def test_weights_of_another_run_under_its_name(evaluate, out, tmp_path):
    (weights,) = (out / "weights").glob("*.pt")
    (tmp_path / "weights").mkdir()
    (tmp_path / "records").symlink_to(out / "records")
    torch.save({"fc.bias": torch.zeros(10)}, tmp_path / "weights" / weights.name)
    status, text, said = evaluate(tmp_path / "weights" / weights.name)
    assert (status, text) == (2, "") and "one of them belongs to another run" in said


def test_own_weights_are_what_their_record_says(evaluate, out):
    (weights,) = (out / "weights").glob("*.pt")
    status, _, said = evaluate(weights, "--model", "resnet50")
    assert status == 2 and "holds cifar_resnet8 num_classes=10 according to its record, not resnet50" in said


# ------------------------------------------------------------------------------------------------------- other weights


@pytest.mark.parametrize("test", TESTS[:2])  # several scales take long on a CPU
def test_torchvisions_format(evaluate, data, tmp_path, theirs, test):
    torch.save(theirs.state_dict(), tmp_path / "net.pt")
    status, text, _ = evaluate(tmp_path / "net.pt", *SYNTHETIC[:-1], test, "--batch", "10", "--workers", "0")
    images = FolderData(load_test_folder("synthetic_imagenet", data), "cpu", 0)
    wrong = count_wrong_in(test, theirs, images, Recipe(crop="scale", image_size=32)).tolist()
    (row,) = rows_of(text).values()
    assert status == 0 and [row["top-1 error"], row["top-5 error"]] == [f"{count:.2f}" for count in wrong]
    assert ": resnet18 variant=original shortcut=B num_classes=10, 11,181,642 parameters" in text


def test_precision_is_said(evaluate, tmp_path, theirs):
    torch.save(theirs.state_dict(), tmp_path / "net.pt")
    status, text, _ = evaluate(tmp_path / "net.pt", *SYNTHETIC, "--precision", "bf16")
    assert status == 0 and "; bf16 on " in text


# -------------------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ([""], "is a folder; name a weights file in it"),
        (["none.pt"], "there is no file"),
        (["net.pt", "--model", "resnet34"], "do not fit resnet34 num_classes=10: 80 missing (layer1.2.conv1.weight"),
        (["net.pt", "--model", "resnet34"], "; they fit resnet18 variant=original shortcut=B num_classes=10"),
        (["net.pt", "--variant", "d"], "they fit resnet18 variant=original shortcut=B num_classes=10"),
        (["net.pt", "--dataset", "imagenet"], "imagenet: put imagenet there, as train/<class>/<image> and val/<class>"),
        (["net.pt", "--device", "cuda:9"], "there is no device 'cuda:9'"),
        (["damaged.pt"], "damaged.pt can't be read as weights ("),
    ],
)  # fmt: skip
def test_what_cannot_be_tested(evaluate, tmp_path, theirs, asked, message):
    torch.save(theirs.state_dict(), tmp_path / "net.pt")
    (tmp_path / "damaged.pt").write_bytes((tmp_path / "net.pt").read_bytes()[:-10_000])
    name, *options = asked
    status, text, said = evaluate(tmp_path / name, *SYNTHETIC, *options)
    assert (status, text) == (2, "") and message in said


def test_another_number_of_classes(evaluate, tmp_path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "net.pt")
    status, _, said = evaluate(tmp_path / "net.pt", *SYNTHETIC)
    assert status == 2 and "net.pt has 1,000 classes, but synthetic_imagenet has 10" in said


def test_torchvisions_weights_without_a_network(evaluate, tmp_path, monkeypatch):
    def unreachable(url, path, **options):
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    status, text, said = evaluate("torchvision:resnet50")
    assert (status, text) == (2, "") and "Name or service not known" in said
    assert f"{tmp_path}/checkpoints/resnet50-0676ba61.pth" in said
    assert "https://download.pytorch.org/models/resnet50-0676ba61.pth can't be downloaded" in said


@pytest.mark.parametrize("wrong", ["--tests five_crop", "--batch 0", "--workers -1", "--profile smoke"])
def test_flags_that_mean_nothing(evaluate, wrong):
    with pytest.raises(SystemExit) as error:
        evaluate("torchvision:resnet50", *wrong.split())
    assert error.value.code == 2


# ------------------------------------------------------------------------------------------------- reported numbers


ERRORS = {test: {"test_error": 20.0 + paths, "test_top5_error": 5.0} for paths, test in enumerate(TESTS)}
SECONDS = dict.fromkeys(TESTS, 1.0)


def table(architecture: Architecture, data: str = "imagenet") -> str:
    return evaluate_checkpoint.errors_table(Weights(Path("x"), {}, architecture), data, ERRORS, SECONDS, 50_000)


def test_the_papers_numbers_stand_beside():
    assert (
        table(Architecture("resnet50"))
        == """\
| test        | top-1 error | top-1 error, reported | top-5 error | top-5 error, reported | images | seconds |
|-------------|-------------|-----------------------|-------------|-----------------------|--------|---------|
| 1-crop      | 20.00       | 24.7                  | 5.00        | 7.8                   | 50,000 | 1.0     |
| 10-crop     | 21.00       | 22.85                 | 5.00        | 6.71                  | 50,000 | 1.0     |
| multi-scale | 22.00       | 20.74                 | 5.00        | 5.25                  | 50,000 | 1.0     |

- Reported by KaimingHe/deep-residual-networks (the paper's authors, the models that they released, 1 run): \
https://github.com/KaimingHe/deep-residual-networks
- Reported by He et al. 2015: https://arxiv.org/abs/1512.03385
"""
    )


def test_another_variant_and_another_shortcut_are_not_passed_off_as_the_papers():
    assert "original variant and another training" in table(Architecture("resnet50", {"variant": "b"}))
    assert "eported" not in table(Architecture("resnet50", {"variant": "d"}))
    assert "eported" not in table(Architecture("resnet18"))  # the paper's has shortcut A
    assert "eported" not in table(Architecture("resnet50"), data="synthetic_imagenet")
    rows = rows_of(table(Architecture("resnet34", {"shortcut": "C"})))
    assert rows["10-crop"]["top-1 error, reported"] == "24.19" and rows["1-crop"]["top-1 error, reported"] == "–"
    assert rows_of(table(Architecture("plain34")))["10-crop"]["top-5 error, reported"] == "10.02"


def test_foreign_names_of_classes_are_refused(evaluate, tmp_path, monkeypatch, data):
    torch.save(torchvision.models.resnet18(num_classes=10).state_dict(), tmp_path / "net.pt")
    small = load_test_folder("synthetic_imagenet", data)

    def load(name, directory) -> FolderDataset:
        return small

    monkeypatch.setattr(evaluate_checkpoint, "load_test_folder", load)
    status, _, said = evaluate(tmp_path / "net.pt")
    assert status == 2 and "has classes such as bar: they must have ImageNet's names, such as n01440764" in said
