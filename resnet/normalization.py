"""Batch normalization (BN) statistics over the whole batch of several processes, or over groups of a batch."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from resnet.distributed import Group
from resnet.recipe import Recipe


class BatchCounters:
    """The BN layers' counters of batches, incremented for all layers at once.

    By themselves the layers count with one kernel each, a tenth of all kernels of a ResNet-110 step. Layers that are
    synchronized with other processes, and layers with cumulative estimates, still count by themselves.
    """

    def __init__(self, model: nn.Module):
        self._layers = [m for m in _with_moving_estimates(model) if type(m) in (nn.BatchNorm1d, nn.BatchNorm2d)]

    @contextmanager
    def one_batch(self) -> Iterator[None]:
        """Count all forward passes inside the context as one batch."""
        counters = [layer.num_batches_tracked for layer in self._layers]
        try:
            for layer in self._layers:
                layer.num_batches_tracked = None
            yield
        finally:
            for layer, counter in zip(self._layers, counters):
                layer.num_batches_tracked = counter
        if counters:
            torch._foreach_add_(counters, 1)


def _with_moving_estimates(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """List the BN layers with running estimates that are no cumulative averages, which momentum None stands for."""
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return [layer for layer in layers if layer.running_mean is not None and layer.momentum is not None]


class RunningEstimates:
    """BN's running estimates for batches that are processed in groups of ``recipe.batch_norm_size`` images.

    Every group's forward pass starts from the same estimates, and a step ends with the mean of its groups' estimates,
    which does not depend on the number of processes. Cumulative estimates are left as they are, averages over all
    groups of this process. Use: :meth:`begin_batch`, then a forward pass and
    :meth:`end_group` for each group of this process, then :meth:`end_batch`.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, group: Group):
        layers = _with_moving_estimates(model)
        self._estimates = [tensor for layer in layers for tensor in (layer.running_mean, layer.running_var)]
        self._before, self._sums = ([torch.zeros_like(t) for t in self._estimates] for _ in range(2))
        self._groups, self._group = recipe.batch_size // recipe.batch_norm_size, group

    @torch.no_grad()
    def begin_batch(self) -> None:
        """Keep the estimates that every group starts from."""
        torch._foreach_copy_(self._before, self._estimates)
        torch._foreach_zero_(self._sums)

    @torch.no_grad()
    def end_group(self) -> None:
        """Add the group's estimates to the sum, and reset the layers to the estimates that it started from."""
        torch._foreach_add_(self._sums, self._estimates)
        torch._foreach_copy_(self._estimates, self._before)

    @torch.no_grad()
    def end_batch(self) -> None:
        """Give the layers the mean over the groups of all processes."""
        self._group.sum_(*self._sums)
        torch._foreach_div_(self._sums, self._groups)
        torch._foreach_copy_(self._estimates, self._sums)


def synchronize_batch_norm(model: nn.Module, group: Group) -> nn.Module:
    """Make the BN layers of ``model`` take their training statistics over the whole batch of ``group``.

    Layers are replaced; parameters and buffers stay the same objects with the same state-dict keys, so an optimizer
    can be created before or after. On CUDA the layers are torch's ``SyncBatchNorm``, elsewhere :class:`WholeBatchNorm`.
    With one process, the model is returned unchanged.
    """
    if group.size == 1:
        return model
    if next(model.parameters()).device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return _with_whole_batch_norm(model, group)


def _with_whole_batch_norm(module: nn.Module, group: Group) -> nn.Module:
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return WholeBatchNorm(module, group)
    for name, child in module.named_children():
        setattr(module, name, _with_whole_batch_norm(child, group))
    return module


class WholeBatchNorm(nn.modules.batchnorm._BatchNorm):
    """A BN layer with statistics over the whole batch of a group, for CPUs, where torch has no such layer.

    Maps (N, C, ...) to the same shape and dtype. Like BatchNorm it normalises with the biased variance and keeps a
    running estimate of the unbiased one. In evaluation mode it computes the same as ``layer``, the layer it replaces.
    """

    def __init__(self, layer: nn.modules.batchnorm._BatchNorm, group: Group):
        super().__init__(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
        self.weight, self.bias, self.group = layer.weight, layer.bias, group
        self.running_mean, self.running_var = layer.running_mean, layer.running_var
        self.num_batches_tracked = layer.num_batches_tracked
        self.train(layer.training)

    def _check_input_dim(self, x: Tensor) -> None:
        if x.dim() < 2:
            raise ValueError(f"expected (N, C, ...), got {x.dim()} dimensions")

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` over the whole batch of the group, or in evaluation mode with the running estimates."""
        self._check_input_dim(x)
        if not self.training:
            return super().forward(x)
        with torch.no_grad():
            count, mean, variance = _moments(x, self.group)
            if self.track_running_stats:
                self.num_batches_tracked += 1
                new = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean.to(self.running_mean), new)
                self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var), new)
        return _Normalize.apply(x, self.weight, self.bias, count, mean, variance, self.eps, self.group)


def _wide(x: Tensor) -> Tensor:
    """Return ``x`` with at least the precision of float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _moments(x: Tensor, group: Group) -> tuple[int, Tensor, Tensor]:
    """Return the number of values per channel, and the mean and biased variance (C,) in float64 over the whole batch.

    They are combined from each process's mean and sum of squared deviations, not from sums of squares (Chan, Golub,
    LeVeque 1979), and so stay accurate if the mean is large compared with the deviations.
    """
    variance, mean = torch.var_mean(_wide(x), dim=[d for d in range(x.dim()) if d != 1], correction=0)
    own = torch.cat([torch.tensor([x.numel() // x.shape[1]]), mean, variance]).double()
    parts = [torch.empty_like(own) for _ in range(group.size)]
    dist.all_gather(parts, own)
    counts, means, variances = torch.stack(parts).split([1, len(mean), len(mean)], dim=1)
    count = counts.sum()
    mean = (counts * means).sum(dim=0) / count
    variance = (counts * (variances + (means - mean).square())).sum(dim=0) / count
    return int(count), mean, variance


class _Normalize(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias, where mean and variance depend on every process's x.

    The backward pass is BN's (Ioffe and Szegedy 2015, section 3) for the sum of all processes' losses: its two sums run
    over the whole batch. The gradients of weight and bias are this process's part and must be summed over the processes
    like all other parameters' gradients.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, count, mean, variance, eps, group):
        dtype = _wide(x).dtype
        mean, variance = mean.to(dtype), variance.to(dtype)
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt())
        ctx.count, ctx.group = count, group
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx, gradient):
        x, weight, mean, scale = ctx.saved_tensors
        shape, others = (1, -1, *[1] * (x.dim() - 2)), [d for d in range(x.dim()) if d != 1]
        gradient, normalized = _wide(gradient), (_wide(x) - mean.view(shape)) * scale.view(shape)
        for_bias, for_weight = gradient.sum(others), (gradient * normalized).sum(others)
        whole = torch.stack([for_bias, for_weight])
        ctx.group.sum_(whole)
        offset, slope = (whole / ctx.count).unbind()
        for_x = scale.view(shape) * (gradient - offset.view(shape) - normalized * slope.view(shape))
        if weight is None:
            return for_x.to(x.dtype), *[None] * 7
        return (for_x * weight.view(shape)).to(x.dtype), for_weight.to(weight), for_bias.to(weight), *[None] * 5
