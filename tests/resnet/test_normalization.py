"""BN layers with cumulative estimates or none, which plugins can add, beside the nets' own layers."""

import pytest
import torch
from torch import nn

from resnet.distributed import ALONE
from resnet.normalization import BatchCounters, RunningEstimates
from resnet.recipe import Recipe

GROUPS = torch.randn(4, 5, 3, 2, 2, generator=torch.Generator().manual_seed(0)) + 1  # of 5 images, two in a batch
RECIPE = Recipe(batch_size=10, batch_norm_size=5)


@pytest.mark.parametrize("options", [{"momentum": None}, {"track_running_stats": False}], ids=["cumulative", "none"])
def test_cumulative_estimates_and_layers_without_any_are_left_to_pytorch(options):
    net, alone = (nn.ModuleList([nn.BatchNorm2d(3), nn.BatchNorm2d(3, **options)]) for _ in range(2))
    counters, estimates = BatchCounters(net), RunningEstimates(net, RECIPE, ALONE)
    for batch in GROUPS.split(2):
        estimates.begin_batch()
        with counters.one_batch():
            for group in batch:
                assert torch.equal(net[1](group), alone[1](group))
                net[0](group)
                estimates.end_group()
        estimates.end_batch()
    assert net[0].num_batches_tracked == 2
    for name, expected in alone[1].state_dict().items():
        assert torch.equal(net[1].state_dict()[name], expected)
    if net[1].running_mean is not None:
        torch.testing.assert_close(net[1].running_mean, GROUPS.mean(dim=(0, 1, 3, 4)))
