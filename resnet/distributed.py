"""Data-parallel training of one run: each process computes a part of every batch, and the gradients are summed.

Every process holds the same weights and draws the same global batches. It works on its own contiguous part with

    loss = mean loss over the part * (images in the part / images in the batch)

so that losses and gradients only need to be summed over the processes, even if the parts differ in size. BN statistics
don't depend on the number of processes either (:mod:`resnet.normalization`). Only rounding differs, because sums are
taken in another order. With :data:`ALONE`, the group of one process, everything here is a no-op.
"""

import io
import socket
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Group:
    """``size`` processes that train one run; this one has number ``rank``, counted from 0.

    All methods but :meth:`share` are collective: every process must call them, in the same order. They raise
    RuntimeError if another process has died, at once or after the timeout of :func:`join`.
    """

    rank: int
    size: int

    def share(self, count: int) -> slice:
        """Return this process's part of ``count`` items: contiguous, in rank order, of equal size up to one item.

        Raises ValueError if there are fewer items than processes.
        """
        if count < self.size:
            raise ValueError(f"{count} images can't be split over {self.size} processes: use at most {count} processes")
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    @torch.no_grad()
    def sum_(self, *tensors: Tensor) -> None:
        """Replace each tensor by its sum over the processes, bit for bit the same in all; one all-reduce per dtype."""
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

    def any(self, flag: bool) -> bool:
        """Return whether ``flag`` is true in any process. The host waits for the other hosts, not for the devices."""
        if self.size == 1:
            return bool(flag)
        raised = torch.tensor(int(flag))
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return bool(raised)

    def barrier(self) -> None:
        """Wait until all processes have reached this call."""
        self.any(False)

    def broadcast(self, value, device: torch.device | str = "cpu"):
        """Return process 0's ``value`` in all processes.

        The value holds tensors, which the other processes put on ``device``, and plain values. The other processes'
        own argument is ignored. It is sent in torch's weights-only format, so no code of the sender is executed.
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
    """Join the :class:`Group` of ``size`` processes that meet at ``address``:``port``, on the machine of rank 0.

    All processes pass the same address, free port, size and ``name``; the name tells apart two groups that happen to
    use the same port. A later group in the same processes needs another port. ``device`` is this process's own: CPUs
    communicate through gloo, CUDA devices through NCCL, and a CUDA device becomes the current one. ``timeout``, in
    seconds, limits the wait for the others here and in each later exchange. With ``size`` 1 the group is
    :data:`ALONE`, and nothing is set up.

    Raises ValueError for an impossible rank or size, and RuntimeError, which names the missing processes and the
    settings to check, if the processes don't find each other in time.
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
        group.barrier()  # no process leaves while another still needs the connection
    finally:
        dist.destroy_process_group()


def _connect(address: str, port: int, rank: int, size: int, device: torch.device, timeout: timedelta, name: str):
    """Initialise torch.distributed after all processes have registered in a store that rank 0 serves."""
    missing = None
    try:
        socket.getaddrinfo(address, port)  # torch would retry an unknown host name until the timeout
        server = dist.TCPStore(address, port, None, rank == 0, timeout, wait_for_workers=False)
        store = dist.PrefixStore(name, server)
        present = [f"present/{other}" for other in range(size)]
        store.set(present[rank], "")
        try:
            store.wait(present, timeout)
        except RuntimeError:
            missing = [other for other, key in enumerate(present) if not store.check([key])]
            raise
        # Scalars and states on the host go through gloo with CUDA devices, too, so that they don't wait for the device.
        backend, own = ("cpu:gloo,cuda:nccl", device) if device.type == "cuda" else ("gloo", None)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout, device_id=own)
    except (RuntimeError, OSError) as error:
        why = f"missing: {', '.join(map(str, missing))}" if missing else str(error).splitlines()[0].rstrip(".")
        raise RuntimeError(
            f"process {rank} of {size} (numbered from 0) could not join the others at {address}:{port} ({why}; timeout"
            f" {timeout.total_seconds():g} s). Check that all {size} were started with this address, port and"
            f" size (name {name!r}); that {address} is the machine of process 0 and the others can reach it; that no"
            " other program uses the port there; and, on machines with several networks, that GLOO_SOCKET_IFNAME and"
            " NCCL_SOCKET_IFNAME name the interface to use"
        ) from error


def distribute(model: nn.Module, group: Group) -> nn.Module:
    """Wrap ``model`` in DistributedDataParallel (DDP) so that gradients are summed over the processes of ``group``.

    By default DDP would average them. Parameters stay the model's own objects; buffers are not exchanged. With one
    process, the model is returned unchanged. DDP regroups its buckets after the first backward pass, which changes the
    order of sums over three or more processes. For results that don't depend on interruptions, every start must
    therefore run one backward pass that does not count.
    """
    if group.size == 1:
        return model
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)  # its successor is new
        parallel = DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)
    parallel.register_comm_hook(None, _sum_gradients)
    return parallel


def _sum_gradients(_, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    return dist.all_reduce(bucket.buffer(), async_op=True).get_future().then(lambda future: future.value()[0])


def port_for(job: int, restart: int = 0) -> int:
    """Return a port for a start of a SLURM job, in 10000..29999, below Linux's ephemeral ports.

    All processes of the job get the same port. Ports differ for up to 1,250 consecutive job numbers with up to 16
    starts each, so neighbouring jobs on a machine don't collide, nor does a requeued job with its previous start.
    """
    return 10_000 + (16 * job + restart % 16) % 20_000


def local_device(local_rank: int) -> torch.device:
    """Return the device of process ``local_rank`` on this machine: its own GPU, or the CPU if there is none.

    A process that sees a single GPU uses that one. Raises ValueError if there are more processes than GPUs.
    """
    count = torch.cuda.device_count()
    if count < 2:
        return torch.device("cuda", 0) if count else torch.device("cpu")
    if local_rank >= count:
        raise ValueError(f"process {local_rank} (from 0) of this machine has no GPU of its own: it has {count} GPUs")
    return torch.device("cuda", local_rank)
