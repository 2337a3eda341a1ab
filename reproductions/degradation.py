"""He et al. 2015, Figures 1 and 6: plain nets get worse with depth, residual nets get better.

    python -m reproductions.degradation --profile paper --seeds 5

Plain-20, 32, 44, 56 against ResNet-20, 32, 44, 56 by the same recipe: training and test error. A plain net is the
residual net with option A without its shortcuts; both have the same parameters. The 110 layers of Figure 6, of which
the plain net's error is above 60 % and not drawn, are trained when they are asked for by name (``--rows
plain110,resnet110``), both with the warm-up that the paper has for 110 layers.
"""

import sys
from pathlib import Path

from reproductions.cifar_table import recipe_for
from reproductions.harness.experiment import Experiment, Row
from reproductions.harness.reporting import differences, plots
from reproductions.harness.reporting.differences import Difference
from reproductions.harness.reporting.tables import Page

KINDS = {"plain": "plain", "resnet": "ResNet"}


def rows(profile: str) -> list[Row]:
    """Plain and residual nets of 20, 32, 44, 56, and on request 110 layers; in the smoke profile of 8, 14, 20, 26."""
    depths = (8, 14, 20, 26) if profile == "smoke" else (20, 32, 44, 56, 110)
    return [
        Row(
            key=f"{kind}{depth}",
            label=f"{label}-{depth}",
            model=f"cifar_{kind}{depth}",
            recipe=recipe_for(profile, depth),
            data="synthetic" if profile == "smoke" else "cifar10",
            reported=f"{kind}{depth}",
            on_request=depth == 110,
        )
        for kind, label in KINDS.items()
        for depth in depths
    ]


def report(page: Page) -> list[Path]:
    """The errors, the difference that depth makes to them, and the learning curves of Figure 6."""
    plain, residual = ([r for r in page.results if r.row.key.startswith(kind)] for kind in KINDS)
    columns = [
        page.net(),
        page.parameters(),
        page.published("training_error"),
        page.reproduced("training_error"),
        page.reported(),
        page.published("test_error"),
        page.reproduced("test_error"),
        page.other_implementations(),
    ]
    depth = [
        Difference(deep=nets[-1], shallow=nets[0], metric=metric)
        for nets in ([r for r in kind if not r.row.on_request] for kind in (plain, residual))
        for metric in ("training_error", "test_error")
    ]
    curves = plots.learning_curves({"plain nets": plain, "residual nets": residual}, page.variant)
    return [
        *page.write(columns, [differences.section(depth)]),
        page.write_csv(differences.numbers(depth), "differences"),
        *plots.save(curves, page.plot_path("curves"), page.description),
    ]


EXPERIMENT = Experiment(
    name="degradation",
    title="Degradation of plain nets with depth on CIFAR-10",
    source="He et al. 2015, Figures 1 and 6",
    rows=rows,
    report=report,
)

if __name__ == "__main__":
    from reproductions.harness.cli import run_experiment

    sys.exit(run_experiment(EXPERIMENT))
