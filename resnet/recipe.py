"""Training recipes: everything that decides a run's result except model, data and seed."""

import math
from dataclasses import dataclass, fields, replace
from fractions import Fraction

import torch
from torch import nn

from resnet.plugins import Plugin

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
KERNELS = ("auto", "library", "fused")
SCHEDULES = ("step", "cosine", "poly")
POLY = 0.9  # exponent of the schedule "poly"
CROPS = ("pad", "scale", "area")
NORMALIZATIONS = ("pixel_mean", "channel_mean", "channel_std", "image_std")
MOMENTUM_AT_DROPS = ("scaled", "kept", "forgotten")
SMOOTHED_OVER = ("others", "all")
MIXUP_PARTNERS = ("neighbour", "reversed")
JITTERED = "contrast", "hue"
LAST_BATCHES = ("carry", "drop", "use")
TESTS = ("ten_crop", "multi_scale")


@dataclass(frozen=True)
class Recipe:
    """SGD with momentum; the defaults are the CIFAR-10 recipe of He et al. 2015, section 4.2.

    A default never changes, and a new field's default keeps the present behaviour, because a run's identity contains
    the fields that differ from their defaults (:meth:`changes`).

    Optimization:

    iterations: SGD steps. batch_size: images per step.
    learning_rate: peak learning rate. base_batch_size: if set, ``learning_rate`` applies to batches of this size and is
        scaled linearly to ``batch_size`` (Bag of Tricks, section 3.1).
    schedule: "step" divides the learning rate by 10 at each of ``milestones`` (iterations, counted from 0); "cosine"
        decays it to 0 along half a cosine after the linear warm-up (Bag of Tricks, section 5.1); "poly" decays it
        after the linear warm-up like (the share of the iterations that is left)^0.9, as is usual for segmentation.
    linear_warmup: number of iterations in which the learning rate first grows from 0 in equal steps (section 3.1).
    warmup_learning_rate: if set, the learning rate from iteration 0 until the training error, averaged over the last
        ``warmup_window`` iterations and checked every ``warmup_window`` iterations, is below ``warmup_until_error``
        percent.
    momentum, nesterov, weight_decay: SGD's. momentum_at_drops: the effect of a learning-rate change on past steps in
        the momentum buffer. "scaled" scales them with the learning rate, as PyTorch does, whose buffer holds gradients;
        "kept" keeps their size, v = m v + lr g, as in the authors' Caffe; "forgotten" drops them, as a new optimizer
        for each stage would.
    decay_all: weight decay applies to all parameters; if false, only to the weights of convolutions and fully connected
        layers ("no bias decay", section 3.1).
    batch_norm_size: if set, BN takes its statistics over groups of this many images of a batch, as if each of several
        GPUs had one group; the running estimates are means over the groups. None: over the whole batch.
    precision: "auto" is bf16 autocast on a GPU or CPU with bf16 instructions, else fp32; "fp16" is autocast with
        dynamic loss scaling.
    kernels: "library" uses PyTorch's kernels; "fused" uses this project's CUDA kernels for the CIFAR nets
        (:mod:`resnet.kernels`), for bf16 and fp16, not yet run on a GPU; "auto" means "library".

    Images and targets:

    augment: whether training images are cropped and flipped at random, drawn per image.
    crop: "pad" adds 4 zero pixels on each side and crops the original size at random (for small images in memory). For
        image folders, "scale" resizes the shorter side to a random 8/7 to 15/7 of ``image_size`` and crops a random
        square (He et al. 2015, section 3.4: 256 to 480 for 224), and "area" crops a random rectangle of 8 to 100 % of
        the area with an aspect ratio from 3/4 to 4/3 and resizes it to a square (Bag of Tricks, section 2.1).
    crop_offsets: positions of the "pad" crop in each direction: 9, or 8 with a common off-by-one error.
    normalization: for images in memory: "pixel_mean" subtracts the mean image, as in the paper; "channel_mean"
        subtracts each channel's mean; "channel_std" also divides by each channel's standard deviation; "image_std"
        divides by the mean of its standard deviations in single images instead, which is common (CIFAR-10: 0.2023,
        0.1994, 0.2010).
    last_batch: use of the images left over when an epoch is not a multiple of the batch: "carry" fills the batch up
        with the first images of the next epoch, "drop" leaves them out, "use" makes a smaller batch of them.
    image_size: pixels on a side of an image folder's crops.
    colour_jitter: brightness, contrast and saturation are scaled by factors from 1 - x to 1 + x, in random order.
        jittered: "hue" turns the hue in place of the contrast, as the text of Bag of Tricks says but not its script.
    pca_noise: standard deviation of the noise along the principal components of the colours.
    label_smoothing: share of each target that is spread over other classes (section 5.2). smoothed_over: the "others"
        or "all" classes, the correct one included.
    mixup: alpha of Beta(alpha, alpha), the distribution of the weight of the first of two mixed images, drawn once per
        batch (section 5.4); 0 switches mixup off. mixup_partner: an image's "neighbour" in the batch, or the image at
        its place in the "reversed" batch; if ``batch_norm_size`` is set, each such group is reversed, like the part of
        one GPU.
    temperature: temperature of the distillation from the run's teacher (section 5.3); None without a teacher.
        hard_weight: if set, the weight of the label loss, the rest being the weight of the distillation loss; if None,
        the two losses are added.

    Evaluation:

    eval_interval: iterations between evaluations on the test images; the last iteration is always evaluated.
    tests: additional tests of the final network, on image folders: "ten_crop", "multi_scale".
    loss_interval: if set, mean training losses are also recorded over intervals of this many iterations, which start
        anew at each evaluation; iterations left over before the next evaluation are in none of these means.
    statistics_batches: if set, BN statistics of the final network are means over this number of further training
        batches instead of the running estimates (the authors of He et al. 2015 recomputed them after training).

    plugins: tricks of one's own (:class:`resnet.plugins.Plugin`), called in this order; see docs/plugins.md.

    Raises ValueError for an invalid value of a field and for fields that contradict each other.
    """

    iterations: int = 64_000
    batch_size: int = 128
    learning_rate: float = 0.1
    milestones: tuple[int, ...] = (32_000, 48_000)
    warmup_learning_rate: float | None = None
    warmup_until_error: float = 80.0
    warmup_window: int = 100
    momentum: float = 0.9
    weight_decay: float = 1e-4
    augment: bool = True
    precision: str = "auto"
    eval_interval: int = 1_000
    base_batch_size: int | None = None
    schedule: str = "step"
    linear_warmup: int = 0
    nesterov: bool = False
    decay_all: bool = True
    batch_norm_size: int | None = None
    crop: str = "pad"
    crop_offsets: int = 9
    normalization: str = "pixel_mean"
    last_batch: str = "carry"
    image_size: int = 224
    colour_jitter: float = 0.0
    pca_noise: float = 0.0
    label_smoothing: float = 0.0
    mixup: float = 0.0
    temperature: float | None = None
    tests: tuple[str, ...] = ()
    kernels: str = "auto"
    loss_interval: int | None = None
    momentum_at_drops: str = "scaled"
    smoothed_over: str = "others"
    mixup_partner: str = "neighbour"
    hard_weight: float | None = None
    statistics_batches: int | None = None
    jittered: str = "contrast"
    plugins: tuple[Plugin, ...] = ()

    def __post_init__(self):
        def check(condition: bool, name: str, wanted: str) -> None:
            if not condition:
                raise ValueError(f"recipe: {name} must be {wanted}, not {getattr(self, name)!r}")

        # Equal numbers become the same type, because 1 and 1.0 would give different identities.
        for name in _NUMBERS:
            value = getattr(self, name)
            if value is not None or name not in _OPTIONAL:
                is_number = isinstance(value, (int, float)) and math.isfinite(value)
                check(is_number and value >= 0, name, "a number of at least 0")
                object.__setattr__(self, name, float(value))
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None or name not in _OPTIONAL:
                check(type(value) is int and value >= 1, name, "a whole number of at least 1")
        check(type(self.linear_warmup) is int and self.linear_warmup >= 0, "linear_warmup", "a whole number")
        milestones = tuple(self.milestones)
        check(all(m >= 0 and m % 1 == 0 for m in milestones), "milestones", "whole numbers of at least 0")
        check(list(milestones) == sorted(set(milestones)), "milestones", "increasing")
        object.__setattr__(self, "milestones", tuple(int(m) for m in milestones))
        object.__setattr__(self, "tests", tuple(self.tests))
        check(isinstance(self.plugins, (tuple, list)), "plugins", "a tuple of plugins")
        plugins = (each if isinstance(each, Plugin) else Plugin.recorded(each) for each in self.plugins)
        object.__setattr__(self, "plugins", tuple(plugins))
        for name in ("augment", "nesterov", "decay_all"):
            check(isinstance(getattr(self, name), bool), name, "true or false")
        for name, choices in _CHOICES.items():
            check(getattr(self, name) in choices, name, f"one of {', '.join(map(str, choices))}")
        check(set(self.tests) <= set(TESTS), "tests", f"among {', '.join(TESTS)}")
        check(self.label_smoothing < 1, "label_smoothing", "below 1")
        check(self.momentum < 1, "momentum", "below 1")
        check(self.colour_jitter < 1, "colour_jitter", "below 1")
        check(self.temperature != 0, "temperature", "above 0")
        self._check_combinations()

    def _check_combinations(self) -> None:
        """Raise ValueError for fields that contradict each other."""

        def refuse(condition: bool, why: str) -> None:
            if condition:
                raise ValueError(f"recipe: {why}")

        refuse((self.loss_interval or 1) > self.eval_interval, f"loss_interval {self.loss_interval} is longer than the "
               f"{self.eval_interval} iterations between evaluations, at which it starts anew")  # fmt: skip
        smooth, warmup = self.schedule != "step", self.linear_warmup
        refuse(smooth and bool(self.milestones), f"a {self.schedule} schedule has no milestones; give milestones=()")
        refuse(warmup >= self.iterations and warmup > 0, f"a linear warm-up of {warmup} iterations never ends in "
               f"{self.iterations}")  # fmt: skip
        both = self.warmup_learning_rate is not None and (smooth or warmup > 0)
        refuse(both, "warmup_learning_rate needs the step schedule and no linear warm-up")
        form = self.momentum_at_drops != "scaled"
        refuse(form and not self.momentum, f"momentum_at_drops {self.momentum_at_drops!r} needs a momentum above 0")
        refuse(form and not self.learning_rate, "momentum_at_drops needs a learning rate above 0")
        refuse(self.smoothed_over == "all" and not self.label_smoothing, "smoothed_over needs label_smoothing")
        refuse(self.mixup_partner == "reversed" and not self.mixup, "mixup_partner needs mixup")
        refuse(self.hard_weight is not None and self.temperature is None, "hard_weight needs distillation")
        refuse((self.hard_weight or 0) > 1, "hard_weight must be at most 1")
        refuse(self.nesterov and not self.momentum, "Nesterov momentum needs a momentum above 0")
        refuse(not self.decay_all and not self.weight_decay, "decay_all has no effect without weight decay")
        refuse(self.mixup > 0 and self.batch_size % 2 > 0, f"mixup pairs images, but a batch has {self.batch_size}")
        if self.kernels == "fused":
            refuse(self.precision == "fp32", "the fused kernels compute in bf16 or fp16, not in fp32")
            refuse(self.batch_norm_size is not None, "the fused kernels do not support batch_norm_size")
        if (size := self.batch_norm_size) is not None:
            refuse(self.batch_size % size > 0, f"a batch of {self.batch_size} is no multiple of batch_norm_size {size}")
            refuse(self.mixup > 0 and size % 2 > 0, f"mixup pairs images, but batch_norm_size is {size}")
        for name in ("mixup", "batch_norm_size", "warmup_learning_rate") if self.last_batch == "use" else ():
            refuse(bool(getattr(self, name)), f"{name} needs batches of equal size, but last_batch 'use' makes smaller "
                   "ones")  # fmt: skip
        refuse(self.crop != "pad" and self.last_batch == "drop", "last_batch 'drop' is for images in memory only")
        for name in ("crop_offsets", "normalization") if self.crop != "pad" else ():
            changed = getattr(self, name) != type(self).__dataclass_fields__[name].default
            refuse(changed, f"{name} applies only to images in memory, not to crop {self.crop!r}")
        in_memory, changed = self.crop == "pad", ("image_size", "colour_jitter", "pca_noise", "tests")
        wanted = [f.name for f in fields(self) if f.name in changed and getattr(self, f.name) != f.default]
        refuse(in_memory and bool(wanted), f"{', '.join(wanted)} applies only to image folders, and crop 'pad' to "
               "images in memory; image folders take crop 'scale' or 'area'")  # fmt: skip
        changed = [name for name in ("colour_jitter", "pca_noise") if getattr(self, name)]
        refuse(self.jittered != "contrast" and not self.colour_jitter, "jittered needs colour_jitter")
        refuse(not self.augment and bool(changed), f"{', '.join(changed)} is an augmentation, but augment is false")

    def changes(self) -> dict:
        """Return the fields that differ from the defaults, as JSON values."""
        changed = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        changed |= {"plugins": [plugin.specification() for plugin in self.plugins]} if self.plugins else {}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}

    def shortened(self, iterations: int, eval_interval: int, **changes) -> "Recipe":
        """Return the recipe with fewer iterations; milestones and linear warm-up are scaled in proportion."""
        stretched = self._stretched(Fraction(iterations, self.iterations))
        return replace(self, **stretched, eval_interval=eval_interval, **changes)

    def lengthened(self, factor: Fraction) -> "Recipe":
        """Return the recipe with ``factor`` times as many iterations; the linear warm-up keeps its length."""
        return replace(self, **self._stretched(factor) | {"linear_warmup": self.linear_warmup})

    def _stretched(self, factor: Fraction) -> dict:
        """Return all fields that count iterations, multiplied by ``factor``."""
        milestones = tuple(round(m * factor) for m in self.milestones)
        warmup = round(self.linear_warmup * factor)
        return {"iterations": round(self.iterations * factor), "milestones": milestones, "linear_warmup": warmup}

    def evaluates_after(self, iteration: int) -> bool:
        """Return whether the network is evaluated after ``iteration`` steps."""
        return iteration == self.iterations or (iteration > 0 and iteration % self.eval_interval == 0)

    def ends_loss_interval(self, iteration: int) -> bool:
        """Return whether a mean of training losses is complete after ``iteration`` steps."""
        since = (iteration - 1) % self.eval_interval + 1
        return self.loss_interval is not None and since % self.loss_interval == 0

    @property
    def peak_learning_rate(self) -> float:
        """The highest learning rate, scaled to the batch size if ``base_batch_size`` is set."""
        if self.base_batch_size is None:
            return self.learning_rate
        return self.learning_rate * self.batch_size / self.base_batch_size


_CHOICES = {
    "precision": PRECISIONS,
    "kernels": KERNELS,
    "schedule": SCHEDULES,
    "crop": CROPS,
    "crop_offsets": (8, 9),
    "normalization": NORMALIZATIONS,
    "last_batch": LAST_BATCHES,
    "momentum_at_drops": MOMENTUM_AT_DROPS,
    "smoothed_over": SMOOTHED_OVER,
    "mixup_partner": MIXUP_PARTNERS,
    "jittered": JITTERED,
}
_NUMBERS = ("learning_rate", "warmup_learning_rate", "warmup_until_error", "momentum", "weight_decay")
_NUMBERS += ("colour_jitter", "pca_noise", "label_smoothing", "mixup", "temperature", "hard_weight")
_COUNTS = ("iterations", "batch_size", "warmup_window", "eval_interval", "base_batch_size", "batch_norm_size")
_COUNTS += ("image_size", "loss_interval", "statistics_batches")
_OPTIONAL = ("warmup_learning_rate", "temperature", "base_batch_size", "batch_norm_size", "loss_interval")
_OPTIONAL += ("hard_weight", "statistics_batches")


def learning_rate_at(recipe: Recipe, iteration: int, warmup_ended_at: int | None = None) -> float:
    """Return the learning rate of step ``iteration`` (the first is 0).

    ``warmup_ended_at`` is the first iteration after a warm-up that lasts until a training error, None during it. It is
    ignored for recipes without ``warmup_learning_rate``.
    """
    if recipe.warmup_learning_rate is not None and (warmup_ended_at is None or iteration < warmup_ended_at):
        return recipe.warmup_learning_rate
    peak = recipe.peak_learning_rate
    if iteration < recipe.linear_warmup:
        return peak * (iteration + 1) / recipe.linear_warmup
    if recipe.schedule != "step":
        done = (iteration - recipe.linear_warmup) / (recipe.iterations - recipe.linear_warmup)
        return peak * ((1 + math.cos(math.pi * done)) / 2 if recipe.schedule == "cosine" else (1 - done) ** POLY)
    drops = sum(iteration >= milestone for milestone in recipe.milestones)
    return peak / 10**drops


def make_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.SGD:
    """Create SGD over all parameters; the caller sets its learning rate before each step.

    The momentum buffers start as zeros instead of being created by the first step. The result is the same, but all
    steps run the same operations, so any of them can be recorded as a CUDA graph and replayed. It also matters if loss
    scaling skips the first step, which would otherwise leave uninitialised momentum buffers.
    """
    parameters = list(model.parameters())
    groups = [{"params": parameters}]
    if not recipe.decay_all:  # biases and BN's scales and shifts are vectors; weights have more dimensions
        groups = [
            {"params": [p for p in parameters if p.dim() > 1]},
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]
    optimizer = torch.optim.SGD(
        groups,
        lr=recipe.peak_learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
        fused=True,
    )
    if recipe.momentum:
        for parameter in parameters:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer
