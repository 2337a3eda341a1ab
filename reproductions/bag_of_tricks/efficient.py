"""He T. et al. 2018, Table 4: heuristics that make training with large batches as accurate as with small ones.

    python -m reproductions.bag_of_tricks.efficient --profile paper --seeds 5
    python -m reproductions.bag_of_tricks.efficient --dataset imagenet

Linear scaling of the learning rate, a warm-up, zero γ, no bias decay and FP16 are added one by one, for the baseline's
batch size and for a large one: ResNet-56 with batches of 128 and 1,024 on CIFAR-10 (in the short profile ResNet-20 with
128 and 512), ResNet-50 with 256 and 1,024 on ImageNet. All rows but the last train in fp32, so that the last step
changes only the precision.

All nets have projections (option B), as the paper's have. With option A, zero γ would leave the channels that a stage
adds at 0 for ever: there the shortcut is 0, too, and ReLU passes no gradient at 0.

The paper's Table 3 gives the minutes per epoch for the first and the last row; a column has the minutes of these runs.
"""

import sys
from dataclasses import replace
from pathlib import Path

from reproductions import reported
from reproductions.bag_of_tricks.protocol import Protocol, experiments, label_of, write_ladder
from reproductions.harness.experiment import Row, RowResult
from reproductions.harness.records import segments
from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.frame import completed
from reproductions.harness.reporting.page import Column, Page
from reproductions.harness.reporting.text import NONE
from resnet.data import TRAIN_IMAGES

REPORTED_BATCH_SIZES = (256, 1_024)
ENDS = ("bot_efficient_256_scaling", "bot_efficient_1024_fp16")  # rows with times in Table 3


def rows(protocol: Protocol) -> list[Row]:
    """Return the ladder for the smaller batch size, then the one for the larger."""
    sizes = zip(protocol.batch_sizes, REPORTED_BATCH_SIZES)
    return [row for batch_size, reported in sizes for row in _ladder(protocol, batch_size, reported)]


def _ladder(protocol: Protocol, batch_size: int, reported: int) -> list[Row]:
    scaling = replace(protocol.baseline(batch_size), precision="fp32")
    warmup = protocol.warmed_up(scaling)
    no_bias_decay = replace(warmup, decay_all=False)
    projections = {"shortcut": "B"}
    zero_gamma = projections | {"zero_gamma": True}
    steps = {
        "scaling": ("linear scaling", scaling, projections),
        "warmup": ("+ LR warm-up", warmup, projections),
        "zero_gamma": ("+ zero γ", warmup, zero_gamma),
        "no_bias_decay": ("+ no bias decay", no_bias_decay, zero_gamma),
        "fp16": ("+ FP16", replace(no_bias_decay, precision="fp16"), zero_gamma),
    }
    before = [None, *steps]
    return [
        Row(
            key=f"{batch_size}_{step}",
            label=f"{label} ({_series(batch_size)})",
            model=protocol.basic,
            recipe=recipe,
            data=protocol.data,
            model_options=options,
            reported=f"bot_efficient_{reported}_{step}",
            after=after and f"{batch_size}_{after}",
        )
        for after, (step, (label, recipe, options)) in zip(before, steps.items())
    ]


def _series(batch_size: int) -> str:
    return f"batch {batch_size:,}"


def report(page: Page, protocol: Protocol) -> list[Path]:
    """Write the accuracies, the effect of each step, a plot of both ladders, and learning curves; return the files."""
    series: dict[str, list[RowResult]] = {}
    for result in page.results:
        series.setdefault(_series(result.row.recipe.batch_size), []).append(result)
    return write_ladder(page, f"heuristic, {label_of(protocol.basic)} (option B)", epoch_minutes(page.results), series)


def epoch_minutes(results: list[RowResult]) -> list[Column]:
    """Return columns of the minutes per epoch: the paper's, where it gives them, and the records'."""
    numbers = [next(iter(reported.in_paper(r.row.reported, "time per epoch")), None) for r in results]
    own = [intervals.mean([_minutes(record) for record in completed(result.records)]) for result in results]
    slow, fast = (next((i for i, n in enumerate(numbers) if n and n.key == key), None) for key in ENDS)
    note = ""
    if slow is not None and fast is not None:
        ratios = [float(numbers[slow].value / numbers[fast].value)]
        if own[slow] and own[fast]:
            ratios.append(own[slow] / own[fast])
        said = f"{ratios[1]:.1f} times in these runs" if len(ratios) > 1 else "not measured here yet"
        note = f" From the first row to the last, an epoch gets {ratios[0]:.1f} times faster in the paper; {said}."
    note = (
        "Minutes per epoch: mean of the runs' shares of their devices' time, evaluations included. Hardware, net and "
        f"data differ from the paper's, so only the ratios are comparable.{note}"
    )
    return [
        Column("minutes per epoch, reported", [str(n or NONE) for n in numbers], shown=any(numbers)),
        Column(
            "minutes per epoch, measured",
            [f"{minutes:.3g}" if minutes else NONE for minutes in own],
            {"epoch_minutes": own},
            note,
            shown=any(own),
        ),
    ]


def _minutes(record: dict) -> float:
    """Return a run's device time per epoch in minutes."""
    run = record["specification"]
    epochs = run["recipe"]["iterations"] * run["recipe"]["batch_size"] / TRAIN_IMAGES[run["data"]]
    return sum(segment["device_seconds"] for segment in segments(record)) / epochs / 60


EXPERIMENTS = experiments(
    script="bag_of_tricks_efficient",
    table="Table 4",
    title="Efficient training with large batches",
    rows=rows,
    report=report,
)

if __name__ == "__main__":
    from reproductions.harness.cli import run_experiment

    sys.exit(run_experiment(EXPERIMENTS))
