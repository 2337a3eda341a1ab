"""The papers' ImageNet tests of weights from a file, or of torchvision's; nothing is trained or written.

    python -m reproductions.imagenet --evaluate-only runs/weights/0123456789abcdef.pt
    python -m reproductions.imagenet --evaluate-only torchvision:resnet50 --data DIR --tests center,ten_crop

Files may be this suite's own, PyTorch's or safetensors'. For this suite's own, the record beside the file names the
network and has the same tests' errors at the end of training. For others, :mod:`resnet.weights` recognises the network;
``--model``, ``--variant`` and ``--shortcut`` settle ambiguous cases. DIR has the folder ``imagenet`` with ``val``,
which has a folder for each class, named as in ImageNet; the names give the order of the classes. ``train`` is not
needed.

Images are normalised as in Bag of Tricks. Torchvision has the same standard deviations, and means that differ by up to
half a grey value of 255, less than 0.01 standard deviations. Crops are resampled from the image in one step rather than
cut out of a resized one at whole pixels, so they are shifted by up to half a pixel.
"""

import shlex
import time
from argparse import ArgumentTypeError
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from reproductions import reported
from reproductions.harness import provenance
from reproductions.harness.console import (
    DEFAULT_DATA,
    EXIT_INTERRUPTED,
    EXIT_REFUSED,
    ArgumentParser,
    complain,
    make_console,
    path_argument,
)
from reproductions.harness.record_files import RecordError
from reproductions.harness.records import read_record
from reproductions.harness.reporting.frame import METRICS
from reproductions.harness.reporting.text import NONE, markdown_table, number
from reproductions.imagenet import table
from resnet.checkpoint import digest_of_weights
from resnet.data import FOLDERS, DataError
from resnet.data.folder import FolderData
from resnet.data.image_files import FolderDataset, load_test_folder
from resnet.device import exact_kernels, find_device, resolve_precision
from resnet.evaluate import TESTS, count_wrong_in
from resnet.models import count_parameters, image_size
from resnet.models.blocks import SHORTCUTS, VARIANTS
from resnet.recipe import PRECISIONS, Recipe
from resnet.weights import (
    TORCHVISION,
    Architecture,
    WeightsError,
    find_architecture,
    fitting_architectures,
    fitting_small_architectures,
    load_network,
    read_weights,
    torchvision_file,
)

ERRORS = ("test_error", "test_top5_error")  # names of the top-1 and top-5 error in records
SHOWN_TESTS = {"center": "1-crop", "ten_crop": "10-crop", "multi_scale": "multi-scale"}


@dataclass(frozen=True)
class Weights:
    """Weights to test, their network and file, and the card of the file and the record of their run, if any."""

    path: Path
    state: dict
    architecture: Architecture
    card: dict = field(default_factory=dict)
    record: dict | None = None

    def describe(self, model: nn.Module) -> str:
        """Describe the file and the network that its weights were loaded into."""
        network = f"{self.architecture}, {count_parameters(model):,} parameters"
        return f"{self.path}: {network}, SHA-256 of the weights {digest_of_weights(model.state_dict())}"


@dataclass(frozen=True)
class EvaluationOptions:
    """The options that go with ``--evaluate-only``; their help explains them."""

    evaluate_only: str
    model: str | None
    variant: str | None
    shortcut: str | None
    data: Path
    dataset: str | None
    tests: list[str]
    batch: int | None
    image_size: int | None
    device: str
    precision: str
    workers: int | None


def parse(arguments: list[str] | None) -> EvaluationOptions:
    """Parse the options that go with ``--evaluate-only``."""
    parser = ArgumentParser(
        prog="python -m reproductions.imagenet",
        description="Test weights by the papers' protocol; nothing is trained or written.",
    )
    add = parser.add_argument
    add("--evaluate-only", metavar="CHECKPOINT", required=True, help="a file of weights, or torchvision:resnet50, ...")
    add("--model", help="network of the weights, such as resnet50, if they fit several")
    add("--variant", choices=VARIANTS, help="its variant, likewise; torchvision's nets have variant b")
    add("--shortcut", choices=SHORTCUTS, help="its shortcuts, likewise")
    add("--data", type=path_argument, default=DEFAULT_DATA, help="folder with imagenet/val (default: data)")
    add("--dataset", choices=FOLDERS, help="data set (default: from the weights' record, else imagenet)")
    add("--tests", type=_tests, default=list(TESTS), help=f"tests (default: {','.join(TESTS)})")
    add("--batch", type=int, help="images per batch (default: 64, and 8 at several scales)")
    add("--image-size", type=int, help="side of a crop in pixels (default: from the weights' record, else 224)")
    add("--device", default="auto", help="auto (default): a CUDA GPU if there is one; or cpu, cuda, cuda:1")
    add("--precision", choices=PRECISIONS, default="auto", help="auto: bf16 if available, else fp32")
    add("--workers", type=int, help="processes for reading images (default: one per thread)")
    options = parser.parse_args(arguments)
    for name, least in (("batch", 1), ("image_size", 1), ("workers", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            parser.error(f"--{name.replace('_', '-')} must be at least {least}, not {value}")
    return EvaluationOptions(**vars(options))


def _tests(text: str) -> list[str]:
    tests = text.replace(",", " ").split()
    if not tests or not set(tests) <= set(TESTS):
        raise ArgumentTypeError(f"{text!r} must name tests among: {', '.join(TESTS)}")
    return [test for test in TESTS if test in tests]


def main(arguments: list[str] | None = None) -> int:
    """Test a checkpoint and print the errors; return the exit status.

    0: tested. 2: the weights or data can't be used, and the message says why. 130: interrupted.
    """
    options, console = parse(arguments), make_console(stderr=True)
    return print_test(lambda: evaluate(options, console), make_console(), console)


def print_test(test: Callable[[], str], output: Console, errors: Console) -> int:
    """Print the text that a test returns, or the reason for its refusal; return the exit status as :func:`main`."""
    try:
        output.print(test(), end="")
    except (WeightsError, DataError, RecordError, ValueError) as error:
        complain(errors, str(error))
        return EXIT_REFUSED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


def evaluate(options: EvaluationOptions, console: Console) -> str:
    """Return a description of the test, a table of the errors beside the reported ones, and notes."""
    device = find_device(options.device)
    precision = resolve_precision(options.precision, device)
    weights = find_weights(options)
    model = load_network(weights.state, weights.architecture)
    trained = weights.record and weights.record["specification"]
    name = options.dataset or (trained["data"] if trained else "imagenet")
    dataset = _load(name, options.data, weights, model.fc.out_features)
    size = trained["recipe"]["image_size"] if trained else image_size(weights.architecture.model)
    recipe = Recipe(crop="scale", image_size=options.image_size or size)

    model = model.to(device, memory_format=torch.channels_last)
    workers = torch.get_num_threads() if options.workers is None else options.workers
    data = FolderData(dataset, device, workers, options.batch)
    errors, seconds = {}, {}
    for test in options.tests:
        begin = time.perf_counter()
        with exact_kernels(), console.status(f"{SHOWN_TESTS[test]} of {len(dataset.test):,} images"):
            wrong = count_wrong_in(test, model, data, recipe, precision=precision)
            errors[test] = dict(zip(ERRORS, (100 * count / len(dataset.test) for count in wrong.tolist())))
        seconds[test] = time.perf_counter() - begin
    lines = [
        weights.describe(model),
        f"{name}: {len(dataset.test):,} test images in {dataset.root / 'val'}, crops of {recipe.image_size} pixels; "
        f"{precision} on {named(device)}",
    ]
    if trained and (name, recipe.image_size) != (trained["data"], size):  # the record is about another test
        weights = replace(weights, record=None)
    return "\n".join([*lines, "", errors_table(weights, name, errors, seconds, len(dataset.test))])


def named(device: torch.device) -> str:
    """Return the name of a GPU, or "the CPU"."""
    return "the CPU" if device.type == "cpu" else provenance.device_name(device)


def find_weights(options: EvaluationOptions) -> Weights:
    """Return the weights that the options name, and their network. Raises WeightsError and RecordError."""
    wanted, source = (options.model, options.variant, options.shortcut), options.evaluate_only
    if source.startswith(TORCHVISION):
        name = source.removeprefix(TORCHVISION)
        path = torchvision_file(name)
        state = read_weights(path)
        asked = [given or own for given, own in zip(wanted, (name, "b", "B"))]
        return Weights(path, state, find_architecture(state, *asked))
    path = Path(source)
    state = read_weights(path)
    if (record := record_of(path, state)) is None:
        if options.model is None and not fitting_architectures(state) and (small := fitting_small_architectures(state)):
            raise WeightsError(
                f"{path} holds the weights of {small[0]}, a network for small images; {_elsewhere(path)}"
            )
        return Weights(path, state, find_architecture(state, *wanted, path.name))
    run = record["specification"]
    classes = {"num_classes": len(state["fc.bias"])} if len(state.get("fc.bias", ())) else {}
    architecture = Architecture(run["model"], {**run["model_options"], **classes})
    own = (architecture.model, architecture.variant, architecture.shortcut)
    if contradicted := [w for w, own in zip(wanted, own) if w not in (None, own)]:
        raise WeightsError(f"{path} holds {architecture} according to its record, not {' '.join(contradicted)}")
    return Weights(path, state, architecture, record=record)


def _elsewhere(path: Path) -> str:
    return f"test them with: python -m reproductions evaluate {shlex.quote(str(path))} --data DIR"


def record_of(path: Path, state: dict) -> dict | None:
    """Return the record of the run that wrote ``OUT/weights/<id>.pt``; None if there is none.

    Raises WeightsError if the record belongs to other weights, and RecordError if it is damaged.
    """
    if path.resolve().parent.name != "weights":
        return None
    found = sorted(path.resolve().parents[1].glob(f"records/*/*/{path.stem}.json"))
    if not found:
        return None
    record = read_record(found[0])
    if (digest := digest_of_weights(state)) != record["weights_sha256"]:
        raise WeightsError(f"{path} holds the weights {digest}, but {found[0]} says {record['weights_sha256']}: one of "
                           "them belongs to another run; copy the weights elsewhere and give --model")  # fmt: skip
    return record


def _load(name: str, directory: Path, weights: Weights, outputs: int) -> FolderDataset:
    """Return the data set's test images. Raises DataError and WeightsError if they don't fit the weights."""
    if name not in FOLDERS:
        text = f"{weights.path} was trained on {name}; these tests are for: {', '.join(FOLDERS)}"
        raise WeightsError(f"{text}; {_elsewhere(weights.path)}")
    dataset = load_test_folder(name, directory)
    if outputs != dataset.num_classes:
        raise WeightsError(f"{weights.path} has {outputs:,} classes, but {name} has {dataset.num_classes:,}")
    foreign = [folder for folder in dataset.classes if not (len(folder) == 9 and folder[0] == "n")]
    if name == "imagenet" and weights.record is None and foreign:
        raise DataError(f"{dataset.root / 'val'} has classes such as {foreign[0]}: they must have ImageNet's names, "
                        "such as n01440764, which give the order of classes in weights from elsewhere")  # fmt: skip
    return dataset


def errors_table(weights: Weights, data: str, errors: dict, seconds: dict, images: int) -> str:
    """Return a table of the errors by test beside the recorded and the reported ones, with notes on the sources."""
    published = {
        test: [_reported(weights, data, metric) for metric in table.TESTS[SHOWN_TESTS[test]]] for test in errors
    }
    sources = dict.fromkeys(n.source for numbers in published.values() for n in numbers if n)
    columns = {"test": [SHOWN_TESTS[test] for test in errors]}
    for place, (error, heading) in enumerate(zip(ERRORS, ("top-1 error", "top-5 error"))):
        columns[heading] = [number(own[error]) for own in errors.values()]
        if weights.record:
            recorded = {"center": weights.record["final"], **weights.record.get("tests", {})}
            columns[f"{heading}, recorded"] = [number(recorded.get(test, {}).get(error)) for test in errors]
        if sources:
            columns[f"{heading}, reported"] = [str(numbers[place] or NONE) for numbers in published.values()]
    columns["images"] = [f"{images:,}"] * len(errors)
    columns["seconds"] = [f"{value:.1f}" for value in seconds.values()]
    notes = [f"- Reported by {source.name}{source.how and f' ({source.how})'}: {source.url}" for source in sources]
    if sources and weights.architecture.variant != "original":
        notes.append("- The reported numbers are for the original variant and another training.")
    return markdown_table(columns) + "".join(f"{note}\n" for note in ["", *notes] if notes)


def _reported(weights: Weights, data: str, metric: str) -> reported.Reported | None:
    """Return the reported number for a net of this depth and shortcut on ImageNet; None if there is none.

    It is from He et al., or else from their own implementation.
    """
    net = weights.architecture
    if data != "imagenet" or net.variant not in ("original", "b"):
        return None
    keys = {(row.model, row.model_options.get("shortcut")): row.reported for row in table.rows("paper")}
    key = keys.get((net.model, net.shortcut))
    numbers = [*reported.in_paper(key, METRICS[metric]), *reported.elsewhere(key, METRICS[metric])]
    return numbers[0] if numbers else None
