"""The first part of a classifier as a module of its own, with dilation in place of the later strides.

A net's features are the outputs of its stages. They can't be taken out by torchvision's ``IntermediateLayerGetter``,
because the ReLU of the stem is a function, not a module, and would be lost.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from resnet.models.blocks import PadShortcut
from resnet.models.net import Net


class Trunk(nn.Module):
    """The stem and the first ``stages`` stages of a net (None: all), whose modules it takes over.

    Maps images (N, 3, H, W) to a list with the output of each stage. ``strides``: pixels of an image for each feature
    of a stage. ``stride``: the most of them; a stage that would exceed it is dilated instead, as in the authors' nets
    for segmentation: the convolution that had the stride looks as far as those before it, and the others twice as far.
    ``channels``: of each stage. Raises ValueError for a stride that no stage has.
    """

    def __init__(self, net: Net, stages: int | None = None, stride: int | None = None):
        super().__init__()
        self.conv1, self.bn1, self.maxpool = net.conv1, net.bn1, net.maxpool
        self.stages = net.stages[:stages]
        first = 1
        for module in (*net.conv1.modules(), net.maxpool):
            first *= module.stride[0] if isinstance(module, nn.Conv2d) else getattr(module, "stride", 1)
        natural = [first * 2**place for place in range(len(self.stages))]
        if stride is not None and stride not in natural:
            raise ValueError(f"features can have a stride of {' or '.join(map(str, natural))}, not {stride}")
        self.strides = [min(own, stride or own) for own in natural]
        for name, own, wanted in zip(self.stages, natural, self.strides):
            if own > wanted:
                dilate(getattr(net, name), own // wanted)
            self.add_module(name, getattr(net, name))
        self.channels = [getattr(self, name)[-1].last_bn.num_features for name in self.stages]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Compute the output of each stage."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))
        features = []
        for name in self.stages:
            x = getattr(self, name)(x)
            features.append(x)
        return features


def dilate(stage: nn.Sequential, dilation: int) -> None:
    """Remove the stride of a stage's first block, and dilate its 3x3 convolutions so that they see as far as before.

    ``dilation`` is the new distance of the pixels that they see, in pixels of the stage's output. A pooling before the
    projection (variant D) is left out, as in the authors' nets, because without a stride there is nothing to pool.
    """
    distance = dilation // 2  # up to the convolution that had the stride
    for number, block in enumerate(stage):
        for convolution in (block.conv1, block.conv2, getattr(block, "conv3", None)):
            if convolution is None:
                continue
            if convolution.kernel_size == (3, 3):
                convolution.dilation = convolution.padding = (distance, distance)
            if convolution.stride != (1, 1):
                convolution.stride = (1, 1)
                # A 1x1 convolution with the stride (variant "original") precedes the 3x3 one of its block.
                distance = dilation
        distance = dilation
        if number == 0:
            _without_stride(block)


def _without_stride(block: nn.Module) -> None:
    """Remove the stride of a block's shortcut."""
    shortcut = block.downsample
    if isinstance(shortcut, PadShortcut):
        shortcut.stride = 1
    elif isinstance(shortcut, nn.Sequential):
        for place, module in enumerate(shortcut):
            if isinstance(module, nn.AvgPool2d):
                shortcut[place] = nn.Identity()  # which keeps the names of the weights
            elif isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
