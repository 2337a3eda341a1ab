"""Several processes compute like one with the whole batch, stop together, and name missing processes."""

import os
import socket
import subprocess
import sys

import distributed_worker as worker
import pytest
import torch
import torch.distributed as dist
from torch import nn

from resnet.distributed import ALONE, Group, distribute, join, local_device, port_for
from resnet.models import create_model
from resnet.normalization import WholeBatchNorm, synchronize_batch_norm


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def whole():
    """The measurements of one process with the whole batch."""
    return worker.measure(ALONE)


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """The folder with the measurements of three processes, in a group of two and in one of all three."""
    folder, ports = tmp_path_factory.mktemp("distributed"), [str(free_port()), str(free_port())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    started = [
        subprocess.Popen(
            [sys.executable, worker.__file__, str(rank), str(folder), *ports],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(3)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0, 9], "\n".join(errors)
    return folder


@pytest.fixture(scope="module", params=[2, 3], ids=["2 processes", "3 processes"])
def parts(request, processes):
    """The measurements of each process of a group, in rank order; a batch of 11 makes unequal parts."""
    return [torch.load(processes / f"{request.param}-{rank}.pt", weights_only=True) for rank in range(request.param)]


def assert_close(actual, expected, rtol, atol):
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol, check_stride=False)


# float32: sums in another order differ by 3e-7 in the first gradients. Later a ReLU's input so near to 0 can fall on
# its other side: one such moves the weights by 3e-3 within 20 steps. In float64, 20 steps differ by 3e-15.
TOLERANCES = [("float64", "gradients", 1e-12), ("float64", "state", 1e-10), ("float64", "losses", 1e-10)]
TOLERANCES += [("float64", "logits", 1e-10)]
TOLERANCES += [("float32", "gradients", 1e-5), ("float32", "state", 2e-2), ("float32", "losses", 5e-3)]


@pytest.mark.parametrize(("dtype", "what", "tolerance"), TOLERANCES)
def test_training_equals_one_process_with_the_whole_batch(whole, parts, dtype, what, tolerance):
    for part in parts:
        assert_close(part[dtype][what], whole[dtype][what], tolerance, tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_processes_hold_the_same_weights_bit_for_bit(parts, dtype):
    for part in parts[1:]:
        assert_close(part[dtype]["state"], parts[0][dtype]["state"], 0, 0)


def test_the_comparison_is_of_training(whole):
    losses = whole["float64"]["losses"]
    assert losses[0] == pytest.approx(2.3, abs=0.2) and losses[-1] < 2.1
    assert whole["float64"]["state"]["bn1.num_batches_tracked"] == 20


@pytest.mark.parametrize(
    ("case", "tolerance"), [("layer", 1e-12), ("cumulative", 1e-12), ("far from zero", 2e-3), ("bfloat16", 0.02)]
)
def test_batch_norm_over_the_whole_batch(whole, parts, case, tolerance):
    parts, expected = [part[case] for part in parts], whole[case]
    for name in ("output", "gradient"):
        assert_close(torch.cat([part[name] for part in parts]), expected[name], tolerance, tolerance)
    for part in parts:
        assert_close(part["parameters"], expected["parameters"], tolerance, 10 * tolerance)
        assert_close(part["buffers"], expected["buffers"], min(tolerance, 1e-4), min(tolerance, 1e-3))


def test_processes_stop_together_though_only_one_is_asked_to(parts):
    assert [part["stop"] for part in parts] == [3] * len(parts)


def test_process_0_gives_its_checkpoint_to_all(parts):
    for part in parts:
        state = part["broadcast"]
        assert (state["step"], state["curve"], part["nothing"]) == (7, [{"error": None}], None)
        assert_close(state["weights"], torch.arange(3.0), 0, 0)


def test_sums_of_tensors_of_several_kinds(parts):
    size = len(parts)
    total = float(sum(range(size)))
    for part in parts:
        expected = [torch.full((2, 3), total), torch.tensor(total + size).long(), torch.full((2,), size).double()]
        assert_close(part["sums"], expected, 0, 0)


def test_a_process_that_dies_ends_the_others_with_an_error(processes):
    for rank in (0, 1):
        assert (processes / f"death-{rank}.txt").read_text()


@pytest.mark.parametrize(("count", "size"), [(8, 2), (11, 3), (128, 5), (3, 3), (10_000, 7)])
def test_parts_hold_each_image_once_and_differ_by_one_at_most(count, size):
    items = list(range(count))
    parts = [items[Group(rank, size).share(count)] for rank in range(size)]
    assert [item for part in parts for item in part] == items
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_fewer_images_than_processes():
    with pytest.raises(ValueError, match="2 images can't be split over 3 processes"):
        Group(0, 3).share(2)


def test_alone_does_nothing():
    model = create_model("cifar_resnet8")
    layers = list(model.modules())
    with join("no such machine", 1, 0, 1) as group:
        assert group is ALONE and not dist.is_initialized()
    assert synchronize_batch_norm(model, ALONE) is model and list(model.modules()) == layers
    tensor, value = torch.ones(3), object()
    ALONE.sum_(tensor)
    assert distribute(model, ALONE) is model
    ALONE.barrier()
    assert tensor.tolist() == [1, 1, 1] and ALONE.broadcast(value) is value
    assert ALONE.share(7) == slice(0, 7) and ALONE.any(True) and not ALONE.any(False)


@pytest.mark.parametrize(("rank", "size"), [(2, 2), (-1, 2), (0, 0)])
def test_impossible_rank(rank, size):
    with pytest.raises(ValueError, match=f"no process {rank} in a group of {size}"), join("x", 1, rank, size):
        pass


def test_processes_that_never_come_are_named():
    port = free_port()
    said = rf"process 0 of 3 .* at 127\.0\.0\.1:{port} \(missing: 1, 2; timeout 1 s\)"
    with pytest.raises(RuntimeError, match=said), join("127.0.0.1", port, 0, 3, timeout=1):
        pass
    assert not dist.is_initialized()


def test_process_0_never_comes():
    port = free_port()
    with (
        pytest.raises(RuntimeError, match=rf"process 1 of 2 .* at 127\.0\.0\.1:{port} .* the machine of process 0"),
        join("127.0.0.1", port, 1, 2, timeout=1),
    ):
        pass


def test_unknown_machine():
    with pytest.raises(RuntimeError, match=r"at no\.invalid:1 \("), join("no.invalid", 1, 0, 2, timeout=60):
        pass


def test_a_group_of_another_name_at_the_port_is_not_joined():
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for keys in (server, dist.PrefixStore("job 1", server)):
        keys.set("present/0", "")
    with (
        pytest.raises(RuntimeError, match=r"missing: 0;.*name 'job 2'"),
        join("127.0.0.1", server.port, 1, 2, timeout=1, name="job 2"),
    ):
        pass
    with (
        pytest.raises(RuntimeError, match="process 0 of 2 .*no other program uses the port"),
        join("127.0.0.1", server.port, 0, 2, timeout=1, name="job 2"),
    ):
        pass


def test_ports_of_neighbouring_jobs_and_of_restarts_differ():
    ports = {port_for(job, restart) for job in range(70_000, 71_250) for restart in range(16)}
    assert len(ports) == 1_250 * 16 and min(ports) >= 10_000 and max(ports) < 30_000


@pytest.mark.parametrize(("count", "expected"), [(0, "cpu"), (1, "cuda:0"), (4, "cuda:3")])
def test_device_of_a_process(monkeypatch, count, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert local_device(3) == torch.device(expected)


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="process 2 .*it has 2"):
        local_device(2)


def test_synchronized_layers_keep_mode_parameters_and_buffers():
    model = create_model("cifar_resnet8", shortcut="B").eval()
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    before, expected = model.state_dict(keep_vars=True), model(x)
    synchronized = synchronize_batch_norm(model, Group(0, 2))
    assert sum(isinstance(module, WholeBatchNorm) for module in synchronized.modules()) == 9
    assert not any(module.training for module in synchronized.modules())
    after = synchronized.state_dict(keep_vars=True)
    assert list(after) == list(before) and all(after[key] is tensor for key, tensor in before.items())
    assert torch.equal(synchronized(x), expected)


@pytest.mark.gpu
def test_on_cuda_the_layers_are_torchs():
    model = synchronize_batch_norm(create_model("cifar_resnet8").to("cuda"), Group(0, 2))
    kinds = {type(module) for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)}
    assert kinds == {nn.SyncBatchNorm}
