"""He et al. 2015, Figures 1 and 6: with depth, plain nets get worse and residual nets get better.

    python -m reproductions.degradation --profile paper --seeds 5
    python -m reproductions.degradation --dataset cifar100

Plain-20, 32, 44, 56 and ResNet-20, 32, 44, 56 are trained by the same recipe and compared in training and test error. A
plain net is the residual net with option A without its shortcuts; both have the same parameters. The 110-layer nets of
Figure 6 are trained on request only (``--rows plain110,resnet110``), with the paper's warm-up for 110 layers. The
figure omits the plain one because its error is above 60 %.
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure

from reproductions import headline
from reproductions.cifar_table import data_for, not_run_section, on_cifar100, recipe_for, reported_key
from reproductions.harness.experiment import Experiment, Row, RowResult, Variant
from reproductions.harness.reporting.claims import Claim, Finding, claims_numbers, claims_section, judge, trend
from reproductions.harness.reporting.curves import learning_curves
from reproductions.harness.reporting.figure import save
from reproductions.harness.reporting.found import of_findings
from reproductions.harness.reporting.frame import METRICS
from reproductions.harness.reporting.page import Page

KINDS = {"plain": "plain", "resnet": "ResNet"}
CONTRASTS = (  # two of them explained
    ": for the fall with depth, how far a line through the nets' errors falls from the shallowest to the deepest; for "
    "the last claim, how much more depth adds to the error of plain nets than to the error of residual nets"
)
FIGURE = "He et al. 2015, sections 1 and 4.2, Figures 1 and 6"  # where the claims are


def rows(profile: str, dataset: str = "cifar10") -> list[Row]:
    """Return the rows: plain and residual nets of 20, 32, 44, 56 and, on request, 110 layers.

    The smoke profile has 8, 14, 20 and 26 layers on synthetic data.
    """
    depths = (8, 14, 20, 26) if profile == "smoke" else (20, 32, 44, 56, 110)
    return [
        Row(
            key=f"{kind}{depth}",
            label=f"{label}-{depth}",
            model=f"cifar_{kind}{depth}",
            recipe=recipe_for(profile, depth),
            data=data_for(profile, dataset),
            reported=reported_key(f"{kind}{depth}", dataset),
            on_request=depth == 110,
        )
        for kind, label in KINDS.items()
        for depth in depths
    ]


def report(page: Page) -> list[Path]:
    """Write the errors, tests of the paper's claims about depth, and learning curves; return the files."""
    columns = [
        page.net(),
        page.parameters(),
        page.published("training_error"),
        page.reproduced("training_error"),
        page.reported(),
        page.published("test_error"),
        page.reproduced("test_error"),
        page.other_implementations(),
        *page.top5(),
    ]
    findings = judged(page)
    curves = error_curves(page.results, page.variant)
    return [
        *page.write(columns, [not_run_section(page), claims_section(findings, CONTRASTS)]),
        page.write_csv(claims_numbers(findings), "claims"),
        *save(curves, page.plot_path("curves"), page.description),
    ]


def judged(page: Page) -> list[Finding]:
    """Judge the claims by the runs."""
    return judge(claims(page.results), page.results, page.variant)


def error_curves(results: list[RowResult], variant: Variant) -> Figure | None:
    """Draw the learning curves of Figure 6: plain nets, residual nets, and the nets of 110 layers once they have runs.

    The nets of 110 layers have an error axis of their own, on which there is room for the plain one.
    """
    kinds = {"plain nets": "plain", "residual nets": "resnet"}
    panels = {title: [r for r in results if r.row.key.startswith(kind)] for title, kind in kinds.items()}
    deepest = [result for rows in panels.values() for result in rows if result.row.on_request]
    panels = {title: [r for r in rows if not r.row.on_request] for title, rows in panels.items()}
    return learning_curves(panels | {"110 layers": deepest}, variant, apart={"110 layers": 4})


def claims(results: list[RowResult]) -> list[Claim]:
    """Return the claims of sections 1 and 4.2 about these nets, without the rows on request."""
    rows = [result.row for result in results if not result.row.on_request]
    plain, residual = ([row for row in rows if row.key.startswith(kind)] for kind in KINDS)
    (shallow, *_, deep), depths = plain, [int(row.model.removeprefix("cifar_resnet")) for row in residual]
    nets = {row.key: row.label for row in (*plain, *residual)}

    def worse(key: str, other: str, metric: str = "test_error", says: str = "{1} has a lower {2} than {0}") -> Claim:
        text = says.format(nets[key], nets[other], METRICS[metric])
        return Claim(f"{key}_{other}_{metric}", text, FIGURE, (key, other), (1, -1), metric)

    more = "{0} has a higher {2} than {1}"
    first, last = residual[0].key, residual[-1].key
    corners = (deep.key, shallow.key, last, first)
    return [
        *(worse(deep.key, shallow.key, metric, more) for metric in ("training_error", "test_error")),
        *(worse(first, last, metric) for metric in ("training_error", "test_error")),
        *(worse(one.key, other.key) for one, other in zip(plain, residual)),
        Claim("trend", f"the test error of residual nets falls with depth, from {depths[0]} to {depths[-1]} layers",
              FIGURE, tuple(row.key for row in residual), trend(depths)),
        Claim("interaction", f"depth, from {depths[0]} to {depths[-1]} layers, costs plain nets more than residual "
              "nets in test error", FIGURE, corners, (1, -1, -1, 1)),
    ]  # fmt: skip


EXPERIMENT = Experiment(
    name="degradation",
    title="Degradation of plain nets with depth on CIFAR-10",
    source="He et al. 2015, Figures 1 and 6",
    rows=rows,
    report=report,
    claims=lambda page: of_findings(judged(page)),
    overview=headline.write,
)
EXPERIMENTS = {"cifar10": EXPERIMENT, "cifar100": on_cifar100(EXPERIMENT, rows)}

if __name__ == "__main__":
    from reproductions.harness.cli import run_experiment

    sys.exit(run_experiment(EXPERIMENTS))
