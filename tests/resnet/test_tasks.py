"""Runs for segmentation and detection: their identity, their data on canvases, and their training."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from finishing import finish

from resnet import checkpoint
from resnet.checkpoint import digest_of_weights
from resnet.data import canvas, place, scenes
from resnet.data.synthetic import make_synthetic
from resnet.device import autocast
from resnet.distributed import Group
from resnet.models import create_model
from resnet.plugins import Plugin
from resnet.recipe import Recipe, learning_rate_at
from resnet.run import Run
from resnet.tasks import Detection, Segmentation
from resnet.tasks.segmentation import pixel_loss
from resnet.tasks.trainer import TaskTrainer
from resnet.training import train

RECIPE = Recipe(iterations=4, batch_size=2, milestones=(), schedule="poly", eval_interval=4, precision="fp32")
FCN = Segmentation(stride=4, base=None, crop=None)
RCNN = Detection(short_side=96, long_side=96, frozen=0, frozen_bn=False, anchors=(24, 48), pooled=4,
                 proposals=(50, 20, 50, 10), regions=8)  # fmt: skip
OPTIONS = {"variant": "d"}
SEGMENTED = Run("cifar_bottleneck11", RECIPE, "synthetic_canvas64", 0, OPTIONS, task=FCN)
DETECTED = Run("cifar_bottleneck11", RECIPE, "synthetic_canvas96", 0, OPTIONS, task=RCNN)
RUNS = [pytest.param(run, id=run.task.name) for run in (SEGMENTED, DETECTED)]


@pytest.fixture(scope="module")
def canvases():
    """Few canvases of each size, on the processor."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canvas, "TRAIN_CANVASES", 100)
        patch.setattr(canvas, "TEST_CANVASES", 60)
        for name in ("synthetic_canvas64", "synthetic_canvas96"):
            made[name] = canvas.make_canvases(name, make_synthetic(60, 30))
    return {name: place(dataset, None, "cpu") for name, dataset in made.items()}


# ------------------------------------------------------------------------------------------------------------ identity


def test_a_task_is_in_identity_and_specification_only_where_it_is_not_classification():
    plain = Run("cifar_bottleneck11", model_options=OPTIONS)
    assert "task" not in plain.specification() and Run.from_specification(plain.specification()) == plain
    again = Run.from_specification(json.loads(json.dumps(DETECTED.specification())))
    assert again == DETECTED and again.identity == DETECTED.identity and again.task.anchors == (24, 48)
    assert DETECTED.specification()["task"]["name"] == "detection" and "for detection" in str(DETECTED)
    assert SEGMENTED.identity == "6aceb7908003cf6c52d418b19a7edd61379e72f1044e8b26f1baf63a752c2653"
    others = [
        replace(SEGMENTED, task=replace(FCN, **changes))
        for changes in ({"stride": 2}, {"auxiliary": 0.4}, {"head_rate": 1.0}, {"base": 64}, {"backbone": "0" * 64})
    ]
    assert len({run.identity for run in (SEGMENTED, *others)}) == 6


def test_a_pretrained_run_may_be_a_classifier_of_the_same_network():
    classifier = Run("cifar_bottleneck11", model_options=OPTIONS)
    run = replace(SEGMENTED, pretrained=classifier)
    assert run.needs == {"pretrained": classifier} and Run.from_specification(run.specification()) == run
    with pytest.raises(ValueError, match="another network"):
        replace(SEGMENTED, pretrained=Run("cifar_bottleneck11"))
    with pytest.raises(ValueError, match="the weights of a run for segmentation, only from a classifier's"):
        replace(classifier, pretrained=SEGMENTED)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": None}, "is for segmentation, not for classification"),
        ({"task": RCNN}, "is for segmentation, not for detection"),
        ({"data": "cifar10"}, "is for classification, not for segmentation"),
        ({"train_images": 10}, "neither train_images nor a teacher"),
        ({"recipe": replace(RECIPE, mixup=0.2, decay_all=False)}, "does not read decay_all, mixup"),
        ({"recipe": replace(RECIPE, plugins=(Plugin("resnet.device:DeviceLost"),))}, "does not read plugins"),
        ({"pretrained": Run("cifar_bottleneck11", model_options=OPTIONS), "task": replace(FCN, backbone="0" * 64)},
         "not with both"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SEGMENTED, **changes)


def test_a_task_that_is_not_known_is_refused():
    specification = SEGMENTED.specification()
    specification["task"]["name"] = "captions"
    with pytest.raises(ValueError, match="no task 'captions'"):
        Run.from_specification(specification)


def test_the_poly_schedule():
    recipe = Recipe(iterations=100, milestones=(), schedule="poly", learning_rate=2.0, linear_warmup=20)
    rates = [learning_rate_at(recipe, iteration) for iteration in (0, 19, 20, 60, 99)]
    assert rates == pytest.approx([0.1, 2.0, 2.0, 2 * 0.5**0.9, 2 * (1 / 80) ** 0.9])


# ------------------------------------------------------------------------------------------------------------ canvases


def test_canvases_are_the_same_every_time_and_from_their_own_part_of_the_data(monkeypatch):
    monkeypatch.setattr(canvas, "TRAIN_CANVASES", 100)
    monkeypatch.setattr(canvas, "TEST_CANVASES", 100)
    dataset = make_synthetic(60, 30)
    dark = replace(dataset, test_images=np.zeros_like(dataset.test_images))
    made, again = (canvas.make_canvases("synthetic_canvas64", dataset) for _ in range(2))
    assert made.digest == again.digest
    darker = canvas.make_canvases("synthetic_canvas64", dark)
    assert np.array_equal(darker.train.images, made.train.images), "test images are in no canvas for training"
    for image, boxes, labels in zip(darker.test.images, darker.test.boxes, darker.test.labels):
        for (left, top, right, bottom), label in zip(boxes, labels):
            assert not label or not image[top:bottom, left:right].any(), "training images are in no canvas for tests"


@pytest.mark.parametrize("name", ["synthetic_canvas64", "synthetic_canvas96"])
def test_boxes_masks_and_classes_belong_together(name, canvases):
    part, size = canvases[name].dataset.train, canvas.SIZES[name]
    assert part.images.shape == (10, size, size, 3)
    for mask, boxes, labels in zip(part.masks, part.boxes, part.labels):
        expected = np.zeros((size, size), np.uint8)
        for (left, top, right, bottom), label in zip(boxes, labels):
            if label:
                assert 0 <= left < right <= size and right - left == bottom - top
                assert canvas.SIDES[0] <= right - left <= canvas.SIDES[1]
                assert not expected[top:bottom, left:right].any(), "they don't overlap"
                expected[top:bottom, left:right] = 255
                expected[top + 1 : bottom - 1, left + 1 : right - 1] = label
        assert np.array_equal(mask, expected) and labels[0] > 0
    assert (part.labels > 0).sum() > 10


def test_a_batch_depends_on_seed_and_step_alone_and_flips_all_that_is_known(canvases):
    data = canvases["synthetic_canvas96"]
    batches = data.batches(0, RECIPE, RCNN)
    third = [batches(step) for step in range(4)][3]
    again = data.batches(0, RECIPE, RCNN)(3)
    other = data.batches(1, RECIPE, RCNN)(3)
    assert all(torch.equal(one, two) for one, two in zip(third.images, again.images))
    assert not all(torch.equal(one, two) for one, two in zip(third.images, other.images))
    scene = scenes.read_scene(data.dataset.train, 0)
    flipped = scenes.flip(scene)
    for (left, top, right, bottom), label in zip(flipped.boxes.astype(int), flipped.labels):
        assert (flipped.mask[top + 1 : bottom - 1, left + 1 : right - 1] == label).all()
    assert np.array_equal(scenes.flip(flipped).boxes, scene.boxes)


def test_images_are_normalised_as_the_classifiers_are(canvases):
    data = canvases["synthetic_canvas64"]
    (batch, *_) = data.tests(FCN)
    pixels = torch.from_numpy(data.dataset.test.images[0]).permute(2, 0, 1)
    mean = torch.tensor(data.dataset.mean)[:, None, None]
    torch.testing.assert_close(batch.images[0], (pixels - mean) / 255)


# ------------------------------------------------------------------------------------------------------------ training


@pytest.mark.parametrize("run", RUNS)
def test_an_interrupted_run_ends_like_an_uninterrupted_one(run, canvases, tmp_path):
    whole = TaskTrainer(run, canvases[run.data])
    while not whole.finished:
        torch.rand(3)  # draws of others change nothing
        whole.step()
    whole.evaluate()
    begun = TaskTrainer(run, canvases[run.data])
    for _ in range(2):
        begun.step()
    checkpoint.save(tmp_path, {**begun.state_dict(), "history": history()})
    resumed = TaskTrainer(run, canvases[run.data])
    train(resumed, tmp_path)
    assert resumed.weights_digest() == whole.weights_digest() and resumed.curve == whole.curve
    (point,) = whole.curve
    assert {*run.task.metrics, "iteration", "learning_rate", "training_loss"} == {*point}
    assert all(0 <= point[name] <= 100 for name in run.task.metrics)
    other = TaskTrainer(replace(run, seed=1), canvases[run.data])
    with pytest.raises(checkpoint.MismatchError, match="checkpoint's run"):
        other.load_state_dict(begun.state_dict())


def history():
    segments = [{"from": 0, "to": 2, "device_seconds": 0.0, "origin": {}}]
    return {"wall_seconds": 0.0, "train_seconds": 0.0, "device_seconds": 0.0, "packed_with": 0, "segments": segments}


@pytest.mark.parametrize("run", RUNS)
def test_steps_draw_by_seed_and_step_and_leave_the_global_generator_alone(run, canvases, monkeypatch):
    losses = []
    for seed in range(2):
        trainer = TaskTrainer(run, canvases[run.data])
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        with monkeypatch.context() as patch:
            patch.setattr(torch.cuda, "manual_seed_all", lambda number: pytest.fail("other devices are left alone"))
            trainer.step()
        losses.append(trainer._loss_sum.item())
        assert torch.equal(torch.get_rng_state(), before)
    assert losses[0] == losses[1]


@pytest.mark.parametrize("run", RUNS)
def test_training_begins_with_the_classifier(run, canvases):
    classifier = Run(run.model, model_options=OPTIONS)
    weights = create_model(run.model, torch.Generator().manual_seed(5), **OPTIONS).state_dict()
    trainer = TaskTrainer(replace(run, pretrained=classifier), canvases[run.data], pretrained=weights)
    own = trainer.model.state_dict()
    for name, value in weights.items():
        same = [key for key in own if key.endswith(name.removeprefix("layer3."))]
        assert name.startswith("fc.") or any(torch.equal(own[key], value) for key in same), name
    assert trainer.needed_digests == {"pretrained": digest_of_weights(weights)}
    given = replace(run, task=replace(run.task, backbone=digest_of_weights(weights)))
    older = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    assert TaskTrainer(given, canvases[run.data], pretrained=weights).needed_digests == {}
    old = replace(run, task=replace(run.task, backbone=digest_of_weights(older)))
    assert TaskTrainer(old, canvases[run.data], pretrained=older).weights_digest() == trainer.weights_digest()
    with pytest.raises(ValueError, match="begins with the weights"):
        TaskTrainer(given, canvases[run.data], pretrained=older)
    with pytest.raises(ValueError, match="if and only if"):
        TaskTrainer(run, canvases[run.data], pretrained=weights)


def test_the_heads_learn_faster_than_the_trunk(canvases):
    trainer = TaskTrainer(replace(SEGMENTED, task=replace(FCN, head_rate=7.0)), canvases["synthetic_canvas64"])
    trainer.step()
    trunk, heads = (group["lr"] for group in trainer.optimizer.param_groups)
    assert heads == pytest.approx(7 * trunk) and trunk == RECIPE.learning_rate
    assert sum(len(group["params"]) for group in trainer.optimizer.param_groups) == len([*trainer.model.parameters()])


def test_the_pixel_loss_is_the_one_of_maps():
    logits = torch.randn(2, 5, 7, 6, generator=torch.Generator().manual_seed(0))
    masks = torch.randint(5, (2, 7, 6), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    masks[0, 2:5] = 255
    torch.testing.assert_close(pixel_loss(logits, masks), F.cross_entropy(logits, masks.long(), ignore_index=255))


def test_in_bf16_boxes_stay_in_fp32(canvases):
    """bf16 has 8 bits, so boxes near the right edge would lie on every fourth pixel of an image of VOC."""
    data, anchors = canvases[DETECTED.data], []
    trainers = [
        TaskTrainer(replace(DETECTED, recipe=replace(RECIPE, precision=each)), data) for each in ("fp32", "bf16")
    ]
    for trainer in trainers:
        generator = trainer.model.detector.rpn.anchor_generator
        generator.register_forward_hook(lambda module, arguments, made: anchors.append(torch.cat(made)))
        trainer.step()
    assert torch.equal(*anchors) and anchors[1].dtype == torch.float32
    trainer.evaluate()
    assert 0 <= trainer.curve[0]["map_area"] <= 100
    with torch.no_grad(), autocast(data.device, "bf16"):
        found = trainer.model.eval().predict(next(data.tests(RCNN)))
    edges = torch.from_numpy(np.concatenate([one.boxes for one in found]))
    assert edges.dtype == torch.float32 and (edges != edges.bfloat16()).any()


def test_frozen_parts_stay_as_they_were(canvases):
    run = replace(DETECTED, task=replace(RCNN, frozen=2, frozen_bn=True))
    trainer = TaskTrainer(run, canvases[run.data])
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.step()
    trainer.begin_evaluation()  # which sets the mode, and sets it back
    trainer.step()
    changed = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and not any("running" in name or ".bn" in name for name in changed)
    assert not any(part in name for name in changed for part in ("trunk.conv1", "trunk.layer1"))
    assert any("trunk.layer2" in name for name in changed) and any("box_head" in name for name in changed)
    partly = TaskTrainer(replace(run, task=replace(RCNN, frozen=1)), canvases[run.data])
    partly.step()
    changed = {name for name, value in partly.model.state_dict().items() if not torch.equal(value, before[name])}
    assert not any("trunk.conv1" in name or "trunk.bn1" in name for name in changed)
    assert any("trunk.layer1" in name and "running" in name for name in changed)
    free = TaskTrainer(DETECTED, canvases[run.data])
    free.step()
    kept = {name for name, value in free.model.state_dict().items() if torch.equal(value, before[name])}
    assert not any("trunk.conv1" in name or "running_mean" in name for name in kept)


def test_a_run_that_diverges_ends(canvases):
    trainer = TaskTrainer(replace(SEGMENTED, recipe=replace(RECIPE, learning_rate=1e30)), canvases[SEGMENTED.data])
    finish(trainer)
    assert trainer.diverged and trainer.curve[-1]["mean_iou"] is None and trainer.curve[-1]["training_loss"] is None


@pytest.mark.gpu
@pytest.mark.parametrize("run", RUNS)
def test_on_a_gpu_the_same_steps_give_the_same_bits(run, canvases):
    data = place(canvases[run.data].dataset, None, "cuda")
    digests = []
    for _ in range(2):
        trainer = TaskTrainer(run, data)
        for _ in range(3):
            trainer.step()
        trainer.evaluate()
        digests.append((trainer.weights_digest(), trainer.curve))
    assert digests[0] == digests[1]


def test_what_these_trainings_do_not_have_is_refused(canvases):
    data = canvases[SEGMENTED.data]
    with pytest.raises(ValueError, match="one process trains a run for segmentation, not 2"):
        TaskTrainer(SEGMENTED, data, Group(0, 2))
    with pytest.raises(ValueError, match="no loss scaling"):
        TaskTrainer(replace(SEGMENTED, recipe=replace(RECIPE, precision="fp16")), data)
    with pytest.raises(ValueError, match="needs synthetic_canvas96"):
        TaskTrainer(DETECTED, data)
