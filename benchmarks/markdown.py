"""Markdown pages of benchmark results."""

import statistics
import textwrap
from collections.abc import Sequence

from benchmarks.measuring import Rates
from benchmarks.results import ModelResult, Results, TableResult

NOTHING = "–"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Render a Markdown table without its empty columns."""
    kept = [i for i in range(len(head)) if not rows or any(row[i] != NOTHING for row in rows)]
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line[i] for i in kept) + " |\n" for line in lines)


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Format values as median (lowest to highest)."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def number(value: float | None, digits: int = 0, suffix: str = "") -> str:
    """Format a number, and None as a dash."""
    return NOTHING if value is None else f"{value:,.{digits}f}{suffix}"


def percent(fraction: float | None) -> str:
    """Format a fraction in percent, and None as a dash."""
    return number(None if fraction is None else 100 * fraction, 1, " %")


def paragraph(text: str) -> str:
    """Wrap a text into lines of at most 120 characters."""
    return textwrap.fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False) + "\n"


def versions_sentence(versions: dict, code: dict) -> str:
    """Describe software versions and code in a sentence, from :mod:`reproductions.harness.provenance`."""
    parts = [f"Python {versions['python']}", f"torch {versions['torch']}"]
    parts += [f"CUDA {versions['cuda']}", f"cuDNN {versions['cudnn']}"] if versions.get("cuda") else []
    changed = " with changes" if code["modified"] else ""
    commit = f"; code of commit {code['commit'][:10]}{changed}" if code["commit"] else ""
    return f"{', '.join(parts)}{commit}."


def page(results: Results) -> str:
    """Render the throughput benchmark's page."""
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
    """Render the table of one model's loops with a heading."""
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
    text = f"""Estimated time of the {result.runs} runs of Table 6 ({", ".join(result.models)}; {result.iterations:,}
        iterations each) at the measured rate of a mixed pack, in which all runs take the same number of steps. Each run
        has {result.evaluations} evaluations. Measured one after another on the otherwise idle device, all evaluations
        take {result.evaluation_minutes:.1f} minutes. Checkpoints and the preparation of runs are not included."""
    if result.floor_minutes is not None:
        text += f" At the floor's rate training would take {result.floor_minutes:.1f} minutes."
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
    convolution = "; the first includes a large convolution" if results.hardware["type"] == "cpu" else ""
    text = f"""The floor is a lower bound on the time of a step of one run at batch {results.batch}. It is the longer of
        two times: the step's FLOPs divided by the device's measured rate of matrix products in {limits.precision},
        {limits.flops_per_second / 1e12:,.2f} TFLOP/s, and the bytes that must move divided by its measured copy
        bandwidth, {limits.bytes_per_second / 1e9:,.0f} GB/s (read and written). Both rates are the best of several
        measurements{convolution}. FLOPs are counted for direct convolutions, forward and backward. Bytes are counted
        with everything between two batch norms fused perfectly and nothing cached; "with a cache" means that a cache
        holds all values passed between neighbouring layers, and only values that the backward pass reads again go
        through memory. resnet/models/complexity.py derives both."""
    return f"## The floor\n\n{table(head, rows)}\n{paragraph(text)}"


def _explanation(results: Results) -> str:
    energy = any(row.rates and row.rates.joules_per_1000_images for result in results.models for row in result.rows)
    memory = any(row.memory_gib is not None for result in results.models for row in result.rows)
    text = f"""Training images per second at batch {results.batch}: median (lowest to highest) of {results.rounds}
        rounds of about {results.seconds:g} s, with the loops in turn in one process, {results.hardware["threads"]}
        thread(s) and {results.workers} DataLoader workers. The ratio is the median of the rounds' ratios. Conventional
        loop: torchvision transforms in a DataLoader, fp32 (on a GPU with TF32 convolutions, PyTorch's default), eager,
        NCHW. One run and packed: resnet.trainer, in
        {results.limits.precision}."""
    if results.hardware["type"] == "cpu":
        text += """ All loops run with the memory settings that resnet.trainer makes for its process
            (resnet.device.keep_freed_memory), which a conventional loop would not have."""
    if memory:
        text += " Memory: reserved by PyTorch at the peak, data set included."
    if energy:
        text += " Energy: NVML's counter of the whole GPU"
        text += "." if results.seconds > 0.5 else ", which is coarse for rounds as short as these."
    text += f" {versions_sentence(results.versions, results.code)} Regenerate with `make bench`."
    return paragraph(text)
