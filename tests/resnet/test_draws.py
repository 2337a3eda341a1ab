"""A run's own random numbers depend on seed, step and user; networks that draw other numbers are refused."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from resnet.draws import Draws, DrawsError, check_network
from resnet.models import create_model


def at(step, seed=0, name="x", first=0):
    draws = Draws(seed).of(name)
    draws.seek(step)
    draws.begin(first)
    return draws


def test_numbers_are_the_same_for_the_same_seed_step_user_and_place_and_others_for_any_other():
    first = at(3).uniform((4,))
    assert torch.equal(at(3).uniform((4,)), first)
    others = [at(4), at(3, seed=1), at(3, name="y"), at(3, first=64)]
    second = at(3)
    second.uniform()
    for other in [*others, second]:
        assert not torch.isin(other.uniform((4,)), first).any()
    draws = at(3)
    draws.uniform((2,))
    draws.begin(0)  # the same part again, as when a step is computed once more
    assert torch.equal(draws.uniform((4,)), first)


def test_numbers_are_pinned():
    """A checkpoint of a run names no generator's state: other numbers would be another run's."""
    draws = at(7, seed=5)
    assert draws.uniform((3,)).tolist() == PINNED["uniform"]
    assert draws.permutation(6).tolist() == PINNED["permutation"]
    torch.testing.assert_close(draws.normal((2,)), torch.tensor(PINNED["normal"]))
    torch.testing.assert_close(draws.beta(0.4, (2,)), torch.tensor(PINNED["beta"]))


PINNED = {
    "uniform": [0.0062337517738342285, 0.4810715913772583, 0.7605654001235962],
    "permutation": [0, 2, 5, 3, 4, 1],
    "normal": [0.7802510261535645, 0.4250698685646057],
    "beta": [0.9811760187149048, 0.11444634944200516],
}


def test_distributions():
    draws = at(0)
    assert stats.kstest(draws.uniform((20_000,)).numpy(), "uniform").pvalue > 0.01
    assert stats.kstest(draws.normal((20_000,)).numpy(), "norm").pvalue > 0.01
    for a in (0.5, 1.0, 3.0):
        assert stats.kstest(draws.beta(a, (20_000,)).double().numpy(), stats.beta(a, a).cdf).pvalue > 0.01
    assert torch.isfinite(draws.beta(0.01, (20_000,))).all()
    orders = torch.stack([draws.permutation(4) for _ in range(2_000)])
    assert torch.equal(orders.sort(dim=1).values, torch.arange(4).expand(2_000, 4))
    counts = torch.bincount(orders[:, 0], minlength=4)
    assert stats.chisquare(counts.numpy()).pvalue > 0.01
    steps = torch.cat([at(step).uniform((1,)) for step in range(2_000)])
    assert stats.kstest(steps.numpy(), "uniform").pvalue > 0.01
    with pytest.raises(ValueError, match="a above 0, not 0"):
        draws.beta(0)


def test_the_step_is_read_on_the_device():
    """A recorded graph keeps Python's numbers, so the step is in none of them."""
    draws = at(1)
    shown = draws.step
    draws.seek(2)
    assert draws.step is shown and shown.item() == 2


@pytest.mark.gpu
def test_a_gpu_draws_what_the_cpu_draws_in_a_graph_too():
    def draw(draws):
        draws.begin(0)
        return draws.uniform((64,)), draws.permutation(64), draws.normal((64,)), draws.beta(0.4, (64,))

    def same(own, step):
        expected = draw(at(step))
        assert all(map(torch.equal, [tensor.cpu() for tensor in own[:2]], expected[:2]))
        for tensor, other in zip(own[2:], expected[2:]):
            torch.testing.assert_close(tensor.cpu(), other, rtol=1e-6, atol=1e-7)

    draws = Draws(0, "cuda").of("x")
    draws.seek(3)
    same(draw(draws), 3)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        drawn = draw(draws)
    for step in (3, 4):
        draws.seek(step)
        graph.replay()
        same(drawn, step)


class Drawing(nn.Module):
    draws = None


def test_each_layer_that_asks_for_draws_has_its_own():
    draws, net = at(0), nn.Sequential(Drawing(), Drawing(), nn.ReLU())
    assert draws.give_to(net) and not draws.give_to(nn.ReLU())
    one, other = net[0].draws.uniform((4,)), net[1].draws.uniform((4,))
    assert not torch.isin(one, other).any() and not hasattr(net[2], "draws")


class Hidden(nn.Module):
    """Draws without a layer of its own."""

    def __init__(self, draw):
        super().__init__()
        self.draw, self.inner = draw, nn.Identity()

    def forward(self, x):
        return self.inner(x) + self.draw()


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (nn.Sequential(nn.ReLU(), nn.Dropout(0.5)), r"layer layer2\.0\.conv1\.1 \(Dropout\) .* of PyTorch in training"),
        (Hidden(lambda: F.dropout(torch.ones(()), 0.1)), r"layer layer2\.0\.conv1 \(Hidden\) .* of PyTorch"),
        (Hidden(lambda: random.random()), r"\(Hidden\) .* of Python"),
        (Hidden(lambda: np.random.rand()), r"\(Hidden\) .* of NumPy"),
    ],
)
def test_a_net_that_draws_from_a_global_generator_is_refused_by_the_name_of_the_layer(layer, named):
    net = create_model("cifar_resnet8")
    net.layer2[0].conv1 = nn.Sequential(net.layer2[0].conv1, layer) if isinstance(layer, Hidden) else layer
    if isinstance(layer, Hidden):
        named = named.replace("conv1", r"conv1\.1")
    else:
        layer[0] = net.layer1[0].conv1.__class__(16, 32, 3, 2, 1)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    with pytest.raises(DrawsError, match=named):
        check_network(net, torch.zeros(2, 3, 32, 32))
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert torch.equal(states[0], after[0]) and states[1:] == after[1:]


@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_plain8", "cifar_bottleneck11", "resnet18"])
def test_nets_pass_and_are_not_changed(name):
    net = create_model(name)
    net.fc = nn.Sequential(net.fc, nn.Dropout(0.0))
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    check_network(net, torch.zeros(2, 3, 32, 32))
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())
