"""He T. et al. 2018, Table 5: tweaks of the residual net's architecture.

    python -m reproductions.bag_of_tricks.tweaks --profile paper --seeds 5
    python -m reproductions.bag_of_tricks.tweaks --dataset imagenet

A bottleneck net and its variants B, C and D, each with one more tweak (section 4), are trained by the efficient recipe
of Table 4, whose last row is this table's first in the paper: 56 layers on CIFAR-10, ResNet-50 on ImageNet. The
precision is not FP16 but "auto" (bf16 on a GPU), as in the other tables: Table 4 is about precision.

A row outside the ladder is variant B by the baseline recipe, with smaller batches and without zero γ. The paper's
section 6 calls it B-standard, the baseline for the effect of better training on detectors (Tables 8 and 9). Two rows
on request are variants B and C by the efficient recipe without zero γ, to separate the effect of the deeper stem from
the effect of residual branches that start at zero.
"""

import sys
from dataclasses import replace
from pathlib import Path

from reproductions.bag_of_tricks.protocol import Protocol, experiments, label_of, write_ladder
from reproductions.harness.experiment import Row
from reproductions.harness.reporting.page import Page

VARIANTS = ("original", "b", "c", "d")


def rows(protocol: Protocol) -> list[Row]:
    """Return the rows: the original net, variants B, C and D, then B-standard, B and C without zero γ."""
    return [*(row_of(protocol, variant, before) for before, variant in zip((None, *VARIANTS), VARIANTS)),
            b_standard(protocol), *(without_zero_gamma(protocol, variant) for variant in ("b", "c"))]  # fmt: skip


def row_of(protocol: Protocol, variant: str, before: str | None) -> Row:
    """Return the row of one variant, which is compared with the variant ``before``."""
    letter = "" if variant == "original" else variant
    return Row(
        key=variant,
        label=f"{label_of(protocol.bottleneck)}{letter and '-'}{letter.upper()}",
        model=protocol.bottleneck,
        recipe=protocol.efficient(),
        data=protocol.data,
        model_options={"variant": variant, "zero_gamma": True},
        reported=f"bot_resnet50{letter}",
        after=before,
    )


def without_zero_gamma(protocol: Protocol, variant: str) -> Row:
    """Return the row, on request, of one variant whose residual branches do not start at zero."""
    row = row_of(protocol, variant, None)
    return replace(
        row,
        key=f"{variant}_without_zero_gamma",
        label=f"{row.label}, efficient without zero γ",
        model_options={"variant": variant},
        reported=None,
        on_request=True,
    )


def b_standard(protocol: Protocol) -> Row:
    """Return the row of variant B trained without tricks."""
    return Row(
        key="b_standard",
        label=f"{label_of(protocol.bottleneck)}-B, standard training",
        model=protocol.bottleneck,
        recipe=protocol.baseline(protocol.batch_sizes[0]),
        data=protocol.data,
        model_options={"variant": "b"},
        reported="bot_transfer_b_standard",
        keep_weights=protocol.kept,
    )


def report(page: Page, protocol: Protocol) -> list[Path]:
    """Write the accuracies and costs, the effect of each tweak, ladder, and learning curves; return the files."""
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
