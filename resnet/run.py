"""A run: one model trained by one recipe on one data set with one seed, and the identity that follows."""

import hashlib
import json
from dataclasses import asdict, dataclass, field

from resnet.data import FOLDERS, IMAGE_SHAPES, TRAIN_IMAGES
from resnet.models import changed_options, image_channels
from resnet.recipe import Recipe

# Part of every identity. Raise it when a change of the code changes what a run gives: results of the old code then
# belong to other runs.
TRAINING_VERSION = 1
ROLES = ("teacher", "pretrained")  # what a run can be to another one that needs its final network


@dataclass(frozen=True)
class Run:
    """What is trained; see :mod:`resnet.models` for names and options.

    ``train_images``: the first so many training images are used, the others held out for validation; None uses all.
    ``teacher``: a run on the same data, from whose final network this one is distilled at ``recipe.temperature``.
    ``pretrained``: a run of the same network, on any data, with whose final weights this one begins, all but those of
    the last, fully connected layer (fine-tuning).

    Raises ValueError for an unknown model, option or data set, and for what does not go together.
    """

    model: str
    recipe: Recipe = Recipe()
    data: str = "cifar10"
    seed: int = 0
    model_options: dict = field(default_factory=dict, hash=False)
    train_images: int | None = None
    teacher: "Run | None" = None
    pretrained: "Run | None" = None

    def __post_init__(self):
        object.__setattr__(self, "model_options", changed_options(self.model, self.model_options))
        if self.data not in TRAIN_IMAGES:
            raise ValueError(f"there is no data set {self.data!r}; the data sets are: {', '.join(TRAIN_IMAGES)}")
        available = TRAIN_IMAGES[self.data]
        count = self.train_images
        if count is not None and (type(count) is not int or not 0 < count <= available):
            raise ValueError(f"{self.data} has {available} training images, so {count} can't be used")
        if count == available:
            object.__setattr__(self, "train_images", None)
        if type(self.seed) is not int or self.seed < 0:
            raise ValueError(f"seed must be a whole number of at least 0, not {self.seed!r}")
        self._check_channels()
        self._check_crop()
        self._check_teacher()
        self._check_pretrained()

    @property
    def needs(self) -> "dict[str, Run]":
        """The runs whose final networks this one needs, by what they are to it: "teacher", "pretrained"."""
        return {role: run for role in ROLES if (run := getattr(self, role)) is not None}

    def _check_channels(self) -> None:
        *_, channels = IMAGE_SHAPES.get(self.data, (3,))  # images from files are in colour
        if channels != (wanted := image_channels(self.model)):
            raise ValueError(
                f"{self.model} takes {wanted} channel(s) of an image, but those of {self.data} have {channels}"
            )

    def _check_crop(self) -> None:
        crop, is_folder = self.recipe.crop, self.data in FOLDERS
        if is_folder == (crop == "pad"):
            what, wanted = ("an image folder", "scale or area") if is_folder else ("a set of small images", "pad")
            raise ValueError(f"{self.data} is {what}: the recipe's crop must be {wanted}, not {crop!r}")
        if is_folder and self.train_images is not None:
            raise ValueError(f"no training images of {self.data} can be held out: its folder has its own test images")

    def _check_teacher(self) -> None:
        if (self.teacher is None) != (self.recipe.temperature is None):
            have, lack = ("temperature", "teacher") if self.teacher is None else ("teacher", "temperature")
            raise ValueError(f"distillation needs a teacher and a temperature: there is a {have}, but no {lack}")
        if self.teacher is not None and self.teacher.data != self.data:
            raise ValueError(f"the teacher was trained on {self.teacher.data}, so it can't teach {self.data}")

    def _check_pretrained(self) -> None:
        if self.pretrained is None:
            return
        own, other = (_network(run) for run in (self, self.pretrained))
        if own != other:
            raise ValueError(f"{own} can't begin with the weights of another network, {other}")

    @property
    def identity(self) -> str:
        """SHA-256 (hex) of model, recipe, data and seed, the same in every Python process and version."""
        decisive = {
            "training_version": TRAINING_VERSION,
            "model": self.model,
            "model_options": self.model_options,
            "recipe": self.recipe.changes(),
            "data": self.data,
            "train_images": self.train_images,
            "seed": self.seed,
        }
        decisive |= {role: run.identity for role, run in self.needs.items()}
        return hashlib.sha256(canonical_json(decisive)).hexdigest()

    def __hash__(self):
        return hash(self.identity)

    @property
    def short_id(self) -> str:
        """The first 16 digits of the identity: names files and folders."""
        return self.identity[:16]

    def specification(self) -> dict:
        """The whole specification, defaults written out, as plain JSON values."""
        specification = asdict(self)
        for name in ("milestones", "tests"):
            specification["recipe"][name] = list(specification["recipe"][name])
        specification |= {role: None for role in ROLES}
        specification |= {role: run.specification() for role, run in self.needs.items()}
        return {"training_version": TRAINING_VERSION, **specification}

    @classmethod
    def from_specification(cls, specification: dict) -> "Run":
        """The run that :meth:`specification` was made of. Raises ValueError if this code trains it differently."""
        values = dict(specification)
        if (version := values.pop("training_version", None)) != TRAINING_VERSION:
            raise ValueError(f"training version {version}, but this code has version {TRAINING_VERSION}")
        try:
            given = {role: values[role] for role in ROLES if values.get(role) is not None}
            needs = {role: cls.from_specification(each) for role, each in given.items()}
            return cls(**{**values, "recipe": Recipe(**values["recipe"]), **needs})
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a run's specification: {error}") from error

    def __str__(self) -> str:
        options = "".join(f" {name}={value}" for name, value in self.model_options.items())
        return f"{self.model}{options} seed {self.seed} ({self.data}, {self.short_id})"


def _network(run: Run) -> str:
    """A run's model with its options, but for the number of classes."""
    options = {name: value for name, value in sorted(run.model_options.items()) if name != "num_classes"}
    return " ".join([run.model, *(f"{name}={value}" for name, value in options.items())])


def canonical_json(value) -> bytes:
    """``value`` as JSON with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
