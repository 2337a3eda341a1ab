"""Layer responses, in layer order and sorted by size."""

from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from reproductions.harness.experiment import Variant
from reproductions.harness.reporting.curves import draw_curve
from reproductions.harness.reporting.figure import DOUBLE, INK, legend_below, make_figure, styled

LAYERS_PLACES = (3, 1, 2, 4, 5)  # colours and markers of the nets of Figure 7, the plain ones first
TITLES = {"in layer order": "3x3 layer, from the input on", "sorted by size": "3x3 layer, the largest first"}


@dataclass(frozen=True)
class Layers:
    """Standard deviations of a net's responses, by layer and seed: in the order of the layers, and sorted by size."""

    label: str
    plain: bool
    in_order: list[list[float]]
    by_size: list[list[float]]


@styled
def layer_responses(nets: list[Layers], variant: Variant, data: list[str]) -> Figure:
    """Draw standard deviations of layer responses in layer order and sorted by size, as in Figure 7 of He et al. 2015.

    Plain nets are dashed; a band from the lowest to the highest seed surrounds the mean. A net without layers is not
    drawn; the others look as they would beside it. data: the names of the data sets, for the caption.
    """
    import pandas  # it takes a second to load

    figure, axes = make_figure(DOUBLE, 2.3, [*TITLES], variant, data)
    legend: dict[str, object] = {}
    drawn = [(place, net) for place, net in zip(LAYERS_PLACES * len(nets), nets) if net.in_order]
    for axis, meaning, panel in zip(axes, TITLES.values(), ("in_order", "by_size")):
        for place, net in drawn:
            layers = pandas.DataFrame(getattr(net, panel))
            over_seeds = layers.agg(["mean", "min", "max"], axis=1).set_axis(range(1, len(layers) + 1))
            draw_curve(axis, over_seeds, place, 1, net.plain, most=9)
            legend[f"{net.label} (n = {layers.shape[1]})"] = axis.lines[-1]
        axis.set(xlabel=meaning, xlim=(0, None))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_ylabel("standard deviation of response")
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(0 if low < high / 2 else low, high)
    if any(len(net.in_order[0]) > 1 for _, net in drawn):
        legend["lowest to highest seed; lines: mean"] = Patch(color=INK, alpha=0.18, linewidth=0)
    legend_below(figure, legend)
    return figure
