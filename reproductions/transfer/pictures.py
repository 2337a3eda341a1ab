"""Pictures of test images with the masks or boxes that a row's first seed finds, and the true ones beside them.

Of the boxes that are found, the surest are shown, as many as there are objects.
"""

import base64
import io
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image
from torch import nn

from reproductions.cifar_imagenet_stem.report import CLASSES
from reproductions.harness.experiment import RowResult, Variant
from reproductions.harness.measurements import Measurement, MeasurementError
from reproductions.harness.reporting.figure import COLOURS, DATA_NAMES, DOUBLE, SMALLEST, caption, legend_below, styled
from reproductions.harness.reporting.frame import completed
from resnet.data import Data
from resnet.data.canvas import IGNORED
from resnet.data.scenes import VOC_CLASSES
from resnet.run import Run

SHOWN = 4  # test images, the first ones
LONGEST = 192  # pixels of a picture's longer side; larger images are scaled down


@torch.no_grad()
def _measure(model: nn.Module, data: Data, run: Run) -> dict:
    model.eval()
    batches = data.tests(run.task, first=SHOWN)
    pairs = [pair for batch in batches for pair in zip(batch.scenes, model.predict(batch))]
    return {"shown": [make_picture(run.task.name, *pair) for pair in pairs]}


def make_picture(task: str, scene, found) -> dict:
    """Pack a test image, at most LONGEST pixels long, with its true and found masks or boxes, as texts and numbers."""
    pixels = scene.pixels.cpu().numpy()
    scale = min(1.0, LONGEST / max(pixels.shape[:2]))
    size = tuple(max(1, round(scale * side)) for side in pixels.shape[1::-1])
    image = _packed(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
    if task == "segmentation":
        masks = {"true": scene.mask.cpu().numpy(), "found": found.to(torch.uint8).cpu().numpy()}
        return {"image": image} | {
            name: _packed(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)) for name, mask in masks.items()
        }
    sure = np.argsort(-found.scores, kind="stable")[: len(scene.boxes)]
    texts = [f"{100 * score:.0f} %" for score in found.scores[sure]]
    boxes = {
        "true": (scene.boxes, scene.labels, [""] * len(scene.boxes)),
        "found": (found.boxes[sure], found.labels[sure], texts),
    }
    return {"image": image} | {
        name: [[int(label), *(round(scale * float(side), 1) for side in box), text] for box, label, text in zip(*own)]
        for name, own in boxes.items()
    }


def _packed(image: Image.Image) -> str:
    """Return a PNG in base64."""
    content = io.BytesIO()
    image.save(content, format="PNG")
    return base64.b64encode(content.getvalue()).decode()


def unpack(text: str) -> np.ndarray:
    """Decode a packed image (H, W, 3) or mask (H, W)."""
    with Image.open(io.BytesIO(base64.b64decode(text, validate=True))) as image:
        return np.asarray(image)


def _problem(content: dict, record: dict) -> str | None:
    try:
        for picture in content["shown"]:
            texts = [picture[name] for name in ("image", "true", "found") if isinstance(picture[name], str)]
            if len({unpack(text).shape[:2] for text in texts}) != 1:
                return "a mask has another size than its image"
            boxes = [each for name in ("true", "found") if isinstance(picture[name], list) for each in picture[name]]
            if any(len(each) != 6 for each in boxes):
                return "a box is not a label, four sides and a score"
    except (TypeError, KeyError, ValueError, OSError) as error:
        return f"a picture can't be read: {error}"
    return None if len(content["shown"]) == min(SHOWN, content["images"]) else "a picture is missing"


PICTURES = Measurement(
    folder="pictures",
    how="first test images, evaluation mode, fp32",
    # Of each image: itself as a PNG, and the true and the found mask, too, or boxes between label and score; of those
    # that were found, the surest are kept, as many as there are objects.
    fields={"shown": list},
    measure=_measure,
    problem=_problem,
    concerns=lambda record: "task" in record["specification"] and record["specification"]["seed"] == 0,
)


@styled
def figure(results: Sequence[RowResult], variant: Variant, out) -> Figure | None:
    """Draw the first test images with the truth and with the result of each row that has pictures below ``out``.

    None if no row has any.
    """
    found = {}
    for result in results:
        for record in completed(result.records):
            try:
                if PICTURES.concerns(record) and (file := PICTURES.find(out, record)) is not None:
                    found[result.row.label] = file
            except MeasurementError:  # the launch says so
                continue
    if not found:
        return None
    first = next(iter(found.values()))
    columns = {"image": None, "truth": first["shown"], **{label: file["shown"] for label, file in found.items()}}
    lines = len(first["shown"])
    drawn = Figure(figsize=(DOUBLE, DOUBLE * lines / len(columns) + 0.4), layout="constrained")
    FigureCanvasAgg(drawn)
    data = results[0].row.data
    boxes = isinstance(first["shown"][0]["true"], list)
    said = ["seed 0", *(["the surest boxes, as many as there are objects"] if boxes else [])]
    caption(drawn, " · ".join([DATA_NAMES.get(data, data), *([variant.heading] if variant.suffix else []), *said]))
    grid = drawn.subplots(lines, len(columns), squeeze=False)
    for column, (label, pictures) in enumerate(columns.items()):
        for line in range(lines):
            axis, image = grid[line][column], unpack(first["shown"][line]["image"])
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            axis.imshow(image)
            axis.autoscale(False)  # boxes at the border would make room
            if pictures is not None:
                _draw(axis, pictures[line]["true" if label == "truth" else "found"], data)
            if line == 0:
                axis.set_title(label, fontsize=SMALLEST, loc="center", weight="normal")
    if "canvas" in data and not boxes:
        patches = {name: Patch(color=_colour(label, data)) for label, name in enumerate(_names(data), start=1)}
        legend_below(drawn, patches)
    return drawn


def _draw(axis: Axes, content: str | list, data: str) -> None:
    """Draw a mask's classes in colours, or boxes with the names of their classes."""
    if isinstance(content, str):
        mask = unpack(content)
        shown = np.zeros((*mask.shape, 4))
        for label in set(np.unique(mask).tolist()) - {IGNORED} - ({0} if "canvas" in data else set()):
            shown[mask == label] = (*_colour(label, data), 0.65)
        shown[mask == IGNORED] = (1, 1, 1, 0.8)
        axis.imshow(shown)
        return
    names = _names(data)
    for label, left, top, right, bottom, score in content:
        colour = COLOURS[label % len(COLOURS)]
        axis.plot([left, right, right, left, left], [top, top, bottom, bottom, top], color=colour, linewidth=1)
        axis.text(left + 1, top + 1, f"{names[label - 1]} {score}".rstrip(), color="white", fontsize=4, va="top",
                  bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.5})  # fmt: skip


def _names(data: str) -> tuple[str, ...]:
    """Return the names of the classes from 1 on."""
    return VOC_CLASSES if data == "voc" else CLASSES["synthetic" if data.startswith("synthetic") else "cifar10"]


def _colour(label: int, data: str) -> tuple[float, float, float]:
    """Return a class's colour: the ten classes of canvases have ten hues, and neighbours in hue differ in lightness."""
    hue = label * 3 % 10 / 10 if "canvas" in data else label * 0.381966 % 1
    return tuple(hsv_to_rgb((hue, 0.8, 0.65 if label % 2 else 0.95)))
