"""Tests of the pooling of regions against torchvision's RoIAlign."""

import pytest
import torch
from torchvision.ops import roi_align

from resnet.tasks.regions import SAMPLES, RegionPooling, align

HEIGHT, WIDTH, STRIDE = 9, 13, 16  # of the maps; pixels per place


def make_boxes(per_image: tuple[int, ...]) -> list[torch.Tensor]:
    """Draw boxes inside and across the borders, of which the first two are less than one place wide."""
    draw = torch.Generator().manual_seed(0)
    made = []
    for count in per_image:
        corner = torch.rand(count, 2, generator=draw) * torch.tensor([WIDTH, HEIGHT]) * STRIDE
        made.append(torch.cat([corner, corner + 6 * STRIDE * torch.rand(count, 2, generator=draw)], dim=1))
        made[-1][:2, 2:] = made[-1][:2, :2] + 3
    return made


@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("per_image", [(40, 30), (0, 5), (0, 0)])
def test_regions_are_pooled_as_by_torchvision_and_so_are_gradients(per_image, precision, tolerance):
    draw = torch.Generator().manual_seed(1)
    maps = (
        torch.randn(2, 5, HEIGHT, WIDTH, generator=draw)
        .to(precision)
        .to(memory_format=torch.channels_last)
        .requires_grad_()
    )
    boxes = make_boxes(per_image)
    pooled = align(maps, boxes, 1 / STRIDE, 7)
    expected = roi_align(maps.float(), boxes, (7, 7), 1 / STRIDE, SAMPLES)
    assert pooled.dtype == precision and pooled.shape == expected.shape
    torch.testing.assert_close(pooled.float(), expected, atol=tolerance, rtol=tolerance)
    towards = torch.randn(expected.shape, generator=draw)
    (gradient,) = torch.autograd.grad(pooled, maps, towards.to(precision))
    (expected,) = torch.autograd.grad(expected, maps, towards.to(precision).float())
    torch.testing.assert_close(gradient, expected, atol=1e-4, rtol=0)


@pytest.mark.gpu
def test_on_a_gpu_regions_are_pooled_as_on_the_cpu_and_gradients_are_the_same_every_time():
    maps, boxes, sizes = (
        torch.randn(2, 64, HEIGHT, WIDTH),
        make_boxes((300, 200)),
        [(HEIGHT * STRIDE, WIDTH * STRIDE)] * 2,
    )
    pooling = RegionPooling(7)
    expected = pooling({"0": maps}, boxes, sizes)
    on_gpu = maps.cuda().requires_grad_()
    gradients = []
    for _ in range(3):
        pooled = pooling({"0": on_gpu}, [each.cuda() for each in boxes], sizes)
        gradients += torch.autograd.grad(pooled.square().sum(), on_gpu)
    torch.testing.assert_close(pooled.cpu(), expected, atol=1e-4, rtol=0)
    assert all(torch.equal(gradients[0], other) for other in gradients[1:])
