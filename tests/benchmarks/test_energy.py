"""The energy meter, with a module in place of NVML."""

import sys
from types import SimpleNamespace

import pytest
import torch

from benchmarks.energy import energy_meter

CUDA = torch.device("cuda", 0)


class NVMLError(Exception):
    pass


def fake_nvml(**functions):
    readings = iter([5_000, 6_000, 7_500])
    values = {
        "NVMLError": NVMLError,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
        "nvmlDeviceGetTotalEnergyConsumption": lambda handle: next(readings),
    }
    return SimpleNamespace(**{**values, **functions})


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="12-34"))


def test_millijoules_become_joules(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml())
    joules = energy_meter(CUDA)
    assert (joules(), joules()) == (6.0, 7.5)


def test_the_gpu_is_found_by_its_uuid(monkeypatch):
    found = []
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(nvmlDeviceGetHandleByUUID=found.append))
    energy_meter(CUDA)
    assert found == ["GPU-12-34"]


def test_without_the_package_there_is_no_meter(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy_meter(CUDA) is None


def test_a_gpu_that_does_not_tell_has_no_meter(monkeypatch):
    def refuse(handle):
        raise NVMLError("not supported")

    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(nvmlDeviceGetTotalEnergyConsumption=refuse))
    assert energy_meter(CUDA) is None


def test_a_cpu_has_no_meter():
    assert energy_meter(torch.device("cpu")) is None
