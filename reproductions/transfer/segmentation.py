"""He T. et al. 2018, Table 9: segmentation by networks that begin with better and better classifiers.

    python -m reproductions.transfer.segmentation --profile short
    python -m reproductions.transfer.segmentation --dataset ade20k
    python -m reproductions.transfer.segmentation --dataset ade20k --backbones "torchvision:resnet50:IMAGENET1K_V1 FILE"

A fully convolutional network begins with each classifier of the ladder of refinements. By default it is trained on
canvases: images of CIFAR-10 on backgrounds, with the networks of the CIFAR ladder; see :mod:`resnet.data.canvas`. On
ADE20K training follows the authors' public commands and logs. ``--backbones`` takes weights that exist; see
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
    """Write mean IoU and pixel accuracy; return the files."""
    return reports.write(page, ("mean_iou", "pixel_accuracy"))


EXPERIMENTS = experiments(
    task="segmentation",
    table="Table 9",
    title="Transfer of classifiers to segmentation",
    metric="mean_iou",
    report=report,
    headline=reports.headline,
    claims=reports.claimed,
    measure=PICTURES.make_missing,
    measurements=(PICTURES,),
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENTS))
