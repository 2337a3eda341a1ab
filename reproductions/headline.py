"""The README's plot: final test error against depth, plain and residual nets, beside the paper's numbers."""

from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reproductions import reported
from reproductions.harness.console import counted
from reproductions.harness.experiment import Experiment, Row, Variant
from reproductions.harness.records import Pool, records_digest
from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.curves import DASHES
from reproductions.harness.reporting.figure import (
    COLOURS,
    DOUBLE,
    HOLLOW,
    SINGLE,
    caption,
    legend_below,
    make_figure,
    styled,
)
from reproductions.harness.reporting.figure import save as save_figure
from reproductions.harness.reporting.frame import final_values

KINDS = {"plain": "plain nets", "resnet": "residual nets"}  # by the beginning of a row's key
LOOKS = {"plain": (COLOURS[0], "s", DASHES), "resnet": (COLOURS[4], "o", "-")}
DRAWN = ("mean", "single", "approximate")  # kinds of reported numbers; a bound or a best of n is none of these
PANELS = {"paper": "the paper's protocol", "short": "short profile, 1/16 of the iterations"}


@dataclass(frozen=True)
class Place:
    """A net of one kind and depth (layers), with its records in one profile."""

    row: Row
    records: list[dict]

    @property
    def kind(self) -> str:
        """Kind of net: plain or resnet."""
        return self.row.key.rstrip("0123456789")

    @property
    def depth(self) -> int:
        """Number of layers."""
        return int(self.row.key.removeprefix(self.kind))

    @property
    def values(self) -> list[float]:
        """Final test errors."""
        return final_values(self.records)


def write(experiment: Experiment, folder: Path, pool: Pool) -> list[Path]:
    """Write headline.png and headline.svg from the pool's records of plain and residual nets; return the files.

    There are none without completed runs.
    """
    panels = find(experiment, pool)
    records = [record for places in panels.values() for place in places for record in place.records]
    description = (
        f"Test error against depth, plain and residual nets ({experiment.source}; He et al. 2015, Table 6); from "
        f"{counted(len(records), 'record')}, SHA-256 {records_digest(records)}; made again by: make report"
    )
    return save_figure(error_against_depth(panels), folder / "headline", description)


def find(experiment: Experiment, pool: Pool) -> dict[str, list[Place]]:
    """Return the nets by profile; a profile without completed runs is left out.

    The short profile is shown only while the paper profile has fewer than two depths of plain nets.
    """
    found = {}
    for profile in PANELS:
        places = [Place(row, row.records(Variant(profile), pool)) for row in experiment.rows(profile)]
        if any(place.values for place in places):
            found[profile] = places
        if sum(place.kind == "plain" and bool(place.values) for place in places) > 1:
            break
    return found


@styled
def error_against_depth(panels: dict[str, list[Place]]) -> Figure | None:
    """Draw a panel per profile: every seed a dot, lines through the means, the paper's numbers as hollow diamonds.

    The paper's numbers are drawn in the paper profile only. None without panels.
    """
    if not panels:
        return None
    titles, data = [PANELS[p] for p in panels], [place.row.data for places in panels.values() for place in places]
    width = DOUBLE if len(panels) > 1 else SINGLE
    figure, axes = make_figure(width, 2.3, titles, Variant(), data, share_y=False)
    missing = [place.row.label for place in panels.get("paper", ()) if not (place.values or place.row.on_request)]
    said = [f"by the paper's protocol not yet run: {', '.join(missing)}"] if missing else []
    said += ["the short profile is not comparable with the paper"] if "short" in panels else []
    caption(figure, " · ".join([figure.get_suptitle(), *said]))
    counts: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for letter, axis, (profile, places) in zip(ascii_lowercase, axes, panels.items()):
        numbers = {p.row.key: _reported(p) for p in places if profile == "paper"}
        depths = sorted({place.depth for place in places if place.values or numbers.get(place.row.key)})
        for kind in KINDS:
            drawn = [place for place in places if place.kind == kind and place.depth in depths]
            _draw_kind(axis, drawn, depths, numbers)
            seeds = ", ".join(str(len(place.values)) for place in drawn if place.values)
            counts[kind] += [f"{f'({letter}) ' if len(panels) > 1 else ''}n = {seeds}"] if seeds else []
        axis.set_xticks(range(len(depths)), map(str, depths))
        axis.set(xlim=(-0.5, len(depths) - 0.5), xlabel="layers")
        axis.margins(y=0.08)
        axis.set_ylim(bottom=max(0.0, axis.get_ylim()[0]))
    axes[0].set_ylabel("final test error (%)")
    legend = {
        f"{name}, one seed a dot; {'; '.join(counts[kind]) or 'no runs'}": Line2D(
            [], [], color=LOOKS[kind][0], marker=LOOKS[kind][1], linestyle=LOOKS[kind][2]
        )
        for kind, name in KINDS.items()
    }
    if "paper" in panels:
        legend["in the paper (plain nets: read off its figure)"] = Line2D([], [], **HOLLOW | {"color": "black"})
    legend_below(figure, legend)
    return figure


def _draw_kind(axis: Axes, places: list[Place], depths: list[int], numbers: dict[str, float | None]) -> None:
    """Draw the nets of one kind, evenly spaced by depth; if the paper's numbers are drawn, runs stand left of them."""
    aside = 0.28 if any(numbers.values()) else 0.0
    for place in places:
        colour, marker, _ = LOOKS[place.kind]
        x, count = depths.index(place.depth) - aside, len(place.values)
        beside = [x + min(0.06, 0.4 / count) * (seed - (count - 1) / 2) for seed in range(count)]
        axis.scatter(beside, place.values, s=12, color=colour, marker=marker, alpha=0.8, linewidth=0, zorder=4)
    papers = [place for place in places if numbers.get(place.row.key)]
    if papers:
        colour, *_ = LOOKS[papers[0].kind]
        x = [depths.index(place.depth) + (-0.06 if place.kind == "plain" else 0.06) for place in papers]
        look = HOLLOW | {"color": colour, "linestyle": ":", "linewidth": 0.7}
        axis.plot(x, [numbers[place.row.key] for place in papers], **look)
    trained = [place for place in places if place.values]
    if trained:
        colour, _, line = LOOKS[trained[0].kind]
        means = [intervals.mean(place.values) for place in trained]
        x = [depths.index(place.depth) - aside for place in trained]
        axis.plot(x, means, color=colour, linestyle=line, linewidth=0.9)


def _reported(place: Place) -> float | None:
    """Return the paper's number for a net; None if it has none, or a bound alone."""
    numbers = [number for number in reported.in_paper(place.row.reported) if number.kind in DRAWN]
    return float(numbers[0].value) if numbers else None
