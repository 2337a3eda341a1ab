"""He et al. 2015, Figures 1 and 6: with depth, plain nets get worse and residual nets get better.

    python -m reproductions.degradation --profile paper --seeds 5

Plain-20, 32, 44, 56 and ResNet-20, 32, 44, 56 are trained by the same recipe and compared in training and test error. A
plain net is the residual net with option A without its shortcuts; both have the same parameters. The 110-layer nets of
Figure 6 are trained on request only (``--rows plain110,resnet110``), with the paper's warm-up for 110 layers. The
figure omits the plain one because its error is above 60 %.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from reproductions.cifar_table import recipe_for
from reproductions.harness.experiment import Experiment, Row, RowResult, Variant
from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.compare import welch_cells, welch_numbers
from reproductions.harness.reporting.curves import learning_curves
from reproductions.harness.reporting.figure import save
from reproductions.harness.reporting.frame import METRICS, final_values
from reproductions.harness.reporting.intervals import WelchTest
from reproductions.harness.reporting.page import Page
from reproductions.harness.reporting.text import markdown_table, signed

KINDS = {"plain": "plain", "resnet": "ResNet"}


def rows(profile: str) -> list[Row]:
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
            data="synthetic" if profile == "smoke" else "cifar10",
            reported=f"{kind}{depth}",
            on_request=depth == 110,
        )
        for kind, label in KINDS.items()
        for depth in depths
    ]


def report(page: Page) -> list[Path]:
    """Write the errors, the effect of depth with Welch's tests, and learning curves; return the files."""
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
    curves = error_curves(page.results, page.variant)
    return [
        *page.write(columns, [differences_section(depth)]),
        page.write_csv(differences_numbers(depth), "differences"),
        *save(curves, page.plot_path("curves"), page.description),
    ]


def error_curves(results: list[RowResult], variant: Variant) -> Figure | None:
    """Draw the learning curves of Figure 6: plain nets, residual nets, and the nets of 110 layers once they have runs.

    The nets of 110 layers have an error axis of their own, on which there is room for the plain one.
    """
    kinds = {"plain nets": "plain", "residual nets": "resnet"}
    panels = {title: [r for r in results if r.row.key.startswith(kind)] for title, kind in kinds.items()}
    deepest = [result for rows in panels.values() for result in rows if result.row.on_request]
    panels = {title: [r for r in rows if not r.row.on_request] for title, rows in panels.items()}
    return learning_curves(panels | {"110 layers": deepest}, variant, apart={"110 layers": 4})


@dataclass(frozen=True)
class Difference:
    """Difference between the final errors of a deep net and a shallow one."""

    deep: RowResult
    shallow: RowResult
    metric: str

    @property
    def samples(self) -> tuple[list[float], list[float]]:
        """Final errors in percent of the deep net's and of the shallow net's runs."""
        return final_values(self.deep.records, self.metric), final_values(self.shallow.records, self.metric)

    @property
    def difference(self) -> float | None:
        """Mean of the deep net minus mean of the shallow one, in percentage points; None unless both have runs."""
        deep, shallow = map(intervals.mean, self.samples)
        return None if deep is None or shallow is None else deep - shallow

    @property
    def test(self) -> WelchTest | None:
        """Welch's test of the difference; None if a net has fewer than two runs or neither net's errors vary."""
        return intervals.welch_test(*self.samples)


def differences_section(differences: list[Difference]) -> str:
    """Return a Markdown section: the differences with Welch's tests, and a note on their meaning."""
    samples = [difference.samples for difference in differences]
    table = markdown_table(
        {
            "nets": [f"{d.deep.row.label} − {d.shallow.row.label}" for d in differences],
            "error": [METRICS[d.metric] for d in differences],
            "n": [f"{len(deep)}, {len(shallow)}" for deep, shallow in samples],
            "difference": [signed(d.difference) for d in differences],
            **welch_cells([difference.test for difference in differences], signed),
        }
    )
    return (
        f"## What depth does\n\n{table}\nDeepest minus shallowest net, in percentage points: above 0, the deeper net "
        "is worse. Welch's two-sided t-test with Welch–Satterthwaite degrees of freedom; it needs two runs of both.\n"
    )


def differences_numbers(differences: list[Difference]) -> dict[str, list]:
    """Return the differences as columns for a CSV file."""
    return {
        "deep": [d.deep.row.key for d in differences],
        "shallow": [d.shallow.row.key for d in differences],
        "metric": [d.metric for d in differences],
        "n_deep": [len(d.samples[0]) for d in differences],
        "n_shallow": [len(d.samples[1]) for d in differences],
        "difference": [d.difference for d in differences],
        **welch_numbers([d.test for d in differences]),
    }


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
