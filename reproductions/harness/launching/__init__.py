"""Three launchers for the same work: in this process, on this machine's slots, on a SLURM cluster.

A launcher is a function ``launch(runs, paths, display, options)`` that trains the runs that have no record yet and
returns an :class:`~reproductions.harness.launching.worker.Outcome`; all its processes call ``worker.execute``.
"""

from collections.abc import Callable

NAMES = ("auto", "inline", "local", "slurm")


def choose(name: str, device: str = "auto", runs: int = 1) -> tuple[str, Callable]:
    """Import and return the launcher of that name, and its own name.

    "auto" is local on several GPUs, and on a processor with at least as many ``runs`` to train as cores: a small net on
    each core is faster than one on all of them. Otherwise it is inline.
    """
    if name == "auto":
        import torch

        from resnet.device import available_cores

        gpus = torch.cuda.device_count() if device in ("auto", "cuda") else 0
        on_processor = device == "cpu" or (device == "auto" and gpus == 0)
        name = "local" if gpus > 1 or (on_processor and runs >= available_cores() > 1) else "inline"
    if name == "inline":
        from reproductions.harness.launching.inline import launch
    elif name == "local":
        from reproductions.harness.launching.local import launch
    elif name == "slurm":
        from reproductions.harness.launching.slurm.launch import launch
    else:
        raise ValueError(f"there is no launcher {name!r}; available launchers: {', '.join(NAMES)}")
    return name, launch
