"""How a network is trained: everything that decides a run's result except model, data and seed."""

import math
from dataclasses import dataclass, fields, replace
from fractions import Fraction

import torch
from torch import nn

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
KERNELS = ("auto", "library", "fused")
SCHEDULES = ("step", "cosine")
CROPS = ("pad", "scale", "area")
NORMALIZATIONS = ("pixel_mean", "channel_mean", "channel_std", "image_std")
MOMENTUM_AT_DROPS = ("scaled", "kept", "forgotten")
SMOOTHED_OVER = ("others", "all")
MIXUP_PARTNERS = ("neighbour", "reversed")
LAST_BATCHES = ("carry", "drop", "use")
TESTS = ("ten_crop", "multi_scale")


@dataclass(frozen=True)
class Recipe:
    """SGD with momentum; the defaults are those of He et al. 2015, section 4.2, for CIFAR-10.

    A default is never changed and a new field's default keeps today's behaviour, because a run's identity is made
    of the fields that differ from it (:meth:`changes`).

    Optimization:

    iterations: SGD steps. batch_size: images a step.
    learning_rate: the highest. base_batch_size: if set, ``learning_rate`` is the one for batches of this size, and
        that of the recipe is in proportion to its own (linear scaling; Bag of Tricks, section 3.1).
    schedule: "step" divides the learning rate by 10 from each of ``milestones`` (iterations, counted from 0) on;
        "cosine" lets it fall from the end of the linear warm-up as half a cosine to 0 (Bag of Tricks, section 5.1).
    linear_warmup: over so many iterations the learning rate first grows from 0 in equal steps (section 3.1).
    warmup_learning_rate: if set, used instead from iteration 0 until the training error, averaged over the last
        ``warmup_window`` iterations and looked at every ``warmup_window`` iterations, is below
        ``warmup_until_error`` percent.
    momentum, nesterov, weight_decay: of SGD. momentum_at_drops: what becomes of the steps gathered so far where the
        learning rate changes: they are "scaled" with it, as PyTorch's velocity is of gradients; "kept" as they were, v
        = m v + lr g, as in the authors' Caffe; or "forgotten", as by a new optimizer for each stage.
    decay_all: the decay applies to all parameters; if false to the weights of convolutions and fully connected layers
        alone ("no bias decay", section 3.1).
    batch_norm_size: if set, BN takes its statistics over so many images, one such group of a batch after another, as
        when each of several GPUs had its own; the running estimates are means over the groups. None: over the batch.
    precision: "auto" is bf16 autocast on a GPU or processor that has it, else fp32; "fp16" is autocast with dynamic
        loss scaling.
    kernels: "library" is PyTorch's way; "fused" are the CIFAR nets' own kernels for a GPU (:mod:`resnet.kernels`), not
        yet run on a GPU, for bf16 and fp16; "auto" is library.

    Images and targets:

    augment: whether training images are cropped and flipped at random, drawn per image.
    crop: "pad" 4 zero pixels on each side, a random crop of the old size (for small images in memory). For image
        folders: "scale" the shorter side to a random 8/7 to 15/7 of ``image_size`` and crop a random square (He et al.
        2015, section 3.4: 256 to 480 for 224), "area" a random rectangle of 8 to 100 % of the area and an aspect
        ratio from 3/4 to 4/3, resized to a square (Bag of Tricks, section 2.1).
    crop_offsets: how many corners in each direction the "pad" crop has: 9, or 8 by an off-by-one that is often seen.
    normalization: of images in memory: less the mean image ("pixel_mean", as in the paper), less each channel's mean,
        or that over each channel's standard deviation ("channel_std"), or over the mean of its standard deviations in
        single images ("image_std", often seen: for CIFAR-10 0.2023, 0.1994, 0.2010).
    last_batch: what becomes of the images left over when an epoch is no multiple of the batch: "carry" fills the batch
        with the first of the next epoch, "drop" leaves them out, "use" makes a smaller batch of them.
    image_size: pixels on a side of an image folder's crops.
    colour_jitter: brightness, contrast and saturation are scaled by factors from 1 - x to 1 + x, in random order.
    pca_noise: standard deviation of the noise along the principal components of the colours.
    label_smoothing: the share of each target that is spread over all other classes (section 5.2). smoothed_over: these
        "others", or "all" classes, the right one too.
    mixup: the alpha of Beta(alpha, alpha), which the weight of the first of two mixed images is drawn from, one per
        batch (section 5.4); 0 mixes nothing. mixup_partner: an image's "neighbour" in the batch, or the one in its
        place in the "reversed" batch, of ``batch_norm_size`` images where that is set: the part of one GPU.
    temperature: of the distillation from a run's teacher (section 5.3); None without one. hard_weight: if set, the
        loss is so much of the one for the labels and the rest of the one for the teacher's answers; else their sum.

    Evaluation:

    eval_interval: iterations between evaluations on the test images; the last iteration is always evaluated.
    tests: what the final network is tested with besides, on image folders: "ten_crop", "multi_scale".
    loss_interval: if set, the mean training loss over each so many iterations is kept, too, counted anew from each
        evaluation on; iterations left over before the next one are in none of these means.
    statistics_batches: if set, BN's statistics of the final network are means over so many further training batches
        (the authors of He et al. 2015 recomputed them after training), in place of the running estimates.

    Raises ValueError for a value that a field can't have, and for fields that have no meaning together.
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

    def __post_init__(self):
        def check(condition: bool, name: str, wanted: str) -> None:
            if not condition:
                raise ValueError(f"recipe: {name} must be {wanted}, not {getattr(self, name)!r}")

        # Equal numbers are made the same numbers, because 1 and 1.0 would give different identities.
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
        for name in ("augment", "nesterov", "decay_all"):
            check(isinstance(getattr(self, name), bool), name, "true or false")
        for name, choices in _CHOICES.items():
            check(getattr(self, name) in choices, name, f"one of {', '.join(map(str, choices))}")
        check(set(self.tests) <= set(TESTS), "tests", f"among {', '.join(TESTS)}")
        check(self.label_smoothing < 1, "label_smoothing", "below 1")
        check(self.colour_jitter < 1, "colour_jitter", "below 1")
        check(self.temperature != 0, "temperature", "above 0")
        self._check_combinations()

    def _check_combinations(self) -> None:
        """Raise ValueError for options that have no meaning together."""

        def refuse(condition: bool, why: str) -> None:
            if condition:
                raise ValueError(f"recipe: {why}")

        refuse((self.loss_interval or 1) > self.eval_interval, f"loss_interval {self.loss_interval} is longer than the "
               f"{self.eval_interval} iterations between evaluations, from which it counts")  # fmt: skip
        cosine, warmup = self.schedule == "cosine", self.linear_warmup
        refuse(cosine and bool(self.milestones), "a cosine schedule has no milestones; give milestones=()")
        refuse(warmup >= self.iterations and warmup > 0, f"a linear warm-up of {warmup} iterations never ends in "
               f"{self.iterations}")  # fmt: skip
        both = self.warmup_learning_rate is not None and (cosine or warmup > 0)
        refuse(both, "a warm-up until a training error goes with the step schedule only, without a linear warm-up")
        form = self.momentum_at_drops != "scaled"
        refuse(form and not self.momentum, f"momentum_at_drops {self.momentum_at_drops!r} needs a momentum above 0")
        refuse(form and not self.learning_rate, "momentum_at_drops needs a learning rate above 0")
        refuse(self.smoothed_over == "all" and not self.label_smoothing, "smoothed_over needs label_smoothing")
        refuse(self.mixup_partner == "reversed" and not self.mixup, "mixup_partner needs mixup")
        refuse(self.hard_weight is not None and self.temperature is None, "hard_weight needs distillation")
        refuse((self.hard_weight or 0) > 1, "hard_weight must be at most 1")
        refuse(self.nesterov and not self.momentum, "Nesterov's momentum needs a momentum above 0")
        refuse(not self.decay_all and not self.weight_decay, "there is no weight decay to keep from the biases and BN")
        refuse(self.mixup > 0 and self.batch_size % 2 > 0, f"mixup pairs images, but a batch has {self.batch_size}")
        if self.kernels == "fused":
            refuse(self.precision == "fp32", "the fused kernels compute in bf16 or fp16, not in fp32")
            refuse(self.batch_norm_size is not None, "the fused kernels know no batch_norm_size")
        if (size := self.batch_norm_size) is not None:
            refuse(self.batch_size % size > 0, f"a batch of {self.batch_size} is no multiple of batch_norm_size {size}")
            refuse(self.mixup > 0 and size % 2 > 0, f"mixup pairs images, but batch_norm_size is {size}")
        for name in ("mixup", "batch_norm_size", "warmup_learning_rate") if self.last_batch == "use" else ():
            refuse(bool(getattr(self, name)), f"{name} needs batches that are all alike, but the last one is smaller")
        refuse(self.crop != "pad" and self.last_batch == "drop", "last_batch 'drop' is for images in memory only")
        for name in ("crop_offsets", "normalization") if self.crop != "pad" else ():
            changed = getattr(self, name) != type(self).__dataclass_fields__[name].default
            refuse(changed, f"{name} has a meaning for images in memory only, not for crop {self.crop!r}")
        in_memory, changed = self.crop == "pad", ("image_size", "colour_jitter", "pca_noise", "tests")
        wanted = [f.name for f in fields(self) if f.name in changed and getattr(self, f.name) != f.default]
        refuse(in_memory and bool(wanted), f"{', '.join(wanted)} has a meaning for image folders only, and crop 'pad' "
               "for images in memory; image folders take crop 'scale' or 'area'")  # fmt: skip
        changed = [name for name in ("colour_jitter", "pca_noise") if getattr(self, name)]
        refuse(not self.augment and bool(changed), f"{', '.join(changed)} is an augmentation, but augment is false")

    def changes(self) -> dict:
        """The fields that differ from the defaults, in a form that JSON keeps."""
        changed = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}

    def shortened(self, iterations: int, eval_interval: int, **changes) -> "Recipe":
        """The same recipe in fewer iterations: milestones and linear warm-up move in proportion."""
        stretched = self._stretched(Fraction(iterations, self.iterations))
        return replace(self, **stretched, eval_interval=eval_interval, **changes)

    def lengthened(self, factor: Fraction) -> "Recipe":
        """The same recipe in ``factor`` times as many iterations; the linear warm-up stays as long as it is."""
        return replace(self, **self._stretched(factor) | {"linear_warmup": self.linear_warmup})

    def _stretched(self, factor: Fraction) -> dict:
        """All that counts iterations, ``factor`` times as long."""
        milestones = tuple(round(m * factor) for m in self.milestones)
        warmup = round(self.linear_warmup * factor)
        return {"iterations": round(self.iterations * factor), "milestones": milestones, "linear_warmup": warmup}

    def evaluates_after(self, iteration: int) -> bool:
        """Whether the network is evaluated once ``iteration`` steps have been taken."""
        return iteration == self.iterations or (iteration > 0 and iteration % self.eval_interval == 0)

    def ends_loss_interval(self, iteration: int) -> bool:
        """Whether a mean of training losses is complete once ``iteration`` steps have been taken."""
        since = (iteration - 1) % self.eval_interval + 1
        return self.loss_interval is not None and since % self.loss_interval == 0

    @property
    def peak_learning_rate(self) -> float:
        """The highest learning rate: scaled to the batch size where the recipe says so."""
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
}
_NUMBERS = ("learning_rate", "warmup_learning_rate", "warmup_until_error", "momentum", "weight_decay")
_NUMBERS += ("colour_jitter", "pca_noise", "label_smoothing", "mixup", "temperature", "hard_weight")
_COUNTS = ("iterations", "batch_size", "warmup_window", "eval_interval", "base_batch_size", "batch_norm_size")
_COUNTS += ("image_size", "loss_interval", "statistics_batches")
_OPTIONAL = ("warmup_learning_rate", "temperature", "base_batch_size", "batch_norm_size", "loss_interval")
_OPTIONAL += ("hard_weight", "statistics_batches")


def learning_rate_at(recipe: Recipe, iteration: int, warmup_ended_at: int | None = None) -> float:
    """Learning rate of step ``iteration`` (the first is 0).

    ``warmup_ended_at`` is the first iteration after the warm-up until a training error, None while it lasts; it has
    no meaning for a recipe without one.
    """
    if recipe.warmup_learning_rate is not None and (warmup_ended_at is None or iteration < warmup_ended_at):
        return recipe.warmup_learning_rate
    peak = recipe.peak_learning_rate
    if iteration < recipe.linear_warmup:
        return peak * (iteration + 1) / recipe.linear_warmup
    if recipe.schedule == "cosine":
        done = (iteration - recipe.linear_warmup) / (recipe.iterations - recipe.linear_warmup)
        return peak * (1 + math.cos(math.pi * done)) / 2
    drops = sum(iteration >= milestone for milestone in recipe.milestones)
    return peak / 10**drops


def make_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.SGD:
    """SGD over all parameters; its learning rate is set before each step.

    The velocities start as zeros instead of being made by the first step, which comes to the same; so all steps are
    alike, and any of them can be recorded and replayed. It also keeps them whole where loss scaling leaves the first
    step out: velocities made by it would then hold whatever lay in memory.
    """
    parameters = list(model.parameters())
    groups = [{"params": parameters}]
    if not recipe.decay_all:  # biases and BN's scales and shifts are the vectors, weights have more dimensions
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
