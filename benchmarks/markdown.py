"""The throughput benchmark's results as a page to read."""

import statistics
import textwrap
from collections.abc import Sequence

from benchmarks.measuring import Rates
from benchmarks.results import ModelResult, Results, TableResult

NOTHING = "–"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table. A column in which no row has anything is left out."""
    kept = [i for i in range(len(head)) if not rows or any(row[i] != NOTHING for row in rows)]
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line[i] for i in kept) + " |\n" for line in lines)


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Median (lowest to highest)."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def number(value: float | None, digits: int = 0, suffix: str = "") -> str:
    return NOTHING if value is None else f"{value:,.{digits}f}{suffix}"


def percent(fraction: float | None) -> str:
    return number(None if fraction is None else 100 * fraction, 1, " %")


def paragraph(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False) + "\n"


def versions_sentence(versions: dict, code: dict) -> str:
    """Software and code, from :mod:`reproductions.harness.provenance`."""
    parts = [f"Python {versions['python']}", f"torch {versions['torch']}"]
    parts += [f"CUDA {versions['cuda']}", f"cuDNN {versions['cudnn']}"] if versions.get("cuda") else []
    changed = " with changes" if code["modified"] else ""
    commit = f"; code of commit {code['commit'][:10]}{changed}" if code["commit"] else ""
    return f"{', '.join(parts)}{commit}."


def page(results: Results) -> str:
    """The whole page."""
    parts = [f"# Training throughput on {results.hardware['device']}\n"]
    parts += [model_section(result) for result in results.models]
    if results.table:
        parts.append(_table6(results.table))
    if results.models:
        parts.append(_floors(results))
    parts.append(_explanation(results))
    return "\n".join(parts)


def _energy(rates: Rates) -> str:
    joules = rates.joules_per_1000_images
    return NOTHING if joules is None else spread(joules, 2)


def model_section(result: ModelResult) -> str:
    """The loops of one model, with a heading."""
    head = ("", "runs", "images/s", "images/s per run", "× conventional", "of the floor", "memory, GiB",
            "J per 1,000 images")  # fmt: skip
    rows, left_out = [], ""
    for row in result.rows:
        if row.rates is None:
            left_out += f"\n{row.name}, {row.runs} runs: left out, {row.left_out}.\n"
            continue
        rows.append(
            (
                row.name,
                str(row.runs),
                spread(row.rates.images_per_second),
                number(row.rates.median / row.runs),
                number(row.ratio, 2),
                percent(row.of_floor),
                number(row.memory_gib, 2),
                _energy(row.rates),
            )
        )
    return f"## {result.model}\n\n{table(head, rows)}{left_out}"


def _table6(result: TableResult) -> str:
    head = ("seeds of each net at once", "runs at once", "images/s", "memory, GiB", "J per 1,000 images",
            "training, minutes", "with evaluations, minutes")  # fmt: skip
    rows, left_out = [], ""
    for row in result.rows:
        if row.rates is None:
            left_out += f"\n{row.runs} runs at once: left out, {row.left_out}.\n"
            continue
        rows.append(
            (
                str(row.seeds),
                str(row.runs),
                spread(row.rates.images_per_second),
                number(row.memory_gib, 2),
                _energy(row.rates),
                number(row.minutes, 1),
                number(row.minutes + result.evaluation_minutes, 1),
            )
        )
    text = f"""The {result.runs} runs of Table 6 ({", ".join(result.models)}; {result.iterations:,} iterations each) at
        the measured rate of a mixed pack, in which every run takes as many steps. Evaluations: {result.evaluations} a
        run, measured one after another with the device to themselves: {result.evaluation_minutes:.1f} minutes in all.
        Without checkpoints, and without preparing the runs."""
    if result.floor_minutes is not None:
        text += f" At the floor's rate the training would take {result.floor_minutes:.1f} minutes."
    return f"## Table 6\n\n{table(head, rows)}{left_out}\n{paragraph(text)}"


def _floors(results: Results) -> str:
    head = ("model", "GFLOP a step", "MB a step", "floor, µs a step", "limited by", "images/s at the floor",
            "MB with a cache", "images/s at the floor with a cache", "best, of the floor with a cache")  # fmt: skip
    rows = []
    for result in results.models:
        least = result.floor
        best = max((row.of_floor_with_cache for row in result.rows if row.of_floor_with_cache), default=None)
        rows.append(
            (
                result.model,
                number(least.flops / 1e9, 1),
                number(least.bytes / 1e6, 1),
                number(least.seconds * 1e6, 1),
                least.limited_by,
                number(results.batch / least.seconds),
                number(least.bytes_with_cache / 1e6, 1),
                number(results.batch / least.seconds_with_cache),
                percent(best),
            )
        )
    limits = results.limits
    convolution = ", the first with a large convolution among them" if results.hardware["type"] == "cpu" else ""
    text = f"""The floor of a step of one run at batch {results.batch}: its FLOPs over the device's own measured rate of
        matrix products in {limits.precision}, {limits.flops_per_second / 1e12:,.2f} TFLOP/s, or the bytes that must
        move over its own measured copy bandwidth, {limits.bytes_per_second / 1e9:,.0f} GB/s (read and written),
        whichever takes longer; both rates are the best of several measurements{convolution}. FLOPs are those of
        directly computed convolutions, forward and backward. Bytes: what a step moves if everything between two batch
        norms is fused perfectly, and no cache holds anything from one to the next; "with a cache" is what is left if a
        cache held all that passes between neighbouring layers, and only what the backward pass needs again went
        through memory. Both are derived in resnet/models/complexity.py."""
    return f"## The floor\n\n{table(head, rows)}\n{paragraph(text)}"


def _explanation(results: Results) -> str:
    energy = any(row.rates and row.rates.joules_per_1000_images for result in results.models for row in result.rows)
    memory = any(row.memory_gib is not None for result in results.models for row in result.rows)
    text = f"""Training images per second at batch {results.batch}: median (lowest to highest) of {results.rounds}
        rounds of about {results.seconds:g} s, the loops in turn in one process; {results.hardware["threads"]} thread(s)
        and {results.workers} DataLoader workers. The ratio is the median of the rounds' ratios. Conventional loop:
        torchvision transforms in a DataLoader, fp32, eager, NCHW. One run and packed: resnet.trainer, in
        {results.limits.precision}."""
    if results.hardware["type"] == "cpu":
        text += """ All loops have the settings of memory that resnet.trainer makes for its process
            (resnet.device.keep_freed_memory); by itself the conventional loop would do without."""
    if memory:
        text += " Memory: reserved by PyTorch at the peak, data set included."
    if energy:
        text += " Energy: NVML's counter of the whole GPU."
    text += f" {versions_sentence(results.versions, results.code)} Made again by `make bench`."
    return paragraph(text)
