"""One run over several processes: each takes its part of every batch, and the result is that of the whole batch.

Every process holds the same weights and draws the same global batches. It works on its own contiguous part with

    loss = mean loss over the part * (images of the part / images of the batch)

so that losses and gradients only need to be summed over the processes, however unequal the parts are. What BN takes its
statistics over does not depend on the processes either (:mod:`resnet.normalization`). What is left is rounding: sums
are added up in another order. With :data:`ALONE`, the group of one process, all of this does nothing.
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


def distribute(model: nn.Module, group: Group) -> nn.Module:
    """``model`` in DistributedDataParallel: its backward pass leaves gradients summed over the processes of ``group``.

    Parameters stay the model's own; buffers are left alone. With one process, the model as it is. DDP would by itself
    take means. It arranges its exchanges anew after the first backward pass, and with them the order of sums of three
    and more numbers: for results that don't depend on where training is interrupted, every start must take one pass
    that does not count.
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
