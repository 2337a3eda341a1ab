"""Trainer: one run on one device, advanced step by step, with exact saving and resuming of its state."""

import copy
import math
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

import torch
from torch import Tensor, nn

from resnet.checkpoint import MismatchError, digest_of_weights
from resnet.data import Data
from resnet.data.sampling import seeded_generator
from resnet.device import autocast, autocast_dtype, exact_kernels, no_garbage_collection, refuse_to_wait
from resnet.distributed import ALONE, Group, distribute
from resnet.draws import Draws, check_network
from resnet.evaluate import count_wrong, count_wrong_in
from resnet.hooks import Hooks, build
from resnet.kernels import LIBRARY, choose
from resnet.losses import cross_entropy, distillation_loss, mix, mixing_weight, partners
from resnet.low_precision import WeightCopies
from resnet.models.net import Net
from resnet.normalization import BatchCounters, RunningEstimates, synchronize_batch_norm
from resnet.recipe import Recipe, learning_rate_at, make_optimizer
from resnet.run import Run
from resnet.stepwise import Stepwise
from resnet.transfer import take_over

_WARM_UP_STEPS = 3  # before a CUDA graph is recorded: libraries choose their kernels and memory in the first steps

_idle_streams: dict[torch.device, list] = {}  # streams of deleted trainers


def _make_stream(device: torch.device) -> "torch.cuda.Stream | None":
    """Return a CUDA stream for one run; None on a CPU.

    PyTorch has 32 streams per device and hands them out in turn, in use or not, so idle ones are reused first.
    """
    if device.type != "cuda":
        return None
    idle = _idle_streams.setdefault(device, [])
    return idle.pop() if idle else torch.cuda.Stream(device)


def _release_stream(stream: "torch.cuda.Stream", device: torch.device) -> None:
    """Make a deleted trainer's stream available again, once the device has finished its work."""
    with suppress(RuntimeError):  # the device is lost
        stream.synchronize()
    _idle_streams.setdefault(device, []).append(stream)


# Messages of CUDA's libraries, and of CUDA itself during graph capture, when memory runs out.
_NO_MEMORY = ("out of memory", "ALLOC_FAILED", "unable to find an engine")


@contextmanager
def _reraise_out_of_memory() -> Iterator[None]:
    """Re-raise every CUDA out-of-memory error as torch.OutOfMemoryError."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if _is_out_of_memory(error):
            raise torch.OutOfMemoryError(str(error)) from error
        raise


def _is_out_of_memory(error: RuntimeError) -> bool:
    during = isinstance(error.__context__, torch.OutOfMemoryError)
    return during or isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in _NO_MEMORY)


class Trainer(Stepwise):
    """One run, advanced step by step.

    ``curve`` has one entry per evaluation: iteration (steps taken), learning_rate (of the last step), training_loss
    and training_error (means over the augmented batches since the previous evaluation), test_error, test_top5_error if
    the data have it, validation_error if there is a validation split, and mean_losses (a list) if the recipe has a
    ``loss_interval``. Errors are in percent, and None if the loss was not finite. A mixed image's training error is the
    mean of the errors for its two labels, with the mixing weights. ``diverged`` is set at the evaluation that finds a
    training loss that is not finite; the run ends there.

    On a CUDA device the whole step is recorded as a CUDA graph and replayed on the run's own stream: a step costs the
    host one launch, and the runs on a device don't wait for one another. :meth:`step` and :meth:`begin_evaluation`
    return before the device has done the work; :meth:`mark` and :meth:`reached` tell when it is done. Kernels are
    deterministic, and fp32 does not use TF32.

    In a ``group`` of several processes every process has a trainer of the same run and calls the same methods. Each
    computes its part of every batch. BN statistics are taken over the whole batch, or over groups of
    ``batch_norm_size`` images if the recipe sets it. Steps are not recorded as CUDA graphs.

    ``teacher`` and ``pretrained``: final state dicts of ``run.teacher`` and ``run.pretrained``, for a run that has
    them. ``precision``: precision to use if the recipe's is "auto"; by default the device's choice.

    The recipe's plugins are called at their places (:mod:`resnet.hooks`); ``draws`` are the run's own random numbers.
    If a step can't be recorded because of a plugin, a warning names it, and the steps are computed without a graph.

    Raises PluginError for a plugin that can't be used, DrawsError for a network that draws random numbers other than
    the run's own (:mod:`resnet.draws`), and ValueError for data other than the run's, for missing or superfluous
    weights, for a precision or kernels that the device does not support, and for a batch that can't be split over the
    ``group``.
    """

    def __init__(
        self,
        run: Run,
        data: Data,
        group: Group = ALONE,
        teacher: dict | None = None,
        pretrained: dict | None = None,
        precision: str | None = None,
    ):
        super().__init__(run, data, group, precision)
        if run.arrays is not None and run.arrays.sha256 != data.digest:
            raise ValueError(f"the run needs {run.data} with the SHA-256 {run.arrays.sha256}, but the data have "
                             f"{data.digest}")  # fmt: skip
        given = {"teacher": teacher, "pretrained": pretrained}
        needed = {role: weights for role, weights in given.items() if weights is not None}
        if needed.keys() != run.needs.keys():
            raise ValueError("teacher and pretrained weights must be given if and only if the run has a teacher or a "
                             "pretrained run")  # fmt: skip
        self.hooks = Hooks(self.recipe)
        model = self._create_model(run, seeded_generator(run.seed, "initialisation"), self.hooks).train()
        self.draws = Draws(run.seed, self.device)
        self._drawing = self.draws.give_to(model) or bool(self.hooks)
        if pretrained is not None:
            take_over(model, pretrained)
        self._stream = _make_stream(self.device)
        if self._stream is not None:
            weakref.finalize(self, _release_stream, self._stream, self.device)
            self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with self.on_stream(), exact_kernels():
            check_network(model, self._blank_images())
        grouped = self.recipe.batch_norm_size is not None
        groups = _groups(self.recipe, group)
        self._firsts = [rows.start for rows in groups]  # the number of each group's first image
        self.model = model if grouped else synchronize_batch_norm(model, group)
        self._estimates = RunningEstimates(self.model, self.recipe, group) if grouped else None
        self._counters = BatchCounters(self.model)
        with self.on_stream():  # DistributedDataParallel sums gradients on the stream that it was created on
            self._parallel = distribute(self.model, group)
        self._compute_in(self.precision)
        self._teacher = None
        if teacher is not None:
            self._teacher = self._create_model(run.teacher).eval().requires_grad_(False)
            self._teacher.load_state_dict(teacher)
        self._use_kernels(self.recipe.kernels)
        self.needed_digests = {role: digest_of_weights(weights) for role, weights in needed.items()}
        self.optimizer = make_optimizer(self.recipe, self.model)
        self.batches = data.batches(run.seed, self.recipe, groups)
        self.warmup_ended_at: int | None = None
        self._last_learning_rate = self.learning_rate
        self._images_since_evaluation = 0
        # Sums on the device, read only at evaluations, so that a step never waits for the host.
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self._wrong = torch.zeros((), dtype=torch.float64, device=self.device)
        self._warmup_wrong = torch.zeros((), dtype=torch.float64, device=self.device)
        # The sum of the losses and the number of images at the end of each loss interval since the last evaluation.
        self._loss_marks: list[Tensor] = []
        self._images_at_marks: list[int] = []
        self._counts: torch.Tensor | None = None  # of the evaluation in progress
        # A graph keeps the numbers it was recorded with, so with a graph the learning rate is a tensor.
        self._learning_rate = torch.zeros((), device=self.device) if self._stream else None
        self._filled: float | None = None  # its last value
        self._mixing_weight = torch.ones((), device=self.device)
        self._prepared = False
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}  # by the number of images
        self._unrecordable = False  # because of a plugin
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self.device))

    def _create_model(
        self, run: Run, generator: torch.Generator | None = None, hooks: Hooks | None = None
    ) -> nn.Module:
        model = build(run, self.data.num_classes, generator, hooks)
        return model.to(self.device, memory_format=torch.channels_last)

    def _blank_images(self) -> Tensor:
        """Make two images of the size that the network is trained on."""
        size = self.recipe.image_size
        height, width, channels = self.data.mean.shape if self.recipe.crop == "pad" else (size, size, 3)
        return torch.zeros(2, channels, height, width, device=self.device)

    def _compute_in(self, precision: str) -> None:
        """Set the precision, and create the weight copies and the loss scaler that depend on it."""
        self.precision, dtype = precision, autocast_dtype(precision)
        single = self._estimates is None and self.group.size == 1  # one backward pass a step, in one process
        self._copies = WeightCopies(self.model, dtype) if dtype is not None and single else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")

    def _use_kernels(self, wanted: str) -> None:
        """Select the kernels to compute with from now on. Raises ValueError."""
        self.kernels = choose(wanted, self.model, self.device, self.precision, self.group.size)
        for net in (self.model, self._teacher):
            if isinstance(net, Net):
                net.kernels = self.kernels

    @property
    def recordable(self) -> bool:
        """True if a CUDA graph can keep the step: on a GPU, in one process, with plugins that can be recorded."""
        return self._stream is not None and self.group.size == 1 and not self._unrecordable

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return learning_rate_at(self.recipe, self.iteration, self.warmup_ended_at)

    def step(self) -> None:
        """Take one training step. If :attr:`evaluation_due` is then true, the caller evaluates before the next step."""
        with self.on_stream():
            self.batches.load(self.iteration)
            if self.recipe.momentum_at_drops != "scaled":
                self._adjust_momentum()
            self._set_learning_rate(self.learning_rate)
            if self.recipe.mixup:
                self._mixing_weight.fill_(mixing_weight(self.run.seed, self.iteration, self.recipe.mixup))
            if self._drawing:
                self.draws.seek(self.iteration)
            size = self.batches.size(self.iteration)
            if self.group.size > 1 and not self._prepared:
                self._prepare(1)
            if self.recordable and not self.graphs:
                self.graphs = self.record()
            if self.graphs:
                self.graphs[size].replay()
            else:
                self.compute(size)
        self.iteration += 1
        self._images_since_evaluation += size
        if self.recipe.ends_loss_interval(self.iteration):
            with self.on_stream():
                self._loss_marks.append(self._loss_sum.clone())
            self._images_at_marks.append(self._images_since_evaluation)
        if self.hooks:
            self.draws.begin(0)  # the same draws in all processes, and whether or not a graph was replayed
            with self.on_stream(), exact_kernels():
                self.hooks.after_step(self)
        warming_up = self.recipe.warmup_learning_rate is not None and self.warmup_ended_at is None
        if warming_up and self.iteration % self.recipe.warmup_window == 0:
            self._check_warmup()

    def compute(self, size: int) -> None:
        """Compute a step on ``size`` images, on the device only and with the same operations on the same memory."""
        self.optimizer.zero_grad()
        if self._copies is not None:
            self._copies.refresh()
        if self._estimates is not None:
            self._estimates.begin_batch()
        with exact_kernels(), self._counters.one_batch():  # a graph keeps the kernels that it was recorded with
            for (images, labels), first in zip(self.batches.take(size), self._firsts):
                self.draws.begin(first)
                last = first == self._firsts[-1]  # the gradients are summed over the processes in its backward pass
                with nullcontext() if last or self._parallel is self.model else self._parallel.no_sync():
                    self.accumulate(images, labels, len(labels) / size)
                if self._estimates is not None:
                    self._estimates.end_group()
        if self._estimates is not None:
            self._estimates.end_batch()
        if self._copies is not None:
            self._copies.move_gradients()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def accumulate(self, images: Tensor, labels: Tensor, share: float) -> None:
        """Accumulate gradients, losses and errors of these images, which are a ``share`` of the batch."""
        images, labels = self.hooks.batch(images, labels, self.draws)
        recipe, weight = self.recipe, self._mixing_weight if self.recipe.mixup else None
        if weight is not None:
            images = mix(images, weight, recipe.mixup_partner)
            other_labels = labels[partners(len(labels), self.device, recipe.mixup_partner)]
        with autocast(self.device, self.precision):
            with self.hooks.in_network():
                logits = (self._copies or self._parallel)(images)
            with torch.no_grad():
                teacher_logits = None if self._teacher is None else self._teacher(images)
        loss = self._loss(logits, labels)
        if weight is not None:
            loss = weight * loss + (1 - weight) * self._loss(logits, other_labels)
        if teacher_logits is not None:
            hard, soft = (1, 1) if recipe.hard_weight is None else (recipe.hard_weight, 1 - recipe.hard_weight)
            loss = hard * loss + soft * distillation_loss(logits, teacher_logits, recipe.temperature)
        self.scaler.scale(loss if share == 1 else loss * share).backward()

        answers = logits.detach().argmax(dim=1)
        wrong = count_errors(answers, labels)
        if weight is not None:
            wrong = weight * wrong + (1 - weight) * count_errors(answers, other_labels)
        self._loss_sum += loss.detach() * len(labels)
        self._wrong += wrong
        if recipe.warmup_learning_rate is not None:
            self._warmup_wrong += wrong

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the mean loss, by a plugin if one has a loss."""
        own = self.hooks.loss(logits, targets)
        if own is not None:
            return own
        return cross_entropy(logits, targets, self.recipe.label_smoothing, self.recipe.smoothed_over)

    def _set_learning_rate(self, value: float) -> None:
        self._last_learning_rate = value
        if self._learning_rate is not None and value != self._filled:
            self._learning_rate.fill_(value)
            self._filled = value
        for group in self.optimizer.param_groups:
            group["lr"] = value if self._learning_rate is None else self._learning_rate

    def _adjust_momentum(self) -> None:
        """Rescale PyTorch's momentum buffers for ``momentum_at_drops`` if the learning rate changes."""
        before = learning_rate_at(self.recipe, max(0, self.iteration - 1), self.warmup_ended_at)
        if before != self.learning_rate:
            factor = before / self.learning_rate if self.recipe.momentum_at_drops == "kept" else 0.0
            buffers = [state["momentum_buffer"] for state in self.optimizer.state.values()]
            torch._foreach_mul_(buffers, factor)

    def _prepare(self, steps: int) -> None:
        """Run warm-up steps, then restore the state, so that kernel choices are fixed before recording."""
        before = copy.deepcopy(self.state_dict())
        with self._raise_if_memory_was_short():
            for size in self.batches.sizes:
                for _ in range(steps):
                    self.compute(size)
            if self.recordable and self.hooks:
                self._rehearse()
        self.load_state_dict(before)
        self._set_learning_rate(self.learning_rate)
        self._prepared = True

    def record(self) -> dict[int, "torch.cuda.CUDAGraph"]:
        """Record the step as CUDA graphs, one for each batch size; return none if a plugin can't be recorded."""
        self._prepare(_WARM_UP_STEPS)
        if not self.hooks:
            return self.make_graphs()
        before = copy.deepcopy(self.state_dict())
        try:
            return self.make_graphs() if self.recordable else {}
        except RuntimeError as error:
            self._go_without_graphs(error)
        self.load_state_dict(before)
        self._set_learning_rate(self.learning_rate)
        return {}

    def _rehearse(self) -> None:
        """Compute a step that must not wait for the device, because a failed recording can break CUDA's allocator."""
        try:
            with refuse_to_wait(self.device):
                self.compute(self.batches.sizes[0])
        except RuntimeError as error:
            self._go_without_graphs(error)

    def _go_without_graphs(self, error: RuntimeError) -> None:
        """Warn that a plugin can't be recorded. Raises the error again if it is not a plugin's, or of the memory."""
        if _is_out_of_memory(error) or not (name := self.hooks.running):
            raise error
        warnings.warn(f"{self.run}: {name} can't be recorded in a CUDA graph, because it reads a value back from the "
                      f"device, for example; the run goes on without one, more slowly ({error})",
                      stacklevel=2)  # fmt: skip
        self._unrecordable = True

    def make_graphs(self) -> dict[int, "torch.cuda.CUDAGraph"]:
        """Record :meth:`compute` once for each batch size."""
        graphs = {}
        for size in self.batches.sizes:
            self.optimizer.zero_grad()  # so that the gradients are allocated in the graph's memory
            graphs[size] = torch.cuda.CUDAGraph()
            # Collecting a deleted trainer would synchronize its stream, which breaks the recording.
            recording = torch.cuda.graph(graphs[size], stream=self._stream)
            with self._raise_if_memory_was_short(), no_garbage_collection(), recording:
                self.compute(size)
        return graphs

    @contextmanager
    def _raise_if_memory_was_short(self) -> Iterator[None]:
        """Raise torch.OutOfMemoryError after any failed allocation inside, even one that was not reported.

        If its workspace does not fit, cuDNN silently uses another engine, whose results differ in the last bits.
        """
        before = self._count_failed_allocations()
        yield
        if self._count_failed_allocations() > before:
            raise torch.OutOfMemoryError("the device has too little memory for cuDNN's usual engine")

    def _count_failed_allocations(self) -> int:
        return 0 if self._stream is None else torch.cuda.memory_stats(self.device)["num_ooms"]

    def _check_warmup(self) -> None:
        """End the warm-up if the training error over the last complete window is low enough."""
        with self.on_stream():
            self.group.sum_(self._warmup_wrong)
            wrong = self._warmup_wrong.item()
            self._warmup_wrong.zero_()
        if 100 * wrong / (self.recipe.warmup_window * self.recipe.batch_size) < self.recipe.warmup_until_error:
            self.warmup_ended_at = self.iteration

    def mark(self) -> "torch.cuda.Event | None":
        """Record an event after all work queued for this run so far; return None on a CPU."""
        return None if self._stream is None else self._stream.record_event()

    @contextmanager
    def on_stream(self) -> Iterator[None]:
        """Queue the work inside on the trainer's own stream; on a CPU this does nothing."""
        if self._stream is None:
            yield
            return
        with _reraise_out_of_memory(), torch.cuda.stream(self._stream):
            yield

    def begin_evaluation(self) -> None:
        """Queue an evaluation on the device; :meth:`finish_evaluation` must follow before the next step."""
        with self.on_stream(), exact_kernels():
            if self.recipe.statistics_batches is not None and self.iteration == self.recipe.iterations:
                self._recompute_statistics()
            model = self.evaluated()
            wrong = [self._count_wrong(which, model) for which in self.data.test_images]
            counts = torch.cat([torch.stack([self._loss_sum, self._wrong, *self._loss_marks]), *wrong])
            self.group.sum_(counts)
            self._counts = counts.to("cpu", non_blocking=True)
            self._loss_sum.zero_()
            self._wrong.zero_()

    def evaluated(self) -> nn.Module:
        """Return the network that is tested, whose weights are the run's result: a plugin's, or the trained one."""
        return self.hooks.evaluate_with(self.model)

    @torch.no_grad()
    def _recompute_statistics(self) -> None:
        """Replace BN's running statistics by means over the next ``statistics_batches`` training batches."""
        layers = [m for m in self.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        momenta, seen = [layer.momentum for layer in layers], 0
        for number in range(self.recipe.statistics_batches):
            self.batches.load(self.iteration + number)
            self.draws.seek(self.iteration + number)
            batch = self.batches.take(self.batches.size(self.iteration + number))
            for (images, _), first in zip(batch, self._firsts):
                self.draws.begin(first)
                seen += 1
                for layer in layers:
                    layer.momentum = 1 / seen  # weight of the new batch in the mean
                with autocast(self.device, self.precision):
                    self.model(images)
        for layer, momentum in zip(layers, momenta):
            layer.momentum = momentum

    def _count_wrong(self, which: str, model: nn.Module) -> Tensor:
        """Count the errors on this process's part of the images to test on."""
        part = self.group.share(self.data.test_images[which])
        batches = self.data.tests(which, part, self.recipe)
        return count_wrong(model, batches, self.precision, self.data.top5).double()

    def finish_evaluation(self) -> None:
        """Wait for the evaluation in progress and add its entry to ``curve``."""
        self._wait()
        loss_sum, wrong, *rest = self._counts.tolist()
        loss_marks, test_wrong = rest[: len(self._loss_marks)], rest[len(self._loss_marks) :]
        loss = loss_sum / self._images_since_evaluation
        self.diverged = not math.isfinite(loss)
        point = {
            "iteration": self.iteration,
            "learning_rate": self._last_learning_rate,
            "training_loss": loss,
            "training_error": 100 * wrong / self._images_since_evaluation,
        }
        names = [f"{which}{kind}" for which in self.data.test_images for kind in self._error_kinds]
        if self.recipe.loss_interval is not None:
            point["mean_losses"] = _means_between(loss_marks, self._images_at_marks)
        images = [count for count in self.data.test_images.values() for _ in self._error_kinds]
        point |= {name: 100 * count / of for name, count, of in zip(names, test_wrong, images)}
        measured = ("iteration", "learning_rate") if self.diverged else point
        self.curve.append({name: value if name in measured else None for name, value in point.items()})
        self._images_since_evaluation, self._counts = 0, None
        self._loss_marks, self._images_at_marks = [], []

    @property
    def _error_kinds(self) -> tuple[str, ...]:
        return ("_error", "_top5_error") if self.data.top5 else ("_error",)

    def final_tests(self) -> dict[str, dict[str, float]]:
        """Run the recipe's additional tests; return test_error and test_top5_error of each, in percent."""
        errors, count = {}, self.data.test_images["test"]
        for kind in self.recipe.tests:
            with self.on_stream(), exact_kernels():
                part = self.group.share(count)
                wrong = count_wrong_in(kind, self.evaluated(), self.data, self.recipe, part, self.precision)
                self.group.sum_(wrong)
                wrong = wrong.tolist()  # waits for the run's stream, which must still be the current one
            top1, top5 = (100 * number / count for number in wrong)
            errors[kind] = {"test_error": top1, "test_top5_error": top5}
        return errors

    def _wait(self) -> None:
        """Wait until the device has done all work of this run."""
        if self._stream is not None:
            self._stream.synchronize()

    def state_dict(self) -> dict:
        """Return everything that the rest of the run depends on: tensors and plain values, equal in all processes."""
        self._wait()
        sums = [part.clone() for part in (self._loss_sum, self._wrong, self._warmup_wrong, *self._loss_marks)]
        self.group.sum_(*sums)
        return super().state_dict() | {
            "kernels": self.kernels,
            "scaler": self.scaler.state_dict(),
            "warmup_ended_at": self.warmup_ended_at,
            "images_since_evaluation": self._images_since_evaluation,
            "images_at_marks": self._images_at_marks,
            "sums": sums,
            **({"plugins": self.hooks.state_dict()} if self.hooks else {}),
        }

    def load_state_dict(self, state: dict) -> None:
        """Resume from a :meth:`state_dict`, with its kernels and, if the recipe's precision is "auto", its precision.

        Raises MismatchError, a ValueError, if the state belongs to another run, other data, or other teacher or
        pretrained weights, or if its precision or kernels can't be used by this run here.
        """
        if (precision := self.precision_of(state)) != self.precision:
            self._compute_in(precision)
        if (kernels := state.get("kernels", LIBRARY)) != self.kernels:
            try:
                self._use_kernels(kernels)
            except ValueError as error:
                raise MismatchError("kernels", str(error)) from error
            if self.kernels != kernels:
                text = f"the checkpoint was made with {kernels} kernels, which this run can't use here"
                raise MismatchError("kernels", text)
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with self.on_stream():
            super().load_state_dict(state)
            self.scaler.load_state_dict(state["scaler"])
            sums = [saved if self.group.rank == 0 else torch.zeros_like(saved) for saved in state["sums"]]
            for own, saved in zip((self._loss_sum, self._wrong, self._warmup_wrong), sums):
                own.copy_(saved)
            self._loss_marks = [saved.to(self.device, copy=True) for saved in sums[3:]]
            self.warmup_ended_at = state["warmup_ended_at"]
            self.batches.seek(self.iteration)
            if self.hooks:
                self.hooks.load_state_dict(state["plugins"])
        self._images_since_evaluation = state["images_since_evaluation"]
        self._images_at_marks = list(state.get("images_at_marks", []))  # older checkpoints have none
        self.graphs = {}  # they use the optimizer's old state

    def weights_digest(self) -> str:
        """Return the SHA-256 of all weights and buffers of the network that is tested.

        It is equal if and only if two networks are bit for bit equal.
        """
        with self.on_stream():
            state = self.evaluated().state_dict()
        self._wait()
        return digest_of_weights(state)


def count_errors(answers: Tensor, targets: Tensor) -> Tensor:
    """Count the wrong answers (N,) to labels (N,); to shares of the classes (N, K), add up the shares of the others."""
    if targets.dim() == 1:
        return (answers != targets).sum()
    return len(answers) - targets.gather(1, answers[:, None]).sum()


def _means_between(sums: list[float], counts: list[int]) -> list[float]:
    """Return the mean of each interval between marks, from the running sums and counts at the marks."""
    between = zip([0, *sums], sums, [0, *counts], counts)
    return [(later - earlier) / (of - before) for earlier, later, before, of in between]


def _groups(recipe: Recipe, group: Group) -> list[slice]:
    """Return the rows of every batch that this process computes, in groups that are computed one after another.

    With a ``batch_norm_size``, each group has that size; without, this process's part of the batch is one group. Raises
    ValueError if the batch can't be split over the processes.
    """
    if recipe.last_batch == "use" and group.size > 1:
        raise ValueError("a smaller last batch can't be split over several processes; use last_batch carry or drop")
    if recipe.statistics_batches and recipe.batch_norm_size and group.size > 1:
        raise ValueError("statistics_batches with a batch_norm_size can't be split over several processes")
    pairs = recipe.batch_size if recipe.mixup_partner == "reversed" else 2
    unit = recipe.batch_norm_size or (pairs if recipe.mixup else 1)  # never split, since it contains mixup partners
    if recipe.batch_size < unit * group.size:
        raise ValueError(f"a batch of {recipe.batch_size} images in parts of {unit} can't be split over {group.size} "
                         f"processes: use at most {recipe.batch_size // unit} processes")  # fmt: skip
    part = group.share(recipe.batch_size // unit)
    if recipe.batch_norm_size is None:
        return [slice(unit * part.start, unit * part.stop)]
    return [slice(unit * number, unit * (number + 1)) for number in range(part.start, part.stop)]
