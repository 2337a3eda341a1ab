"""Plots of results as PNG and SVG, clear in grey print and for colour-blind readers.

Errors and accuracies are in percent. Both formats carry a description: from which records, and how to make them again.
"""

from reproductions.harness.reporting.plots.curves import (
    errors_over_epochs,
    learning_curves,
    loss_curves,
    mean_losses,
    schedules,
    step_curves,
)
from reproductions.harness.reporting.plots.depth import error_against_depth
from reproductions.harness.reporting.plots.figure import (
    COLOURS,
    GREY,
    INK,
    MARKERS,
    STYLE,
    find_fonts,
    fonts_for,
    is_saved,
    make_figure,
    read_description,
    save,
    spread,
)
from reproductions.harness.reporting.plots.forests import Line, forest
from reproductions.harness.reporting.plots.ladders import ladder
from reproductions.harness.reporting.plots.layers import Layers, layer_responses

__all__ = [
    "COLOURS",
    "GREY",
    "INK",
    "MARKERS",
    "STYLE",
    "Layers",
    "Line",
    "error_against_depth",
    "errors_over_epochs",
    "find_fonts",
    "fonts_for",
    "forest",
    "is_saved",
    "ladder",
    "layer_responses",
    "learning_curves",
    "loss_curves",
    "make_figure",
    "mean_losses",
    "read_description",
    "save",
    "schedules",
    "spread",
    "step_curves",
]
