"""Batched operations on colours equal plain ones on single images; the draws have the right distribution."""

import itertools

import numpy as np
import pytest
import torch

from resnet.data.colour import COMPONENTS, DEVIATIONS, MEAN, STD, ToInput, draw_colours
from resnet.data.sampling import seeded_generator

PIXELS = torch.randint(256, (4, 7, 5, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
to_input = ToInput(torch.device("cpu"))


def unnormalised(images):
    return images.permute(0, 2, 3, 1).numpy() * np.array(STD) + np.array(MEAN)


def test_normalised_per_channel():
    images = to_input(PIXELS)
    assert images.dtype == torch.float32 and images.shape == (4, 3, 7, 5)
    assert images.is_contiguous(memory_format=torch.channels_last)
    expected = (PIXELS[2, 1, 4].numpy() - np.array([123.68, 116.779, 103.939])) / np.array([58.393, 57.12, 57.375])
    assert np.allclose(images[2, :, 1, 4].numpy(), expected, atol=1e-6)


def brightened(image, factor):
    return factor * image


def contrasted(image, factor):
    """Away from the mean grey."""
    mean = (image @ np.array([0.299, 0.587, 0.114])).mean()
    return mean + factor * (image - mean)


def saturated(image, factor):
    """Away from each pixel's own grey."""
    grey = (image @ np.array([0.299, 0.587, 0.114]))[..., None]
    return grey + factor * (image - grey)


OPERATIONS = {brightened: (1.3, 0, 0), contrasted: (0.6, 0, 0.4), saturated: (1.4, -0.4, 0)}
ORDERS = [(brightened, contrasted, saturated), (saturated, brightened, contrasted), (contrasted, saturated, brightened)]


def test_colours_are_changed_as_by_plain_operations():
    shift = 3.0, -20.0, 40.0
    colours = torch.tensor([[*(OPERATIONS[f] for f in order), shift] for order in ORDERS], dtype=torch.float32)
    found = unnormalised(to_input(PIXELS[:3], colours))
    for pixels, order, image in zip(PIXELS.double().numpy(), ORDERS, found):
        for operation in order:
            pixels = operation(pixels, OPERATIONS[operation][0]).clip(0, 255)
        assert np.allclose(image, (pixels + shift).clip(0, 255), atol=1e-3)


def turned(image, degrees):
    """The colour as a complex number in YIQ, turned around the grey axis."""
    to_yiq = np.array([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
    grey, in_phase, quadrature = np.moveaxis(image @ to_yiq.T, -1, 0)
    colour = (in_phase + 1j * quadrature) * np.exp(1j * np.radians(degrees))
    return np.stack([grey, colour.real, colour.imag], axis=-1) @ np.linalg.inv(to_yiq).T


def test_hue_is_turned_in_place_of_the_contrast():
    drawn = torch.stack([draw_colours(seeded_generator(0, n), 0.4, 0.0, "hue") for n in range(4)])
    for pixels, steps, image in zip(PIXELS.double().numpy(), drawn[:, :3].numpy(), unnormalised(
            to_input(PIXELS, drawn, "hue"))):  # fmt: skip
        for pixel, grey, colour in steps:
            if colour:
                pixels = turned(pixels, np.degrees(np.arctan2(colour, pixel)))
            else:
                pixels = saturated(pixels, pixel) if grey else brightened(pixels, pixel)
            pixels = pixels.clip(0, 255)
        assert np.allclose(image, pixels, atol=2e-2)


def test_hue_angles_are_uniform_and_keep_grey():
    steps = torch.stack([draw_colours(seeded_generator(0, n), 0.4, 0.0, "hue") for n in range(3_000)])[:, :3].numpy()
    hues = steps[steps[..., 2] != 0]
    angles = np.sort(np.degrees(np.arctan2(hues[:, 2], hues[:, 0])))
    assert len(hues) == 3_000 and abs(angles - np.linspace(-72, 72, 3_000)).max() < 5
    grey = torch.full((1, 2, 2, 3), 90, dtype=torch.uint8)
    colours = torch.tensor([[[np.cos(1.0), 1 - np.cos(1.0), np.sin(1.0)], [1, 0, 0], [1, 0, 0], [0, 0, 0]]])
    assert np.allclose(unnormalised(to_input(grey, colours.float(), "hue")), 90, atol=1e-2)


def test_the_pixels_are_left_as_they_are():
    before = PIXELS.clone()
    to_input(PIXELS, torch.stack([draw_colours(seeded_generator(0, n), 0.4, 0.1) for n in range(4)]))
    assert torch.equal(PIXELS, before)


def test_nothing_drawn_changes_nothing():
    colours = torch.stack([draw_colours(seeded_generator(0, n), 0.0, 0.0) for n in range(4)])
    assert torch.equal(to_input(PIXELS, colours), to_input(PIXELS))


def drawn(jitter, noise, count=3_000):
    return torch.stack([draw_colours(seeded_generator(0, n), jitter, noise) for n in range(count)]).numpy()


def test_factors_are_uniform_and_in_random_order():
    steps = drawn(0.4, 0.0)[:, :3]
    kinds = (steps[..., 1] != 0) + 2 * (steps[..., 2] != 0)  # 0 brightness, 1 saturation, 2 contrast
    orders, counts = np.unique(kinds, axis=0, return_counts=True)
    assert [*map(tuple, orders.tolist())] == [*itertools.permutations(range(3))]
    assert (abs(counts - 500) < 4 * 500**0.5).all()
    for kind in range(3):
        factors = np.sort(steps[..., 0][kinds == kind])
        assert abs(factors - np.linspace(0.6, 1.4, 3_000)).max() < 0.03
    grey = steps.sum(-1)[kinds != 0]  # saturation and contrast keep grey as it is
    assert np.allclose(grey, 1)


def test_noise_is_normal_along_the_principal_components():
    shifts = drawn(0.0, 0.1)[:, 3]
    components = np.array(COMPONENTS)
    assert np.allclose(components.T @ components, np.eye(3), atol=2e-3)  # they are perpendicular and of length 1
    along = shifts @ components / np.array(DEVIATIONS)
    assert abs(along.std(0) - 0.1).max() < 0.006 and abs(along.mean(0)).max() < 0.006
    assert abs(np.corrcoef(along.T) - np.eye(3)).max() < 0.06
    assert abs((abs(along) > 0.196).mean() - 0.05) < 0.01  # as of a normal distribution


def test_noise_is_of_the_published_size():
    """fb.resnet.torch has 0.2175, 0.0188, 0.0045 for pixels in 0..1."""
    assert np.allclose(np.array(DEVIATIONS) / 255, [0.2175, 0.0188, 0.0045], atol=5e-5)


@pytest.mark.gpu
def test_the_same_on_a_gpu():
    colours = torch.stack([draw_colours(seeded_generator(0, n), 0.4, 0.1) for n in range(4)])
    here = to_input(PIXELS, colours)
    there = ToInput(torch.device("cuda"))(PIXELS.cuda(), colours.cuda())
    assert there.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(there.cpu(), here, atol=1e-5)
