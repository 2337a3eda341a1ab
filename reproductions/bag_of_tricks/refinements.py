"""He T. et al. 2018, Table 6: refinements of training, stacked.

    python -m reproductions.bag_of_tricks.refinements --profile paper --seeds 5
    python -m reproductions.bag_of_tricks.refinements --dataset imagenet

The first row is variant D with the efficient recipe, as in the last row of Table 5; cosine decay, label smoothing,
distillation and mixup are added to it (section 5): 56 layers on CIFAR-10, ResNet-50 on ImageNet. The teacher has more
layers (164 and 152), is of variant D, too, and is trained once, with cosine decay and label smoothing; whether the
paper's was trained so is unconfirmed. The teacher for distillation with mixup is trained with mixup: section 5.5 says
so, and the authors released such a net (resnet152_v1d-mixup). Rows with mixup train 200 epochs instead of 120, like the
authors' script for them (resnet50_v1d-mixup), and in proportion on CIFAR-10.

Distillation and mixup are both added to label smoothing and compared with that row; their combination is compared with
mixup alone. The step to mixup includes its additional iterations, here and in the paper.

Where the authors' scripts differ from the text, or the text is ambiguous, there are rows on request (``--rows
smoothing_all,mixup_reversed,distilled_half``): smoothing over all classes, mixup with the reversed batch of each GPU,
and a weight of one half for each of distillation's losses.
"""

import sys
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from reproductions.bag_of_tricks.protocol import WITH_MIXUP, Protocol, experiments, label_of, write_ladder
from reproductions.harness.experiment import Row, RowResult, Variant
from reproductions.harness.reporting.curves import DASHES, STEP_PLACES, draw_curve, epochs_of, limits
from reproductions.harness.reporting.figure import DOUBLE, SINGLE, legend_below, look, make_figure, named, save, styled
from reproductions.harness.reporting.frame import completed, curve
from reproductions.harness.reporting.page import Page
from resnet.recipe import Recipe, learning_rate_at

NET = {"variant": "d", "zero_gamma": True}
FORMS = ("smoothing_all", "mixup_reversed", "distilled_half")  # rows on request
BEGINNINGS = ("efficient", "smoothing")  # rows whose weights initialise later trainings (section 6)


def rows(protocol: Protocol) -> list[Row]:
    """Return the rows: efficient training, the refinements added to it, and other forms of them."""
    efficient = protocol.efficient()
    cosine = replace(efficient, schedule="cosine", milestones=())
    smoothing = replace(cosine, label_smoothing=0.1)
    mixup = replace(smoothing.lengthened(WITH_MIXUP), mixup=0.2)
    label = f"{label_of(protocol.teacher)}-D"
    kept = min(1, protocol.kept)
    teacher = Row("teacher", label, protocol.teacher, smoothing, protocol.data, NET, keep_weights=kept)
    mixup_teacher = replace(teacher, key="teacher_mixup", label=f"{label} with mixup", recipe=mixup)
    steps = [
        ("efficient", "efficient", efficient, None, None),
        ("cosine", "+ cosine decay", cosine, "efficient", None),
        ("smoothing", "+ label smoothing", smoothing, "cosine", None),
        ("distilled", "+ distill w/o mixup", distilled(smoothing), "smoothing", teacher),
        ("mixup", "+ mixup w/o distill", mixup, "smoothing", None),
        ("mixup_distilled", "+ distill w/ mixup", distilled(mixup), "mixup", mixup_teacher),
        # Other forms of these steps, each compared with the row that it departs from.
        ("smoothing_all", "+ label smoothing over all classes",
         replace(smoothing, smoothed_over="all"), "smoothing", None),
        ("mixup_reversed", "+ mixup with the reversed batch", replace(mixup, mixup_partner="reversed"), "mixup", None),
        ("distilled_half", "+ distill w/o mixup, a half of either loss",
         replace(distilled(smoothing), hard_weight=0.5), "distilled", teacher),
    ]  # fmt: skip
    return [
        Row(
            key=key,
            label=label,
            model=protocol.bottleneck,
            recipe=recipe,
            data=protocol.data,
            model_options=NET,
            reported=None if key in FORMS else f"bot_refined_{key}",
            teacher=teacher,
            after=after,
            on_request=key in FORMS,
            keep_weights=protocol.kept if key in BEGINNINGS else 0,
        )
        for key, label, recipe, after, teacher in steps
    ]


def distilled(recipe):
    """Return the recipe with distillation from softened teacher outputs (section 5.3)."""
    return replace(recipe, temperature=20.0)


def report(page: Page, protocol: Protocol) -> list[Path]:
    """Write the accuracies, effects of refinements, ladder, learning curves, and Figure 3; return the files."""
    efficient, cosine, *_ = page.results
    figure = schedules({"step decay": efficient, "cosine decay": cosine}, page.variant)
    return [
        *write_ladder(page, f"refinement, {label_of(protocol.bottleneck)}-D", [], {"": page.results}),
        *save(figure, page.plot_path("schedules"), page.description),
    ]


@styled
def schedules(rows: dict[str, RowResult], variant: Variant) -> Figure:
    """Draw the learning rate over the epochs (a) and, where there are records, the top-1 accuracy (b).

    As in Figure 3 of Bag of Tricks. ``rows``: the rows that are drawn, by the schedule's name.
    """
    trained = [result for result in rows.values() if completed(result.records)]
    titles = ["learning rate", "top-1 accuracy, mean and range of seeds"][: 2 if trained else 1]
    data = [result.row.data for result in rows.values()]
    figure, axes = make_figure(DOUBLE if trained else SINGLE, 2.2, titles, variant, data, share_y=False)
    legend = {}
    for place, (name, result) in zip(STEP_PLACES.values(), rows.items()):
        iterations = _drawn_iterations(result.row.recipe)
        rates = [learning_rate_at(result.row.recipe, iteration) for iteration in iterations]
        x, line = [epochs_of(iteration, result) for iteration in iterations], DASHES if legend else "-"
        (legend[named(name, result.records)],) = axes[0].plot(x, rates, color=look(place)[0], linestyle=line)
        if (values := curve(result.records, "top1_accuracy")) is not None:
            draw_curve(axes[1], values, place, 1 / epochs_of(1, result))
    axes[0].set(ylabel="learning rate", ylim=(0, None))
    if trained:
        axes[1].set(ylabel="top-1 accuracy (%)", ylim=(100 - limits(trained)[1], None))
    for axis in axes:
        axis.set(xlabel="epochs", xlim=(0, None))
    legend_below(figure, legend)
    return figure


def _drawn_iterations(recipe: Recipe) -> list[int]:
    """Return the iterations at which the learning rate is drawn: even ones, and both sides of every jump."""
    even = range(0, recipe.iterations, max(1, recipe.iterations // 400))
    corners = [recipe.linear_warmup, recipe.iterations - 1]
    corners += [iteration for milestone in recipe.milestones for iteration in (milestone - 1, milestone)]
    return sorted({*even, *(i for i in corners if 0 <= i < recipe.iterations)})


EXPERIMENTS = experiments(
    script="bag_of_tricks_refinements",
    table="Table 6",
    title="Refinements of training",
    rows=rows,
    report=report,
)

if __name__ == "__main__":
    from reproductions.harness.cli import run_experiment

    sys.exit(run_experiment(EXPERIMENTS))
