"""Weights in the precision that convolutions and linear layers compute in under autocast."""

import torch
from torch import Tensor, nn
from torch.func import functional_call


class WeightCopies:
    """Copies of a network's weights in ``dtype``, and the network as computed with them under autocast.

    Autocast by itself makes such a copy of each weight in every forward pass, and turns each gradient back in every
    backward pass: an operation each, a fifth of all of a step of ResNet-110. Here one operation makes many. The results
    are the same bit for bit, for one backward pass a step.

    Use: :meth:`refresh`, a forward pass, a backward pass, :meth:`move_gradients`.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype):
        self._model = model
        self._weights = {
            f"{path}.{name}": parameter
            for path, module in model.named_modules()
            if isinstance(module, (nn.Conv2d, nn.Linear))
            for name, parameter in module.named_parameters(recurse=False)
        }
        self._copies = {name: weight.detach().to(dtype).requires_grad_() for name, weight in self._weights.items()}

    @torch.no_grad()
    def refresh(self) -> None:
        """Take the weights as they are now."""
        torch._foreach_copy_(list(self._copies.values()), list(self._weights.values()))

    def __call__(self, images: Tensor) -> Tensor:
        return functional_call(self._model, self._copies, (images,))

    @torch.no_grad()
    def move_gradients(self) -> None:
        """Give the weights the gradients of their copies."""
        for weight in self._weights.values():
            weight.grad = torch.empty_like(weight)
        gradients = [copy.grad for copy in self._copies.values()]
        torch._foreach_copy_([weight.grad for weight in self._weights.values()], gradients)
        for copy in self._copies.values():
            copy.grad = None
