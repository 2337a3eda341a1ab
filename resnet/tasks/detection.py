"""Networks for detection: torchvision's Faster R-CNN on a trunk, whose last stage is the head of the regions ("C4")."""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.rpn import AnchorGenerator

from resnet.data.scenes import Batch
from resnet.models.net import Net
from resnet.tasks import Detection
from resnet.tasks.metrics import Detections, Truth, voc_map
from resnet.tasks.regions import RegionPooling
from resnet.tasks.trunk import Trunk

SHAPES = (0.5, 1.0, 2.0)  # height over width of the anchors


class _Maps(nn.Module):
    """The last features of a trunk, in the form that torchvision's detectors take."""

    def __init__(self, trunk: Trunk):
        super().__init__()
        self.trunk, self.out_channels = trunk, trunk.channels[-1]

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict({"0": self.trunk(images.contiguous(memory_format=torch.channels_last))[-1]})


class _Anchors(AnchorGenerator):
    """Anchors in fp32: torchvision gives them the dtype of the maps, and bf16 rounds by pixels."""

    def set_cell_anchors(self, dtype: torch.dtype, device: torch.device) -> None:
        super().set_cell_anchors(torch.float32, device)


class _RegionHead(nn.Module):
    """A net's last stage and the mean over the places of its output: regions (n, C, H, W) to vectors (n, C')."""

    def __init__(self, stage: nn.Sequential):
        super().__init__()
        self.stage = stage

    def forward(self, regions: Tensor) -> Tensor:
        return self.stage(regions).mean(dim=(2, 3))


def _in_fp32(module: nn.Module, arguments: tuple, results: tuple) -> tuple:
    """Convert a head's scores and offsets to fp32: torchvision gives boxes their dtype, and bf16 rounds by pixels."""
    return tuple(each.float() if isinstance(each, Tensor) else [one.float() for one in each] for each in results)


class DetectionNet(nn.Module):
    """Faster R-CNN on all stages of a net but the last, which is the regions' head."""

    def __init__(self, net: Net, task: Detection, classes: int):
        super().__init__()
        self.task = task
        last = getattr(net, net.stages[-1])
        frozen = [net.conv1, net.bn1, *(getattr(net, name) for name in net.stages)][: task.frozen and task.frozen + 1]
        for module in frozen:
            module.requires_grad_(False)
        fixed = [net] if task.frozen_bn else frozen
        self.kept = [m for module in fixed for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
        for module in self.kept:
            module.requires_grad_(False)
        maps, channels = _Maps(Trunk(net, stages=-1)), last[-1].last_bn.num_features
        self.detector = FasterRCNN(
            maps,
            min_size=task.short_side,
            max_size=task.long_side,
            image_mean=[0.0] * 3,  # the images are normalised already
            image_std=[1.0] * 3,
            rpn_anchor_generator=_Anchors((task.anchors,), (SHAPES,)),
            rpn_pre_nms_top_n_train=task.proposals[0],
            rpn_post_nms_top_n_train=task.proposals[1],
            rpn_pre_nms_top_n_test=task.proposals[2],
            rpn_post_nms_top_n_test=task.proposals[3],
            box_roi_pool=RegionPooling(task.pooled),
            box_head=_RegionHead(last),
            box_predictor=FastRCNNPredictor(channels, classes),
            box_batch_size_per_image=task.regions,
            box_positive_fraction=task.positive,
            box_nms_thresh=task.overlap,
        )
        for module in (self.detector.rpn.head, self.detector.roi_heads.box_predictor):
            module.register_forward_hook(_in_fp32)

    def train(self, mode: bool = True) -> "DetectionNet":
        """Set the mode of all but frozen BN, which stays in evaluation mode."""
        super().train(mode)
        for module in self.kept:
            module.eval()
        return self

    def loss(self, batch: Batch) -> Tensor:
        """Compute the sum of the four losses of a training batch."""
        targets = [{"boxes": scene.boxes, "labels": scene.labels} for scene in batch.scenes]
        return sum(self.detector(batch.images, targets).values())

    def predict(self, batch: Batch) -> list[Detections]:
        """Detect the objects of each image."""
        found = self.detector(batch.images)
        return [Detections(*(one[name].cpu().numpy() for name in ("boxes", "labels", "scores"))) for one in found]

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters that are trained, all by one rate."""
        return {"trunk": [p for p in self.parameters() if p.requires_grad]}

    def evaluate(self, batches) -> dict[str, float]:
        """Measure the task's metrics on test batches."""
        found, truths = [], []
        for batch in batches:
            found += self.predict(batch)
            truths += [Truth(*(each.cpu().numpy() for each in (s.boxes, s.labels, s.difficult))) for s in batch.scenes]
        return voc_map(found, truths)
