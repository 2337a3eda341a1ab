"""Benchmark of training throughput: a conventional loop, one run, packed runs, and the device's lower bound.

    python -m benchmarks.throughput
    python -m benchmarks.throughput --models cifar_resnet20 --rounds 5 --seconds 3
    python -m benchmarks.throughput --models cifar_bottleneck56:variant=d,zero_gamma=true    # with a row's options
    python -m benchmarks.throughput --pack 2 4 8 --no-table             # on a GPU

These are measured in turn in one process, on the same random images: (1) the conventional loop, torchvision's
transforms per image in a DataLoader with workers, fp32, eager, NCHW; (2) one run of ``resnet.trainer``; (3) on a GPU,
packs of such runs, with their memory and energy. They are compared with (4) the floor, see :mod:`benchmarks.floor`. On
a GPU, mixed packs then show the total time of Table 6's runs. Writes ``results/benchmarks/throughput-<device>.md`` and
``.json`` after each model, so results are kept if it is stopped.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, replace

import torch

from benchmarks import markdown, packs
from benchmarks.command import make_parser, parse, stopwatch
from benchmarks.conventional import ConventionalLoop
from benchmarks.energy import energy_meter
from benchmarks.floor import Limits, floor, measure_limits
from benchmarks.measuring import BATCH, IMAGES, Loop, measure_in_turn, random_images, ratio
from benchmarks.nets import make_net, run_of
from benchmarks.packs import Built, build_packs, measured_run
from benchmarks.results import CONVENTIONAL, ModelResult, Results, Row, TableResult, TableRow, judged, write
from reproductions import cifar_table
from reproductions.harness import provenance
from resnet.data import ImageDataset
from resnet.data.resident import ResidentData
from resnet.device import available_cores, resolve_precision, synchronized_time
from resnet.run import Run
from resnet.trainer import Trainer

TABLE_SEEDS = 5
_DEFAULTS = {  # by the type of device
    "cpu": {"models": ["cifar_resnet20", "cifar_resnet56"], "pack": [], "seconds": 3.0, "table": False},
    "cuda": {
        "models": ["cifar_resnet20", "cifar_resnet56", "cifar_resnet110"],
        "pack": [2, 4, 8, 16, 32],
        "seconds": 0.6,
        "table": True,
    },
}


def measure_model(
    model: str,
    widths: list[int],
    dataset: ImageDataset,
    device: torch.device,
    rounds: int,
    seconds: float,
    workers: int,
    say: Callable[[str], None] = lambda text: None,
) -> ModelResult:
    """Measure the conventional loop, one run and packs of ``widths``, in turn."""
    packs.free_unused(device)
    before = packs.reserved(device)
    data = ResidentData(dataset, None, device)
    runs = [measured_run(run_of(model, seed=seed)) for seed in range(max(widths, default=1))]
    built = build_packs(runs, [1, *widths], data, before, say)

    # Created last, because a graph can't be recorded while the DataLoader's thread pins memory.
    packs.free_unused(device)
    before = packs.reserved(device)
    images, labels = dataset.train_images, dataset.train_labels
    conventional = ConventionalLoop(model, images, labels, BATCH, device, workers)
    conventional.advance(2)
    conventional_memory = packs.memory_gib(device, before)

    loops: dict[str, Loop] = {CONVENTIONAL: conventional}
    loops |= {_name(pack): pack.pack for pack in built if pack.pack is not None}
    say(f"measuring {len(loops)} loops, {rounds} rounds")
    rates = measure_in_turn(loops, rounds, seconds, device, energy_meter(device))

    rows = [Row(CONVENTIONAL, 1, rates[CONVENTIONAL], conventional_memory, 1.0)]
    for pack in built:
        if pack.pack is None:
            rows.append(Row("packed", pack.width, left_out=pack.left_out))
            continue
        own = rates[_name(pack)]
        rows.append(
            Row(
                "one run" if pack.width == 1 else "packed",
                pack.width,
                own,
                pack.memory_gib,
                ratio(own, rates[CONVENTIONAL]),
            )
        )
    return ModelResult(model, tuple(rows))


def _name(built: Built) -> str:
    return f"packed {built.width}"


def table_runs(seeds: int = TABLE_SEEDS) -> list[Run]:
    """Return the runs of Table 6, ordered by seed."""
    rows = [row for row in cifar_table.rows("paper") if not row.on_request]
    return [Run(row.model, row.recipe, seed=seed) for seed in range(seeds) for row in rows]


def measure_table(
    runs: list[Run],
    seeds_at_once: list[int],
    dataset: ImageDataset,
    device: torch.device,
    rounds: int,
    seconds: float,
    say: Callable[[str], None] = lambda text: None,
) -> TableResult:
    """Estimate the time that ``runs`` (ordered by seed) take, from the rates of mixed packs of them."""
    packs.free_unused(device)
    before = packs.reserved(device)
    data = ResidentData(dataset, None, device)
    nets = list(dict.fromkeys(run.model for run in runs))
    widths = [len(nets) * seeds for seeds in seeds_at_once]
    built = build_packs([measured_run(run) for run in runs], widths, data, before, say)
    loops: dict[str, Loop] = {_name(pack): pack.pack for pack in built if pack.pack is not None}
    say(f"measuring {len(loops)} mixed packs, {rounds} rounds")
    rates = measure_in_turn(loops, rounds, seconds, device, energy_meter(device))

    images = sum(run.recipe.iterations * run.recipe.batch_size for run in runs)
    rows = []
    for pack in built:
        row = TableRow(pack.width // len(nets), pack.width, left_out=pack.left_out)
        if pack.pack is not None:
            own = rates[_name(pack)]
            row = replace(row, rates=own, memory_gib=pack.memory_gib, minutes=images / own.median / 60)
        rows.append(row)

    say("measuring evaluations")
    evaluations = runs[0].recipe.iterations // runs[0].recipe.eval_interval
    one_of_each = built[0].pack.trainers[: len(nets)] if built[0].pack else []
    evaluation = sum(_evaluation_seconds(trainer) for trainer in one_of_each)
    return TableResult(
        tuple(nets),
        len(runs),
        runs[0].recipe.iterations,
        evaluations,
        tuple(rows),
        evaluation * evaluations * (len(runs) // len(nets)) / 60,
    )


def floor_minutes(runs: list[Run], limits: Limits) -> float:
    """Return the minutes of training all runs at the floor's rate."""
    floors = {model: floor(model, BATCH, limits).seconds for model in {run.model for run in runs}}
    return sum(run.recipe.iterations * floors[run.model] for run in runs) / 60


def _evaluation_seconds(trainer: Trainer) -> float:
    """Measure the seconds of the second evaluation, because the first one also prepares kernels."""
    for _ in range(2):
        trainer.step()
        start = synchronized_time(trainer.device)
        trainer.evaluate()
        seconds = synchronized_time(trainer.device) - start
    return seconds


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line, with the device's defaults filled in and ``device`` a torch.device."""
    parser = make_parser(__doc__, round_help="length of a round of one loop (default: 0.6 on a GPU, else 3)")
    parser.add_argument(
        "--models",
        nargs="+",
        help="default: ResNet-20 and 56, on a GPU also 110; with options: cifar_resnet20:shortcut=B",
    )
    parser.add_argument("--pack", nargs="*", type=int, metavar="N", help="runs at once (default on a GPU: 2 to 32)")
    parser.add_argument(
        "--workers", type=int, default=available_cores(), help="DataLoader workers (default: all cores)"
    )
    parser.add_argument("--images", type=int, default=IMAGES, help="training images of the random data set")
    parser.add_argument("--table", action=argparse.BooleanOptionalAction, help="measure Table 6's packs (on a GPU)")
    parser.add_argument("--table-seeds", nargs="+", type=int, default=[1, 2, TABLE_SEEDS], metavar="N",
                        help="seeds of each net of Table 6 at once")  # fmt: skip
    options = parse(parser, argv)
    for name, value in _DEFAULTS[options.device.type].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.device.type != "cuda" and (options.pack or options.table):
        parser.error("--pack and --table need a CUDA GPU: on a CPU runs train one after another")
    if options.workers < 0 or options.images < BATCH:
        parser.error(f"--workers must be at least 0, --images at least {BATCH}")
    if any(width < 2 for width in options.pack):
        parser.error("--pack: a pack has at least 2 runs; one run is measured anyway")
    if not all(1 <= seeds <= TABLE_SEEDS for seeds in options.table_seeds):
        parser.error(f"--table-seeds must be from 1 to {TABLE_SEEDS}")
    for model in options.models:
        try:
            with torch.device("meta"):
                make_net(model)
        except ValueError as error:
            parser.error(str(error))
    return options


def main(argv: list[str] | None = None) -> int:
    """Measure, write the page after each model, and print it; return the exit status.

    0: measured. 2, from the parser: invalid options.
    """
    options, say = _arguments(argv), stopwatch()
    device = options.device
    precision = resolve_precision("auto", device)
    say(f"measuring the limits of {provenance.device_name(device)}")
    dataset = random_images(options.images)
    results = Results(
        **provenance.origin(device),
        batch=BATCH,
        rounds=options.rounds,
        seconds=options.seconds,
        workers=options.workers,
        limits=measure_limits(device, precision),
    )

    def keep(results: Results, **changes) -> Results:
        """Measure the limits again, compare all results with the best of them, and write the results."""
        results = replace(results, **changes, limits=results.limits.best(measure_limits(device, precision)))
        judged_models = tuple(judged(result, results.limits, BATCH) for result in results.models)
        results = replace(results, models=judged_models)
        if results.table:
            results = replace(
                results, table=replace(results.table, floor_minutes=floor_minutes(table_runs(), results.limits))
            )
        write(options.out, "throughput", results.hardware["device"], asdict(results), markdown.page(results))
        return results

    for model in options.models:
        result = measure_model(
            model, options.pack, dataset, device, options.rounds, options.seconds, options.workers,
            say=lambda text, model=model: say(f"{model}: {text}"),
        )  # fmt: skip
        results = keep(results, models=(*results.models, result))
    if options.table:
        result = measure_table(
            table_runs(), options.table_seeds, dataset, device, options.rounds, options.seconds,
            say=lambda text: say(f"Table 6: {text}"),
        )  # fmt: skip
        results = keep(results, table=result)
    say("done")
    print(markdown.page(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
