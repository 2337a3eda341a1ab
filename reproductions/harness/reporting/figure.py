"""What all plots share: their style, files with a description in them, and how means and intervals are drawn."""

import io
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from reproductions.harness.experiment import Variant
from reproductions.harness.reporting import intervals
from resnet.files import write_atomically

# Those of Okabe and Ito's colours that show on white; every colour has a marker that tells it apart in grey.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P")
INK, GREY = "#222222", "#767676"
STYLE = {
    # A user's own matplotlibrc changes nothing; the first two are not matters of style.
    **{name: value for name, value in matplotlib.rcParamsDefault.items() if name not in ("backend", "interactive")},
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.hashsalt": "reproductions",  # else its ids are drawn at random
    "svg.fonttype": "path",
}


def save(figure: Figure | None, path: Path, description: str) -> list[Path]:
    """Write ``path``.png and ``path``.svg with the description in them; nothing if there is no figure.

    Neither a date nor a version goes into the files: equal plots are equal bytes.
    """
    if figure is None:
        return []
    find_fonts(figure)
    written = []
    for suffix, unwanted in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        content = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            figure.savefig(content, format=suffix, dpi=160, metadata={"Description": description, **unwanted})
        target = path.with_name(f"{path.name}.{suffix}")
        write_atomically(target, content.getvalue())
        written.append(target)
    return written


def find_fonts(figure: Figure) -> None:
    """Give texts with characters that the style's font lacks, such as Chinese ones, the fonts here that have them."""
    for text in figure.findobj(Text):
        families, _ = fonts_for(text.get_text())
        if len(families) > 1:
            text.set(family=families, weight="normal", style="normal")  # in which they were found


@cache
def fonts_for(text: str) -> tuple[list[str], str]:
    """Fonts that have the characters of a text, the style's first, and the characters that none here has."""
    own, families = STYLE["font.family"], [STYLE["font.family"]]
    missing = {letter for letter in text if not letter.isspace()} - _letters(font_manager.findfont(own))
    for font in sorted(font_manager.fontManager.ttflist, key=lambda font: font.name) if missing else []:
        if (font.style, font.weight) != ("normal", 400) or font.name.startswith("Last Resort"):  # which has boxes alone
            continue
        if missing & (found := _letters(font.fname)):
            families.append(font.name)
            missing -= found
    return families, "".join(sorted(missing))


@cache
def _letters(path: str) -> frozenset[str]:
    """The characters that a font can draw; none if it can't be read, or has pictures in place of outlines."""
    try:
        font = font_manager.get_font(path)
        return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()
    except (OSError, RuntimeError):
        return frozenset()


def read_description(path: Path) -> str | None:
    """The description that :func:`save` wrote into a PNG or SVG; None if it has none."""
    if path.suffix == ".svg":
        element = ElementTree.parse(path).find(".//{http://purl.org/dc/elements/1.1/}description")
        return None if element is None else element.text
    with Image.open(path) as image:
        return image.info.get("Description")


def is_saved(path: Path, description: str) -> bool:
    """Whether :func:`save` wrote ``path``.png and ``path``.svg with this description."""
    files = [path.with_name(f"{path.name}.{suffix}") for suffix in ("png", "svg")]
    try:
        return all(file.exists() and read_description(file) == description for file in files)
    except (OSError, ElementTree.ParseError):  # a damaged file, which is made again
        return False


def make_figure(
    width: float, height: float, panels: int, variant: Variant, columns: int | None = None, share_y: bool = True
) -> tuple[Figure, list[Axes]]:
    """A figure with axes side by side, headed by the variant unless it is the paper's protocol.

    In lines of so many ``columns`` if told, the last one filled from the left.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    columns = columns or panels
    lines = math.ceil(panels / columns)
    axes = list(figure.subplots(lines, columns, sharex=True, sharey=share_y, squeeze=False).flat)
    for axis in axes[panels:]:
        axis.remove()
    axes = axes[:panels]
    for axis in axes:  # above an empty place there is no other axis to bear the numbers
        axis.tick_params(labelbottom=axes.index(axis) + columns >= panels)
    if variant.suffix:
        figure.suptitle(variant.heading, fontsize=9.5, color=GREY, style="italic")
    return figure, axes


def grid(axis: Axes, which: str) -> None:
    """Light lines behind all else, at the ticks of the axis ``which``: "x" or "y"."""
    axis.grid(axis=which, color="#DDDDDD", linewidth=0.6)
    axis.set_axisbelow(True)


def look(index: int) -> tuple[str, str]:
    """Colour and marker of the net at this place of its panel."""
    return COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """The positions (from 0 to 1), moved apart to distances of at least ``gap`` with their order kept.

    Those that are too close form a stack around their mean, which moves them least in the sense of least squares.
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


def bars(values: list[float]) -> list[list[float]] | None:
    """Lengths of the 95 % t-interval below and above the mean, as error bars want them."""
    mean, bounds = intervals.mean(values), intervals.mean_interval(values)
    return [[mean - bounds.low], [bounds.high - mean]] if bounds else None


def counted_seeds(counts: list[int]) -> str:
    """``1 seed``, ``3–5 seeds``: the fewest and the most of sorted counts."""
    return "1 seed" if counts == [1] else f"{'–'.join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))} seeds"
