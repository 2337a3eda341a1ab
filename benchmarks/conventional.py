"""The training loop of most public CIFAR-10 scripts, for comparison."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.nets import make_net

PREFETCHED = 2  # batches that each DataLoader worker prefetches, PyTorch's default


class ArrayDataset(Dataset):
    """Images of an array, served like torchvision's CIFAR10: PIL images through a transform."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform):
        self.images, self.labels, self.transform = images, labels, transform
        self.to_image = transforms.ToPILImage()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        return self.transform(self.to_image(self.images[index])), int(self.labels[index])


class ConventionalLoop:
    """torchvision's transforms per image in a DataLoader with workers; fp32, eager, NCHW; uint8 images (N, 32, 32, 3).

    ``settling``: number of steps that use up the batches prefetched while the loop was idle.
    """

    runs = 1

    def __init__(
        self, model: str, images: np.ndarray, labels: np.ndarray, batch: int, device: torch.device, workers: int
    ):
        self.device = device
        self.settling = max(2, PREFETCHED * workers)
        self.model = make_net(model).to(device).train()
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
        augment = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        normalize = transforms.Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
        dataset = ArrayDataset(images, labels, transforms.Compose([*augment, normalize]))
        self.loader = DataLoader(
            dataset, batch, shuffle=True, drop_last=True, num_workers=workers, pin_memory=device.type == "cuda",
            persistent_workers=workers > 0,
        )  # fmt: skip
        self.batches = iter(self.loader)

    def step(self) -> None:
        """Take one training step."""
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

    def advance(self, steps: int) -> None:
        """Take ``steps`` training steps."""
        for _ in range(steps):
            self.step()
