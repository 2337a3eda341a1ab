"""The device that networks are trained and tested on, and the arithmetic that is done there."""

import ctypes
import gc
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": None}  # what each precision computes in
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h


class DeviceLost(Exception):
    """After an error the device can't be used by this process any more; another process may find it well."""


def find_device(name: str = "auto") -> torch.device:
    """The device called "auto", "cpu", "cuda", "cuda:1": auto is the current CUDA device if there is one, else the CPU.

    Raises ValueError for one that is not here, and lists those that are.
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
    raise ValueError(f"there is no device {name!r}; the devices here are: {', '.join(usable)}{reason}")


def why_no_cuda() -> str:
    """Why PyTorch finds no CUDA GPU, in its own words where it has some; empty if it finds one."""
    if torch.version.cuda is None:
        return "this PyTorch was built without CUDA"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).split(". ")[0].strip()
    return "none is visible" if torch.cuda.device_count() == 0 else ""


def available_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def busy_cores(seconds: float = 0.5) -> int:
    """How many of :func:`available_cores` other processes keep busy while this thread sleeps for ``seconds``.

    Those that give way to this process (``nice``) don't count. 0 where the system does not tell (/proc/stat).
    """
    before = _busy_ticks()
    time.sleep(seconds)
    return round((_busy_ticks() - before) / (seconds * os.sysconf("SC_CLK_TCK"))) if before else 0


def _busy_ticks() -> int:
    """Clock ticks that these cores have been busy for since the system was started; 0 where it does not tell."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            cores = dict(line.split(maxsplit=1) for line in file if line.startswith("cpu"))
        own = [[int(number) for number in cores[f"cpu{core}"].split()] for core in os.sched_getaffinity(0)]
        columns = (0, 2) if os.nice(0) == 0 else (0, 1, 2)  # user, nice, system: see proc_stat(5)
        return sum(times[column] for times in own for column in columns)
    except (OSError, ValueError, KeyError, IndexError, AttributeError):
        return 0


@contextmanager
def threads(count: int) -> Iterator[None]:
    """A context in which the CPU computes with so many threads."""
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
    """Have a process that trains on a CPU keep the memory that it frees, for its next tensors (with glibc only).

    glibc gives large blocks and the free end of its heap back to the system at once, so a training step gets the memory
    of every activation anew, page by page. mallopt(3) switches that off, for good; results don't change.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if device.type == "cpu" and os.name == "posix" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
        mallopt(_M_TOP_PAD, 64 * 2**20)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """A context in which Python collects no garbage."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def has_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bf16: a GPU since Ampere; a processor with AMX or AVX-512 BF16.

    oneDNN, which computes on processors, can be held back by ONEDNN_MAX_CPU_ISA; that counts.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT").upper()
    allowed = any(part in limit for part in ("DEFAULT", "ALL", "BF16", "FP16", "AMX", "AVX10"))
    return allowed and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def resolve_precision(precision: str, device: torch.device) -> str:
    """The precision that "auto" is on this device, bf16 where :func:`has_bf16`, else fp32; any other stays what it is.

    Raises ValueError for bf16 on a GPU without it; a processor without it computes in bf16 too, only slowly.
    """
    if precision == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    if precision == "bf16" and device.type == "cuda" and not has_bf16(device):
        name = torch.cuda.get_device_name(device)
        raise ValueError(f"{name} has no bf16 arithmetic; train with precision fp32, or auto, which then is fp32")
    return precision


def autocast_dtype(precision: str) -> torch.dtype | None:
    """What convolutions and linear layers compute in under :func:`autocast`; None for fp32, where it does nothing."""
    return _AUTOCAST[precision]


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """A context in which operations compute in ``precision``: fp32, bf16 or fp16."""
    dtype = autocast_dtype(precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def exact_kernels() -> AbstractContextManager:
    """A context in which cuDNN's kernels are deterministic ones, and fp32 is not TF32; on a CPU it changes nothing."""
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)


def synchronized_time(device: torch.device) -> float:
    """Seconds on a clock, once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
