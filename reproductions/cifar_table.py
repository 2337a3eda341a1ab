"""He et al. 2015, Table 6: test error of ResNet-20 to ResNet-110 on CIFAR-10.

    python -m reproductions.cifar_table --profile paper --seeds 5

Every net is trained by the recipe of section 4.2, which is what ``Recipe()`` says: 64,000 iterations of batch 128,
learning rate 0.1 divided by 10 at 32,000 and 48,000. ResNet-110 alone is warmed up: learning rate 0.01 until the
training error is below 80 %.
"""

import sys
from pathlib import Path

from reproductions.harness.experiment import Experiment, Row
from reproductions.harness.reporting import plots
from reproductions.harness.reporting.tables import Page
from resnet.recipe import Recipe

RECIPE = Recipe()
WARMED_UP = Recipe(warmup_learning_rate=0.01)


def recipe_for(profile: str, recipe: Recipe) -> Recipe:
    """The paper's recipe, or the one cut down for a profile."""
    if profile == "short":
        return recipe.shortened(1_000, eval_interval=100)
    if profile == "smoke":
        return recipe.shortened(120, eval_interval=20, batch_size=32, learning_rate=0.05, warmup_window=10)
    return recipe


def rows(profile: str) -> list[Row]:
    """ResNet-20, 32, 44, 56, 110; in the smoke profile 8, 14, 20, 26, 32 on synthetic data."""
    depths = (8, 14, 20, 26, 32) if profile == "smoke" else (20, 32, 44, 56, 110)
    return [
        Row(
            key=f"resnet{depth}",
            label=f"ResNet-{depth}",
            model=f"cifar_resnet{depth}",
            recipe=recipe_for(profile, WARMED_UP if depth == depths[-1] else RECIPE),
            data="synthetic" if profile == "smoke" else "cifar10",
            reported=f"resnet{depth}",
        )
        for depth in depths
    ]


def report(page: Page) -> list[Path]:
    """The table beside the paper's, error against depth, and learning curves."""
    columns = [
        page.net(),
        page.parameters(),
        page.reported(),
        page.published(),
        page.reproduced(),
        page.interval(),
        page.best_of_n(),
        page.best_over_curve(),
        page.difference(),
        page.verdict(),
        page.other_implementations(),
    ]
    depth = plots.error_against_depth(page.results, page.variant)
    curves = plots.learning_curves({"residual nets": page.results}, page.variant)
    return [
        *page.write(columns),
        *plots.save(depth, page.plot_path("depth"), page.description),
        *plots.save(curves, page.plot_path("curves"), page.description),
    ]


EXPERIMENT = Experiment(
    name="cifar_table",
    title="CIFAR-10 test error of residual nets",
    source="He et al. 2015, Table 6",
    rows=rows,
    report=report,
)

if __name__ == "__main__":
    from reproductions.harness.cli import run_experiment

    sys.exit(run_experiment(EXPERIMENT))
