"""One run on one device, a step at a time: what it is made of, and how it is put down and taken up again."""

import copy
import hashlib
import math
import time
from contextlib import AbstractContextManager, ExitStack, nullcontext

import torch
import torch.nn.functional as F

from resnet.data import ImageDataset
from resnet.data.augment import crop_and_flip, pad
from resnet.data.sampling import Sampler, seeded_generator
from resnet.distributed import ALONE, Group, synchronize_batch_norm
from resnet.evaluate import count_wrong
from resnet.models import create_model
from resnet.recipe import learning_rate_at, make_optimizer
from resnet.run import Run

_WARM_UP_STEPS = 3  # before a CUDA graph is recorded: libraries choose their kernels and memory in the first steps


def find_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" is the current CUDA device if there is one, else the CPU. Raises ValueError."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    usable = ["cpu", *(f"cuda:{number}" for number in range(count))]
    if name in ("auto", "cuda") and count:
        return torch.device("cuda", torch.cuda.current_device())
    if name == "auto":
        return torch.device("cpu")
    if name in usable:
        return torch.device(name)
    reason = "" if count else f" (no CUDA GPU: {why_no_cuda()})"
    raise ValueError(f"there is no device {name!r}; the devices here are: {', '.join(usable)}{reason}")


def why_no_cuda() -> str:
    """Why PyTorch finds no CUDA GPU, in its own words where it has some."""
    if torch.version.cuda is None:
        return "this PyTorch was built without CUDA"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).split(". ")[0].strip()
    return "none is visible" if torch.cuda.device_count() == 0 else ""


def resolve_precision(precision: str, device: torch.device) -> str:
    """The precision that "auto" is on this device: bf16 where a GPU has it, else fp32. Raises ValueError."""
    has_bf16 = device.type == "cpu" or torch.cuda.get_device_capability(device) >= (8, 0)  # Ampere
    if precision == "bf16" and not has_bf16:
        name = torch.cuda.get_device_name(device)
        raise ValueError(f"{name} has no bf16 arithmetic; train with precision fp32, or auto, which then is fp32")
    if precision == "auto":
        return "bf16" if device.type == "cuda" and has_bf16 else "fp32"
    return precision


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


def _make_stream(device: torch.device) -> "torch.cuda.Stream | None":
    """A stream of a run's own; a CPU has none."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None


class Trainer:
    """One run, advanced a step at a time.

    ``curve`` has one entry per evaluation: iteration (steps taken), learning_rate (of the last step), training_loss
    and training_error (mean over the augmented batches since the evaluation before), test_error, and
    validation_error where images are held out; errors in percent, None where the loss was not finite.
    ``diverged`` is set at the evaluation that finds the training loss not finite; the run ends there.

    On a CUDA device the whole step is recorded as a CUDA graph and replayed, on a stream of the run's own: a step
    costs the host one launch, and the runs of a device share it without waiting for one another. :meth:`step` and
    :meth:`begin_evaluation` only give the device work; :meth:`mark` and :meth:`reached` tell when it is done.
    Kernels are deterministic ones, and fp32 is not TF32.

    In a ``group`` of several processes every one has a trainer of the same run and calls the same methods; each works
    on its part of every batch, BN statistics are the whole batch's, and steps are not recorded.
    """

    def __init__(self, run: Run, data: DeviceData, group: Group = ALONE):
        if run.data != data.name:
            raise ValueError(f"the run needs {run.data}, but the data are {data.name}")
        self.run, self.recipe, self.data, self.device = run, run.recipe, data, data.device
        self.precision = resolve_precision(run.recipe.precision, self.device)
        self._autocast = {"bf16": torch.bfloat16, "fp32": None}[self.precision]
        options = {"num_classes": data.num_classes, **run.model_options}
        model = create_model(run.model, generator=seeded_generator(run.seed, "initialisation"), **options)
        model = model.to(self.device, memory_format=torch.channels_last).train()
        self.group, self._part = group, group.share(self.recipe.batch_size)
        self.model = synchronize_batch_norm(model, group)
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
        self._counts: torch.Tensor | None = None  # of the evaluation that was begun
        # A graph keeps the numbers it was recorded with, so there the learning rate is one more tensor.
        self._stream = _make_stream(self.device)
        self._learning_rate = torch.zeros((), device=self.device) if self._stream else None
        self._filled: float | None = None  # what it was last set to
        self._graph: torch.cuda.CUDAGraph | None = None
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self.device))

    @property
    def finished(self) -> bool:
        return self.diverged or self.iteration == self.recipe.iterations

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        return learning_rate_at(self.recipe, self.iteration, self.warmup_ended_at)

    def step(self) -> None:
        """Take one training step. The caller evaluates when :attr:`evaluation_due` says so, before the next step."""
        with self._on_stream():
            self.sampler.load(self.iteration)
            self._set_learning_rate(self.learning_rate)
            if self._stream is None or self.group.size > 1:
                self._compute()
            else:
                self._graph = self._graph or self._record()
                self._graph.replay()
        self.iteration += 1
        self._images_since_evaluation += self.recipe.batch_size
        warming_up = self.recipe.warmup_learning_rate is not None and self.warmup_ended_at is None
        if warming_up and self.iteration % self.recipe.warmup_window == 0:
            self._look_at_warmup()

    def _compute(self) -> None:
        """The work of one step: for the device alone, the same operations on the same memory every time."""
        draws = self.sampler.take().part(self._part)
        images = crop_and_flip(self.data.train_images, self.data.padded_mean, *draws)
        labels = self.data.train_labels[draws.index]
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, dtype=self._autocast, enabled=self._autocast is not None):
            logits = self.model(images)
        loss = F.cross_entropy(logits.float(), labels)
        share = len(labels) / self.recipe.batch_size
        (loss if share == 1 else loss * share).backward()
        self.group.sum_gradients(self.model)
        self.optimizer.step()

        wrong = (logits.detach().argmax(dim=1) != labels).sum()
        self._loss_sum += loss.detach() * len(labels)
        self._wrong += wrong
        if self.recipe.warmup_learning_rate is not None:
            self._warmup_wrong += wrong

    def _set_learning_rate(self, value: float) -> None:
        self._last_learning_rate = value
        if self._learning_rate is not None and value != self._filled:
            self._learning_rate.fill_(value)
            self._filled = value
        for group in self.optimizer.param_groups:
            group["lr"] = value if self._learning_rate is None else self._learning_rate

    def _record(self) -> "torch.cuda.CUDAGraph":
        """The step as a CUDA graph; the steps taken to prepare it are taken back."""
        before = copy.deepcopy(self.state_dict())
        for _ in range(_WARM_UP_STEPS):
            self._compute()
        self.load_state_dict(before)
        self._set_learning_rate(self.learning_rate)
        self.optimizer.zero_grad()  # so that the gradients belong to the graph
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            self._compute()
        return graph

    def _look_at_warmup(self) -> None:
        """End the warm-up if the training error over the last whole window is low enough."""
        with self._on_stream():
            self.group.sum_(self._warmup_wrong)
            wrong = self._warmup_wrong.item()
            self._warmup_wrong.zero_()
        if 100 * wrong / (self.recipe.warmup_window * self.recipe.batch_size) < self.recipe.warmup_until_error:
            self.warmup_ended_at = self.iteration

    def mark(self) -> "torch.cuda.Event | None":
        """A point behind all work that the device was given for this run so far."""
        return None if self._stream is None else self._stream.record_event()

    def reached(self, mark: "torch.cuda.Event | None") -> bool:
        """Whether the device has come as far as a :meth:`mark`; a CPU always has."""
        return mark is None or mark.query()

    def _on_stream(self) -> AbstractContextManager:
        if self._stream is None:
            return nullcontext()
        stack = ExitStack()
        stack.enter_context(torch.cuda.stream(self._stream))
        stack.enter_context(torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False))
        return stack

    @property
    def evaluation_due(self) -> bool:
        """Whether the recipe wants the network evaluated now, after the step just taken."""
        return self.recipe.evaluates_after(self.iteration)

    def evaluate(self) -> None:
        """Add a point to the curve."""
        self.begin_evaluation()
        self.finish_evaluation()

    def begin_evaluation(self) -> None:
        """Give the device the work of an evaluation; no step may follow before :meth:`finish_evaluation`."""
        data = self.data
        parts = [(data.test_images, data.test_labels)]
        parts += [(data.validation_images, data.validation_labels)] if data.held_out else []
        with self._on_stream():
            wrong = [self._count_wrong(*part) for part in parts]
            counts = torch.stack([count.double() for count in (self._loss_sum, self._wrong, *wrong)])
            self.group.sum_(counts)
            self._counts = counts.to("cpu", non_blocking=True)
            self._loss_sum.zero_()
            self._wrong.zero_()

    def _count_wrong(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """This process's part of the wrong answers."""
        part = self.group.share(len(labels))
        return count_wrong(self.model, images[part], labels[part], self.data.mean, self._autocast)

    def finish_evaluation(self) -> None:
        """Add the point of the evaluation that was begun to the curve."""
        self._wait()
        loss_sum, wrong, test_wrong, *validation_wrong = self._counts.tolist()
        loss = loss_sum / self._images_since_evaluation
        self.diverged = not math.isfinite(loss)
        point = {
            "iteration": self.iteration,
            "learning_rate": self._last_learning_rate,
            "training_loss": loss,
            "training_error": 100 * wrong / self._images_since_evaluation,
        }
        if validation_wrong:
            point["validation_error"] = 100 * validation_wrong[0] / len(self.data.validation_labels)
        point["test_error"] = 100 * test_wrong / len(self.data.test_labels)
        measured = ("iteration", "learning_rate") if self.diverged else point
        self.curve.append({name: value if name in measured else None for name, value in point.items()})
        self._images_since_evaluation, self._counts = 0, None

    def _wait(self) -> None:
        """Until the device has done all work of this run."""
        if self._stream is not None:
            self._stream.synchronize()

    def state_dict(self) -> dict:
        """Everything that the rest of the run depends on, as tensors and plain values; the same in all processes."""
        self._wait()
        sums = [self._loss_sum, self._wrong, self._warmup_wrong]
        if self.group.size > 1:
            sums = [part.clone() for part in sums]
            self.group.sum_(*sums)
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
            "sums": sums,
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from :meth:`state_dict`. Raises ValueError if it belongs to another run, data or precision."""
        for name, here in (("run", self.run.identity), ("data", self.data.digest), ("precision", self.precision)):
            if state[name] != here:
                raise ValueError(f"the checkpoint's {name} is {state[name]}, but this run's is {here}")
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with self._on_stream():
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            for own, saved in zip((self._loss_sum, self._wrong, self._warmup_wrong), state["sums"]):
                own.copy_(saved if self.group.rank == 0 else torch.zeros_like(saved))
            self.iteration, self.warmup_ended_at = state["iteration"], state["warmup_ended_at"]
            self.sampler.seek(self.iteration)
        self.threads = state["threads"]
        self.curve, self.diverged = list(state["curve"]), state["diverged"]
        self._images_since_evaluation = state["images_since_evaluation"]
        self._graph = None  # it works on the optimizer's old state

    def weights_digest(self) -> str:
        """SHA-256 of all weights and buffers: equal if and only if two networks are equal bit for bit."""
        self._wait()
        digest = hashlib.sha256()
        for name, tensor in self.model.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().numpy())
        return digest.hexdigest()
