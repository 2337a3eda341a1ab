"""Networks for segmentation: a trunk with torchvision's FCN heads."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation.fcn import FCNHead

from resnet.data.canvas import IGNORED
from resnet.data.scenes import Batch
from resnet.models.net import Net
from resnet.tasks import Segmentation
from resnet.tasks.metrics import confusion, segmentation_scores
from resnet.tasks.trunk import Trunk


class SegmentationNet(nn.Module):
    """A net's trunk with a head on its last stage and, for an auxiliary loss, one on the stage before.

    Maps images (N, 3, H, W) to the logits of pixels (N, classes, H, W).
    """

    def __init__(self, net: Net, task: Segmentation, classes: int):
        super().__init__()
        self.task, self.classes = task, classes
        self.trunk = Trunk(net, stride=task.stride)
        self.head = FCNHead(self.trunk.channels[-1], classes)
        self.auxiliary = FCNHead(self.trunk.channels[-2], classes) if task.auxiliary else None

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits."""
        return _scaled(self.head(self.trunk(images)[-1]), images.shape[2:])

    def loss(self, batch: Batch) -> Tensor:
        """Compute the loss of a training batch: the mean over its pixels that are not ignored."""
        images = torch.stack(batch.images).contiguous(memory_format=torch.channels_last)
        masks = torch.stack([scene.mask for scene in batch.scenes])
        features = self.trunk(images)
        loss = pixel_loss(_scaled(self.head(features[-1]), masks.shape[1:]), masks)
        if self.auxiliary is not None:
            own = pixel_loss(_scaled(self.auxiliary(features[-2]), masks.shape[1:]), masks)
            loss = loss + self.task.auxiliary * own
        return loss

    def predict(self, batch: Batch) -> list[Tensor]:
        """Predict the class of every pixel of each mask, (H, W)."""
        groups = [[image] for image in batch.images]
        if len({image.shape for image in batch.images}) == 1:
            groups = [batch.images]
        logits = [one for group in groups for one in self(torch.stack(group)).float()]
        scaled = [_scaled(one[None], scene.mask.shape) for one, scene in zip(logits, batch.scenes)]
        return [one[0].argmax(0) for one in scaled]

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters that are trained by the rate of the trunk and by the rate of the heads."""
        heads = [self.head] + ([self.auxiliary] if self.auxiliary is not None else [])
        return {"trunk": [*self.trunk.parameters()], "heads": [p for head in heads for p in head.parameters()]}

    def evaluate(self, batches) -> dict[str, float]:
        """Measure the task's metrics on test batches."""
        counts = 0
        for batch in batches:
            for predicted, scene in zip(self.predict(batch), batch.scenes):
                counts = counts + confusion(predicted, scene.mask, self.classes, IGNORED)
        return segmentation_scores(counts)


def _scaled(logits: Tensor, size) -> Tensor:
    return logits if logits.shape[2:] == size else F.interpolate(logits, size=tuple(size), mode="bilinear")


def pixel_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the cross-entropy, in the form for vectors: the form for maps is not deterministic on a GPU."""
    return F.cross_entropy(logits.float().movedim(1, -1).flatten(0, 2), masks.flatten().long(), ignore_index=IGNORED)
