"""Training throughput of one run, beside a loop written as the field usually writes it.

    python -m benchmarks.throughput --models cifar_resnet20 --rounds 5 --steps 10

Both are measured in this process, in turn, on the same random images: (1) the conventional loop, torchvision's
transforms per image in a DataLoader with workers, fp32, eager, NCHW; (2) one run of ``resnet.trainer``. Writes
``results/benchmarks/throughput-<device>.md`` and ``.json``: training images per second, median, lowest and highest
over the rounds, and the median of the rounds' ratios.
"""

import argparse
import json
import re
import statistics
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from reproductions.harness import provenance
from resnet.data import ImageDataset
from resnet.files import write_atomically
from resnet.models import create_model
from resnet.recipe import Recipe
from resnet.run import Run
from resnet.trainer import DeviceData, Trainer, default_device, synchronized_time

IMAGES = 10_000  # enough that no image is likely to be cached twice in a round
BATCH = 128


class ArrayDataset(Dataset):
    """Images of an array as torchvision's CIFAR10 gives them: PIL images through a transform."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform):
        self.images, self.labels, self.transform = images, labels, transform
        self.to_image = transforms.ToPILImage()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        return self.transform(self.to_image(self.images[index])), int(self.labels[index])


class ConventionalLoop:
    """The loop of most public CIFAR-10 training scripts."""

    name = "conventional loop"

    def __init__(self, model: str, images: np.ndarray, labels: np.ndarray, device: torch.device, workers: int):
        self.device = device
        self.model = create_model(model).to(device).train()
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
        augment = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        normalize = transforms.Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
        dataset = ArrayDataset(images, labels, transforms.Compose([*augment, normalize]))
        self.loader = DataLoader(
            dataset, BATCH, shuffle=True, drop_last=True, num_workers=workers, pin_memory=device.type == "cuda",
            persistent_workers=workers > 0,
        )  # fmt: skip
        self.batches = iter(self.loader)

    def step(self) -> None:
        try:
            images, labels = next(self.batches)
        except StopIteration:
            self.batches = iter(self.loader)
            images, labels = next(self.batches)
        images, labels = images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
        self.optimizer.zero_grad()
        loss = self.criterion(self.model(images), labels)
        loss.backward()
        self.optimizer.step()
        loss.item()  # logged at every step, as usual


class OneRun:
    """One run of this project."""

    name = "one run"

    def __init__(self, model: str, images: np.ndarray, labels: np.ndarray, device: torch.device):
        data = ImageDataset("cifar10", images, labels, images[:1], labels[:1], official=False)
        recipe = Recipe(eval_interval=64_000)
        self.trainer = Trainer(Run(model, recipe), DeviceData(data, None, device))

    def step(self) -> None:
        self.trainer.step()


def images_per_second(loop, steps: int, device: torch.device) -> float:
    start = synchronized_time(device)
    for _ in range(steps):
        loop.step()
    return steps * BATCH / (synchronized_time(device) - start)


def measure(model: str, rounds: int, steps: int, device: torch.device, workers: int) -> dict:
    """Rates of both loops, a round each in turn, after a warm-up of both."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, IMAGES, dtype=np.uint8)
    loops = [ConventionalLoop(model, images, labels, device, workers), OneRun(model, images, labels, device)]
    for loop in loops:
        images_per_second(loop, 3, device)
    rates: dict[str, list[float]] = {loop.name: [] for loop in loops}
    for _ in range(rounds):
        for loop in loops:
            rates[loop.name].append(round(images_per_second(loop, steps, device), 1))
    ratios = [ours / conventional for conventional, ours in zip(*rates.values())]
    return {"model": model, "images_per_second": rates, "ratio": round(statistics.median(ratios), 2)}


def markdown(results: dict) -> str:
    head = "| model | conventional loop, images/s | one run, images/s | ratio |\n|---|---|---|---|\n"
    lines = ""
    for result in results["models"]:
        rates = result["images_per_second"].values()
        cells = [f"{statistics.median(r):,.0f} ({min(r):,.0f} to {max(r):,.0f})" for r in rates]
        lines += f"| {result['model']} | {' | '.join(cells)} | {result['ratio']:.2f} |\n"
    hardware, versions = results["hardware"], results["versions"]
    return f"""# Training throughput on {hardware["device"]}

{head}{lines}
Training images per second at batch {BATCH}: median (lowest to highest) of {results["rounds"]} rounds of
{results["steps"]} steps, the loops in turn in one process; {hardware["threads"]} threads and {results["workers"]}
DataLoader workers. The ratio is the median of the rounds' ratios. Conventional: torchvision transforms in a
DataLoader, fp32, eager, NCHW. Python {versions["python"]}, torch {versions["torch"]}. Made again by `make bench`.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["cifar_resnet20", "cifar_resnet56"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=provenance.ROOT / "results" / "benchmarks")
    options = parser.parse_args()
    device = default_device()
    results = {
        "hardware": provenance.hardware(device, torch.get_num_threads()),
        "versions": provenance.versions(),
        "code": provenance.code_identity(),
        "rounds": options.rounds,
        "steps": options.steps,
        "workers": options.workers,
        "models": [measure(m, options.rounds, options.steps, device, options.workers) for m in options.models],
    }
    name = re.sub(r"\W+", "-", results["hardware"]["device"].lower()).strip("-")
    write_atomically(options.out / f"throughput-{name}.json", json.dumps(results, indent=1).encode() + b"\n")
    write_atomically(options.out / f"throughput-{name}.md", markdown(results).encode())
    print(markdown(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
