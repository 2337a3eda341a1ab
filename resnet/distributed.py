"""One run over several processes: each takes its part of every batch, and the result is that of the whole batch.

Every process holds the same weights and draws the same global batches. It works on its own contiguous part with

    loss = mean loss over the part * (images of the part / images of the batch)

so that losses and gradients only need to be summed over the processes, however unequal the parts are. BN layers take
their statistics over the whole batch (:func:`synchronize_batch_norm`). What is left is rounding: sums are added up in
another order. With :data:`ALONE`, the group of one process, all of this does nothing.
"""

import io
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Group:
    """``size`` processes that train one run; this one is number ``rank``, from 0.

    All but :meth:`share` are collective: every process must call them, in the same order. They raise RuntimeError
    where another process has died, at once or after the timeout of :func:`join`.
    """

    rank: int
    size: int

    def share(self, count: int) -> slice:
        """The part of ``count`` items that is this process's: contiguous, in rank order, sizes differ by one at most.

        Raises ValueError if there are fewer items than processes: a part would be empty.
        """
        if count < self.size:
            raise ValueError(f"{count} images can't be split over {self.size} processes: use at most {count} processes")
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    @torch.no_grad()
    def sum_(self, *tensors: Tensor) -> None:
        """Replace each tensor by its sum over the processes, the same bits in all of them; one exchange per dtype."""
        if self.size == 1:
            return
        alike: dict[tuple, list[Tensor]] = {}
        for tensor in tensors:
            alike.setdefault((tensor.dtype, tensor.device), []).append(tensor)
        for members in alike.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in members])
            dist.all_reduce(flat)
            for tensor, total in zip(members, flat.split([tensor.numel() for tensor in members])):
                tensor.copy_(total.view(tensor.shape))

    def sum_gradients(self, model: nn.Module) -> None:
        """Sum the gradients of all parameters: call after the last backward pass and before the optimizer's step."""
        self.sum_(*(parameter.grad for parameter in model.parameters() if parameter.grad is not None))

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is true in any process. The host waits for the other hosts, but not for the devices."""
        if self.size == 1:
            return bool(flag)
        raised = torch.tensor(int(flag))
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return bool(raised)

    def barrier(self) -> None:
        """Wait until all processes have come here."""
        self.any(False)

    def broadcast(self, value, device: torch.device | str = "cpu"):
        """Process 0's ``value``, in all processes: tensors (in the others put on ``device``) and plain values.

        What the other processes pass is ignored. No code of the sender is executed: torch's weights-only format.
        """
        if self.size == 1:
            return value
        buffer = io.BytesIO()
        if self.rank == 0:
            torch.save(value, buffer)
        length = torch.tensor(buffer.tell())
        dist.broadcast(length, 0)
        content = torch.empty(int(length), dtype=torch.uint8)
        if self.rank == 0:
            content.numpy()[:] = buffer.getbuffer()
        dist.broadcast(content, 0)
        if self.rank == 0:
            return value
        return torch.load(io.BytesIO(content.numpy().tobytes()), map_location=device, weights_only=True)


ALONE = Group(rank=0, size=1)


@contextmanager
def join(address: str, port: int, rank: int, size: int, device="cpu", timeout: float = 600.0, name: str = ""):
    """The :class:`Group` of ``size`` processes that meet at ``address``:``port``, a machine and free port of rank 0's.

    All pass the same address, port, size and ``name``, which tells this group from another that happens to come to
    the same port; a later group in the same processes takes another port. ``device`` is this process's own: CPUs talk
    through gloo, CUDA devices through NCCL, and that device becomes the current one. ``timeout``, in seconds, is how
    long to wait for the others here and in each later exchange. With ``size`` 1 it is :data:`ALONE`, and nothing is
    set up.

    Raises ValueError for an impossible rank or size, and RuntimeError, naming who is missing and what to check, if the
    processes don't find each other in time.
    """
    if not 0 <= rank < size:
        raise ValueError(f"there is no process {rank} in a group of {size}: ranks go from 0 to size - 1")
    device = torch.device(device)
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
        torch.cuda.set_device(device)
    if size == 1:
        yield ALONE
        return
    _connect(address, port, rank, size, device, timedelta(seconds=timeout), name)
    try:
        group = Group(rank, size)
        yield group
        group.barrier()  # nobody leaves while another still needs the connection
    finally:
        dist.destroy_process_group()


def _connect(address: str, port: int, rank: int, size: int, device: torch.device, timeout: timedelta, name: str):
    """Initialise torch.distributed once all have written their names into a store that rank 0 serves."""
    missing = None
    try:
        socket.getaddrinfo(address, port)  # torch would try an unknown name until the time is up
        server = dist.TCPStore(address, port, None, rank == 0, timeout, wait_for_workers=False)
        store = dist.PrefixStore(name, server)
        present = [f"present/{other}" for other in range(size)]
        store.set(present[rank], "")
        try:
            store.wait(present, timeout)
        except RuntimeError:
            missing = [other for other, key in enumerate(present) if not store.check([key])]
            raise
        # Scalars and states on the host go through gloo on CUDA, too: they don't wait for the device.
        backend, own = ("cpu:gloo,cuda:nccl", device) if device.type == "cuda" else ("gloo", None)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout, device_id=own)
    except (RuntimeError, OSError) as error:
        why = f"missing: {', '.join(map(str, missing))}" if missing else str(error).splitlines()[0].rstrip(".")
        raise RuntimeError(
            f"process {rank} of {size} (numbered from 0) could not join the others at {address}:{port} ({why}; waits up"
            f" to {timeout.total_seconds():g} s). Check that all {size} were started with this address, port and"
            f" size (name {name!r}); that {address} is a machine of process 0's that the others reach, and nothing else"
            " uses the port there; and on machines with several networks that GLOO_SOCKET_IFNAME and"
            " NCCL_SOCKET_IFNAME name the interface to use"
        ) from error


def port_for(job: int, restart: int = 0) -> int:
    """A port in 10000..29999, below those that Linux hands out itself, for a start of a SLURM job.

    The same in all processes of the job. Different for up to 1,250 jobs with numbers in sequence, each with up to 16
    starts: neighbours on a machine don't meet, and a requeued job doesn't meet what is left of its last start.
    """
    return 10_000 + (16 * job + restart % 16) % 20_000


def local_device(local_rank: int) -> torch.device:
    """The device of process ``local_rank`` on this machine: its own GPU, or the CPU where there is none.

    Where this process sees a single GPU, that is its own. Raises ValueError if there are more processes than GPUs.
    """
    count = torch.cuda.device_count()
    if count < 2:
        return torch.device("cuda", 0) if count else torch.device("cpu")
    if local_rank >= count:
        raise ValueError(f"process {local_rank} (from 0) of this machine has no GPU of its own: there are {count}")
    return torch.device("cuda", local_rank)


def synchronize_batch_norm(model: nn.Module, group: Group) -> nn.Module:
    """``model`` with BN layers that, in training, take their statistics over the whole batch of ``group``.

    Layers are replaced; parameters and buffers stay the same objects with the same state-dict keys, so an optimizer
    may be made before or after. On CUDA the layers are torch's ``SyncBatchNorm``; elsewhere :class:`WholeBatchNorm`.
    With one process, the model as it is.
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
    """``layer``, a BN layer, with statistics over the whole batch of a group: for CPUs, where torch has no such layer.

    Takes (N, C, ...) and gives the same shape and dtype. Like BatchNorm it normalises with the biased variance and
    keeps a running estimate with the unbiased one. In evaluation mode it is ``layer``.
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
    """``x`` with at least the precision of float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _moments(x: Tensor, group: Group) -> tuple[int, Tensor, Tensor]:
    """Over all of the batch but the channels: number of values, mean and biased variance (C,), the last two float64.

    Combined from each process's mean and sum of squared deviations from it, not from squares (Chan, Golub, LeVeque
    1979): exact to rounding also where the mean is large beside the deviations.
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

    The backward pass is that of BN (Ioffe and Szegedy 2015, section 3) for the sum of all processes' losses: its two
    sums run over the whole batch. The gradients of weight and bias are this process's part, to be summed like those
    of all other parameters.
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
