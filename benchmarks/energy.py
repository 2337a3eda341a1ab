"""Energy of a GPU from NVML, where the package nvidia-ml-py and the driver give it."""

from collections.abc import Callable

import torch


def energy_meter(device: torch.device) -> Callable[[], float] | None:
    """A function that reads the joules which the device's GPU has used so far; None where they can't be had.

    It is the energy of the whole GPU, so also of whatever else runs there. The counter advances in steps of some tens
    of milliseconds: differences over less than half a second say little.
    """
    if device.type != "cuda":
        return None
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        # By UUID, because NVML numbers GPUs differently from CUDA and knows nothing of CUDA_VISIBLE_DEVICES.
        uuid = torch.cuda.get_device_properties(device).uuid
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return None
    return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1_000
