"""The parts that all plots share: style, sizes, axes, captions, legends, and files with a description in them.

Figures are made at the size in which they are printed: one column of a page or two, with letters of at least 7 pt.
"""

import io
import math
import textwrap
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from string import ascii_lowercase

import matplotlib
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from reproductions.harness.experiment import Variant
from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.frame import completed
from resnet.files import write_atomically

SINGLE, DOUBLE = 3.3, 7.0  # inches: widths of one column and of two
SMALLEST = 7  # pt
# Okabe and Ito's colours, darkened: each has a contrast of 3 or more with white, and each is darker than the one before
# by 9 or more of 100 steps in grey. Every colour has a marker as well.
COLOURS = ("#C58700", "#3D83AB", "#007454", "#873900", "#003E65", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P")
INK, GREY = "#222222", "#767676"
OWN = COLOURS[4]  # of the seeds in figures where each net has a place of its own
HOLLOW = {
    "color": COLOURS[3], "marker": "D", "markersize": 4.5, "markerfacecolor": "none", "markeredgewidth": 1.1,
    "linestyle": "none", "zorder": 5,
}  # fmt: skip
DATA_NAMES = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "synthetic_cifar100": "synthetic images of 100 classes",
    "cifar10_first5": "CIFAR-10, its first 5 classes",
    "cifar10_last5": "CIFAR-10, its last 5 classes",
    "mnist": "MNIST",
    "imagenet": "ImageNet",
    "canvas64": "canvases of CIFAR-10's images",
    "canvas96": "canvases of CIFAR-10's images",
    "synthetic_canvas64": "canvases of synthetic images",
    "synthetic_canvas96": "canvases of synthetic images",
    "voc": "PASCAL VOC",
    "ade20k": "ADE20K",
    "synthetic": "synthetic images",
    "synthetic_mnist": "synthetic digits",
    "synthetic_imagenet": "synthetic images",
}
STYLE = {
    # A user's own matplotlibrc changes nothing; the first two are not matters of style.
    **{name: value for name, value in matplotlib.rcParamsDefault.items() if name not in ("backend", "interactive")},
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
    "font.size": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "lines.markeredgewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": SMALLEST,
    "ytick.labelsize": SMALLEST,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": SMALLEST,
    "legend.columnspacing": 1.0,
    "legend.handlelength": 1.8,
    "svg.hashsalt": "reproductions",  # else its ids are drawn at random
    "svg.fonttype": "path",
}
styled = matplotlib.rc_context(STYLE)  # a decorator: artists take their style when they are made


def save(figure: Figure | None, path: Path, description: str) -> list[Path]:
    """Write ``path``.png and ``path``.svg with the description in them; write nothing if there is no figure.

    Neither a date nor a version goes into the files: equal plots are equal bytes.
    """
    if figure is None:
        return []
    find_fonts(figure)
    written = []
    for suffix, unwanted in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        content = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            figure.savefig(content, format=suffix, dpi=300, metadata={"Description": description, **unwanted})
        target = path.with_name(f"{path.name}.{suffix}")
        write_atomically(target, content.getvalue())
        written.append(target)
    return written


def find_fonts(figure: Figure) -> None:
    """Give texts with characters that the style's font lacks, such as Chinese ones, the fonts that have them."""
    for text in figure.findobj(Text):
        families, _ = fonts_for(text.get_text())
        if len(families) > 1:
            text.set(family=families, weight="normal", style="normal")  # in which they were found


@cache
def fonts_for(text: str) -> tuple[list[str], str]:
    """Return fonts that have a text's characters, the style's first, and the characters that no installed font has."""
    own, families = STYLE["font.family"], [STYLE["font.family"]]
    missing = {letter for letter in text if not letter.isspace()} - _letters(font_manager.findfont(own))
    for font in sorted(font_manager.fontManager.ttflist, key=lambda font: font.name) if missing else []:
        if (font.style, font.weight) != ("normal", 400) or font.name.startswith("Last Resort"):  # it draws boxes
            continue
        if missing & (found := _letters(font.fname)):
            families.append(font.name)
            missing -= found
    return families, "".join(sorted(missing))


@cache
def _letters(path: str) -> frozenset[str]:
    """Return the characters that a font can draw; none if it can't be read, or has pictures in place of outlines."""
    try:
        font = font_manager.get_font(path)
        return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()
    except (OSError, RuntimeError):
        return frozenset()


def read_description(path: Path) -> str | None:
    """Return the description that :func:`save` wrote into a PNG or SVG; None if it has none."""
    if path.suffix == ".svg":
        element = ElementTree.parse(path).find(".//{http://purl.org/dc/elements/1.1/}description")
        return None if element is None else element.text
    with Image.open(path) as image:
        return image.info.get("Description")


def is_saved(path: Path, description: str) -> bool:
    """Tell whether :func:`save` wrote ``path``.png and ``path``.svg with this description."""
    files = [path.with_name(f"{path.name}.{suffix}") for suffix in ("png", "svg")]
    try:
        return all(file.exists() and read_description(file) == description for file in files)
    except (OSError, ElementTree.ParseError):  # a damaged file, which is made again
        return False


def make_figure(
    width: float,
    height: float,
    titles: Sequence[str],
    variant: Variant,
    data: Iterable[str],
    columns: int | None = None,
    share_y: bool = True,
    grid: str = "y",
) -> tuple[Figure, list[Axes]]:
    """Make a figure with a panel per title, and a caption above that names the data sets and the variant.

    width, height: in inches. data: the names of the data sets; each is named once. columns: panels in a line, all of
    them for None; the last line is filled from the left. grid: the axis that light lines stand on, "x" or "y", or ""
    for none. Several panels have letters.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    columns = columns or len(titles)
    axes = list(figure.subplots(math.ceil(len(titles) / columns), columns, sharey=share_y, squeeze=False).flat)
    for axis in axes[len(titles) :]:
        axis.remove()
    axes = axes[: len(titles)]
    for place, (axis, title) in enumerate(zip(axes, titles)):
        lettered = f"({ascii_lowercase[place]}) {title}" if len(titles) > 1 else title
        axis.set_title(wrapped(lettered, width / columns - 0.4, 8.2))
        axis.tick_params(labelbottom=place + columns >= len(titles))  # below it there may be no other axis
        if grid:
            axis.grid(axis=grid)
    names = "; ".join(dict.fromkeys(DATA_NAMES.get(name, name) for name in data))
    caption(figure, " · ".join([names, *([variant.heading] if variant.suffix else [])]))
    return figure, axes


def caption(figure: Figure, text: str) -> None:
    """Write a line, or lines where it is long, above all panels."""
    width = figure.get_figwidth() - 0.1
    before, text = figure.get_suptitle().count("\n"), wrapped(text, width, SMALLEST)
    figure.suptitle(text, fontsize=SMALLEST, color=GREY, style="italic")
    figure.set_figheight(figure.get_figheight() + 0.12 * (text.count("\n") - before))


def wrapped(text: str, inches: float, points: float) -> str:
    """Break a text into lines of this width, for letters of this size."""
    return textwrap.fill(text, max(8, int(inches * 72 / (0.58 * points))), break_long_words=False)


def legend_below(figure: Figure, entries: dict[str, object]) -> None:
    """Put a legend below all panels, of names with their artists, in the most columns that the figure has room for.

    The figure grows by the legend's height, so that the panels keep theirs.
    """
    for columns in range(min(5, len(entries)), 0, -1):
        legend = figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns)
        size = legend.get_window_extent(figure.canvas.get_renderer())
        if columns == 1 or size.width <= 0.98 * figure.bbox.width:
            break
        legend.remove()
    figure.set_figheight(figure.get_figheight() + size.height / figure.dpi)


def look(index: int) -> tuple[str, str]:
    """Return the colour and marker of the net at this place of its panel."""
    return COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Move positions (from 0 to 1) apart to distances of at least ``gap``, with their order kept.

    Positions that are too close form a stack around their mean, which moves them least in the sense of least squares.
    """
    order = sorted(range(len(positions)), key=positions.__getitem__)
    stacks: list[list[int]] = []

    def bottom(stack: list[int]) -> float:
        centre, reach = intervals.mean([positions[i] for i in stack]), gap * (len(stack) - 1)
        return min(max(centre - reach / 2, 0), 1 - reach)

    for index in order:
        stacks.append([index])
        while len(stacks) > 1 and bottom(stacks[-1]) < bottom(stacks[-2]) + gap * len(stacks[-2]):
            stacks[-2:] = [stacks[-2] + stacks[-1]]
    placed = {index: bottom(stack) + gap * place for stack in stacks for place, index in enumerate(stack)}
    return [placed[index] for index in range(len(positions))]


def bars(values: Sequence[float], interval: intervals.Interval | None = None) -> list[list[float]] | None:
    """Return the lengths of an error bar below and above the mean, (2, 1): the 95 % t-interval, cut at 0 and 100 %.

    ``interval`` is drawn in its place, uncut, where it is given, as for differences. None without an interval, as for
    fewer than three values: two are seen as dots.
    """
    found = interval or intervals.percent(intervals.mean_interval(values))
    return found and [[intervals.mean(values) - found.low], [found.high - intervals.mean(values)]]


def named(label: str, records: list[dict]) -> str:
    """Return the label with the number of completed runs, and of diverged ones: ``ResNet-20 (n = 5)``."""
    runs = len(completed(records))
    lost = f"; {len(records) - runs} diverged" if len(records) > runs else ""
    return f"{label} (n = {runs}{lost})"
