"""Tasks other than classification, whose networks begin with a classifier's: their settings, which runs carry.

:mod:`resnet.tasks.trunk` makes the first part of such a network, :mod:`resnet.tasks.segmentation` and
:mod:`resnet.tasks.detection` the rest, and :mod:`resnet.tasks.trainer` trains it. Bag of Tricks, section 6, transfers
its classifiers to both tasks.
"""

from dataclasses import asdict, dataclass, fields
from typing import ClassVar

# The fields of a recipe that these trainings read; the others must have their defaults.
RECIPE_FIELDS = {
    "iterations", "batch_size", "learning_rate", "milestones", "momentum", "weight_decay", "augment", "precision",
    "eval_interval", "base_batch_size", "schedule", "linear_warmup", "nesterov", "last_batch",
}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """The settings that all tasks share.

    A default never changes, because a run's identity contains the fields that differ from their defaults.

    backbone: the SHA-256 of weights from elsewhere that a run begins with, instead of a ``pretrained`` run's.

    ``metrics``: the results of an evaluation, in percent; a run is judged by the first.
    """

    name: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]

    backbone: str | None = None

    def __post_init__(self):
        for field in fields(self):  # lists, as they come out of JSON
            if isinstance(value := getattr(self, field.name), list):
                object.__setattr__(self, field.name, tuple(value))

    def specification(self) -> dict:
        """Return the name and all fields, as JSON values."""
        return {"name": self.name, **_json(asdict(self))}

    def changes(self) -> dict:
        """Return the name and the fields that differ from the defaults, as JSON values."""
        changed = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return {"name": self.name, **_json(changed)}


@dataclass(frozen=True)
class Segmentation(Task):
    """Semantic segmentation by a fully convolutional network (Long et al. 2015, in the form of torchvision's FCN).

    stride: pixels of the image for each of the trunk's features; dilation keeps the later stages at it. auxiliary: the
    weight of the loss of a second head on the last stage but one. head_rate: the heads' learning rate in units of the
    trunk's. base, crop: for images of different sizes, the shorter side is scaled to 0.5 to 2 times ``base`` in
    training and to ``base`` in tests, and training takes squares of ``crop`` pixels; None for images of one size, which
    are taken as they are.
    """

    name: ClassVar[str] = "segmentation"
    metrics: ClassVar[tuple[str, ...]] = ("mean_iou", "pixel_accuracy")

    stride: int = 8
    auxiliary: float = 0.5
    head_rate: float = 10.0
    base: int | None = 520
    crop: int | None = 480


@dataclass(frozen=True)
class Detection(Task):
    """Object detection by Faster R-CNN (Ren et al. 2015) on the last stage but one, "C4": the last is its head.

    short_side, long_side: the pixels that an image is scaled to: its shorter side, unless its longer one would exceed
    the second. frozen: parts of the network that are not trained, from the first on: 1 the stem, 2 also stage 1.
    frozen_bn: BN has the running statistics, scales and shifts that it begins with. anchors: sides of the anchor boxes
    in pixels, each in three shapes. pooled: regions' features along a side. proposals: numbers of proposals before and
    after their suppression, in training and in tests. regions: proposals of an image that the head is trained on;
    positive: the share of these that may be of objects. overlap: the IoU from which on a detection suppresses another.
    """

    name: ClassVar[str] = "detection"
    metrics: ClassVar[tuple[str, ...]] = ("map_11_point", "map_area")

    short_side: int = 600
    long_side: int = 1000
    frozen: int = 2
    frozen_bn: bool = True
    anchors: tuple[int, ...] = (32, 64, 128, 256, 512)
    pooled: int = 14
    proposals: tuple[int, ...] = (12_000, 2_000, 6_000, 300)
    regions: int = 128
    positive: float = 0.25
    overlap: float = 0.3


TASKS = {task.name: task for task in (Segmentation, Detection)}


def _json(values: dict) -> dict:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def task_of(specification: dict | None) -> Task | None:
    """Rebuild a task from its :meth:`Task.specification`. Raises ValueError."""
    if specification is None:
        return None
    values = dict(specification)
    if (name := values.pop("name", None)) not in TASKS:
        raise ValueError(f"there is no task {name!r}; known tasks: {', '.join(TASKS)}")
    return TASKS[name](**values)
