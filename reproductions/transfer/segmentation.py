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

from reproductions.transfer.backbones import main
from reproductions.transfer.report import tables

EXPERIMENTS = tables("segmentation", "Table 9", ("mean_iou", "pixel_accuracy"))

if __name__ == "__main__":
    sys.exit(main(EXPERIMENTS))
