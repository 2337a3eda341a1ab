"""Devices and precisions by name, also without a GPU, and the contexts' settings."""

import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest
import torch
from image_folder import make_dataset

from resnet import device, finetuning, stepwise, trainer
from resnet.data.resident import ResidentData
from resnet.data.synthetic import make_synthetic
from resnet.device import autocast, busy_cores, find_device, resolve_precision, why_no_cuda
from resnet.recipe import Recipe
from resnet.run import Run
from resnet.weights import Architecture


@pytest.fixture
def cuda(monkeypatch):
    """Sets how many CUDA GPUs torch tells of, which one is current, and whether they have bf16."""

    def devices(count, current=0, has_bf16=True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: current)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0) if has_bf16 else (7, 5))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: f"GPU X at {device}")

    return devices


@pytest.mark.parametrize(
    ("name", "found"),
    [("auto", "cuda:1"), ("cuda", "cuda:1"), ("cuda:0", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")],
)
def test_a_device_is_found_by_its_name(cuda, name, found):
    cuda(2, current=1)
    assert find_device(name) == torch.device(found)


def test_auto_is_the_processor_where_there_is_no_gpu(cuda):
    cuda(0)
    assert find_device() == find_device("auto") == find_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:2", "cuda:-1", "cuda:01", "CUDA", "mps", "cpu:0", "", "2"])
def test_an_unknown_device_is_an_error_that_lists_those_there_are(cuda, name):
    cuda(2)
    with pytest.raises(ValueError) as error:
        find_device(name)
    assert str(error.value) == f"there is no device {name!r}; available devices: cpu, cuda:0, cuda:1"


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_a_gpu_that_is_not_there_is_an_error_that_says_why(cuda, monkeypatch, name):
    cuda(0)
    monkeypatch.setattr("resnet.device.why_no_cuda", lambda: "no driver")
    with pytest.raises(ValueError, match=f"no device '{name}'; available devices: cpu .no CUDA GPU: no driver."):
        find_device(name)


def raising(error):
    def fail():
        raise error

    return fail


@pytest.mark.parametrize(
    ("version", "init", "said"),
    [
        (None, raising(AssertionError("Torch not compiled with CUDA enabled")), "this PyTorch was built without CUDA"),
        (
            "13.0",
            raising(RuntimeError("Found no NVIDIA driver. Please check\nthat you have one.")),
            "Found no NVIDIA driver",
        ),
        ("13.0", raising(RuntimeError("No CUDA GPUs are available")), "No CUDA GPUs are available"),
        ("13.0", lambda: None, "none is visible"),
    ],
    ids=["built without", "no driver", "none available", "none visible"],
)
def test_it_is_said_why_there_is_no_cuda(cuda, monkeypatch, version, init, said):
    cuda(0)
    monkeypatch.setattr(torch.version, "cuda", version)
    monkeypatch.setattr(torch.cuda, "init", init)
    assert why_no_cuda() == said


@pytest.mark.parametrize(
    ("amx", "avx512_bf16", "limit", "resolved"),
    [
        (True, False, None, "bf16"),
        (False, True, None, "bf16"),
        (False, True, "AVX512_CORE_BF16", "bf16"),
        (True, True, "avx512_core", "fp32"),
        (False, False, None, "fp32"),
    ],
)
def test_auto_precision_is_bf16_on_a_processor_that_has_it(monkeypatch, amx, avx512_bf16, limit, resolved):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    if limit is None:
        monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    else:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert resolve_precision("auto", torch.device("cpu")) == resolved
    assert resolve_precision("fp32", torch.device("cpu")) == "fp32"


@pytest.mark.parametrize(
    ("device", "has_bf16", "precision", "resolved"),
    [
        ("cuda:0", True, "auto", "bf16"),
        ("cuda:0", True, "bf16", "bf16"),
        ("cuda:0", True, "fp32", "fp32"),
        ("cuda:0", False, "auto", "fp32"),
        ("cuda:0", False, "fp32", "fp32"),
        ("cpu", False, "auto", "fp32"),
        ("cpu", False, "bf16", "bf16"),
        ("cpu", False, "fp32", "fp32"),
    ],
)
def test_auto_precision_is_bf16_on_a_gpu_that_has_it(cuda, device, has_bf16, precision, resolved):
    cuda(1, has_bf16=has_bf16)
    assert resolve_precision(precision, torch.device(device)) == resolved


def test_bf16_is_refused_on_a_gpu_without_it(cuda):
    cuda(1, has_bf16=False)
    with pytest.raises(ValueError, match="^GPU X at cuda:0 does not support bf16; train with precision fp32, or auto"):
        resolve_precision("bf16", torch.device("cuda:0"))


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_products_are_computed_in_the_precision(precision, dtype):
    a = torch.ones(4, 4)
    with autocast(torch.device("cpu"), precision):
        assert (a @ a).dtype == dtype
    assert (a @ a).dtype == torch.float32


@pytest.mark.parametrize(
    ("setting", "products"),
    [
        ("", "none"),
        ("torch.set_float32_matmul_precision('high')", "tf32"),
        ("torch.backends.fp32_precision = 'tf32'", "tf32"),
        ("torch.backends.fp32_precision = 'ieee'", "ieee"),
        ("torch.backends.cudnn.conv.fp32_precision = 'ieee'", "none"),
        ("torch.backends.cudnn.allow_tf32 = False", "none"),
        ("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "tf32"),
    ],
)
def test_exact_kernels_are_chosen_within_the_context_alone_whatever_a_user_has_set(setting, products):
    by_environment = setting.startswith("TORCH_")
    program = f"""import torch
{"" if by_environment else setting}
from resnet.device import exact_kernels

cudnn = torch.backends.cudnn
def settings():
    products = cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul
    return cudnn.enabled, cudnn.benchmark, cudnn.deterministic, *(each.fp32_precision for each in products)

before = settings()
print(before[5])
with exact_kernels():
    with exact_kernels(benchmark=True):
        assert settings() == (True, True, True, "ieee", "ieee", "ieee"), settings()
    assert settings() == (True, False, True, "ieee", "ieee", "ieee"), settings()
    if not {setting!r}:
        with cudnn.flags(enabled=False):
            assert not cudnn.enabled
assert settings() == before, settings()
"""
    environment = os.environ | ({setting: "1"} if by_environment else {})
    command = [sys.executable, "-W", "error", "-c", program]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert said == f"{products}\n"


def test_whatever_trains_keeps_the_memory_that_it_frees(monkeypatch, tmp_path):
    kept = []
    for module in (stepwise, finetuning):
        monkeypatch.setattr(module, "keep_freed_memory", kept.append)
    data = ResidentData(make_synthetic(8, 1), None, torch.device("cpu"))
    trainer.Trainer(Run("cifar_resnet8", Recipe().shortened(1, eval_interval=1, batch_size=8), "synthetic"), data)
    beginning = finetuning.from_scratch(Architecture("cifar_resnet8"), 2, 0)
    settings = finetuning.Settings(batch_size=4, image_size=16)
    finetuning.train(beginning, make_dataset(tmp_path), settings, 0, tmp_path, torch.device("cpu"))
    assert kept == [torch.device("cpu")] * 2


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="is about glibc's allocator")
def test_memory_that_was_freed_is_not_asked_for_again():
    """Counted in a process of its own, since the setting stays: pages that the system had to provide."""
    program = """
import resource, torch
from resnet.device import keep_freed_memory

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for mebibytes in (8, 100) * 5:
        torch.ones(mebibytes * 2**18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

otherwise = pages()
keep_freed_memory(torch.device("cuda"))
unneeded = pages()
keep_freed_memory(torch.device("cpu"))
pages()
print(otherwise, unneeded, pages())
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    otherwise, unneeded, kept = map(int, ran.stdout.split())
    assert kept < 100 < min(otherwise, unneeded)


# --------------------------------------------------------------------------------------------------- a busy processor


def openmp_says(*command, **environment):
    """Run a command as a user would; return the settings that GNU OpenMP prints when it is loaded."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    own |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_DISPLAY_ENV": "verbose", **environment}
    done = subprocess.run([sys.executable, *command], env=own, capture_output=True, text=True, check=True)
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("torch's OpenMP is another one")
    return done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ("-c", "import resnet.trainer"),
        ("-c", "import reproductions.harness.launching.job"),  # as submitit does first of all
        ("-m", "reproductions", "list"),
        ("-m", "benchmarks.gpu_check", "--help"),
    ],
    ids=lambda command: command[1],
)
def test_threads_do_not_wait_for_one_another_actively_for_long(command):
    assert "GOMP_SPINCOUNT = '1000'" in openmp_says(*command)


@pytest.mark.slow
def test_how_threads_wait_is_the_users_to_say():
    assert "GOMP_SPINCOUNT = '7'" in openmp_says("-c", "import resnet.trainer", GOMP_SPINCOUNT="7")
    assert "GOMP_SPINCOUNT = '0'" in openmp_says("-c", "import resnet.trainer", OMP_WAIT_POLICY="passive")


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/", {"cpu.max": "250000 100000"}, 3),
        ("0::/job/step", {"job/cpu.max": "200000 100000", "job/step/cpu.max": "max 100000"}, 2),
        ("0::/", {"cpu.max": "max 100000"}, 8),
        ("0::/", {"cpu.max": "1000 100000"}, 1),
        ("0::/", {"cpu.max": "1600000 100000"}, 8),
        ("4:cpu,cpuacct:/job\n0::/", {"cpu/job/cpu.cfs_quota_us": "150000", "cpu/job/cpu.cfs_period_us": "50000"}, 3),
        ("4:cpu:/docker/x", {"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ("4:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ("3:cpuset:/job\n1:name=a:b:/job", {}, 8),
        (None, {}, 8),
    ],
)
def test_cores_are_those_of_the_cgroups_quotas(monkeypatch, tmp_path, own, files, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(device, "_OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(device, "_CGROUPS", tmp_path / "all")
    if own is not None:
        (tmp_path / "own").write_text(f"{own}\n")
    for name, text in files.items():
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / name).write_text(f"{text}\n")
    assert device.available_cores() == cores


def test_a_busy_neighbour_is_counted():
    with subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=-1) as neighbour:
        neighbour.stdout.readline()
        try:
            assert busy_cores() >= 1
        finally:
            neighbour.kill()


@pytest.mark.parametrize(("own", "busy"), [(0, 1), (5, 2)], ids=["normal", "nice"])
def test_busy_cores_are_those_of_this_process_and_of_others_that_do_not_give_way(monkeypatch, own, busy):
    clock = [10.0]

    def cpu_times(percpu):
        (passed,) = clock
        times = [{"user": passed}, {"user": 3.0, "nice": passed}, {"idle": passed}, {"user": passed, "system": passed}]
        return [SimpleNamespace(**{"user": 0.0, "nice": 0.0, "system": 0.0, "idle": 0.0, **core}) for core in times]

    monkeypatch.setattr(psutil, "cpu_times", cpu_times)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2}, raising=False)
    monkeypatch.setattr(os, "nice", lambda change: own)
    monkeypatch.setattr(device.time, "sleep", lambda seconds: clock.append(clock.pop() + seconds))
    assert busy_cores(2) == busy
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: [])
    assert busy_cores(2) == 0
