"""Operations and bytes counted by torch and by hooks, against counts by hand."""

import pytest

from resnet.models import count_parameters, create_model
from resnet.models.complexity import Traffic, multiply_adds, training_bytes, training_flops

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


def test_resnet20_has_the_known_number():
    assert multiply_adds("cifar_resnet20") == 40_551_040


def test_projections_and_classes_count():
    projections = 16 * 32 * 16**2 + 32 * 64 * 8**2
    assert multiply_adds("cifar_resnet20", {"shortcut": "B"}) == by_hand(20) + projections
    assert multiply_adds("cifar_resnet20", {"num_classes": 100}) == by_hand(20) + 64 * 90


def test_larger_images_cost_more():
    assert multiply_adds("cifar_resnet20", size=64) == 4 * (by_hand(20) - FC) + FC


@pytest.mark.parametrize("options", [{}, {"shortcut": "C"}, {"conv_bias": True}])
def test_training_is_three_forward_passes_less_the_gradient_of_the_image(options):
    forward = multiply_adds("cifar_resnet20", options)
    assert training_flops("cifar_resnet20", options) == 2 * (3 * forward - FIRST)


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


def test_bytes_of_parameters_are_fp32_at_every_precision():
    bf16, fp32 = (training_bytes("cifar_resnet20", 128, width) for width in (2, 4))
    assert bf16.parameters == fp32.parameters == 5 * 4 * 269_722
    assert fp32.passing == 2 * bf16.passing


def test_a_projection_shares_its_input_with_the_convolution_beside_it():
    identity, projection = (training_bytes("cifar_resnet20", 1, 2, {"shortcut": s}) for s in "AB")
    assert projection.passing == identity.passing
    assert projection.saved - identity.saved == 2 * 2 * (VALUES[1] + VALUES[2])


def test_shortcuts_are_left_out_so_that_it_stays_a_lower_bound():
    assert training_bytes("cifar_plain20", 4, 2) == training_bytes("cifar_resnet20", 4, 2)


def test_traffic_adds_up():
    assert Traffic(saved=1, passing=10, parameters=100).total == 111


def test_unknown_models_are_refused():
    for count in (multiply_adds, training_flops):
        with pytest.raises(ValueError, match="there is no model"):
            count("resnet20")
