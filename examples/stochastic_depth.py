"""Stochastic depth (Huang et al. 2016): in training, each image skips residual branches at random.

    Recipe(plugins=(Plugin("examples.stochastic_depth:StochasticDepth", survival=0.8),))

A branch is skipped more often the deeper it lies; the last one survives with the probability ``survival``. The branch
ends in the block's last BN, so a layer behind that BN is enough. Weights keep their names but for that BN's.
"""

from torch import nn

from resnet.models.blocks import BasicBlock, Bottleneck


class StochasticDepth:
    """Replaces the last BN of each residual block by itself and a layer that drops its output."""

    def __init__(self, survival=0.5):
        self.survival = survival

    def model(self, model):
        """Add the layers."""
        blocks = [block for block in model.modules() if isinstance(block, (BasicBlock, Bottleneck))]
        for number, block in enumerate(blocks, 1):
            name = "bn2" if isinstance(block, BasicBlock) else "bn3"
            keep = 1 - number / len(blocks) * (1 - self.survival)
            setattr(block, name, nn.Sequential(block.last_bn, Drop(keep)))
        return model


class Drop(nn.Module):
    """Sets each image's maps (N, C, H, W) to 0 with the probability 1 - ``keep`` in training, and scales the others."""

    draws = None  # the trainer gives each layer that has this attribute random numbers of its own

    def __init__(self, keep):
        super().__init__()
        self.keep = keep

    def forward(self, x):
        """Drop images' maps; in evaluation nothing."""
        if not self.training:
            return x
        kept = self.draws.uniform((len(x), 1, 1, 1)) < self.keep
        return x * (kept / self.keep).to(x.dtype)
