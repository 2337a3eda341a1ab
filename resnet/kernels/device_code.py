"""The kernels themselves, in Triton; :mod:`resnet.kernels.launching` starts them.

Maps are channels-last: the channels of a pixel lie side by side. Weights are (out, 3, 3, in), the layout of
channels-last convolutions. Products are summed in fp32, and every sum has a fixed order: a block leaves its part, and
a later kernel adds the parts up. A kernel is compiled for the sizes of its maps, but for any number of images N.

Where one launch trains several runs, each tensor holds the values of one run after the values of another, and the
last axis of the grid is the run. A block of pixels is ROWS rows of WIDE pixels of one image. WIDE is a power of two;
where W is less than WIDE, or ROWS does not divide H, EXACT is false and the kernel leaves out the pixels outside.
"""

import triton
import triton.language as tl


@triton.jit
def _of_run(pointer, size):
    """Return the address of this run's values in a tensor that holds ``size`` values of each run."""
    return pointer + tl.program_id(2).to(tl.int64) * size


@triton.jit
def _pixels(H: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr):
    """Return the image of this block, and the row and the column of each of its pixels."""
    blocks: tl.constexpr = (H + ROWS - 1) // ROWS
    block, i = tl.program_id(0), tl.arange(0, ROWS * WIDE)
    return block // blocks, (block % blocks) * ROWS + i // WIDE, i % WIDE


@triton.jit
def _reaches(h, tap: tl.constexpr, SIZE: tl.constexpr, S: tl.constexpr, TURNED: tl.constexpr, EXACT: tl.constexpr):
    """Tell for each h if a tap meets one of SIZE rows (or columns) of x; comparisons that always hold are left out."""
    if TURNED:
        at = h + 1 - tap
        if S == 2:
            return (at & 1 == 0) & (at >= 0) & (at < 2 * SIZE)
        low: tl.constexpr = tap == 2
        high: tl.constexpr = tap == 0 or not EXACT
    else:
        at = h * S + tap - 1
        low: tl.constexpr = tap == 0
        high: tl.constexpr = (tap == 2 and S == 1) or not EXACT
    if low and high:
        return (at >= 0) & (at < SIZE)
    if low:
        return at >= 0
    if high:
        return at < SIZE
    return h >= 0


@triton.jit
def _distance(tap: tl.constexpr, S: tl.constexpr, TURNED: tl.constexpr):
    """Return the distance from the pixel to the row of x that a tap meets; turned, with stride 2, from row h // 2."""
    if not TURNED:
        return tap - 1
    if S == 1:
        return 1 - tap
    return 1 if tap == 0 else 0


@triton.jit
def _convolved(
    x, w, h, v, columns, H: tl.constexpr, W: tl.constexpr, CI: tl.constexpr, CHANNELS: tl.constexpr,
    S: tl.constexpr, TURNED: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Convolve an image x of H x W pixels and CHANNELS, 3x3, at the pixels (h, v), for output ``columns``.

    TURNED: x is the gradient of a convolution's output, and the result is the gradient of its input of CI channels.
    """
    k = tl.arange(0, CHANNELS)
    if TURNED:
        pixel = h // S * W + v // S
        weights = w + k[:, None] * (9 * CI) + columns[None, :]
    else:
        pixel = h * S * W + v * S
        weights = w + columns[None, :] * (9 * CI) + k[:, None]
    at = x + pixel[:, None] * CHANNELS + k[None, :]
    sums = tl.zeros((h.shape[0], columns.shape[0]), tl.float32)
    for r in tl.static_range(3):
        meets_row = _reaches(h, r, H, S, TURNED, EXACT)
        for s in tl.static_range(3):
            meets = meets_row & _reaches(v, s, W, S, TURNED, EXACT)
            away = _distance(r, S, TURNED) * W + _distance(s, S, TURNED)
            a = tl.load(at + away * CHANNELS, mask=meets[:, None], other=0.0)
            sums = tl.dot(a, tl.load(weights + (r * 3 + s) * CI), sums, input_precision="ieee")
    return sums


@triton.jit
def _leave_statistics(
    values, part, inside, columns, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, ROWS: tl.constexpr,
    EXACT: tl.constexpr,
):  # fmt: skip
    """Store the sum of a block's values, and the sum of their squared deviations from the block's mean."""
    values = values.to(tl.float32)
    if not EXACT:
        values = tl.where(inside, values, 0.0)
    blocks: tl.constexpr = (H + ROWS - 1) // ROWS
    block = tl.program_id(0)
    count = tl.minimum(H - (block % blocks) * ROWS, ROWS) * W
    total = tl.sum(values, 0)
    deviations = values - (total / count)[None, :]
    if not EXACT:
        deviations = tl.where(inside, deviations, 0.0)
    tl.store(part + block * 2 * C + columns, total)
    tl.store(part + block * 2 * C + C + columns, tl.sum(deviations * deviations, 0))


@triton.jit
def _store_with_statistics(
    sums, y, part, n, h, v, columns, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, ROWS: tl.constexpr,
    EXACT: tl.constexpr, STATISTICS: tl.constexpr,
):  # fmt: skip
    """Store a block of maps, and the statistics of the stored values."""
    inside = ((h < H) & (v < W))[:, None]
    values = sums.to(y.dtype.element_ty)
    at = y + ((n * H + h) * W + v)[:, None] * C + columns[None, :]
    if EXACT:
        tl.store(at, values)
    else:
        tl.store(at, values, mask=inside)
    if STATISTICS:
        _leave_statistics(values, part, inside, columns, H, W, C, ROWS, EXACT)


@triton.jit
def convolution(
    x, w, y, part, N, HI: tl.constexpr, WI: tl.constexpr, HO: tl.constexpr, WO: tl.constexpr, CI: tl.constexpr,
    CO: tl.constexpr, S: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr, COLUMNS: tl.constexpr,
    EXACT: tl.constexpr, STATISTICS: tl.constexpr,
):  # fmt: skip
    """Compute y = x * w, padded by 1, with stride S; part (blocks, 2, CO): the blocks' parts of BN's statistics."""
    blocks: tl.constexpr = (HO + ROWS - 1) // ROWS
    x, w, y = _of_run(x, N * HI * WI * CI), _of_run(w, 9 * CI * CO), _of_run(y, N * HO * WO * CO)
    part = _of_run(part, N * blocks * 2 * CO)
    n, h, v = _pixels(HO, ROWS, WIDE)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    sums = _convolved(x + n * HI * WI * CI, w, h, v, columns, HI, WI, CI, CI, S, False, EXACT)
    _store_with_statistics(sums, y, part, n, h, v, columns, HO, WO, CO, ROWS, EXACT, STATISTICS)


@triton.jit
def _around(x, n, h, v, valid, k, image, channel, row, column, H: tl.constexpr, W: tl.constexpr):
    """Load the values that the taps k < 27 of a convolution meet at pixels (h, v) of 3-channel images; 0 outside.

    k runs along one axis and the pixels along the other.
    """
    tap, c = k // 3, k % 3
    hh, vv = h + tap // 3 - 1, v + tap % 3 - 1
    meets = valid & (k < 27) & (hh >= 0) & (hh < H) & (vv >= 0) & (vv < W)
    return tl.load(x + n * image + c * channel + hh * row + vv * column, mask=meets, other=0.0)


@triton.jit
def stem_convolution(
    x, w, y, part, N, image, channel, row, column, H: tl.constexpr, W: tl.constexpr, CO: tl.constexpr,
    ROWS: tl.constexpr, WIDE: tl.constexpr, EXACT: tl.constexpr, STATISTICS: tl.constexpr,
):  # fmt: skip
    """Convolve images x of 3 channels, any strides, and any dtype; x is cast to the dtype of w."""
    blocks: tl.constexpr = (H + ROWS - 1) // ROWS
    x, w, y = _of_run(x, N * image), _of_run(w, 27 * CO), _of_run(y, N * H * W * CO)
    part = _of_run(part, N * blocks * 2 * CO)
    n, h, v = _pixels(H, ROWS, WIDE)
    k, columns = tl.arange(0, 32), tl.arange(0, CO)
    valid = (h < H) & (v < W)
    a = _around(x, n, h[:, None], v[:, None], valid[:, None], k[None, :], image, channel, row, column, H, W)
    b = tl.load(w + columns[None, :] * 27 + k[:, None], mask=(k < 27)[:, None], other=0.0)
    sums = tl.dot(a.to(w.dtype.element_ty), b, input_precision="ieee")
    _store_with_statistics(sums, y, part, n, h, v, columns, H, W, CO, ROWS, EXACT, STATISTICS)


@triton.jit
def map_statistics(
    x, part, N, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr,
    EXACT: tl.constexpr,
):  # fmt: skip
    """Compute part (blocks, 2, C), the blocks' parts of BN's statistics, of maps x that the library computed."""
    x, part = _of_run(x, N * H * W * C), _of_run(part, tl.num_programs(0) * 2 * C)
    n, h, v = _pixels(H, ROWS, WIDE)
    inside, c = ((h < H) & (v < W))[:, None], tl.arange(0, C)
    values = tl.load(x + ((n * H + h) * W + v)[:, None] * C + c[None, :], mask=inside, other=0.0)
    _leave_statistics(values, part, inside, c, H, W, C, ROWS, EXACT)


@triton.jit
def statistics(
    part, mean, variance, running_mean, running_variance, N, momentum, H: tl.constexpr, W: tl.constexpr,
    C: tl.constexpr, ROWS: tl.constexpr, BLOCKS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Combine the parts of all blocks to mean and biased variance, and update the running estimates.

    The variance is combined from the blocks' sums and squared deviations (Chan, Golub, LeVeque 1979), so it is exact
    to rounding even where the mean is large beside the deviations.
    """
    per_image: tl.constexpr = (H + ROWS - 1) // ROWS
    blocks, total = N * per_image, N * H * W
    part = _of_run(part, blocks * 2 * C)
    c, i = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS), tl.arange(0, BLOCKS)
    sums = tl.zeros((BLOCKS, CHANNELS), tl.float32)
    for first in range(0, blocks, BLOCKS):
        block = (first + i)[:, None]
        sums += tl.load(part + block * 2 * C + c[None, :], mask=block < blocks, other=0.0)
    centre = tl.sum(sums, 0) / total
    squares = tl.zeros((BLOCKS, CHANNELS), tl.float32)
    for first in range(0, blocks, BLOCKS):
        block = (first + i)[:, None]
        at, there = part + block * 2 * C + c[None, :], block < blocks
        count = (tl.minimum(H - (block % per_image) * ROWS, ROWS) * W).to(tl.float32)
        away = tl.load(at, mask=there, other=0.0) / count - centre[None, :]
        squares += tl.load(at + C, mask=there, other=0.0) + tl.where(there, away * away * count, 0.0)
    spread = tl.sum(squares, 0)
    tl.store(_of_run(mean, C) + c, centre)
    tl.store(_of_run(variance, C) + c, spread / total)
    at_mean, at_variance = _of_run(running_mean, C) + c, _of_run(running_variance, C) + c
    tl.store(at_mean, (1 - momentum) * tl.load(at_mean) + momentum * centre)
    tl.store(at_variance, (1 - momentum) * tl.load(at_variance) + momentum * (spread / (total - 1)))


@triton.jit
def _inverse(variance, eps):
    """Return the reciprocal of the standard deviation."""
    return 1.0 / tl.sqrt_rn(variance + eps)


@triton.jit
def normalize(
    raw, mean, variance, weight, bias, short, y, N, eps, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr,
    SHORT: tl.constexpr, HS: tl.constexpr, WS: tl.constexpr, CS: tl.constexpr, BEFORE: tl.constexpr,
    PIXELS: tl.constexpr,
):  # fmt: skip
    """Compute y = max(0, BN(raw) + shortcut). SHORT: the shortcut's stride in ``short`` (HS, WS, CS), or 0 without one.

    The shortcut has the CS channels of ``short`` after BEFORE channels of zeros, and zeros up to C channels.
    """
    p, c = (tl.program_id(0) * PIXELS + tl.arange(0, PIXELS))[:, None], tl.arange(0, C)
    at, there = p * C + c[None, :], p < N * H * W
    scale = _inverse(tl.load(_of_run(variance, C) + c), eps) * tl.load(_of_run(weight, C) + c)
    values = tl.load(_of_run(raw, N * H * W * C) + at, mask=there, other=0.0).to(tl.float32)
    values -= tl.load(_of_run(mean, C) + c)[None, :]
    values = values * scale[None, :] + tl.load(_of_run(bias, C) + c)[None, :]
    if SHORT:
        if CS != C or SHORT != 1:
            n, h, v = p // (H * W), p // W % H, p % W
            from_channel = c[None, :] - BEFORE
            at_short = ((n * HS + h * SHORT) * WS + v * SHORT) * CS + from_channel
            there_short = there & (from_channel >= 0) & (from_channel < CS)
            values += tl.load(_of_run(short, N * HS * WS * CS) + at_short, mask=there_short, other=0.0).to(tl.float32)
        else:
            values += tl.load(_of_run(short, N * H * W * C) + at, mask=there, other=0.0).to(tl.float32)
    values = tl.where(values < 0, 0.0, values)  # NaN stays NaN
    tl.store(_of_run(y, N * H * W * C) + at, values.to(y.dtype.element_ty), mask=there)


@triton.jit
def _store_gradient(values, g, part, raw, mean, variance, eps, at, there, columns, C: tl.constexpr):
    """Store a block of the gradient of BN's output, its sum, and the sum of its products with the normalised input."""
    values = values.to(g.dtype.element_ty)
    tl.store(g + at, values, mask=there)
    values = tl.where(there, values.to(tl.float32), 0.0)
    away = tl.load(raw + at, mask=there, other=0.0).to(tl.float32) - tl.load(mean + columns)[None, :]
    scaled = away * _inverse(tl.load(variance + columns), eps)[None, :]
    block = tl.program_id(0)
    tl.store(part + block * 2 * C + columns, tl.sum(values, 0))
    tl.store(part + block * 2 * C + C + columns, tl.sum(values * scaled, 0))


@triton.jit
def output_gradient(
    outer, y, raw, mean, variance, g, part, N, eps, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr,
    PIXELS: tl.constexpr,
):  # fmt: skip
    """Compute g, the gradient ``outer`` of y where y is above 0, else 0; part (blocks, 2, C): parts of BN's sums."""
    size = N * H * W * C
    p, c = (tl.program_id(0) * PIXELS + tl.arange(0, PIXELS))[:, None], tl.arange(0, C)
    at, there = p * C + c[None, :], p < N * H * W
    values = tl.load(_of_run(outer, size) + at, mask=there, other=0.0).to(tl.float32)
    values = tl.where(tl.load(_of_run(y, size) + at, mask=there, other=0.0) <= 0, 0.0, values)
    part = _of_run(part, tl.num_programs(0) * 2 * C)
    own_mean, own_variance = _of_run(mean, C), _of_run(variance, C)
    _store_gradient(values, _of_run(g, size), part, _of_run(raw, size), own_mean, own_variance, eps, at, there, c, C)


@triton.jit
def input_gradient(
    d, w, short, y, raw, mean, variance, g, part, N, eps, HI: tl.constexpr, WI: tl.constexpr, HO: tl.constexpr,
    WO: tl.constexpr, CI: tl.constexpr, CO: tl.constexpr, S: tl.constexpr, SHORT: tl.constexpr, HS: tl.constexpr,
    WS: tl.constexpr, CS: tl.constexpr, BEFORE: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr,
    COLUMNS: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Compute g, the gradient of BN's output below a convolution, from the gradient d (HO, WO, CO) of its output.

    y = max(0, BN(raw) ...) is the convolution's input, so g is 0 where y is 0. SHORT: the stride of a shortcut from y,
    or 0 without one; ``short`` (HS, WS, CS) is the gradient of its output and is added to the gradient of y. part
    (blocks, 2, CI): parts of BN's two sums.
    """
    blocks: tl.constexpr = (HI + ROWS - 1) // ROWS
    size = N * HI * WI * CI
    n, h, v = _pixels(HI, ROWS, WIDE)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    own_d, own_w = _of_run(d, N * HO * WO * CO) + n * HO * WO * CO, _of_run(w, 9 * CI * CO)
    values = _convolved(own_d, own_w, h, v, columns, HO, WO, CI, CO, S, True, EXACT)
    inside = (h < HI) & (v < WI)
    at, there = ((n * HI + h) * WI + v)[:, None] * CI + columns[None, :], inside[:, None]
    if SHORT:
        at_short = ((n * HS + h // SHORT) * WS + v // SHORT)[:, None] * CS + columns[None, :] + BEFORE
        there_short = inside & (h % SHORT == 0) & (v % SHORT == 0)
        own_short = _of_run(short, N * HS * WS * CS)
        values += tl.load(own_short + at_short, mask=there_short[:, None], other=0.0).to(tl.float32)
    values = tl.where(tl.load(_of_run(y, size) + at, mask=there, other=0.0) <= 0, 0.0, values)
    part = _of_run(part, N * blocks * 2 * CI)
    own_mean, own_variance = _of_run(mean, CI), _of_run(variance, CI)
    _store_gradient(values, _of_run(g, size), part, _of_run(raw, size), own_mean, own_variance, eps, at, there,
                    columns, CI)  # fmt: skip


@triton.jit
def normalize_gradient(
    raw, g, mean, variance, weight, sums, d, N, eps, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr,
    PIXELS: tl.constexpr,
):  # fmt: skip
    """Compute d, the gradient of BN's input raw, from the gradient g of its output and the sums (2, C); d may be g."""
    size, count = N * H * W * C, N * H * W
    p, c = (tl.program_id(0) * PIXELS + tl.arange(0, PIXELS))[:, None], tl.arange(0, C)
    at, there = p * C + c[None, :], p < count
    inverse = _inverse(tl.load(_of_run(variance, C) + c), eps)
    sums = _of_run(sums, 2 * C) + c
    offset, slope = tl.load(sums) / count, inverse * (tl.load(sums + C) / count)
    away = tl.load(_of_run(raw, size) + at, mask=there, other=0.0).to(tl.float32)
    away -= tl.load(_of_run(mean, C) + c)[None, :]
    values = tl.load(_of_run(g, size) + at, mask=there, other=0.0).to(tl.float32) - offset[None, :]
    values = (values - away * slope[None, :]) * (inverse * tl.load(_of_run(weight, C) + c))[None, :]
    tl.store(_of_run(d, size) + at, values.to(d.dtype.element_ty), mask=there)


@triton.jit
def weight_gradient(
    x, d, part, N, HI: tl.constexpr, WI: tl.constexpr, HO: tl.constexpr, WO: tl.constexpr, CI: tl.constexpr,
    CO: tl.constexpr, S: tl.constexpr, COLUMNS: tl.constexpr, PIXELS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Compute part (blocks, CO, 9, CI), each block's share of the gradient of w; a block takes a row of three taps."""
    block, r = tl.program_id(0), tl.program_id(1) % 3
    x, d = _of_run(x, N * HI * WI * CI), _of_run(d, N * HO * WO * CO)
    ci, co = tl.arange(0, CI)[None, :], (tl.program_id(1) // 3 * COLUMNS + tl.arange(0, COLUMNS))[:, None]
    left = tl.zeros((COLUMNS, CI), tl.float32)
    middle, right = left, left
    for step in range(STEPS):
        p = (block * STEPS + step) * PIXELS + tl.arange(0, PIXELS)
        there = p < N * HO * WO
        n, h, v = p // (HO * WO), p // WO % HO * S + r - 1, p % WO * S
        row = there & (h >= 0) & (h < HI)
        a = tl.load(d + p[None, :] * CO + co, mask=there[None, :], other=0.0)
        at = x + ((n * HI + h) * WI + v)[:, None] * CI + ci
        b = tl.load(at - CI, mask=(row & (v >= 1))[:, None], other=0.0)
        left = tl.dot(a, b, left, input_precision="ieee")
        b = tl.load(at, mask=row[:, None], other=0.0)
        middle = tl.dot(a, b, middle, input_precision="ieee")
        b = tl.load(at + CI, mask=(row & (v + 1 < WI))[:, None], other=0.0)
        right = tl.dot(a, b, right, input_precision="ieee")
    part = _of_run(part, tl.num_programs(0) * 9 * CI * CO)
    at = part + ((block * CO + co) * 9 + r * 3) * CI + ci
    tl.store(at, left)
    tl.store(at + CI, middle)
    tl.store(at + 2 * CI, right)


@triton.jit
def stem_weight_gradient(
    x, d, part, N, image, channel, row, column, H: tl.constexpr, W: tl.constexpr, CO: tl.constexpr,
    PIXELS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Compute part (blocks, CO, 27), each block's share of the gradient of the first convolution's weights."""
    block, k, co = tl.program_id(0), tl.arange(0, 32)[None, :], tl.arange(0, CO)[:, None]
    x, d = _of_run(x, N * image), _of_run(d, N * H * W * CO)
    sums = tl.zeros((CO, 32), tl.float32)
    for step in range(STEPS):
        p = (block * STEPS + step) * PIXELS + tl.arange(0, PIXELS)
        a = tl.load(d + p[None, :] * CO + co, mask=(p < N * H * W)[None, :], other=0.0)
        q = p[:, None]
        b = _around(x, q // (H * W), q // W % H, q % W, q < N * H * W, k, image, channel, row, column, H, W)
        sums = tl.dot(a, b.to(d.dtype.element_ty), sums, input_precision="ieee")
    part = _of_run(part, tl.num_programs(0) * 27 * CO)
    tl.store(part + (block * CO + co) * 27 + k, sums, mask=k < 27)


@triton.jit
def add_parts(part, out, BLOCKS, SIZE: tl.constexpr, PARTS: tl.constexpr, VALUES: tl.constexpr):
    """Sum part (BLOCKS, SIZE) over the blocks to out (SIZE), for each index of the grid's other axes."""
    which = tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)
    i, block = (tl.program_id(0) * VALUES + tl.arange(0, VALUES))[None, :], tl.arange(0, PARTS)[:, None]
    part += which.to(tl.int64) * BLOCKS * SIZE
    sums = tl.zeros((PARTS, VALUES), tl.float32)
    for first in range(0, BLOCKS, PARTS):
        there = (first + block < BLOCKS) & (i < SIZE)
        sums += tl.load(part + (first + block) * SIZE + i, mask=there, other=0.0)
    at = tl.program_id(0) * VALUES + tl.arange(0, VALUES)
    tl.store(out + which.to(tl.int64) * SIZE + at, tl.sum(sums, 0).to(out.dtype.element_ty), mask=at < SIZE)
