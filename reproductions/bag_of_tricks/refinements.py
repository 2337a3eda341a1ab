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

import matplotlib
from matplotlib.figure import Figure

from reproductions.bag_of_tricks.protocol import WITH_MIXUP, Protocol, experiments, write_ladder
from reproductions.harness.experiment import Row, RowResult, Variant
from reproductions.harness.reporting.curves import STEP_PLACES, drawn_seeds, epochs_of, upper_limit
from reproductions.harness.reporting.figure import COLOURS, STYLE, grid, make_figure, save
from reproductions.harness.reporting.frame import curve
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
    label = f"{protocol.teacher.label}-D"
    teacher = Row(
        "teacher", label, protocol.teacher.model, smoothing, protocol.data, NET, keep_weights=min(1, protocol.kept)
    )
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
            model=protocol.bottleneck.model,
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
        *write_ladder(page, f"refinement, {protocol.bottleneck.label}-D", [], {"": page.results}),
        *save(figure, page.plot_path("schedules"), page.description),
    ]


def schedules(rows: dict[str, RowResult], variant: Variant) -> Figure:
    """The learning rate over the epochs (a) and, where there are records, the top-1 accuracy (b).

    As in Figure 3 of Bag of Tricks. ``rows``: what is drawn, by the schedule's name.
    """
    with matplotlib.rc_context(STYLE):
        curves = {name: curve(result.records, "top1_accuracy") for name, result in rows.items()}
        errors = [values for result in rows.values() if (values := curve(result.records, "test_error"))]
        panels = 2 if errors else 1
        figure, axes = make_figure(5.0 * panels, 3.9, panels, variant, share_y=False)
        for index, (name, result) in enumerate(rows.items()):
            line = {
                "color": COLOURS[list(STEP_PLACES.values())[index]],
                "linestyle": ("-", (0, (5, 2)))[index % 2],
                "linewidth": 1.9,
            }
            iterations = _drawn_iterations(result.row.recipe)
            rates = [learning_rate_at(result.row.recipe, iteration) for iteration in iterations]
            axes[0].plot([epochs_of(iteration, result) for iteration in iterations], rates, label=name, **line)
            if (values := curves[name]) is not None:
                x = [epochs_of(iteration, result) for iteration in values.iterations]
                axes[1].plot(x, values.mean, label=name, **line)
                axes[1].fill_between(x, values.low, values.high, color=line["color"], alpha=0.15, linewidth=0)
        axes[0].set(ylabel="learning rate", title="(a) learning rate" if panels > 1 else "", ylim=(0, None))
        if panels > 1:
            seeds = drawn_seeds(list(rows.values()))
            axes[1].set(ylabel="top-1 accuracy (%)", title=f"(b) top-1 accuracy, mean and range of {seeds}")
            axes[1].set_ylim(bottom=100 - upper_limit(errors))
        for axis in axes:
            axis.set(xlabel="epochs", xlim=(0, None))
            grid(axis, "y")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(rows))
        return figure


def _drawn_iterations(recipe: Recipe) -> list[int]:
    """Iterations at which the learning rate is drawn: evenly, and on both sides of where it changes at once."""
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
