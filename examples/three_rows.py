"""A table of one's own: ResNet-20 with two tricks, each compared with the plain net seed by seed.

python -m examples.three_rows --profile smoke --seeds 3 --out runs
"""

import sys
from dataclasses import replace

from reproductions.cifar_table import recipe_for
from reproductions.harness.experiment import Experiment, Row
from reproductions.harness.reporting.compare import find_steps, steps_section
from reproductions.harness.reporting.curves import learning_curves
from reproductions.harness.reporting.figure import save
from resnet.plugins import Plugin

TRICKS = {
    "cutmix": ("CutMix", Plugin("examples.cutmix:CutMix", alpha=1.0)),
    "depth": ("stochastic depth", Plugin("examples.stochastic_depth:StochasticDepth", survival=0.8)),
}


def rows(profile):
    """Return the plain net and the net with each trick; smoke: ResNet-8 on synthetic images."""
    smoke = profile == "smoke"
    recipe, net = recipe_for(profile), {"model": "cifar_resnet8" if smoke else "cifar_resnet20"}
    net["data"] = "synthetic" if smoke else "cifar10"
    tricks = [
        Row(key, label, recipe=replace(recipe, plugins=(plugin,)), after="plain", **net)
        for key, (label, plugin) in TRICKS.items()
    ]
    return [Row("plain", "plain", recipe=recipe, **net), *tricks]


def report(page):
    """Write the table with the paired differences, and the learning curves; return the files."""
    steps = find_steps(page.results, "top1_accuracy")
    columns = [page.net(), page.reproduced(), page.interval(), page.best_over_curve()]
    section = steps_section(steps, page.variant, "shown", "What each trick does")
    figure = learning_curves({"test error": page.results}, page.variant)
    return [*page.write(columns, [section]), *save(figure, page.plot_path("curves"), page.description)]


EXPERIMENT = Experiment(
    name="three_rows",
    title="Two tricks compared with the plain net",
    source="a table of one's own",
    rows=rows,
    report=report,
    script="examples.three_rows",
)

if __name__ == "__main__":
    from reproductions.harness.cli import run_experiment

    sys.exit(run_experiment(EXPERIMENT))
