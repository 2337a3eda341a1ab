"""Report of layer responses: a table by net, comparisons of nets, and He et al.'s Figure 7."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from reproductions.harness.console import counted
from reproductions.harness.experiment import RowResult, Variant
from reproductions.harness.final_weights import has_final_weights
from reproductions.harness.measurements import MeasurementError, digest
from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.curves import draw_curve
from reproductions.harness.reporting.figure import DOUBLE, INK, legend_below, make_figure, styled
from reproductions.harness.reporting.footnotes import code_note, is_published
from reproductions.harness.reporting.found import Found
from reproductions.harness.reporting.frame import completed
from reproductions.harness.reporting.intervals import Interval, WelchTest
from reproductions.harness.reporting.page import Column, Headline, Page
from reproductions.harness.reporting.text import NONE, interval, markdown_table, no_interval, number, p_value, signed
from reproductions.layer_responses.responses import RESPONSES

if TYPE_CHECKING:
    import pandas  # loaded where a frame is made: it takes a second

_number, _signed = partial(number, digits=3), partial(signed, digits=3)  # of standard deviations in the tables
GONE, UNMEASURED, DAMAGED = "weights are gone", "not measured", "damaged file"
PLACES = (3, 1, 2, 4, 5)  # colours and markers of the nets of Figure 7, the plain ones first
PANELS = {"in layer order": "3x3 layer, from the input on", "sorted by size": "3x3 layer, the largest first"}


@dataclass(frozen=True)
class Net:
    """A row with the responses of its completed runs, by seed; ``lacking`` counts why other runs have none."""

    result: RowResult
    responses: list[dict]
    lacking: Counter

    @property
    def label(self) -> str:
        """The row's label."""
        return self.result.row.label

    @property
    def layers(self) -> list[str]:
        """Names of the 3x3 layers, in layer order; empty without responses."""
        return self.responses[0]["layers"] if self.responses else []

    @property
    def means(self) -> list[float]:
        """Mean of the layers' standard deviations, for each seed."""
        return [intervals.mean(own["std"]) for own in self.responses]

    @property
    def highest(self) -> list[float]:
        """Maximum of the layers' standard deviations, for each seed."""
        return [max(own["std"]) for own in self.responses]

    def over_seeds(self, ranked: bool = False) -> pandas.DataFrame:
        """Return mean, min and max over the seeds of each layer, or of each rank, the largest first; counted from 1."""
        import pandas

        deviations = [sorted(own["std"], reverse=True) if ranked else own["std"] for own in self.responses]
        places = range(1, len(deviations[0]) + 1)
        return pandas.DataFrame(deviations, columns=places).agg(["mean", "min", "max"]).T


def find_nets(results: list[RowResult], out: Path) -> list[Net]:
    """Return the results with the responses of their runs, from the files below ``out``."""
    nets = []
    for result in results:
        found, lacking = [], Counter()
        for record in completed(result.records):
            try:
                if (responses := RESPONSES.find(out, record)) is not None:
                    found.append(responses)
                else:
                    lacking[UNMEASURED if has_final_weights(out, record) else GONE] += 1
            except MeasurementError:
                lacking[DAMAGED] += 1
        nets.append(Net(result, found, lacking))
    return nets


def columns(page: Page, nets: list[Net]) -> list[Column]:
    """Return the table's columns: numbers of layers and runs, and mean and maximum over the layers."""
    note = (
        "Standard deviation of every 3x3 layer's response, its output after BN and before addition and ReLU, over all "
        f"images, channels and places ({RESPONSES.how}): mean and maximum over the layers, of these mean ± sample "
        "standard deviation over n seeds."
    )
    measured = Column(
        "runs",
        [_runs(net) for net in nets],
        {"n": [len(net.responses) for net in nets], "seeds": [net.result.seeds for net in nets]},
        _lacking_note(page, nets),
    )
    maximum = _over_layers("maximum over layers", "maximum", [net.highest for net in nets])
    return [
        replace(page.net(), note=note),
        Column("3x3 layers", [str(len(net.layers) or NONE) for net in nets], {"layers": [len(n.layers) for n in nets]}),
        measured,
        _over_layers("mean over layers", "mean", [net.means for net in nets]),
        replace(maximum, numbers=with_digest(maximum.numbers, nets), note=_origin_note(page, nets)),
    ]


def _over_layers(heading: str, name: str, samples: list[list[float]]) -> Column:
    means, spreads = [intervals.mean(s) for s in samples], [intervals.std(s) for s in samples]
    cells = [_number(m) + (f" ± {_number(s)}" if s is not None else "") for m, s in zip(means, spreads)]
    return Column(heading, cells, {f"{name}_mean": means, f"{name}_std": spreads})


def with_digest(numbers: dict[str, list], nets: list[Net]) -> dict[str, list]:
    """Return columns for a CSV file, and one more with the digest of the files of responses."""
    lines = len(next(iter(numbers.values())))
    return numbers | {"responses_sha256": [digest(_all(nets))] * lines}


def _runs(net: Net) -> str:
    """Return ``n = 2``, ``n = 1 of 2; weights are gone (1)``, or ``no records``."""
    if not net.result.records:
        return "no records"
    n, seeds = len(net.responses), net.result.seeds
    diverged = Counter(diverged=len(net.result.records) - len(completed(net.result.records)))
    reasons = [f"{reason} ({count})" for reason, count in (net.lacking + diverged).items()]
    return "; ".join([f"n = {n}{f' of {seeds}' if n < seeds else ''}", *reasons])


def _lacking_note(page: Page, nets: list[Net]) -> str:
    reasons = sum((net.lacking for net in nets), Counter())
    again = page.experiment.command(page.variant)
    notes = {
        GONE: "Weights are gone: there is a record, but neither its responses nor the weights to measure them; train "
              f"again in another OUT: `{again} OUT=another`.",
        UNMEASURED: f"Not measured: the weights are there, `{again}` measures them or says why not.",
        DAMAGED: f"Damaged file: move it away, and `{again}` measures again, if the weights are still there.",
    }  # fmt: skip
    return " ".join(note for reason, note in notes.items() if reasons[reason])


def _all(nets: list[Net]) -> list[dict]:
    return [own for net in nets for own in net.responses]


def _origin_note(page: Page, nets: list[Net]) -> str:
    """Return a note on the files of responses and the code that measured them."""
    files = _all(nets)
    said = f"Responses of {counted(len(files), 'run')}, SHA-256 over their digests `{digest(files)}`"
    code = code_note(files, is_published(page.results)).removeprefix("Code: ")
    return f"{said}; measured by: {code}" if files else f"{said}."


def origin(nets: list[Net]) -> str:
    """Return the files' number and digest for the description of a plot."""
    return f"responses of {counted(len(_all(nets)), 'run')}, SHA-256 {digest(_all(nets))}"


# --------------------------------------------------------------------------------------------------------- comparisons


@dataclass(frozen=True)
class Comparison:
    """Two nets, one of ``comparisons`` pairs; in the paper, the first one has the smaller responses."""

    smaller: Net
    larger: Net
    variant: Variant
    comparisons: int

    @property
    def nets(self) -> str:
        """Labels of both nets: ``ResNet-20 − plain-20``."""
        return f"{self.smaller.label} − {self.larger.label}"

    @property
    def difference(self) -> float | None:
        """Difference of the means over layers and seeds; None unless both nets have responses."""
        first, second = intervals.mean(self.smaller.means), intervals.mean(self.larger.means)
        return None if first is None or second is None else first - second

    @property
    def test(self) -> WelchTest | None:
        """Welch's test of the difference, corrected; None with too few runs or equal values."""
        return intervals.welch_test(self.smaller.means, self.larger.means, intervals.corrected(self.comparisons))

    @property
    def p(self) -> float | None:
        """P-value of the test, corrected; None without a test."""
        return self.test and min(1.0, self.comparisons * self.test.p)

    @property
    def layers(self) -> tuple[int, int] | None:
        """Number of layers where the first net's mean is smaller, and of all layers; None for unequal depths."""
        count = len(self.smaller.layers)
        if not count or count != len(self.larger.layers):
            return None
        return int((self.smaller.over_seeds()["mean"] < self.larger.over_seeds()["mean"]).sum()), count

    @property
    def statement(self) -> str:
        """Statement on whether the first net's responses are smaller, by the interval of the difference.

        Only the paper profile gives a "yes".
        """
        if self.difference is None:
            return NONE
        if self.test is None:
            return no_interval(min(self.smaller.means, self.larger.means, key=len))
        if 0 in self.test.interval:
            return "not shown"
        smaller = self.difference < 0
        if self.variant.profile != "paper":
            return f"{'smaller' if smaller else 'larger'} in the {self.variant.profile} profile"
        return "yes" if smaller else "no, larger"


def compare(nets: list[Net], pairs: list[tuple[str, str]], variant: Variant) -> list[Comparison]:
    """Return the comparisons for pairs of row keys."""
    by_key = {net.result.row.key: net for net in nets}
    return [Comparison(by_key[smaller], by_key[larger], variant, len(pairs)) for smaller, larger in pairs]


def found(comparisons: list[Comparison]) -> list[Found]:
    """Return the comparisons as claims: how much smaller the first net's responses are, on average over its layers."""
    claims = []
    for one in comparisons:
        bounds = one.test and Interval(-one.test.interval.high, -one.test.interval.low)
        text = f"{one.smaller.label} has smaller responses than {one.larger.label}"
        counts = len(one.smaller.means), len(one.larger.means)
        effect = None if one.difference is None else -one.difference
        key = f"{one.smaller.result.row.key}_{one.larger.result.row.key}"
        claims.append(Found(key, text, counts, effect, bounds, show=_signed))
    return claims


def section(comparisons: list[Comparison]) -> str:
    """Return a Markdown section: the paper's comparisons with Welch's tests."""
    table = markdown_table(
        {
            "nets": [comparison.nets for comparison in comparisons],
            "n": [f"{len(c.smaller.means)}, {len(c.larger.means)}" for c in comparisons],
            "difference": [_signed(comparison.difference) for comparison in comparisons],
            "95 % interval, corrected": [interval(c.test and c.test.interval, _signed) for c in comparisons],
            "p, corrected": [p_value(c.p) for c in comparisons],
            "layers where smaller": [f"{c.layers[0]} of {c.layers[1]}" if c.layers else NONE for c in comparisons],
            "are they smaller?": [comparison.statement for comparison in comparisons],
        }
    )
    return (
        f"## Are the first net's responses smaller?\n\n{table}\nThe paper finds that residual nets have smaller "
        "responses than plain ones, and deeper residual nets smaller ones than shallower. Differences of the mean over "
        "layers; Welch's two-sided t-test with Welch–Satterthwaite degrees of freedom, which needs "
        f"{intervals.FEWEST} runs of both; intervals and p-values are corrected for "
        f"{counted(len(comparisons), 'comparison')} (Bonferroni). “Yes”: the interval lies below 0; “not shown”: it "
        "includes 0. Profiles other than the paper's say nothing of the paper's claim.\n"
    )


def headline(nets: list[Net], comparisons: list[Comparison]) -> Headline:
    """Return the headline for the index: the last comparison with a difference.

    Without one, it is the last net with responses.
    """
    compared = [comparison for comparison in comparisons if comparison.difference is not None]
    if not compared:
        shown = ([net for net in nets if net.responses] or nets)[-1]
        text = f"mean over layers {_number(intervals.mean(shown.means))}" if shown.responses else NONE
        return Headline(shown.label, NONE, text, "nothing to compare with")
    last = compared[-1]
    bounds = last.test and interval(last.test.interval, _signed)
    reproduced = f"mean over layers {_signed(last.difference)}{f' {bounds}' if bounds else ''}"
    return Headline(last.nets, "smaller responses", reproduced, last.statement)


# ------------------------------------------------------------------------------------------------- numbers and figure


def layer_numbers(nets: list[Net]) -> dict[str, list]:
    """Return columns for a CSV file: every layer's standard deviation, and the one at its rank by size."""
    import pandas

    lines = []
    for net in (net for net in nets if net.responses):
        values = zip(net.layers, net.over_seeds().to_numpy(), net.over_seeds(ranked=True).to_numpy())
        lines += [
            (net.result.row.key, layer, name, len(net.responses), *own, *ranked)
            for layer, (name, own, ranked) in enumerate(values, start=1)
        ]
    names = ["row", "layer", "name", "n", "mean", "low", "high", "sorted_mean", "sorted_low", "sorted_high"]
    return pandas.DataFrame(lines, columns=names).to_dict("list")


def comparison_numbers(comparisons: list[Comparison]) -> dict[str, list]:
    """Return the comparisons as columns for a CSV file."""
    return {
        "row": [c.smaller.result.row.key for c in comparisons],
        "compared_with": [c.larger.result.row.key for c in comparisons],
        "n": [len(c.smaller.means) for c in comparisons],
        "n_compared_with": [len(c.larger.means) for c in comparisons],
        "difference": [c.difference for c in comparisons],
        "low_corrected": [c.test and c.test.interval.low for c in comparisons],
        "high_corrected": [c.test and c.test.interval.high for c in comparisons],
        "t": [c.test and c.test.t for c in comparisons],
        "df": [c.test and c.test.df for c in comparisons],
        "p_corrected": [c.p for c in comparisons],
        "layers_smaller": [c.layers and c.layers[0] for c in comparisons],
        "layers": [c.layers and c.layers[1] for c in comparisons],
        "smaller": [c.statement for c in comparisons],
    }


@styled
def figure(nets: list[Net], variant: Variant) -> Figure | None:
    """Draw standard deviations of layer responses in layer order and sorted by size, as in Figure 7 of He et al. 2015.

    Plain nets are dashed; a band from the lowest to the highest seed surrounds the mean. A net without responses is not
    drawn; the others look as they would beside it. None if nothing was measured.
    """
    drawn = [(place, net) for place, net in zip(PLACES * len(nets), nets) if net.responses]
    if not drawn:
        return None
    figure, axes = make_figure(DOUBLE, 2.3, [*PANELS], variant, [net.result.row.data for net in nets])
    legend: dict[str, object] = {}
    for axis, meaning, ranked in zip(axes, PANELS.values(), (False, True)):
        for place, net in drawn:
            draw_curve(axis, net.over_seeds(ranked), place, 1, net.result.row.key.startswith("plain"), most=9)
            legend[f"{net.label} (n = {len(net.responses)})"] = axis.lines[-1]
        axis.set(xlabel=meaning, xlim=(0, None))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_ylabel("standard deviation of response")
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(0 if low < high / 2 else low, high)
    if any(len(net.responses) > 1 for _, net in drawn):
        legend["lowest to highest seed; lines: mean"] = Patch(color=INK, alpha=0.18, linewidth=0)
    legend_below(figure, legend)
    return figure
