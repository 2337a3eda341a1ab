"""Whether the fast way of training costs accuracy: ResNet-20 in bf16 beside ResNet-20 in fp32.

    python -m reproductions.precision --profile paper --seeds 5
    python -m reproductions.precision --profile paper --seeds 10 --rows fast,fused

On a GPU the runs of all tables train in bf16, packed; the fp32 row is the same recipe in full precision (without
TF32). Two one-sided tests ask whether the mean errors differ by less than half a point. The bf16 row's runs are those
of the CIFAR-10 table: what it has trained already is used here.

On request there is a row trained by the fused kernels (:mod:`resnet.kernels`, not yet run on a GPU) in the precision of
the bf16 row. It is compared with the bf16 row's runs by the library's kernels, the published ones where there are no
others.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from reproductions.cifar_table import recipe_for
from reproductions.harness.experiment import Experiment, Row, RowResult
from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.frame import final_values
from reproductions.harness.reporting.page import Page
from reproductions.harness.reporting.text import NONE, interval, markdown_table, p_value, signed
from resnet.kernels import FUSED, LIBRARY

MARGIN, KERNELS_MARGIN = 0.5, 0.3  # percentage points of test error


def rows(profile: str) -> list[Row]:
    """ResNet-20 as all tables train it, on request by the fused kernels, and in fp32; smoke: ResNet-8.

    In the profiles for a CPU the first two are in bf16.
    """
    smoke = profile == "smoke"
    model, label = ("cifar_resnet8", "ResNet-8") if smoke else ("cifar_resnet20", "ResNet-20")
    recipe, data = recipe_for(profile), "synthetic" if smoke else "cifar10"
    fast = recipe if profile == "paper" else replace(recipe, precision="bf16")  # which a CPU would not choose itself
    return [
        Row("fast", f"{label}, fast", model, fast, data),
        Row("fused", f"{label}, fused kernels", model, replace(fast, kernels=FUSED), data, on_request=True),
        Row("fp32", f"{label}, fp32", model, replace(recipe, precision="fp32"), data),
    ]


def report(page: Page) -> list[Path]:
    """The errors with the precision and the packs that they come from, and whether they are equivalent."""
    columns = [page.net(), page.precision(), page.packed(), page.published(), page.reproduced(), page.interval()]
    results = {result.row.key: result for result in page.results}
    fast = results["fast"]
    sections = [equivalence_section(fast, results["fp32"], MARGIN)]
    if fused := results.get("fused"):
        library = replace(fast, records=fast.records or fast.published or [])
        sections.append(equivalence_section(fused, library, KERNELS_MARGIN, _kernels))
    return page.write(columns, sections)


def _kernels(record: dict) -> str:
    return f"{record['versions'].get('kernels', LIBRARY)} kernels"


def equivalence_section(
    fast: RowResult, full: RowResult, margin: float, way: Callable[[dict], str] = lambda record: record["precision"]
) -> str:
    """Whether two rows' test errors are less than ``margin`` percentage points apart, under a heading.

    ``way`` tells from a record how it was trained. Rows that have runs trained the same way are not compared: "auto"
    may be the precision that it is compared with.
    """
    samples = [final_values(result.records) for result in (fast, full)]
    same = set.intersection(*(set(map(way, result.records)) for result in (fast, full)))
    test = None if same else intervals.equivalence_test(*samples, margin)
    if same:
        said = f"Nothing is compared: both rows have runs in {', '.join(sorted(same))} here."
    elif test is None:
        said = "Not shown: it needs two runs of both rows."
    else:
        said = "Shown" if test.equivalent else "Not shown"
        said += f": the 90 % interval of the difference is {interval(test.interval, signed)}, p = {p_value(test.p)}."
    table = markdown_table(
        {
            "rows": [f"{fast.row.label} − {full.row.label}"],
            "n": [f"{len(samples[0])}, {len(samples[1])}"],
            "difference": [signed(test and test.difference)],
            "90 % interval": [interval(test and test.interval, signed)],
            "margin": [f"± {margin:g}"],
            "p": [p_value(test and test.p)],
            "equivalent": [NONE if test is None else "yes" if test.equivalent else "not shown"],
        }
    )
    return (
        f"## Equivalence within {margin:g} points\n\n{table}\n{said} Two one-sided Welch tests (TOST) at the 5 % "
        "level of the mean test errors, in percentage points; equivalent if the interval lies within the margin.\n"
    )


EXPERIMENT = Experiment(
    name="precision",
    title="ResNet-20 trained fast and in full precision",
    source="He et al. 2015, section 4.2, in two precisions",
    rows=rows,
    report=report,
    epilog="The row fused, on request, is trained by a CIFAR net's own kernels: not yet run on a GPU.",
)

if __name__ == "__main__":
    from reproductions.harness.cli import run_experiment

    sys.exit(run_experiment(EXPERIMENT))
