"""Training one run on one device: exactly resumable, and the same whether or not it was interrupted."""

import hashlib
import math
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from resnet import checkpoint
from resnet.data import ImageDataset
from resnet.data.augment import crop_and_flip, pad
from resnet.data.sampling import Sampler, seeded_generator
from resnet.evaluate import top1_error
from resnet.models import create_model
from resnet.recipe import learning_rate_at, make_optimizer
from resnet.run import Run


class Interrupted(Exception):
    """Training was asked to stop; a checkpoint was written first."""


def default_device() -> torch.device:
    """The current CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronized_time(device: torch.device) -> float:
    """Seconds on a clock, once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class DeviceData:
    """A data set on a device: uint8 images, int64 labels, and the mean training image in units of 0..255.

    Several runs on the same device and with as many training images can share one. Raises ValueError if the data
    set has fewer images than ``train_images``.
    """

    def __init__(self, dataset: ImageDataset, train_images: int | None, device: torch.device | str):
        available = len(dataset.train_images)
        count = available if train_images is None else train_images
        if not 0 < count <= available:
            raise ValueError(f"{dataset.name} has {available} training images, so {count} of them can't be used")
        images, labels = torch.from_numpy(dataset.train_images), torch.from_numpy(dataset.train_labels).long()
        self.name, self.num_classes, self.digest, self.official = (
            dataset.name,
            dataset.num_classes,
            dataset.digest,
            dataset.official,
        )
        self.device = torch.device(device)
        self.mean = (images[:count].sum(dim=0).double() / count).float().to(device)
        self.padded_mean = pad(self.mean)
        self.train_images, self.train_labels = pad(images[:count]).to(device), labels[:count].to(device)
        self.held_out = count < available
        self.validation_images, self.validation_labels = images[count:].to(device), labels[count:].to(device)
        self.test_images = torch.from_numpy(dataset.test_images).to(device)
        self.test_labels = torch.from_numpy(dataset.test_labels).long().to(device)


@dataclass(frozen=True)
class Progress:
    """How far a run is: errors in percent, None before the first evaluation; rate in steps per second."""

    iteration: int
    iterations: int
    learning_rate: float
    training_error: float | None
    test_error: float | None
    steps_per_second: float


class Trainer:
    """One run, advanced a step at a time.

    ``curve`` has one entry per evaluation: iteration (steps taken), learning_rate (of the last step), training_loss
    and training_error (mean over the augmented batches since the evaluation before), test_error, and
    validation_error where images are held out; errors in percent, None where the loss was not finite.
    ``diverged`` is set at the evaluation that finds the training loss not finite; the run ends there.
    """

    def __init__(self, run: Run, data: DeviceData):
        if run.data != data.name:
            raise ValueError(f"the run needs {run.data}, but the data are {data.name}")
        self.run, self.recipe, self.data, self.device = run, run.recipe, data, data.device
        precision = run.recipe.precision
        self.precision = precision if precision != "auto" else ("bf16" if self.device.type == "cuda" else "fp32")
        self._autocast = {"bf16": torch.bfloat16, "fp32": None}[self.precision]
        options = {"num_classes": data.num_classes, **run.model_options}
        model = create_model(run.model, generator=seeded_generator(run.seed, "initialisation"), **options)
        self.model = model.to(self.device, memory_format=torch.channels_last).train()
        self.optimizer = make_optimizer(self.recipe, self.model)
        images = len(data.train_labels)
        self.sampler = Sampler(run.seed, images, self.recipe.batch_size, self.recipe.augment, self.device)
        self.threads = torch.get_num_threads()  # on a CPU, the order of sums and so the last bits depend on it
        self.iteration = 0
        self.warmup_ended_at: int | None = None
        self.curve: list[dict] = []
        self.diverged = False
        self._last_learning_rate = self.learning_rate
        self._images_since_evaluation = 0
        # Sums on the device, read only at evaluations: a step never waits for the host.
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self._wrong = torch.zeros((), dtype=torch.int64, device=self.device)
        self._warmup_wrong = torch.zeros((), dtype=torch.int64, device=self.device)

    @property
    def finished(self) -> bool:
        return self.diverged or self.iteration == self.recipe.iterations

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        return learning_rate_at(self.recipe, self.iteration, self.warmup_ended_at)

    def step(self) -> None:
        """Take one training step. The caller evaluates when :attr:`evaluation_due` says so, before the next step."""
        draws = self.sampler.batch(self.iteration)
        images = crop_and_flip(self.data.train_images, self.data.padded_mean, *draws)
        labels = self.data.train_labels[draws.index]
        self._last_learning_rate = self.learning_rate
        for group in self.optimizer.param_groups:
            group["lr"] = self._last_learning_rate
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, dtype=self._autocast, enabled=self._autocast is not None):
            logits = self.model(images)
        loss = F.cross_entropy(logits.float(), labels)
        loss.backward()
        self.optimizer.step()

        wrong = (logits.detach().argmax(dim=1) != labels).sum()
        self._loss_sum += loss.detach() * len(labels)
        self._wrong += wrong
        self._images_since_evaluation += len(labels)
        self.iteration += 1
        if self.recipe.warmup_learning_rate is not None and self.warmup_ended_at is None:
            self._watch_warmup(wrong)

    def _watch_warmup(self, wrong: torch.Tensor) -> None:
        """End the warm-up if the training error over the last whole window is low enough."""
        self._warmup_wrong += wrong
        if self.iteration % self.recipe.warmup_window == 0:
            error = 100 * self._warmup_wrong.item() / (self.recipe.warmup_window * self.recipe.batch_size)
            if error < self.recipe.warmup_until_error:
                self.warmup_ended_at = self.iteration
            self._warmup_wrong.zero_()

    @property
    def evaluation_due(self) -> bool:
        """Whether the recipe wants the network evaluated now, after the step just taken."""
        return self.recipe.evaluates_after(self.iteration)

    def evaluate(self) -> None:
        """Add a point to the curve."""
        loss = self._loss_sum.item() / self._images_since_evaluation
        self.diverged = not math.isfinite(loss)
        data, point = self.data, {"iteration": self.iteration, "learning_rate": self._last_learning_rate}
        point["training_loss"] = None if self.diverged else loss
        point["training_error"] = None if self.diverged else 100 * self._wrong.item() / self._images_since_evaluation
        if data.held_out:
            point["validation_error"] = self._error(data.validation_images, data.validation_labels)
        point["test_error"] = self._error(data.test_images, data.test_labels)
        self.curve.append(point)
        self._images_since_evaluation = 0
        self._loss_sum.zero_()
        self._wrong.zero_()

    def _error(self, images: torch.Tensor, labels: torch.Tensor) -> float | None:
        return None if self.diverged else top1_error(self.model, images, labels, self.data.mean, self._autocast)

    def state_dict(self) -> dict:
        """Everything that the rest of the run depends on, as tensors and plain values."""
        return {
            "run": self.run.identity,
            "data": self.data.digest,
            "precision": self.precision,
            "threads": self.threads,
            "iteration": self.iteration,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "warmup_ended_at": self.warmup_ended_at,
            "curve": self.curve,
            "diverged": self.diverged,
            "images_since_evaluation": self._images_since_evaluation,
            "sums": [self._loss_sum, self._wrong, self._warmup_wrong],
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from :meth:`state_dict`. Raises ValueError if it belongs to another run, data or precision."""
        for name, here in (("run", self.run.identity), ("data", self.data.digest), ("precision", self.precision)):
            if state[name] != here:
                raise ValueError(f"the checkpoint's {name} is {state[name]}, but this run's is {here}")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.iteration, self.warmup_ended_at = state["iteration"], state["warmup_ended_at"]
        self.threads = state["threads"]
        self.curve, self.diverged = list(state["curve"]), state["diverged"]
        self._images_since_evaluation = state["images_since_evaluation"]
        for own, saved in zip((self._loss_sum, self._wrong, self._warmup_wrong), state["sums"]):
            own.copy_(saved)

    def weights_digest(self) -> str:
        """SHA-256 of all weights and buffers: equal if and only if two networks are equal bit for bit."""
        digest = hashlib.sha256()
        for name, tensor in self.model.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().numpy())
        return digest.hexdigest()


def train(
    trainer: Trainer,
    folder: Path,
    checkpoint_seconds: float = 60.0,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    stop_requested: Callable[[], bool] = lambda: False,
) -> dict:
    """Train to the end, from the newest checkpoint in ``folder`` if there is one.

    A checkpoint is written about every ``checkpoint_seconds``, ``on_progress`` called about once a second. Where
    ``stop_requested`` turns true, a checkpoint is written and Interrupted raised. Returns the time it took, all
    starts together, less what a killed process did after its last checkpoint: wall_seconds, and train_seconds
    without evaluations and checkpoints. OSError while a checkpoint is written ends the training.
    """
    timing = {"wall_seconds": 0.0, "train_seconds": 0.0}
    if (state := checkpoint.load_latest(folder, trainer.device)) is not None:
        trainer.load_state_dict(state)
        timing = dict(state["timing"])
    with _threads(trainer.threads):
        return _train(trainer, folder, timing, checkpoint_seconds, on_progress, stop_requested)


@contextmanager
def _threads(count: int):
    """Compute with so many threads: a run goes on with as many as it was begun with."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(trainer: Trainer, folder: Path, timing: dict, checkpoint_seconds, on_progress, stop_requested) -> dict:
    """The loop of :func:`train`."""
    started = last_checkpoint = last_progress = segment = synchronized_time(trainer.device)
    first_iteration, wall_before = trainer.iteration, timing["wall_seconds"]
    while not trainer.finished:
        trainer.step()
        if evaluated := trainer.evaluation_due:
            timing["train_seconds"] += synchronized_time(trainer.device) - segment
            trainer.evaluate()
            segment = time.perf_counter()
        now = time.perf_counter()
        if evaluated or now - last_progress >= 1:
            last_progress = now
            on_progress(_progress(trainer, (trainer.iteration - first_iteration) / (now - started)))
        stop = stop_requested() and not trainer.finished
        if stop or (now - last_checkpoint >= checkpoint_seconds and not trainer.finished):
            last_checkpoint = synchronized_time(trainer.device)
            timing["train_seconds"] += last_checkpoint - segment
            timing["wall_seconds"] = wall_before + last_checkpoint - started
            checkpoint.save(folder, {**trainer.state_dict(), "timing": timing})
            segment = time.perf_counter()
        if stop:
            raise Interrupted(f"{trainer.run} stopped at iteration {trainer.iteration}; it can be resumed")
    timing["wall_seconds"] = wall_before + synchronized_time(trainer.device) - started
    return timing


def _progress(trainer: Trainer, steps_per_second: float) -> Progress:
    last = trainer.curve[-1] if trainer.curve else {}
    return Progress(
        trainer.iteration,
        trainer.recipe.iterations,
        trainer.learning_rate,
        last.get("training_error"),
        last.get("test_error"),
        steps_per_second,
    )
