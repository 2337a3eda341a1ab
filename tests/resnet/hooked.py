"""Plugins for the tests of hooks."""

import random

import numpy as np
import torch
from torch import nn


class Noise:
    """Draws in every place where it can."""

    def __init__(self):
        self.steps = 0

    def model(self, model):
        model.fc = nn.Sequential(model.fc, Shaken())
        return model

    def batch(self, images, labels, draws):
        images = images + 0.1 * draws.normal((len(images), 1, 1, 1)) * draws.of("scale").beta(0.5)
        return images[draws.permutation(len(images))], labels

    def loss(self, logits, targets):
        return nn.functional.cross_entropy(logits.float(), targets) * 1.5

    def after_step(self, trainer):
        self.steps += 1
        assert trainer.iteration == self.steps

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


class Shaken(nn.Module):
    draws = None

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(10))

    def forward(self, x):
        return x + self.weight * self.draws.uniform(x.shape) if self.training else x


class Returns:
    """A hook of each name that is in ``values`` returns that."""

    def __init__(self, hook):
        self._hook = hook

    def model(self, model):
        return None if self._hook == "model" else model

    def batch(self, images, labels, draws):
        wrong = {"batch": None, "pair": images, "images": (images[:, :2], labels), "targets": (images, labels[:2]),
                 "float": (images, labels.float())}  # fmt: skip
        return wrong.get(self._hook, (images, labels))

    def loss(self, logits, targets):
        loss = nn.functional.cross_entropy(logits, targets, reduction="none" if self._hook == "loss" else "mean")
        return loss.detach() if self._hook == "detached" else loss

    def evaluate_with(self, model):
        return {"evaluate_with": None, "other": model.conv1}.get(self._hook, model)

    def state_dict(self):
        return object() if self._hook == "state_dict" else None

    def load_state_dict(self, state):
        pass


class Global:
    def __init__(self, hook):
        self._hook = hook

    def batch(self, images, labels, draws):
        return images + (torch.rand(1) if self._hook == "batch" else 0), labels

    def loss(self, logits, targets):
        return nn.functional.cross_entropy(logits, targets) + (torch.rand(()) if self._hook == "loss" else 0)

    def after_step(self, trainer):
        trainer.draws.of("mine").uniform()
        if self._hook == "after_step":
            torch.rand(1)

    def model(self, model):
        {"numpy": np.random.rand, "python": random.random}.get(self._hook, int)()
        model.fc = nn.Sequential(model.fc, nn.Dropout(0.5)) if self._hook == "model" else model.fc
        return model


class ReadsBack:
    """Fails where a value can't be read back."""

    recording = False

    def batch(self, images, labels, draws):
        if self.recording:
            raise RuntimeError("operation not permitted when stream is capturing")
        return (images, labels) if images.sum().isfinite().item() else (-images, labels)


class Frozen:
    """Keeps the stem as it is, and adds a layer that nothing calls."""

    def model(self, model):
        model.conv1.requires_grad_(False)
        model.unused = nn.Linear(2, 2)
        return model


class Named:
    def __init__(self, loss, batch):
        self.loss, self.batch = loss, batch

    def after_step(self, trainer):
        pass
