"""He et al. 2015, Table 6: test error of ResNet-20 to ResNet-110 on CIFAR-10, or on CIFAR-100, which it does not have.

    python -m reproductions.cifar_table --profile paper --seeds 5
    python -m reproductions.cifar_table --dataset cifar100
    python -m reproductions.cifar_table --profile paper --seeds 1 --rows resnet1202

Every net is trained by the recipe of section 4.2, which ``Recipe()`` has as defaults: 64,000 iterations of batch 128,
learning rate 0.1 divided by 10 at 32,000 and 48,000. Only ResNet-110 has a warm-up: learning rate 0.01 until the
training error is below 80 %. The short profile has a sixteenth of the iterations, and a linear warm-up for all nets.

ResNet-1202 is trained on request only (``--rows resnet1202``), like ResNet-110: the paper says only that it was trained
like the others. It has 11 times the layers. If they exceed a GPU's memory, a recipe with ``batch_norm_size=64``
accumulates the gradients of two halves of a batch, like the paper's two GPUs.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reproductions import reported
from reproductions.harness.experiment import Experiment, Row, RowResult, Variant
from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.claims import RULED_OUT, Claim, Finding, claims_numbers, claims_section, judge
from reproductions.harness.reporting.curves import learning_curves
from reproductions.harness.reporting.figure import (
    GREY,
    HOLLOW,
    INK,
    OWN,
    SINGLE,
    bars,
    caption,
    legend_below,
    make_figure,
    save,
    styled,
)
from reproductions.harness.reporting.found import Found, of_findings
from reproductions.harness.reporting.frame import METRICS, completed, final_values
from reproductions.harness.reporting.page import Column, Page
from reproductions.harness.reporting.text import number, p_value
from reproductions.reported import Reported
from resnet.recipe import Recipe

RECIPE = Recipe()
WARMED_UP_DEPTHS = {"paper": (110, 1202), "short": (), "smoke": (32,)}  # nets with a warm-up until a training error
SOURCE = "He et al. 2015, Table 6"
SPREAD = "pytorch_option_a"  # the implementation whose errors' spread grows with depth
BEST_OF = 5  # runs of which a reported single error may be the best
REPORTED_ON_CIFAR100 = tuple(f"resnet{depth}" for depth in (20, 32, 44, 56, 110))  # by other implementations
NOT_RUN = "No run on the real CIFAR-100 is published yet: this table was tested with files of the same layout only."
SHORTER = 16  # factor of the short profile, in all CIFAR-10 tables with the paper's recipe


def recipe_for(profile: str, depth: int = 0) -> Recipe:
    """Return the paper's recipe for a net of this depth, shortened in the other profiles.

    In the short profile, every net has a linear warm-up over the first 200 of its 4,000 iterations, because deep nets
    learn nothing at a learning rate of 0.1 from the start.
    """
    recipe = replace(RECIPE, warmup_learning_rate=0.01) if depth in WARMED_UP_DEPTHS[profile] else RECIPE
    if profile == "short":
        return replace(recipe.shortened(recipe.iterations // SHORTER, eval_interval=400), linear_warmup=200)
    if profile == "smoke":
        return recipe.shortened(120, eval_interval=20, batch_size=32, learning_rate=0.05, warmup_window=10)
    return recipe


def data_for(profile: str, dataset: str) -> str:
    """Return the name of the data of a profile: synthetic images stand in for CIFAR in the smoke profile."""
    return dataset if profile != "smoke" else "synthetic" if dataset == "cifar10" else f"synthetic_{dataset}"


def rows(profile: str, dataset: str = "cifar10") -> list[Row]:
    """Return the rows: ResNet-20, 32, 44, 56, 110 and, on request, 1202.

    The smoke profile has ResNet-8, 14, 20, 26 and 32 on synthetic data.
    """
    depths = (8, 14, 20, 26, 32) if profile == "smoke" else (20, 32, 44, 56, 110, 1202)
    return [
        Row(
            key=f"resnet{depth}",
            label=f"ResNet-{depth}",
            model=f"cifar_resnet{depth}",
            recipe=recipe_for(profile, depth),
            data=data_for(profile, dataset),
            reported=reported_key(f"resnet{depth}", dataset),
            on_request=depth == 1202,
        )
        for depth in depths
    ]


def reported_key(net: str, dataset: str) -> str | None:
    """Return the key of a net's reported numbers on a data set; None where nothing is reported."""
    return net if dataset == "cifar10" else f"{dataset}_{net}" if net in REPORTED_ON_CIFAR100 else None


def report(page: Page) -> list[Path]:
    """Write the table, the plot of error against depth, and learning curves; return the files."""
    columns = [
        page.net(),
        page.parameters(),
        page.reported(),
        page.published(),
        page.reproduced(),
        page.interval(),
        page.best_of_n(),
        expected_best(page),
        page.best_over_curve(),
        page.difference(),
        *page.verdict(),
        page.other_implementations(),
        *page.top5(),
    ]
    findings = judged(page)
    depth = error_against_depth(page.results, page.variant)
    curves = learning_curves({"residual nets": page.results}, page.variant)
    return [
        *page.write(columns, [not_run_section(page), claims_section(findings), spread_section(page)]),
        page.write_csv(claims_numbers(findings), "claims"),
        *save(depth, page.plot_path("depth"), page.description),
        *save(curves, page.plot_path("curves"), page.description),
    ]


def expected_best(page: Page) -> Column:
    """Return the expected best of five runs with the mean and the standard deviation of a row's runs."""
    samples = [final_values(result.records) for result in page.results]
    best = [
        intervals.mean(own) - intervals.expected_best(5) * intervals.std(own) if len(own) >= intervals.FEWEST else None
        for own in samples
    ]
    note = (
        "Expected best of 5: the mean of the lowest of five normal errors with the row's mean and standard deviation, "
        "for the guess that a single reported number is the best of several runs."
    )
    return Column("expected best of 5", [number(value) for value in best], {"expected_best_of_5": best},
                  note if any(best) else "")  # fmt: skip


def spread_section(page: Page) -> str:
    """Return a Markdown section: a test of equal spreads over depth, and its power."""
    theirs, samples = _spreads(page)
    enough = {label: own for label, own in samples.items() if len(own) >= intervals.FEWEST}
    if len(theirs) < 2 or not enough:
        return ""
    p, seeds = intervals.spread_p([*enough.values()]), max(result.seeds for result in page.results)
    found = "Not yet tested: it needs three runs of two nets."
    if p is not None:
        spreads = ", ".join(f"{label} {number(intervals.std(own))} (n = {len(own)})" for label, own in enough.items())
        found = f"Here: {spreads}; {'unequal' if p < 1 - intervals.LEVEL else 'not shown unequal'}, p = {p_value(p)}."
    stds = [float(number.std) for number in theirs]
    powers = ", ".join(f"{n} seeds {100 * intervals.spread_power(stds, n):.0f} %" for n in (seeds, 10, 20))
    letter = reported.letter(theirs[0].source)
    return (
        f"## Does the spread grow with depth?\n\n{found} Implementation ({letter}) has the standard deviations "
        f"{', '.join(str(number.std) for number in theirs)} for {', '.join(samples)}. Brown and Forsythe's test of "
        "equal variances, which a single outlier does not mislead, finds a spread as unequal as that at the 5 % level "
        f"with a probability of: {powers} (simulated).\n"
    )


def _spreads(page: Page) -> tuple[list[Reported], dict[str, list[float]]]:
    """Return the numbers of implementation (i) in the paper profile, and these nets' errors by label."""
    theirs = {n.key: n for n in reported.load() if n.source.key == SPREAD and n.std is not None}
    compared = [result for result in page.results if page.variant.profile == "paper" and result.row.reported in theirs]
    samples = {result.row.label: final_values(result.records) for result in compared}
    return [theirs[result.row.reported] for result in compared], samples


def judged(page: Page) -> list[Finding]:
    """Judge each step of depth by the runs."""
    return judge(depth_claims([result.row for result in page.results]), page.results, page.variant)


def found(page: Page) -> list[Found]:
    """Return the findings on depth, on the spread's growth with it, and on reported errors as best ones."""
    return [*of_findings(judged(page)), *spread_found(page), *best_found(page)]


def spread_found(page: Page) -> list[Found]:
    """Return whether the nets' spreads are unequal, as implementation (i)'s, which grow with depth."""
    theirs, samples = _spreads(page)
    if len(theirs) < 2:
        return []
    counts, wanted = tuple(map(len, samples.values())), max(result.seeds for result in page.results)
    seeds = min(counts) if min(counts) >= intervals.FEWEST else wanted
    p = intervals.spread_p([*samples.values()])
    power = intervals.spread_power([float(number.std) for number in theirs], seeds)
    said = "" if p is None else "shown" if p < 1 - intervals.LEVEL else "not shown"
    if said == "not shown" and power < intervals.POWER:
        said = f"not resolvable with {seeds} seeds"
    return [Found("spread", "the spread over seeds differs between depths", counts, None, None, None, power, said)]


def best_found(page: Page) -> list[Found]:
    """Return whether each reported single error can be the best of BEST_OF runs, as some who missed it suspect.

    It can if it lies in the 95 % prediction interval of the best of BEST_OF further runs.
    """
    claims = []
    for result in page.results if page.variant.profile == "paper" else []:
        values = final_values(result.records)
        target = reported.target(result.row.reported, METRICS[page.metric])
        if target is None or target.kind != "single":
            continue
        bounds, one = (intervals.best_prediction(values, k) for k in (BEST_OF, 1))
        said = ""
        if bounds is not None:
            fits = [float(target.value) in each for each in (bounds, one)]
            said = RULED_OUT if not fits[0] else f"not {RULED_OUT}" + (", nor is a single run" if fits[1] else "")
        text = f"the error of {result.row.label} is the best of several runs ({BEST_OF}, as a guess)"
        claims.append(Found(f"best_{result.row.key}", text, (len(values),), None, None, said=said))
    return claims


def depth_claims(rows: list[Row]) -> list[Claim]:
    """Return the claims that every net of the table is better than the next shallower one."""
    rows = [row for row in rows if not row.on_request]
    return [
        Claim(f"{a.key}_{b.key}", f"{b.label} has a lower test error than {a.label}", SOURCE, (a.key, b.key), (1, -1))
        for a, b in pairwise(rows)
    ]


@styled
def error_against_depth(results: list[RowResult], variant: Variant) -> Figure | None:
    """Draw the final test errors as dots, with mean and 95 % interval from three seeds on, beside the reported number.

    Reported numbers are drawn in the paper profile only. The nets with completed runs stand side by side, evenly
    spaced; the caption names the others. None of fewer than two runs, which have nothing to be seen beside.
    """
    shown = [result for result in results if completed(result.records)]
    if sum(len(completed(result.records)) for result in shown) < 2:
        return None
    figure, (axis,) = make_figure(SINGLE, 2.3, [""], variant, [result.row.data for result in results])
    if missing := ", ".join(result.row.label for result in results if result not in shown):
        caption(figure, f"{figure.get_suptitle()} · not yet run: {missing}")
    legend: dict[str, object] = {}
    for x, result in enumerate(shown):
        _draw_sample(axis, x, final_values(result.records), legend)
        if result.published:
            _draw_mean(axis, x - 0.32, final_values(result.published), "published here", GREY, "s", legend)
        if variant.profile == "paper":
            _draw_reported(axis, x + 0.43, result, legend)
    names = [result.row.label.replace("-", "-\n" if len(shown) > 4 else "-") for result in shown]
    counts = [len(completed(result.records)) for result in shown]
    axis.set_xticks(range(len(shown)), [f"{name}\nn = {n}" for name, n in zip(names, counts)])
    axis.set(xlim=(-0.5, len(shown) - 0.4), ylabel="final test error (%)")
    axis.margins(y=0.12)
    low, high = axis.get_ylim()
    axis.set_ylim(max(0.0, low), min(100.0, high))
    legend_below(figure, legend)
    return figure


def _draw_sample(axis: Axes, x: float, values: list[float], legend: dict) -> None:
    width = min(0.4, 0.1 * (len(values) - 1))  # the seeds lie side by side, in their order
    places = [x + width * (i / (len(values) - 1) - 0.5) if len(values) > 1 else x for i in range(len(values))]
    legend["one seed"] = axis.scatter(places, values, s=11, color=OWN, alpha=0.75, linewidth=0, zorder=3)
    if len(values) > 2:
        _draw_mean(axis, x + 0.29, values, "mean", INK, "_", legend)


def _draw_mean(axis: Axes, x: float, values: list[float], name: str, colour: str, marker: str, legend: dict) -> None:
    if values:
        bar = bars(values)
        legend[f"{name}, 95 % t-interval" if bar else name] = axis.errorbar(
            x, intervals.mean(values), bar, color=colour, marker=marker, markersize=7 if marker == "_" else 4,
            capsize=2, linewidth=0.9, markeredgewidth=1.2 if marker == "_" else 0.8, zorder=4,
        )  # fmt: skip


def _draw_reported(axis: Axes, x: float, result: RowResult, legend: dict) -> None:
    """Draw the paper's number as a hollow diamond, with its standard deviation if there is one; a best as a cross."""
    for value in reported.in_paper(result.row.reported):
        std = None if value.std is None else float(value.std)
        name = f"reported best of {value.n}" if value.kind == "best" else "reported mean ± std" if std else "reported"
        cross = {"marker": "x"} if value.kind == "best" else {}
        legend[name] = axis.errorbar(
            x + 0.1 * (value.kind == "best"), float(value.value), std, capsize=2, linewidth=0.9, **HOLLOW | cross
        )


def not_run_section(page: Page) -> str:
    """Return a sentence for a user's table of CIFAR-100 without published records; an empty text for others."""
    lacking = all(result.row.data == "cifar100" and result.published == [] for result in page.results)
    return f"{NOT_RUN}\n" if lacking else ""


def on_cifar100(experiment: Experiment, rows: Callable[[str, str], list[Row]]) -> Experiment:
    """Return an experiment on CIFAR-10 with the same recipes on CIFAR-100."""
    return replace(
        experiment,
        name=f"{experiment.name}_cifar100",
        title=experiment.title.replace("CIFAR-10", "CIFAR-100"),
        source=f"{experiment.source}, on CIFAR-100",
        rows=lambda profile: rows(profile, "cifar100"),
        headline=None,
        claims=None,  # the paper makes none on these data
        overview=None,
        dataset="cifar100",
        protocol="the protocol of He et al. 2015, section 4.2",
        epilog=NOT_RUN,
    )


EXPERIMENT = Experiment(
    name="cifar_table",
    title="CIFAR-10 test error of residual nets",
    source=SOURCE,
    rows=rows,
    report=report,
    claims=found,
)
EXPERIMENTS = {"cifar10": EXPERIMENT, "cifar100": on_cifar100(EXPERIMENT, rows)}

if __name__ == "__main__":
    from reproductions.harness.cli import run_experiment

    sys.exit(run_experiment(EXPERIMENTS))
