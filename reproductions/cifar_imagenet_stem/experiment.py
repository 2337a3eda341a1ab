"""ImageNet's ResNet-18 and ResNet-34 on the small images of CIFAR-10, and the cost of their stem.

    python -m reproductions.cifar_imagenet_stem --profile paper --seeds 5

The stem's 7x7 convolution and max-pooling, each with stride 2, reduce 32x32 pixels to 8x8 before the first block. A
report without a public name gives 87 % for ResNet-18: 86.79 in the last epoch that it prints, after 86.95 and 86.87.
Training follows the report: SGD with momentum 0.9, weight decay 5e-4, batches of 128 and a smaller last one in each
epoch, crops and flips; pixels minus (0.4914, 0.4822, 0.4465), divided by (0.2023, 0.1994, 0.2010), which are the
channels' means and the means of their standard deviations in single images; biases in the 3x3 convolutions; a
projection at the beginning of every stage, including the first; learning rate 0.1 for 150 epochs, then 0.01 and 0.001
for 60 each, with a new optimizer for each stage. These are the numbers in the report's text; its summary has 100
epochs, then 60 with 0.001.

Another row is the same net with a 3x3 stem without stride, for which the report cites 95.17 % from elsewhere, by
another training. The report advises weight decay, momentum, and batches of 128 rather than 64. Rows that depart from
each are trained on request (``--rows resnet18-no-decay,resnet18-no-momentum,resnet18-batch64``).
"""

import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import torch

from reproductions.cifar_imagenet_stem import report as predictions
from reproductions.cifar_imagenet_stem.predictions import PREDICTIONS
from reproductions.cifar_imagenet_stem.report import loss_curves
from reproductions.harness.experiment import Experiment, Row
from reproductions.harness.launching.run_paths import RunPaths
from reproductions.harness.measurements import MeasurementError
from reproductions.harness.reporting import compare
from reproductions.harness.reporting.curves import learning_curves
from reproductions.harness.reporting.figure import is_saved, save
from reproductions.harness.reporting.page import Page
from resnet.data import TRAIN_IMAGES, DataError, load
from resnet.recipe import Recipe
from resnet.run import Run

BATCH_SIZE = 128
STAGES = (150, 60, 60)  # epochs at each learning rate


def recipe_for(profile: str) -> Recipe:
    """Return the recipe with its three stages, shortened in proportion in the other profiles."""
    recipe = Recipe(
        **stages(BATCH_SIZE),
        weight_decay=5e-4,
        normalization="image_std",
        last_batch="use",
        momentum_at_drops="forgotten",
    )
    if profile == "short":
        return recipe.shortened(1_000, eval_interval=100)
    if profile == "smoke":
        return recipe.shortened(24, eval_interval=8, batch_size=16, learning_rate=0.02)
    return recipe


def stages(batch_size: int) -> dict:
    """Return the recipe's fields for stages of whole epochs, each with a smaller last batch."""
    epoch = math.ceil(TRAIN_IMAGES["cifar10"] / batch_size)
    first, second, last = (sum(STAGES[:count]) * epoch for count in (1, 2, 3))
    return {"batch_size": batch_size, "iterations": last, "milestones": (first, second), "eval_interval": 5 * epoch}


def rows(profile: str) -> list[Row]:
    """Return the rows: ResNet-18 and -34 with ImageNet's stem, ResNet-18 with a small stem, and rows on request.

    The rows on request train ResNet-18 against the report's advice. The smoke profile has ResNet-18 only, with both
    stems.
    """
    smoke = profile == "smoke"
    recipe, data = recipe_for(profile), "synthetic" if smoke else "cifar10"
    keys = {"resnet18": "stem_resnet18", "resnet18-small": "stem_resnet18_small"}

    def row(key: str, label: str, model: str, after: str | None, recipe: Recipe = recipe, **options) -> Row:
        options = {"variant": "b", "conv_bias": True, "first_projection": True, **options}
        return Row(key, label, model, recipe, data, options, keys.get(key), after=after)

    against = {
        "no-decay": ("no weight decay", {"weight_decay": 0.0}),
        "no-momentum": ("no momentum", {"momentum": 0.0, "momentum_at_drops": "scaled"}),
        "batch64": ("batches of 64", stages(64) if profile == "paper" else _halved(recipe)),
    }
    others = [
        replace(
            row(f"resnet18-{key}", f"ResNet-18, 7x7 stem, {label}", "resnet18", "resnet18", replace(recipe, **changes)),
            on_request=True,
        )
        for key, (label, changes) in against.items()
    ]
    small = row("resnet18-small", "ResNet-18, 3x3 stem", "resnet18", "resnet18", small_stem=True)
    first = row("resnet18", "ResNet-18, 7x7 stem", "resnet18", None)
    deeper = row("resnet34", "ResNet-34, 7x7 stem", "resnet34", "resnet18")
    return [first, small] if smoke else [first, deeper, small, *others]


def _halved(recipe: Recipe) -> dict:
    """Return the recipe's fields for batches half as large and twice as many."""
    longer = recipe.lengthened(Fraction(2))
    counts = {"iterations": longer.iterations, "milestones": longer.milestones}
    return {"batch_size": recipe.batch_size // 2, "eval_interval": 2 * recipe.eval_interval, **counts}


def report(page: Page) -> list[Path]:
    """Write the accuracies, effects of depth and stem, learning curves, and predictions; return the files."""
    columns = [
        page.net(),
        page.parameters(),
        page.multiply_adds(),
        page.reported(),
        page.published(),
        page.reproduced(),
        page.interval(),
        page.difference(),
        *page.verdict(),
        *page.training(),
    ]
    found, predicted = compare.find_steps(page.results), predictions.find(page.results, page.out)
    curves = learning_curves({"": page.results}, page.variant)
    losses = loss_curves(page.results, page.variant)
    confusion = predictions.confusion_figure(predicted, page.variant)
    return [
        *page.write(columns, [compare.steps_section(found, page.variant, "confirmed"), predictions.section(predicted)]),
        page.write_csv(compare.steps_numbers(found, page.variant, "confirmed"), "steps"),
        *save(curves, page.plot_path("curves"), page.description),
        *save(losses, page.plot_path("losses"), page.description),
        *save(confusion, page.plot_path("confusion"), page.description),
    ]


def measure(records: list[dict], run_paths: RunPaths, device: torch.device, until: float = math.inf) -> list[str]:
    """Predict the test images and plot some of them for each net's first seed; return the problems.

    The plots, ``plots/predictions_<run>.png``, show images of the data set, so they are not published.
    """
    problems = PREDICTIONS.make_missing(records, run_paths, device, until)
    for record in (record for record in records if record["specification"]["seed"] == 0):
        run = Run.from_specification(record["specification"])
        path = run_paths.out / "plots" / f"predictions_{run.short_id}"
        description = f"predictions of {run} for test images, record {record['record_sha256']}"
        try:
            found = PREDICTIONS.find(run_paths.out, record)
            if found is None or is_saved(path, description):
                continue
            images = load(run.data, run_paths.data).test_images
        except MeasurementError:  # already among the problems
            continue
        except (DataError, OSError) as error:
            problems.append(f"the images of {run} can't be shown: {error}")
            continue
        figure = predictions.grid_figure(found, images, f"{run}, test error {record['final']['test_error']:.2f} %")
        save(figure, path, description)
    return problems


EXPERIMENT = Experiment(
    name="cifar_imagenet_stem",
    title="ImageNet's ResNet-18 and ResNet-34 on CIFAR-10",
    source="a report without a public name",
    rows=rows,
    report=report,
    metric="top1_accuracy",
    protocol="the reported protocol",
    measure=measure,
    measurements=(PREDICTIONS,),
)
