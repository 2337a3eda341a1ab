"""Accuracy of fast training: ResNet-20 in bf16 and in fp32.

    python -m reproductions.precision --profile paper --seeds 5
    python -m reproductions.precision --profile paper --seeds 10 --rows fast,fused

On a GPU, most tables train in bf16, packed; the fp32 row has the same recipe in full precision (without TF32). Two
one-sided tests ask whether the mean errors differ by less than 0.3 points. In the paper profile, the bf16 row's runs
are the CIFAR-10 table's and are not trained again.

On request, a row is trained by the fused kernels (:mod:`resnet.kernels`, not yet run on a GPU) in the bf16 row's
precision. It is compared with the bf16 row's runs by the library's kernels, or with the published ones if there are no
others.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from reproductions import reported
from reproductions.cifar_table import recipe_for
from reproductions.harness.experiment import Experiment, Row, RowResult
from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.frame import final_values
from reproductions.harness.reporting.intervals import FEWEST, LEVEL, MARGIN
from reproductions.harness.reporting.page import Page
from reproductions.harness.reporting.text import NONE, interval, markdown_table, p_value, signed
from resnet.kernels import FUSED, LIBRARY


def rows(profile: str) -> list[Row]:
    """Return the rows: ResNet-20 as in all tables, on request with fused kernels, and in fp32; smoke: ResNet-8.

    In the short and smoke profiles, the first two rows set bf16, because "auto" may mean fp32 on a CPU.
    """
    smoke = profile == "smoke"
    model, label = ("cifar_resnet8", "ResNet-8") if smoke else ("cifar_resnet20", "ResNet-20")
    recipe, data = recipe_for(profile), "synthetic" if smoke else "cifar10"
    fast = recipe if profile == "paper" else replace(recipe, precision="bf16")
    return [
        Row("fast", f"{label}, fast", model, fast, data),
        Row("fused", f"{label}, fused kernels", model, replace(fast, kernels=FUSED), data, on_request=True),
        Row("fp32", f"{label}, fp32", model, replace(recipe, precision="fp32"), data),
    ]


def report(page: Page) -> list[Path]:
    """Write the errors with the runs' precision and packing, and the equivalence tests; return the files."""
    columns = [page.net(), page.precision(), page.packed(), page.published(), page.reproduced(), page.interval()]
    results = {result.row.key: result for result in page.results}
    fast = results["fast"]
    sections = [equivalence_section(fast, results["fp32"])]
    if fused := results.get("fused"):
        library = replace(fast, records=fast.records or fast.published or [])
        sections.append(equivalence_section(fused, library, _kernels))
    return page.write(columns, sections)


def _kernels(record: dict) -> str:
    return f"{record['versions'].get('kernels', LIBRARY)} kernels"


def equivalence_section(
    fast: RowResult, full: RowResult, way: Callable[[dict], str] = lambda record: record["precision"]
) -> str:
    """Return a Markdown section: whether two rows' mean test errors differ by less than MARGIN percentage points.

    ``way`` reads from a record how its run was trained. Two rows with runs trained the same way are not compared:
    "auto" may mean the precision of the other row.
    """
    samples = [final_values(result.records) for result in (fast, full)]
    same = set.intersection(*(set(map(way, result.records)) for result in (fast, full)))
    test = None if same else intervals.welch_test(*samples, 1 - 2 * (1 - LEVEL))
    p = test and intervals.equivalence_p(test)
    equivalent = test is not None and p < 1 - LEVEL
    if same:
        said = f"Nothing is compared: both rows have runs in {', '.join(sorted(same))} here."
    elif test is None:
        said = f"Not shown: it needs {FEWEST} runs of both rows."
    else:
        said = "Shown" if equivalent else "Not shown"
        said += f": the 90 % interval of the difference is {interval(test.interval, signed)}, p = {p_value(p)}."
    table = markdown_table(
        {
            "rows": [f"{fast.row.label} − {full.row.label}"],
            "n": [f"{len(samples[0])}, {len(samples[1])}"],
            "difference": [signed(test and test.difference)],
            "90 % interval": [interval(test and test.interval, signed)],
            "margin": [f"± {MARGIN:g}"],
            "p": [p_value(p)],
            "equivalent": [NONE if test is None else "yes" if equivalent else "not shown"],
        }
    )
    return (
        f"## Equivalence within {MARGIN:g} points\n\n{table}\n{said} Two one-sided Welch tests (TOST) at the 5 % "
        "level of the mean test errors, in percentage points; equivalent if the interval lies within the margin."
        f"{_unresolved()}{_chance(samples, fast.seeds)}\n"
    )


def _unresolved() -> str:
    """Return a note on the steps of Table 6 that are smaller than the margin; empty if there are none."""
    values = {depth: reported.target(f"resnet{depth}").value for depth in (20, 32, 44, 56, 110)}
    steps = {(a, b): values[a] - values[b] for a, b in pairwise(values)}
    small = ", ".join(f"ResNet-{a} to {b} ({step})" for (a, b), step in steps.items() if step < MARGIN)
    return f" Equivalent rows can still differ by more than these steps of Table 6: {small}." if small else ""


def _chance(samples: list[list[float]], seeds: int) -> str:
    """Return a note on the test's power for equal means at the rows' spread; empty without a spread."""
    if (sigma := intervals.pooled_std(samples)) is None:
        return ""
    chances = ", ".join(f"{100 * intervals.equivalence_power(sigma, n):.0f} % with {n}" for n in (seeds, 10, 20))
    return f" At the rows' standard deviation, {sigma:.2f}, equal means are shown equivalent in {chances} seeds each."


EXPERIMENT = Experiment(
    name="precision",
    title="ResNet-20 trained fast and in full precision",
    source="He et al. 2015, section 4.2, in two precisions",
    rows=rows,
    report=report,
    epilog="On request, the row fused is trained by the fused kernels, which have not yet run on a GPU.",
)

if __name__ == "__main__":
    from reproductions.harness.cli import run_experiment

    sys.exit(run_experiment(EXPERIMENT))
