"""Lower bound on the time of a training step, from the device's measured rates."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from resnet.device import synchronized_time
from resnet.models.complexity import training_bytes, training_flops

# Edge of the square matrices and bytes of the buffer: large enough that a device reaches its best rate and no cache
# holds the buffer. TIMES is the number of measurements, of which the best counts, because the floor is a lower bound.
MATRIX = {"cuda": (4_096, 8_192), "cpu": (1_024, 2_048)}
CONVOLUTION = (8, 256, 32)  # images, channels and pixels along a side of a 3x3 convolution, on a CPU
BUFFER = {"cuda": 2**30, "cpu": 2**28}
TIMES = {"cuda": 10, "cpu": 4}


@dataclass(frozen=True)
class Limits:
    """Measured rates of a device: FLOP/s of matrix products in ``precision``, bytes/s (read + written) of a copy."""

    precision: str
    flops_per_second: float
    bytes_per_second: float

    def best(self, other: "Limits") -> "Limits":
        """Return the higher rates of two measurements, because disturbances only lower them."""
        flops = max(self.flops_per_second, other.flops_per_second)
        return Limits(self.precision, flops, max(self.bytes_per_second, other.bytes_per_second))


@dataclass(frozen=True)
class Floor:
    """Least seconds of a training step of one run, with the FLOPs and bytes that they follow from.

    bytes_with_cache, seconds_with_cache: if a cache held all values passed between neighbouring layers.
    """

    flops: int
    bytes: int
    bytes_with_cache: int
    seconds: float
    seconds_with_cache: float
    limited_by: str


def measure_limits(device: torch.device, precision: str) -> Limits:
    """Measure matrix rate and copy bandwidth of the device; the best of several measurements counts.

    On a CPU a large convolution is measured, too: PyTorch computes it with another library than matrix products, and on
    some processors the latter reaches only half the rate.

    ``precision`` is "bf16" or "fp32" (without TF32, as in training).
    """
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    flops = 0.0
    for size in MATRIX[device.type]:
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        seconds = _best_seconds(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), device)
        flops = max(flops, 2 * size**3 / seconds)
    if device.type == "cpu":
        flops = max(flops, _convolution_rate(dtype, *CONVOLUTION))
    source = torch.zeros(BUFFER[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = _best_seconds(lambda: target.copy_(source), device)
    return Limits(precision, flops, 2 * source.numel() / seconds)


@torch.no_grad()
def _convolution_rate(dtype: torch.dtype, images: int, channels: int, pixels: int) -> float:
    """Measure the FLOP/s of a 3x3 convolution that keeps its input's shape, in channels-last memory."""
    x = torch.randn(images, channels, pixels, pixels, dtype=dtype).to(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)
    flops = 2 * x.numel() * channels * 9
    return flops / _best_seconds(lambda: F.conv2d(x, weight, padding=1), torch.device("cpu"))


def _best_seconds(work, device: torch.device) -> float:
    """Return the seconds of one call of ``work``, from the shortest of several bursts of calls."""
    work()
    shortest, calls = float("inf"), TIMES[device.type]
    for _ in range(TIMES[device.type]):
        start = synchronized_time(device)
        for _ in range(calls):
            work()
        shortest = min(shortest, (synchronized_time(device) - start) / calls)
    return shortest


def floor(model: str, batch: int, limits: Limits, options: dict | None = None) -> Floor:
    """Compute the floor of a training step of ``batch`` images 32x32: the longer of arithmetic and memory traffic.

    FLOPs are counted for direct convolutions; an algorithm with fewer multiplications could be faster than the floor.
    """
    flops = batch * training_flops(model, options)
    traffic = training_bytes(model, batch, {"bf16": 2, "fp32": 4}[limits.precision], options)
    arithmetic, memory = flops / limits.flops_per_second, traffic.total / limits.bytes_per_second
    return Floor(
        flops=flops,
        bytes=traffic.total,
        bytes_with_cache=traffic.with_cache,
        seconds=max(arithmetic, memory),
        seconds_with_cache=max(arithmetic, traffic.with_cache / limits.bytes_per_second),
        limited_by="FLOPs" if arithmetic >= memory else "bytes",
    )
