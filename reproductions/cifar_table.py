"""He et al. 2015, Table 6: test error of ResNet-20 to ResNet-110 on CIFAR-10.

    python -m reproductions.cifar_table --profile paper --seeds 5
    python -m reproductions.cifar_table --profile paper --seeds 1 --rows resnet1202

Every net is trained by the recipe of section 4.2, which is what ``Recipe()`` says: 64,000 iterations of batch 128,
learning rate 0.1 divided by 10 at 32,000 and 48,000. ResNet-110 alone is warmed up: learning rate 0.01 until the
training error is below 80 %. The short profile takes a sixteenth of the iterations, and warms all nets up alike.

ResNet-1202 is trained when it is asked for by name, and like ResNet-110: the paper says no more than that it was
trained as the others. It has 11 times the layers; where a GPU's memory is too small for that, a recipe with
``batch_norm_size=64`` adds up the gradients of two halves of a batch, as the paper's two GPUs did.
"""

import sys
from dataclasses import replace
from pathlib import Path

from reproductions.harness.experiment import Experiment, Row
from reproductions.harness.reporting import plots
from reproductions.harness.reporting.tables import Page
from resnet.recipe import Recipe

RECIPE = Recipe()
WARMED_UP_DEPTHS = {"paper": (110, 1202), "short": (), "smoke": (32,)}  # nets warmed up until a training error
SHORTER = 16  # times, in the short profile of all tables on CIFAR-10 that have the paper's recipe


def recipe_for(profile: str, depth: int = 0) -> Recipe:
    """The paper's recipe for a net of this depth, or the one cut down for a profile.

    The short one warms every net up, linearly over the first 200 of its 4,000 iterations: so soon after the start a
    deep net learns nothing at a rate of 0.1.
    """
    recipe = replace(RECIPE, warmup_learning_rate=0.01) if depth in WARMED_UP_DEPTHS[profile] else RECIPE
    if profile == "short":
        return replace(recipe.shortened(recipe.iterations // SHORTER, eval_interval=400), linear_warmup=200)
    if profile == "smoke":
        return recipe.shortened(120, eval_interval=20, batch_size=32, learning_rate=0.05, warmup_window=10)
    return recipe


def rows(profile: str) -> list[Row]:
    """ResNet-20, 32, 44, 56, 110, and on request 1202; in the smoke profile 8, 14, 20, 26, 32 on synthetic data."""
    depths = (8, 14, 20, 26, 32) if profile == "smoke" else (20, 32, 44, 56, 110, 1202)
    return [
        Row(
            key=f"resnet{depth}",
            label=f"ResNet-{depth}",
            model=f"cifar_resnet{depth}",
            recipe=recipe_for(profile, depth),
            data="synthetic" if profile == "smoke" else "cifar10",
            reported=f"resnet{depth}",
            on_request=depth == 1202,
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
