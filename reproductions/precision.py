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
from dataclasses import replace
from pathlib import Path

from reproductions.cifar_table import recipe_for
from reproductions.harness.experiment import Experiment, Row
from reproductions.harness.reporting.differences import equivalence_section
from reproductions.harness.reporting.tables import Page
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
