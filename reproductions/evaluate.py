"""``python -m reproductions evaluate``: the test error of weights on a data set of small images; nothing is trained.

    python -m reproductions evaluate cifar_resnet20 --data DIR
    python -m reproductions evaluate runs/weights/0123456789abcdef.pt
    python -m reproductions evaluate net.th --normalization channel_std --option shortcut_padding=both
    python -m reproductions evaluate net.pt --mean 0.4914,0.4822,0.4465 --std 0.2470,0.2435,0.2616

The weights are a released file's name, or a file: this suite's own, PyTorch's or safetensors'. A file's card, or the
record beside it, names the network and its normalisation. For other files :mod:`resnet.weights` recognises the network,
``--model`` and ``--option`` settle ambiguous cases, and the normalisation has to be named.
"""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from reproductions import reported
from reproductions.harness.console import PUBLISHED, make_console
from reproductions.harness.record_files import record_path
from reproductions.harness.records import read_record
from reproductions.harness.reporting.text import NONE, markdown_table, number
from reproductions.imagenet.evaluate_checkpoint import Weights, named, print_test, record_of
from resnet import preprocessing
from resnet.data import FOLDERS, IMAGE_SHAPES, KNOWN_COPIES, ImageDataset, load, place
from resnet.data.resident import TEST_BATCH, TOP5_FROM
from resnet.device import exact_kernels, find_device, resolve_precision
from resnet.evaluate import count_wrong
from resnet.models import changed_options
from resnet.preprocessing import Preprocessing
from resnet.recipe import Recipe
from resnet.released import architecture_of, find_file, read_card
from resnet.run import Run
from resnet.weights import (
    Architecture,
    WeightsError,
    find_small_architecture,
    fitting_architectures,
    fitting_small_architectures,
    has_options,
    load_network,
    read_weights,
)

# In reported.toml: how data sets are called, and how their keys begin.
DATA_NAMES = {"cifar10": ("CIFAR-10", ""), "cifar100": ("CIFAR-100", "cifar100_")}
_CHOOSE = "--normalization, or --mean and --std"


def evaluate_weights(options: Namespace, console: Console) -> int:
    """Test weights and print their error beside the recorded and the reported ones; return the exit status.

    0: tested. 2: the weights or data can't be used, and the message says why. 130: interrupted.
    """
    said = make_console(stderr=True)
    return print_test(lambda: _evaluate(options, said), console, said)


def _evaluate(options: Namespace, console: Console) -> str:
    device = find_device(options.device)
    precision = resolve_precision(options.precision, device)
    weights = find_weights(options)
    model = load_network(weights.state, weights.architecture)
    name = options.dataset or _trained_on(weights) or ("cifar100" if model.fc.out_features == 100 else "cifar10")
    if name in FOLDERS:
        raise WeightsError(f"{weights.path} was trained on {name}, which is a folder of images; test it with: "
                           f"python -m reproductions.imagenet --evaluate-only {weights.path}")  # fmt: skip
    if name not in IMAGE_SHAPES:  # arrays of one's own
        raise WeightsError(f"{weights.path} was trained on {name}, which is not a data set of the suite; name one of "
                           f"them with --dataset: {', '.join(IMAGE_SHAPES)}")  # fmt: skip
    dataset = load(name, options.data)
    if (outputs := model.fc.out_features) != dataset.num_classes:
        raise WeightsError(f"{weights.path} has {outputs:,} classes, but {name} has {dataset.num_classes:,}")
    convert, how = find_preprocessing(options, weights, dataset)
    _check_size(convert, dataset)

    model = model.to(device, memory_format=torch.channels_last)
    images = len(dataset.test_images)
    with exact_kernels(), console.status(f"{images:,} images"):
        top5 = dataset.num_classes >= TOP5_FROM
        wrong = count_wrong(model, _batches(dataset, convert, device), precision, top5).tolist()
    lines = [
        weights.describe(model),
        f"{name}: {images:,} test images, {_describe(dataset)}; {how}; {precision} on {named(device)}",
    ]
    chosen = bool(options.normalization or options.mean)
    return "\n".join([*lines, "", _table(weights, dataset, chosen, *(100 * count / images for count in wrong))])


def find_weights(options: Namespace) -> Weights:
    """Find the weights that the options name, their network and their record. Raises WeightsError and RecordError."""
    path = find_file(options.weights)
    asked, state = _asked_options(options.option), read_weights(path)
    card = read_card(path)
    if card:
        own, record = architecture_of(card, path), _published(card)
    elif (record := record_of(path, state)) is not None:
        classes = {"num_classes": len(state["fc.bias"])} if "fc.bias" in state else {}
        run = record["specification"]
        if (task := run.get("task")) is not None:
            raise WeightsError(f"{path} holds a network for {task['name']}, but only classifiers are tested here")
        own = Architecture(run["model"], changed_options(run["model"], {**run["model_options"], **classes}))
    else:
        if options.model is None and not fitting_small_architectures(state) and (large := fitting_architectures(state)):
            raise WeightsError(f"{path} holds the weights of {large[0].model}, a network for ImageNet; test it with: "
                               f"python -m reproductions.imagenet --evaluate-only {path}")  # fmt: skip
        found = find_small_architecture(state, options.model, asked, path.name)
        return Weights(path, state, found)
    if options.model not in (None, own.model) or not has_options(own, asked):
        wanted = Architecture(options.model or own.model, asked)
        raise WeightsError(f"{path} holds {own} according to its {'card' if card else 'record'}, not {wanted}")
    return Weights(path, state, own, card, record)


def _asked_options(texts: list[str]) -> dict:
    """Read the network's options, each as name=value."""
    values = {"true": True, "false": False}
    pairs = (text.partition("=") for text in texts)
    return {name: values.get(value.lower(), int(value) if value.isdigit() else value) for name, _, value in pairs}


def _published(card: dict) -> dict | None:
    """Read the published record of a card's run; None without one, or if it is of other weights."""
    found = sorted((PUBLISHED / "records").glob(f"*/*/{card.get('record_identity', '')[:16] or '-'}.json"))
    record = read_record(found[0]) if found else None
    return record if record and record["weights_sha256"] == card["weights_sha256"] else None


def _trained_on(weights: Weights) -> str | None:
    return weights.record["specification"]["data"] if weights.record else weights.card.get("data")


def find_preprocessing(options: Namespace, weights: Weights, dataset: ImageDataset) -> tuple[Preprocessing, str]:
    """Find the preprocessing of the weights' images, with its description. Raises WeightsError if it is not known."""
    if options.normalization and (options.mean or options.std):
        raise WeightsError(f"choose one of {_CHOOSE}")
    if options.std and not options.mean:
        raise WeightsError("--std needs --mean")
    if options.mean:
        values = [options.mean, options.std or [1.0] * len(options.mean)]
        fit = (len(each) == dataset.test_images.shape[-1] and all(0 <= v <= 1 for v in each) for each in values)
        if not all(fit) or 0 in values[1]:
            raise WeightsError(f"--mean and --std need a value for each of the {dataset.test_images.shape[-1]} "
                               f"channels of {dataset.name}, from 0 to 1, and --std none of 0")  # fmt: skip
        mean, std = (255 * torch.tensor(each) for each in values)
        text = ", ".join(f"{value:g}" for value in options.mean)
        over = f", over {', '.join(f'{value:g}' for value in options.std)}" if options.std else ""
        return Preprocessing(mean, 1 / std, dataset.test_images.shape[1]), f"pixels from 0 to 1 less {text}{over}"
    if options.normalization:
        return _computed(dataset, Recipe(normalization=options.normalization), None)
    if (written := preprocessing.of_card(weights.card, weights.path)) is not None:
        return written, "normalised as follows from its card"
    if weights.record is not None:
        run = Run.from_specification(weights.record["specification"])
        return _computed(dataset, run.recipe, run.train_images)
    if weights.card:
        raise WeightsError(f"the card of {weights.path} does not give its preprocessing: name it with {_CHOOSE}")
    raise WeightsError(f"{weights.path} does not say how its images were normalised: name it with {_CHOOSE}")


def _computed(dataset: ImageDataset, recipe: Recipe, train_images: int | None) -> tuple[Preprocessing, str]:
    convert = preprocessing.of_resident_data(place(dataset, train_images, "cpu"), recipe)
    part = "training images" if train_images is None else f"first {train_images:,} training images"
    return convert, f"{recipe.normalization} of its {part}"


def _check_size(convert: Preprocessing, dataset: ImageDataset) -> None:
    wanted, given = (convert.image_size, convert.image_size, convert.channels), dataset.test_images.shape[1:]
    if wanted != given:
        raise WeightsError(f"the network takes images of the shape {wanted}, but {dataset.name} has {given}")


def _batches(dataset: ImageDataset, convert: Preprocessing, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    images, labels = torch.from_numpy(dataset.test_images), torch.from_numpy(dataset.test_labels).long()
    for batch, answers in zip(images.split(TEST_BATCH), labels.split(TEST_BATCH)):
        yield convert(batch.to(device)), answers.to(device)


def _describe(dataset: ImageDataset) -> str:
    if dataset.name.startswith("synthetic"):
        return "made by the code"
    if dataset.official:
        return "the official files"
    what = KNOWN_COPIES.get(dataset.digest)
    return f"not the official files{f' ({what})' if what else ''}"


def _table(weights: Weights, dataset: ImageDataset, chosen: bool, error: float, top5_error: float | None = None) -> str:
    """Return the error beside the recorded and the reported ones, with notes on their sources.

    ``chosen``: whether the options name the preprocessing, in the place of the network's own.
    """
    columns, notes = {"test error, %": [number(error)]}, []
    if weights.record is not None or "test_error" in weights.card:
        recorded, note = _recorded(weights, dataset, chosen)
        columns["recorded"] = [number(recorded)]
        notes.append(note)
    numbers = reported_errors(weights.architecture, dataset.name)
    columns["reported"] = [numbers[0].described if numbers else NONE]
    if top5_error is not None:
        columns["top-5 error, %"] = [number(top5_error)]
        recorded = weights.record["final"].get("test_top5_error") if weights.record else None
        columns["top-5, recorded"] = [number(recorded)]
    notes += map(_source_note, numbers)
    if numbers and (options := _changes(weights.architecture)):
        notes.append(f"This net has {options}; the reported numbers are of nets without, unless their source says so.")
    return markdown_table(columns) + "".join(f"{note}\n" for note in ["", *(f"- {note}" for note in notes)] if notes)


def _recorded(weights: Weights, dataset: ImageDataset, chosen: bool) -> tuple[float | None, str]:
    """Return the error at the end of training, None if it diverged, and a note on how it was measured."""
    record, card = weights.record, weights.card
    if record is not None:
        error, precision, data = record["final"]["test_error"], record["precision"], record["data"]["sha256"]
        path = record_path(Path("records"), Run.from_specification(record["specification"]))
        where = f"{precision} on {record['hardware']['device']}; record {path}"
    else:
        error, precision, data = float(card["test_error"]), card.get("precision"), card.get("data_sha256")
        where = f"{precision}, by its card" if precision else "by its card"
    other = "; on other data than these" if data != dataset.digest else ""
    other += f"; with the {'card' if card else 'run'}'s own preprocessing, not the one named here" if chosen else ""
    return error, f"Recorded at the end of training: {where}{other}."


def _source_note(number: reported.Reported) -> str:
    source = number.source
    parts = [f"{number.described}{f' ({source.how})' if source.how else ''}", *filter(None, [source.url])]
    return f"Reported by {source.name}: {'; '.join(parts)}"


def reported_errors(architecture: Architecture, data: str) -> list[reported.Reported]:
    """List the test errors reported for a net of this kind and depth on these data, papers first."""
    if data not in DATA_NAMES or not architecture.model.startswith("cifar_"):
        return []
    name, prefix = DATA_NAMES[data]
    wanted = name, prefix + architecture.model.removeprefix("cifar_"), "test error"
    numbers = [each for each in reported.load() if (each.data, each.key, each.metric) == wanted]
    return sorted(numbers, key=lambda each: each.source.origin != "paper")


def _changes(architecture: Architecture) -> str:
    unseen = ("num_classes", "zero_gamma", "initialization")
    options = {name: value for name, value in architecture.options.items() if name not in unseen}
    return ", ".join(f"{name}={value}" for name, value in changed_options(architecture.model, options).items())
