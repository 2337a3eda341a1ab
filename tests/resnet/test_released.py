"""Weights in a file with a card are loaded as they were written; weights of other networks are refused by name."""

import pytest
import torch

from resnet import checkpoint
from resnet import released as module
from resnet.checkpoint import digest_of_weights
from resnet.models import create_model
from resnet.released import load_model, load_weights, pack_weights, preprocess, read_card, write_weights
from resnet.weights import WeightsError

NAME = "cifar_resnet8"


def make_state(name=NAME, **options):
    return create_model(name, torch.Generator().manual_seed(3), **options).state_dict()


def make_card(state, model=NAME, options="{}", **more):
    return {"model": model, "options": options, "weights_sha256": digest_of_weights(state), **more}


@pytest.fixture
def released(tmp_path):
    state = make_state()
    path = tmp_path / "cifar_resnet8.safetensors"
    write_weights(path, state, make_card(state, row="ResNet-8", test_error="9.125", profile="smoke"))
    return path


def test_a_network_gets_the_released_weights(released):
    model = load_model(NAME, released)
    expected = make_state()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert digest_of_weights(load_model(NAME, str(released)).state_dict()) == digest_of_weights(expected)
    assert read_card(released)["row"] == "ResNet-8"


@pytest.mark.parametrize(("name", "options"), [("cifar_resnet14", {}), ("cifar_plain8", {}), (NAME, {"shortcut": "B"})])
def test_another_network_is_refused_with_what_the_file_is(released, name, options):
    holds = r"holds cifar_resnet8 \(ResNet-8, smoke, test error 9.125 %\), not"
    with pytest.raises(WeightsError, match=holds) as error:
        load_model(name, released, **options)
    assert " ".join([name, *(f"{key}={value}" for key, value in options.items())]) in str(error.value)


def test_a_path_may_be_a_text(tmp_path):
    state, path = make_state(), str(tmp_path / "w.safetensors")
    values = {"mean": "[1.0,2.0,3.0]", "scale": "0.5", "image_size": "32"}
    write_weights(path, state, make_card(state, **values))
    model = create_model(NAME)
    load_weights(model, NAME, {}, path)
    assert digest_of_weights(model.state_dict()) == read_card(path)["weights_sha256"]
    assert preprocess(path).card() == values
    with pytest.raises(WeightsError, match="there is no file no.pt"):
        load_weights(model, NAME, {}, "no.pt")


def test_released_weights_are_found_by_their_names(released, monkeypatch):
    monkeypatch.setattr(module, "RELEASED", released.parent)
    assert digest_of_weights(load_model("cifar_resnet8").state_dict()) == digest_of_weights(make_state())
    assert load_model("cifar_resnet8", "cifar_resnet8").fc.out_features == 10
    with pytest.raises(WeightsError, match="cifar_resnet8.safetensors does not say how images are normalised"):
        preprocess("cifar_resnet8")
    for find in load_model, preprocess, lambda name: load_model("cifar_resnet8", name):
        with pytest.raises(WeightsError, match="no released weights of cifar_resnet9; released: cifar_resnet8. A file"):
            find("cifar_resnet9")
    with pytest.raises(WeightsError, match="there is no file runs/cifar_resnet8"):
        load_model("runs/cifar_resnet8")


def test_options_that_only_decide_the_beginning_do_not_matter(released):
    load_model(NAME, released, zero_gamma=True, initialization="fan_in")


def test_options_of_the_card_are_those_to_ask_for(tmp_path):
    state, path = make_state(shortcut="B"), tmp_path / "b.safetensors"
    write_weights(path, state, make_card(state, options='{"shortcut":"B"}'))
    load_model(NAME, path, shortcut="B")
    with pytest.raises(WeightsError, match="holds cifar_resnet8 shortcut=B, not cifar_resnet8$"):
        load_model(NAME, path)


@pytest.mark.parametrize("options", ["{", "1", "null"])
def test_a_card_whose_options_mean_nothing_is_refused(tmp_path, options):
    path = tmp_path / "w.safetensors"
    write_weights(path, make_state(), make_card(make_state(), options=options))
    with pytest.raises(WeightsError, match="the options on the card of .*w.safetensors can't be read"):
        load_model(NAME, path)


def test_metadata_of_other_programs_are_no_card(tmp_path):
    state, path = make_state(), tmp_path / "w.safetensors"
    write_weights(path, state, {"model": "Some-Net/v2 by somebody", "options": "fast", "author": "x"})
    assert read_card(path) == {}
    assert torch.equal(load_model(NAME, path).fc.weight, state["fc.weight"])


def test_a_card_counts_whatever_the_files_name_is(released):
    path = released.rename(released.with_suffix(".bin"))
    assert read_card(path)["row"] == "ResNet-8"


@pytest.mark.parametrize("kind", ["this suite's", "torch's", "safetensors'"])
def test_files_without_a_card_are_told_apart_by_their_shapes(tmp_path, kind):
    state = make_state()
    path = tmp_path / ("w.safetensors" if kind == "safetensors'" else "w.pt")
    if kind == "torch's":
        torch.save({"state_dict": state}, path)
    else:
        path.write_bytes(checkpoint.pack(state) if kind == "this suite's" else pack_weights(state, {}))
    assert torch.equal(load_model(NAME, path).fc.weight, state["fc.weight"])
    message = "look like cifar_resnet8 or cifar_plain8, not cifar_resnet20: .* for example layer1.1.bn1.bias"
    with pytest.raises(WeightsError, match=message):
        load_model("cifar_resnet20", path)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("cifar_bottleneck11", {}, "cifar_bottleneck11"),
        ("resnet18", {}, "resnet18"),
        ("mnist_residual", {}, "the weights of an unknown network"),
    ],
)
def test_what_other_weights_look_like(tmp_path, name, options, said):
    path = tmp_path / "w.pt"
    torch.save(make_state(name, **options), path)
    with pytest.raises(WeightsError, match=said):
        load_model(NAME, path)


def test_another_number_of_classes_is_refused(released):
    with pytest.raises(WeightsError, match="not cifar_resnet8 num_classes=100"):
        load_model(NAME, released, num_classes=100)


def test_changed_weights_are_found(tmp_path):
    state = make_state()
    card = make_card(state)
    state["fc.bias"] = state["fc.bias"] + 1
    write_weights(tmp_path / "w.safetensors", state, card)
    with pytest.raises(WeightsError, match="damaged or was changed"):
        load_model(NAME, tmp_path / "w.safetensors")


def test_a_damaged_file_and_a_missing_one(released, tmp_path):
    content = released.read_bytes()
    released.write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match="can't be read as weights"):
        load_model(NAME, released)
    with pytest.raises(WeightsError, match="can't be read as safetensors"):
        read_card(released)
    with pytest.raises(WeightsError, match="there is no file"):
        load_model(NAME, tmp_path / "no.safetensors")


def test_equal_weights_give_equal_bytes():
    state = make_state()
    card = make_card(state, **{f"field {i}": str(i) for i in range(20)})
    assert pack_weights(state, card) == pack_weights(state, dict(reversed(card.items())))
