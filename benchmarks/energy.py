"""Energy use of a GPU from NVML, if the package nvidia-ml-py and the driver support it."""

from collections.abc import Callable

import torch


def energy_meter(device: torch.device) -> Callable[[], float] | None:
    """Return a function that reads the joules used by the device's GPU so far; None if they are unavailable.

    The energy is the whole GPU's, including all other programs'. The counter is updated every few tens of milliseconds,
    so differences over less than half a second are unreliable.
    """
    if device.type != "cuda":
        return None
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        # By UUID, because NVML numbers GPUs differently from CUDA and ignores CUDA_VISIBLE_DEVICES.
        uuid = torch.cuda.get_device_properties(device).uuid
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return None
    return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1_000
