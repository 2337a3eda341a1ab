"""Released weights: which seed's, what their card says, and how torch.hub finds them."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes import make_record
from trained import leave

import hubconf
from reproductions import __main__, cifar_table, degradation, export, mnist_residual
from reproductions.bag_of_tricks import tweaks as bag_of_tricks_tweaks
from reproductions.experiments import EXPERIMENTS
from reproductions.finetune import experiment as finetune
from reproductions.harness.console import make_console
from reproductions.harness.experiment import Variant
from reproductions.harness.record_files import weights_path
from reproductions.harness.records import read_pool
from reproductions.protocol_details import experiment as protocol_details
from resnet.checkpoint import digest_of_weights
from resnet.models import count_parameters, create_model
from resnet.released import load_model, read_card
from resnet.weights import WeightsError

ROWS = {row.key: row for row in cifar_table.rows("smoke")}
REPOSITORY = Path(__file__).resolve().parents[2]


def run_export(out, to, profile="smoke", experiment=cifar_table.EXPERIMENT, keys=None):
    """The exit status and what was said."""
    console = make_console(record=True, file=io.StringIO())
    return export.export_weights(experiment, Variant(profile), keys, out, to, console), console.export_text()


# ------------------------------------------------------------------------------------------------------------- choice


@pytest.mark.parametrize(
    ("errors", "seed"),
    [
        ([9.0], 0),
        ([8.0, 9.0], 0),  # always as far from their mean
        ([33.01, 34.79], 0),  # whatever their binary rounding
        ([34.79, 33.01], 0),
        ([8.0, 9.0, 8.6], 2),
        ([8.0, 10.0, 9.5, 8.5], 2),  # two are equally close
        ([9.1, 8.7, 8.9, 8.3, 9.5], 2),
    ],
)
def test_the_seed_closest_to_the_mean_of_equals_the_lowest(errors, seed):
    records = [make_record(ROWS["resnet8"].run(s), error) for s, error in enumerate(errors)]
    assert export.choose(records)["specification"]["seed"] == seed
    assert export.choose(records[::-1])["specification"]["seed"] == seed


# ------------------------------------------------------------------------------------------------------------- export


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Three seeds of ResNet-8, the last of which diverged, and one of ResNet-14."""
    out = tmp_path_factory.mktemp("finished")
    for seed, error in enumerate((9.0, 8.0, 8.6)):
        leave(out, ROWS["resnet8"].run(seed), error)
    leave(out, ROWS["resnet8"].run(3), diverged=True)
    leave(out, ROWS["resnet14"].run(0), 7.0)
    return out


@pytest.fixture
def out(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "out")
    return tmp_path / "out"


def test_what_is_exported_is_the_run_with_a_card(out, tmp_path):
    code, said = run_export(out, tmp_path / "to")
    assert code == 0 and "ResNet-32: no completed runs" in said
    files = sorted((tmp_path / "to").iterdir())
    assert [path.name for path in files] == ["cifar_resnet14_smoke.safetensors", "cifar_resnet8_smoke.safetensors"]
    card, run = read_card(files[1]), ROWS["resnet8"].run(2)
    record = json.loads((out / "records" / "synthetic" / "cifar_resnet8" / f"{run.short_id}.json").read_text())
    assert card["row"] == "ResNet-8" and card["model"] == "cifar_resnet8" and card["options"] == "{}"
    assert json.loads(card["recipe"]) == record["specification"]["recipe"] and card["profile"] == "smoke"
    assert (card["seed"], card["seeds"], card["test_error"]) == ("2", "[0, 1, 2]", "8.6")
    assert card["precision"] == record["precision"]
    assert float(card["row_test_error_mean"]) == pytest.approx(8.5333, abs=1e-4) and card["row_test_error_n"] == "3"
    assert float(card["row_test_error_std"]) == pytest.approx(0.5033, abs=1e-4)
    assert (card["record_identity"], card["record_sha256"]) == (run.identity, record["record_sha256"])
    assert (card["data"], card["data_sha256"]) == ("synthetic", record["data"]["sha256"])
    assert card["commit"] == record["code"]["commit"] and card["code_modified"] == "false"
    model = load_model("cifar_resnet8", files[1])
    assert digest_of_weights(model.state_dict()) == record["weights_sha256"] == card["weights_sha256"]
    before = [path.read_bytes() for path in files]
    assert run_export(out, tmp_path / "to")[0] == 0 and [path.read_bytes() for path in files] == before


def test_one_run_has_no_spread(out, tmp_path):
    run_export(out, tmp_path)
    card = read_card(tmp_path / "cifar_resnet14_smoke.safetensors")
    assert (card["row_test_error_mean"], card["row_test_error_std"], card["row_test_error_n"]) == ("7.0", "", "1")


def test_without_git_nobody_knows_whether_the_code_was_modified(tmp_path):
    record = leave(tmp_path, ROWS["resnet8"].run(0), code={"commit": None, "modified": None})
    card = export.make_card(cifar_table.EXPERIMENT, ROWS["resnet8"], Variant("smoke"), record, [record])
    assert (card["commit"], card["code_modified"]) == ("", "unknown")


def test_a_licence_is_named_if_there_is_one(out, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "ROOT", tmp_path)
    run_export(out, tmp_path / "a")
    (tmp_path / "LICENSE").write_text("\nMIT License\n\nPermission ...\n")
    run_export(out, tmp_path / "b")
    cards = [read_card(tmp_path / folder / "cifar_resnet8_smoke.safetensors") for folder in "ab"]
    assert "licence" not in cards[0] and cards[1]["licence"] == "LICENSE: MIT License"


@pytest.mark.parametrize("how", ["missing", "another run's", "damaged"])
def test_weights_that_are_not_the_records_are_said_and_not_exported(out, tmp_path, how):
    path, other = (weights_path(out, ROWS["resnet8"].run(seed)) for seed in (2, 1))
    if how == "missing":
        path.unlink()
    elif how == "damaged":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        shutil.copy(other, path)
    code, said = run_export(out, tmp_path / "to")
    assert code == 1 and "ResNet-8: not exported" in said and str(path) in said
    assert "; train again in another OUT\n" in said
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["cifar_resnet14_smoke.safetensors"]


def test_without_the_data_that_a_net_was_trained_on_its_preprocessing_is_not_made_up(tmp_path):
    run = ROWS["resnet8"].run(0)
    leave(tmp_path, run, data={"name": "synthetic", "official": True, "sha256": "3" * 64})
    code, said = run_export(tmp_path, tmp_path / "to")
    assert code == 1 and "ResNet-8: not exported: synthetic in data has the SHA-256 " in said
    assert f"but the run was trained on {'3' * 64}; name the folder of its data with --data" in said
    assert not (tmp_path / "to").exists()


def test_nets_of_a_departure_from_the_default_recipe_are_exported_by_its_name(tmp_path):
    variant = Variant("smoke", train_images=1_000, precision="bf16")
    leave(tmp_path, variant.apply(ROWS["resnet8"].run(0)), 9.0)
    flags = ["--profile", "smoke", "--train-images", "1000", "--precision", "bf16"]
    assert __main__.main(["export", "--out", str(tmp_path), *flags]) == 0
    (path,) = (tmp_path / "export").iterdir()
    assert path.name == "cifar_resnet8_smoke_1000-images_bf16.safetensors"
    assert read_card(path)["profile"] == "smoke, 1000-images, bf16"
    assert __main__.main(["export", "--out", str(tmp_path), "--train-images", "60000"]) == 2
    leave(tmp_path, ROWS["resnet8"].run(0), 9.0)
    assert __main__.main(["export", "--out", str(tmp_path), "--profile", "smoke", "--train-images", "2000"]) == 0
    assert sorted(file.name for file in (tmp_path / "export").iterdir()) == [
        "cifar_resnet8_smoke.safetensors",  # 2,000 is all there are
        "cifar_resnet8_smoke_1000-images_bf16.safetensors",
    ]


# ------------------------------------------------------------------------------------------------ names and experiments

NAMES = {
    "cifar_table": {"resnet20": "cifar_resnet20", "resnet110": "cifar_resnet110"},
    "degradation": {"plain20": "cifar_plain20", "resnet20": "cifar_resnet20"},  # the same run in both
    "precision": {"fast": "cifar_resnet20-precision-fast", "fp32": "cifar_resnet20-precision-fp32"},
    "protocol_details": {"resnet20": "cifar_resnet20", "resnet20-nesterov": "cifar_resnet20-nesterov"},
    "bag_of_tricks_tweaks": {"b_standard": "cifar_bottleneck56-bag_of_tricks_tweaks-b_standard"},
    "cifar_imagenet_stem": {"resnet18": "resnet18-cifar_imagenet_stem-resnet18", "resnet18-small": "resnet18-small"},
    "mnist_residual": {"mnist_residual": "mnist_residual"},
}


def test_files_are_named_by_row_and_rows_that_are_trained_differently_never_share_one():
    variant, found = Variant(precision="fp32"), {}
    for experiment in EXPERIMENTS:
        names = {row.key: export.file_name(experiment, row, Variant()) for row in experiment.rows("paper")}
        assert len(set(names.values())) == len(names)
        for key, name in NAMES.get(experiment.name, {}).items():
            assert names[key] == f"{name}.safetensors"
        for row in experiment.rows("paper"):
            found.setdefault(names[row.key], set()).add(row.run(0).identity)
            departing = export.file_name(experiment, row, variant)
            assert departing == names[row.key].replace(".safetensors", "_fp32.safetensors") and departing not in names
    assert [name for name, runs in found.items() if len(runs) > 1] == []


def test_two_rows_of_one_net_are_exported_side_by_side(tmp_path):
    experiment = protocol_details.EXPERIMENT
    rows = {row.key: row for row in experiment.rows("smoke")}
    for seed, key in enumerate(("resnet8", "resnet8-nesterov", "resnet8-conv-bias", "resnet8-channel-std")):
        leave(tmp_path / "out", rows[key].run(seed), 9.0)
    arguments = ["export", "--out", str(tmp_path / "out"), "--profile", "smoke", "--experiment", experiment.name]
    assert __main__.main([*arguments, "--to", str(tmp_path / "to")]) == 0
    cards = {path.stem: read_card(path) for path in (tmp_path / "to").iterdir()}
    assert {name: (card["row"], card["seed"]) for name, card in cards.items()} == {
        "cifar_resnet8_smoke": ("ResNet-8", "0"),
        "cifar_resnet8-nesterov_smoke": (rows["resnet8-nesterov"].label, "1"),
        "cifar_resnet8-conv-bias_smoke": (rows["resnet8-conv-bias"].label, "2"),
        "cifar_resnet8-channel-std_smoke": (rows["resnet8-channel-std"].label, "3"),
    }
    assert cards["cifar_resnet8-conv-bias_smoke"]["options"] == '{"conv_bias":true}'
    assert cards["cifar_resnet8_smoke"]["input"].endswith(", less the per-pixel mean of the training images")
    assert cards["cifar_resnet8-channel-std_smoke"]["input"].endswith("over its standard deviation")
    some = [*arguments, "--to", str(tmp_path / "some"), "--rows"]
    assert __main__.main([*some, "resnet8-nesterov,resnet8-fp16"]) == 0
    assert [path.stem for path in (tmp_path / "some").iterdir()] == ["cifar_resnet8-nesterov_smoke"]
    assert __main__.main([*some, "resnet9"]) == 2


@pytest.mark.parametrize(
    ("experiment", "key", "options", "images"),
    [
        (finetune.EXPERIMENT, "scratch", '{"num_classes":5}', "RGB images (N, 3, 32, 32)"),
        (mnist_residual.EXPERIMENT, "mnist_residual", "{}", "grey images (N, 1, 28, 28)"),
    ],
    ids=["finetune", "mnist_residual"],
)
def test_nets_of_other_images_and_classes_say_so(experiment, key, options, images):
    (row,) = experiment.chosen_rows(Variant("smoke"), [key])
    record = make_record(row.run(0), 9.0) | {"record_sha256": "0" * 64}
    card = export.make_card(experiment, row, Variant("smoke"), record, [record])
    assert (card["options"], card["input"].split(" from")[0]) == (options, images)


def test_a_row_that_two_experiments_have_is_exported_again_and_another_ones_file_is_not_replaced(out, tmp_path):
    to = tmp_path / "to"
    assert run_export(out, to)[0] == 0
    assert run_export(out, to, experiment=degradation.EXPERIMENT)[0] == 0
    path = to / "cifar_resnet8_smoke.safetensors"
    assert read_card(path)["experiment"].startswith("Degradation")
    details = protocol_details.EXPERIMENT  # whose ResNet-8 is trained for a shorter time in the smoke profile
    leave(out, details.rows("smoke")[0].run(0), 9.0)
    before, trained = path.read_bytes(), details.rows("smoke")[1]
    leave(out, trained.run(0), 9.0)
    code, said = run_export(out, to, experiment=details)
    assert code == 2 and f"{path} has the weights of ResNet-8 (Degradation" in said
    assert "trained in another way; move it away, or name another folder" in said and "nothing was written" in said
    assert path.read_bytes() == before and len(list(to.iterdir())) == 2
    path.write_bytes(b"no weights")
    code, said = run_export(out, to)
    assert code == 2 and f"{path} can't be read as safetensors" in said and path.read_bytes() == b"no weights"


def test_rows_whose_keys_give_the_same_name_are_refused(out, tmp_path):
    rows = [replace(ROWS["resnet8"], key=key) for key in ("resnet8-cifar_table-x", "x")]
    both = replace(cifar_table.EXPERIMENT, rows=lambda profile: rows)
    code, said = run_export(out, tmp_path / "to", experiment=both)
    assert code == 2 and "belongs to another row of cifar_table; change one of the keys" in said
    assert not (tmp_path / "to").exists()


def test_nothing_to_export_is_an_error(tmp_path):
    code, said = run_export(tmp_path / "none", tmp_path / "to", "paper")
    assert code == 1 and "ResNet-110: no completed runs" in said and not (tmp_path / "to").exists()


def test_more_than_a_repository_should_hold_is_refused(out, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "LIMIT", 700_000)
    (tmp_path / "to").mkdir()
    old = tmp_path / "to" / "old.safetensors"
    old.write_bytes(bytes(600_000))
    code, said = run_export(out, tmp_path / "to")
    assert code == 2 and "nothing was written" in said and list((tmp_path / "to").iterdir()) == [old]


def test_what_was_released_are_the_networks_of_published_records():
    pool, released = read_pool(REPOSITORY / "results" / "records"), sorted((REPOSITORY / "weights").iterdir())
    assert released and sum(path.stat().st_size for path in released) <= export.LIMIT
    for path in released:
        card = read_card(path)
        record = pool.records[card["record_identity"]]
        assert record["record_sha256"] == card["record_sha256"]
        assert card["profile"].startswith("short" if "_short" in path.stem else "paper")
        assert str(record["final"]["test_error"]) == card["test_error"]
        model = load(REPOSITORY, card["model"], weights=path.stem)
        assert digest_of_weights(model.state_dict()) == record["weights_sha256"]


def test_the_papers_nets_are_within_the_limit():
    rows = cifar_table.EXPERIMENT.chosen_rows(Variant(), None)
    parameters = sum(count_parameters(create_model(row.model)) for row in rows)
    assert 4 * parameters < 0.85 * export.LIMIT


# --------------------------------------------------------------------------------------------------------------- hub


@pytest.fixture
def hub(tmp_path):
    """A repository as torch.hub gets it, without released weights."""
    shutil.copy(REPOSITORY / "hubconf.py", tmp_path / "hubconf.py")
    return tmp_path


def load(folder, name, **arguments):
    return torch.hub.load(str(folder), name, source="local", **arguments)


def test_hub_lists_the_papers_nets():
    depths = {"resnet": (20, 32, 44, 56, 110), "plain": (20, 32, 44, 56), "bottleneck": (29, 56, 164)}
    nets = {f"cifar_{kind}{depth}" for kind in depths for depth in depths[kind]}
    entries = {name for name, value in vars(hubconf).items() if callable(value) and not name.startswith("_")}
    assert entries == nets


def test_hub_gives_the_net_of_the_repository():
    model = load(REPOSITORY, "cifar_resnet20")
    assert sum(p.numel() for p in model.parameters()) == 269_722
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert load(REPOSITORY, "cifar_resnet20", shortcut="B", num_classes=5).fc.out_features == 5


def test_hub_says_when_nothing_has_been_released(hub):
    with pytest.raises(
        WeightsError, match="no released weights of cifar_plain20; there are no released weights of any net"
    ):
        load(hub, "cifar_plain20", pretrained=True)


def make_card(row, record, experiment=cifar_table.EXPERIMENT):
    return export.make_card(experiment, row, Variant(), record | {"record_sha256": "0" * 64}, [record])


def test_hub_takes_options_from_the_card(hub):
    tweaks = bag_of_tricks_tweaks.EXPERIMENTS["cifar10"]
    row = next(row for row in tweaks.rows("paper") if row.key == "d")
    state = create_model(row.model, **row.model_options).state_dict()
    record = make_record(row.run(0), 6.0, weights_sha256=digest_of_weights(state))
    path = hub / "weights" / export.file_name(tweaks, row, Variant())
    export.write_atomically(path, export.pack_weights(state, make_card(row, record, tweaks)))
    assert path.stem == "cifar_bottleneck56-bag_of_tricks_tweaks-d"
    model = load(hub, "cifar_bottleneck56", weights=path.stem)
    assert digest_of_weights(model.state_dict()) == record["weights_sha256"]
    with pytest.raises(WeightsError, match="holds cifar_bottleneck56 variant=d .* not cifar_bottleneck56 variant=b"):
        load(hub, "cifar_bottleneck56", weights=path.stem, variant="b")
    with pytest.raises(WeightsError, match="no released weights of cifar_bottleneck56; released: cifar_bottleneck56-b"):
        load(hub, "cifar_bottleneck56", pretrained=True)  # whose default row it is not


def test_hub_finds_released_weights_by_name_and_path(hub, tmp_path):
    state = create_model("cifar_resnet20").state_dict()
    record = make_record(cifar_table.rows("paper")[0].run(0), 8.7, weights_sha256=digest_of_weights(state))
    card = make_card(cifar_table.rows("paper")[0], record)
    for name in ("weights/cifar_resnet20", "weights/cifar_resnet20_short", "elsewhere"):
        export.write_atomically(hub / f"{name}.safetensors", export.pack_weights(state, card))
    arguments = [{"pretrained": True}, {"weights": "cifar_resnet20_short"}, {"weights": hub / "elsewhere.safetensors"}]
    for given in arguments:
        assert torch.equal(load(hub, "cifar_resnet20", **given).fc.weight, state["fc.weight"])
    (hub / "weights/cifar_resnet20.safetensors").unlink()
    with pytest.raises(WeightsError, match="cifar_resnet20; released: cifar_resnet20_short"):
        load(hub, "cifar_resnet20", pretrained=True)  # which is not what one would expect of it
    other = create_model("cifar_resnet20").state_dict()
    card |= {"weights_sha256": digest_of_weights(other)}
    export.write_atomically(hub / "weights/cifar_resnet20_fp32.safetensors", export.pack_weights(other, card))
    assert torch.equal(load(hub, "cifar_resnet20", pretrained=True).fc.weight, other["fc.weight"])
    with pytest.raises(WeightsError, match="cifar_resnet20_f; released: "):
        load(hub, "cifar_resnet20", weights="cifar_resnet20_f")
    with pytest.raises(WeightsError, match="cifar_resnet56; released: cifar_resnet20_fp32, cifar_resnet20_short"):
        load(hub, "cifar_resnet56", pretrained=True)
    with pytest.raises(WeightsError, match=r"holds cifar_resnet20 \(ResNet-20, paper, test error 8.7 %\), not"):
        load(hub, "cifar_resnet32", weights="cifar_resnet20_fp32")
    with pytest.raises(WeightsError, match="there is no file"):
        load(hub, "cifar_resnet20", weights=hub / "no.safetensors")
