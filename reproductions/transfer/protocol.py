"""The protocol of both tables on each data set: rows, recipes, and the tasks' settings.

A row begins with the final network of the ladder's row with the same name and seed: B-standard is in the table of
tweaks, the others are in the table of refinements. On PASCAL VOC and ADE20K these are the networks of ImageNet, and
training follows the authors' public commands and logs. On canvases (:mod:`resnet.data.canvas`) they are the networks of
CIFAR-10, and everything is this suite's own, for a processor; a first row begins with random weights.

The smoke profile is the same for all data sets: synthetic canvases.
"""

from dataclasses import dataclass, replace
from fractions import Fraction

from reproductions.bag_of_tricks import refinements, tweaks
from reproductions.bag_of_tricks.protocol import PROTOCOLS
from reproductions.harness.experiment import Row
from resnet.data import TRAIN_IMAGES
from resnet.recipe import Recipe
from resnet.tasks import Detection, Segmentation, Task

STEPS = {  # a row's label, and the row that it is compared with
    "b_standard": ("B-standard", None),
    "efficient": ("D-efficient", "b_standard"),
    "cosine": ("+ cosine", "efficient"),
    "smoothing": ("+ smoothing", "cosine"),
    "distilled": ("+ distill w/o mixup", "smoothing"),
    "mixup": ("+ mixup w/o distill", "smoothing"),
    "mixup_distilled": ("+ distill w/ mixup", "mixup"),
}
UNTRAINED = "untrained"
# Outside of the paper profile only rows whose networks are published are trained unless they are named: smoothing then
# follows efficient training, and its step is cosine decay and smoothing together.
KEPT = ("b_standard", "efficient", "smoothing")
SHORTER = 64  # times fewer iterations of the short profile on real data, as on ImageNet


@dataclass(frozen=True)
class Setting:
    """Training for a task on one data set in one profile. ``ladder``: a data set and a profile of Bag of Tricks."""

    data: str
    recipe: Recipe
    task: Task
    ladder: tuple[str, str]

    @property
    def on_canvas(self) -> bool:
        """True if the data are canvases."""
        return "canvas" in self.data


def _ade20k(shorter: int) -> Setting:
    epoch = Fraction(TRAIN_IMAGES["ade20k"], 16 * shorter)
    recipe = Recipe(
        iterations=round(50 * epoch),
        batch_size=16,
        learning_rate=0.01,
        milestones=(),
        schedule="poly",
        eval_interval=round(10 * epoch),
    )
    return Setting("ade20k", recipe, Segmentation(), ("imagenet", "paper" if shorter == 1 else "short"))


def _voc(shorter: int) -> Setting:
    epoch = Fraction(TRAIN_IMAGES["voc"], 4 * shorter)
    recipe = Recipe(
        iterations=round(20 * epoch),
        batch_size=4,
        learning_rate=0.001,
        milestones=(round(14 * epoch), round(20 * epoch)),
        weight_decay=5e-4,
        eval_interval=round(5 * epoch),
        precision="fp32",
    )
    return Setting("voc", recipe, Detection(), ("imagenet", "paper" if shorter == 1 else "short"))


# A stride of 4 is the CIFAR net's own, a quarter of an image's 32 pixels as 8 is of 32 on ImageNet.
_SEGMENTED = Recipe(
    iterations=600, batch_size=16, learning_rate=0.02, milestones=(), schedule="poly", eval_interval=300
)
_FCN = Segmentation(stride=4, base=None, crop=None)
_DETECTED = Recipe(
    iterations=500,
    batch_size=4,
    learning_rate=0.02,
    milestones=(375,),
    linear_warmup=50,
    eval_interval=500,
    precision="fp32",
)
_RCNN = Detection(
    short_side=96,
    long_side=96,
    frozen=0,
    frozen_bn=False,
    anchors=(24, 36, 48),
    pooled=8,
    proposals=(500, 200, 500, 50),
    regions=32,
)


def _on_canvas(recipe: Recipe, task: Task, **smoke) -> dict[str, Setting]:
    data = {"segmentation": "canvas64", "detection": "canvas96"}[task.name]
    longer = replace(recipe.lengthened(Fraction(10)), eval_interval=10 * recipe.eval_interval)
    brief = replace(recipe, iterations=8, batch_size=4, eval_interval=4, milestones=(), linear_warmup=0)
    return {
        "paper": Setting(data, longer, task, ("cifar10", "paper")),
        "short": Setting(data, recipe, task, ("cifar10", "short")),
        "smoke": Setting(f"synthetic_{data}", brief, replace(task, **smoke), ("cifar10", "smoke")),
    }


_SEGMENTATION = _on_canvas(_SEGMENTED, _FCN)
_DETECTION = _on_canvas(_DETECTED, _RCNN, proposals=(50, 20, 50, 10), regions=8)
SETTINGS: dict[str, dict[str, dict[str, Setting]]] = {  # by task, data set and profile
    "segmentation": {
        "canvas": _SEGMENTATION,
        "ade20k": {"paper": _ade20k(1), "short": _ade20k(SHORTER), "smoke": _SEGMENTATION["smoke"]},
    },
    "detection": {
        "canvas": _DETECTION,
        "voc": {"paper": _voc(1), "short": _voc(SHORTER), "smoke": _DETECTION["smoke"]},
    },
}


def rows(setting: Setting, profile: str) -> list[Row]:
    """Return the table's rows, each after the row that it is compared with."""
    dataset, classifiers = setting.ladder
    protocol, found = PROTOCOLS[dataset][classifiers], []
    ladder = {row.key: row for row in (*refinements.rows(protocol), tweaks.b_standard(protocol))}
    for key, (label, after) in STEPS.items():
        classifier = ladder[key]
        if setting.on_canvas and key == "b_standard":
            after = UNTRAINED
        if profile != "paper" and key == "smoothing":
            label, after = "+ cosine and smoothing", "efficient"
        found.append(
            Row(
                key=key,
                label=label,
                model=classifier.model,
                recipe=setting.recipe,
                data=setting.data,
                model_options=classifier.model_options,
                reported=f"bot_transfer_{'d_efficient' if key == 'efficient' else key}",
                after=after,
                pretrained=classifier,
                on_request=profile != "paper" and key not in KEPT,
                task=setting.task,
            )
        )
    if not setting.on_canvas:
        return found
    efficient = next(row for row in found if row.key == "efficient")
    first = replace(efficient, key=UNTRAINED, label="untrained, D", reported=None, after=None, pretrained=None)
    return [first, *found]
