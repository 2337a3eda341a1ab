"""Breakdown of a training step with the library's kernels and the fused ones (resnet/kernels, not yet run on a GPU).

    python -m benchmarks.kernels                     on a GPU: the parts of a step, each kernel, images per second
    python -m benchmarks.kernels --models cifar_resnet56 --pack 1 16
    python -m benchmarks.kernels --settings          on a GPU, in minutes: other settings of the kernels
    python -m benchmarks.kernels --costs 90          anywhere: the kernels' costs from their instructions

``--costs`` takes a compute capability (80: A100, 90: H100). It compiles the kernels without running them, and prints
registers, spilled bytes, shared memory, and the two bounds of :mod:`benchmarks.kernel_costs`.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks import markdown
from benchmarks.command import stopwatch
from benchmarks.measuring import IMAGES, measure_in_turn, random_images, ratio
from benchmarks.packs import build_packs, measured_run, reserved
from resnet.data.resident import ResidentData
from resnet.device import find_device, synchronized_time
from resnet.kernels import FUSED, LIBRARY
from resnet.recipe import Recipe
from resnet.run import Run
from resnet.trainer import Trainer

STEPS = 20  # profiled steps
REST = "everything else"
_FUSED_PARTS = {
    "convolution": "forward convolutions",
    "stem_convolution": "forward convolutions",
    "input_gradient": "input gradients",
    "weight_gradient": "weight gradients",
    "stem_weight_gradient": "weight gradients",
    "map_statistics": "BN",
    "statistics": "BN",
    "normalize": "BN",
    "output_gradient": "BN",
    "normalize_gradient": "BN",
    "add_parts": "last sums",
}
_LIBRARY_PARTS = {  # by words in the names of the library's kernels
    "wgrad": "weight gradients",
    "convertTensor": "weight gradients",  # format conversions
    "dgrad": "input gradients",
    "fprop": "forward convolutions",
    "batch_norm": "BN",
    "batchnorm": "BN",
}
PARTS = (*dict.fromkeys([*_FUSED_PARTS.values(), REST]),)

Kernels = dict[str, tuple[float, float]]  # launches and µs of a step by a kernel's name


def part_of(kernel: str) -> str:
    """Return the part of a step, one of PARTS, that a kernel of this name belongs to."""
    if kernel in _FUSED_PARTS:
        return _FUSED_PARTS[kernel]
    return next((part for known, part in _LIBRARY_PARTS.items() if known in kernel), REST)


def kernels_of_step(trainer: Trainer) -> Kernels:
    """Profile the kernels of a training step, or on a CPU its operators, with torch.profiler; the longest come first.

    Raises RuntimeError if the profiler sees none.
    """
    device, cuda = trainer.device, trainer.device.type == "cuda"
    profiled = partial(profile, activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU])
    with profiled():  # so that the profiler is initialised before the step is recorded
        torch.zeros(1, device=device)
        synchronized_time(device)
    trainer.step()  # records the graph
    synchronized_time(device)
    with profiled() as profiler:
        for _ in range(STEPS):
            trainer.step()
        synchronized_time(device)
    kernels = {}
    for event in profiler.key_averages():
        if event.device_type == (DeviceType.CUDA if cuda else DeviceType.CPU) and not event.is_user_annotation:
            microseconds = event.self_device_time_total if cuda else event.self_cpu_time_total
            kernels[event.key] = event.count / STEPS, microseconds / STEPS
    if not kernels:
        raise RuntimeError("the profiler saw no kernel")
    return dict(sorted(kernels.items(), key=lambda kernel: -kernel[1][1]))


def parts_table(library: Kernels, fused: Kernels) -> str:
    """Compare the parts of a step with the library's and the fused kernels."""

    def cells(kernels: Kernels, names: tuple[str, ...]) -> list[str]:
        own = [values for kernel, values in kernels.items() if part_of(kernel) in names]
        launches, microseconds = (sum(column) for column in zip(*own, strict=True)) if own else (0.0, 0.0)
        return [markdown.number(launches), markdown.number(microseconds)]

    rows = [[part, *cells(library, (part,)), *cells(fused, (part,))] for part in PARTS]
    rows.append(["all", *cells(library, PARTS), *cells(fused, PARTS)])
    return markdown.table(("part of a step", "library: launches", "µs", "fused: launches", "µs"), rows)


def rates_table(model: str, data: ResidentData, widths: list[int], rounds: int, seconds: float) -> str:
    """Measure the images per second of one run and of packs, with the library's and the fused kernels in turn."""
    packs, left_out = {}, []
    for kernels in (LIBRARY, FUSED):
        runs = [measured_run(Run(model, Recipe(kernels=kernels), seed=seed)) for seed in range(max(widths))]
        for built in build_packs(runs, widths, data, reserved(data.device), lambda text: None):
            if built.pack is None:
                left_out.append(f"{kernels}, {built.width} at once: {built.left_out}\n")
            else:
                packs[kernels, built.width] = built.pack
    rates = measure_in_turn(packs, rounds, seconds, data.device)
    rows = []
    for width in (width for width in widths if {(LIBRARY, width), (FUSED, width)} <= rates.keys()):
        before, after = rates[LIBRARY, width], rates[FUSED, width]
        both = [markdown.spread(rate.images_per_second) for rate in (before, after)]
        rows.append([str(width), *both, markdown.number(ratio(after, before), 2)])
    head = ("runs at once", "library, images/s", "fused, images/s", "fused over library")
    return markdown.table(head, rows) + "".join(left_out)


def measure(
    models: list[str], device: torch.device, widths: list[int], rounds: int, seconds: float,
    say: Callable[[str], None] = lambda text: None,
) -> str:  # fmt: skip
    """Measure and render a table of parts, of rates and of kernels for each model. Needs a GPU."""
    from benchmarks import kernel_costs, kernel_times  # need Triton

    major, minor = torch.cuda.get_device_capability(device)
    capability = 10 * major + minor if 10 * major + minor in kernel_costs.GPUS else 90
    data, pages = ResidentData(random_images(IMAGES, 1), None, device), []
    for model in models:
        kernels = {}
        for which in (LIBRARY, FUSED):
            say(f"{model}: a step with the {which} kernels")
            trainer = Trainer(measured_run(Run(model, Recipe(kernels=which))), data)
            kernels[which] = kernels_of_step(trainer)
        pages += [f"## {model}, {trainer.precision}\n", parts_table(kernels[LIBRARY], kernels[FUSED])]
        say(f"{model}: rates")
        pages.append(rates_table(model, data, widths, rounds, seconds))
        say(f"{model}: each kernel")
        pages.append(kernel_times.times_table(model, device, capability))
        pages.append(f"The bounds are for {kernel_costs.GPUS[capability].name}, in µs a launch.\n")
    return "\n".join(pages)


def costs_page(model: str, capability: int, dtype: torch.dtype) -> str:
    """Render the cost of each kernel of a step on a kind of GPU, without needing one."""
    from benchmarks import kernel_costs

    rows = [
        [
            cost.kernel, cost.shape, *map(str, (cost.launches, cost.blocks, cost.warps, cost.registers, cost.stack)),
            *map(str, (cost.shared, cost.resident, cost.instructions)),
            *(markdown.number(cost.launches * bound, 1) for bound in (cost.issue, cost.memory)),
        ]
        for cost in kernel_costs.costs(kernel_costs.step_launches(model, dtype), capability)
    ]  # fmt: skip
    head = ("kernel", "maps and channels", "launches a step", "blocks", "warps", "registers", "spilled bytes",
            "shared bytes", "blocks that fit", "instructions", "issue bound, µs a step",
            "memory bound, µs a step")  # fmt: skip
    return f"## {model} on {kernel_costs.GPUS[capability].name}\n\n{markdown.table(head, rows)}"


def main(argv: list[str] | None = None) -> int:
    """Print the pages; return the exit status: 2 without Triton, or without both a GPU and ``--costs``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--models", nargs="+", default=["cifar_resnet20"])
    add("--pack", nargs="+", type=int, default=[1, 8], help="numbers of runs at once whose rates are measured")
    add("--rounds", type=int, default=10)
    add("--seconds", type=float, default=0.5, help="length of a round")
    add("--device", default="auto")
    add("--costs", type=int, choices=(80, 90), metavar="80|90", help="count instructions for a compute capability")
    add("--settings", action="store_true", help="measure other settings of the kernels")
    add("--dtype", choices=("bfloat16", "float16"), default="bfloat16", help="with --costs")
    options = parser.parse_args(argv)
    try:
        if options.costs:
            for model in options.models:
                print(costs_page(model, options.costs, getattr(torch, options.dtype)))
            return 0
        device = find_device(options.device)
        if device.type != "cuda":
            raise ValueError("there is no CUDA GPU here; --costs 90 needs none")
        if options.settings:
            from benchmarks.kernel_times import settings_table  # needs Triton

            for model in options.models:
                print(f"## {model}\n\n{settings_table(model, device, stopwatch())}")
            return 0
        print(measure(options.models, device, options.pack, options.rounds, options.seconds, stopwatch()))
    except (ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
