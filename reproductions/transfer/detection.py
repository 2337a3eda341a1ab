"""He T. et al. 2018, Table 8: detectors that begin with better and better classifiers.

    python -m reproductions.transfer.detection --profile smoke
    python -m reproductions.transfer.detection --dataset voc
    python -m reproductions.transfer.detection --dataset voc --backbones "torchvision:resnet50:IMAGENET1K_V1 FILE"

Faster R-CNN begins with each classifier of the ladder of refinements. By default it is trained on canvases: images of
CIFAR-10 on backgrounds, with the networks of the CIFAR ladder; see :mod:`resnet.data.canvas`. On PASCAL VOC training
follows the authors' public commands and logs. ``--backbones`` takes weights that exist; see
:mod:`reproductions.transfer.backbones`.
"""

import sys
from pathlib import Path

from reproductions.harness.reporting.page import Page
from reproductions.transfer import report as reports
from reproductions.transfer.backbones import main
from reproductions.transfer.pictures import PICTURES
from reproductions.transfer.protocol import experiments


def report(page: Page) -> list[Path]:
    """Write both forms of mean average precision; return the files."""
    return reports.write(page, ("map_11_point", "map_area"))


EXPERIMENTS = experiments(
    task="detection",
    table="Table 8",
    title="Transfer of classifiers to detection",
    metric="map_11_point",
    report=report,
    headline=reports.headline,
    claims=reports.claimed,
    measure=PICTURES.make_missing,
    measurements=(PICTURES,),
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENTS))
