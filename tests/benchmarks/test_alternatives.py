"""The alternatives, as far as a CPU can try them: every builder for a few steps, children that fail, and the page."""

import json
import os
import stat
import sys
from dataclasses import asdict

import pytest
import torch

from benchmarks import alternatives, processes, variants
from benchmarks.alternatives import measure_kind, row_of
from benchmarks.frontend import convolutions, graphs
from benchmarks.measuring import Rates, random_images
from benchmarks.nets import make_net
from benchmarks.processes import Unavailable, measure_processes, mps
from benchmarks.variants import EagerLoop, Measured, Setting, convolution_stack
from resnet.data.resident import ResidentData
from resnet.device import find_device

CPU = torch.device("cpu")
QUICK = {"rounds": 1, "seconds": 0.001, "device": "cpu", "images": 256}


@pytest.fixture(scope="module")
def setting():
    return Setting(ResidentData(random_images(256, 1), None, CPU), 1, 0.001, compiler="eager")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name, value in (("STREAMS", (2,)), ("COMPILED", (1, 2)), ("GROUPS", (2,))):
        monkeypatch.setattr(variants, name, value)
    monkeypatch.setattr(alternatives, "PROCESSES", (1, 2))


@pytest.mark.parametrize(
    ("kind", "runs"),
    [
        ("eager", [1, 1]),
        ("graph", [1]),
        ("streams", [2]),
        ("fused", [1, 2]),
        ("tuned", [1, 2]),
        ("compiled", [1, 2]),
        ("blocks", [1, 2]),
        ("grouped", [2, 2]),
    ],
)
def test_every_kind_can_be_measured(kind, runs, setting):
    if kind == "fused":
        pytest.importorskip("triton")
    rows = list(variants.KINDS[kind]("cifar_resnet8", setting))
    assert [row.runs for row in rows] == runs
    assert all(row.rates.median > 0 and row.failed is None and row.model == "cifar_resnet8" for row in rows)


def test_a_model_has_the_options_of_a_row(setting):
    model = "cifar_resnet8:shortcut=B"
    net = EagerLoop(model, setting.data, bf16=False).model
    assert net.state_dict().keys() > make_net("cifar_resnet8").state_dict().keys()
    assert [row.model for kind in ("graph", "blocks") for row in variants.KINDS[kind](model, setting)] == [model] * 3
    (measured,) = measure_processes("", 1, [model], **QUICK)
    assert measured.model == model and len(convolutions(model, "meta")) > len(convolutions("cifar_resnet8", "meta"))


def test_without_the_cudnn_frontend_its_row_says_how_to_install_it(setting, monkeypatch):
    monkeypatch.setattr(variants.importlib.util, "find_spec", lambda name: None)
    (row,) = variants.KINDS["frontend"]("cifar_resnet8", setting)
    assert row.rates is None and row.failed.endswith("pip install --no-deps nvidia-cudnn-frontend")


def test_the_cudnn_frontend_accepts_the_graphs_of_all_convolutions():
    cudnn = pytest.importorskip("cudnn")
    for model in ("cifar_resnet8", "cifar_bottleneck11"):
        for x, weight, y, conv in convolutions(model, "meta")[1:]:
            for graph, tensors in graphs(cudnn, cudnn.Handle(1, 0), x, weight, y, conv):  # nothing asks this handle
                graph.validate()
                assert all([*node.get_dim()] == [*tensor.shape] for node, tensor in tensors.items())


@pytest.mark.parametrize("bf16", [False, True])
def test_the_eager_loop_trains(setting, bf16):
    loop = EagerLoop("cifar_resnet8", setting.data, bf16)
    before = loop.model.fc.weight.clone()
    loop.advance(2)
    assert not torch.equal(before, loop.model.fc.weight) and loop.iteration == 2


def test_grouped_convolutions_do_what_separate_ones_do():
    together = convolution_stack(8, 2)
    separate = [convolution_stack(8, 1) for _ in range(2)]
    for number, stack in enumerate(separate):
        for own, shared in zip(stack.parameters(), together.parameters()):
            own.data.copy_(shared.data[number * len(own) : (number + 1) * len(own)])
    images = torch.randn(4, 6, 32, 32)
    out = torch.cat([stack(part) for stack, part in zip(separate, images.split(3, dim=1))], dim=1)
    torch.testing.assert_close(together(images), out, rtol=1e-4, atol=1e-5)
    assert out.shape == (4, 128, 8, 8)


def test_a_stack_has_as_many_convolutions_as_the_net():
    convolutions = [layer for layer in convolution_stack(20, 1) if isinstance(layer, torch.nn.Conv2d)]
    assert len(convolutions) == 19 and sum(c.weight.numel() for c in convolutions) == 267_696


def test_a_row_survives_its_way_through_a_pipe():
    for row in (Measured("a", "b", 2, Rates(3, (1.0, 2.0))), Measured("a", None, 1, failed="why")):
        assert row_of(json.dumps(asdict(row))) == row


@pytest.mark.slow
def test_a_kind_is_measured_in_a_process_of_its_own_and_its_failure_is_a_row():
    first, second, third = measure_kind("eager", ["cifar_resnet8", "resnet9"], limit=120, **QUICK)
    assert first.name.startswith("eager, fp32") and first.rates and second.rates
    assert third.model is None and "there is no model 'resnet9'" in third.failed


def test_a_child_that_takes_too_long_is_a_row_too():
    row = alternatives.ROW + json.dumps(asdict(Measured("a", "b", 1)))
    script = f"import time; print({row!r}, flush=True); time.sleep(60)"
    first, second = alternatives.rows_of("eager", [sys.executable, "-c", script], 2)
    assert first.name == "a" and second.failed == "not finished within 2 s"


@pytest.mark.slow
def test_processes_are_measured_together():
    (row,) = measure_processes("two", 2, ["cifar_resnet8"], 2, 0.001, "cpu", 256, timeout=120)
    assert row.runs == 2 and len(row.rates.images_per_second) == 2 and row.rates.steps >= 1


@pytest.mark.slow
def test_a_process_that_fails_says_why():
    rows = measure_kind("processes", ["resnet9"], limit=120, **QUICK)
    assert [(row.model, row.runs) for row in rows] == [(None, 1), (None, 2)] and "resnet9" in rows[0].failed


def test_processes_that_take_too_long_are_ended():
    with pytest.raises(Unavailable, match="took too long"):
        measure_processes("one", 1, ["cifar_resnet8"], 1, 600, "cpu", 256, timeout=1)


def write_control(folder, text):
    """A script in place of the MPS control."""
    path = folder / processes.CONTROL
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_mps_is_started_in_folders_of_its_own_and_stopped(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    write_control(tmp_path, f'echo "$1 $CUDA_MPS_PIPE_DIRECTORY" >> {tmp_path}/log; [ "$1" ] || cat >> {tmp_path}/log')
    with mps() as variables:
        pipe = variables["CUDA_MPS_PIPE_DIRECTORY"]
        assert os.path.isdir(pipe)
    assert (tmp_path / "log").read_text() == f"-d {pipe}\n {pipe}\nquit\n"
    assert not os.path.exists(pipe)


def test_without_mps_there_is_a_row_that_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (row,) = measure_kind("mps", ["cifar_resnet8"], limit=1, **QUICK)
    assert row.failed == "nvidia-cuda-mps-control isn't installed" and row.model is None
    write_control(tmp_path, "exit 3")
    (row,) = measure_kind("mps", ["cifar_resnet8"], limit=1, **QUICK)
    assert "did not start" in row.failed


def test_elsewhere_than_on_a_gpu_the_command_says_so(capsys):
    assert alternatives.main(["--device", "cpu"]) == 2
    assert "CUDA GPU" in capsys.readouterr().err


def test_the_command_writes_what_it_has_after_every_kind(tmp_path, monkeypatch):
    def measured(kind, *arguments):
        if kind == "graph":
            raise KeyboardInterrupt
        return [Measured(kind, "cifar_resnet8", 1, Rates(1, (2.0,)))]

    hardware = {"type": "cuda", "device": "NVIDIA H200", "threads": 1}
    monkeypatch.setattr(alternatives, "find_device", lambda name: torch.device("cuda", 0))
    monkeypatch.setattr(alternatives.provenance, "hardware", lambda device, threads: hardware)
    monkeypatch.setattr(alternatives, "measure_kind", measured)
    with pytest.raises(KeyboardInterrupt):
        alternatives.main(["--kinds", "graph", "eager", "--out", str(tmp_path)])
    assert "| eager | 1 | 2 (2 to 2) | 1.00 |" in (tmp_path / "alternatives-nvidia-h200.md").read_text()
    values = json.loads((tmp_path / "alternatives-nvidia-h200.json").read_text())
    assert [row["name"] for row in values["alternatives"]] == ["eager"]


def test_the_page_compares_with_the_first():
    rows = [
        Measured("eager", "cifar_resnet20", 1, Rates(9, (90.0, 100.0, 110.0))),
        Measured("graphs", "cifar_resnet20", 8, Rates(9, (700.0, 800.0, 900.0))),
        Measured("graphs", "cifar_resnet20", 16, failed="out of memory"),
        Measured("under MPS", None, 8, failed="isn't installed"),
    ]
    results = {
        "hardware": {"device": "NVIDIA H200"},
        "versions": {"python": "3.12", "torch": "2.11"},
        "code": {"commit": None, "modified": None},
        "rounds": 3,
        "seconds": 0.5,
    }
    page = alternatives.page(results, rows)
    assert "| graphs | 8 | 800 (700 to 900) | 8.00 |\n" in page
    assert "| graphs | 16 | failed: out of memory | – |\n" in page
    assert "## Not measured\n\n- under MPS, 8: isn't installed\n" in page


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["eager", "graph", "streams", "fused", "frontend", "grouped"])
def test_every_kind_can_be_measured_on_a_gpu(kind):
    if kind == "frontend":
        pytest.importorskip("cudnn")
    setting = Setting(ResidentData(random_images(256, 1), None, find_device()), 1, 0.01)
    assert all(row.rates.median > 0 for row in variants.KINDS[kind]("cifar_resnet8", setting))
