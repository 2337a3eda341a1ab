"""Low-precision copies of the weights for training under autocast."""

import torch
from torch import Tensor, nn
from torch.func import functional_call


class WeightCopies:
    """Copies of a network's weights in ``dtype``, and the network called with them under autocast.

    Frozen weights, which need no gradient, have no copies. Layers of other classes than PyTorch's own, or with forward
    pre-hooks, may compute with their weights in fp32, so these weights, also where other layers share them, are left to
    autocast.

    Autocast itself copies each weight in every forward pass and converts each gradient back in every backward pass, one
    kernel each: a fifth of all kernels of a ResNet-110 step. Here one kernel handles many weights. For one backward
    pass a step, the results are the same bit for bit.

    Use: :meth:`refresh`, a forward pass, a backward pass, :meth:`move_gradients`.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype):
        self._model = model
        names, others = {}, set()  # weights that several layers share have one copy, for all of them
        for path, module in model.named_modules():
            for name, parameter in module.named_parameters(recurse=False):
                if type(module) in (nn.Conv2d, nn.Linear) and not module._forward_pre_hooks and parameter.requires_grad:
                    names[parameter] = f"{path}.{name}"
                else:
                    others.add(parameter)
        self._weights = {name: parameter for parameter, name in names.items() if parameter not in others}
        self._copies = {name: weight.detach().to(dtype).requires_grad_() for name, weight in self._weights.items()}

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the current weights."""
        if self._copies:
            torch._foreach_copy_(list(self._copies.values()), list(self._weights.values()))

    def __call__(self, images: Tensor) -> Tensor:
        """Call the network with the copies of its weights."""
        return functional_call(self._model, self._copies, (images,))

    @torch.no_grad()
    def move_gradients(self) -> None:
        """Move the copies' gradients to the weights; layers that were not called have none.

        They are added to gradients that the weights have already, from a penalty in the loss, for example.
        """
        called = [(self._weights[name], copy) for name, copy in self._copies.items() if copy.grad is not None]
        fresh = [pair for pair in called if pair[0].grad is None]
        for weight, copy in called:
            if weight.grad is None:
                weight.grad = torch.empty_like(weight)
            else:
                weight.grad += copy.grad
        if fresh:
            torch._foreach_copy_([weight.grad for weight, _ in fresh], [copy.grad for _, copy in fresh])
        for _, copy in called:
            copy.grad = None
