"""Networks that begin with another network's weights except for the last layer, and the checks of such runs."""

from dataclasses import replace

import pytest
import torch

from resnet.checkpoint import digest_of_weights
from resnet.data import load, place
from resnet.data.sampling import seeded_generator
from resnet.models import create_model
from resnet.recipe import Recipe
from resnet.run import Run
from resnet.trainer import Trainer
from resnet.transfer import take_over

TINY = Recipe().shortened(4, eval_interval=2, batch_size=8)
PRETRAINING = Run("cifar_resnet8", TINY, "synthetic_first5")
RUN = Run("cifar_resnet8", TINY, "synthetic_last5", seed=3, pretrained=PRETRAINING)


@pytest.fixture(scope="module")
def data():
    return place(load("synthetic_last5"), None, "cpu")


@pytest.fixture(scope="module")
def weights():
    state = create_model("cifar_resnet8", torch.Generator().manual_seed(7), num_classes=5).state_dict()
    return {name: value + 1 if "running" in name else value for name, value in state.items()}


def test_a_run_begins_with_all_weights_but_the_last_layers(data, weights):
    trainer = Trainer(RUN, data, pretrained=weights)
    fresh = create_model("cifar_resnet8", seeded_generator(RUN.seed, "initialisation"), num_classes=5).state_dict()
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, (fresh if name in ("fc.weight", "fc.bias") else weights)[name]), name
    assert not torch.equal(fresh["fc.weight"], weights["fc.weight"])
    assert trainer.needed_digests == {"pretrained": digest_of_weights(weights)}


def test_the_last_layer_may_have_another_size():
    source = create_model("cifar_resnet8", num_classes=3).state_dict()
    model = create_model("cifar_resnet8", num_classes=7)
    before = model.fc.weight.clone()
    take_over(model, source)
    assert torch.equal(model.fc.weight, before) and torch.equal(model.conv1.weight, source["conv1.weight"])
    with pytest.raises(ValueError, match="do not fit this network"):
        take_over(create_model("cifar_resnet14"), source)


def test_weights_are_given_if_and_only_if_the_run_needs_them(data, weights):
    for run, given in (
        (RUN, {}),
        (replace(RUN, pretrained=None), {"pretrained": weights}),
        (RUN, {"teacher": weights}),
    ):
        with pytest.raises(ValueError, match="if and only if"):
            Trainer(run, data, **given)


def test_a_checkpoint_of_other_weights_is_refused(data, weights):
    saved = Trainer(RUN, data, pretrained=weights).state_dict()
    Trainer(RUN, data, pretrained=weights).load_state_dict(saved)
    others = {name: value * 2 if name == "conv1.weight" else value for name, value in weights.items()}
    with pytest.raises(ValueError, match="the checkpoint's pretrained is"):
        Trainer(RUN, data, pretrained=others).load_state_dict(saved)


def test_identity_and_specification_hold_the_pretraining():
    assert RUN.identity != replace(RUN, pretrained=None).identity
    assert RUN.identity != replace(RUN, pretrained=replace(PRETRAINING, seed=1)).identity
    assert Run.from_specification(RUN.specification()) == RUN
    chain = replace(RUN, pretrained=replace(PRETRAINING, pretrained=Run("cifar_resnet8", TINY, "synthetic")))
    assert Run.from_specification(chain.specification()) == chain and chain.identity != RUN.identity
    older = {name: value for name, value in RUN.specification().items() if name != "pretrained"}
    assert Run.from_specification(older) == replace(RUN, pretrained=None)


def test_only_the_same_network_can_be_pretrained():
    with pytest.raises(ValueError, match="cifar_resnet8 can't start from .*cifar_resnet14"):
        replace(RUN, pretrained=replace(PRETRAINING, model="cifar_resnet14"))
    with pytest.raises(ValueError, match="shortcut=B"):
        replace(RUN, pretrained=replace(PRETRAINING, model_options={"shortcut": "B"}))
