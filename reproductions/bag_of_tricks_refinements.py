"""He T. et al. 2018, Table 6: refinements of training, stacked.

    python -m reproductions.bag_of_tricks_refinements --profile paper --seeds 5
    python -m reproductions.bag_of_tricks_refinements --dataset imagenet

Variant D of the net by the efficient recipe, as in the last row of Table 5; then cosine decay, label smoothing,
distillation and mixup (section 5): 56 layers on CIFAR-10, ResNet-50 on ImageNet. The teacher has more layers, 164 and
152, is of variant D too and trained with cosine decay and label smoothing, once; that it was so in the paper is
unconfirmed. Rows with mixup train 200 epochs instead of 120, in proportion on CIFAR-10.

Distillation and mixup are two ways on from label smoothing, so both are compared with that row, and their combination
with mixup alone. Mixup's step has more iterations in it too, here as in the paper.
"""

import sys
from dataclasses import replace
from pathlib import Path

from reproductions.bag_of_tricks import WITH_MIXUP, Protocol, experiments, write_ladder
from reproductions.harness.experiment import Row
from reproductions.harness.reporting import plots
from reproductions.harness.reporting.tables import Page

NET = {"variant": "d", "zero_gamma": True}


def rows(protocol: Protocol) -> list[Row]:
    """Efficient training, and what is stacked on it."""
    efficient = protocol.efficient()
    cosine = replace(efficient, schedule="cosine", milestones=())
    smoothing = replace(cosine, label_smoothing=0.1)
    mixup = replace(smoothing.lengthened(WITH_MIXUP), mixup=0.2)
    teacher = Row(
        key="teacher",
        label=f"{protocol.teacher.label}-D",
        model=protocol.teacher.model,
        recipe=smoothing,
        data=protocol.data,
        model_options=NET,
    )
    steps = [
        ("efficient", "efficient", efficient, None),
        ("cosine", "+ cosine decay", cosine, "efficient"),
        ("smoothing", "+ label smoothing", smoothing, "cosine"),
        ("distilled", "+ distill w/o mixup", distilled(smoothing), "smoothing"),
        ("mixup", "+ mixup w/o distill", mixup, "smoothing"),
        ("mixup_distilled", "+ distill w/ mixup", distilled(mixup), "mixup"),
    ]
    return [
        Row(
            key=key,
            label=label,
            model=protocol.bottleneck.model,
            recipe=recipe,
            data=protocol.data,
            model_options=NET,
            reported=f"bot_refined_{key}",
            teacher=teacher if recipe.temperature else None,
            after=after,
        )
        for key, label, recipe, after in steps
    ]


def distilled(recipe):
    """With the loss between the softened answers of net and teacher (section 5.3)."""
    return replace(recipe, temperature=20.0)


def report(page: Page) -> list[Path]:
    """The accuracies beside the paper's, what each refinement does, the ladder, learning curves, and Figure 3."""
    efficient, cosine, *_ = page.results
    schedules = plots.schedules({"step decay": efficient, "cosine decay": cosine}, page.variant)
    return [
        *write_ladder(page, "refinement", [], {"": page.results}),
        *plots.save(schedules, page.plot_path("schedules"), page.description),
    ]


EXPERIMENTS = experiments(
    script="bag_of_tricks_refinements",
    table="Table 6",
    titles={
        "cifar10": "Refinements of training bottleneck ResNet-56-D on CIFAR-10",
        "imagenet": "Refinements of training ResNet-50-D on ImageNet",
    },
    rows=rows,
    report=report,
)

if __name__ == "__main__":
    from reproductions.harness.cli import run_experiment

    sys.exit(run_experiment(EXPERIMENTS))
