"""An exponential moving average of the weights, which is tested in place of the weights themselves.

Recipe(plugins=(Plugin("examples.ema:EMA", decay=0.999),))
"""

import copy

import torch


class EMA:
    """Averages all weights and BN's running estimates; the average starts from the weights after the first step."""

    def __init__(self, decay=0.999):
        self.decay, self.average = decay, {}

    @torch.no_grad()
    def after_step(self, trainer):
        """Take the new weights into the average."""
        weights = trainer.model.state_dict()
        if not self.average:
            self.average = {name: tensor.clone() for name, tensor in weights.items()}
        floats = [name for name, tensor in weights.items() if tensor.is_floating_point()]
        old, new = ([state[name] for name in floats] for state in (self.average, weights))
        torch._foreach_lerp_(old, new, 1 - self.decay)
        for name in weights.keys() - set(floats):  # BN's counters
            self.average[name].copy_(weights[name])

    def evaluate_with(self, model):
        """Return a network with the average of the weights."""
        averaged = copy.deepcopy(model)
        averaged.load_state_dict(self.average or model.state_dict())
        return averaged

    def state_dict(self):
        """Return the average, which a checkpoint keeps."""
        return self.average

    def load_state_dict(self, state):
        """Go on from a checkpoint."""
        self.average = {name: tensor.clone() for name, tensor in state.items()}
