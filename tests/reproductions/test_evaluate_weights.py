"""``python -m reproductions evaluate``: weights of small nets, ours and others', from the command line to the table."""

import re

import pytest
import torch
from printed import lines_of
from trained import leave, synthetic

from reproductions import __main__, cifar_table, evaluate
from reproductions.harness.experiment import Variant
from reproductions.harness.provenance import ROOT
from reproductions.harness.record_files import weights_path
from reproductions.imagenet import table as imagenet_table
from resnet import released
from resnet.checkpoint import digest_of_weights
from resnet.data import load, place
from resnet.evaluate import count_wrong
from resnet.models import create_model
from resnet.recipe import Recipe
from resnet.released import pack_weights, read_card
from resnet.weights import Architecture

ROW = {row.key: row for row in cifar_table.rows("smoke")}["resnet8"]
RUN = ROW.run(0)


def wrong_of(model, recipe=RUN.recipe, train_images=None) -> str:
    """The test error of a network on the synthetic images, as it is shown."""
    data = place(synthetic(), train_images, "cpu")
    wrong = count_wrong(model, data.tests("test", slice(None), recipe)).item()
    return f"{100 * wrong / len(synthetic().test_labels):.2f}"


@pytest.fixture
def run(capsys):
    """Runs the command on the synthetic images; returns the exit status, the table's row, and all that was said."""

    def call(weights, *options):
        status = __main__.main(["evaluate", str(weights), "--dataset", "synthetic", *options])
        printed = capsys.readouterr()
        row = dict(zip(*lines_of(printed.out)))
        return status, row, printed.out + " ".join(printed.err.split())

    return call


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A folder of runs with a finished one."""
    out = tmp_path_factory.mktemp("runs")
    leave(out, RUN, 9.0)
    return out


def model_of(seed=0, **options):
    return create_model("cifar_resnet8", torch.Generator().manual_seed(seed), **options).eval()


# ------------------------------------------------------------------------------------------------------------ own ones


def test_a_runs_weights_are_tested_as_its_record_says(run, out):
    path = weights_path(out, RUN)
    model = create_model("cifar_resnet8")
    model.load_state_dict(evaluate.read_weights(path))
    status, row, said = run(path)
    assert status == 0 and row == {"test error, %": wrong_of(model), "recorded": "9.00"}
    assert "cifar_resnet8, 75,290 parameters" in said and "pixel_mean of its training images" in said
    assert "Recorded at the end of training: bf16 on NVIDIA H200; record records/synthetic/cifar_resnet8/" in said
    assert "on other data" not in said


def test_an_exported_file_needs_no_more_than_its_card(run, out, tmp_path):
    assert __main__.main(["export", "--out", str(out), "--to", str(tmp_path), "--profile", "smoke"]) == 0
    (path,) = tmp_path.iterdir()
    assert {"mean", "scale", "image_size"} <= read_card(path).keys()
    status, row, said = run(path)
    assert status == 0 and row["recorded"] == "9.00" and "normalised as follows from its card" in said
    assert row["test error, %"] == run(weights_path(out, RUN))[1]["test error, %"]
    status, _, said = run(path, "--model", "cifar_plain8")
    assert status == 2 and "holds cifar_resnet8 according to its card, not cifar_plain8" in said
    assert run(path, "--option", "shortcut=B")[0] == 2 and run(path, "--option", "shortcut=A")[0] == 0


def test_a_record_beside_another_preprocessing_says_that_it_has_its_own(run, out):
    status, row, said = run(weights_path(out, RUN), "--normalization", "channel_std")
    assert status == 0 and row["recorded"] == "9.00"
    assert re.search("- Recorded at the end of training: .*; with the run's own preprocessing, not the one named", said)
    assert "own preprocessing" not in run(weights_path(out, RUN))[2]
    said = run("cifar_resnet20", "--mean", "0.49,0.48,0.45")[2]
    assert re.search("- Recorded at the end of training: .*; with the card's own preprocessing, not the one", said)


def test_weights_that_were_trained_on_a_part_are_normalised_by_that_part(run, tmp_path):
    part = Variant("smoke", train_images=500).apply(RUN)
    leave(tmp_path, part, 9.0)
    status, _, said = run(weights_path(tmp_path, part))
    assert status == 0 and "pixel_mean of its first 500 training images" in said


def test_a_released_name_is_found_and_an_unknown_one_lists_them(run, monkeypatch, out, tmp_path):
    status, _, said = run("cifar_resnet21")
    assert status == 2 and "no released weights of cifar_resnet21; released: " in said and ", cifar_resnet20" in said
    state = evaluate.read_weights(weights_path(out, RUN))
    (tmp_path / "mine.safetensors").write_bytes(pack_weights(state, {}))
    monkeypatch.setattr(released, "RELEASED", tmp_path)
    assert run("mine", "--model", "cifar_resnet8", "--normalization", "pixel_mean")[0] == 0


def test_the_released_files_are_those_of_published_records_and_have_reported_numbers(run):
    status, row, said = run("cifar_resnet20")
    assert status == 0 and row["recorded"] == "8.43" and str(ROOT / "weights") in said
    assert "eported by" not in said and "; on other data than these" in said
    numbers = evaluate.reported_errors(Architecture("cifar_resnet20", {}), "cifar10")
    assert str(numbers[0]) == "8.75" and numbers[0].source.name == "He et al. 2015" and len(numbers) > 3


# -------------------------------------------------------------------------------------------------------------- others'


@pytest.fixture
def theirs(tmp_path):
    """A net with another padding, as another program's file has it."""
    model = model_of(shortcut_padding="both")
    names = {name: name.replace("fc.", "linear.") for name in model.state_dict()}
    torch.save({"state_dict": {f"module.{names[k]}": v for k, v in model.state_dict().items()}}, tmp_path / "net.th")
    return model, tmp_path / "net.th"


def test_a_foreign_file_is_tested_with_its_normalisation_by_a_flag(run, theirs):
    model, path = theirs
    both = ["--option", "shortcut_padding=both"]
    status, row, said = run(path, "--normalization", "channel_std", *both)
    assert status == 0 and row == {"test error, %": wrong_of(model, Recipe(normalization="channel_std"))}
    data = place(synthetic(), None, "cpu")
    mean, std = (
        [f"{value / 255:.9f}" for value in values.tolist()] for values in (data.channel_mean[0, 0], data.channel_std)
    )
    own = run(path, "--mean", ",".join(mean), "--std", ",".join(std), *both)
    assert own[1] == row and "pixels from 0 to 1 less" in own[2]


def test_what_the_weights_leave_open_has_to_be_said(run, theirs):
    _, path = theirs
    status, _, said = run(path, "--normalization", "pixel_mean")
    assert status == 2 and "cifar_resnet8 or cifar_resnet8 shortcut_padding=both or cifar_plain8" in said
    assert "choose with --model and --option" in said
    assert run(path, "--normalization", "pixel_mean", "--model", "cifar_resnet8")[0] == 0
    plain = path.rename(path.with_name("plain8.th"))
    assert "cifar_plain8, 75,290 parameters" in run(plain, "--normalization", "pixel_mean")[2]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "does not say how its images were normalised: name it with --normalization, or --mean and --std"),
        (["--std", "1,1,1"], "--std needs --mean"),
        (["--mean", "0.5,0.5,0.5", "--normalization", "pixel_mean"], "choose one of --normalization"),
        (["--mean", "0.5"], "a value for each of the 3 channels of synthetic"),
        (["--mean", "125,123,114"], "from 0 to 1"),
        (["--mean", "nan,0,0"], "from 0 to 1"),
        (["--mean", "0.5,0.5,0.5", "--std", "0.2,0,0.2"], "--std none of 0"),
        (["--mean", "0,0,0", "--option", "shortcut=C"], "the weights fit cifar_resnet8"),
        (["--mean", "0,0,0", "--model", "cifar_resnet14"], "do not fit cifar_resnet14: 30 missing"),
        (["--mean", "0,0,0", "--model", "cifar_resnet9"], "depth 9 is not 6n+2"),
    ],
)  # fmt: skip
def test_what_cannot_be_tested(run, theirs, flags, message):
    given = [] if "--model" in flags or "shortcut=C" in flags else ["--model", "cifar_resnet8"]
    status, row, said = run(theirs[1], *given, *flags)
    assert status == 2 and not row and message in said


def test_nets_for_100_classes_have_a_top5_error_too(run, tmp_path):
    model = model_of(shortcut="B", num_classes=100)
    torch.save(model.state_dict(), tmp_path / "net.pt")
    status, row, _ = run(tmp_path / "net.pt", "--normalization", "pixel_mean", "--dataset", "synthetic_cifar100")
    data = place(load("synthetic_cifar100"), None, "cpu")
    wrong = count_wrong(model, data.tests("test", slice(None), RUN.recipe), top5=True)
    expected = [f"{value:.2f}" for value in (100 * wrong / data.test_images["test"]).tolist()]
    assert status == 0 and row == dict(zip(["test error, %", "top-5 error, %"], expected))
    numbers = evaluate.reported_errors(
        Architecture("cifar_resnet56", {"num_classes": 100, "shortcut": "B"}), "cifar100"
    )
    assert [str(number) for number in numbers] == ["27.37"]
    assert evaluate.reported_errors(Architecture("resnet18", {"small_stem": True}), "cifar10") == []


def test_another_programs_number_of_classes_is_refused(run, tmp_path):
    torch.save(model_of(shortcut="B", num_classes=100).state_dict(), tmp_path / "net.pt")
    status, _, said = run(tmp_path / "net.pt", "--mean", "0,0,0")
    assert status == 2 and "net.pt has 100 classes, but synthetic has 10" in said


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("imagenet", "a folder of images; test it with: python -m reproductions.imagenet"),
        ("elsewhere", "with --dataset: "),
    ],
)
def test_weights_of_other_data_are_refused_with_what_to_do(tmp_path, capsys, data, message):
    state, path = model_of().state_dict(), tmp_path / "net.safetensors"
    card = {"model": "cifar_resnet8", "weights_sha256": digest_of_weights(state), "data": data}
    path.write_bytes(pack_weights(state, card))
    assert __main__.main(["evaluate", str(path)]) == 2
    assert f"was trained on {data}" in (said := " ".join(capsys.readouterr().err.split())) and message in said


def test_a_network_for_imagenet_is_left_to_its_command(run, tmp_path):
    torch.save(create_model("resnet18").state_dict(), tmp_path / "net.pt")
    status, _, said = run(tmp_path / "net.pt")
    assert status == 2 and "the weights of resnet18, a network for ImageNet; test it with: " in said
    assert f"python -m reproductions.imagenet --evaluate-only {tmp_path / 'net.pt'}" in said


# --------------------------------------------------------------------------------------------------- the other command


def test_imagenets_command_names_the_one_for_small_nets(out, tmp_path, capsys):
    torch.save(model_of().state_dict(), tmp_path / "net.pt")
    for path in weights_path(out, RUN), tmp_path / "net.pt", ROOT / "weights" / "cifar_resnet20.safetensors":
        assert imagenet_table.main([f"--evaluate-only={path}", "--data", str(tmp_path)]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert re.search(r"small images|was trained on synthetic", said) and "no ImageNet network" not in said
        assert f"test them with: python -m reproductions evaluate {path} --data DIR" in said
