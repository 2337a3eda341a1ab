"""Features of regions: torchvision's RoIAlign, and for GPUs a form of it with a deterministic gradient."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign

SAMPLES = 2  # along each side of a cell


class RegionPooling(MultiScaleRoIAlign):
    """RoIAlign on one map: cells of ``size`` x ``size`` for each region, each the mean of SAMPLES x SAMPLES samples.

    In deterministic mode torchvision has a form for GPUs that is compiled for every number of regions, takes samples
    beyond the border from the border (its kernels take 0), and has an index per channel in its gradient.
    """

    def __init__(self, size: int):
        super().__init__(["0"], output_size=size, sampling_ratio=SAMPLES)
        self.size = size

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Pool the boxes (n, 4) of each image from maps (N, C, H, W) to (regions, C, size, size)."""
        maps = x["0"]
        if maps.device.type == "cpu":
            return super().forward(x, boxes, image_shapes)
        scale = 2.0 ** round(math.log2(maps.shape[2] / max(height for height, _ in image_shapes)))
        return align(maps, boxes, scale, self.size)


def align(maps: Tensor, boxes: list[Tensor], scale: float, size: int) -> Tensor:
    """Pool the boxes (n, 4), in pixels, of each image from maps (N, C, H, W) of this ``scale``; see RegionPooling.

    The result equals ``torchvision.ops.roi_align`` up to rounding, and so does its gradient. It is computed in float32
    and has the dtype of the maps.
    """
    _, channels, height, width = maps.shape
    images = torch.cat([torch.full_like(each[:, 0], number) for number, each in enumerate(boxes)]).long()
    left, top, right, bottom = (torch.cat(boxes).float() * scale).unbind(1)
    rows, row_weights = _samples(top, bottom, height, size)
    columns, column_weights = _samples(left, right, width, size)
    # Axes: region, row and column of the cell, sample in the cell's height and width, neighbour above and left of it.
    first = images[:, None, None, None, None, None, None] * (height * width)
    places = first + rows[:, :, None, :, None, :, None] * width + columns[:, None, :, None, :, None, :]
    weights = row_weights[:, :, None, :, None, :, None] * column_weights[:, None, :, None, :, None, :]
    pixels = maps.float().permute(0, 2, 3, 1).reshape(-1, channels)
    cells = F.embedding_bag(places.flatten(3).flatten(0, 2), pixels, mode="sum",
                            per_sample_weights=weights.flatten(3).flatten(0, 2) / SAMPLES**2)  # fmt: skip
    return cells.reshape(-1, size, size, channels).permute(0, 3, 1, 2).to(maps.dtype)


def _samples(start: Tensor, end: Tensor, length: int, size: int) -> tuple[Tensor, Tensor]:
    """Return both neighbours of each sample along one side of the regions, and their weights: (n, size, SAMPLES, 2)."""
    steps = (torch.arange(size * SAMPLES, device=start.device) + 0.5) / (size * SAMPLES)
    place = start[:, None] + steps * (end - start).clamp(min=1)[:, None]
    inside = (place >= -1) & (place <= length)
    place = place.clamp(0, length - 1)
    low = place.floor()
    weights = torch.stack([1 + low - place, place - low], dim=-1) * inside[..., None]
    neighbours = torch.stack([low, (low + 1).clamp(max=length - 1)], dim=-1).long()
    return tuple(each.unflatten(1, (size, SAMPLES)) for each in (neighbours, weights))
