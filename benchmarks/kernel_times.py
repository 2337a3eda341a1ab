"""Times of the fused kernels on a GPU, for each shape of a step, with the usual and with other settings."""

import statistics
from collections.abc import Callable
from dataclasses import replace

import torch

from benchmarks import markdown
from benchmarks.kernel_costs import alike, costs, shape_of, step_launches
from resnet.kernels import launching
from resnet.kernels.launching import SETTINGS, Launch, Settings

CALLS, ROUNDS = 20, 7  # launches in a graph; measurements of the graph
_CONVOLUTIONS = ("convolution", "stem_convolution", "input_gradient")
_WEIGHTS = ("weight_gradient", "stem_weight_gradient")
_PASSES = ("normalize", "normalize_gradient", "output_gradient", "map_statistics")
_REDUCTIONS = ("statistics", "add_parts")
# Other settings, each with the kernels that it affects, including the reductions of these kernels' partial results.
OTHERS: dict[str, tuple[Settings, tuple[str, ...]]] = {
    "256 pixels a block": (replace(SETTINGS, pixels=(256, 256, 256)), (*_CONVOLUTIONS, *_REDUCTIONS)),
    "128 pixels a block": (replace(SETTINGS, pixels=(128, 128, 128)), (*_CONVOLUTIONS, *_REDUCTIONS)),
    "64 pixels a block": (replace(SETTINGS, pixels=(64, 64, 64)), (*_CONVOLUTIONS, *_REDUCTIONS)),
    "512 pixels, 8 warps a block": (replace(SETTINGS, pixels=(512, 256, 64), warps=8), (*_CONVOLUTIONS, *_REDUCTIONS)),
    "2 warps a block": (replace(SETTINGS, warps=2), _CONVOLUTIONS),
    "16 channels a block": (replace(SETTINGS, columns=16), _CONVOLUTIONS),
    "64 channels a block": (replace(SETTINGS, columns=64), _CONVOLUTIONS),
    "2,048 values a block": (replace(SETTINGS, values=2048), (*_PASSES, *_REDUCTIONS)),
    "8,192 values a block": (replace(SETTINGS, values=8192), (*_PASSES, *_REDUCTIONS)),
    "4 steps of 64 pixels": (replace(SETTINGS, weight_steps=4), (*_WEIGHTS, *_REDUCTIONS)),
    "16 steps of 64 pixels": (replace(SETTINGS, weight_steps=16), (*_WEIGHTS, *_REDUCTIONS)),
    "4 steps of 128 pixels": (replace(SETTINGS, weight_pixels=128, weight_steps=4), (*_WEIGHTS, *_REDUCTIONS)),
    "16 output channels a block": (replace(SETTINGS, weight_columns=16), _WEIGHTS),
}


def microseconds(launch: Launch) -> float:
    """Measure the µs of a launch, repeated back to back in a CUDA graph: the median of ROUNDS. Needs a GPU."""
    for _ in range(3):
        launching.start_again(launch)
    torch.cuda.synchronize()
    graph, taken = torch.cuda.CUDAGraph(), []
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            launching.start_again(launch)
    for _ in range(ROUNDS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        taken.append(start.elapsed_time(end) * 1e3 / CALLS)
    return statistics.median(taken)


def times_table(model: str, device: torch.device, capability: int) -> str:
    """Measure one launch of each kernel and shape, and compare it with its two bounds. Needs a GPU."""
    launches = step_launches(model, device=device)
    rows = []
    for cost, same in zip(costs(launches, capability), alike(launches)):
        times = (microseconds(same[0]), cost.issue, cost.memory)
        rows.append([cost.kernel, cost.shape, str(cost.launches), *(markdown.number(time, 1) for time in times)])
    head = ("kernel", "maps and channels", "launches a step", "µs", "issue bound", "memory bound")
    note = (
        "A launch is repeated on the same tensors. If the L2 cache holds them, its time can be below the memory bound."
    )
    return f"{markdown.table(head, rows)}\n{note}\n"


def settings_table(model: str, device: torch.device, say: Callable[[str], None] = lambda text: None) -> str:
    """Measure the effect of other settings, in µs a step of the affected kernels. Needs a GPU."""
    usual, rows = _step_times(step_launches(model, device=device)), []
    for name, (settings, kernels) in OTHERS.items():
        say(name)
        launches = step_launches(model, device=device, settings=settings)
        try:
            times = _step_times([launch for launch in launches if _name(launch) in kernels])
        except Exception as error:  # of many types, for example too little shared memory
            rows.append([name, markdown.NOTHING, f"failed: {(str(error).splitlines() or [type(error).__name__])[0]}"])
            continue
        shown = [f"{' '.join(key)}: {usual[key]:.1f} → {time:.1f}" for key, time in times.items()]
        total = sum(times.values()) - sum(usual[key] for key in times)
        rows.append([name, f"{total:+.1f}", "; ".join(shown)])
    return markdown.table(("setting", "µs a step", "each kernel and shape, µs a step"), rows)


def _step_times(launches: list[Launch]) -> dict[tuple[str, str], float]:
    """Measure the µs a step by kernel and shape."""
    times: dict[tuple[str, str], float] = {}
    for same in alike(launches):
        key = _name(same[0]), shape_of(same[0].constants)
        times[key] = times.get(key, 0.0) + len(same) * microseconds(same[0])
    return times


def _name(launch: Launch) -> str:
    return launch.kernel.fn.__name__
