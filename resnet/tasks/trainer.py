"""Trainer of runs of other tasks than classification, with the interface that :mod:`resnet.training` uses."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

from resnet.checkpoint import digest_of_weights
from resnet.data.sampling import seeded_generator
from resnet.data.scenes import SceneData
from resnet.device import autocast, exact_kernels
from resnet.distributed import ALONE, Group
from resnet.kernels import LIBRARY
from resnet.models import create_model
from resnet.recipe import learning_rate_at
from resnet.run import Run
from resnet.stepwise import Stepwise
from resnet.tasks import Segmentation
from resnet.tasks.detection import DetectionNet
from resnet.tasks.segmentation import SegmentationNet
from resnet.transfer import take_over


def task_network(run: Run, classes: int, weights: dict | None = None) -> nn.Module:
    """Build the network of a task's run as its training begins: ``weights`` are a classifier's, None for random ones.

    ``classes`` counts the background where the data have one. Raises ValueError for weights that don't fit.
    """
    net = create_model(run.model, generator=seeded_generator(run.seed, "initialisation"), **run.model_options)
    if weights is not None:
        own = {name: value for name, value in net.state_dict().items() if name.endswith("num_batches_tracked")}
        take_over(net, own | weights)  # old files lack BN's counters of batches
    kind = SegmentationNet if isinstance(run.task, Segmentation) else DetectionNet
    with global_draws(torch.device("cpu"), run.seed, "heads"):  # torchvision's heads draw from the global generator
        return kind(net, run.task, classes)


@contextmanager
def global_draws(device: torch.device, seed: int, *stream) -> Iterator[None]:
    """Seed the CPU's and the device's global generators for one named stream of a run; restore them at the end.

    torchvision draws from them. The generators of other devices are left alone.
    """
    number, on_gpu = seeded_generator(seed, *stream).initial_seed(), device.type == "cuda"
    with torch.random.fork_rng([device] if on_gpu else []):
        torch.default_generator.manual_seed(number)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(number)
        yield


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """Use deterministic kernels, on a GPU also the slower ones of interpolation and of gradients by index."""
    before, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory, on_gpu = torch.utils.deterministic, device.type == "cuda"
    filled = memory.fill_uninitialized_memory
    with exact_kernels(), torch.cuda.device(device) if on_gpu else nullcontext():
        torch.use_deterministic_algorithms(before or on_gpu, warn_only=warns or not before)
        memory.fill_uninitialized_memory = filled and before  # else every new tensor is filled with NaN first
        try:
            yield
        finally:
            memory.fill_uninitialized_memory = filled
            torch.use_deterministic_algorithms(before, warn_only=warns)


class TaskTrainer(Stepwise):
    """One run for segmentation or detection, advanced step by step; see :class:`resnet.trainer.Trainer`.

    ``curve`` has one entry per evaluation: iteration, learning_rate (of the last step), training_loss (the mean since
    the previous evaluation) and the task's metrics in percent, None if the loss was not finite. All that is drawn in a
    step, which torchvision's heads do from the global generator, depends on the run's seed and the step alone.

    ``pretrained``: the final state dict of ``run.pretrained``, or the weights that ``run.task.backbone`` names.
    ``precision``: to use if the recipe's is "auto", instead of the device's choice. One process trains a run, so BN
    takes its statistics over the whole batch, which several processes would have to synchronise.

    Raises ValueError for data other than the run's, for missing, superfluous or other weights, for a precision that
    these trainings don't have, and for a ``group`` of several processes.
    """

    warmup_ended_at = None
    kernels = LIBRARY

    def __init__(
        self,
        run: Run,
        data: SceneData,
        group: Group = ALONE,
        teacher: dict | None = None,
        pretrained: dict | None = None,
        precision: str | None = None,
    ):
        super().__init__(run, data, group, precision)
        if (pretrained is None) != (run.pretrained is None and run.task.backbone is None) or teacher is not None:
            raise ValueError("pretrained weights must be given if and only if the run has a pretrained run or a "
                             "backbone, and a teacher never")  # fmt: skip
        if group.size > 1:
            raise ValueError(f"one process trains a run for {run.task.name}, not {group.size}; ask for one GPU")
        digest = None if pretrained is None else digest_of_weights(pretrained)
        if run.task.backbone not in (None, digest):
            raise ValueError(f"the run begins with the weights {run.task.backbone}, not with {digest}")
        if self.precision == "fp16":
            raise ValueError(f"training for {run.task.name} has no loss scaling, so it can't be in fp16")
        self.model = task_network(run, data.num_classes, pretrained)
        self.model = self.model.to(self.device, memory_format=torch.channels_last).train()
        self.needed_digests = {role: digest for role in run.needs}
        rates = {"trunk": 1.0, "heads": run.task.head_rate if isinstance(run.task, Segmentation) else 1.0}
        groups = [{"params": own, "rate": rates[part]} for part, own in self.model.parts().items()]
        recipe = run.recipe
        self.optimizer = torch.optim.SGD(groups, recipe.peak_learning_rate, recipe.momentum,
                                         weight_decay=recipe.weight_decay, nesterov=recipe.nesterov)  # fmt: skip
        self.batches = data.batches(run.seed, recipe, run.task)
        self._last_learning_rate = self.learning_rate
        self._steps_since_evaluation = 0
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self._scores: dict[str, float] | None = None  # of the evaluation in progress

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step, of the trunk."""
        return learning_rate_at(self.recipe, self.iteration)

    def step(self) -> None:
        """Take one training step. If :attr:`evaluation_due` is then true, the caller evaluates before the next step."""
        self._last_learning_rate = self.learning_rate
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * group["rate"]
        batch = self.batches(self.iteration)
        self.optimizer.zero_grad()
        with global_draws(self.device, self.run.seed, "step", self.iteration), _deterministic(self.device):
            with autocast(self.device, self.precision):
                loss = self.model.loss(batch)
            loss.backward()
            self.optimizer.step()
        self._loss_sum += loss.detach()
        self.iteration += 1
        self._steps_since_evaluation += 1

    def mark(self) -> "torch.cuda.Event | None":
        """Record an event after all work queued so far; return None on a CPU."""
        return torch.cuda.current_stream(self.device).record_event() if self.device.type == "cuda" else None

    @torch.no_grad()
    def begin_evaluation(self) -> None:
        """Evaluate the network, unless the loss was not finite; :meth:`finish_evaluation` must follow."""
        self.diverged = not math.isfinite(self._loss_sum.item())
        self._scores = dict.fromkeys(self.run.task.metrics)
        if not self.diverged:
            self.model.eval()
            with _deterministic(self.device), autocast(self.device, self.precision):
                self._scores = self.model.evaluate(self.data.tests(self.run.task))
            self.model.train()

    def finish_evaluation(self) -> None:
        """Add the entry of the evaluation in progress to ``curve``."""
        loss = self._loss_sum.item() / self._steps_since_evaluation
        self.curve.append(
            {
                "iteration": self.iteration,
                "learning_rate": self._last_learning_rate,
                "training_loss": None if self.diverged else loss,
                **self._scores,
            }
        )
        self._loss_sum.zero_()
        self._steps_since_evaluation, self._scores = 0, None

    def evaluated(self) -> nn.Module:
        """Return the network that is evaluated: the trained one, because these trainings have no plugins."""
        return self.model

    def final_tests(self) -> dict[str, dict[str, float]]:
        """Return nothing: these recipes have no additional tests."""
        return {}

    def state_dict(self) -> dict:
        """Return everything that the rest of the run depends on: tensors and plain values."""
        own = {"steps_since_evaluation": self._steps_since_evaluation, "loss_sum": self._loss_sum}
        return super().state_dict() | own

    def load_state_dict(self, state: dict) -> None:
        """Resume from a :meth:`state_dict`, with its precision if the recipe's is "auto".

        Raises MismatchError, a ValueError, if the state belongs to another run, other data or other pretrained weights,
        or if its precision can't be used here.
        """
        self.precision = self.precision_of(state)
        super().load_state_dict(state)
        self._loss_sum.copy_(state["loss_sum"])
        self._steps_since_evaluation = state["steps_since_evaluation"]

    def weights_digest(self) -> str:
        """Return the SHA-256 of all weights and buffers: equal if and only if two networks are bit for bit equal."""
        return digest_of_weights(self.model.state_dict())
