"""One process of the distributed tests: it joins groups of 2 and then 3, and writes its measurements in each to a file.

    python distributed_worker.py RANK FOLDER PORT_OF_2 PORT_OF_3

The last process ends with status 9 in the middle of the group of 3, the others with 0 once they have noticed.

The steps are written out here, for any group: :mod:`test_distributed` takes them with one process as well.
"""

import os
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from resnet.distributed import distribute, join
from resnet.models import create_model
from resnet.normalization import synchronize_batch_norm

BATCH, STEPS = 11, 20


def make_batch(step, dtype):
    """A batch of its own for each step: classes are brightnesses."""
    generator = torch.Generator().manual_seed(step)
    labels = torch.randint(10, (BATCH,), generator=generator)
    images = torch.randn(BATCH, 3, 16, 16, generator=generator, dtype=torch.float64) + labels[:, None, None, None] / 5
    return images.to(dtype, memory_format=torch.channels_last), labels


def sgd_steps(group, dtype):
    """Loss of each step, first gradients, final state of a small net after SGD steps on this process's parts."""
    model = create_model("cifar_resnet8", shortcut="B", generator=torch.Generator().manual_seed(0))
    model = model.to(dtype, memory_format=torch.channels_last).train()
    velocities = [torch.zeros_like(parameter) for parameter in model.parameters()]
    keys = list(model.state_dict())
    model = synchronize_batch_norm(model, group)
    assert list(model.state_dict()) == keys
    parallel = distribute(model, group)
    losses, first_gradients = [], None
    part = group.share(BATCH)
    for step in range(STEPS):
        images, labels = make_batch(step, dtype)
        model.zero_grad()
        loss = F.cross_entropy(parallel(images[part]), labels[part]) * ((part.stop - part.start) / BATCH)
        loss.backward()
        first_gradients = first_gradients or {name: p.grad.clone() for name, p in model.named_parameters()}
        with torch.no_grad():  # written out: importing torch's optimizers takes longer than all of these steps
            for parameter, velocity in zip(model.parameters(), velocities):
                velocity.mul_(0.9).add_(parameter.grad + 1e-3 * parameter)
                parameter -= 0.02 * velocity
        total = loss.detach().clone()
        group.sum_(total)
        losses.append(total.item())
    logits = model.eval()(make_batch(STEPS, dtype)[0]).detach()
    return {"losses": losses, "gradients": first_gradients, "state": model.state_dict(), "logits": logits}


def one_layer(group, dtype, offset=0.0, momentum=0.1, affine=True):
    """Output, gradients and buffers of one BN layer on values around ``offset``, for the loss sum(output * weights)."""
    generator = torch.Generator().manual_seed(1)
    x, weights = (torch.randn(BATCH, 6, 5, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    part = group.share(BATCH)
    layer = nn.Sequential(nn.Conv2d(6, 6, 1, bias=False), nn.BatchNorm2d(6, momentum=momentum, affine=affine))
    with torch.no_grad():
        layer[0].weight.copy_(torch.eye(6)[:, :, None, None])
        if affine:
            layer[1].weight.copy_(torch.linspace(0.5, 2, 6))
    layer = synchronize_batch_norm(layer.to(torch.promote_types(dtype, torch.float32)), group)[1]
    mine = (x + offset).to(dtype)[part].requires_grad_()
    output = layer(mine)
    output = layer(mine)  # a second time, for the running statistics
    (output * weights[part].to(dtype)).sum().backward()
    group.sum_(*(parameter.grad for parameter in layer.parameters()))
    return {
        "output": output.detach(),
        "gradient": mine.grad,
        "parameters": [parameter.grad for parameter in layer.parameters()],
        "buffers": dict(layer.named_buffers()),
    }


def stop_step(group):
    """The step after which all stop, where the last process alone is asked to during step 3."""
    for step in range(1, 6):
        if group.any(step == 3 and group.rank == group.size - 1):
            return step


def measure(group):
    """Everything above."""
    checkpoint = {"step": 7, "weights": torch.arange(3.0), "curve": [{"error": None}]}
    tensors = [torch.full((2, 3), float(group.rank)), torch.tensor(group.rank + 1), torch.ones(2).double()]
    group.sum_(*tensors)
    return {
        "float64": sgd_steps(group, torch.float64),
        "float32": sgd_steps(group, torch.float32),
        "layer": one_layer(group, torch.float64),
        "far from zero": one_layer(group, torch.float32, offset=1e4),
        "bfloat16": one_layer(group, torch.bfloat16),
        "cumulative": one_layer(group, torch.float64, momentum=None, affine=False),
        "stop": stop_step(group),
        "broadcast": group.broadcast(checkpoint if group.rank == 0 else None),
        "nothing": group.broadcast(None),
        "sums": tensors,
    }


def main(rank, folder, ports):
    if rank < 2:
        with join("127.0.0.1", ports[0], rank, 2, timeout=60, name="test") as group:
            torch.save(measure(group), folder / f"2-{rank}.pt")
    try:
        with join("127.0.0.1", ports[1], rank, 3, timeout=60, name="test") as group:
            torch.save(measure(group), folder / f"3-{rank}.pt")
            group.barrier()
            if rank == 2:
                os._exit(9)  # as if killed, while the others wait for it
            group.barrier()
    except RuntimeError as error:
        (folder / f"death-{rank}.txt").write_text(str(error))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]), Path(sys.argv[2]), [int(port) for port in sys.argv[3:]])
