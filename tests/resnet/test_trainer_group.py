"""One run in two processes: the trainer gives what it gives in one, and stops and resumes in both together."""

import multiprocessing
import socket
from dataclasses import replace

import pytest
import torch

from resnet import checkpoint
from resnet.data.synthetic import make_synthetic
from resnet.distributed import join
from resnet.recipe import Recipe
from resnet.run import Run
from resnet.trainer import DeviceData, Trainer
from resnet.training import Interrupted, train

RECIPE = Recipe(
    iterations=9,
    batch_size=11,  # so that the parts are unequal
    learning_rate=0.05,
    milestones=(6,),
    eval_interval=4,
    warmup_learning_rate=0.01,
    warmup_window=3,
    warmup_until_error=99.9,
)
RUN = Run("cifar_resnet8", RECIPE, "synthetic", seed=1, train_images=50)
STOPPED = replace(RUN, seed=2)


def make_data():
    return DeviceData(make_synthetic(60, 31), 50, "cpu")


def work(rank, port, folder):
    """What each process does: train RUN; train STOPPED, which only rank 1 is asked to stop, and go on with it."""
    torch.set_num_threads(1)
    data = make_data()
    with join("127.0.0.1", port, rank, 2, timeout=60) as group:
        whole = Trainer(RUN, data, group)
        train(whole, folder / "whole")
        undisturbed = Trainer(STOPPED, data, group)
        train(undisturbed, folder / "undisturbed")
        stopped = Trainer(STOPPED, data, group)
        with pytest.raises(Interrupted):
            train(stopped, folder / "stopped", stop_requested=lambda: rank == 1 and stopped.iteration == 5)
        resumed = Trainer(STOPPED, data, group)
        train(resumed, folder / "stopped")
    seen = {
        "model": whole.model.state_dict(),
        "curve": whole.curve,
        "warmup_ended_at": whole.warmup_ended_at,
        "digests": [trainer.weights_digest() for trainer in (undisturbed, resumed)],
        "curves": [trainer.curve for trainer in (undisturbed, resumed)],
        "stopped_at": stopped.iteration,
    }
    (folder / f"{rank}.pt").write_bytes(checkpoint.pack(seen))


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What both processes saw."""
    folder = tmp_path_factory.mktemp("group")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(rank, port, folder)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0]
    return [checkpoint.load(folder / f"{rank}.pt") for rank in range(2)]


def test_two_processes_give_what_one_gives(seen, tmp_path):
    alone = Trainer(RUN, make_data())
    train(alone, tmp_path)
    assert len(alone.curve) == 3 and alone.warmup_ended_at == 3
    for process in seen:
        torch.testing.assert_close(process["model"], alone.model.state_dict(), rtol=2e-3, atol=2e-3, check_stride=False)
        assert process["warmup_ended_at"] == alone.warmup_ended_at
        for point, expected in zip(process["curve"], alone.curve):
            assert point["iteration"] == expected["iteration"]
            assert point["training_loss"] == pytest.approx(expected["training_loss"], rel=1e-3)
            for name in ("training_error", "validation_error", "test_error"):  # an image or two on the other side
                assert point[name] == pytest.approx(expected[name], abs=200 / 31)


def test_both_processes_end_alike(seen):
    first, second = seen
    assert first["curve"] == second["curve"] and first["curves"] == second["curves"]
    assert first["digests"] == second["digests"]


def test_both_stop_when_one_is_asked_and_go_on_as_if_they_had_not(seen):
    for process in seen:
        undisturbed, resumed = process["digests"]
        assert process["stopped_at"] == 5 and resumed == undisturbed
        assert process["curves"][0] == process["curves"][1]
