"""Counts of operations and bytes equal counts by hand."""

import pytest

from resnet.models import count_parameters, create_model, image_size
from resnet.models.complexity import multiply_adds, training_bytes, training_flops

# Maps of 32, 16 and 8 pixels with 16, 32 and 64 channels.
FIRST = 3 * 16 * 9 * 32**2
SAME = 16 * 16 * 9 * 32**2  # a 3x3 convolution that keeps the shape: as many in every stage
HALVED = SAME // 2  # one that halves the map and doubles the channels
FC = 64 * 10
VALUES = (16 * 32**2, 32 * 16**2, 64 * 8**2)


def by_hand(depth: int) -> int:
    convolutions = depth - 2
    return FIRST + (convolutions - 2) * SAME + 2 * HALVED + FC


@pytest.mark.parametrize("depth", [8, 20, 56, 110])
@pytest.mark.parametrize("kind", ["plain", "resnet"])
def test_multiply_adds_equal_a_count_by_hand(kind, depth):
    assert multiply_adds(f"cifar_{kind}{depth}") == by_hand(depth)


def test_projections_and_classes_count():
    projections = 16 * 32 * 16**2 + 32 * 64 * 8**2
    assert multiply_adds("cifar_resnet20", {"shortcut": "B"}) == by_hand(20) + projections
    assert multiply_adds("cifar_resnet20", {"num_classes": 100}) == by_hand(20) + 64 * 90


def test_larger_images_cost_more():
    assert multiply_adds("cifar_resnet20", size=64) == 4 * (by_hand(20) - FC) + FC


@pytest.mark.parametrize(
    ("name", "options", "first"),
    [
        *(("cifar_resnet20", options, FIRST) for options in ({}, {"shortcut": "C"}, {"conv_bias": True})),
        ("resnet50", {}, 3 * 64 * 49 * 112**2),
        *(("resnet50", {"variant": variant}, 3 * 32 * 9 * 112**2) for variant in "cd"),
    ],
)
def test_training_is_three_forward_passes_less_the_gradient_of_the_image(name, options, first):
    assert training_flops(name, options) == 2 * (3 * multiply_adds(name, options) - first)


def test_bytes_equal_a_count_by_hand():
    """ResNet-8: a first convolution, and two in each stage."""
    outputs = 3 * VALUES[0] + 2 * VALUES[1] + 2 * VALUES[2]
    inputs = 3 * VALUES[0] + 2 * VALUES[1] + VALUES[2]
    traffic = training_bytes("cifar_resnet8", batch=5, activation_bytes=2)
    assert traffic.saved == 5 * (2 * outputs * 2 + 2 * 3 * 32**2)
    assert traffic.passing == 5 * 4 * inputs * 2
    assert traffic.parameters == 5 * 4 * count_parameters(create_model("cifar_resnet8"))
    assert traffic.total == traffic.saved + traffic.passing + traffic.parameters
    assert traffic.with_cache == traffic.total - traffic.passing


def test_a_projection_shares_its_input_with_the_convolution_beside_it():
    identity, projection = (training_bytes("cifar_resnet20", 1, 2, {"shortcut": s}) for s in "AB")
    assert projection.passing == identity.passing
    assert projection.saved - identity.saved == 2 * 2 * (VALUES[1] + VALUES[2])


def test_shortcuts_are_left_out_so_that_it_stays_a_lower_bound():
    assert training_bytes("cifar_plain20", 4, 2) == training_bytes("cifar_resnet20", 4, 2)


def test_images_have_the_size_that_the_model_was_made_for():
    for name in ("cifar_bottleneck11", "resnet18"):
        assert multiply_adds(name) == multiply_adds(name, size=image_size(name))
    assert multiply_adds("resnet18") > 30 * multiply_adds("resnet18", size=32)


# Inputs and outputs of ResNet-18's convolutions at 224 pixels: maps of 56, 28, 14 and 7 with 64 to 512 channels.
STAGES = [64 * 2**i * (56 // 2**i) ** 2 for i in range(4)]
STEM = 64 * 112**2


def test_bytes_with_a_max_pooled_stem_equal_a_count_by_hand():
    """ResNet-18: four convolutions in each stage, the first of them with the stage before's output as its input."""
    outputs = STEM + 4 * sum(STAGES) + sum(STAGES[1:])  # the last: projections
    inputs = 4 * STAGES[0] + sum(before + 3 * own for before, own in zip(STAGES, STAGES[1:]))
    traffic = training_bytes("resnet18", batch=3, activation_bytes=4)
    assert traffic.saved == 3 * (2 * outputs * 4 + 2 * 3 * 224**2)
    assert traffic.passing == 3 * 4 * inputs * 4
    assert traffic.parameters == 5 * 4 * 11_689_512


def test_an_averaged_input_shares_the_reading_of_the_convolution_beside_it():
    """A tensor of its own, but not one that has to pass through memory: as many bytes as without the average."""
    for name in ("resnet18", "resnet50", "cifar_bottleneck20"):
        strided, averaged = (training_bytes(name, 4, 2, {"variant": variant}) for variant in "cd")
        assert averaged == strided


def test_a_stride_in_a_1x1_convolution_reads_a_quarter():
    """Original bottlenecks overlook three of four pixels where a map is halved; the width of the maps is b's too."""
    original, b = (training_bytes("cifar_bottleneck11", 1, 1, {"variant": variant}) for variant in ("original", "b"))
    halved = {32: (64, 32), 16: (128, 64)}  # pixels: channels of the input, width of the bottleneck
    read = sum(channels * pixels**2 * 3 // 4 for pixels, (channels, _) in halved.items())
    wider = sum(width * pixels**2 * 3 // 4 for pixels, (_, width) in halved.items())
    assert b.passing - original.passing == 4 * (read + wider)
    assert b.saved - original.saved == 2 * wider
