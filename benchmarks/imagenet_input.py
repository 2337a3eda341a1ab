"""Benchmark of reading ImageNet compared with training ResNet-50, to find the bottleneck.

    python -m benchmarks.imagenet_input
    python -m benchmarks.imagenet_input --data data --workers 4 8 16

Three parts are measured separately: (1) reading, decoding and cropping by DataLoader workers until a batch is on the
device, for both kinds of crop and several numbers of workers; (2) the device's work on the images, colour augmentation
and normalisation; (3) a training step of ResNet-50 on random tensors. Without ``imagenet`` in the folder ``--data``, it
generates images of ImageNet's typical size, and says so. Writes ``results/benchmarks/imagenet-input-<device>.md`` and
``.json``.
"""

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from benchmarks import markdown
from benchmarks.command import make_parser, parse, stopwatch
from benchmarks.measuring import Rates
from benchmarks.results import write
from benchmarks.variants import recorded
from reproductions.harness import provenance
from resnet.data import DataError
from resnet.data.folder import PIECE, FolderBatches, FolderData
from resnet.data.image_files import FolderDataset, load_folder, scan_folder
from resnet.data.loading import PREFETCH
from resnet.device import autocast, available_cores, exact_kernels, resolve_precision, synchronized_time
from resnet.models import create_model
from resnet.recipe import Recipe, make_optimizer

IMAGES = 256  # generated images
SIZE = 500, 375  # pixels, the commonest in ImageNet
QUALITY = 90
CLASSES = ("first", "second")
BATCH = 64  # when reading; batches are read in pieces anyway
TRAINING_BATCH = {"cuda": 256, "cpu": 16}
MODEL, VARIANT = "resnet50", "b"

# He et al. 2015, section 3.4, and Bag of Tricks, section 2.1.
RECIPES = {
    "scale": Recipe(crop="scale", batch_size=BATCH),
    "area": Recipe(crop="area", batch_size=BATCH, colour_jitter=0.4, pca_noise=0.1),
}


@dataclass(frozen=True)
class Reading:
    """Rates of reading with a number of workers, in batches of BATCH; with 0 the training process reads."""

    crop: str
    workers: int
    rates: Rates


@dataclass(frozen=True)
class Results:
    """Results of the benchmark.

    hardware, versions, code: see :mod:`reproductions.harness.provenance`. cores: number of available cores. images:
    number of images. pixels: their mean width and height. kilobytes: their mean file size. made: whether they were
    generated. device_work: colours and normalisation after the "area" crop. training: steps of ResNet-50 with batches
    of ``training_batch`` in ``precision``.
    """

    hardware: dict
    versions: dict
    code: dict
    rounds: int
    seconds: float
    cores: int
    made: bool
    images: int
    pixels: tuple[float, float]
    kilobytes: float
    reading: tuple[Reading, ...]
    device_work: Rates
    training: Rates
    training_batch: int
    precision: str

    def per_core(self, reading: Reading) -> float:
        """Return the images per second and core, with at most one core for each worker."""
        return reading.rates.median / min(max(1, reading.workers), self.cores)

    def cores_needed(self, crop: str) -> float:
        """Return the number of cores that read as fast as the model trains, from the best measured rate per core."""
        return self.training.median / max(self.per_core(row) for row in self.reading if row.crop == crop)


def make_images(root: Path, images: int) -> FolderDataset:
    """Generate JPEG files of noise at all wavelengths, which are about as large as ImageNet's files."""
    rng = np.random.default_rng(0)
    for part, count in (("train", images), ("val", len(CLASSES))):
        for number in range(count):
            image = np.full((SIZE[1], SIZE[0], 3), 128.0)
            for octave in range(8):
                grid = rng.uniform(-1, 1, (SIZE[1] // 2**octave + 2, SIZE[0] // 2**octave + 2, 3))
                noise = Image.fromarray((grid * 127 + 128).astype(np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
                image += (np.asarray(noise) - 128.0) * 0.22 * 2 ** (0.2 * octave)
            path = root / part / CLASSES[number % len(CLASSES)] / f"{number}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path, quality=QUALITY)
    return scan_folder("made", root)


@contextmanager
def dataset_in(directory: Path, images: int) -> Iterator[FolderDataset]:
    """Provide ImageNet from ``directory`` if it is there, else temporary generated images."""
    if (directory / "imagenet").exists():
        yield load_folder("imagenet", directory)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield make_images(Path(folder), images)


def mean_size(dataset: FolderDataset, count: int = 500) -> tuple[float, float]:
    """Return the mean width and height of up to ``count`` training images."""
    sizes = []
    for index in np.linspace(0, len(dataset.train) - 1, min(count, len(dataset.train))).astype(int):
        with Image.open(dataset.path(dataset.train, index)) as image:
            sizes.append(image.size)
    return tuple(float(side) for side in np.mean(sizes, axis=0))


def measure_reading(
    dataset: FolderDataset, device: torch.device, workers: list[int], rounds: int, seconds: float,
    say: Callable[[str], None] = lambda text: None,
) -> list[Reading]:  # fmt: skip
    """Measure reading: a round of each crop and number of workers in turn, ``rounds`` times."""
    kinds = [(crop, count) for crop in RECIPES for count in workers]
    rates: dict[tuple, list[float]] = {kind: [] for kind in kinds}
    steps: dict[tuple, int] = {}
    for number in range(rounds):
        say(f"reading, round {number + 1} of {rounds}")
        for crop, count in kinds:
            batches = FolderData(dataset, device, count).batches(number, RECIPES[crop], [slice(None)])
            try:
                steps[crop, count], rate = _reading_rate(batches, count, device, seconds)
            finally:
                batches.close()
            rates[crop, count].append(rate)
    return [Reading(*kind, Rates(steps[kind], tuple(rates[kind]))) for kind in kinds]


def _reading_rate(batches: FolderBatches, workers: int, device: torch.device, seconds: float) -> tuple[int, float]:
    """Measure steps and images per second over about ``seconds``, after the prefetched batches are used up."""
    ready = 1 + math.ceil(workers * PREFETCH * PIECE / BATCH)
    for step in range(ready):
        batches.load(step)
    steps, start = 0, synchronized_time(device)
    while (taken := synchronized_time(device) - start) < seconds or not steps:
        batches.load(ready + steps)
        steps += 1
    return steps, round(steps * BATCH / taken, 1)


def measure_steps(work: Callable[[], None], images: int, device: torch.device, rounds: int, seconds: float) -> Rates:
    """Measure the images per second of repeated ``work`` on ``images`` images."""
    work()
    steps, start = 1, synchronized_time(device)
    work()
    steps = max(1, round(seconds / (synchronized_time(device) - start)))
    rates = []
    for _ in range(rounds):
        start = synchronized_time(device)
        for _ in range(steps):
            work()
        rates.append(round(steps * images / (synchronized_time(device) - start), 1))
    return Rates(steps, tuple(rates))


def device_work(dataset: FolderDataset, device: torch.device) -> Callable[[], None]:
    """Return the device's work on a batch: colours and normalisation."""
    batches = FolderData(dataset, device, 0).batches(0, RECIPES["area"], [slice(None)])
    batches.load(0)
    return recorded(lambda: list(batches.take(BATCH)), device)


def training_step(device: torch.device, precision: str, batch: int, image_size: int = 224) -> Callable[[], None]:
    """Return a step of SGD on random images like resnet.trainer's: on a GPU as one CUDA graph."""
    model = create_model(MODEL, variant=VARIANT).to(device, memory_format=torch.channels_last).train()
    optimizer = make_optimizer(Recipe(nesterov=True), model)
    images = torch.randn(batch, 3, image_size, image_size, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(1_000, (batch,), device=device)

    def work() -> None:
        optimizer.zero_grad()
        with exact_kernels():
            with autocast(device, precision):
                loss = F.cross_entropy(model(images).float(), labels)
            loss.backward()
        optimizer.step()

    return recorded(work, device)


def page(results: Results) -> str:
    """Render the results as Markdown."""
    rows = [
        (
            row.crop,
            str(row.workers),
            markdown.spread(row.rates.images_per_second),
            markdown.number(results.per_core(row)),
            markdown.number(row.rates.median / results.training.median, 2),
        )
        for row in results.reading
    ]
    head = ("crop", "workers", "images/s", "images/s per core", "× the training")
    parts = [f"# Reading ImageNet on {results.hardware['device']}\n", markdown.table(head, rows)]
    best = {crop: max(row.rates.median for row in results.reading if row.crop == crop) for crop in RECIPES}
    slowest = min(best.values())
    limit = "The device is the bottleneck" if slowest >= results.training.median else "Reading is the bottleneck"
    needed = " and ".join(f"{math.ceil(results.cores_needed(crop)):,} for {crop}" for crop in RECIPES)
    parts.append(markdown.paragraph(
        f"""{limit}: {MODEL} (variant {VARIANT}) trains on {markdown.spread(results.training.images_per_second, 1)}
        images/s here, in batches of {results.training_batch} random images in {results.precision}, and the best rate
        of reading is {" and ".join(f"{rate:,.0f} ({crop})" for crop, rate in best.items())} images/s. Reading as fast
        as training takes {needed} cores like these, from the best rate per core."""
    ))  # fmt: skip
    parts.append(markdown.paragraph(
        f"""Colours and normalisation take the otherwise idle device {1e6 / results.device_work.median:,.1f} µs an image
        ({markdown.spread(results.device_work.images_per_second)} images/s)."""
    ))  # fmt: skip
    width, height = results.pixels
    origin = f"{results.images:,} images of ImageNet" if not results.made else (
        f"not ImageNet but {results.images:,} generated images, noise at all wavelengths, JPEG "
        f"quality {QUALITY}, in files about as large as ImageNet's"
    )  # fmt: skip
    parts.append(markdown.paragraph(
        f"""The images read are {origin}: {width:.0f} by {height:.0f} pixels and {results.kilobytes:.0f} kB on average{
        "; the operating system caches them in memory, so storage plays no part" if results.made else ""}.
        Images per second: median (lowest to highest) of {results.rounds} rounds of about {results.seconds:g} s, on
        {results.cores} cores. Reading ends when a batch is on the device; with 0 workers the training process reads.
        Crops: "scale" as in He et al. 2015, "area" as in Bag of Tricks, both of 224 pixels.
        {markdown.versions_sentence(results.versions, results.code)} Regenerate with
        `python -m benchmarks.imagenet_input`."""
    ))  # fmt: skip
    return "\n".join(parts)


def _worker_counts(cores: int) -> list[int]:
    """Return 0, powers of two, and the number of all cores."""
    return sorted({0, cores} | {2**n for n in range(cores.bit_length()) if 2**n < cores})


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__, seconds=3.0)
    parser.add_argument("--data", type=Path, default=provenance.ROOT / "data", help="the folder that holds imagenet")
    parser.add_argument("--workers", nargs="+", type=int, default=_worker_counts(available_cores()), metavar="N")
    parser.add_argument("--images", type=int, default=IMAGES, help="images to generate if there is no ImageNet")
    parser.add_argument("--training-batch", type=int, help="default: 256 on a GPU, else 16")
    options = parse(parser, argv)
    if min(options.workers) < 0:
        parser.error("--workers must be at least 0")
    if options.images < len(CLASSES):
        parser.error(f"--images must be at least {len(CLASSES)}")
    return options


def main(argv: list[str] | None = None) -> int:
    """Measure, write the page and print it; return the exit status.

    0: measured. 2: the images can't be used, and the message says why; from the parser: invalid options.
    """
    options, say = _arguments(argv), stopwatch()
    device = options.device
    precision = resolve_precision("auto", device)
    batch = options.training_batch or TRAINING_BATCH[device.type]
    say("looking for images")
    try:
        with dataset_in(options.data, options.images) as dataset:
            reading = measure_reading(dataset, device, options.workers, options.rounds, options.seconds, say)
            say("colours and normalisation")
            on_device = measure_steps(device_work(dataset, device), BATCH, device, options.rounds, options.seconds)
            made, images, pixels = dataset.name != "imagenet", len(dataset.train), mean_size(dataset)
            kilobytes = float(dataset.train.bytes.mean()) / 1_000
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    say(f"training {MODEL}")
    training = measure_steps(training_step(device, precision, batch), batch, device, options.rounds, options.seconds)
    results = Results(
        **provenance.origin(device),
        rounds=options.rounds,
        seconds=options.seconds,
        cores=available_cores(),
        made=made,
        images=images,
        pixels=pixels,
        kilobytes=kilobytes,
        reading=tuple(reading),
        device_work=on_device,
        training=training,
        training_batch=batch,
        precision=precision,
    )
    write(options.out, "imagenet-input", results.hardware["device"], asdict(results), page(results))
    say("done")
    print(page(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
