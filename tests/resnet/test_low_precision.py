"""Copies of the weights in low precision give the gradients of autocast, bit for bit."""

import pytest
import torch
from torch import nn

from resnet.low_precision import WeightCopies

IMAGES = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def gradients(net, copied, penalty=0.0):
    """The gradients of two steps in bf16, by copies of the weights or by autocast alone."""
    copies = WeightCopies(net, torch.bfloat16) if copied else None
    for _ in range(2):
        net.zero_grad()
        if copied:
            copies.refresh()
        with torch.autocast("cpu", torch.bfloat16):
            logits = (copies or net)(IMAGES)
        loss = logits.float().square().mean()
        if penalty:
            loss = loss + penalty * sum(weight.square().sum() for weight in net.parameters())
        loss.backward()
        if copied:
            copies.move_gradients()
    return {name: weight.grad.clone() for name, weight in net.named_parameters()}


def assert_the_same(net, **options):
    copied, cast = (gradients(net, copied, **options) for copied in (True, False))
    assert copied.keys() == cast.keys() and all(torch.equal(copied[name], cast[name]) for name in cast)


def make_net(first):
    torch.manual_seed(0)
    return nn.Sequential(first, nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(32, 10))


def test_gradients_from_outside_of_the_network_are_added():
    net = make_net(nn.Conv2d(3, 8, 3))
    assert_the_same(net)
    assert_the_same(net, penalty=0.1)
    penalized, plain = (gradients(net, True, penalty)["0.weight"] for penalty in (0.1, 0.0))
    assert not torch.equal(penalized, plain)


class Standardized(nn.Conv2d):
    def forward(self, x):
        centred = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        return self._conv_forward(x, centred / centred.std(dim=(1, 2, 3), keepdim=True), self.bias)


def with_pre_hook():
    layer = nn.Conv2d(3, 8, 3)
    layer.scale = nn.Parameter(torch.ones(8, 1, 1, 1))
    layer.kernel = nn.Parameter(layer.weight.detach().clone())
    del layer.weight
    layer.register_forward_pre_hook(lambda layer, _: setattr(layer, "weight", layer.kernel / 3 * layer.scale))
    return layer


@pytest.mark.parametrize(
    "make",
    [
        lambda: Standardized(3, 8, 3),
        with_pre_hook,
        lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3)),
    ],
    ids=["subclass", "pre-hook", "parametrization"],
)
def test_layers_that_change_their_weights_are_left_to_autocast(make):
    assert_the_same(make_net(make()))
    assert_the_same(nn.Sequential(make(), nn.Flatten()))  # without any copy


@pytest.mark.parametrize("other", [nn.Conv2d, Standardized])
def test_layers_can_share_weights(other):
    net = make_net(nn.Conv2d(3, 8, 3))
    net.insert(3, other(8, 8, 3, padding=1))
    net[3].weight = net[4].weight
    assert_the_same(net)
