"""The floor's arithmetic, and the measurement of what a device can do."""

import pytest
import torch

from benchmarks import floor as floor_module
from benchmarks.floor import Limits, floor, measure_limits
from resnet.models.complexity import training_bytes, training_flops


def test_the_longer_of_arithmetic_and_traffic_is_the_floor():
    flops, traffic = 128 * training_flops("cifar_resnet8"), training_bytes("cifar_resnet8", 128, 2)
    slow_memory = floor("cifar_resnet8", 128, Limits("bf16", 1e18, 1e9))
    assert slow_memory.limited_by == "bytes" and slow_memory.seconds == pytest.approx(traffic.total / 1e9)
    assert slow_memory.seconds_with_cache == pytest.approx(traffic.with_cache / 1e9)
    slow_arithmetic = floor("cifar_resnet8", 128, Limits("bf16", 1e9, 1e18))
    assert slow_arithmetic.limited_by == "FLOPs"
    assert slow_arithmetic.seconds == slow_arithmetic.seconds_with_cache == pytest.approx(flops / 1e9)


def test_activations_in_fp32_are_twice_as_many_bytes():
    bf16, fp32 = (floor("cifar_resnet8", 128, Limits(precision, 1e18, 1e9)) for precision in ("bf16", "fp32"))
    assert 1.9 < fp32.bytes / bf16.bytes < 2 and fp32.flops == bf16.flops


def test_the_best_of_two_measurements_counts():
    assert Limits("fp32", 1.0, 4.0).best(Limits("fp32", 2.0, 3.0)) == Limits("fp32", 2.0, 4.0)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_device_can_do_something(precision, monkeypatch):
    for name, value in (("MATRIX", {"cpu": (64, 128)}), ("CONVOLUTION", (1, 8, 16)), ("BUFFER", {"cpu": 2**20})):
        monkeypatch.setattr(floor_module, name, value)
    limits = measure_limits(torch.device("cpu"), precision)
    assert limits.flops_per_second > 1e6 and limits.bytes_per_second > 1e6 and limits.precision == precision
