"""Runs in a pack: each ends as if it were alone; the pack fills up, shrinks where memory ends, and finds its size."""

import copy
import gc
import itertools
import multiprocessing
import os
import traceback
import weakref
from collections import deque
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial

import pytest
import torch
from finishing import finish, train_in_parts
from torch.utils._python_dispatch import TorchDispatchMode

from resnet import packing
from resnet import trainer as trainer_module
from resnet.data import load, place
from resnet.data.resident import ResidentData
from resnet.data.synthetic import make_synthetic
from resnet.device import DeviceLost
from resnet.distributed import Group
from resnet.models import create_model
from resnet.packing import Pack
from resnet.plugins import Plugin
from resnet.recipe import Recipe
from resnet.run import Run
from resnet.trainer import Trainer
from resnet.training import Interrupted, train, training

CPU = torch.device("cpu")
RECIPE = Recipe(iterations=12, batch_size=8, milestones=(7, 9), eval_interval=5, precision="fp32")
WARMED_UP = replace(RECIPE, warmup_learning_rate=0.01, warmup_window=3, warmup_until_error=99.0)
TRICKS = replace(
    RECIPE,
    iterations=8,
    milestones=(),
    schedule="cosine",
    linear_warmup=3,
    base_batch_size=16,
    decay_all=False,
    nesterov=True,
    label_smoothing=0.1,
    mixup=0.2,
    temperature=20.0,
    batch_norm_size=4,
)
PLUGINS = Plugin("examples.stochastic_depth:StochasticDepth"), Plugin("examples.cutmix:CutMix"), Plugin("hooked:Noise")
RUNS = [
    Run("cifar_resnet8", RECIPE, "synthetic", seed=0),
    Run("cifar_resnet14", WARMED_UP, "synthetic"),
    Run("cifar_plain8", replace(RECIPE, iterations=7, eval_interval=3), "synthetic", seed=2),
    Run("cifar_resnet8", replace(RECIPE, learning_rate=1e30), "synthetic", seed=3),  # diverges
    Run("cifar_resnet8", replace(RECIPE, iterations=20, last_batch="use", normalization="channel_std"), "synthetic"),
    Run("cifar_resnet8", replace(RECIPE, plugins=PLUGINS), "synthetic", seed=5),
    Run("cifar_resnet8", TRICKS, "synthetic", seed=4, teacher=Run("cifar_resnet14", RECIPE, "synthetic")),
]  # fmt: skip
TEACHER = create_model("cifar_resnet14", generator=torch.Generator().manual_seed(0)).state_dict()


def make_trainer(run, data):
    return Trainer(run, data, teacher=TEACHER if run.teacher else None)


class Crowd(Pack):
    """A pack that lets runs take turns on a CPU, too, as they do on a GPU."""

    def __init__(self, limit, **settings):
        super().__init__(CPU, **settings)
        self.limit = limit


def train_packed(pack, trainers, folder, **options):
    """Train them in the pack; returns the history of each."""
    histories, waiting = {}, deque(trainers)

    def one(trainer):
        histories[trainer] = yield from training(trainer, folder / trainer.run.short_id, **options)

    pack.train(lambda: one(waiting.popleft()) if waiting else None)
    return histories


@pytest.mark.parametrize("limit", [1, 2, 3, 8])
def test_a_run_in_a_pack_ends_as_if_it_were_alone(data, tmp_path, limit):
    alone, packed = ([make_trainer(run, data) for run in RUNS] for _ in range(2))
    for trainer in alone:
        train(trainer, tmp_path / "alone" / trainer.run.short_id)
    pack = Crowd(limit)
    histories = train_packed(pack, packed, tmp_path, neighbours=lambda: pack.neighbours)
    for one, other in zip(alone, packed):
        assert one.weights_digest() == other.weights_digest()
        assert (one.curve, one.diverged, one.warmup_ended_at) == (other.curve, other.diverged, other.warmup_ended_at)
    assert packed[3].diverged and len(packed[3].curve) == 1 and packed[1].warmup_ended_at == 3
    assert max(history["packed_with"] for history in histories.values()) == min(limit, len(RUNS)) - 1


@pytest.mark.slow
def test_packed_runs_that_are_interrupted_go_on_as_if_they_were_not(data, tmp_path):
    alone = [make_trainer(run, data) for run in RUNS]
    for trainer in alone:
        train(trainer, tmp_path / "alone" / trainer.run.short_id)
    turns = itertools.count()
    stops = {9, 23, 24, 40}
    for _ in range(6):
        trainers = [make_trainer(run, data) for run in RUNS]
        waiting = deque(trainers)

        def one(trainer):
            try:
                folder = tmp_path / trainer.run.short_id
                yield from training(trainer, folder, stop_requested=lambda: next(turns) in stops)
            except Interrupted:
                pass

        Crowd(3).train(lambda waiting=waiting, one=one: one(waiting.popleft()) if waiting else None)
    assert next(turns) > max(stops)
    assert [t.weights_digest() for t in trainers] == [t.weights_digest() for t in alone]
    assert [t.curve for t in trainers] == [t.curve for t in alone]


def test_a_cpu_trains_one_after_another_whatever_the_limit():
    for limit in (None, 1, 7):
        assert Pack(CPU, limit).limit == 1


@pytest.mark.parametrize("limit", [0, -3])
def test_an_impossible_limit_is_refused(limit):
    with pytest.raises(ValueError, match=f"at least 1, not {limit}"):
        Pack(CPU, limit)


# --------------------------------------------------------------------------------------------------- members by script


def scripted(parts, log=None, name=None):
    for part in parts:
        if log is not None:
            log.append(name)
        if isinstance(part, Exception):
            raise part
        yield part


def test_places_are_filled_again_when_a_run_ends():
    most, waiting = [], deque([3, 1, 1, 5, 2])
    pack = Crowd(2)

    def one(length):
        for _ in range(length):
            most.append(pack.neighbours + 1)
            yield 1

    pack.train(lambda: one(waiting.popleft()) if waiting else None)
    assert not waiting and len(most) == 12 and max(most) == 2


def test_members_take_turns():
    log, waiting = [], deque("ab")
    Crowd(2).train(lambda: scripted([1, 1, 1], log, waiting.popleft()) if waiting else None)
    assert "".join(log) == "ababab"


def test_a_pack_out_of_memory_goes_on_with_fewer_and_says_so():
    said, ended, waiting = [], [], deque(range(5))
    pack = Crowd(4, say=said.append)

    def one(number):
        for _ in range(4):
            if pack.neighbours >= 2:  # memory for two
                waiting.append(number)
                raise torch.OutOfMemoryError
            yield 1
        ended.append(number)

    pack.train(lambda: one(waiting.popleft()) if waiting else None)
    assert sorted(ended) == [0, 1, 2, 3, 4] and pack.limit == 2
    assert "continuing with" in said[0]


def test_an_exception_that_a_run_lets_through_ends_the_training():
    waiting = deque([[1, 1], [KeyError("x")]])
    with pytest.raises(KeyError):
        Crowd(2).train(lambda: scripted(waiting.popleft()) if waiting else None)


def test_a_device_that_takes_no_memory_back_is_lost(monkeypatch):
    """So says the allocator where a recording that memory did not suffice for was its last word."""

    def broken():
        raise RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", broken)
    waiting = deque([[1, torch.OutOfMemoryError()], [1] * 9])
    with pytest.raises(DeviceLost, match="INTERNAL ASSERT"):
        Crowd(2).train(lambda: scripted(waiting.popleft()) if waiting else None)


# ------------------------------------------------------------------------------------------------- how many at once


class FakeDevice:
    """A device whose speed with n runs, and memory per run, are given; time passes with each step that it does.

    A step of a run takes its ``cost`` in seconds where that run is alone and ``speed`` of 1 is 1.
    """

    def __init__(self, monkeypatch, speed, memory=1.0, total=140.0):
        self.now, self.speed, self.memory, self.total = 0.0, speed, memory, total
        self.pack, self.said, self.log = None, [], []  # log: of each step its run, how many took turns, what was said
        monkeypatch.setattr(packing.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (self.total - self.taken, self.total))

    @property
    def taken(self):
        return self.memory * self.pack.size if self.pack else 0

    def run(self, cost=0.02, steps=4000):
        """A run in small parts."""
        own = object()
        for _ in range(steps):
            self.now += cost / self.speed(self.pack.neighbours + 1)
            self.log.append((own, self.pack.neighbours + 1, len(self.said)))
            yield 1

    def find(self, runs=200, **options):
        """The number of runs at once that a pack settles on, and what it says; a run for each cost."""
        waiting = deque(runs if isinstance(runs, list) else [0.02] * runs)
        self.pack = Pack(torch.device("cuda"), say=self.said.append)
        self.pack.train(lambda: self.run(waiting.popleft(), **options) if waiting else None)
        return self.pack.limit, self.said


@pytest.mark.slow
def test_a_pack_grows_as_long_as_all_runs_together_get_faster(monkeypatch):
    limit, said = FakeDevice(monkeypatch, lambda n: min(n, 8)).find()
    assert limit == 8 and "8 at once" in said[0]
    assert FakeDevice(monkeypatch, lambda n: 1.0).find()[0] == 1


def test_a_pack_grows_as_long_as_memory_suffices(monkeypatch):
    assert FakeDevice(monkeypatch, lambda n: n, memory=6.0).find()[0] == 18  # 19 would need 114 of 112


def test_a_pack_grows_as_long_as_there_are_streams(monkeypatch):
    limit, said = FakeDevice(monkeypatch, lambda n: n).find()
    assert limit == 32 and len(said) == 1 and "32 at once" in said[0]
    said = []
    assert Pack(torch.device("cuda"), 40, said.append).limit == 32 and "no more streams" in said[0]


def test_a_run_that_trains_alone_does_not_limit_the_others(monkeypatch):
    device = FakeDevice(monkeypatch, lambda n: min(n, 4))
    pack = device.pack = Pack(torch.device("cuda"))

    def large():
        device.memory, pack.alone = 70.0, True
        yield from device.run(steps=2000)
        device.memory, pack.alone = 1.0, False

    waiting = deque([large(), *(device.run(steps=1000) for _ in range(30))])
    pack.train(lambda: waiting.popleft() if waiting and not pack.alone else None)
    assert pack.limit == 4


def test_few_runs_leave_the_number_open(monkeypatch):
    limit, said = FakeDevice(monkeypatch, lambda n: n).find(runs=3)
    assert limit <= 4 and not said


def test_where_more_proved_slower_the_surplus_waits_for_the_others_to_end(monkeypatch):
    device = FakeDevice(monkeypatch, lambda n: min(n, 8) if n <= 8 else 4.8)
    assert device.find(runs=16, steps=4000)[0] == 8
    before, after = ([(run, count) for run, count, said in device.log if said == found] for found in (0, 1))
    assert len({run for run, _ in before}) == 16 == max(count for _, count in before)
    assert max(count for _, count in after) == 8
    first = {run for run, _ in after[:8]}
    assert {run for run, _ in after[: len(after) // 3]} == first != {run for run, _ in after}
    assert len(before) + len(after) == 16 * 4000


def test_a_number_that_is_not_reached_is_judged_all_the_same(monkeypatch):
    """There are 25 runs where 32 could be."""
    device = FakeDevice(monkeypatch, lambda n: min(n, 16) if n <= 16 else 8)
    limit, said = device.find(runs=25)
    assert limit == 16 and "16 at once" in said[0]
    assert FakeDevice(monkeypatch, lambda n: n).find(runs=25) == (32, []), "more may come"


@pytest.mark.parametrize("cost", [0.002, 0.2])
def test_runs_whose_steps_cost_more_or_less_are_packed_too(monkeypatch, cost):
    """A teacher, fp32 or groups of BN make steps of the same images and weights dear."""
    costs = [0.02, cost, 0.02, 0.02, *[cost] * 4] * 4
    assert FakeDevice(monkeypatch, lambda n: min(n, 8)).find(costs, steps=2000)[0] == 8


def test_the_clock_of_a_run_stands_still_while_it_waits_for_its_turn(monkeypatch):
    """So the times of all runs' own add up to the device's."""
    device, seconds = FakeDevice(monkeypatch, lambda n: min(n, 2)), []
    device.pack = Pack(torch.device("cuda"))

    def one():
        began = last = device.pack.clock()
        own = 0.0
        for _ in device.run(steps=2000):
            yield 1
            own += (device.pack.clock() - last) / (1 + device.pack.neighbours)
            last = device.pack.clock()
        seconds.append((own, last - began))

    waiting = deque(range(6))
    device.pack.train(lambda: one() if waiting and waiting.popleft() is not None else None)
    assert device.pack.limit == 2 and sum(own for own, _ in seconds) == pytest.approx(device.now, rel=0.05)


def test_steps_count_when_the_device_has_done_them(data, tmp_path, monkeypatch):
    trainer, device_is_at = make_trainer(RUNS[0], data), 0
    monkeypatch.setattr(trainer, "mark", lambda: trainer.iteration)
    monkeypatch.setattr(trainer, "reached", lambda mark: mark <= device_is_at)
    parts = training(trainer, tmp_path)
    told = [next(parts) for _ in range(5)]
    assert not any(told) and trainer.iteration == 2, "it was given two bursts and has done none"
    device_is_at = 1
    assert [next(parts), next(parts), trainer.iteration] == [1, 0, 3]
    device_is_at = 12
    assert sum(told) + 1 + sum(parts) == 12 - 1, "all but the last, which ended the training"


# ------------------------------------------------------------------------------------------ steps that a graph can keep


class Operations(TorchDispatchMode):
    """Notes the operations of a step with the shapes and dtypes of their tensors."""

    def __init__(self):
        super().__init__()
        self.names, self.lines = [], []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        tensors = [a for a in torch.utils._pytree.tree_leaves((arguments, keywords)) if isinstance(a, torch.Tensor)]
        self.names.append(str(function))
        self.lines.append((str(function), [(tuple(t.shape), t.dtype) for t in tensors]))
        return function(*arguments, **(keywords or {}))


# They make the host wait for the device, depend on values for their shapes, bring in values of the host, or draw.
UNRECORDABLE = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "lift_fresh", "random", "randint")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("run", [*RUNS[:3], *RUNS[-2:]], ids=["plain step", "warm-up", "short", "plugins", "tricks"])
def test_all_steps_are_the_same_operations_and_a_graph_can_keep_them(data, run, precision):
    """Over learning-rate drops, the end of the warm-up, an epoch's end and evaluations."""
    run = replace(run, recipe=replace(run.recipe, precision=precision))
    trainer, steps = make_trainer(run, data), []
    trainer.scaler.scale(torch.zeros(()))  # makes the tensors that it keeps, as the steps before a recording do
    compute = trainer.compute

    def watched(size):
        with Operations() as operations:
            compute(size)
        steps.append(operations)

    trainer.compute = watched
    finish(trainer)
    assert len(steps) == run.recipe.iterations and len(steps[0].lines) > 50
    recorded = steps[1:] if run.recipe.plugins else steps  # hooks are watched in the first step, before a recording
    assert not [name for name in recorded[0].names for word in UNRECORDABLE if word in name]
    assert all(step.lines == recorded[0].lines for step in recorded)


def test_a_step_works_on_the_same_memory_every_time(data):
    trainer = make_trainer(RUNS[1], data)

    def places():
        state = [trainer._loss_sum, trainer._wrong, trainer._warmup_wrong, *trainer.model.state_dict().values()]
        state += [trainer.batches.sampler._next, *trainer.batches.sampler._draws]
        state += [values["momentum_buffer"] for values in trainer.optimizer.state.values()]
        return [tensor.data_ptr() for tensor in state]

    before = places()
    while not trainer.finished:
        trainer.step()
        if trainer.evaluation_due:
            trainer.evaluate()
        assert places() == before


class PretendedStream:
    """In the place of a CUDA stream: a CPU has done everything at once."""

    def wait_stream(self, other):
        pass

    def synchronize(self):
        pass

    def record_event(self):
        return None


class PretendedGraph:
    """In the place of a CUDA graph: keeps the step that was recorded, and takes it when it is replayed."""

    recording = None

    def __init__(self):
        self.steps = []

    def replay(self):
        for compute in self.steps:
            compute()


@pytest.fixture
def pretended_cuda(monkeypatch):
    """Trainers record their steps and replay them, as on a GPU, where recording computes nothing."""

    @contextmanager
    def graph(recorded, stream):
        PretendedGraph.recording = recorded
        yield
        PretendedGraph.recording = None

    compute = Trainer.compute

    def watched(trainer, size):
        if PretendedGraph.recording is None:
            compute(trainer, size)
        else:
            assert all(parameter.grad is None for parameter in trainer.model.parameters())
            PretendedGraph.recording.steps.append(lambda: compute(trainer, size))

    monkeypatch.setattr(Trainer, "compute", watched)
    monkeypatch.setattr("resnet.trainer._make_stream", lambda device: PretendedStream())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: PretendedStream())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", PretendedGraph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda device: {"num_ooms": 3})


def test_recording_and_replaying_changes_nothing(data, tmp_path, request):
    expected = [make_trainer(run, data) for run in RUNS]
    for trainer in expected:
        train(trainer, tmp_path / "expected" / trainer.run.short_id)
    request.getfixturevalue("pretended_cuda")
    recorded = [make_trainer(run, data) for run in RUNS]
    train_packed(Crowd(3), recorded, tmp_path)
    for one, other in zip(expected, recorded):
        assert other.graphs and all(len(graph.steps) == 1 for graph in other.graphs.values())
        assert one.weights_digest() == other.weights_digest(), str(one.run)
        assert (one.curve, one.warmup_ended_at) == (other.curve, other.warmup_ended_at)


def test_a_recorded_run_that_is_interrupted_records_again(data, tmp_path, pretended_cuda):
    for run in RUNS[:2]:
        whole = make_trainer(run, data)
        train(whole, tmp_path / "whole")
        iterations = range(1, run.recipe.iterations)
        resumed = train_in_parts(partial(make_trainer, run, data), tmp_path / run.short_id, iterations)
        assert (resumed.weights_digest(), resumed.curve) == (whole.weights_digest(), whole.curve)


def test_no_garbage_is_collected_in_a_recording(data, pretended_cuda, monkeypatch):
    """A trainer in it would wait for its stream, which CUDA forbids while it records."""

    class Dead:
        def __init__(self):
            self.itself = self

    collected_in, compute = [], Trainer.compute

    def littering(trainer, size):
        weakref.finalize(Dead(), lambda: collected_in.append(PretendedGraph.recording))
        assert len([[] for _ in range(1_000)]) == 1_000  # enough for Python to look for garbage
        compute(trainer, size)

    monkeypatch.setattr(Trainer, "compute", littering)
    thresholds = gc.get_threshold()
    gc.set_threshold(10)
    try:
        make_trainer(RUNS[0], data).step()
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    assert len(collected_in) == 4 and not any(collected_in) and gc.isenabled()


class PretendedGroup(Group):
    """Two processes of which this is the one that matters."""

    def sum_(self, *tensors):
        pass


def test_kernels_are_exact_wherever_some_are_chosen_and_nobody_asks_at_a_replay(data, pretended_cuda, monkeypatch):
    seen, accumulate, count = [], Trainer.accumulate, trainer_module.count_wrong

    def noting(what, function=lambda *_: None):
        def noted(*arguments):
            seen.append((what, torch.backends.cudnn.deterministic, torch.backends.cudnn.conv.fp32_precision))
            return function(*arguments)

        return noted

    monkeypatch.setattr(Trainer, "accumulate", noting("step", accumulate))
    monkeypatch.setattr(trainer_module, "count_wrong", noting("evaluation", count))
    monkeypatch.setattr(PretendedGraph, "replay", noting("replay"))
    default = torch.backends.cudnn.deterministic, torch.backends.cudnn.conv.fp32_precision
    assert default != (True, "ieee")
    trainer = make_trainer(RUNS[0], data)
    trainer.step()
    trainer.evaluate()
    exact = [(what, True, "ieee") for what in ("step", "evaluation")]
    assert seen == [*[exact[0]] * 3, ("replay", *default), exact[1]]
    in_a_group = make_trainer(RUNS[0], data)
    in_a_group.group = PretendedGroup(0, 2)
    seen.clear()
    in_a_group.step()
    assert seen == [exact[0]] * 2 and in_a_group.iteration == 1, "one to prepare, and the step itself"


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("GET was unable to find an engine to execute this computation"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
)
def test_a_want_of_memory_has_one_name(data, pretended_cuda, monkeypatch, error, named):
    def fail(*_):
        raise error

    trainer = make_trainer(RUNS[0], data)
    monkeypatch.setattr(Trainer, "compute", fail)
    with pytest.raises(RuntimeError, match=str(error)[:30]) as caught:
        trainer.step()
    assert isinstance(caught.value, torch.OutOfMemoryError) == named


def test_a_recording_that_fails_for_want_of_memory(data, pretended_cuda, monkeypatch):
    """CUDA's error about the unfinished graph hides the reason, which is the error before it."""

    @contextmanager
    def graph(recorded, stream):
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    monkeypatch.setattr(torch.cuda, "graph", graph)
    with pytest.raises(torch.OutOfMemoryError, match="previous error during capture"):
        make_trainer(RUNS[0], data).step()


@pytest.mark.parametrize("step", [0, 2, 3], ids=["first", "last before the recording", "recorded"])
def test_memory_that_a_library_makes_do_without_is_wanting(data, pretended_cuda, monkeypatch, step):
    """cuDNN then takes another engine, in silence."""
    count, steps, compute = 3, 0, Trainer.compute

    def computed(trainer, size):
        nonlocal count, steps
        count, steps = count + (steps == step), steps + 1
        compute(trainer, size)

    monkeypatch.setattr(Trainer, "compute", computed)
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda device: {"num_ooms": count})
    with pytest.raises(torch.OutOfMemoryError, match="too little memory for cuDNN's usual engine"):
        make_trainer(RUNS[0], data).step()
    other = make_trainer(RUNS[0], data)  # failures before it do not count
    other.step()
    assert other.iteration == 1


# ------------------------------------------------------------------------------------------------------------ on a GPU


@pytest.fixture(scope="module")
def gpu_data():
    return ResidentData(make_synthetic(512, 100), None, "cuda")


def gpu_runs(iterations=40):
    recipe = Recipe(iterations=iterations, batch_size=128, milestones=(17, 30), eval_interval=13)
    warmed_up = replace(recipe, warmup_learning_rate=0.01, warmup_window=7, warmup_until_error=99.9)
    tricks = replace(TRICKS, iterations=iterations, batch_size=128, batch_norm_size=32, eval_interval=13)
    taught = Run("cifar_resnet20", tricks, "synthetic", 3, teacher=RUNS[-1].teacher)
    return [
        Run("cifar_resnet20", recipe, "synthetic"),
        Run("cifar_resnet56", warmed_up, "synthetic", 1),
        Run("cifar_plain20", recipe, "synthetic", 2),
        taught,
        replace(taught, recipe=replace(tricks, precision="fp16")),
        Run("cifar_resnet20", replace(recipe, batch_size=96, last_batch="use"), "synthetic", 4),  # of 512 images
    ]


@pytest.mark.gpu
def test_cuda_a_run_in_a_pack_ends_as_if_it_were_alone(gpu_data, tmp_path):
    alone, packed = ([make_trainer(run, gpu_data) for run in gpu_runs()] for _ in range(2))
    for trainer in alone:
        train(trainer, tmp_path / "alone" / trainer.run.short_id)
    train_packed(Pack(torch.device("cuda"), 3), packed, tmp_path)
    for one, other in zip(alone, packed):
        assert (one.weights_digest(), one.curve) == (other.weights_digest(), other.curve), str(one.run)


@pytest.mark.gpu
def test_cuda_resumed_equals_uninterrupted(gpu_data, tmp_path):
    for run in gpu_runs():
        whole = make_trainer(run, gpu_data)
        train(whole, tmp_path / "whole")
        interrupted = make_trainer(run, gpu_data)
        with pytest.raises(Interrupted):
            train(interrupted, tmp_path / run.short_id, stop_requested=lambda t=interrupted: t.iteration >= 20)
        resumed = make_trainer(run, gpu_data)
        train(resumed, tmp_path / run.short_id)
        assert (resumed.weights_digest(), resumed.curve) == (whole.weights_digest(), whole.curve)


@pytest.mark.gpu
@pytest.mark.parametrize("steps", [1, 20])
def test_cuda_graph_equals_the_same_steps_without_one(gpu_data, steps):
    """The recorded step against the same one launched kernel by kernel."""
    for run in gpu_runs():
        recorded, launched = make_trainer(run, gpu_data), make_trainer(run, gpu_data)
        launched.record = lambda t=launched: {size: Launched(t, size) for size in t.batches.sizes}
        for _ in range(steps):
            recorded.step()
            launched.step()
        assert recorded.weights_digest() == launched.weights_digest()


class Launched:
    """In the place of a CUDA graph: computes instead of replaying."""

    def __init__(self, trainer, size):
        self.replay = partial(trainer.compute, size)


@pytest.mark.gpu
def test_cuda_more_runs_than_streams_end_as_if_they_were_alone(gpu_data, tmp_path):
    """PyTorch has 32 streams of a device: one that a long run has must not be another one's."""
    long, short = gpu_runs(200)[0], gpu_runs(2)[0]
    alone = Trainer(long, gpu_data)
    train(alone, tmp_path / "alone")
    first = Trainer(long, gpu_data)
    turns = training(first, tmp_path / "first")
    for seed in range(40):
        other = Trainer(replace(short, seed=seed), gpu_data)
        assert other._stream.cuda_stream != first._stream.cuda_stream
        train(other, tmp_path / str(seed))
        next(turns)
        del other
    for _ in turns:
        pass
    assert (first.weights_digest(), first.curve) == (alone.weights_digest(), alone.curve)


@pytest.mark.gpu
def test_cuda_an_fp16_step_that_overflows_changes_neither_weights_nor_velocities(gpu_data):
    trainer = make_trainer(gpu_runs()[4], gpu_data)
    trainer.step()
    with trainer.on_stream():
        trainer.scaler._scale.fill_(2.0**40)
    before = copy.deepcopy(trainer.state_dict())
    trainer.step()
    after = trainer.state_dict()
    assert after["scaler"]["scale"] == 2.0**39
    velocities = [[v["momentum_buffer"] for v in s["optimizer"]["state"].values()] for s in (before, after)]
    assert all(torch.equal(old, new) for old, new in zip(*velocities))
    parameters = {name for name, _ in trainer.model.named_parameters()}
    assert all(torch.equal(before["model"][name], after["model"][name]) for name in parameters)


@pytest.mark.gpu
def test_cuda_the_final_tests_wait_for_the_network(tmp_path):
    """And a net with max-pooling trained twice from image files, which are read by other processes, is the same."""
    recipe = Recipe(iterations=6, batch_size=16, milestones=(4,), eval_interval=3, crop="area", image_size=64,
                    colour_jitter=0.4, pca_noise=0.1, tests=("ten_crop",))  # fmt: skip
    run = Run("resnet18", recipe, "synthetic_imagenet")
    trainers = [Trainer(run, place(load(run.data, tmp_path), None, "cuda", workers)) for workers in (0, 2)]
    for number, trainer in enumerate(trainers):
        train(trainer, tmp_path / str(number))
    assert trainers[0].weights_digest() == trainers[1].weights_digest()
    expected = trainers[0].final_tests()
    trainers[1].model.fc.register_forward_hook(lambda *_: torch.cuda._sleep(2**26))
    assert trainers[1].final_tests() == expected


def train_with_little_memory(folder):
    """Trains more runs than fit into a GiB; in a process of its own, where nothing of other tests is on the device."""
    device = torch.device("cuda", torch.cuda.current_device())
    data = ResidentData(make_synthetic(512, 100), None, device)
    Trainer(gpu_runs()[1], data).step()  # CUDA's libraries take their memory once
    gc.collect()
    torch.cuda.empty_cache()
    allowed = torch.cuda.memory_reserved(device) + 2**30
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(device).total_memory, device)
    said, ended, attempts = [], [], 0
    waiting = deque(replace(gpu_runs()[1], seed=seed) for seed in range(20))

    def one(run):
        nonlocal attempts
        attempts += 1
        assert attempts <= 60, "runs are begun again and again"
        try:
            yield from training(Trainer(run, data), folder / run.short_id)
            ended.append(run.seed)
        except torch.OutOfMemoryError:
            waiting.append(run)
            raise

    try:
        Pack(device, 20, said.append).train(lambda: one(waiting.popleft()) if waiting else None)
    except DeviceLost:
        traceback.print_exc()
        os._exit(LOST)
    assert said and sorted(ended) == list(range(20))


LOST = 3  # exit status


@pytest.mark.gpu
def test_cuda_out_of_memory_makes_the_pack_smaller(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=train_with_little_memory, args=(tmp_path,))
    process.start()
    process.join(300)
    process.kill()  # if it hangs
    process.join()
    if process.exitcode == LOST:
        pytest.skip("memory ended within a recording, which this PyTorch's allocator does not recover from")
    assert process.exitcode == 0, "it says why on its standard error"
