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

from reproductions.transfer.backbones import main
from reproductions.transfer.report import tables

EXPERIMENTS = tables("detection", "Table 8", ("map_11_point", "map_area"))

if __name__ == "__main__":
    sys.exit(main(EXPERIMENTS))
