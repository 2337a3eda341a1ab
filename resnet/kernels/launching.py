"""Functions that start the kernels of :mod:`resnet.kernels.device_code` on tensors.

Maps are (N, C, H, W) and weights (out, in, 3, 3), both in channels-last memory; parts and statistics are fp32. Where
``runs`` is more than 1, every tensor holds the values of one run after another along its first dimension. Settings
depend on shapes alone, so other work on the device leaves the results as they are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from resnet.kernels import device_code

_STAGES = 3  # loads that are under way while a loop computes


@dataclass(frozen=True)
class Launch:
    """A kernel as it was started: ``arguments`` by name, and the ``constants`` that it was compiled for."""

    kernel: object
    grid: tuple[int, int, int]
    arguments: dict
    constants: dict
    warps: int


@dataclass(frozen=True)
class Settings:
    """The sizes of blocks of work: chosen by the kernels' bounds, to be chosen again by their times on a GPU."""

    pixels: tuple[int, int, int] = (256, 128, 64)  # in a convolution's block, for 16, 32 and 64 channels
    columns: int = 32  # largest number of channels in such a block
    warps: int = 4  # for such a block
    values: int = 4096  # in a block of the kernels that pass over maps
    weight_pixels: int = 64  # in one step of a weight gradient's block
    weight_steps: int = 8  # of such a block
    weight_columns: int = 32  # largest number of output channels in such a block


SETTINGS = _settings = Settings()
_recorded: list[Launch] | None = None


@contextmanager
def using(settings: Settings) -> Iterator[None]:
    """Start the kernels of a context with other settings; their results have other last bits."""
    global _settings
    before, _settings = _settings, settings
    try:
        yield
    finally:
        _settings = before


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """Add the kernels of a context to the list that it gives, instead of starting them.

    Tensors may be without memory (device "meta").
    """
    global _recorded
    _recorded = []
    try:
        yield _recorded
    finally:
        _recorded = None


def _start(kernel, grid: tuple[int, ...], warps: int, arguments: tuple, **constants) -> None:
    grid = (*grid, *(1,) * (3 - len(grid)))
    if _recorded is not None:
        names = [name for name in kernel.arg_names if name not in constants]
        _recorded.append(Launch(kernel, grid, dict(zip(names, arguments, strict=True)), constants, warps))
        return
    kernel[grid](*arguments, **constants, **options(warps))


def start_again(launch: Launch) -> None:
    """Start a recorded kernel on its tensors."""
    arguments = {**launch.arguments, **launch.constants}
    launch.kernel[launch.grid](**arguments, **options(launch.warps))


def options(warps: int) -> dict:
    """Return the compiler's options for a kernel; each is explicit, because Triton's defaults change."""
    return {"num_warps": warps, "num_stages": _STAGES, "enable_fp_fusion": True}


def _empty_maps(count: int, channels: int, height: int, width: int, like: Tensor, dtype=None) -> Tensor:
    memory = {"dtype": dtype or like.dtype, "device": like.device, "memory_format": torch.channels_last}
    return torch.empty((count, channels, height, width), **memory)


@dataclass(frozen=True)
class _Blocks:
    """The cut of maps into ``count`` blocks of ``rows`` rows and ``columns`` channels."""

    rows: int
    wide: int
    columns: int
    count: int
    exact: bool


def _blocks(images: int, height: int, width: int, channels: int, pixels: int, columns: int | None = None) -> _Blocks:
    wide = triton.next_power_of_2(width)
    rows = min(triton.next_power_of_2(height), max(1, pixels // wide))
    rows = max(rows, 16 // wide)  # tensor cores take no fewer than 16
    exact = wide == width and height % rows == 0
    return _Blocks(rows, wide, min(channels, columns or channels), images * triton.cdiv(height, rows), exact)


def _convolution_blocks(images: int, height: int, width: int, channels: int) -> _Blocks:
    pixels = _settings.pixels[(16, 32, 64).index(channels)]
    return _blocks(images, height, width, channels, pixels, _settings.columns)


@dataclass(frozen=True)
class Parts:
    """The blocks' parts (blocks, 2, C) of sums over ``images`` images, in blocks of ``rows`` rows."""

    values: Tensor
    rows: int
    images: int


def convolve(x: Tensor, weight: Tensor, stride: int, statistics: bool, runs: int = 1) -> tuple[Tensor, Parts]:
    """Convolve maps, 3x3 and padded by 1; returns the output and, if wanted, the parts of its statistics."""
    images, ci, hi, wi = x.shape
    co, ho, wo = weight.shape[0] // runs, triton.cdiv(hi, stride), triton.cdiv(wi, stride)
    blocks, y = _convolution_blocks(images, ho, wo, co), _empty_maps(images, co, ho, wo, x)
    parts = _empty_parts(blocks.count if statistics else 0, co, blocks.rows, images, x)
    _start(
        device_code.convolution,
        (blocks.count // runs, co // blocks.columns, runs),
        _settings.warps,
        (x, weight, y, parts.values, images // runs),
        HI=hi,
        WI=wi,
        HO=ho,
        WO=wo,
        CI=ci,
        CO=co,
        S=stride,
        ROWS=blocks.rows,
        WIDE=blocks.wide,
        COLUMNS=blocks.columns,
        EXACT=blocks.exact and (hi, wi) == (stride * ho, stride * wo),  # the last tap leaves an odd map
        STATISTICS=statistics,
    )
    return y, parts


def convolve_images(x: Tensor, weight: Tensor, statistics: bool, runs: int = 1) -> tuple[Tensor, Parts]:
    """Convolve images (N, 3, H, W) of any dtype and strides in the same way, with stride 1, in the weight's dtype."""
    images, _, height, width = x.shape
    co = weight.shape[0] // runs
    blocks = _convolution_blocks(images, height, width, co)
    y = _empty_maps(images, co, height, width, x, weight.dtype)
    parts = _empty_parts(blocks.count if statistics else 0, co, blocks.rows, images, x)
    _start(
        device_code.stem_convolution,
        (blocks.count // runs, 1, runs),
        _settings.warps,
        (x, weight, y, parts.values, images // runs, *x.stride()),
        H=height,
        W=width,
        CO=co,
        ROWS=blocks.rows,
        WIDE=blocks.wide,
        EXACT=blocks.exact,
        STATISTICS=statistics,
    )
    return y, parts


def _empty_parts(blocks: int, channels: int, rows: int, images: int, like: Tensor) -> Parts:
    return Parts(torch.empty((blocks, 2, channels), dtype=torch.float32, device=like.device), rows, images)


def measure(maps: Tensor, runs: int = 1) -> Parts:
    """Compute the parts of the statistics of maps (N, C, H, W) that the library computed."""
    images, channels, height, width = maps.shape
    blocks = _blocks(images, height, width, channels, _settings.values // channels)
    parts = _empty_parts(blocks.count, channels, blocks.rows, images, maps)
    _start(
        device_code.map_statistics,
        (blocks.count // runs, 1, runs),
        4,
        (maps, parts.values, images // runs),
        H=height,
        W=width,
        C=channels,
        ROWS=blocks.rows,
        WIDE=blocks.wide,
        EXACT=blocks.exact,
    )
    return parts


def finish_statistics(
    parts: Parts, maps: Tensor, running_mean: Tensor, running_variance: Tensor, momentum: float, runs: int = 1
) -> tuple[Tensor, Tensor]:
    """Compute mean and biased variance (C,) of ``maps`` from their parts, and update the running estimates."""
    *_, channels = parts.values.shape
    mean, variance = torch.empty_like(running_mean), torch.empty_like(running_variance)
    _start(
        device_code.statistics,
        (channels // 8, 1, runs),
        8,
        (parts.values, mean, variance, running_mean, running_variance, parts.images // runs, momentum),
        H=maps.shape[2],
        W=maps.shape[3],
        C=channels,
        ROWS=parts.rows,
        BLOCKS=512,
        CHANNELS=8,
    )
    return mean, variance


@dataclass(frozen=True)
class Norm:
    """The statistics, weight and bias (C,) of a BN layer, in fp32."""

    mean: Tensor
    variance: Tensor
    weight: Tensor
    bias: Tensor
    eps: float


@dataclass(frozen=True)
class Shortcut:
    """Every ``stride``-th pixel in each direction, with ``before`` channels of zeros before the input's channels."""

    stride: int = 1
    before: int = 0


def normalize(raw: Tensor, norm: Norm, short: Tensor | None, shortcut: Shortcut | None, runs: int = 1) -> Tensor:
    """Compute max(0, BN(raw) + shortcut); ``short`` is the shortcut's input, None without a shortcut."""
    images, channels, height, width = raw.shape
    y = torch.empty_like(raw)
    pixels = _settings.values // channels
    _start(
        device_code.normalize,
        (triton.cdiv(images // runs * height * width, pixels), 1, runs),
        4,
        (raw, norm.mean, norm.variance, norm.weight, norm.bias, raw if short is None else short, y, images // runs,
         norm.eps),
        H=height,
        W=width,
        C=channels,
        **_shortcut_constants(short, shortcut),
        PIXELS=pixels,
    )  # fmt: skip
    return y


def _shortcut_constants(short: Tensor | None, shortcut: Shortcut | None) -> dict[str, int]:
    if short is None:
        return {"SHORT": 0, "HS": 1, "WS": 1, "CS": 1, "BEFORE": 0}
    _, channels, height, width = short.shape
    return {"SHORT": shortcut.stride, "HS": height, "WS": width, "CS": channels, "BEFORE": shortcut.before}


def output_gradient(outer: Tensor, y: Tensor, raw: Tensor, norm: Norm, runs: int = 1) -> tuple[Tensor, Parts]:
    """Compute the gradient of BN's output, and parts of its sums, from the gradient ``outer`` of y = max(0, BN ...)."""
    images, channels, height, width = raw.shape
    g, pixels = torch.empty_like(raw), _settings.values // channels
    blocks = triton.cdiv(images // runs * height * width, pixels)
    parts = _empty_parts(blocks * runs, channels, 0, images, raw)
    _start(
        device_code.output_gradient,
        (blocks, 1, runs),
        4,
        (outer, y, raw, norm.mean, norm.variance, g, parts.values, images // runs, norm.eps),
        H=height,
        W=width,
        C=channels,
        PIXELS=pixels,
    )
    return g, parts


def input_gradient(
    d: Tensor,
    weight: Tensor,
    stride: int,
    short: Tensor | None,
    shortcut: Shortcut | None,
    y: Tensor,
    raw: Tensor,
    norm: Norm,
    runs: int = 1,
) -> tuple[Tensor, Parts]:
    """Compute the same as :func:`output_gradient` for a convolution's input y, from its output's gradient ``d``.

    ``short``: the gradient of the output of a shortcut from y, None without a shortcut.
    """
    images, ci, hi, wi = y.shape
    _, co, ho, wo = d.shape
    blocks, g = _convolution_blocks(images, hi, wi, ci), torch.empty_like(y)
    parts = _empty_parts(blocks.count, ci, blocks.rows, images, y)
    _start(
        device_code.input_gradient,
        (blocks.count // runs, ci // blocks.columns, runs),
        _settings.warps,
        (d, weight, d if short is None else short, y, raw, norm.mean, norm.variance, g, parts.values, images // runs,
         norm.eps),
        HI=hi,
        WI=wi,
        HO=ho,
        WO=wo,
        CI=ci,
        CO=co,
        S=stride,
        **_shortcut_constants(short, shortcut),
        ROWS=blocks.rows,
        WIDE=blocks.wide,
        COLUMNS=blocks.columns,
        EXACT=blocks.exact,
    )  # fmt: skip
    return g, parts


def finish_sums(parts: Parts, runs: int = 1) -> Tensor:
    """Compute BN's sums (2, C): the gradients of its bias and of its weight."""
    blocks, _, channels = parts.values.shape
    sums = torch.empty((runs * 2, channels), dtype=torch.float32, device=parts.values.device)
    _start(
        device_code.add_parts,
        (2 * channels // 8, 1, runs),
        8,
        (parts.values, sums, blocks // runs),
        SIZE=2 * channels,
        PARTS=512,
        VALUES=8,
    )
    return sums


def normalize_gradient(raw: Tensor, g: Tensor, norm: Norm, sums: Tensor, runs: int = 1) -> Tensor:
    """Compute the gradient of BN's input from the gradient of its output and the sums."""
    images, channels, height, width = raw.shape
    d, pixels = torch.empty_like(raw), _settings.values // channels
    _start(
        device_code.normalize_gradient,
        (triton.cdiv(images // runs * height * width, pixels), 1, runs),
        4,
        (raw, g, norm.mean, norm.variance, norm.weight, sums, d, images // runs, norm.eps),
        H=height,
        W=width,
        C=channels,
        PIXELS=pixels,
    )
    return d


def _weight_blocks(d: Tensor, runs: int) -> int:
    images, _, height, width = d.shape
    return triton.cdiv(images // runs * height * width, _settings.weight_pixels * _settings.weight_steps)


def weight_parts(x: Tensor, d: Tensor, count: int, runs: int = 1) -> Tensor:
    """Allocate the parts (count * runs, blocks, out * 9 * in) of the weight gradients of ``count`` convolutions."""
    size = 9 * x.shape[1] * d.shape[1]
    return torch.empty((count * runs, _weight_blocks(d, runs), size), dtype=torch.float32, device=x.device)


def weight_gradient(x: Tensor, d: Tensor, stride: int, parts: Tensor, runs: int = 1) -> None:
    """Write the parts (runs, blocks, out * 9 * in) of a convolution's weight gradient; ``d``: its output's gradient."""
    images, ci, hi, wi = x.shape
    _, co, ho, wo = d.shape
    columns = min(co, _settings.weight_columns)
    _start(
        device_code.weight_gradient,
        (_weight_blocks(d, runs), 3 * (co // columns), runs),
        ci // 16,
        (x, d, parts, images // runs),
        HI=hi,
        WI=wi,
        HO=ho,
        WO=wo,
        CI=ci,
        CO=co,
        S=stride,
        COLUMNS=columns,
        PIXELS=_settings.weight_pixels,
        STEPS=_settings.weight_steps,
    )


def image_weight_gradient(x: Tensor, d: Tensor, parts: Tensor, runs: int = 1) -> None:
    """Write the parts (runs, blocks, out * 27) of the weight gradient of the convolution of images."""
    images, co, height, width = d.shape
    _start(
        device_code.stem_weight_gradient,
        (_weight_blocks(d, runs), 1, runs),
        1,
        (x, d, parts, images // runs, *x.stride()),
        H=height,
        W=width,
        CO=co,
        PIXELS=_settings.weight_pixels,
        STEPS=_settings.weight_steps,
    )


def finish_weights(parts: Tensor, dtype: torch.dtype) -> Tensor:
    """Sum parts (count, blocks, size) to (count, size), in ``dtype``."""
    count, blocks, size = parts.shape
    values = 128 if size <= 9 * 16 * 32 else 512
    sums = torch.empty((count, size), dtype=dtype, device=parts.device)
    _start(
        device_code.add_parts,
        (triton.cdiv(size, values), count),
        4,
        (parts, sums, blocks),
        SIZE=size,
        PARTS=16,
        VALUES=values,
    )
    return sums
