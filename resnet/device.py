"""Device selection, precision, deterministic kernels and CPU threads."""

import ctypes
import gc
import math
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": None}  # autocast's dtype for each precision
_OWN_CGROUPS, _CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h


class DeviceLost(Exception):
    """Device error after which this process can't use the device any more; another process may still be able to."""


def find_device(name: str = "auto") -> torch.device:
    """Return the device named "auto", "cpu", "cuda" or "cuda:1".

    "auto" is the current CUDA device if there is one, else the CPU. Raises ValueError, with a list of the available
    devices, for any other name.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    usable = ["cpu", *(f"cuda:{number}" for number in range(count))]
    if name in ("auto", "cuda") and count:
        return torch.device("cuda", torch.cuda.current_device())
    if name == "auto":
        return torch.device("cpu")
    if name in usable:
        return torch.device(name)
    reason = "" if count else f" (no CUDA GPU: {why_no_cuda()})"
    raise ValueError(f"there is no device {name!r}; available devices: {', '.join(usable)}{reason}")


def why_no_cuda() -> str:
    """Return PyTorch's reason for finding no CUDA GPU; empty if there is one."""
    if torch.version.cuda is None:
        return "this PyTorch was built without CUDA"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).split(". ")[0].strip()
    return "none is visible" if torch.cuda.device_count() == 0 else ""


def available_cores() -> int:
    """Count the processor cores that this process may use, by its affinity and by its cgroups' quotas, rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([cores, *map(math.ceil, _quotas())])


def _quotas() -> Iterator[float]:
    """Yield the limits, in cores, of this process's cgroups and of those around them."""
    lines = _OWN_CGROUPS.read_text().splitlines() if _OWN_CGROUPS.exists() else []
    for controllers, path in (line.split(":", 2)[1:] for line in lines):
        folder = _CGROUPS / ("cpu" if "cpu" in controllers.split(",") else "") / path.lstrip("/")
        for place in (folder, *folder.parents):
            for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):  # of versions 2 and 1
                with suppress(OSError, ValueError):  # not there, or "max"
                    quota, period = (int(word) for name in names for word in (place / name).read_text().split())
                    if quota > 0:
                        yield quota / period


def busy_cores(seconds: float = 0.5) -> int:
    """Count the :func:`available_cores` that other processes keep busy, measured over ``seconds`` of sleep.

    Processes of a lower priority (``nice``) don't count. Returns 0 where the system does not tell.
    """
    before = _busy_seconds()
    time.sleep(seconds)
    return round((_busy_seconds() - before) / seconds)


def _busy_seconds() -> float:
    """Return the available cores' busy seconds since the system started; 0 where they are unknown."""
    import psutil  # which torch.hub's nets do without

    try:
        times = psutil.cpu_times(percpu=True)
        cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(times))
        counted = ("user", "system") if os.nice(0) == 0 else ("user", "nice", "system")
        return sum(getattr(times[core], name) for core in cores for name in counted)
    except (OSError, ValueError, IndexError):
        return 0.0


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with ``count`` CPU threads inside the context."""
    before = torch.get_num_threads()
    if count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_freed_memory(device: torch.device) -> None:
    """Keep freed memory in the process for reuse when training on a CPU (with glibc only).

    By default glibc returns large blocks and the free end of its heap to the system at once, so every training step
    page-faults the memory of its activations again. This switches that off with mallopt(3) for the rest of the process;
    results don't change.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if device.type == "cpu" and os.name == "posix" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
        mallopt(_M_TOP_PAD, 64 * 2**20)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Disable Python's garbage collection inside the context."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@contextmanager
def refuse_to_wait(device: torch.device) -> Iterator[None]:
    """Raise RuntimeError inside the context where the host would wait for a CUDA device, to read a value back, say."""
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it does not yet find everything
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def has_bf16(device: torch.device) -> bool:
    """Return whether the device has bf16 instructions: a GPU since Ampere, a CPU with AMX or AVX-512 BF16.

    On a CPU, the environment variable ONEDNN_MAX_CPU_ISA can rule them out.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT").upper()
    allowed = any(part in limit for part in ("DEFAULT", "ALL", "BF16", "FP16", "AMX", "AVX10"))
    return allowed and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def resolve_precision(precision: str, device: torch.device) -> str:
    """Resolve "auto" to bf16 on a device that :func:`has_bf16`, else to fp32; return any other precision unchanged.

    Raises ValueError for bf16 on a GPU without it. A CPU without bf16 instructions computes in bf16 too, but slowly.
    """
    if precision == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    if precision == "bf16" and device.type == "cuda" and not has_bf16(device):
        name = torch.cuda.get_device_name(device)
        raise ValueError(f"{name} does not support bf16; train with precision fp32, or auto, which selects fp32 here")
    return precision


def autocast_dtype(precision: str) -> torch.dtype | None:
    """Return the dtype of convolutions and linear layers under :func:`autocast`; None for fp32, which needs none."""
    return _AUTOCAST[precision]


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return a context that computes in ``precision``: fp32, bf16 or fp16."""
    dtype = autocast_dtype(precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


@contextmanager
def exact_kernels(benchmark: bool = False) -> Iterator[None]:
    """Use deterministic cuDNN kernels and no TF32 inside the context; it has no effect on a CPU.

    ``benchmark``: let cuDNN choose the fastest kernels, which are not always the same ones.
    """
    cudnn = torch.backends.cudnn
    flags = {"enabled": True, "benchmark": benchmark, "deterministic": True, "allow_tf32": False}
    try:
        before = {name: getattr(cudnn, name) for name in flags}
    except RuntimeError:  # a program has set an fp32_precision, and PyTorch then refuses allow_tf32
        del flags["allow_tf32"]
        before = {name: getattr(cudnn, name) for name in flags}
    products = cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul
    precisions = [each.fp32_precision for each in products]
    try:
        _set(cudnn, flags)
        for each in products:
            each.fp32_precision = "ieee"
        yield
    finally:
        _set(cudnn, before)
        for each, precision in zip(products, precisions):
            each.fp32_precision = precision


def _set(module, values: dict) -> None:
    for name, value in values.items():
        setattr(module, name, value)


def synchronized_time(device: torch.device) -> float:
    """Wait for the device to finish its work, then return the time in seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
