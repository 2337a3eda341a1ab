"""Each trick of He T. et al. 2018 equals a plain implementation of it, in training and by itself."""

import copy
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from resnet.data.sampling import Sampler
from resnet.distributed import Group
from resnet.losses import mixing_weight
from resnet.models import create_model
from resnet.recipe import Recipe, learning_rate_at
from resnet.run import Run
from resnet.trainer import Trainer

RECIPE = Recipe(iterations=6, batch_size=16, learning_rate=0.002, milestones=(), weight_decay=0.01, eval_interval=6)
TEACHER = Run("cifar_resnet14", RECIPE, "synthetic")
TRICKS = {
    "none": {"milestones": (3,)},
    "linear scaling": {"base_batch_size": 8},
    "warm-up": {"linear_warmup": 4},
    "cosine": {"linear_warmup": 2, "schedule": "cosine"},
    "no bias decay": {"decay_all": False},
    "Nesterov": {"nesterov": True},
    "label smoothing": {"label_smoothing": 0.1},
    "mixup": {"mixup": 0.2},
    "distillation": {"temperature": 20},
    "BN over 8 images": {"batch_norm_size": 8},
    "channel means": {"normalization": "channel_mean"},
    "channel means and deviations": {"normalization": "channel_std"},
    "offsets 0 to 7": {"crop_offsets": 8},
}
FORMS = {
    "momentum kept at drops": {"momentum_at_drops": "kept", "milestones": (2, 4)},
    "momentum kept in a cosine, Nesterov's": {"momentum_at_drops": "kept", "nesterov": True, "schedule": "cosine"},
    "momentum forgotten at drops": {"momentum_at_drops": "forgotten", "milestones": (2, 4)},
    "smoothing over all classes": {"label_smoothing": 0.1, "smoothed_over": "all"},
    "mixup with the reversed batch": {"mixup": 0.2, "mixup_partner": "reversed"},
    "mixup with each GPU's reversed batch": {"mixup": 0.2, "mixup_partner": "reversed", "batch_norm_size": 8},
    "distillation with a hard weight": {"temperature": 20, "hard_weight": 0.3},
    "means of images' deviations": {"normalization": "image_std"},
}
TRICKS["all"] = {name: value for trick in [*TRICKS.values()][1:] for name, value in trick.items()}
TRICKS |= FORMS


@pytest.fixture(scope="module")
def teacher():
    model = create_model("cifar_resnet14", generator=torch.Generator().manual_seed(9))
    nn.init.normal_(model.fc.weight, generator=torch.Generator().manual_seed(1))  # a teacher with opinions
    return model.state_dict()


def make_trainer(data, teacher, **changes):
    recipe = replace(RECIPE, **changes)
    taught = recipe.temperature is not None
    run = Run("cifar_resnet8", recipe, "synthetic", 3, teacher=TEACHER if taught else None)
    return Trainer(run, data, teacher=teacher if taught else None)


class PlainLoop:
    """Training written for clarity, each trick from its formula in the paper."""

    def __init__(self, model, dataset, recipe, teacher):
        self.model, self.recipe = copy.deepcopy(model).to(memory_format=torch.contiguous_format), recipe
        self.images, self.labels = dataset.train_images, dataset.train_labels
        whole_image = recipe.normalization == "pixel_mean"
        self.mean = dataset.train_images.mean(axis=0 if whole_image else (0, 1, 2), dtype=np.float64)
        self.scale = 255
        if recipe.normalization == "channel_std":
            self.scale = dataset.train_images.std(axis=(0, 1, 2), dtype=np.float64)
        elif recipe.normalization == "image_std":
            self.scale = dataset.train_images.reshape(len(self.labels), -1, 3).std(axis=1, ddof=1).mean(axis=0)
        self.velocity = {name: torch.zeros_like(p) for name, p in self.model.named_parameters()}
        self.teacher = create_model("cifar_resnet14").eval()
        self.teacher.load_state_dict(teacher)

    def prepare(self, index, offset, flip):
        image = np.zeros((40, 40, 3))
        image[4:36, 4:36] = (self.images[index] - self.mean) / self.scale
        image = image[offset[0] : offset[0] + 32, offset[1] : offset[1] + 32]
        return torch.tensor((image[:, ::-1] if flip else image).transpose(2, 0, 1).copy(), dtype=torch.float32)

    def targets(self, label):
        smoothing, over_all = self.recipe.label_smoothing, self.recipe.smoothed_over == "all"
        target = torch.full((10,), smoothing / (10 if over_all else 9))
        target[label] = 1 - smoothing + (smoothing / 10 if over_all else 0)
        return target

    def set_buffers(self, values):
        for name, value in values.items():
            layer, buffer = name.rsplit(".", 1)
            setattr(self.model.get_submodule(layer), buffer, value.clone())  # the old one is part of the graph

    def learning_rate(self, iteration):
        recipe = self.recipe
        rate = 0.002 * 16 / recipe.base_batch_size if recipe.base_batch_size else 0.002
        if iteration + 1 <= recipe.linear_warmup:
            return (iteration + 1) * rate / recipe.linear_warmup
        if recipe.schedule == "cosine":
            t, total = iteration - recipe.linear_warmup, 6 - recipe.linear_warmup
            return 0.5 * (1 + math.cos(t * math.pi / total)) * rate
        return rate / 10 ** sum(iteration >= milestone for milestone in recipe.milestones)

    def step(self, iteration, draws):
        recipe = self.recipe
        images = torch.stack([self.prepare(*draw) for draw in zip(*(part.tolist() for part in draws))])
        targets = torch.stack([self.targets(self.labels[i]) for i in draws.index])
        if recipe.mixup:
            weight = mixing_weight(3, iteration, recipe.mixup)
            neighbour = [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14]
            if recipe.mixup_partner == "reversed":
                part = recipe.batch_norm_size or 16
                neighbour = [start + part - 1 - i for start in range(0, 16, part) for i in range(part)]
            images, targets = (weight * x + (1 - weight) * x[neighbour] for x in (images, targets))
        size = recipe.batch_norm_size or 16
        before = {name: b.clone() for name, b in self.model.named_buffers()}
        logits, buffers = [], []
        for start in range(0, 16, size):
            self.set_buffers(before)
            logits.append(self.model(images[start : start + size]))
            buffers.append({name: b.clone() for name, b in self.model.named_buffers() if "running" in name})
        means = {name: sum(group[name] for group in buffers) / len(buffers) for name in buffers[0]}
        self.set_buffers(means)
        log_p = torch.log_softmax(torch.cat(logits), dim=1)
        loss = -(targets * log_p).sum(dim=1).mean()
        if recipe.temperature:
            t = recipe.temperature
            with torch.no_grad():
                taught = torch.softmax(self.teacher(images) / t, dim=1)
            soft = -t * t * (taught * torch.log_softmax(torch.cat(logits) / t, dim=1)).sum(dim=1).mean()
            w = recipe.hard_weight
            loss = loss + soft if w is None else w * loss + (1 - w) * soft
        self.model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for name, weight in self.model.named_parameters():
                decayed = recipe.decay_all or name.endswith("weight") and weight.dim() in (2, 4)
                gradient = weight.grad + (recipe.weight_decay * weight if decayed else 0)
                if recipe.momentum_at_drops == "kept":  # v = m v + lr g, w = w - v
                    gradient = self.learning_rate(iteration) * gradient
                    step = self.velocity[name].mul_(recipe.momentum).add_(gradient)
                    weight -= gradient + recipe.momentum * step if recipe.nesterov else step
                    continue
                if recipe.momentum_at_drops == "forgotten" and iteration in recipe.milestones:
                    self.velocity[name].zero_()
                velocity = self.velocity[name].mul_(recipe.momentum).add_(gradient)
                update = gradient + recipe.momentum * velocity if recipe.nesterov else velocity
                weight -= self.learning_rate(iteration) * update
        labels = torch.tensor(self.labels[draws.index].astype(int))
        return loss.item(), 100 * (torch.cat(logits).argmax(dim=1) != labels).float().mean().item()


@pytest.mark.parametrize("trick", TRICKS)
def test_training_with_a_trick_equals_a_plain_loop(dataset, data, teacher, trick):
    trainer = make_trainer(data, teacher, **TRICKS[trick])
    loop = PlainLoop(trainer.model, dataset, trainer.recipe, teacher)
    order = Sampler(3, 60, trainer.recipe)
    measured = []
    for iteration in range(6):
        assert trainer.learning_rate == pytest.approx(loop.learning_rate(iteration))
        measured.append(loop.step(iteration, order.batch(iteration)))
        trainer.step()
    trainer.evaluate()
    (point,), (losses, errors) = trainer.curve, np.array(measured).T
    assert point["training_loss"] == pytest.approx(losses.mean(), rel=1e-4)
    if not trainer.recipe.mixup:  # whose images have two labels each
        assert point["training_error"] == pytest.approx(errors.mean())
    assert (point["iteration"], point["learning_rate"]) == (6, pytest.approx(loop.learning_rate(5)))
    weights = trainer.model.state_dict()
    for name, tensor in loop.model.state_dict().items():
        if "num_batches" not in name:
            torch.testing.assert_close(weights[name], tensor, rtol=2e-4, atol=2e-5, check_stride=False)


@pytest.mark.parametrize("changes", [{}, {"batch_norm_size": 8}], ids=["whole batches", "halves"])
def test_recomputed_statistics_are_means_over_the_batches_to_come_at_the_end_alone(dataset, data, teacher, changes):
    trainer = make_trainer(data, teacher, statistics_batches=3, eval_interval=3, **changes)
    running = make_trainer(data, teacher, eval_interval=3, **changes)
    for _ in range(2):
        for each in (trainer, running):
            for _ in range(3):
                each.step()
            each.evaluate()
    assert trainer.curve[0] == running.curve[0]
    loop, order = PlainLoop(running.model, dataset, trainer.recipe, teacher), Sampler(3, 60, trainer.recipe)
    batches, seen = [order.batch(iteration) for iteration in (6, 7, 8)], []
    loop.model.bn1.register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0].detach()))
    size = trainer.recipe.batch_norm_size or 16
    for draws in batches:
        images = torch.stack([loop.prepare(*draw) for draw in zip(*(part.tolist() for part in draws))])
        for part in images.split(size):
            loop.model(part)
    found = trainer.model.bn1
    mean = torch.stack([x.mean(dim=(0, 2, 3)) for x in seen]).mean(dim=0)
    variance = torch.stack([x.var(dim=(0, 2, 3)) for x in seen]).mean(dim=0)
    torch.testing.assert_close(found.running_mean, mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.running_var, variance, rtol=1e-4, atol=1e-5)
    weights = running.model.state_dict()
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, weights[name]) != ("running" in name or "num_batches" in name), name
    assert found.momentum == 0.1 and trainer.model.training


@pytest.mark.parametrize("normalization", ["pixel_mean", "channel_mean", "channel_std"])
def test_test_images_are_normalized_as_the_training_images(dataset, data, normalization):
    recipe = replace(RECIPE, normalization=normalization)
    images = dataset.train_images.astype(np.float64)
    mean = images.mean(axis=0 if normalization == "pixel_mean" else (0, 1, 2))
    scale = images.std(axis=(0, 1, 2)) if normalization == "channel_std" else 255
    expected = ((dataset.test_images - mean) / scale).transpose(0, 3, 1, 2)
    ((found, labels),) = data.tests("test", slice(0, 30), recipe)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), check_stride=False)
    assert labels.tolist() == dataset.test_labels.tolist()


def test_a_smaller_last_batch_counts_for_what_it_is(data, teacher):
    trainer = make_trainer(data, teacher, last_batch="use", iterations=8, eval_interval=8)
    seen = []
    accumulate = trainer.accumulate
    trainer.accumulate = lambda images, labels, share: (seen.append(len(labels)), accumulate(images, labels, share))
    while not trainer.finished:
        trainer.step()
    trainer.evaluate()
    assert seen == [16, 16, 16, 12] * 2
    errors = trainer.curve[0]["training_error"] * 120 / 100
    assert errors == pytest.approx(round(errors)) and 0 < errors <= 120
    with pytest.raises(ValueError, match="can't be split over several processes"):
        Trainer(trainer.run, data, Group(0, 2))


SAME_BUT_FOR = ("momentum_at_drops", "smoothed_over", "mixup_partner", "hard_weight")  # the form of a trick


@pytest.mark.parametrize("trick", [trick for trick in TRICKS if trick not in ("none", "all")])
def test_every_trick_changes_the_result(data, teacher, trick):
    without = {n: v for n, v in TRICKS[trick].items() if n not in SAME_BUT_FOR} if trick in FORMS else {}
    without = {} if without == TRICKS[trick] else without
    plain, other = make_trainer(data, teacher, **without), make_trainer(data, teacher, **TRICKS[trick])
    for trainer in (plain, other):
        for _ in range(3):
            trainer.step()
    assert plain.weights_digest() != other.weights_digest()


KEPT = FORMS["momentum kept at drops"] | {"milestones": (3, 5), "statistics_batches": 2}


@pytest.mark.parametrize("changes", [TRICKS["all"], {"precision": "fp16"}, KEPT], ids=["all", "fp16", "kept"])
def test_resumed_equals_uninterrupted(data, teacher, changes):
    whole, first, second = (make_trainer(data, teacher, **changes) for _ in range(3))
    for _ in range(6):
        whole.step()
    for _ in range(3):
        first.step()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for _ in range(3):
        second.step()
    whole.evaluate()
    second.evaluate()
    assert second.weights_digest() == whole.weights_digest() and second.curve == whole.curve


def test_the_training_error_that_ends_a_warm_up_is_that_of_mixed_images(data, teacher):
    trainer = make_trainer(data, teacher, mixup=0.2, warmup_learning_rate=1e-4, warmup_window=2, warmup_until_error=99)
    while not trainer.finished:
        trainer.step()
    assert trainer.warmup_ended_at is not None and trainer.warmup_ended_at % 2 == 0


def test_another_teacher_can_t_take_over(data, teacher):
    changes = {"temperature": 20}
    state = make_trainer(data, teacher, **changes).state_dict()
    other = {name: tensor + 0.1 for name, tensor in teacher.items()}
    with pytest.raises(ValueError, match="teacher"):
        make_trainer(data, other, **changes).load_state_dict(state)
    with pytest.raises(ValueError, match="teacher and pretrained weights"):
        make_trainer(data, None, **changes)


# ------------------------------------------------------------------------------------------------------- precision


def test_fp16_is_close_to_fp32(data, teacher):
    full, half = make_trainer(data, teacher, precision="fp32"), make_trainer(data, teacher, precision="fp16")
    for trainer in (full, half):
        for _ in range(6):
            trainer.step()
        trainer.evaluate()
    assert half.precision == "fp16" and half.scaler.get_scale() == 65_536
    assert half.curve[0]["training_loss"] == pytest.approx(full.curve[0]["training_loss"], rel=0.02)
    assert half.weights_digest() != full.weights_digest()
    assert all(p.dtype == torch.float32 for p in half.model.parameters())


def test_a_step_whose_scaled_gradients_overflow_is_left_out_and_the_scale_halved(data, teacher):
    trainer = make_trainer(data, teacher, precision="fp16")
    trainer.step()
    trainer.scaler._scale.fill_(2.0**40)
    before = [p.clone() for p in trainer.model.parameters()]
    trainer.step()
    assert all(torch.equal(p, old) for p, old in zip(trainer.model.parameters(), before))
    assert trainer.scaler.get_scale() == 2.0**39
    while trainer.scaler.get_scale() > 2**16:
        trainer.scaler._scale.fill_(2.0**16)
    trainer.step()
    assert not any(torch.equal(p, old) for p, old in zip(trainer.model.parameters(), before))
    assert all(p.isfinite().all() for p in trainer.model.parameters())


def test_mixing_weights_are_beta_distributed_and_each_iteration_has_its_own():
    weights = np.array([mixing_weight(0, iteration, 0.2) for iteration in range(4_000)])
    assert len(set(weights)) > 3_990 and weights.min() >= 0 and weights.max() <= 1
    assert weights.mean() == pytest.approx(0.5, abs=0.03)
    assert weights.var() == pytest.approx(1 / (4 * (2 * 0.2 + 1)), abs=0.01)  # of Beta(a, a)
    assert mixing_weight(0, 7, 0.2) == weights[7] != mixing_weight(1, 7, 0.2)


# --------------------------------------------------------------------------------------------------- learning rates


def test_the_paper_s_schedule():
    epoch = 1_000
    recipe = Recipe(iterations=120 * epoch, batch_size=1024, base_batch_size=256, milestones=(), schedule="cosine",
                    linear_warmup=5 * epoch)  # fmt: skip
    rates = [learning_rate_at(recipe, i) for i in range(recipe.iterations)]
    assert rates[0] == pytest.approx(0.4 / 5_000) and max(rates) == pytest.approx(0.4)
    assert rates[2_499] == pytest.approx(0.2) and rates[5_000] == pytest.approx(0.4)
    assert rates[5_000 + 57_500] == pytest.approx(0.2)  # in the middle of the cosine
    assert 0 < rates[-1] < 1e-8
    assert rates[5_000:] == sorted(rates[5_000:], reverse=True)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"schedule": "cosine"}, "no milestones"),
        ({"linear_warmup": 64_000}, "never ends"),
        ({"linear_warmup": 10, "warmup_learning_rate": 0.01}, "no linear warm-up"),
        ({"schedule": "cosine", "milestones": (), "warmup_learning_rate": 0.01}, "needs the step schedule"),
        ({"nesterov": True, "momentum": 0}, "needs a momentum"),
        ({"momentum_at_drops": "kept", "momentum": 0}, "'kept' needs a momentum"),
        ({"momentum_at_drops": "kept", "learning_rate": 0}, "needs a learning rate"),
        ({"momentum_at_drops": "lost"}, "one of scaled, kept, forgotten"),
        ({"smoothed_over": "all"}, "needs label_smoothing"),
        ({"mixup_partner": "reversed"}, "needs mixup"),
        ({"hard_weight": 0.5}, "needs distillation"),
        ({"hard_weight": 1.5, "temperature": 20}, "at most 1"),
        ({"decay_all": False, "weight_decay": 0}, "without weight decay"),
        ({"mixup": 0.2, "batch_size": 15}, "mixup pairs images"),
        ({"mixup": 0.2, "batch_size": 12, "batch_norm_size": 3}, "mixup pairs images"),
        ({"batch_norm_size": 48}, "no multiple"),
        ({"colour_jitter": 0.4}, "only to image folders"),
        ({"tests": ("ten_crop",)}, "only to image folders"),
        ({"crop": "area", "augment": False, "pca_noise": 0.1}, "augment is false"),
        ({"label_smoothing": 1.0}, "below 1"),
        ({"temperature": 0}, "above 0"),
        ({"last_batch": "use", "mixup": 0.2}, "mixup needs batches of equal size"),
        ({"last_batch": "use", "batch_norm_size": 64}, "batch_norm_size needs batches of equal size"),
        ({"last_batch": "drop", "crop": "area"}, "images in memory only"),
        ({"crop_offsets": 7}, "one of 8, 9"),
        ({"schedule": "linear"}, "one of step, cosine"),
        ({"tests": ("five_crop",)}, "among ten_crop, multi_scale"),
        ({"kernels": "fused", "precision": "fp32"}, "in bf16 or fp16, not in fp32"),
        ({"kernels": "fused", "batch_norm_size": 64}, "do not support batch_norm_size"),
    ],
)
def test_a_combination_without_meaning_is_refused_with_the_reason(values, said):
    with pytest.raises(ValueError, match=said):
        Recipe(**values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"recipe": Recipe(temperature=20)}, "there is a temperature, but no teacher"),
        ({"teacher": Run("cifar_resnet14")}, "there is a teacher, but no temperature"),
        ({"recipe": Recipe(temperature=20), "teacher": Run("cifar_resnet14", data="synthetic")}, "this run on cifar10"),
        ({"recipe": Recipe(crop="area")}, "crop must be pad"),
        ({"data": "imagenet"}, "crop must be scale or area"),
        ({"data": "imagenet", "recipe": Recipe(crop="area"), "train_images": 9}, "has no validation split"),
    ],
)
def test_a_run_without_meaning_is_refused_with_the_reason(values, said):
    with pytest.raises(ValueError, match=said):
        Run("cifar_resnet8", **values)


def test_a_recipe_in_other_lengths():
    recipe = Recipe(linear_warmup=1_953)
    longer = recipe.lengthened(Fraction(5, 3))
    assert (longer.iterations, longer.milestones, longer.linear_warmup) == (106_667, (53_333, 80_000), 1_953)
    shorter = recipe.shortened(640, eval_interval=64)
    assert (shorter.iterations, shorter.milestones, shorter.linear_warmup) == (640, (320, 480), 20)
