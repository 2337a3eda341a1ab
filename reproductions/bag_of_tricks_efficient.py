"""He T. et al. 2018, Table 4: what makes training with large batches as accurate as with small ones.

    python -m reproductions.bag_of_tricks_efficient --profile paper --seeds 5
    python -m reproductions.bag_of_tricks_efficient --dataset imagenet

Linear scaling of the learning rate, a warm-up, zero γ, no bias decay and FP16, each added to those before, for the
baseline's batch size and for a large one: ResNet-56 with batches of 128 and 1,024 on CIFAR-10 (in the short profile
ResNet-20 with 128 and 512), ResNet-50 with 256 and 1,024 on ImageNet. All rows but the last train in fp32, so that the
last one changes the precision and nothing else.
"""

import sys
from dataclasses import replace
from pathlib import Path

from reproductions.bag_of_tricks import Protocol, experiments, write_ladder
from reproductions.harness.experiment import Row, RowResult
from reproductions.harness.reporting.tables import Page

REPORTED_BATCH_SIZES = (256, 1_024)


def rows(protocol: Protocol) -> list[Row]:
    """The ladder for the smaller batch size, then for the larger one."""
    sizes = zip(protocol.batch_sizes, REPORTED_BATCH_SIZES)
    return [row for batch_size, reported in sizes for row in _ladder(protocol, batch_size, reported)]


def _ladder(protocol: Protocol, batch_size: int, reported: int) -> list[Row]:
    scaling = replace(protocol.baseline(batch_size), precision="fp32")
    warmup = protocol.warmed_up(scaling)
    no_bias_decay = replace(warmup, decay_all=False)
    zero_gamma = {"zero_gamma": True}
    steps = {
        "scaling": ("linear scaling", scaling, {}),
        "warmup": ("+ LR warm-up", warmup, {}),
        "zero_gamma": ("+ zero γ", warmup, zero_gamma),
        "no_bias_decay": ("+ no bias decay", no_bias_decay, zero_gamma),
        "fp16": ("+ FP16", replace(no_bias_decay, precision="fp16"), zero_gamma),
    }
    before = [None, *steps]
    return [
        Row(
            key=f"{batch_size}_{step}",
            label=f"{label} ({_series(batch_size)})",
            model=protocol.basic.model,
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
    """The accuracies beside the paper's, what each step does, both ladders in one plot, and learning curves."""
    series: dict[str, list[RowResult]] = {}
    for result in page.results:
        series.setdefault(_series(result.row.recipe.batch_size), []).append(result)
    return write_ladder(page, f"heuristic, {protocol.basic.label}", [], series)


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
