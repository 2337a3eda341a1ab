"""The commands for one's own images: ``python -m reproductions.finetune train`` and ``predict``.

    python -m reproductions.finetune train FOLDER --out DIR --as-reported
    python -m reproductions.finetune train FOLDER --out DIR --as-reported --weights torchvision:resnet50
    python -m reproductions.finetune train FOLDER --out DIR --weights torchvision:resnet50
    python -m reproductions.finetune predict DIR/best.safetensors IMAGE_OR_FOLDER ...

The first command trains ResNet-50 from scratch by the protocol of a report on one's own images; the second one
fine-tunes all weights by the same protocol: images 0, 5, 10, ... of the sorted list held out; the shorter side scaled
to 256 pixels and the central square of 224 cut out, in training, too, without random crops or flips; Adam with learning
rate 1e-3, shuffled batches of 64 with a smaller last one, 30 epochs, fp32; PyTorch's initialisation. From scratch, a
bottleneck has its stride in the first 1x1 convolution.

The third command uses this suite's own defaults: a fifth of each class held out at random (or, with ``--every N``,
every N-th image from the N-th on), random crops of 8 to 100 % of the area, random flips, He's initialisation, and an
epoch's last batch completed by the first images of the next.

FOLDER has a sub-folder of images for each class. Images may be greyscale or CMYK and may have a palette or transparency
(which is ignored); their EXIF orientation is applied. Unreadable images are left out and listed; with ``--strict`` they
end the command. Links are followed. Folders that other programs create, as for thumbnails, are skipped and listed.
Held-out images that are exact copies of others are listed, too.

DIR gets best.safetensors and last.safetensors, report.md, confusion.png, curves.png and history.json, and a checkpoint
after each epoch, from which the same command continues.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.text import Text

from reproductions.finetune import report as finetune_report
from reproductions.harness.console import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_REFUSED,
    ArgumentParser,
    complain,
    make_console,
    path_argument,
)
from reproductions.harness.reporting.text import markdown_table
from resnet.checkpoint import CheckpointError
from resnet.data.crops import centre_box, crop, read_image
from resnet.data.dataset import DataError
from resnet.data.image_files import FolderDataset
from resnet.data.loading import Loader
from resnet.data.own_folder import (
    OwnImages,
    every_nth,
    find_copies,
    find_images,
    scan_classes,
    shown,
    split,
    stratified,
)
from resnet.device import find_device
from resnet.files import some, write_atomically
from resnet.finetuning import (
    BEST,
    Classifier,
    FinetuningError,
    InitialModel,
    Settings,
    from_scratch,
    from_weights,
    load_classifier,
    train,
)
from resnet.models import image_size
from resnet.models.blocks import VARIANTS
from resnet.released import find_file
from resnet.weights import TORCHVISION, Architecture, WeightsError

# The options of the reported training of ResNet-50 on 2,850 images of 14 classes.
AS_REPORTED = {
    "every": 5,
    "validation": 0.2,
    "batch": 64,
    "learning_rate": 1e-3,
    "image_size": 224,
    "no_augment": True,
    "precision": "fp32",
}
TOP = 5  # classes shown per prediction
PIECE = 16  # images predicted at once


@dataclass(frozen=True)
class TrainingOptions:
    """The options of the command train; its help explains them."""

    folder: Path
    out: Path
    weights: str
    model: str | None
    variant: str | None
    as_reported: bool
    every: int | None
    validation: float
    epochs: int
    batch: int
    learning_rate: float
    image_size: int | None
    crop: str
    no_augment: bool
    seed: int
    precision: str
    strict: bool
    device: str
    workers: int


@dataclass(frozen=True)
class PredictionOptions:
    """The options of the command predict; its help explains them."""

    weights: Path
    images: list[Path]
    json: bool
    device: str
    workers: int


def parse(arguments: list[str] | None) -> TrainingOptions | PredictionOptions:
    """Parse the command line of train or predict."""
    parser = ArgumentParser(prog="python -m reproductions.finetune")
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="train on the images of a folder", description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    add = training.add_argument
    add("folder", type=path_argument, help="folder with a sub-folder of images for each class")
    add("--out", type=path_argument, required=True, metavar="DIR", help="folder for the weights and the report")
    add("--weights", default="none", help="none (from scratch, default), torchvision:resnet50, a released name, a file")
    add("--model", help="network, see python -m reproductions models (default: the one of the weights, else resnet50)")
    add("--variant", choices=VARIANTS, help="its variant (default: the one of the weights, else b, like torchvision's)")
    add("--as-reported", action="store_true", help="train like the reported ResNet-50 on 2,850 images, see above")
    held_out = training.add_mutually_exclusive_group()
    held_out.add_argument("--every", type=int, metavar="N", help="hold out every N-th image of the sorted list")
    held_out.add_argument("--validation", type=_share, default=0.2, metavar="SHARE",
                          help="hold out this share of each class at random (default: 0.2)")  # fmt: skip
    add("--epochs", type=int, default=30, help="epochs in all (default: 30); a higher number continues a training")
    add("--batch", type=int, default=64, help="images per step (default: 64)")
    add("--learning-rate", type=float, default=1e-3, help="Adam's learning rate (default: 0.001)")
    add("--image-size", type=int, help="side of a crop in pixels (default: the model's, such as 224)")
    add("--crop", choices=("area", "scale"), default="area", help="random crop of training images (default: area)")
    add("--no-augment", action="store_true", help="train on central crops without flips")
    add("--seed", type=int, default=0, help="seed of the split, the initial weights and the batches (default: 0)")
    add("--precision", choices=("auto", "bf16", "fp32"), default="auto", help="auto: bf16 if available, else fp32")
    add("--strict", action="store_true", help="refuse a folder with unreadable images")
    predicting = commands.add_parser("predict", help="classify images with a trained network")
    predicting.add_argument("weights", type=path_argument, help=f"a file such as DIR/{BEST}")
    predicting.add_argument("images", type=path_argument, nargs="+", help="images, and folders of images")
    predicting.add_argument("--json", action="store_true", help="print JSON instead of a table")
    for command in (training, predicting):
        command.add_argument("--device", default="auto", help="auto (default): a CUDA GPU if there is one; or cpu, ...")
        command.add_argument("--workers", type=int, help="processes for reading images (default: one per thread)")
    options = parser.parse_args(arguments)
    if getattr(options, "as_reported", False):
        for name, value in AS_REPORTED.items():
            if getattr(options, name) not in (training.get_default(name), value):
                parser.error(f"--as-reported decides --{name.replace('_', '-')}: leave one of the two out")
            setattr(options, name, value)
    least = {"every": 2, "epochs": 1, "batch": 2, "image_size": 8, "workers": 0, "seed": 0}  # BN needs two images
    for name, lowest in least.items():
        value = getattr(options, name, None)
        if value is not None and value < lowest:
            parser.error(f"--{name.replace('_', '-')} must be at least {lowest}, not {value}")
    options.workers = torch.get_num_threads() if options.workers is None else options.workers
    values = vars(options)
    return (TrainingOptions if values.pop("command") == "train" else PredictionOptions)(**values)


def _share(text: str) -> float:
    share = float(text)
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"must be between 0 and 1, not {text}")
    return share


def main(arguments: list[str] | None = None) -> int:
    """Train or predict, and return the exit status.

    0: done. 1: the training failed, or an image to predict is unreadable. 2: nothing was begun. 130: interrupted.
    """
    options, console = parse(arguments), make_console(stderr=True)
    try:
        return (train_on_folder if isinstance(options, TrainingOptions) else predict)(options, console)
    except KeyboardInterrupt:
        console.print("interrupted; the same command continues from the last complete epoch")
        return EXIT_INTERRUPTED
    except (DataError, WeightsError, FinetuningError, CheckpointError, ValueError, OSError) as error:
        complain(console, str(error))
        failed = isinstance(error, (FinetuningError, OSError))  # a full disk, say
        return EXIT_FAILED if failed else EXIT_REFUSED


# ------------------------------------------------------------------------------------------------------------- training


def train_on_folder(options: TrainingOptions, console: Console) -> int:
    """Train on a folder of images, write weights, report, plots and history to ``options.out``, and return 0.

    Raises ValueError, DataError and WeightsError for unusable options or files, FinetuningError and OSError for a
    failure.
    """
    device = find_device(options.device)
    if options.out.resolve().is_relative_to(options.folder.resolve()):
        raise ValueError(f"{options.out} lies in {options.folder}, where its plots would be taken for images of a "
                         "class: name another --out")  # fmt: skip
    _check(options)
    images = _scan(options, console)
    dataset, how = _hold_out(options, images)
    beginning = _begin(options, dataset.classes)
    settings = _settings(options, beginning.architecture.model)
    console.print(f"{dataset.num_classes} classes, {len(dataset.train):,} training images, "
                  f"{len(dataset.test):,} held out ({how})")  # fmt: skip
    console.print(f"{beginning.architecture} {beginning.said}")
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (beginning.mean, beginning.std))
    console.print(f"red, green and blue, from 0 to 255: minus {mean}; divided by {std}")
    copies = find_copies(dataset)
    warning = copied(copies, len(dataset.test))
    for line in warning:
        console.print(line)
    options.out.mkdir(parents=True, exist_ok=True)
    with console.status("") as status:
        done = train(
            beginning,
            dataset,
            settings,
            options.epochs,
            options.out,
            device,
            options.workers,
            on_epoch=lambda entry: console.print(
                f"epoch {entry['epoch']}: training accuracy {entry['training_accuracy']:.2f} %, "
                f"validation accuracy {entry['validation_accuracy']:.2f} %"
            ),
            on_step=lambda step, steps: status.update(f"step {step:,} of {steps:,}"),
        )
    history = {
        "classes": dataset.classes,
        "held_out": how,
        "begun": beginning.said,
        "settings": asdict(settings),
        "unreadable": [{"image": name, "error": why} for name, why in images.unreadable],
        "passed_over": [{"name": name, "why": why} for name, why in images.passed_over],
        "copies": [{"held_out": name, "trained_on": other} for name, other in copies],
        **asdict(done),
    }
    write_atomically(options.out / "history.json", _json(history).encode() + b"\n")
    written = finetune_report.write(options.out, beginning, dataset, settings, done, how, left_out(images) + warning)
    print((options.out / "report.md").read_text(encoding="utf-8"))
    for path in (*written, options.out / "history.json", *sorted(options.out.glob("*.safetensors"))):
        console.print(f"wrote {path}")
    return 0


def _check(options: TrainingOptions) -> None:
    """Check the options before all images are read. Raises ValueError and WeightsError."""
    beginning = _begin(options, ("one", "another"))  # the network does not depend on the classes
    _settings(options, beginning.architecture.model).recipe()


def _scan(options: TrainingOptions, console: Console) -> OwnImages:
    """Decode each of the folder's images once, and print a line for each that is left out.

    Raises DataError for an unusable folder and, with ``--strict``, for unreadable images.
    """
    with console.status(Text(f"decoding every image below {options.folder} once")) as status:
        images = scan_classes(options.folder, lambda done, of: status.update(f"{done:,} of {of:,} images can be read"))
    for line in left_out(images):
        console.print(line)
    if images.unreadable and options.strict:
        raise DataError("--strict refuses unreadable images: repair or remove them, or train without --strict")
    return images


def _hold_out(options: TrainingOptions, images: OwnImages) -> tuple[FolderDataset, str]:
    """Return the images, split into training and held-out ones, and a description of the split."""
    if options.every is None:
        dataset = split(images, stratified(images, options.validation, options.seed))
        return dataset, f"{100 * options.validation:g} % of each class, at random with seed {options.seed}"
    if options.as_reported:
        return split(images, every_nth(images, options.every, first=0)), "images 0, 5, 10, ... of the sorted list"
    dataset = split(images, every_nth(images, options.every))
    return dataset, f"image {options.every}, {2 * options.every}, {3 * options.every}, ... of the sorted list"


def _settings(options: TrainingOptions, model: str) -> Settings:
    return Settings(
        batch_size=options.batch,
        learning_rate=options.learning_rate,
        image_size=options.image_size or image_size(model),
        crop=options.crop,
        augment=not options.no_augment,
        precision=options.precision,
        seed=options.seed,
        last_batch="use" if options.as_reported else "carry",
    )


def _json(content, **options) -> str:
    """Return content as JSON, with null for numbers that are not finite, which JSON lacks."""
    finite = json.loads(json.dumps(content), parse_constant=lambda _: None)
    return json.dumps(finite, indent=1, allow_nan=False, **options)


def left_out(images: OwnImages) -> list[str]:
    """Return a line for each folder and image that is not trained on."""
    lines = [f"left out: {name}, {why}" for name, why in images.passed_over]
    lines += [f"left out: {name}, which has no image that can be read" for name in images.empty]
    return lines + [f"left out: {name}, which can't be read ({why})" for name, why in images.unreadable]


def copied(copies: list[tuple[str, str]], held_out: int) -> list[str]:
    """Return a line about held-out images that are copies of training images; no line if there are none."""
    if not copies:
        return []
    pairs = some([f"{name} is {other}" for name, other in copies])
    return [f"{len(copies):,} of the {held_out:,} held-out images are exact copies of training images ({pairs}): "
            "the validation accuracy is higher than for new images"]  # fmt: skip


def _begin(options: TrainingOptions, classes: tuple[str, ...]) -> InitialModel:
    begun = {"initialization": "uniform"} if options.as_reported else {}  # PyTorch's own
    if options.weights != "none":
        name = options.weights
        source = name if name.startswith(TORCHVISION) else str(find_file(name))
        return from_weights(source, classes, options.seed, options.model, options.variant, **begun)
    model = options.model or "resnet50"
    own = "original" if options.as_reported else "b"
    variant = options.variant or (own if model.startswith("resnet") else None)
    architecture = Architecture(model, begun | ({} if variant is None else {"variant": variant}))
    return from_scratch(architecture, len(classes), options.seed)


# ----------------------------------------------------------------------------------------------------------- predicting


def predict(options: PredictionOptions, console: Console) -> int:
    """Print the images' predicted classes, the most probable first; return 1 if an image is unreadable, else 0."""
    device = find_device(options.device)
    classifier = load_classifier(options.weights, device)
    paths = [path for given in options.images for path in find_images(given)]
    if not paths:
        raise DataError(f"there is no image in {', '.join(map(str, options.images))}")
    predictions = list(predict_files(classifier, paths, device, options.workers))
    if options.json:
        print(_json(predictions, ensure_ascii=False))
    elif readable := [found for found in predictions if "error" not in found]:
        columns = {"image": [found["image"] for found in readable]}
        for place in range(min(TOP, len(classifier.classes))):
            likeliest = [found["predictions"][place] for found in readable]
            columns[f"{place + 1}"] = [f"{each['class']} {100 * each['probability']:.1f} %" for each in likeliest]
        print(markdown_table(columns), end="")
    unreadable = [found for found in predictions if "error" in found]
    for found in unreadable:
        complain(console, f"{found['image']} can't be read: {found['error']}")
    return EXIT_FAILED if unreadable else 0


def predict_files(classifier: Classifier, paths: list[Path], device: torch.device, workers: int):
    """Yield a dictionary for each image, in order.

    It is {"image", "predictions": [{"class", "probability"}, ...]} or {"image", "error"}.
    """

    def read(piece: list[Path]) -> list[np.ndarray | str]:
        """Return each image's central square, or why it can't be read."""
        found: list[np.ndarray | str] = []
        for path in piece:
            try:
                image = read_image(path, upright=True)
            except DataError as error:
                found.append(str(error.__cause__))
            else:
                found.append(crop(image, centre_box(*image.size), classifier.image_size))
        return found

    pieces = [paths[start : start + PIECE] for start in range(0, len(paths), PIECE)]
    loader = Loader(read, pieces, min(workers, len(pieces)))
    try:
        for piece, found in zip(pieces, loader):
            squares = [each for each in found if not isinstance(each, str)]
            pixels = torch.from_numpy(np.stack(squares)).to(device) if squares else None
            likeliest = iter([] if pixels is None else _likeliest(classifier, pixels))
            for path, each in zip(piece, found):
                said = {"error": each} if isinstance(each, str) else {"predictions": next(likeliest)}
                yield {"image": shown(path), **said}
    finally:
        loader.close()


def _likeliest(classifier: Classifier, pixels: torch.Tensor) -> list[list[dict]]:
    values, places = classifier.probabilities(pixels).cpu().topk(min(TOP, len(classifier.classes)))
    return [
        [{"class": classifier.classes[place], "probability": value} for value, place in zip(*each)]
        for each in zip(values.tolist(), places.tolist())
    ]
