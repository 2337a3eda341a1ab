"""Training against a plain loop; warm-up, divergence, held-out images; a resumed run equals an uninterrupted one."""

import copy
import os
import subprocess
import sys
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from finishing import finish, train_in_parts
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from resnet import checkpoint
from resnet.checkpoint import MismatchError
from resnet.data.dataset import ImageDataset
from resnet.data.resident import ResidentData
from resnet.data.sampling import Sampler
from resnet.data.synthetic import make_synthetic
from resnet.evaluate import count_wrong
from resnet.recipe import Recipe
from resnet.run import Run
from resnet.trainer import Trainer
from resnet.training import Interrupted, train, training

RECIPE = Recipe(iterations=12, batch_size=8, milestones=(7, 9), eval_interval=4, precision="fp32")
WARMED_UP = replace(RECIPE, warmup_learning_rate=0.01, warmup_window=3, warmup_until_error=99.0)


def make_run(recipe=RECIPE, **values):
    return Run("cifar_resnet8", recipe, "synthetic", **values)


def train_to_the_end(run, data):
    return finish(Trainer(run, data))


def assert_weights_close(model, expected, rtol, atol):
    weights = model.state_dict()
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(weights[name].cpu(), tensor, rtol=rtol, atol=atol, check_stride=False)


def test_an_evaluation_counts_every_test_image_and_leaves_the_model_in_training_mode(dataset, data):
    trainer = Trainer(make_run(), data)
    trainer.step()
    before = trainer.weights_digest()
    trainer.evaluate()
    assert trainer.model.training and trainer.weights_digest() == before
    mean = dataset.train_images.mean(axis=0, dtype=np.float64)
    model = copy.deepcopy(trainer.model).eval()
    wrong = 0
    for image, label in zip(dataset.test_images, dataset.test_labels):
        x = torch.tensor((image - mean).transpose(2, 0, 1) / 255, dtype=torch.float32)[None]
        wrong += model(x).argmax().item() != label
    assert trainer.curve[0]["test_error"] == pytest.approx(100 * wrong / 30)


def test_error_over_more_images_than_fit_into_one_batch():
    class FirstPixel(nn.Module):
        def forward(self, x):
            return torch.nn.functional.one_hot(x[:, 0, 0, 0].mul(255).round().long(), 10).float()

    labels = (np.arange(613) % 10).astype(np.uint8)
    images = np.broadcast_to(labels[:, None, None, None], (613, 32, 32, 3)).copy()
    for wrong in (0, 5):
        answers = np.where(np.arange(613) < wrong, 9, labels).astype(np.uint8)
        black = np.zeros((4, 32, 32, 3), np.uint8)  # so that the mean image is, too
        data = ResidentData(ImageDataset("synthetic", black, labels[:4], images, answers, False), None, "cpu")
        parts = (slice(0, 613), slice(0, 300), slice(300, 613))
        whole, *halves = (int(count_wrong(FirstPixel(), data.tests("test", part, RECIPE))) for part in parts)
        assert whole == sum(halves) == wrong


def test_an_evaluation_takes_little_memory_beside_a_training_step():
    """On a GPU, where nobody has seen an evaluation yet when it is decided how many runs fit."""
    data = ResidentData(make_synthetic(128, 2_500), None, "cpu")
    trainer = Trainer(Run("cifar_resnet20", replace(RECIPE, batch_size=128), "synthetic"), data)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        trainer.step()
    data.device = torch.device("cuda")  # by name
    with Peak() as evaluation:
        count_wrong(trainer.model, [next(data.tests("test", slice(None), trainer.recipe))])
    assert 0 < evaluation.peak < sum(kept.values()) / 2


class Peak(TorchDispatchMode):
    """Counts the bytes of the tensors that are made and still there."""

    now = peak = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        made = function(*arguments, **(keywords or {}))
        for tensor in torch.utils._pytree.tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and not tensor._is_view() and not function._schema.is_mutable:
                self._add(tensor.nbytes)
                weakref.finalize(tensor, self._add, -tensor.nbytes)
        return made

    def _add(self, count):
        self.now += count
        self.peak = max(self.peak, self.now)


def test_top5_error_counts_the_classes_that_are_not_among_the_first_five():
    logits = torch.arange(8.0).flip(0).expand(8, 8)  # classes 0, 1, 2, ... in this order for every image
    batches = [(logits[:3], torch.arange(3)), (logits[3:], torch.arange(3, 8))]
    assert count_wrong(nn.Identity(), batches, top5=True).tolist() == [7, 3]
    assert count_wrong(nn.Identity(), [(logits[:2, :3], torch.tensor([2, 2]))], top5=True).tolist() == [2, 0]


def test_a_net_learns():
    recipe = Recipe(iterations=60, batch_size=16, learning_rate=0.05, milestones=(45,), augment=False, eval_interval=15)
    trainer = train_to_the_end(make_run(recipe), ResidentData(make_synthetic(32, 10), None, "cpu"))
    errors = [point["training_error"] for point in trainer.curve]
    assert errors[0] > 50 and errors[-1] < 30


class Scripted(nn.Module):
    """Says class 0, the right one, in the steps named, and class 1 in all others."""

    def __init__(self, right):
        super().__init__()
        self.weight, self.right, self.step = nn.Parameter(torch.zeros(())), right, -1

    def forward(self, x):
        if self.training:
            self.step += 1
        answer = 0 if self.step in self.right else 1
        return torch.eye(10)[answer].expand(len(x), 10) + self.weight


@pytest.mark.parametrize(
    ("right", "ended_at"),
    [
        (range(20), 5),  # looked at when the first whole window is over
        ({0}, None),  # 80 %: not below it
        ({0, 1}, 5),  # 60 %
        ({4, 5}, None),  # one step in each of two windows
        ({8, 9}, 10),
        ({3, 10, 14}, 15),
    ],
)
def test_warm_up_ends_when_the_error_over_a_window_is_below_the_limit(dataset, data, right, ended_at):
    recipe = Recipe(
        iterations=20, milestones=(18,), batch_size=8, eval_interval=1, warmup_learning_rate=0.01, warmup_window=5
    )
    all_zero = replace(dataset, train_labels=np.zeros_like(dataset.train_labels))
    trainer = Trainer(make_run(recipe), ResidentData(all_zero, None, "cpu"))
    trainer.model = trainer._parallel = Scripted(right)
    while not trainer.finished:
        trainer.step()
        trainer.evaluate()
    assert trainer.warmup_ended_at == ended_at
    expected = [0.01] * 20 if ended_at is None else [0.01] * ended_at + [0.1] * (18 - ended_at) + [0.01] * 2
    assert [point["learning_rate"] for point in trainer.curve] == pytest.approx(expected)


def test_the_learning_rate_of_the_schedule_is_the_optimizers(data):
    trainer = Trainer(make_run(WARMED_UP), data)
    used = []
    for _ in range(12):
        trainer.step()
        used.append(trainer.optimizer.param_groups[0]["lr"])
    assert trainer.warmup_ended_at == 3
    assert used == pytest.approx([0.01] * 3 + [0.1] * 4 + [0.01] * 2 + [0.001] * 3)


def test_huge_learning_rate_diverges(data):
    trainer = train_to_the_end(make_run(replace(RECIPE, learning_rate=1e30)), data)
    assert trainer.diverged and trainer.finished and trainer.iteration == 4
    (point,) = trainer.curve
    unknown = dict.fromkeys(("training_loss", "training_error", "test_error"))
    assert point == {"iteration": 4, "learning_rate": 1e30, **unknown}


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_weights_that_are_not_finite_end_the_run_at_the_next_evaluation(data, value):
    trainer = Trainer(make_run(), data)
    for _ in range(4):
        trainer.step()
    trainer.evaluate()
    with torch.no_grad():
        trainer.model.fc.bias[0] = value
    finish(trainer)
    assert trainer.diverged and trainer.iteration == 8
    assert trainer.curve[0]["training_loss"] is not None and trainer.curve[1]["training_loss"] is None


def stop_at(trainer, iteration):
    return lambda: trainer.iteration == iteration


LOSSES_KEPT = replace(RECIPE, loss_interval=2, eval_interval=5)


def test_mean_losses_are_those_of_the_batches_and_change_nothing(data):
    trainer = train_to_the_end(make_run(LOSSES_KEPT), data)
    every_step = train_to_the_end(make_run(replace(RECIPE, eval_interval=1)), data)
    losses = [point["training_loss"] for point in every_step.curve]
    expected = [[(losses[i] + losses[i + 1]) / 2 for i in begun] for begun in ([0, 2], [5, 7], [10])]
    assert [point["mean_losses"] for point in trainer.curve] == [pytest.approx(means) for means in expected]
    assert trainer.weights_digest() == every_step.weights_digest()
    assert "mean_losses" not in every_step.curve[0]


@pytest.mark.parametrize("recipe", [RECIPE, WARMED_UP, LOSSES_KEPT], ids=["plain", "warm-up", "mean losses"])
def test_interrupted_after_every_step_it_ends_as_if_it_had_not_been(data, tmp_path, recipe):
    run = make_run(recipe, seed=1)
    whole = train_to_the_end(run, data)
    assert (whole.warmup_ended_at is None) == (recipe is not WARMED_UP)
    resumed = train_in_parts(lambda: Trainer(run, data), tmp_path, range(1, 12))
    assert (resumed.weights_digest(), resumed.curve) == (whole.weights_digest(), whole.curve)
    assert resumed.warmup_ended_at == whole.warmup_ended_at


def test_the_tensors_of_a_loaded_checkpoint_are_freed_before_the_first_step(data, tmp_path, monkeypatch):
    interrupted = Trainer(make_run(), data)
    with pytest.raises(Interrupted):
        train(interrupted, tmp_path, stop_requested=stop_at(interrupted, 1))
    load, kept, alive = checkpoint.load_latest, [], []

    def noted(*arguments):
        state = load(*arguments)
        kept.append(weakref.ref(state["model"]["fc.weight"]))
        return state

    monkeypatch.setattr(checkpoint, "load_latest", noted)
    trainer = Trainer(make_run(), data)
    step = trainer.step
    monkeypatch.setattr(trainer, "step", lambda: alive.append(kept[0]()) or step())
    next(training(trainer, tmp_path))
    assert alive == [None]


def test_a_run_goes_on_with_as_many_threads_as_it_was_begun_with(data, tmp_path, monkeypatch):
    used = []
    step = Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda self: used.append(torch.get_num_threads()) or step(self))
    interrupted = Trainer(make_run(seed=1), data)
    with pytest.raises(Interrupted):
        train(interrupted, tmp_path, stop_requested=stop_at(interrupted, 1))
    torch.set_num_threads(2)
    try:
        resumed = Trainer(make_run(seed=1), data)
        train(resumed, tmp_path)
        assert resumed.threads == 1 and set(used) == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_more_threads_than_cores_are_named_with_the_remedy(data, tmp_path):
    cores = os.sched_getaffinity(0)
    torch.set_num_threads(2)
    try:
        interrupted = Trainer(make_run(seed=1), data)
        with pytest.raises(Interrupted):
            train(interrupted, tmp_path, stop_requested=stop_at(interrupted, 1))
        os.sched_setaffinity(0, {min(cores)})
        warned = pytest.warns(UserWarning, match=rf"begun with 2 threads.* cores \(1\).*remove {tmp_path} to begin")
        with warned, pytest.raises(Interrupted):
            train(Trainer(make_run(seed=1), data), tmp_path, stop_requested=lambda: True)
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(1)


def test_train_equals_the_loop_by_hand_and_reports_progress(data, tmp_path):
    trainer, seen = Trainer(make_run(), data), []
    timing = train(trainer, tmp_path, on_progress=seen.append)
    whole = train_to_the_end(make_run(), data)
    assert (trainer.weights_digest(), trainer.curve) == (whole.weights_digest(), whole.curve)
    assert [p.iteration for p in seen if p.iteration % 4 == 0] == [4, 8, 12]
    assert seen[-1].iterations == 12 and seen[-1].test_error == trainer.curve[-1]["test_error"]
    assert 0 < timing["train_seconds"] <= timing["wall_seconds"]


def test_time_adds_up_over_interruptions(data, tmp_path, monkeypatch):
    clock = iter(range(1_000_000))
    monkeypatch.setattr("resnet.training.time.perf_counter", lambda: float(next(clock)))
    trainer = Trainer(make_run(), data)
    with pytest.raises(Interrupted):
        train(trainer, tmp_path, checkpoint_seconds=1e9, stop_requested=stop_at(trainer, 6))
    resumed = Trainer(make_run(), data)
    timing = train(resumed, tmp_path, checkpoint_seconds=1e9)
    alone = train(Trainer(make_run(), data), tmp_path / "alone", checkpoint_seconds=1e9)
    for name in ("wall_seconds", "train_seconds", "device_seconds"):
        assert timing[name] == pytest.approx(alone[name], abs=5)


def test_a_run_that_shares_its_device_took_its_share_of_the_time(data, tmp_path, monkeypatch):
    clock = iter(range(1_000_000))
    monkeypatch.setattr("resnet.training.time.perf_counter", lambda: float(next(clock)))
    timings = []
    for others in (0, 3):
        parts = training(Trainer(make_run(), data), tmp_path / str(others), 1e9, neighbours=lambda n=others: n)
        timings.append(to_the_end(parts))
    alone, shared = timings
    assert (alone["packed_with"], shared["packed_with"]) == (0, 3)
    assert alone["device_seconds"] == pytest.approx(alone["wall_seconds"], abs=5)
    assert shared["device_seconds"] == pytest.approx(alone["device_seconds"] / 4, abs=5)


def to_the_end(parts):
    """Run a generator to its end; return its result."""
    while True:
        try:
            next(parts)
        except StopIteration as end:
            return end.value


def test_a_checkpoint_of_another_run_is_refused(dataset, data, tmp_path):
    trainer = Trainer(make_run(), data)
    with pytest.raises(Interrupted):
        train(trainer, tmp_path, stop_requested=lambda: True)
    other_data = ResidentData(make_synthetic(60, 30, seed=1), None, "cpu")
    for other in (
        Trainer(make_run(seed=1), data),
        Trainer(make_run(replace(RECIPE, momentum=0.8)), data),
        Trainer(make_run(), other_data),
    ):
        with pytest.raises(ValueError, match="the checkpoint's (run|data) is"):
            train(other, tmp_path)


def left_to_the_device(data, precision=None):
    return Trainer(make_run(replace(RECIPE, precision="auto")), data, precision=precision)


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_a_checkpoint_in_a_precision_that_the_recipe_or_the_device_does_not_have_is_refused(data, precision):
    trainer = Trainer(make_run(replace(RECIPE, precision=precision)), data)
    with pytest.raises(MismatchError, match="the checkpoint's precision is bf16, but here the run's is fp32"):
        trainer.load_state_dict({**trainer.state_dict(), "precision": "bf16"})


@pytest.mark.parametrize("begun_in", ["fp32", "bf16"])
def test_a_run_whose_precision_is_left_to_the_device_goes_on_in_that_of_its_checkpoint(data, monkeypatch, begun_in):
    monkeypatch.setattr("resnet.stepwise.has_bf16", lambda device: True)
    begun, whole = left_to_the_device(data, begun_in), left_to_the_device(data, begun_in)
    own = {"fp32": "bf16", "bf16": "fp32"}[begun_in]
    begun.step(), begun.step()
    resumed = left_to_the_device(data, own)
    resumed.load_state_dict(begun.state_dict())
    assert resumed.precision == resumed.state_dict()["precision"] == begun_in
    resumed.step()
    for _ in range(3):
        whole.step()
    assert resumed.weights_digest() == whole.weights_digest()


def test_seeds_give_different_nets_and_the_same_seed_the_same(data):
    weights = [train_to_the_end(make_run(seed=seed), data).weights_digest() for seed in (0, 1, 0)]
    assert weights[0] == weights[2] != weights[1]


def test_held_out_images_are_not_trained_on(dataset, data):
    held_out = ResidentData(dataset, 48, "cpu")
    used = dataset.train_images[:48]
    np.testing.assert_allclose(held_out.mean.numpy(), used.mean(axis=0, dtype=np.float64), rtol=1e-6)
    trainer = Trainer(make_run(train_images=48), held_out)
    order = Sampler(0, 48, Recipe(batch_size=RECIPE.batch_size))
    drawn = torch.cat([order.batch(iteration).index for iteration in range(12)])
    assert set(drawn.tolist()) == set(range(48))
    trainer.step()
    trainer.evaluate()
    model, mean = copy.deepcopy(trainer.model).eval(), used.mean(axis=0, dtype=np.float64)
    rest = torch.tensor((dataset.train_images[48:] - mean).transpose(0, 3, 1, 2) / 255, dtype=torch.float32)
    wrong = model(rest).argmax(dim=1).numpy() != dataset.train_labels[48:]
    assert trainer.curve[0]["validation_error"] == pytest.approx(100 * wrong.mean())


def test_held_out_images_change_nothing(dataset):
    other = dataset.train_images.copy()
    other[48:] = 255 - other[48:]
    runs = [
        train_to_the_end(make_run(train_images=48), ResidentData(replace(dataset, train_images=images), 48, "cpu"))
        for images in (dataset.train_images, other)
    ]
    assert runs[0].weights_digest() == runs[1].weights_digest()
    assert runs[0].curve[-1]["test_error"] == runs[1].curve[-1]["test_error"]


@pytest.mark.parametrize("count", [0, 61, -1])
def test_impossible_number_of_training_images(dataset, count):
    with pytest.raises(ValueError, match="synthetic has 60 training images"):
        ResidentData(dataset, count, "cpu")


def test_data_of_another_name_are_refused(data):
    with pytest.raises(ValueError, match="needs cifar10, but the data are synthetic"):
        Trainer(Run("cifar_resnet8", RECIPE), data)


def test_precision_on_the_cpu(data):
    assert Trainer(make_run(replace(RECIPE, precision="auto")), data).precision == "fp32"
    trainer = Trainer(make_run(replace(RECIPE, precision="bf16")), data)
    trainer.step()
    trainer.evaluate()
    assert trainer.precision == "bf16" and trainer.curve[0]["training_loss"] == pytest.approx(2.3, abs=0.5)
    assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters())


def test_importing_a_trainer_does_not_import_the_harness_and_what_it_needs():
    code = (
        "import sys, resnet.trainer, resnet.models; "
        "print([m for m in ('reproductions', 'submitit', 'pandas', 'matplotlib', 'scipy', 'rich') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    shown = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert shown.strip() == "[]"


@pytest.mark.gpu
def test_cuda_in_fp32_agrees_with_the_cpu(dataset, data, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    recipe = replace(RECIPE, learning_rate=0.01)
    on_cpu, on_gpu = Trainer(make_run(recipe), data), Trainer(make_run(recipe), ResidentData(dataset, None, "cuda"))
    for _ in range(3):
        on_cpu.step()
        on_gpu.step()
    assert_weights_close(on_gpu.model, on_cpu.model, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
def test_cuda_default_is_bf16_and_learns(dataset):
    trainer = train_to_the_end(make_run(replace(RECIPE, precision="auto")), ResidentData(dataset, None, "cuda"))
    assert trainer.precision == "bf16" and not trainer.diverged


@pytest.mark.parametrize("size", [None, 4])
def test_bn_counts_batches_not_groups(data, size):
    trainer = train_to_the_end(make_run(replace(RECIPE, batch_norm_size=size)), data)
    counts = {int(v) for k, v in trainer.model.state_dict().items() if k.endswith("num_batches_tracked")}
    assert counts == {RECIPE.iterations}


@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("model", [("cifar_resnet8", {"conv_bias": True}), ("cifar_bottleneck11", {"variant": "d"})])
def test_copies_of_the_weights_are_those_that_autocast_makes(data, monkeypatch, precision, model):
    recipe = replace(RECIPE, precision=precision, mixup=0.2, label_smoothing=0.1)
    run = Run(model[0], recipe, "synthetic", 1, model[1])
    copied, operations = train_to_the_end(run, data), count_operations(Trainer(run, data))
    monkeypatch.setattr("resnet.trainer.autocast_dtype", lambda precision: None)
    cast, more = train_to_the_end(run, data), count_operations(Trainer(run, data))
    assert copied.weights_digest() == cast.weights_digest() and copied.curve == cast.curve
    weights = sum(p.dim() > 1 or "conv" in n or "fc" in n for n, p in copied.model.named_parameters())
    assert more - operations >= 2 * weights - 10, "one for each weight and each gradient"


def count_operations(trainer) -> int:
    class Counter(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            self.count += function not in (torch.ops.aten.detach.default, torch.ops.aten.empty_like.default)
            return function(*arguments, **(keywords or {}))

    trainer.step()
    with Counter() as counter:
        trainer.step()
    return counter.count


def test_a_precision_left_to_the_device_can_be_chosen(data):
    trainer = Trainer(make_run(replace(RECIPE, precision="auto")), data, precision="bf16")
    assert trainer.precision == trainer.state_dict()["precision"] == "bf16"
    named = Trainer(make_run(replace(RECIPE, precision="bf16")), data)
    trainer.step(), named.step()
    assert trainer.weights_digest() == named.weights_digest() and trainer.run != named.run
    with pytest.raises(ValueError, match="the run's precision is bf16, so it can't be trained in fp32"):
        Trainer(make_run(replace(RECIPE, precision="bf16")), data, precision="fp32")
