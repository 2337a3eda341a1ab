"""Weights in files of all formats: read without running code, and matched to the network that they belong to."""

import argparse
import gzip
import hashlib
import os
import pickle
import signal
import zipfile
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from resnet import checkpoint, weights
from resnet.models import create_model
from resnet.released import load_model
from resnet.weights import (
    Architecture,
    WeightsError,
    find_architecture,
    find_small_architecture,
    fitting_architectures,
    load_network,
    read_weights,
    torchvision_file,
)


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=10).state_dict()


def shapes(model: str, **options) -> dict[str, torch.Tensor]:
    """A network's state dict without values."""
    with torch.device("meta"):
        return create_model(model, **options).state_dict()


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


# --------------------------------------------------------------------------------------------------------------- files


def prefixed(state: dict, prefix: str) -> dict:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        dict,
        lambda state: {"state_dict": state, "epoch": 90, "best_acc1": torch.tensor(76.1)},
        lambda state: {"model": state, "optimizer": {"state": {}}, "args": ["a"]},
        lambda state: {"model": {"state_dict": prefixed(state, "module.")}},
        lambda state: prefixed(state, "module._orig_mod."),
    ],
    ids=["plain", "state_dict", "model", "nested and prefixed", "twice prefixed"],
)
def test_pytorchs_files_in_all_wrappings(tmp_path, state, wrap):
    torch.save(wrap(state), tmp_path / "a.pth")
    assert same(read_weights(tmp_path / "a.pth"), state)


class Settings(dict):
    """Of a training script: a dictionary with more to it, as EasyDict."""


class Schedule:
    def __init__(self):
        self.numbers = np.arange(3)
        self.again = self


EXTRAS = {
    "namespace": argparse.Namespace(lr=0.1, nested=argparse.Namespace(a=1)),
    "numbers": {"best": np.float64(76.1), "float32": np.float32(1), "int": np.int64(3), "array": np.zeros((2, 2))},
    "dictionaries": {"d": defaultdict(list, a=[1]), "s": Settings(lr=0.1)},
    "own class": Schedule(),
    "path and enum": [Path("runs"), signal.SIGINT, type, len],
    "all": [argparse.Namespace(x=Settings(a=np.float64(2)), y=defaultdict(int, a=np.int64(1)))],
}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("extra", EXTRAS)
def test_other_things_in_a_file_do_not_matter(tmp_path, state, extra, old):
    content = {"args": EXTRAS[extra], "state_dict": state, "last": EXTRAS[extra]}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not old)
    assert same(read_weights(tmp_path / "a.pth"), state)


@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: {"model": nn.DataParallel(net), "epoch": 3}])
def test_a_whole_network_gives_its_weights(tmp_path, wrap):
    net = torchvision.models.resnet18(num_classes=3)
    torch.save(wrap(net), tmp_path / "a.pth")
    assert same(read_weights(tmp_path / "a.pth"), net.state_dict())


@pytest.mark.parametrize(
    "wrapper", ["net", "model_state_dict", "model_state", "state_dict_ema", "ema", "params", "ResNet weights"]
)
def test_names_under_which_scripts_have_weights(tmp_path, state, wrapper):
    optimizer = {"state": {0: {"exp_avg": torch.zeros(2), "step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({"epoch": 3, "optimizer": optimizer, wrapper: state}, tmp_path / "a.pth")
    assert same(read_weights(tmp_path / "a.pth"), state)


def test_of_weights_and_their_averages_it_is_the_weights(tmp_path, state):
    other = {key: value * 0 for key, value in state.items()}
    torch.save({"state_dict_ema": other, "state_dict": state, "ema": other}, tmp_path / "a.pth")
    assert same(read_weights(tmp_path / "a.pth"), state)


@pytest.mark.parametrize(
    ("rename", "fitting"),
    [
        (lambda key: f"model.{key}", True),
        (lambda key: f"model.backbone.{key}", True),
        (lambda key: key if key.startswith("fc.") else f"backbone.{key}", True),
        (lambda key: key.replace("fc.", "linear.").replace("downsample", "shortcut"), True),
        (lambda key: f"module.{key.replace('fc.', 'classifier.')}", True),
        (lambda key: key.replace("fc.", "head.") if "fc." in key else f"encoder.{key}", True),
        (lambda key: f"model.{key}" if "fc." not in key else f"criterion.{key}", False),
    ],
)
def test_other_programs_names(tmp_path, state, rename, fitting):
    torch.save({rename(key): value for key, value in state.items()}, tmp_path / "a.pth")
    found = read_weights(tmp_path / "a.pth")
    assert same(found, state) == fitting and len(found) == len(state)


def test_weights_of_a_net_for_cifar_with_another_name_of_the_last_layer(tmp_path):
    state = create_model("cifar_resnet20", num_classes=100).state_dict()
    torch.save({"net": {key.replace("fc.", "linear."): value for key, value in state.items()}}, tmp_path / "a.th")
    said = r"look like cifar_resnet20 num_classes=100 or cifar_plain20 num_classes=100, not cifar_resnet20: 2 .*"
    with pytest.raises(WeightsError, match=said + r", for example fc.bias \(\(100,\) instead of \(10,\)\)$"):
        load_model("cifar_resnet20", tmp_path / "a.th")
    model = load_model("cifar_resnet20", tmp_path / "a.th", num_classes=100)
    assert torch.equal(model.fc.weight, state["fc.weight"])


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "a git-lfs pointer, .* git lfs pull"),
        (b"\n<!DOCTYPE html>\n<html>404</html>", "a web page"),
        (b"\xef\xbb\xbf<html></html>", "a web page"),
        (b'{"weight_map": {}}', "JSON text"),
        (gzip.compress(b"x"), "compressed with gzip: unpack it"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file"),
    ],
    ids=["git-lfs", "page", "page with a mark", "JSON", "gzip", "Keras"],
)
def test_files_of_other_kinds_are_known_by_their_first_bytes(tmp_path, content, said, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=f"{name} is {said}"):
        read_weights(tmp_path / name)


def test_archives_of_other_kinds(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        for name in ("data.pkl", "code/__torch__.py", "constants.pkl"):  # as torch.jit.save has them
            archive.writestr(f"net/{name}", "")
    with pytest.raises(WeightsError, match=r"a.pt is a TorchScript program: .* save its state_dict\(\)"):
        read_weights(tmp_path / "a.pt")
    np.savez(tmp_path / "a.npz", x=np.zeros(2))
    with pytest.raises(WeightsError, match="a.npz is a zip archive of x.npy, not a PyTorch file"):
        read_weights(tmp_path / "a.npz")


def test_the_content_counts_and_not_the_name(tmp_path, state):
    save_file(state, tmp_path / "a.pth")
    torch.save(state, tmp_path / "a.safetensors")
    (tmp_path / "own.safetensors").write_bytes(checkpoint.pack(state))
    for name in ("a.pth", "a.safetensors", "own.safetensors"):
        assert same(read_weights(tmp_path / name), state)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("what", [lambda: Malicious(), lambda: Evaluated()])
def test_nothing_in_a_file_is_executed(tmp_path, monkeypatch, state, what, old):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": state, "args": what()}, "a.pt", _use_new_zipfile_serialization=not old)
    allowed = torch.serialization.get_safe_globals()
    with suppress(WeightsError):
        read_weights(Path("a.pt"))
    assert not Path("ran").exists() and set(torch.serialization.get_safe_globals()) == set(allowed)


def test_what_is_wrong_is_said_without_advice_to_execute_code(tmp_path, state):
    torch.save({"state_dict": state, "args": Malicious()}, tmp_path / "a.pt")
    with pytest.raises(WeightsError) as caught:
        read_weights(tmp_path / "a.pt")
    assert "weights_only" not in str(caught.value) and "posix.mkdir" in str(caught.value)


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("ran",)


class Evaluated:
    def __reduce__(self):
        return eval, ("__import__('os').mkdir('ran')",)


CODE = pickle.dumps({"state_dict": Malicious()}, protocol=2)


@pytest.mark.parametrize("content", [b"", b"no weights at all", CODE], ids=["empty", "text", "code"])
@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_files_without_weights_are_refused(tmp_path, monkeypatch, content, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    said = rf"{name} can't be read as weights \(.*\): it is damaged, or holds objects other than tensors"
    with pytest.raises(WeightsError, match=said):
        read_weights(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("cut", [100, 30_000])
def test_damaged_files(tmp_path, state, cut):
    torch.save(state, tmp_path / "a.pt")
    save_file(state, tmp_path / "a.safetensors")
    (tmp_path / "own.pt").write_bytes(checkpoint.pack(state))
    for name in ("a.pt", "a.safetensors", "own.pt"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[:-cut])
        with pytest.raises(WeightsError, match=rf"{name} .*damaged"):
            read_weights(tmp_path / name)


@pytest.mark.parametrize("content", [{}, [1, 2], {"epoch": 3}, {"state_dict": {"a": 1}}, torch.zeros(2)])
def test_a_file_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    has = {0: "nothing", 1: "epoch .int.|state_dict .dict."}[len(content)] if isinstance(content, dict) else "a "
    with pytest.raises(WeightsError, match=f"a.pt holds no state dict.*; it holds {has}"):
        read_weights(tmp_path / "a.pt")


def test_names_of_tensors_that_fit_no_net_are_shown(tmp_path, state):
    for content in (odd := {f"{name}x": value for name, value in state.items()}), {"epoch": 3, "state_dict": odd}:
        torch.save(content, tmp_path / "a.pt")
        with pytest.raises(WeightsError, match="a.pt holds tensors whose names fit no net.*: conv1.weightx, ") as error:
            read_weights(tmp_path / "a.pt")
        assert f" and {len(state) - 6} more; " in str(error.value) and "state dict" not in str(error.value)


def test_a_folder_and_a_missing_file(tmp_path):
    with pytest.raises(WeightsError, match="is a folder; name a weights file in it"):
        read_weights(tmp_path)
    with pytest.raises(WeightsError, match="there is no file .*none.pt"):
        read_weights(tmp_path / "none.pt")
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(WeightsError, match="pipe.pt is not a regular file"):
        read_weights(tmp_path / "pipe.pt")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda weight: weight.to("meta"), "has no values"),
        (lambda weight: weight.to(torch.int8), "is torch.int8 .of a quantized"),
        (lambda weight: weight.flatten(1).to_sparse(), "is torch.sparse_coo .of a quantized or pruned"),
        (lambda weight: weight.clone().fill_(torch.nan), "has values that are not finite"),
    ],
)
def test_weights_that_no_network_can_compute_with(tmp_path, state, change, why):
    torch.save(state | {"conv1.weight": change(state["conv1.weight"])}, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=f"a.pt can't be used as weights: conv1.weight {why}"):
        read_weights(tmp_path / "a.pt")


# ------------------------------------------------------------------------------------------------------- architectures


@pytest.mark.parametrize(
    ("model", "options", "also"),
    [
        ("plain18", {}, ["resnet18 variant=original shortcut=A"]),
        ("resnet18", {}, []),
        ("resnet18", {"variant": "c"}, []),
        ("resnet34", {"shortcut": "A"}, ["plain34"]),
        ("resnet34", {"shortcut": "C", "variant": "d"}, []),
        ("resnet50", {}, ["resnet50 variant=b shortcut=B"]),
        ("resnet50", {"variant": "c"}, []),
        ("resnet50", {"variant": "d"}, []),
        ("resnet18", {"small_stem": True, "num_classes": 10}, []),
        ("resnet50", {"small_stem": True}, ["resnet50 variant=b shortcut=B small_stem=True"]),
        ("resnet101", {"variant": "d", "num_classes": 14}, []),
        ("resnet152", {"shortcut": "A"}, ["resnet152 variant=b shortcut=A"]),
    ],
)
def test_weights_tell_their_network(model, options, also):
    own = {} if model.startswith("plain") else {"variant": "original", "shortcut": "B"}
    fitting = fitting_architectures(shapes(model, **options))
    assert Architecture(model, own | options) in fitting
    assert sorted(str(found) for found in fitting if found != Architecture(model, own | options)) == sorted(also)


@pytest.mark.parametrize(
    ("of", "asked", "found"),
    [
        (("resnet18", {}), {}, "resnet18 variant=original shortcut=B"),
        (("resnet18", {}), {"variant": "b"}, "resnet18 variant=original shortcut=B"),
        (("resnet50", {}), {"variant": "b"}, "resnet50 variant=b shortcut=B"),
        (("resnet50", {}), {"variant": "original"}, "resnet50 variant=original shortcut=B"),
        (("resnet50", {}), {"file": "resnet50-0676ba61.pth"}, "resnet50 variant=b shortcut=B"),
        (("plain18", {}), {"model": "plain18"}, "plain18"),
        (("plain18", {}), {"model": "resnet18"}, "resnet18 variant=original shortcut=A"),
        (("plain18", {}), {"shortcut": "A"}, "resnet18 variant=original shortcut=A"),
        (("plain34", {}), {"file": "my_plain34_seed0.pt"}, "plain34"),
        (("plain34", {}), {"file": "ResNet-34.pt"}, "resnet34 variant=original shortcut=A"),
    ],
)
def test_what_weights_leave_open_is_asked_for(of, asked, found):
    name, options = of
    assert str(find_architecture(shapes(name, **options), **asked)) == found


@pytest.mark.parametrize(
    ("of", "asked", "said"),
    [
        ("resnet50", {}, "same names and shapes but compute differently: choose one with --variant original or b$"),
        ("resnet50", {"file": "resnet50.pt"}, "choose one with --variant original or b$"),
        ("plain18", {}, "choose one with --model plain18 or resnet18$"),
        ("resnet50", {"model": "resnet34"},
         r"do not fit resnet34: 85 unknown \(layer1.0.conv3.weight, .* and 82 more\); "
         r"32 of another shape \(layer1.0.conv1.weight \(64, 64, 1, 1\) instead of \(64, 64, 3, 3\), .*; "
         "they fit resnet50 variant=original shortcut=B and resnet50 variant=b shortcut=B$"),
        ("resnet18", {"variant": "d"},
         r"do not fit resnet18 variant=d: 23 missing \(conv1.0.weight.*they fit resnet18 variant=original"),
        ("cifar_resnet20", {}, r"fit no ImageNet network \(conv1.weight, bn1.weight, bn1.bias and \d+ more\); "
         "nearest is cifar_resnet20; name the expected network"),
        ("cifar_resnet20", {"model": "resnet18"}, r"35 missing \(layer2.*they fit no ImageNet network$"),
    ],
)  # fmt: skip
def test_wrong_and_open_architectures_are_errors_that_say_what_fits(of, asked, said):
    with pytest.raises(WeightsError, match=said):
        find_architecture(shapes(of), **asked)


def test_the_nearest_network_and_what_differs_are_said(state):
    wider = {**state, "layer2.0.conv1.weight": torch.zeros(130, 64, 3, 3)}
    said = r"nearest is resnet18 num_classes=10: 1 of another shape \(layer2.0.conv1.weight \(130, 64, 3, 3\) instead"
    with pytest.raises(WeightsError, match=said):
        find_architecture(wider)


def test_several_networks_in_a_file_are_named(state):
    both = {f"encoder_{which}.{key}": value for which in "qk" for key, value in state.items()}
    with pytest.raises(WeightsError, match="several networks, under encoder_q. and encoder_k.: save only one; name"):
        find_architecture(both)


def test_missing_keys_are_named(state):
    lacking = {key: value for key, value in state.items() if key not in ("bn1.weight", "layer2.1.conv2.weight")}
    with pytest.raises(WeightsError, match=r"2 missing \(bn1.weight, layer2.1.conv2.weight\); they fit no ImageNet"):
        find_architecture(lacking, model="resnet18")
    with pytest.raises(WeightsError, match=r"resnet18 num_classes=10: 2 missing \(bn1.weight, layer2"):
        load_network(lacking, Architecture("resnet18", {"num_classes": 10}))


@pytest.mark.parametrize("model", ["resnet18", "resnet50"])
def test_torchvisions_weights_compute_the_same_here(model):
    torch.manual_seed(1)
    theirs = torchvision.models.get_model(model, num_classes=7).eval()
    state = {key: value for key, value in theirs.state_dict().items() if not key.endswith("num_batches_tracked")}
    own = load_network(state, find_architecture(state, variant="b"))
    images = torch.randn(2, 3, 64, 80)
    with torch.no_grad():
        assert not own.training and torch.allclose(own(images), theirs(images), rtol=1e-4, atol=1e-5)


# --------------------------------------------------------------------------------------------------------- torchvision


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Torchvision's weights are ``content``, which the network has not."""
    content = b"weights"
    name = f"resnet50-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    enum = {"IMAGENET1K_V1": SimpleNamespace(url=f"https://example.org/models/{name}")}

    def unreachable(url, path, **options):
        raise URLError("no network")

    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda model: enum)
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return SimpleNamespace(path=tmp_path / "hub" / "checkpoints" / name, content=content)


def test_a_networks_weights_may_be_named_by_their_version(published, monkeypatch):
    second = SimpleNamespace(url=f"https://example.org/models/{published.path.name}")
    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda model: {"IMAGENET1K_V2": second})
    published.path.parent.mkdir(parents=True)
    published.path.write_bytes(published.content)
    assert torchvision_file("resnet50:IMAGENET1K_V2") == published.path


def test_without_a_network_missing_weights_are_named_with_their_address(published):
    with pytest.raises(WeightsError) as error:
        torchvision_file("resnet50")
    assert str(published.path) in str(error.value) and "https://example.org/models/resnet50-" in str(error.value)
    assert "no network" in str(error.value) and not published.path.exists()


def test_weights_in_the_cache_need_no_network_and_are_verified(published):
    published.path.parent.mkdir(parents=True)
    published.path.write_bytes(published.content)
    assert torchvision_file("resnet50") == published.path
    published.path.write_bytes(b"else")
    with pytest.raises(WeightsError, match=f"{published.path.name} is damaged: its SHA-256 begins with .* remove it"):
        torchvision_file("resnet50")


def test_weights_are_downloaded_once(published, monkeypatch):
    asked = []

    def download(url, path, hash_prefix, progress):
        asked.append((url, hash_prefix))
        published.path.write_bytes(published.content)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    assert torchvision_file("resnet50") == torchvision_file("resnet50") == published.path
    assert asked == [(f"https://example.org/models/{published.path.name}", published.path.stem[-8:])]


@pytest.mark.parametrize("name", weights.PUBLISHED)
def test_the_names_are_torchvisions(name, tmp_path, monkeypatch):
    def unreachable(url, path, hash_prefix, progress):
        assert url.startswith(f"https://download.pytorch.org/models/{name}-{hash_prefix}")
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(WeightsError, match="no network"):
        torchvision_file(name)


def test_other_names_are_refused():
    with pytest.raises(WeightsError, match="unknown weights torchvision:vgg16; known are: torchvision:resnet18, "):
        torchvision_file("vgg16")


# ------------------------------------------------------------------------------------------- networks for small images


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cifar_resnet14", {"shortcut": "B"}),
        ("cifar_resnet8", {"shortcut": "C", "num_classes": 100}),
        ("cifar_resnet8", {"shortcut": "B", "conv_bias": True}),
        ("cifar_bottleneck11", {"variant": "c"}),
        ("cifar_bottleneck11", {"variant": "d"}),
        ("resnet18", {"small_stem": True, "num_classes": 10}),
    ],
)
def test_weights_tell_their_network_for_small_images(name, options):
    found = find_small_architecture(create_model(name, **options).state_dict())
    assert found.model == name and options.items() <= found.options.items()
    load_network(create_model(name, **options).state_dict(), found)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"model": "cifar_resnet8"}, "cifar_resnet8"),
        ({"model": "cifar_plain8"}, "cifar_plain8"),
        ({"file": "my_plain8.th"}, "cifar_plain8"),
        ({"options": {"shortcut_padding": "both"}}, "cifar_resnet8 shortcut_padding=both"),
        ({"model": "cifar_resnet8", "options": {"zero_gamma": True}}, "cifar_resnet8 zero_gamma=True"),
    ],
)
def test_what_small_networks_weights_leave_open_is_settled(asked, found):
    assert str(find_small_architecture(create_model("cifar_resnet8").state_dict(), **asked)) == found


@pytest.mark.parametrize(
    ("name", "asked", "message"),
    [
        ("cifar_resnet8", {}, "fit cifar_resnet8 or cifar_resnet8 shortcut_padding=both or cifar_plain8, .* choose"),
        ("cifar_bottleneck11", {}, "fit cifar_bottleneck11 or cifar_bottleneck11 variant=b, .*--option variant=b"),
        ("cifar_resnet8", {"options": {"shortcut": "B"}}, "and cifar_plain8, but not with these options"),
        ("cifar_resnet8", {"model": "cifar_resnet14"}, "do not fit cifar_resnet14: 30 missing .*; they fit cifar_r"),
        ("resnet18", {}, "the weights fit no network for small images .*; nearest is resnet18; name the expected"),
        ("mnist_residual", {}, "fit no network for small images"),
    ],
)  # fmt: skip
def test_small_networks_that_are_not_certain(name, asked, message):
    with pytest.raises(WeightsError, match=message):
        find_small_architecture(create_model(name).state_dict(), **asked)
