"""An experiment that trains in a second, for tests of what surrounds training.

Run as a script, ``tiny.py 80 --profile smoke ...``, it is an experiment's command line with runs of 80 iterations.
"""

import sys
from pathlib import Path

from reproductions.harness.experiment import Experiment, Row
from reproductions.harness.reporting.page import Page
from resnet.recipe import Recipe

TINY = Recipe().shortened(6, eval_interval=3, batch_size=8)


def longer(iterations: int) -> Recipe:
    """Long enough to be stopped in between: it tells of its progress at a quarter."""
    return Recipe().shortened(iterations, eval_interval=iterations // 4, batch_size=8)


def make_experiment(recipe: Recipe = TINY, data: str = "synthetic", depths: tuple[int, ...] = (8, 14)) -> Experiment:
    """Residual nets trained by ``recipe`` in every profile, with a table that only counts records."""

    def rows(profile: str) -> list[Row]:
        return [Row(f"resnet{d}", f"ResNet-{d}", f"cifar_resnet{d}", recipe, data) for d in depths]

    return Experiment("tiny", "Tiny nets", "no paper", rows, count_records)


def count_records(page: Page) -> list[Path]:
    path = page.out / "tables" / f"{page.experiment.name}{page.variant.suffix}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{result.row.key}: {len(result.records)} of {result.seeds}\n" for result in page.results))
    return [path]


if __name__ == "__main__":
    from reproductions.harness.cli import run_experiment

    sys.exit(run_experiment(make_experiment(longer(int(sys.argv[1])), depths=(8,)), sys.argv[2:]))
