"""One run in two processes gives the results of one process, and both stop and resume together."""

import faulthandler
import multiprocessing
from dataclasses import replace

import pytest
import torch
from test_distributed import free_port

from resnet import checkpoint
from resnet.data import load, place
from resnet.data.resident import ResidentData
from resnet.data.synthetic import make_synthetic
from resnet.distributed import ALONE, Group, join
from resnet.models import create_model
from resnet.plugins import Plugin
from resnet.recipe import Recipe
from resnet.run import Run
from resnet.trainer import Trainer
from resnet.training import Interrupted, train

SECONDS = 480  # for 15 s of work on two idle cores
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
TRICKS = replace(RECIPE, warmup_learning_rate=None, batch_size=12, milestones=(), schedule="cosine", linear_warmup=3,
                 learning_rate=0.01, mixup=0.2, label_smoothing=0.1, temperature=4.0)  # fmt: skip
TEACHER = create_model("cifar_resnet8", generator=torch.Generator().manual_seed(0)).state_dict()
PLUGINS = Plugin("examples.stochastic_depth:StochasticDepth"), Plugin("examples.ema:EMA", decay=0.5)
TRICKY = {  # mixup's pairs stay together, and BN's groups of 4 are 1 for one process and 2 for the other
    "tricks": Run("cifar_resnet8", TRICKS, "synthetic", teacher=Run("cifar_resnet8", RECIPE, "synthetic")),
    "groups": Run("cifar_resnet8", replace(TRICKS, batch_norm_size=4, temperature=None), "synthetic"),
    "plugins": Run("cifar_resnet8", replace(TRICKS, batch_norm_size=4, temperature=None, plugins=PLUGINS), "synthetic"),
}


def make_data():
    return ResidentData(make_synthetic(60, 31), 50, "cpu")


FOLDER = Run(
    "cifar_resnet8",
    Recipe(iterations=6, batch_size=12, learning_rate=3e-5, milestones=(4,), eval_interval=3, batch_norm_size=4,
           mixup=0.2, nesterov=True, crop="area", image_size=32, colour_jitter=0.4, pca_noise=0.1, tests=("ten_crop",)),
    "synthetic_imagenet",
)  # fmt: skip


def make_folder_trainer(folder, group=ALONE, seed=0, workers=1):
    return Trainer(replace(FOLDER, seed=seed), place(load(FOLDER.data, folder), None, "cpu", workers), group)


def make_tricky(name, group=ALONE):
    data = ResidentData(make_synthetic(60, 31), None, "cpu")
    return Trainer(TRICKY[name], data, group, TEACHER if TRICKY[name].teacher else None)


def work(rank, port, folder):
    """Train RUN; train STOPPED, which only rank 1 is asked to stop, and resume it: the work of each process."""
    torch.set_num_threads(1)
    faulthandler.dump_traceback_later(SECONDS / 2)
    data = make_data()
    with join("127.0.0.1", port, rank, 2) as group:
        whole = Trainer(RUN, data, group)
        train(whole, folder / "whole")
        undisturbed = Trainer(STOPPED, data, group)
        train(undisturbed, folder / "undisturbed")
        stopped = Trainer(STOPPED, data, group)
        with pytest.raises(Interrupted):
            train(stopped, folder / "stopped", stop_requested=lambda: rank == 1 and stopped.iteration == 5)
        resumed = Trainer(STOPPED, data, group)
        train(resumed, folder / "stopped")
        tricky = {name: make_tricky(name, group) for name in TRICKY}
        for name, trainer in tricky.items():
            train(trainer, folder / name)
        from_files = make_folder_trainer(folder, group)
        train(from_files, folder / "from files")
        tests = from_files.final_tests()
        stopped_files = make_folder_trainer(folder, group)
        with pytest.raises(Interrupted):
            train(stopped_files, folder / "stopped files", stop_requested=lambda: stopped_files.iteration == 4)
        resumed_files = make_folder_trainer(folder, group, workers=0)
        train(resumed_files, folder / "stopped files")
    seen = {
        "files": {"model": from_files.model.state_dict(), "curve": from_files.curve, "tests": tests},
        "files digests": [trainer.weights_digest() for trainer in (from_files, resumed_files)],
        "tricky": {name: {"model": t.model.state_dict(), "curve": t.curve} for name, t in tricky.items()},
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
    """The results in both processes."""
    folder = tmp_path_factory.mktemp("group")
    port, context = free_port(), multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(rank, port, folder)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(SECONDS)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0, 0]
    return [checkpoint.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("name", TRICKY)
def test_tricks_give_the_same_in_two_processes(seen, tmp_path, name):
    alone = make_tricky(name)
    train(alone, tmp_path)
    for process in seen:
        there = process["tricky"][name]
        torch.testing.assert_close(there["model"], alone.model.state_dict(), rtol=2e-3, atol=2e-3, check_stride=False)
        for point, expected in zip(there["curve"], alone.curve, strict=True):
            assert point["training_loss"] == pytest.approx(expected["training_loss"], rel=1e-3)
            assert point["test_error"] == pytest.approx(expected["test_error"], abs=200 / 31)


@pytest.mark.slow
def test_two_processes_that_read_files_give_what_one_gives(seen, tmp_path):
    alone = make_folder_trainer(tmp_path)
    train(alone, tmp_path)
    tests = alone.final_tests()
    for process in seen:
        there = process["files"]
        torch.testing.assert_close(there["model"], alone.model.state_dict(), rtol=1e-4, atol=1e-4, check_stride=False)
        for point, expected in zip(there["curve"], alone.curve, strict=True):
            assert point["training_loss"] == pytest.approx(expected["training_loss"], rel=1e-3)
            for name in ("test_error", "test_top5_error"):
                assert point[name] == pytest.approx(expected[name], abs=3)
                assert point[name] == pytest.approx(round(point[name])), "each of 100 images is counted once"
        for name, error in tests["ten_crop"].items():
            assert there["tests"]["ten_crop"][name] == pytest.approx(error, abs=3)


@pytest.mark.slow
def test_training_from_files_that_stops_in_an_epoch_goes_on_as_if_it_had_not(seen, tmp_path):
    for process in seen:
        undisturbed, resumed = process["files digests"]
        assert undisturbed == resumed
    whole = make_folder_trainer(tmp_path)
    train(whole, tmp_path / "whole")
    for iteration in range(1, 6):
        part = make_folder_trainer(tmp_path, workers=iteration % 2)
        with pytest.raises(Interrupted):
            train(part, tmp_path / "parts", stop_requested=lambda: part.iteration == iteration)  # noqa: B023
    last = make_folder_trainer(tmp_path, workers=2)
    train(last, tmp_path / "parts")
    assert (last.weights_digest(), last.curve) == (whole.weights_digest(), whole.curve)


def test_a_batch_that_can_t_be_split_over_the_processes_is_refused():
    with pytest.raises(ValueError, match="in parts of 4 can't be split over 4 processes: use at most 3 processes"):
        make_tricky("groups", Group(0, 4))
    with pytest.raises(ValueError, match="in parts of 2 can't be split over 7"):
        make_tricky("tricks", Group(0, 7))


@pytest.mark.slow
def test_both_processes_end_alike(seen):
    first, second = seen
    assert first["curve"] == second["curve"] and first["curves"] == second["curves"]
    assert first["digests"] == second["digests"]


@pytest.mark.slow
def test_both_stop_when_one_is_asked_and_go_on_as_if_they_had_not(seen):
    for process in seen:
        undisturbed, resumed = process["digests"]
        assert process["stopped_at"] == 5 and resumed == undisturbed
        assert process["curves"][0] == process["curves"][1]
