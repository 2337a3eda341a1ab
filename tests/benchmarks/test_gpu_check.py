"""The GPU check: its sequence on a CPU with tiny nets, cut off anywhere, and its page from a made-up GPU's values."""

import ast
import fcntl
import json
import os
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from made_up import gpu_results

from benchmarks import gpu_check, gpu_page, gpu_stages
from benchmarks.floor import Limits
from benchmarks.gpu_check import Ended, check, run_limited, start_process
from benchmarks.gpu_page import DONE, FAILED, NOT_DONE, SKIPPED, TIMED_OUT, part_of, problems
from benchmarks.gpu_stages import DEVICE, Setting, launch_once, launched_runs, stages
from benchmarks.processes import ROOT
from resnet.device import find_device

CPU = torch.device("cpu")
TINY = Setting(("cifar_resnet8",), (2,), 2, 1, 0.001, 0, 256, 20, ("cifar_resnet8", "cifar_plain8"), 4, 8)
SETTINGS = {"cpu": TINY, "cuda": TINY}
NAMES = [DEVICE.name, *(stage.name for stage in stages(TINY))]
ABOUT = {
    "hardware": {"type": "cuda", "device": "NVIDIA H200", "threads": 16, "processes": 1},
    "versions": {"python": "3.12.1", "torch": "2.11", "cuda": "13.0", "cudnn": 91_000},
    "code": {"commit": "0123456789abcdef", "modified": False, "resnet_sha256": "00"},
    "no_gpu": None,
    "capability": "9.0",
    "memory_gib": 139.8,
    "multiprocessors": 132,
}
KERNELS = [
    {"name": "sm80_xmma_wgrad_implicit_gemm_indexed_bf16|nhwc", "count": 14.0, "us": 268.0},
    {"name": "void at::native::batch_norm_collect_statistics_channels_last_kernel<at", "count": 19.0, "us": 132.0},
]
UNSEEN = "unknown**, because these stages did not finish"
MOMENT = {"allocated_gib": 0.5, "reserved_gib": 0.75, "peak_reserved_gib": 1.0, "used_gib": 1.25}


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """Files are not flushed to it."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


class Clock:
    """Time that passes only where a stage takes some."""

    now = 0.0

    def __call__(self):
        return self.now


class MadeUpGPU:
    """Starts stages that give made-up values after so many seconds; ``ends`` of some stages are others."""

    def __init__(self, ends=None, seconds=1.0):
        self.clock, self.seconds, self.ends = Clock(), seconds, ends or {}
        self.started, self.limits = [], {}

    def start(self, stage, setting, device, seconds):
        self.started.append(stage.name)
        self.limits[stage.name] = seconds
        self.clock.now += min(self.seconds, seconds)
        end = self.ends.get(stage.name)
        if isinstance(end, BaseException):
            raise end
        if end is not None:
            return end
        return Ended(TIMED_OUT, words="hm") if self.seconds > seconds else Ended(DONE, self.values(stage.name))

    def values(self, name):
        return {
            "device": ABOUT,
            "test": {"passed": 2},
            "kernels": {"model": "cifar_resnet20", "precision": "bf16", "kernels": KERNELS},
            "rates": {"limits": {}, "result": asdict(gpu_results().models[0])},
            "memory": {"model": "cifar_resnet20", "runs": 8, "moments": [{"moment": "after an evaluation", **MOMENT}]},
            "launch": {"digests": {"net, seed 0": "abcdef" * 10}, "packed_with": 3, "interruptions": 1},
            "fused": {"text": "## cifar_resnet20, bf16\n\na table of parts"},
        }["test" if name == "fused-tests" else name.split("-")[0]]

    def check(self, folder, minutes=10.0, **options):
        return check(folder, minutes, start=self.start, settings=SETTINGS, clock=self.clock, **options)


def page_of(folder):
    (path,) = folder.glob("gpu-check-*.md")
    return path.read_text()


def statuses(results):
    return {name: entry["status"] for name, entry in results["stages"].items()}


# ------------------------------------------------------------------------------------------------- the whole, on a CPU


@pytest.fixture
def here(monkeypatch):
    """Starts stages in this process, each of which takes ten seconds of a clock."""
    monkeypatch.setattr(gpu_stages, "measure_limits", lambda device, precision: Limits(precision, 1e11, 1e10))
    monkeypatch.setattr(gpu_stages, "in_another_process", lambda function, *arguments: function(*arguments))
    clock = Clock()

    def start(stage, setting, device, seconds):
        assert device in ("auto", "cpu")
        clock.now += 10
        return Ended(DONE, json.loads(json.dumps(stage.work(setting, CPU, print))))

    return {"start": start, "clock": clock, "settings": SETTINGS}


def test_the_whole_sequence_on_a_cpu(here, tmp_path):
    results = check(tmp_path, 10, **here)
    done = ["device", "rates-cifar_resnet8", "launch-packed", "launch-interrupted"]
    assert [name for name, status in statuses(results).items() if status == DONE] == done
    assert [name for name, status in statuses(results).items() if status == SKIPPED] == [
        name for name in NAMES if name not in done
    ]
    packed, interrupted = (results["stages"][f"launch-{way}"]["values"] for way in ("packed", "interrupted"))
    assert packed["digests"] == interrupted["digests"] and len(set(packed["digests"].values())) == 2
    assert packed["interruptions"] == 0 and interrupted["interruptions"] >= 1
    page = page_of(tmp_path)
    assert page.count("| skipped: no GPU |") == len(NAMES) - 4
    assert "Safe to use: unknown**, because there is no GPU" in page
    assert "## cifar_resnet8\n" in page and "| one run | 1 |" in page and page == gpu_page.page(results)
    assert not problems(results)


def test_a_launch_that_is_not_interrupted_says_so(tmp_path):
    launch_once(launched_runs(TINY), 1, "cpu", str(tmp_path))
    with pytest.raises(RuntimeError, match="before it could be interrupted"):
        launch_once(launched_runs(TINY), 1, "cpu", str(tmp_path), interrupt=True)


def test_kernels_are_counted_by_step():
    """A CPU's operators in their place."""
    values = gpu_stages.look_at_kernels(TINY, CPU, print)
    counts = {kernel["name"]: kernel["count"] for kernel in values["kernels"]}
    assert counts["aten::convolution_backward"] == 7 and counts["aten::native_batch_norm"] == 7
    times = [kernel["us"] for kernel in values["kernels"]]
    assert times == sorted(times, reverse=True) and times[0] > 0 and values["precision"] == "fp32"


def test_memory_is_looked_at_around_an_evaluation(monkeypatch):
    looked, trainers = [], []

    class Watched(gpu_stages.Trainer):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            trainers.append(self)

    def look(device):
        looked.append([(trainer.iteration, len(trainer.curve)) for trainer in trainers])
        return MOMENT

    monkeypatch.setattr(gpu_stages, "Trainer", Watched)
    monkeypatch.setattr(gpu_stages, "memory_now", look)
    values = gpu_stages.look_at_memory(2, TINY, CPU, print)
    assert looked == [[], [(1, 0)] * 2, [(1, 1)] * 2, [(2, 1)] * 2]
    assert values["runs"] == 2 and values["moments"][2] == {"moment": "after an evaluation", **MOMENT}


# ----------------------------------------------------------------------------------------------------- cut off, gone on


@pytest.mark.parametrize("number", range(1, len(NAMES)))
def test_cut_off_at_any_stage_the_earlier_ones_stay_and_the_rest_can_follow(number, tmp_path):
    gpu = MadeUpGPU({NAMES[number]: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        gpu.check(tmp_path)
    (path,) = tmp_path.glob("*.json")
    kept, page = json.loads(path.read_text()), page_of(tmp_path)
    assert list(statuses(kept).values()) == [DONE] * number + [NOT_DONE] * (len(NAMES) - number)
    assert page == gpu_page.page(kept) and page.count("| done |") == number and page.count("| not done |") > 0
    assert ("## Kernels of a step" in page) == (number > NAMES.index("kernels"))
    assert ("## cifar_resnet20" in page) == (number > NAMES.index("rates-cifar_resnet8"))
    assert ("| net, seed 0 | `abcdefabcdef` |" in page) == (number > NAMES.index("launch-packed"))
    assert f"Not done in the time:** {kept['stages'][NAMES[number]]['title']}" in page

    again, said = MadeUpGPU(), []
    results = again.check(tmp_path, say=said.append)
    assert again.started == [DEVICE.name, *NAMES[number:]] and set(statuses(results).values()) == {DONE}
    assert f"{number - 1} stages are kept" in said[2]


def test_all_stages_share_one_time_and_each_has_its_own(tmp_path):
    gpu = MadeUpGPU(seconds=50)
    results = gpu.check(tmp_path, 4)
    assert list(statuses(results).values()) == [DONE] * 4 + [NOT_DONE] * (len(NAMES) - 4)
    assert gpu.limits[NAMES[1]] == 75 and gpu.limits[NAMES[4]] == 40 and gpu.clock() == 240
    assert results["stages"][NAMES[4]]["words"] == "the time was up after 40 s of it\nhm"
    assert results["stages"][NAMES[5]]["words"] == "the time was up before it started"
    assert not problems(results), "what the time did not suffice for is no failure"
    assert f"Safe to use: {UNSEEN}: test: an fp16" in page_of(tmp_path)


def test_what_failed_stays_until_it_is_all_done_anew(tmp_path):
    MadeUpGPU({"test-graph": Ended(FAILED, words="not equal")}).check(tmp_path)
    gpu = MadeUpGPU()
    results = gpu.check(tmp_path)
    assert gpu.started == [DEVICE.name] and statuses(results)["test-graph"] == FAILED
    gpu = MadeUpGPU()
    assert set(statuses(gpu.check(tmp_path, anew=True)).values()) == {DONE} and gpu.started == NAMES


def test_results_of_other_code_and_damaged_ones_are_not_gone_on_with(tmp_path):
    MadeUpGPU().check(tmp_path)
    said = []
    other = MadeUpGPU({"device": Ended(DONE, {**ABOUT, "code": {**ABOUT["code"], "commit": "another"}})})
    other.check(tmp_path, say=said.append)
    assert other.started == NAMES and any("is of other code" in text for text in said)
    (path,) = tmp_path.glob("*.json")
    path.write_text("{")
    assert MadeUpGPU().check(tmp_path, say=said.append) and any("can't be read" in text for text in said)


def test_a_device_that_hangs_is_not_asked_by_the_command_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "init", lambda: pytest.fail("asked"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("asked"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: pytest.fail("asked"))
    gpu = MadeUpGPU({"device": Ended(TIMED_OUT, words="hm")})
    results = gpu.check(tmp_path)
    assert gpu.started == NAMES and problems(results) == ["the device: took too long"]
    assert page_of(tmp_path).startswith("# GPU check on unknown device")


# --------------------------------------------------------------------------------------------------------- the verdict


def test_all_is_well(tmp_path):
    results = MadeUpGPU().check(tmp_path)
    page = page_of(tmp_path)
    assert "**Safe to use: yes**, because the 8 decisive tests passed, and 1 packed runs" in page
    assert "**Best packing width:** 8 for cifar_resnet20 (600,000 images/s, 30.00 times the conventional loop)." in page
    assert "| weight gradients | 14.0 | 268.0 | 67.0 % |\n| batch norm | 19.0 | 132.0 | 33.0 % |\n" in page
    assert "| 14.0 | 19.14 | 268.0 | `sm80_xmma_wgrad_implicit_gemm_indexed_bf16/nhwc` |" in page
    assert "33 kernels a step, 400 µs of kernels a step" in page
    assert "| cifar_resnet20, 8 | after an evaluation | 0.50 | 0.75 | 1.00 | 1.25 |" in page
    assert not problems(results) and "Not done" not in page and "Failed" not in page
    assert max(len(line) for line in page.splitlines() if not line.startswith(("|", "-"))) <= 120


@pytest.mark.parametrize(
    ("name", "end", "verdict"),
    [
        ("test-packed", Ended(FAILED, words="assert 1 == 2\n1 failed"), "no**, because of: test: a run in a pack"),
        ("launch-interrupted", Ended(FAILED, words="SIGSEGV"), "no**, because of: a launch, interrupted"),
        ("test-resumed", Ended(TIMED_OUT, words="hm"), f"{UNSEEN}: test: a resumed run"),
        ("test-fp16", Ended(SKIPPED, words="old"), f"{UNSEEN}: test: an fp16 step"),
        ("rates-cifar_resnet8", Ended(FAILED, words="CUDA error"), "yes**"),
        ("kernels", Ended(TIMED_OUT), "yes**"),
    ],
)
def test_a_stage_that_does_not_end_well_is_shown_and_the_others_go_on(name, end, verdict, tmp_path):
    gpu = MadeUpGPU({name: end})
    results = gpu.check(tmp_path)
    page = page_of(tmp_path)
    assert gpu.started == NAMES and f"- **Safe to use: {verdict}" in page
    assert list(statuses(results).values()).count(DONE) == len(NAMES) - 1
    assert bool(problems(results)) == (end.status != SKIPPED)
    assert end.words in page and ("**Failed or took too long:**" in page) == (end.status != SKIPPED)


@pytest.mark.parametrize(("way", "said"), [("alone", "alone"), ("interrupted", "interrupted and resumed")])
def test_other_weights_make_it_unsafe(way, said, tmp_path):
    other = {"digests": {"net, seed 0": "0" * 60}, "packed_with": 0, "interruptions": 0}
    results = MadeUpGPU({f"launch-{way}": Ended(DONE, other)}).check(tmp_path)
    found = f"net, seed 0: {said}, its final weights differ from an uninterrupted pack's"
    assert problems(results) == [found] and f"no**, because of: {found}." in page_of(tmp_path)


@pytest.mark.parametrize(
    ("kernel", "part"),
    [
        ("sm80_xmma_wgrad_implicit_gemm_indexed_bf16bf16_bf16f32_f32_nhwckrsc_nh", "weight gradients"),
        ("sm90_xmma_dgrad_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tiles", "data gradients"),
        ("void cutlass__5x_cudnn::Kernel<cutlass_tensorop_bf16_s16816fprop_optim", "convolutions"),
        ("void cudnn::batchnorm_bwtr_nhwc_semiPersist<__half, float, __half, 512", "batch norm"),
        ("void cudnn::engines_precompiled::convertTensor_kernel<__nv_bfloat16, f", "layout and precision of tensors"),
        ("void at::native::(anonymous namespace)::multi_tensor_apply_kernel<at::", "optimizer"),
        ("Memset (Device)", "copies and filling"),
        ("ampere_sgemm_32x32_sliced1x4_tn", "matrix products"),
        ("void at::native::vectorized_elementwise_kernel<8, at::native::BinaryFu", gpu_page.OTHERS),
    ],
)
def test_kernels_have_their_parts(kernel, part):
    assert part_of(kernel) == part


# ------------------------------------------------------------------------------------------------------- real processes


def script(text):
    return [sys.executable, "-c", f"import fcntl, os, subprocess, sys, time\n{text}"]


def test_a_process_that_hangs_is_ended_with_all_that_it_started(tmp_path):
    lock = tmp_path / "lock"
    hang = (
        f"file = open({str(lock)!r}, 'w'); fcntl.flock(file, fcntl.LOCK_EX); print('held', flush=True); time.sleep(90)"
    )
    began = time.monotonic()
    assert run_limited(script(f"subprocess.run({script(hang)})"), 4) == Ended(TIMED_OUT, words="held")
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # waits for whoever still holds it
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    ("text", "ended"),
    [
        ("print('VALUES {\"a\": 1}'); print('noise')", Ended(DONE, {"a": 1})),
        ('print(\'VALUES {"passed": 3, "left_out": 1}\')', Ended(DONE, {"passed": 3, "left_out": 1})),
        ('print(\'VALUES {"skipped": "why"}\'); print()', Ended(SKIPPED, words="why")),
        ("print('last', flush=True); os.abort()", Ended(FAILED, words="last\nended by SIGABRT")),
        ("print('VALUES {}'); sys.exit('no driver')", Ended(FAILED, words="no driver")),
        ("sys.exit(3)", Ended(FAILED, words="ended with exit status 3 and without any output")),
    ],
)
def test_a_process_ends(text, ended):
    assert run_limited(script(text), 60) == ended


@pytest.mark.slow
def test_a_stage_is_a_process_that_runs_one_test():
    stage = next(stage for stage in stages(TINY) if stage.name == "test-fp16")
    ended = start_process(stage, TINY, "cpu", 120)
    expected = (
        Ended(DONE, {"passed": 1, "left_out": 0})
        if torch.cuda.is_available()
        else Ended(SKIPPED, words="needs a CUDA GPU")
    )
    assert replace(ended, words=ended.words.removeprefix("Skipped: ")) == expected


def test_a_process_that_was_not_interrupted_as_it_should_be():
    with pytest.raises(RuntimeError, match="exit status 3"):
        gpu_stages.in_another_process(os._exit, 3)


def test_the_tests_that_decide_exist_and_are_the_gpus():
    functions = {node.name: node for node in ast.parse(Path(ROOT, gpu_stages.TESTS).read_text()).body
                 if isinstance(node, ast.FunctionDef)}  # fmt: skip
    tests = [stage.work.args[0].partition("::")[2] for stage in stages(TINY) if stage.name.startswith("test-")]
    assert len(tests) == 4
    assert all("pytest.mark.gpu" in map(ast.unparse, functions[test].decorator_list) for test in tests)


# --------------------------------------------------------------------------------------------------------- the command


@pytest.mark.parametrize(("ends", "status"), [({}, 0), ({"kernels": Ended(FAILED, words="x")}, 1)])
def test_the_exit_status(ends, status, tmp_path, monkeypatch, capsys):
    gpu = MadeUpGPU(ends)
    monkeypatch.setattr(gpu_check, "check", lambda folder, minutes, device, anew, say: gpu.check(folder, minutes))
    assert gpu_check.main(["--out", str(tmp_path), "--minutes", "4"]) == status
    assert capsys.readouterr().out.strip() == page_of(tmp_path).strip() and gpu.limits["device"] == 60


def test_a_stop_says_where_the_page_is(tmp_path, monkeypatch, capsys):
    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu_check, "check", stopped)
    assert gpu_check.main(["--out", str(tmp_path)]) == 130 and str(tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("--minutes", "0.5"), ("--minutes", "nan"), ("--device", "cuda:7")])
def test_bad_input_is_refused_at_once(option, value, capsys):
    with pytest.raises(SystemExit) as exit:
        gpu_check.main([option, value])
    assert exit.value.code == 2 and option in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.parametrize("name", [name for name in NAMES if "test" not in name])
def test_every_stage_on_a_gpu(name):
    stage = next(stage for stage in [DEVICE, *stages(TINY)] if stage.name == name)
    assert json.dumps(stage.work(TINY, find_device(), print))
