"""The networks of the ImageNet tables of He et al. 2015, and small ones for the smoke profile."""

from typing import NamedTuple


class NamedNet(NamedTuple):
    """A row's key and label, and its model with options."""

    key: str
    label: str
    model: str
    options: dict


NETS = (
    NamedNet("plain18", "plain-18", "plain18", {}),
    NamedNet("plain34", "plain-34", "plain34", {}),
    NamedNet("resnet18", "ResNet-18 A", "resnet18", {"shortcut": "A"}),
    NamedNet("resnet34a", "ResNet-34 A", "resnet34", {"shortcut": "A"}),
    NamedNet("resnet34b", "ResNet-34 B", "resnet34", {"shortcut": "B"}),
    NamedNet("resnet34c", "ResNet-34 C", "resnet34", {"shortcut": "C"}),
    NamedNet("resnet50", "ResNet-50", "resnet50", {"shortcut": "B"}),
    NamedNet("resnet101", "ResNet-101", "resnet101", {"shortcut": "B"}),
    NamedNet("resnet152", "ResNet-152", "resnet152", {"shortcut": "B"}),
)
# Smoke: nets for small images, because multi-scale tests of nets for ImageNet take minutes on a CPU.
TINY_NETS = (
    NamedNet("plain8", "plain-8", "cifar_plain8", {}),
    NamedNet("plain14", "plain-14", "cifar_plain14", {}),
    NamedNet("resnet8", "ResNet-8 A", "cifar_resnet8", {"shortcut": "A"}),
    NamedNet("resnet14a", "ResNet-14 A", "cifar_resnet14", {"shortcut": "A"}),
    NamedNet("resnet14b", "ResNet-14 B", "cifar_resnet14", {"shortcut": "B"}),
    NamedNet("resnet14c", "ResNet-14 C", "cifar_resnet14", {"shortcut": "C"}),
    NamedNet("bottleneck11", "bottleneck ResNet-11", "cifar_bottleneck11", {}),
)
