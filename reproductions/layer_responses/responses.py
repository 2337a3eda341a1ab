"""Layer responses of finished runs (He et al. 2015, section 4.2, "Analysis of Layer Responses").

A layer's response is the output of its BN, before the addition of the shortcut and before the ReLU. The paper shows its
standard deviation for every 3x3 layer (Figure 7) but does not specify the images or the BN statistics. Here it is
measured like the test error, over the test images in evaluation mode, with the final running statistics. In training
mode every BN would normalise a batch by its own statistics, and the standard deviation would be little more than the
root mean square of BN's scales.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from reproductions.harness.measurements import Measurement
from resnet.data import Data
from resnet.device import exact_kernels
from resnet.models import create_model
from resnet.run import Run


def layer_names(model: nn.Module) -> list[str]:
    """List the 3x3 convolutions, each followed by BN, in forward order.

    They are all weighted layers of a plain or residual net for 32x32 images except the fully connected one. Raises
    ValueError for a network without 3x3 convolutions or with one that has no BN.
    """
    modules = dict(model.named_modules())
    names = [name for name, module in modules.items() if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)]
    if not names or not all(isinstance(modules.get(_norm(name)), nn.BatchNorm2d) for name in names):
        raise ValueError("layer responses are measured after BN, so every 3x3 convolution needs a BN of its own")
    return names


def _norm(convolution: str) -> str:
    """Return the name of a convolution's BN: ``layer1.0.bn2`` for ``layer1.0.conv2``."""
    *path, last = convolution.split(".")
    return ".".join([*path, last.replace("conv", "bn")])


@torch.no_grad()
def response_deviations(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Measure the standard deviation of every 3x3 layer's response over all images, channels and positions, in fp32.

    ``batches`` yields images (n, C, H, W) and labels (n,), which are ignored. Returns the deviations by the names of
    :func:`layer_names`, in their order. The model is run in evaluation mode and then put back into its previous mode.
    Raises ValueError like :func:`layer_names`.
    """
    names, modules = layer_names(model), dict(model.named_modules())
    moments: dict[str, list[Tensor]] = {name: [] for name in names}

    def note(name: str):
        def hook(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            moments[name].append(torch.stack(torch.var_mean(output.flatten(1), dim=1, correction=0)))

        return hook

    hooks = [modules[_norm(name)].register_forward_hook(note(name)) for name in names]
    training = model.training
    model.eval()
    try:
        with exact_kernels():
            for images, _ in batches:
                model(images)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return {name: _deviation(torch.cat(parts, dim=1).double()) for name, parts in moments.items()}


def _deviation(moments: Tensor) -> float:
    """Combine the variances and means (2, N) of N images of equal size into the overall standard deviation."""
    variances, means = moments
    return (variances.mean() + means.var(correction=0)).sqrt().item()


def _measure(model: nn.Module, data: Data, run: Run) -> dict:
    deviations = response_deviations(model, data.tests("test", slice(None), run.recipe))
    return {"layers": list(deviations), "std": list(deviations.values())}


def _problem(content: dict, record: dict) -> str | None:
    if content["layers"] != layers_of(record):
        return "its layers are not the layers of the run's network"
    deviations = content["std"]
    finite = all(isinstance(value, float) and math.isfinite(value) and value >= 0 for value in deviations)
    return None if finite and len(deviations) == len(content["layers"]) else "it lacks valid standard deviations"


def layers_of(record: dict) -> list[str]:
    """Return the layer names of a record's network, in layer order."""
    run = Run.from_specification(record["specification"])
    with torch.device("meta"):  # names only
        return layer_names(create_model(run.model, **run.model_options))


RESPONSES = Measurement(
    folder="responses",
    how="test images, evaluation mode, fp32",
    fields={"layers": list, "std": list},  # names, in layer order; of each layer's response
    measure=_measure,
    problem=_problem,
)
