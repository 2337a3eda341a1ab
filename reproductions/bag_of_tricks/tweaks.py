"""He T. et al. 2018, Table 5: tweaks of the residual net's architecture.

    python -m reproductions.bag_of_tricks.tweaks --profile paper --seeds 5
    python -m reproductions.bag_of_tricks.tweaks --dataset imagenet

A net of bottlenecks and its variants B, C and D, each a tweak of the one before (section 4), by the efficient recipe of
Table 4, whose last row is this table's first in the paper: 56 layers on CIFAR-10, ResNet-50 on ImageNet. Training is
not in FP16 but as everywhere else in bf16 on a GPU: Table 4 is about precision.

A row outside the ladder is variant B by the baseline recipe, smaller batches and no zero γ: the paper's section 6 calls
it B-standard and asks of it what better training does for detectors (Tables 8 and 9).
"""

import sys
from pathlib import Path

from reproductions.bag_of_tricks.protocol import Protocol, experiments, write_ladder
from reproductions.harness.experiment import Row
from reproductions.harness.reporting.page import Page

VARIANTS = ("original", "b", "c", "d")


def rows(protocol: Protocol) -> list[Row]:
    """The original net, B, C and D; then B-standard."""
    return [*(row_of(protocol, variant, before) for before, variant in zip((None, *VARIANTS), VARIANTS)),
            b_standard(protocol)]  # fmt: skip


def row_of(protocol: Protocol, variant: str, before: str | None) -> Row:
    """The net in one variant, which comes after another."""
    letter = "" if variant == "original" else variant
    return Row(
        key=variant,
        label=f"{protocol.bottleneck.label}{letter and '-'}{letter.upper()}",
        model=protocol.bottleneck.model,
        recipe=protocol.efficient(),
        data=protocol.data,
        model_options={"variant": variant, "zero_gamma": True},
        reported=f"bot_resnet50{letter}",
        after=before,
    )


def b_standard(protocol: Protocol) -> Row:
    """Variant B, trained as before all tricks."""
    return Row(
        key="b_standard",
        label=f"{protocol.bottleneck.label}-B, standard training",
        model=protocol.bottleneck.model,
        recipe=protocol.baseline(protocol.batch_sizes[0]),
        data=protocol.data,
        model_options={"variant": "b"},
        reported="bot_transfer_b_standard",
        keep_weights=protocol.kept,
    )


def report(page: Page, protocol: Protocol) -> list[Path]:
    """The accuracies and costs beside the paper's, what each tweak does, the ladder, and learning curves."""
    return write_ladder(page, "net", [page.parameters(), page.multiply_adds()], {"": page.results})


EXPERIMENTS = experiments(
    script="bag_of_tricks_tweaks",
    table="Table 5",
    title="Tweaks of bottleneck nets",
    rows=rows,
    report=report,
)

if __name__ == "__main__":
    from reproductions.harness.cli import run_experiment

    sys.exit(run_experiment(EXPERIMENTS))
