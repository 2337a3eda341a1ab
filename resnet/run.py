"""A run, one model trained by one recipe on one data set with one seed, and its identity."""

import hashlib
import json
from dataclasses import asdict, dataclass, field

from resnet.data import FOLDERS, IMAGE_SHAPES, TASK_DATA, TRAIN_IMAGES, Arrays, find_arrays
from resnet.models import changed_options, default_options, image_channels, image_size
from resnet.recipe import Recipe
from resnet.tasks import RECIPE_FIELDS, Task, task_of

# Part of every identity. Raise it when a change of the code changes the results of runs: old results then belong to
# other runs.
TRAINING_VERSION = 1
ROLES = ("teacher", "pretrained")  # roles of a run whose final network another run needs


@dataclass(frozen=True)
class Run:
    """Specification of one training run; see :mod:`resnet.models` for names and options.

    ``train_images``: number of training images used, from the first on; the others are the validation split. None uses
    all. ``teacher``: a run on the same data whose final network is distilled into this one at ``recipe.temperature``.
    ``pretrained``: a run of the same network, on any data, whose final weights this run starts from, except for the
    last, fully connected layer (fine-tuning). ``arrays``: the properties of a data set that was given as arrays
    (:func:`resnet.data.add_arrays`), found by its name; None for the others. ``task``: another task than
    classification; the run's network then begins with the model's, and ``pretrained`` may be a classifier.

    Raises ValueError for an unknown model, option or data set, and for a combination that does not fit together.
    """

    model: str
    recipe: Recipe = Recipe()
    data: str = "cifar10"
    seed: int = 0
    model_options: dict = field(default_factory=dict, hash=False)
    train_images: int | None = None
    teacher: "Run | None" = None
    pretrained: "Run | None" = None
    arrays: Arrays | None = None
    task: Task | None = None

    def __post_init__(self):
        object.__setattr__(self, "model_options", changed_options(self.model, self.model_options))
        if self.arrays is None:
            object.__setattr__(self, "arrays", find_arrays(self.data))
        if self.arrays is None and self.data not in TRAIN_IMAGES:
            raise ValueError(f"there is no data set {self.data!r}; known data sets: {', '.join(TRAIN_IMAGES)}")
        available = self.arrays.train_images if self.arrays else TRAIN_IMAGES[self.data]
        count = self.train_images
        if count is not None and (type(count) is not int or not 0 < count <= available):
            raise ValueError(f"{self.data} has {available} training images, so {count} can't be used")
        if count == available:
            object.__setattr__(self, "train_images", None)
        if type(self.seed) is not int or self.seed < 0:
            raise ValueError(f"seed must be a whole number of at least 0, not {self.seed!r}")
        self._check_zero_gamma()
        self._check_images()
        self._check_task()
        self._check_crop()
        self._check_teacher()
        self._check_pretrained()

    @property
    def needs(self) -> "dict[str, Run]":
        """The runs whose final networks this one needs, by their roles: "teacher", "pretrained"."""
        return {role: run for role in ROLES if (run := getattr(self, role)) is not None}

    def _check_zero_gamma(self) -> None:
        if not self.model_options.get("zero_gamma"):
            return
        if (default_options(self.model) | self.model_options).get("shortcut") == "A":
            raise ValueError("zero_gamma needs projections, shortcut 'B' or 'C': the channels that shortcut 'A' adds "
                             "would stay 0 for ever, because their shortcut is 0, too, and ReLU passes no gradient "
                             "at 0")  # fmt: skip

    def _check_images(self) -> None:
        *pixels, channels = self.arrays.shape if self.arrays else IMAGE_SHAPES.get(self.data, (3,))  # files: in colour
        colour = "stack the channel three times, np.stack([images] * 3, axis=-1)"
        if channels != (wanted := image_channels(self.model)):
            remedy = f"choose a net for {'grey images, mnist_residual' if channels == 1 else 'colour images'}"
            if self.arrays and channels == 1:
                remedy = f"{colour}, or {remedy}"
            raise ValueError(f"{self.model} takes images with {wanted} channel(s), but images of {self.data} have "
                             f"{channels}: {remedy}")  # fmt: skip
        replaceable = bool(self.recipe.plugins)  # by another net
        if wanted == 1 and not replaceable and pixels != [size := image_size(self.model)] * 2:
            raise ValueError(f"{self.model} takes images of {size}x{size} pixels, but images of {self.data} have "
                             f"{pixels[0]}x{pixels[1]}: scale them, or {colour} for another net")  # fmt: skip

    def _check_task(self) -> None:
        wanted, own = TASK_DATA.get(self.data), self.task and self.task.name
        if wanted != own:
            raise ValueError(f"{self.data} is for {wanted or 'classification'}, not for {own or 'classification'}")
        if self.task is None:
            return
        if unread := sorted(set(self.recipe.changes()) - RECIPE_FIELDS):
            raise ValueError(f"recipe: training for {own} does not read {', '.join(unread)}")
        if self.train_images is not None or self.teacher is not None:
            raise ValueError(f"training for {own} has neither train_images nor a teacher")
        if self.pretrained is not None and self.task.backbone is not None:
            raise ValueError("a run begins with the weights of a pretrained run or of a backbone, not with both")

    def _check_crop(self) -> None:
        if self.task is not None:  # which decides how images are prepared
            return
        crop, is_folder = self.recipe.crop, self.data in FOLDERS
        if is_folder == (crop == "pad"):
            what, wanted = ("an image folder", "scale or area") if is_folder else ("a set of small images", "pad")
            raise ValueError(f"{self.data} is {what}: the recipe's crop must be {wanted}, not {crop!r}")
        if is_folder and self.train_images is not None:
            raise ValueError(f"train_images can't be set for {self.data}: an image folder has no validation split")

    def _check_teacher(self) -> None:
        if (self.teacher is None) != (self.recipe.temperature is None):
            have, lack = ("temperature", "teacher") if self.teacher is None else ("teacher", "temperature")
            raise ValueError(f"distillation needs a teacher and a temperature: there is a {have}, but no {lack}")
        if self.teacher is not None and self.teacher.data != self.data:
            raise ValueError(f"the teacher is trained on {self.teacher.data}, but this run on {self.data}")

    def _check_pretrained(self) -> None:
        if self.pretrained is None:
            return
        if self.pretrained.task is not None:
            raise ValueError(f"a run can't start from the weights of a run for {self.pretrained.task.name}, only from "
                             "a classifier's")  # fmt: skip
        own, other = (_network(run) for run in (self, self.pretrained))
        if own != other:
            raise ValueError(f"{own} can't start from the weights of another network, {other}")

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
        decisive |= {"arrays": self.arrays.specification()} if self.arrays else {}
        decisive |= {role: run.identity for role, run in self.needs.items()}
        decisive |= {} if self.task is None else {"task": self.task.changes()}
        return hashlib.sha256(canonical_json(decisive)).hexdigest()

    def __hash__(self):
        return hash(self.identity)

    @property
    def short_id(self) -> str:
        """The first 16 digits of the identity, which name files and folders."""
        return self.identity[:16]

    def specification(self) -> dict:
        """Return the whole specification, with all defaults, as JSON values.

        Plugins and the properties of arrays are in it only if there are any.
        """
        specification = asdict(self)
        del specification["arrays"], specification["recipe"]["plugins"]
        specification |= {"arrays": self.arrays.specification()} if self.arrays else {}
        plugins = [plugin.specification() for plugin in self.recipe.plugins]
        specification["recipe"] |= {"plugins": plugins} if plugins else {}
        for name in ("milestones", "tests"):
            specification["recipe"][name] = list(specification["recipe"][name])
        specification |= {role: None for role in ROLES}
        specification |= {role: run.specification() for role, run in self.needs.items()}
        del specification["task"]
        specification |= {} if self.task is None else {"task": self.task.specification()}
        return {"training_version": TRAINING_VERSION, **specification}

    @classmethod
    def from_specification(cls, specification: dict) -> "Run":
        """Rebuild a run from its :meth:`specification`. Raises ValueError if this code trains it differently."""
        values = dict(specification)
        if (version := values.pop("training_version", None)) != TRAINING_VERSION:
            raise ValueError(f"training version {version}, but this code has version {TRAINING_VERSION}")
        try:
            given = {role: values[role] for role in ROLES if values.get(role) is not None}
            needs = {role: cls.from_specification(each) for role, each in given.items()}
            values["arrays"] = Arrays(**values["arrays"]) if values.get("arrays") else None
            task = task_of(values.pop("task", None))
            return cls(**{**values, "recipe": Recipe(**values["recipe"]), **needs}, task=task)
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a run's specification: {error}") from error

    def __str__(self) -> str:
        options = "".join(f" {name}={value}" for name, value in self.model_options.items())
        task = "" if self.task is None else f" for {self.task.name}"
        names = " and ".join(plugin.name for plugin in self.recipe.plugins)
        plugins = f" with {names}" if names else ""
        return f"{self.model}{options}{task}{plugins} seed {self.seed} ({self.data}, {self.short_id})"


def _network(run: Run) -> str:
    """Return a run's model with its options, without the number of classes."""
    options = {name: value for name, value in sorted(run.model_options.items()) if name != "num_classes"}
    return " ".join([run.model, *(f"{name}={value}" for name, value in options.items())])


def canonical_json(value) -> bytes:
    """Return ``value`` as JSON with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
