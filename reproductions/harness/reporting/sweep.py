"""The page of a sweep: values ranked by the error on held-out training images, and the command for the best ones."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from reproductions.harness.experiment import RowResult
from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.figure import DOUBLE, INK, OWN, SINGLE, legend_below, make_figure, save, styled
from reproductions.harness.reporting.frame import completed, final_values
from reproductions.harness.reporting.intervals import Interval
from reproductions.harness.reporting.page import Column, Page
from reproductions.harness.reporting.text import NONE, interval, number
from resnet.data import TRAIN_IMAGES

METRIC = "validation_error"
_NOTE = (
    "Validation error: on the training images that were held out, {images}. From "
    f"{intervals.FEWEST} runs on, the 95 % interval is the t-interval of the mean over the seeds; of fewer runs it is "
    "Wilson's for that many images, which leaves out that other seeds have other errors. The lowest of several errors "
    "is lower than its own values would give again. Test errors are in the records, but nothing is chosen by them."
)


def write_sweep(page: Page) -> list[Path]:
    """Write the ranked values of each net that has records, the command for the best, and a plot; return the files."""
    nets: dict[str, list[RowResult]] = {}
    for result in page.results:
        nets.setdefault(result.row.own_key, []).append(result)
    nets = {key: rank(own) for key, own in nets.items() if any(result.records for result in own)}
    results = [result for own in nets.values() for result in own]
    page = replace(page, results=results)
    names = [one.split("=", 1)[0] for one in page.variant.sweep]
    values = {name: [dict(one.split("=", 1) for one in r.row.swept)[name] for r in results] for name in names}
    places = [
        place if final_values(r.records, METRIC) else None for own in nets.values() for place, r in enumerate(own, 1)
    ]
    found = [error_interval(result) for result in results]
    held_out = sorted({_held_out(r) for r in results if r.records})
    columns = [
        Column("net", [label(result) for result in results], {"net": [result.row.own_key for result in results]}),
        Column("rank", [str(place or NONE) for place in places], {"rank": places}),
        *(Column(name, cells, {name: cells}) for name, cells in values.items()),
        replace(page.reproduced(METRIC), note=_NOTE.format(images=" or ".join(f"{n:,}" for n in held_out))),
        Column("95 % interval", [*map(interval, found)],
               {"interval_low": [f and f.low for f in found], "interval_high": [f and f.high for f in found]}),
        page.reproduced("training_error"),
    ]  # fmt: skip
    figure = validation_errors({label(own[0]): own for own in nets.values()}, page)
    best = "\n".join(filter(None, (_best(key, own, page) for key, own in nets.items())))
    return [
        *page.write(columns, [f"## The best\n\n{best}"] if best else []),
        *save(figure, page.plot_path("validation"), page.description),
    ]  # fmt: skip


def rank(results: Sequence[RowResult]) -> list[RowResult]:
    """Order rows by their mean validation error; those without a completed run come last."""

    def place(result: RowResult) -> float:
        return intervals.mean(final_values(result.records, METRIC) or [float("inf")])

    return sorted(results, key=place)


def error_interval(result: RowResult) -> Interval | None:
    """Return the 95 % interval of a row's validation error: over its seeds, or over the images where they are few."""
    errors = final_values(result.records, METRIC)
    if not errors:
        return None
    over_seeds = intervals.percent(intervals.mean_interval(errors))
    images = _held_out(result)
    return over_seeds or intervals.wilson(round(intervals.mean(errors) / 100 * images), images)


def label(result: RowResult) -> str:
    """Return the label of the row that was swept."""
    return result.row.label.removesuffix(f", {', '.join(result.row.swept)}")


def _held_out(result: RowResult) -> int:
    """Return the number of training images that were held out."""
    run = result.records[0]["specification"]
    return TRAIN_IMAGES[run["data"]] - run["train_images"]


def _best(key: str, ranked: list[RowResult], page: Page) -> str:
    """Describe the best values of a net with the command that trains it on all images with all seeds."""
    first, *others = [result for result in ranked if final_values(result.records, METRIC)] or [None]
    if first is None:
        return ""
    variant = replace(page.variant, sweep=(), train_images=None, settings=(*page.variant.settings, *first.row.swept))
    variant = page.experiment.resolve(variant)
    bounds = error_interval(first)
    near = sum(error_interval(other).low <= bounds.high for other in others)
    which = "The other" if len(others) == 1 else f"{near} of the {len(others)} others"
    said = f"{which} {_have(near)} an interval that overlaps with its own. " if near else ""
    lacking = len(ranked) - len(others) - 1
    said += f"{lacking} of {len(ranked)} {_have(lacking)} no completed run yet. " if lacking else ""
    ends = [one for one in first.row.swept if _is_at_an_end(one, page.variant.sweep)]
    said += f"At the edge of the values tried: {', '.join(ends)}; try larger or smaller ones. " if ends else ""
    command = page.experiment.command(variant, keys=[key], seeds=page.experiment.default_seeds(variant))
    return (
        f"{label(first)}: {', '.join(first.row.swept)}, validation error "
        f"{number(intervals.mean(final_values(first.records, METRIC)))} %. {said}To train it on all images with all "
        f"seeds, with the folders of this sweep (OUT, DATA):\n\n    {command}\n"
    )


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


def _is_at_an_end(setting: str, sweep: Sequence[str]) -> bool:
    """Return whether the value is the lowest or highest of several numbers."""
    name, value = setting.split("=", 1)
    try:
        numbers = sorted(
            float(each) for one in sweep if one.startswith(f"{name}=") for each in one.split("=")[1].split(",")
        )
        return len(numbers) > 1 and float(value) in (numbers[0], numbers[-1])
    except ValueError:
        return False


@styled
def validation_errors(nets: dict[str, list[RowResult]], page: Page) -> Figure | None:
    """Draw each combination's seeds, their mean and its 95 % interval, the best at the top; a panel per net.

    None without completed runs.
    """
    nets = {name: [r for r in own if final_values(r.records, METRIC)] for name, own in nets.items()}
    nets = {name: own for name, own in nets.items() if own}
    if not nets:
        return None
    tallest = max(map(len, nets.values()))
    data = [result.row.data for own in nets.values() for result in own]
    columns = min(2, len(nets))
    width, lines = (SINGLE, 1) if len(nets) == 1 else (DOUBLE, -(-len(nets) // 2))
    height = lines * max(1.5, 0.9 + 0.22 * tallest)
    figure, axes = make_figure(width, height, [*nets], page.variant, data, columns, share_y=False, grid="x")
    legend: dict[str, object] = {}
    for axis, own in zip(axes, nets.values(), strict=True):
        for y, result in enumerate(own):
            errors, bounds = final_values(result.records, METRIC), error_interval(result)
            mean = intervals.mean(errors)
            reach = [[max(0.0, mean - bounds.low)], [max(0.0, bounds.high - mean)]]
            legend["mean, 95 % interval"] = axis.errorbar(mean, y, xerr=reach, color=INK, marker="|", markersize=6,
                                                          capsize=2, linewidth=0.9, linestyle="none")  # fmt: skip
            dots = axis.scatter(errors, [y] * len(errors), s=11, color=OWN, alpha=0.75, linewidth=0, zorder=3)
            legend["one seed"] = dots
        counts = [len(completed(result.records)) for result in own]
        named = [", ".join(one.split("=", 1)[1] for one in result.row.swept) for result in own]
        axis.set_yticks(range(len(own)), [f"{name} (n = {n})" for name, n in zip(named, counts)])
        axis.set(ylim=(len(own) - 0.5, -0.5), xlabel="validation error (%)",
                 ylabel=",\n".join(one.split("=", 1)[0] for one in page.variant.sweep))  # fmt: skip
        axis.tick_params(axis="y", length=0)
        axis.tick_params(axis="x", labelbottom=True)
    legend_below(figure, legend)
    return figure
