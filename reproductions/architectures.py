"""Parameters and multiply-adds of the networks, computed, beside the numbers in the papers."""

from dataclasses import dataclass, field

from reproductions import reported
from reproductions.harness.reporting.text import NONE, markdown_table
from resnet.models import image_size
from resnet.models.complexity import multiply_adds, parameters


@dataclass(frozen=True)
class Architecture:
    """A network's name in the papers, its model and options, and the keys of its reported numbers."""

    label: str
    model: str
    options: dict = field(default_factory=dict)
    reported: tuple[str, ...] = ()


ARCHITECTURES = (
    *(Architecture(f"plain-{depth}", f"cifar_plain{depth}") for depth in (20, 32, 44, 56, 110)),
    *(Architecture(f"ResNet-{n}", f"cifar_resnet{n}", reported=(f"resnet{n}",)) for n in (20, 32, 44, 56, 110, 1202)),
    *(Architecture(f"bottleneck ResNet-{depth}", f"cifar_bottleneck{depth}") for depth in (20, 56, 164)),
    *(Architecture(f"plain-{depth}", f"plain{depth}") for depth in (18, 34)),
    Architecture("ResNet-18", "resnet18", reported=("imagenet_resnet18",)),
    Architecture("ResNet-34 A", "resnet34", {"shortcut": "A"}, ("imagenet_resnet34a",)),
    *(Architecture(f"ResNet-34 {option}", "resnet34", {"shortcut": option}) for option in "BC"),
    Architecture("ResNet-50", "resnet50", reported=("imagenet_resnet50", "bot_resnet50")),
    *(Architecture(f"ResNet-50-{v.upper()}", "resnet50", {"variant": v}, (f"bot_resnet50{v}",)) for v in "bcd"),
    *(Architecture(f"ResNet-{n}", f"resnet{n}", reported=(f"imagenet_resnet{n}",)) for n in (101, 152)),
    Architecture("small residual CNN", "mnist_residual"),
)


def architectures_table(architectures: tuple[Architecture, ...] = ARCHITECTURES) -> str:
    """Return a Markdown table of each network's parameters and multiply-adds.

    Multiply-adds count the convolutions and the fully connected layer in the forward pass for one image. The papers
    call them FLOPs.
    """
    columns: dict[str, list[str]] = {
        "net": [net.label for net in architectures],
        "model": [_call(net) for net in architectures],
        "pixels": [str(image_size(net.model)) for net in architectures],
        "parameters": [f"{parameters(net.model, net.options):,}" for net in architectures],
        "reported (million)": [_reported(net, "parameters", "million") for net in architectures],
        "multiply-adds (billion)": [f"{multiply_adds(net.model, net.options) / 1e9:.3f}" for net in architectures],
        "reported FLOPs (billion)": [_reported(net, "FLOPs", "billion") for net in architectures],
    }
    return markdown_table(columns)


def _call(net: Architecture) -> str:
    """Return the model's name and options as :func:`create_model` takes them."""
    return " ".join([net.model, *(f"{name}={value}" for name, value in net.options.items())])


def _reported(net: Architecture, metric: str, unit: str) -> str:
    """Return a network's numbers in the papers with their sources, or a dash."""
    numbers = [
        number
        for number in reported.load()
        if number.key in net.reported and (number.metric, number.unit, number.source.origin) == (metric, unit, "paper")
    ]
    return "; ".join(f"{number} ({number.source.name})" for number in numbers) or NONE
