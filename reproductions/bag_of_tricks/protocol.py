"""The protocol of Bag of Tricks (He T. et al. 2018) on each data set, and the report of its tables.

Every table exists for three data sets. On ImageNet, training follows the paper (section 2.1), with batches of 256 and,
for efficient training (section 3), of 1,024 images. On CIFAR-10, where all runs of a table take as long as a few epochs
of ImageNet, it follows He et al. 2015, section 4.2: as many images as 64,000 batches of 128, learning rate 0.1 divided
by 10 after one half and three quarters of them, with batches of 128 and, over as many images, of 1,024. Both have the
paper's Nesterov momentum, linear scaling of the learning rate from the smaller batch size, and warm-up over 5 epochs.
The short profile on CIFAR-10 has a sixteenth of the images, smaller nets, batches of 128 and 512 (the paper's ratio),
and a warm-up over a tenth of its images, because 5 epochs would be half of them.

On CIFAR-100, where no run is published yet, all of this is as on CIFAR-10.

On ImageNet, BN takes its statistics over an eighth of a batch, as on the paper's 8 GPUs; on CIFAR-10, over the whole
batch. The paper's text says "Xavier initialisation", but its authors' scripts use He's, and so do these.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from reproductions.bag_of_tricks.ladder import ladder, step_curves
from reproductions.cifar_table import NOT_RUN, SHORTER, data_for, not_run_section
from reproductions.harness.experiment import SEEDS, Experiment, Row, RowResult
from reproductions.harness.reporting import compare
from reproductions.harness.reporting.figure import save
from reproductions.harness.reporting.found import Found, of_steps
from reproductions.harness.reporting.page import Column, Page
from resnet.data import FOLDERS, TRAIN_IMAGES, WITH_TOP5
from resnet.recipe import Recipe

WARMUP_EPOCHS = 5  # section 3.1
WITH_MIXUP = Fraction(200, 120)  # epochs with mixup and without (section 5.4, and the authors' resnet50_v1d-mixup)


def label_of(model: str) -> str:
    """Return a net's label in tables: ResNet-50, bottleneck ResNet-56."""
    return model.removeprefix("cifar_").replace("resnet", "ResNet-").replace("bottleneck", "bottleneck ResNet-")


@dataclass(frozen=True)
class Protocol:
    """Training on one data set, with quantities that depend on the batch size given in images.

    images: total number that a run sees. drops: fractions of them after which the learning rate is divided by 10.
    warmup: number of images over which it grows from 0. evaluation: number of images between evaluations. batch_sizes:
    the baseline's, and efficient training's. gpus: number of parts of a batch with BN statistics of their own, as on
    several GPUs. recipe: everything else. basic, bottleneck and teacher: the models. kept: number of seeds whose final
    weights are published, for the rows that later trainings begin with, and for teachers.
    """

    data: str
    images: int
    drops: tuple[Fraction, ...]
    warmup: int
    evaluation: int
    batch_sizes: tuple[int, int]
    gpus: int
    recipe: Recipe
    basic: str
    bottleneck: str
    teacher: str
    kept: int = 0

    def baseline(self, batch_size: int) -> Recipe:
        """Return the recipe before any refinement: learning rate proportional to the batch size, step decay."""

        def steps(images: Fraction | int) -> int:
            return max(1, round(Fraction(images) / batch_size))

        return replace(
            self.recipe,
            iterations=steps(self.images),
            batch_size=batch_size,
            base_batch_size=self.batch_sizes[0],
            milestones=tuple(steps(self.images * drop) for drop in self.drops),
            batch_norm_size=batch_size // self.gpus if self.gpus > 1 else None,
            eval_interval=steps(self.evaluation),
        )

    def warmed_up(self, recipe: Recipe) -> Recipe:
        """Return the recipe with a linear warm-up from 0 over the first epochs (section 3.1)."""
        return replace(recipe, linear_warmup=max(1, round(Fraction(self.warmup) / recipe.batch_size)))

    def efficient(self) -> Recipe:
        """Return the recipe with large batches and all of section 3 except FP16 and zero γ.

        Zero γ is an option of the model. The precision is "auto" (bf16 on a GPU).
        """
        return replace(self.warmed_up(self.baseline(self.batch_sizes[1])), decay_all=False)

    def shortened(self, factor: int, evaluations: int) -> "Protocol":
        """Return the protocol with 1/factor of the images and this number of evaluations."""
        images = self.images // factor
        return replace(self, images=images, warmup=self.warmup // factor, evaluation=images // evaluations)


CIFAR10 = Protocol(
    data="cifar10",
    images=64_000 * 128,
    drops=(Fraction(1, 2), Fraction(3, 4)),
    warmup=WARMUP_EPOCHS * TRAIN_IMAGES["cifar10"],
    evaluation=1_000 * 128,
    batch_sizes=(128, 1_024),
    gpus=1,
    recipe=Recipe(nesterov=True),
    basic="cifar_resnet56",
    bottleneck="cifar_bottleneck56",
    teacher="cifar_bottleneck164",
    kept=3,
)
IMAGENET = Protocol(
    data="imagenet",
    images=120 * TRAIN_IMAGES["imagenet"],
    drops=(Fraction(30, 120), Fraction(60, 120), Fraction(90, 120)),
    warmup=WARMUP_EPOCHS * TRAIN_IMAGES["imagenet"],
    evaluation=TRAIN_IMAGES["imagenet"],
    batch_sizes=(256, 1_024),
    gpus=8,
    recipe=Recipe(nesterov=True, crop="area", colour_jitter=0.4, pca_noise=0.1),
    basic="resnet50",
    bottleneck="resnet50",
    teacher="resnet152",
)
# Smoke: synthetic images, tiny nets, and few images, because a CPU takes ten times as long in fp16 as in fp32.
TINY = {
    "images": 30 * 16,
    "warmup": 8 * 16,
    "evaluation": 10 * 16,
    "batch_sizes": (16, 32),
    "basic": "cifar_resnet8",
    "bottleneck": "cifar_bottleneck11",
    "teacher": "cifar_bottleneck20",
}
PROTOCOLS = {
    "cifar10": {
        "paper": CIFAR10,
        "short": replace(
            CIFAR10.shortened(SHORTER, evaluations=10),
            warmup=CIFAR10.images // SHORTER // 10,
            batch_sizes=(128, 512),
            basic="cifar_resnet20",
            bottleneck="cifar_bottleneck29",
            teacher="cifar_bottleneck56",
        ),
        "smoke": replace(
            CIFAR10,
            data="synthetic",
            recipe=replace(CIFAR10.recipe, learning_rate=0.05),
            **TINY,
        ),
    },
    "imagenet": {
        "paper": IMAGENET,
        "short": IMAGENET.shortened(64, evaluations=10),
        "smoke": replace(
            IMAGENET,
            data="synthetic_imagenet",
            gpus=2,
            recipe=replace(IMAGENET.recipe, learning_rate=0.05, image_size=32),
            **TINY,
        ),
    },
}
PROTOCOLS["cifar100"] = {
    profile: replace(protocol, data=data_for(profile, "cifar100"), kept=0)
    for profile, protocol in PROTOCOLS["cifar10"].items()
}


def _steps(page: Page) -> list[compare.Step]:
    """Return the steps of a ladder in top-1 accuracy, and on ImageNet also in top-5 accuracy."""
    further = ["top5_accuracy"] if all(result.row.data in FOLDERS for result in page.results) else []
    return [step for metric in (page.metric, *further) for step in compare.find_steps(page.results, metric)]


def _claims(page: Page) -> list[Found]:
    return of_steps(_steps(page), page.variant.profile)


def experiments(
    script: str,
    table: str,
    title: str,
    rows: Callable[[Protocol], list[Row]],
    report: Callable[[Page, Protocol], list[Path]],
) -> dict[str, Experiment]:
    """Return a table's experiments by the data sets' names in ``--dataset``, the script's default first.

    ``rows`` and ``report`` are :class:`Experiment`'s, but take the protocol of the data set and profile.
    """
    names = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet": "ImageNet"}
    titles = {dataset: f"{title} on {name}" for dataset, name in names.items()}
    first, *_ = titles
    on = {dataset: f", on {name} by the protocol of He et al. 2015, section 4.2" for dataset, name in names.items()}
    on["imagenet"] = ""
    return {
        dataset: Experiment(
            name=script if dataset == first else f"{script}_{dataset}",
            title=title,
            source=f"He T. et al. 2018, {table}{on[dataset]}",
            rows=lambda profile, dataset=dataset: rows(PROTOCOLS[dataset][profile]),
            report=lambda page, dataset=dataset: report(page, PROTOCOLS[dataset][page.variant.profile]),
            metric="top1_accuracy",
            claims=None if dataset == "cifar100" else _claims,
            seeds={"paper": 3, "short": 2, "smoke": 2} if dataset == "imagenet" else SEEDS,
            epilog=NOT_RUN if dataset == "cifar100" else "",
            script=script,
            module=script.replace("tricks_", "tricks."),
            dataset=None if dataset == first else dataset,
        )
        for dataset, title in titles.items()
    }


def write_ladder(page: Page, heading: str, columns: list[Column], series: dict[str, list[RowResult]]) -> list[Path]:
    """Write the table of accuracies, the effect of each step, and plots; return the files.

    The effects are paired by seed and stand beside the paper's. The plots are the ladder and each step's learning
    curves. ``heading`` is the first column's; ``columns`` come after it. ``series``: ladders by name, drawn beside one
    another.
    """
    on_imagenet = all(result.row.data == IMAGENET.data for result in page.results)  # the paper's own data
    further = ["top5_accuracy"] if all(result.row.data in WITH_TOP5 for result in page.results) else []
    found = _steps(page)
    agreement = "confirmed" if on_imagenet else "carries over"
    chosen = [page.net(heading), *columns, page.published(), page.reproduced(), page.interval()]
    chosen += [*page.reported_by_source(), *([page.difference(), *page.verdict()] if on_imagenet else [])]
    for metric in further:
        chosen += [page.published(metric), page.reproduced(metric), *page.reported_by_source(metric)]
    return [
        *page.write(chosen, [not_run_section(page), compare.steps_section(found, page.variant, agreement)]),
        page.write_csv(compare.steps_numbers(found, page.variant, agreement), "steps"),
        *save(ladder(series, page.variant, page.metric), page.plot_path("ladder"), page.description),
        *save(step_curves(compare.find_steps(page.results), page.variant), page.plot_path("curves"), page.description),
    ]
