"""Packs to be measured: who takes how many steps, what fits, and rates of loops in turn."""

import time

import pytest
import torch

from benchmarks import measuring, packs
from benchmarks.measuring import Rates, measure_in_turn, random_images, ratio
from benchmarks.packs import build_packs, feed, measured_run
from resnet.data.resident import ResidentData
from resnet.recipe import Recipe
from resnet.run import Run

CPU = torch.device("cpu")


class SlowTrainer:
    """Its device has done a burst only when it was asked twice; ``ahead`` is how many bursts it was given too many."""

    def __init__(self, log):
        self.log, self.steps, self.asked, self.waiting, self.most = log, 0, {}, 0, 0

    def step(self):
        self.steps += 1
        self.log.append(self)

    def mark(self):
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        return self.steps

    def reached(self, mark):
        self.asked[mark] = self.asked.get(mark, 0) + 1
        if self.asked[mark] < 2:
            return False
        self.waiting -= 1
        return True


def test_every_trainer_takes_its_steps_in_turn_and_not_far_ahead():
    log = []
    trainers = [SlowTrainer(log) for _ in range(3)]
    feed(trainers, 18)
    assert [trainer.steps for trainer in trainers] == [18, 18, 18]
    assert [log[i] for i in (0, 4, 8)] == trainers and log[0] is log[3]
    assert all(trainer.most == 2 for trainer in trainers)


@pytest.fixture(scope="module")
def data():
    return ResidentData(random_images(256, 10), None, CPU)


def runs(count):
    return [measured_run(Run("cifar_resnet8", seed=seed)) for seed in range(count)]


def test_packs_contain_one_another(data):
    one, two = build_packs(runs(2), [2, 1], data, 0, lambda text: None)
    assert (one.width, two.width, one.pack.runs, two.pack.runs) == (1, 2, 1, 2)
    assert one.pack.trainers == two.pack.trainers[:1] and one.memory_gib is None
    two.pack.advance(2)  # besides the first step, which prepared them
    assert [trainer.iteration for trainer in two.pack.trainers] == [3, 3]


def test_packs_that_run_out_of_memory_are_left_out(data, monkeypatch):
    class Hungry(packs.Trainer):
        def step(self):
            if self.run.seed >= 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\nmore")
            super().step()

    monkeypatch.setattr(packs, "Trainer", Hungry)
    built = build_packs(runs(8), [1, 2, 4, 8], data, 0, lambda text: None)
    assert [each.pack is None for each in built] == [False, False, True, True]
    assert built[2].left_out == built[3].left_out == "out of memory: CUDA out of memory. Tried to allocate"
    assert len(built[1].pack.trainers) == 2


def test_packs_that_will_not_fit_are_not_tried(data, monkeypatch):
    monkeypatch.setattr(packs.torch.cuda, "memory_reserved", lambda device: 3 * packs.GIB)
    monkeypatch.setattr(packs.torch.cuda, "mem_get_info", lambda device: (10 * packs.GIB, 20 * packs.GIB))
    cuda = torch.device("cuda", 0)
    assert packs.no_room(cuda, packs.GIB, present=2, width=4) is None
    assert packs.no_room(cuda, packs.GIB, present=2, width=16) == "needs about 14 GiB more, 10 GiB are free"
    assert packs.no_room(cuda, packs.GIB, present=0, width=16) is None


def test_impossible_widths_are_refused(data):
    for width in (0, 3):
        with pytest.raises(ValueError, match="in 1 to 2, the number of runs"):
            build_packs(runs(2), [width], data, 0, print)


def test_a_measured_run_neither_evaluates_nor_warms_up():
    recipe = measured_run(Run("cifar_resnet8", Recipe(warmup_learning_rate=0.01))).recipe
    assert recipe.warmup_learning_rate is None and not recipe.evaluates_after(1_000)


class Counting:
    settling = 1

    def __init__(self, runs=1):
        self.runs, self.advances = runs, []

    def advance(self, steps):
        self.advances.append(steps)
        time.sleep(0.001 * steps)


def test_loops_are_measured_in_turn(monkeypatch):
    monkeypatch.setattr(measuring, "LEAST_STEPS", 3)
    loops = {"a": Counting(), "b": Counting(runs=3)}
    joules = iter(range(0, 1_000, 5))
    rates = measure_in_turn(loops, 3, 1e-9, CPU, lambda: next(joules))
    assert rates["a"].steps == 3 and len(rates["b"].images_per_second) == 3
    images = 3 * 3 * 128
    assert rates["b"].joules_per_1000_images == (round(5 / images * 1_000, 4),) * 3
    assert loops["a"].advances[-6:] == [1, 3] * 3


def test_a_round_has_as_many_steps_as_take_so_long():
    assert 2 <= measure_in_turn({"a": Counting()}, 1, 0.05, CPU)["a"].steps <= 50


def test_the_ratio_is_the_median_of_the_rounds_ratios():
    assert ratio(Rates(1, (10.0, 30.0, 8.0)), Rates(1, (1.0, 10.0, 2.0))) == 4
