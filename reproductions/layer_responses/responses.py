"""How strongly the layers of a network respond (He et al. 2015, section 4.2, "Analysis of Layer Responses").

A layer's response is the output of its BN, before the addition of the shortcut and before the ReLU. The paper shows its
standard deviation for every 3x3 layer (Figure 7) and leaves open over which images and with which statistics of BN.
Here it is taken over the test images, in evaluation mode: with the running statistics that the network ended with, as
its test error is. In training mode every BN would normalise a batch by that batch's own statistics, and the standard
deviation would be little more than the root mean square of BN's scales.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from resnet.device import exact_kernels


def layer_names(model: nn.Module) -> list[str]:
    """The 3x3 convolutions that have a BN of their own, in the order in which images pass through them.

    Those are all weighted layers of a plain or residual net for 32x32 images but the fully connected one. Raises
    ValueError for a network with a 3x3 convolution without BN, and for one that has none.
    """
    modules = dict(model.named_modules())
    names = [name for name, module in modules.items() if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)]
    if not names or not all(isinstance(modules.get(_norm(name)), nn.BatchNorm2d) for name in names):
        raise ValueError("layer responses are measured behind BN: not every 3x3 convolution here has one of its own")
    return names


def _norm(convolution: str) -> str:
    """The name of a convolution's BN: ``layer1.0.bn2`` of ``layer1.0.conv2``."""
    *path, last = convolution.split(".")
    return ".".join([*path, last.replace("conv", "bn")])


@torch.no_grad()
def response_deviations(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """The standard deviation of every 3x3 layer's response over all images, channels and places, in fp32.

    ``batches`` gives images (n, C, H, W) and labels (n,), which don't matter. Returns the deviations by the names of
    :func:`layer_names`, in their order. The model is put into evaluation mode and back into the mode it was in. Raises
    ValueError as :func:`layer_names`.
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
    """Of all values together, from each image's variance and mean (2, N), which are of equally many values."""
    variances, means = moments
    return (variances.mean() + means.var(correction=0)).sqrt().item()
