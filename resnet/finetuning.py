"""Training on a user's own image classes, from scratch or from pretrained weights, with validation and prediction.

The optimizer is Adam with a constant learning rate, as in reports of such trainings; :class:`resnet.recipe.Recipe` has
the papers' recipes. Crops and batches come from :mod:`resnet.data.folder` and depend on the seed alone, so training
resumes exactly after an interruption: bit for bit on a CPU with the same number of threads.
"""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from resnet import checkpoint
from resnet.checkpoint import digest_of_weights
from resnet.data.colour import MEAN, STD
from resnet.data.dataset import DataError
from resnet.data.folder import FolderData
from resnet.data.image_files import FolderDataset
from resnet.data.loading import ReaderError
from resnet.data.sampling import seeded_generator
from resnet.device import autocast, exact_kernels, keep_freed_memory, resolve_precision
from resnet.losses import cross_entropy
from resnet.models import create_model, image_channels
from resnet.preprocessing import of_card
from resnet.recipe import Recipe
from resnet.released import architecture_of, load_model, read_card, write_weights
from resnet.transfer import LAST_LAYER, take_over
from resnet.weights import TORCHVISION, Architecture, WeightsError, find_architecture, read_weights, torchvision_file

BEST, LAST = "best.safetensors", "last.safetensors"


class FinetuningError(Exception):
    """Training that can't be started or resumed. The message says why and what to do."""


@dataclass(frozen=True)
class Settings:
    """Training settings except for the number of epochs.

    ``crop``, ``image_size`` and ``last_batch`` are as in :class:`resnet.recipe.Recipe`.
    """

    batch_size: int = 64
    learning_rate: float = 1e-3
    image_size: int = 224
    crop: str = "area"
    augment: bool = True
    precision: str = "auto"
    seed: int = 0
    last_batch: str = "carry"

    def recipe(self) -> Recipe:
        """Return the recipe that batches are made by. Raises ValueError for invalid settings."""
        if self.crop == "pad":
            raise ValueError("crop must be area or scale")
        if self.precision == "fp16":
            raise ValueError("fp16 would need loss scaling, which fine-tuning does not have: use bf16 or fp32")
        return Recipe(
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            milestones=(),
            crop=self.crop,
            image_size=self.image_size,
            augment=self.augment,
            precision=self.precision,
            last_batch=self.last_batch,
        )

    @property
    def decisive(self) -> dict:
        """All settings, which identify a training, without new ones that keep the behaviour of earlier versions."""
        values = asdict(self)
        return values if self.last_batch != "carry" else {k: v for k, v in values.items() if k != "last_batch"}


# --------------------------------------------------------------------------------------------------- the initial model


@dataclass(frozen=True)
class InitialModel:
    """A network to train, its architecture, and a description of its weights' origin.

    ``mean`` and ``std``: of red, green and blue in 0..255, which the pixels are normalised with.
    """

    model: nn.Module
    architecture: Architecture
    said: str
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD


def from_scratch(architecture: Architecture, classes: int, seed: int) -> InitialModel:
    """Return a network with initialised weights. Raises ValueError for an unknown network or one for grey images."""
    model = _create(architecture, classes, seed)
    return InitialModel(model, architecture, "from scratch")


def from_weights(
    source: str,
    classes: tuple[str, ...],
    seed: int,
    model: str | None = None,
    variant: str | None = None,
    initialization: str | None = None,
) -> InitialModel:
    """Return a network with torchvision's weights ("torchvision:resnet50") or the weights in a file of any kind.

    The architecture comes from the file's card, else from the weights; ``model`` and ``variant`` are needed where these
    leave it open. The last layer is a new one if its number of outputs or the card's classes differ from ``classes``;
    ``initialization``, an option of the network, then applies to that layer. Pixels are normalised as the card says,
    with the mean of a mean image; without a card, as for ImageNet. Raises WeightsError and ValueError.
    """
    if source.startswith(TORCHVISION):
        name = source.removeprefix(TORCHVISION)
        path = torchvision_file(name)
        asked = model or name, variant or "b"
    else:
        path, asked = Path(source), (model, variant)
    state = read_weights(path)
    card = read_card(path)
    if "model" in card:
        found = architecture_of(card, path)
        if any(wanted not in (None, own) for wanted, own in zip(asked, (found.model, found.variant))):
            raise WeightsError(f"according to its card, {path} holds {found}, not {' '.join(filter(None, asked))}")
    elif model is not None and not model.startswith(("resnet", "plain")):
        found = Architecture(model, {} if variant is None else {"variant": variant})
    else:
        found = find_architecture(state, *asked, file=path.name)
    architecture = Architecture(found.model, {k: v for k, v in found.options.items() if k != "num_classes"})
    begun = {} if initialization is None else {"initialization": initialization}
    network = _create(Architecture(architecture.model, architecture.options | begun), len(classes), seed)
    outputs, named = len(state.get(f"{LAST_LAYER}bias", ())), _classes_of(card)
    keeps = outputs == len(classes) and named in (None, classes)
    try:
        if keeps:
            network.load_state_dict(state)
        else:
            take_over(network, state)
    except (RuntimeError, ValueError) as error:
        raise WeightsError(f"{path} does not hold the weights of {architecture}: {error}") from error
    if keeps:
        last = f"including the last layer, which has the {outputs:,} outputs needed"
    else:
        why = f"with {len(classes):,} outputs instead of {outputs:,}"
        last = f"but with a new last layer, {'for other classes' if outputs == len(classes) else why}"
    return InitialModel(network, architecture, f"from the weights of {path.name}, {last}", *_normalisation(card, path))


def _normalisation(card: dict[str, str], path: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and std of each channel, to three digits, by which the card normalises pixels in 0..255."""
    if (found := of_card(card, path)) is None:
        return MEAN, STD
    mean, std = found.mean.double().view(-1, 3).mean(dim=0), 1 / torch.as_tensor(found.scale).double().expand(3)
    return tuple(tuple(round(value, 3) for value in values.tolist()) for values in (mean, std))


def _create(architecture: Architecture, classes: int, seed: int) -> nn.Module:
    if image_channels(architecture.model) != 3:
        raise ValueError(f"{architecture.model} takes only grey images; choose another --model")
    generator = seeded_generator(seed, "initialisation")
    return create_model(architecture.model, generator, **{**architecture.options, "num_classes": classes})


def _classes_of(card: dict[str, str]) -> tuple[str, ...] | None:
    return tuple(json.loads(card["classes"])) if "classes" in card else None


# -------------------------------------------------------------------------------------------------------- the training


@dataclass(frozen=True)
class Training:
    """Results of a training: ``history``, an entry for each epoch, and the ``confusion`` matrix of the last epoch.

    An entry has epoch, training_loss and training_accuracy (means over the epoch's augmented batches), validation_loss
    and validation_accuracy; accuracies are in percent. ``confusion[i][j]`` is the number of validation images of class
    i that were classified as class j.
    """

    history: list[dict]
    confusion: list[list[int]]

    @property
    def best(self) -> dict:
        """The epoch with the highest validation accuracy, the first of equals; selected on the validation split."""
        return max(self.history, key=lambda entry: entry["validation_accuracy"])


def train(
    beginning: InitialModel,
    dataset: FolderDataset,
    settings: Settings,
    epochs: int,
    folder: Path,
    device: torch.device,
    workers: int = 0,
    on_epoch: Callable[[dict], None] = lambda entry: None,
    on_step: Callable[[int, int], None] = lambda step, steps: None,
) -> Training:
    """Train to ``epochs`` epochs in all, from the checkpoint in ``folder`` if there is one.

    A later call with more epochs continues the training. An epoch has as many batches as all training images need; the
    last batch is filled up with the first images of the next epoch, or is smaller with ``last_batch`` "use". After each
    epoch the network is tested on the validation split, and ``folder`` gets a checkpoint, LAST, and BEST if the network
    is the best so far. ``workers`` is the number of data loader workers; with 0 this process reads the images.
    ``on_epoch`` is given each epoch's entry of the history, ``on_step`` the number of finished steps of the epoch and
    its number of steps. Raises FinetuningError for a checkpoint of another training, for a loss that is not finite, and
    for an image that can no longer be read.
    """
    recipe = settings.recipe()
    precision = resolve_precision(settings.precision, device)
    keep_freed_memory(device)
    data = FolderData(dataset, device, workers)
    model = beginning.model.to(device, memory_format=torch.channels_last)
    identity = {
        "settings": {**settings.decisive, "precision": precision},
        "data": dataset.digest,
        "classes": list(dataset.classes),
        "model": str(beginning.architecture),
        "initial_weights": digest_of_weights(model.state_dict()),
        "normalisation": None,  # ImageNet's, which earlier versions do not name
    }
    if (beginning.mean, beginning.std) != (MEAN, STD):
        identity["normalisation"] = [*beginning.mean, *beginning.std]
        data.to_input.mean, data.to_input.std = torch.tensor([beginning.mean, beginning.std], device=device)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    steps = math.ceil(len(dataset.train) / settings.batch_size)
    done = Training([], [])
    # On the CPU, where Adam's counters of steps stay: on a GPU every step would wait for them.
    if (state := checkpoint.load_latest(folder)) is not None:
        _check_identity(state["identity"], identity, folder)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done = Training(state["history"], state["confusion"])
        state = None
    batches = data.batches(settings.seed, recipe, [slice(0, settings.batch_size)])
    try:
        with exact_kernels():
            for epoch in range(len(done.history), epochs):
                model.train()
                trained = _train_epoch(model, optimizer, batches, epoch * steps, steps, precision, device, on_step)
                held_out = data.tests("test", slice(None), recipe)
                loss, confusion = validate(model, held_out, dataset.num_classes, precision)
                right = sum(confusion[number][number] for number in range(dataset.num_classes))
                accuracy = 100 * right / len(dataset.test)
                entry = {"epoch": epoch + 1, **trained, "validation_loss": loss, "validation_accuracy": accuracy}
                done = Training([*done.history, entry], confusion)
                _save(folder, model, optimizer, identity, done, make_card(beginning, dataset, settings, entry))
                on_epoch(entry)
    except ReaderError as error:
        raise FinetuningError(f"{error}. The same command resumes after the last complete epoch") from error
    except DataError as error:
        raise FinetuningError(f"{error}; the images must not change while the network is trained") from error
    finally:
        batches.close()
    return done


def _check_identity(saved: dict, own: dict, folder: Path) -> None:
    differing = [name for name in own if saved.get(name) != own[name]]
    if differing:
        what = ", ".join(differing).replace("_", " ")
        if "settings" in differing:
            there, here = saved.get("settings", {}), own["settings"]
            names = [name for name in here if there.get(name) != here[name]]
            what += f" ({', '.join(f'{name} {there.get(name)}, here {here[name]}' for name in names)})"
        raise FinetuningError(f"{folder} holds a training with different {what}, which this command can't resume: name "
                              "another folder with --out, or remove this one")  # fmt: skip


def _train_epoch(model, optimizer, batches, first, steps, precision, device, on_step) -> dict:
    """Take ``steps`` steps from step ``first`` on; return the mean loss and the accuracy in percent."""
    sums = torch.zeros(2, dtype=torch.float64, device=device)  # read only at the end, so that no step waits for it
    images = 0
    for step in range(steps):
        batches.load(first + step)
        for inputs, labels in batches.take(batches.size(first + step)):
            optimizer.zero_grad()
            with autocast(device, precision):
                logits = model(inputs)
            loss = cross_entropy(logits, labels)
            loss.backward()
            optimizer.step()
            right = (logits.detach().argmax(dim=1) == labels).sum()
            sums += torch.stack([loss.detach().double() * len(labels), right.double()])
            images += len(labels)
        on_step(step + 1, steps)
    total, right = sums.tolist()
    if not math.isfinite(total):
        raise FinetuningError("the training loss is no longer finite: try a lower --learning-rate with another --out")
    return {"training_loss": total / images, "training_accuracy": 100 * right / images}


@torch.no_grad()
def validate(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], classes: int, precision: str
) -> tuple[float, list[list[int]]]:
    """Return the mean cross-entropy and the confusion matrix (see :class:`Training`) of a network on images.

    ``batches`` yields images (n, C, H, W) and labels (n,). The model is left in evaluation mode.
    """
    model.eval()
    loss, counts, images = 0.0, torch.zeros(classes * classes, dtype=torch.int64), 0
    for inputs, labels in batches:
        with autocast(labels.device, precision):
            logits = model(inputs)
        loss += cross_entropy(logits, labels).item() * len(labels)
        taken_for = logits.argmax(dim=1)
        counts += torch.bincount(labels * classes + taken_for, minlength=classes * classes).cpu()
        images += len(labels)
    return loss / images, counts.view(classes, classes).tolist()


def _save(folder: Path, model: nn.Module, optimizer, identity: dict, done: Training, card: dict[str, str]) -> None:
    """Save the weights, then the checkpoint: after an interruption in between, the epoch is repeated exactly."""
    weights = model.state_dict()
    card["weights_sha256"] = digest_of_weights(weights)
    write_weights(folder / LAST, weights, card)
    if done.best is done.history[-1]:
        write_weights(folder / BEST, weights, card)
    state = {"identity": identity, "model": weights, "optimizer": optimizer.state_dict(), **asdict(done)}
    checkpoint.save(folder, state)


def make_card(beginning: InitialModel, dataset: FolderDataset, settings: Settings, entry: dict) -> dict[str, str]:
    """Return the card of a weights file, which :func:`load_classifier` reads."""
    return {
        "model": beginning.architecture.model,
        "options": json.dumps({**beginning.architecture.options, "num_classes": dataset.num_classes}),
        "classes": json.dumps(dataset.classes, ensure_ascii=False),
        "image_size": str(settings.image_size),
        "mean": json.dumps(beginning.mean),
        "std": json.dumps(beginning.std),
        "begun": beginning.said,
        "settings": json.dumps(asdict(settings)),
        "epoch": str(entry["epoch"]),
        "validation_accuracy": repr(entry["validation_accuracy"]),
        "data_sha256": dataset.digest,
    }


# ----------------------------------------------------------------------------------------------------------- prediction


@dataclass(frozen=True)
class Classifier:
    """A trained network with its class names, image size, and normalisation of pixels in 0..255."""

    model: nn.Module
    classes: tuple[str, ...]
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @torch.no_grad()
    def probabilities(self, pixels: Tensor) -> Tensor:
        """Return float32 (n, classes) for uint8 crops (n, H, W, 3) on the network's device."""
        mean, std = (torch.tensor(values, device=pixels.device) for values in (self.mean, self.std))
        return self.model((pixels.float() - mean).div(std).permute(0, 3, 1, 2)).float().softmax(dim=1)


def load_classifier(path: Path, device: torch.device) -> Classifier:
    """Load the network from a file that :func:`train` wrote. Raises WeightsError."""
    card = read_card(path) if path.is_file() else {}
    if missing := {"model", "classes", "image_size", "mean", "std"} - card.keys():
        if not path.is_file():
            raise WeightsError(f"there is no file {path}")
        raise WeightsError(f"the card of {path} lacks {', '.join(sorted(missing))}: name a file {BEST} or {LAST} that "
                           "a training with this command wrote")  # fmt: skip
    architecture = architecture_of(card, path)
    try:
        model = load_model(architecture.model, path, **architecture.options)
        mean, std = (tuple(map(float, json.loads(card[name]))) for name in ("mean", "std"))
        classes, size = _classes_of(card), int(card["image_size"])
    except ValueError as error:
        raise WeightsError(f"{path} has a card that can't be used: {error}") from error
    return Classifier(model.to(device, memory_format=torch.channels_last).eval(), classes, size, mean, std)
