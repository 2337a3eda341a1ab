"""Layer responses, in layer order and sorted by size."""

from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from reproductions.harness.experiment import Variant
from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.figure import INK, STYLE, counted_seeds, grid, look, make_figure

LAYERS_PLACES = (3, 1, 2, 4, 5)  # colours and markers of the nets of Figure 7, the plain ones first


@dataclass(frozen=True)
class Layers:
    """A net's layers, each with the standard deviation of its response in every seed's net: in the order of the layers,
    and sorted by size.
    """

    label: str
    plain: bool
    in_order: list[list[float]]
    by_size: list[list[float]]


def layer_responses(nets: list[Layers], seeds: list[int], variant: Variant) -> Figure:
    """Standard deviations of layer responses in layer order (above) and sorted by size (below), as in Figure 7 of He et
    al. 2015: of plain nets dashed, with a band from the lowest to the highest of so many ``seeds`` around the mean.

    A net without layers is not drawn; the others look as they would beside it.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = make_figure(8.2, 7.0, 2, variant, columns=1)
        titles = ("in layer order", "sorted by size")
        for axis, title, panel in zip(axes, titles, ([n.in_order for n in nets], [n.by_size for n in nets])):
            for index, (net, layers) in enumerate(zip(nets, panel)):
                if layers:
                    _draw_layers(axis, layers, net, index)
            axis.set(title=title, ylabel="standard deviation of the response")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            grid(axis, "y")
        values = [value for net in nets for layer in net.in_order for value in layer]
        axes[0].set(xlim=(0, None))
        if min(values) < max(values) / 2:
            axes[0].set(ylim=(0, None))
        axes[0].set_xlabel("3x3 layer, from the input on")
        axes[1].set_xlabel("3x3 layer, from the largest standard deviation on")
        axes[0].tick_params(labelbottom=True)
        handles, names = axes[0].get_legend_handles_labels()
        if max(seeds) > 1:
            handles.append(Patch(color=INK, alpha=0.15, linewidth=0))
            names.append(f"lowest to highest of {counted_seeds(seeds)}; lines: mean")
        figure.legend(handles, names, loc="outside lower center", ncols=3)
        return figure


def _draw_layers(axis: Axes, layers: list[list[float]], net: Layers, index: int) -> None:
    colour, marker = look(LAYERS_PLACES[index % len(LAYERS_PLACES)])
    places = range(1, len(layers) + 1)
    step = max(1, len(layers) // 9)
    axis.plot(
        places, [intervals.mean(layer) for layer in layers], label=net.label, color=colour, linewidth=1.5,
        linestyle=(0, (4, 2)) if net.plain else "-", marker=marker, markersize=5, markevery=(index % step, step),
        markerfacecolor="white" if net.plain else colour,
    )  # fmt: skip
    axis.fill_between(places, list(map(min, layers)), list(map(max, layers)), color=colour, alpha=0.15, linewidth=0)
