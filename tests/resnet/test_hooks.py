"""Plugins in a trainer: resumed equals uninterrupted; arguments and results of hooks; hooks that can't be recorded."""

import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import hooked
import pytest
import torch
from finishing import finish, train_in_parts
from test_packing import pretended_cuda  # noqa: F401  (a fixture)
from test_trainer import RECIPE, make_run, train_to_the_end

from resnet.checkpoint import MismatchError
from resnet.data.resident import ResidentData
from resnet.draws import DrawsError
from resnet.plugins import Plugin, PluginError
from resnet.run import Run
from resnet.trainer import Trainer, count_errors

EXAMPLES = (
    Plugin("examples.stochastic_depth:StochasticDepth", survival=0.5),
    Plugin("examples.cutmix:CutMix"),
    Plugin("examples.ema:EMA", decay=0.9),
)


def with_plugins(*plugins, **changes):
    return replace(RECIPE, plugins=plugins, **changes)


NOISE = with_plugins(Plugin("hooked:Noise"), Plugin("examples.ema:EMA"))
RECOMPUTED = with_plugins(EXAMPLES[0], statistics_batches=2)


@pytest.mark.parametrize("recipe", [with_plugins(*EXAMPLES), NOISE, RECOMPUTED], ids=["examples", "noise", "BN"])
def test_interrupted_after_every_step_it_ends_as_if_it_had_not_been(data, tmp_path, recipe):
    run = make_run(recipe, seed=1)
    whole = train_to_the_end(run, data)

    def make():
        torch.rand(3)  # the global generator is in no result
        return Trainer(run, data)

    resumed = train_in_parts(make, tmp_path, range(1, 12))
    assert (resumed.weights_digest(), resumed.curve) == (whole.weights_digest(), whole.curve)
    other = train_to_the_end(replace(run, seed=2), data)
    assert other.weights_digest() != whole.weights_digest()


@pytest.mark.parametrize("plugin", EXAMPLES, ids=lambda plugin: plugin.path.partition(":")[2])
def test_each_example_changes_the_result(data, plugin):
    plain = train_to_the_end(make_run(), data)
    assert train_to_the_end(make_run(with_plugins(plugin)), data).weights_digest() != plain.weights_digest()


def test_each_group_of_a_batch_has_draws_of_its_own(data):
    """They belong to its first image, whichever process computes it: test_trainer_group has two."""
    seen = []

    class Seen(Trainer):
        def accumulate(self, images, labels, share):
            seen.append(self.draws.of("x").uniform((3,)))
            super().accumulate(images, labels, share)

    Seen(make_run(replace(with_plugins(EXAMPLES[1]), batch_norm_size=4)), data).step()
    assert len(seen) == 2 and not torch.isin(*seen).any()


def test_after_a_step_draws_are_the_same_whatever_part_of_the_batch_was_the_last(data):
    def drawn(**changes):
        trainer = Trainer(make_run(replace(with_plugins(EXAMPLES[2]), **changes)), data)
        kept = trainer.draws.of("x")  # by a plugin
        trainer.step()
        trainer.step()
        assert torch.equal(kept.uniform((3,)), trainer.draws.of("x").uniform((3,)))
        return trainer.draws.of("x").uniform((3,))

    assert torch.equal(drawn(batch_norm_size=4), drawn())


def test_the_average_is_tested_and_kept(data):
    trainer = train_to_the_end(make_run(with_plugins(Plugin("examples.ema:EMA", decay=0.5))), data)
    own, tested = trainer.model.state_dict(), trainer.evaluated().state_dict()
    assert not torch.equal(own["fc.weight"], tested["fc.weight"])
    plain = train_to_the_end(make_run(), data)
    assert torch.equal(plain.model.state_dict()["fc.weight"], own["fc.weight"])
    by_hand = Trainer(make_run(), data)
    average = None
    while not by_hand.finished:
        by_hand.step()
        weight = by_hand.model.fc.weight.detach().clone()
        average = weight if average is None else (average + weight) / 2
    torch.testing.assert_close(tested["fc.weight"], average)
    assert trainer.weights_digest() != plain.weights_digest()


def test_cutmix_pastes_a_rectangle_and_mixes_the_targets_by_its_area(data):
    trainer = Trainer(make_run(with_plugins(Plugin("examples.cutmix:CutMix"))), data)
    images = torch.arange(8.0)[:, None, None, None].expand(8, 3, 32, 32).contiguous()
    labels = torch.arange(8)
    trainer.draws.begin(0)
    mixed, targets = trainer.hooks.batch(images, labels, trainer.draws)
    share = (mixed != images).any(dim=1).float().mean(dim=(1, 2))
    moved = share > 0
    assert moved.any() and 0 < share.max() < 1 and targets.shape == (8, 10)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(8))
    torch.testing.assert_close(targets[moved, labels[moved]], 1 - share[moved])
    values = [len(image.unique()) for image in mixed]
    assert set(values) <= {1, 2} and [value == 2 for value in values] == moved.tolist()


def test_shares_of_classes_count_as_errors_of_the_others():
    answers, targets = torch.tensor([0, 1, 2]), torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [0.25, 0.75, 0]])
    assert count_errors(answers, targets).item() == 0 + 0.5 + 1
    assert count_errors(answers, torch.tensor([0, 0, 2])).item() == 1


def test_stochastic_depth_drops_whole_branches_and_nothing_in_evaluation(data):
    trainer = Trainer(make_run(with_plugins(EXAMPLES[0])), data)
    drop = trainer.model.layer3[0].bn2[1]
    trainer.draws.begin(0)
    dropped = drop(torch.ones(64, 2, 3, 3))
    assert set(dropped.unique().tolist()) == {0, 2} and torch.equal(dropped.amin((1, 2, 3)), dropped.amax((1, 2, 3)))
    assert torch.equal(drop.eval()(torch.ones(4, 2, 3, 3)), torch.ones(4, 2, 3, 3))
    keeps = [stage[0].bn2[1].keep for stage in (trainer.model.layer1, trainer.model.layer2, trainer.model.layer3)]
    assert keeps == pytest.approx([5 / 6, 4 / 6, 3 / 6])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_plugin_can_freeze_weights_and_add_layers_that_are_not_called(data, precision):
    trainer = Trainer(make_run(with_plugins(Plugin("hooked:Frozen"), precision=precision)), data)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.step()
    changed = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    assert not changed & {"conv1.weight", "unused.weight", "unused.bias"} and {"fc.weight", "bn1.weight"} < changed


def test_in_bf16_the_logits_of_a_loss_are_in_fp32(data):
    plain = train_to_the_end(make_run(replace(RECIPE, precision="bf16")), data)
    own = train_to_the_end(make_run(with_plugins(Plugin("hooked:Returns", hook="none"), precision="bf16")), data)
    assert (own.weights_digest(), own.curve) == (plain.weights_digest(), plain.curve)


def test_an_attribute_with_the_name_of_a_hook_is_none(data):
    plain = train_to_the_end(make_run(), data)
    named = train_to_the_end(make_run(with_plugins(Plugin("hooked:Named", loss="focal", batch=32))), data)
    assert named.weights_digest() == plain.weights_digest()


def test_weights_that_a_plugin_adds_are_drawn_by_the_seed(data, monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda number: pytest.fail("GPUs' generators are left alone"))

    def added(seed):
        return Trainer(make_run(with_plugins(Plugin("hooked:Noise")), seed=seed), data).model.fc[1].weight

    assert torch.equal(added(1), added(1)) and not torch.equal(added(1), added(2))


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        ("model", r"model must return the network, an nn\.Module; it returned None"),
        ("batch", r"batch must return images \(8, 3, 32, 32\) and targets, int64 \(8,\) or float .*; it returned None"),
        ("pair", r"batch must return .*; it returned a tensor \(8, 3, 32, 32\) of torch\.float32"),
        ("images", r"batch must return .*; it returned \(a tensor \(8, 2, 32, 32\)"),
        ("targets", r"batch must return .*a tensor \(2,\) of torch\.int64"),
        ("float", r"batch must return .*a tensor \(8,\) of torch\.float32"),
        ("loss", r"loss must return a loss, a tensor \(\) with a gradient; it returned a tensor \(8,\)"),
        ("detached", r"loss must return a loss"),
        ("evaluate_with", r"evaluate_with must return the network to test, an nn\.Module; it returned None"),
        ("other", r"evaluate_with must return a network with weights of the same names .* another bn1\.bias, "),
        (
            "state_dict",
            r"state_dict must return tensors and plain values .*; it returned an object of the class object",
        ),
    ],
)
def test_a_hook_that_returns_something_else_is_named(data, hook, said):
    with pytest.raises(PluginError, match=f"plugin hooked:Returns: {said}"):
        trainer = Trainer(make_run(with_plugins(Plugin("hooked:Returns", hook=hook))), data)
        trainer.step()
        trainer.evaluate()
        trainer.state_dict()


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        ("batch", "plugin hooked:Global: batch draws from the global generator of PyTorch"),
        ("loss", "plugin hooked:Global: loss draws from the global generator of PyTorch"),
        ("after_step", "plugin hooked:Global: after_step draws from the global generator of PyTorch"),
        ("model", r"layer fc\.1 \(Dropout\) of the network draws from the global generator of PyTorch"),
        ("numpy", "plugin hooked:Global: model draws from the global generator of NumPy"),
        ("python", "plugin hooked:Global: model draws from the global generator of Python"),
    ],
)
def test_global_random_numbers_are_refused(data, hook, said):
    with pytest.raises(DrawsError, match=said):
        Trainer(make_run(with_plugins(Plugin("hooked:Global", hook=hook))), data).step()


def test_what_contradicts_each_other_is_refused(data):
    noise, ema = Plugin("hooked:Noise"), Plugin("examples.ema:EMA")
    for recipe, said in [
        (with_plugins(noise, noise), "both have the hook loss"),
        (with_plugins(ema, ema), "both have the hook evaluate_with"),
        (with_plugins(noise, label_smoothing=0.1), "label_smoothing has no effect"),
        (with_plugins(ema, statistics_batches=2), "statistics_batches has no effect"),
    ]:
        with pytest.raises(PluginError, match=said):
            Trainer(make_run(recipe), data)


def test_a_checkpoint_without_the_plugin_is_another_runs(data):
    state = Trainer(make_run(), data).state_dict()
    assert "plugins" not in state
    with pytest.raises(MismatchError, match="the checkpoint's run"):
        Trainer(make_run(NOISE), data).load_state_dict(state)


def test_a_teacher_with_plugins_is_built_with_them(data):
    teacher = make_run(with_plugins(EXAMPLES[0]))
    weights = Trainer(teacher, data).model.state_dict()
    student = Run("cifar_resnet8", replace(RECIPE, temperature=2.0), "synthetic", teacher=teacher)
    trainer = Trainer(student, data, teacher=weights)
    trainer.step()
    assert type(trainer._teacher.layer1[0].bn2).__name__ == "Sequential"


@pytest.fixture
def unrecordable(monkeypatch, pretended_cuda):  # noqa: F811
    """A trainer on the CPU that records its steps with a plugin that fails then."""

    def make(run, data, rehearsed):
        trainer = Trainer(run, data)
        (plugin,) = (one for _, one in trainer.hooks._objects if isinstance(one, hooked.ReadsBack))

        @contextmanager
        def recording(*_):
            plugin.recording = True
            try:
                yield
            finally:
                plugin.recording = False

        def make_graphs():
            assert not rehearsed, "the rehearsal has found it"
            with recording():
                trainer.compute(8)

        monkeypatch.setattr(trainer, "make_graphs", make_graphs)
        monkeypatch.setattr("resnet.trainer.refuse_to_wait", recording if rehearsed else nullcontext)
        return trainer

    return make


@pytest.mark.parametrize("rehearsed", [True, False])
def test_a_hook_that_can_not_be_recorded_is_named_and_the_run_goes_on(data, unrecordable, rehearsed):
    run = make_run(with_plugins(Plugin("hooked:ReadsBack"), *EXAMPLES))
    whole = train_to_the_end(run, data)
    trainer = unrecordable(run, data, rehearsed)
    assert trainer.recordable
    with pytest.warns(UserWarning, match="plugin hooked:ReadsBack: batch can't be recorded in a CUDA graph, because"):
        trainer.step()
    assert not trainer.graphs and not trainer.recordable
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        finish(trainer)
    assert trainer.weights_digest() == whole.weights_digest()


@pytest.mark.gpu
def test_on_a_gpu_steps_are_recorded_and_resumed_and_a_hook_that_reads_back_is_named(dataset, tmp_path):
    data = ResidentData(dataset, None, "cuda")
    run = make_run(with_plugins(*EXAMPLES))
    whole = train_to_the_end(run, data)
    assert whole.graphs
    resumed = train_in_parts(lambda: Trainer(run, data), tmp_path, (4, 8))  # a GPU is given four steps at once
    assert (resumed.weights_digest(), resumed.curve) == (whole.weights_digest(), whole.curve)
    reading = make_run(with_plugins(*EXAMPLES, Plugin("hooked:ReadsBack")))
    with pytest.warns(UserWarning, match="plugin hooked:ReadsBack: batch can't be recorded"):
        trainer = train_to_the_end(reading, data)
    assert not trainer.graphs and trainer.weights_digest() == whole.weights_digest()
    after = train_to_the_end(run, data)
    assert after.graphs and after.weights_digest() == whole.weights_digest()


def test_a_failure_of_the_device_is_not_put_down_to_a_plugin(data, monkeypatch, pretended_cuda):  # noqa: F811
    trainer = Trainer(make_run(with_plugins(EXAMPLES[1])), data)

    def fail():
        raise RuntimeError("unspecified launch failure")

    monkeypatch.setattr(trainer, "make_graphs", fail)
    with pytest.raises(RuntimeError, match="launch failure"):
        trainer.step()
