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


def test_millijoules_of_the_gpu_with_this_uuid_become_joules(monkeypatch):
    found = []
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(nvmlDeviceGetHandleByUUID=found.append))
    joules = energy_meter(CUDA)
    assert found == ["GPU-12-34"] and (joules(), joules()) == (6.0, 7.5)


def refuse(handle):
    raise NVMLError("not supported")


@pytest.mark.parametrize(
    ("device", "nvml"),
    [("cpu", fake_nvml()), ("cuda", None), ("cuda", fake_nvml(nvmlDeviceGetTotalEnergyConsumption=refuse))],
    ids=["a CPU", "no package", "a GPU that does not tell"],
)
def test_there_may_be_no_meter(monkeypatch, device, nvml):
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert energy_meter(torch.device(device)) is None
