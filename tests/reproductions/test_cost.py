"""Costs come from measured rates: from records of the same device and model, else from a few steps."""

from dataclasses import replace

import pytest
import torch
from fakes import as_of_schema, make_record, move, store
from tiny import TINY

from reproductions.harness import provenance
from reproductions.harness.launching import cost
from reproductions.harness.records import read_pool
from resnet.recipe import Recipe
from resnet.run import Run

RUN = Run("cifar_resnet8", TINY, "synthetic")
CPU = torch.device("cpu")


def pool(root, rates, run=RUN, **hardware):
    """Records of ``run``'s seeds with these rates, 10 % of the wall time spent beside training."""
    hardware = {"type": "cuda", "device": "GPU X"} | hardware
    precision = "bf16" if hardware["type"] == "cuda" else "fp32"
    records = []
    for seed, rate in enumerate(rates):
        timing = {"images_per_second": rate, "wall_seconds": 110.0, "train_seconds": 100.0}
        records.append(
            make_record(replace(run, seed=seed), 20.0, hardware=hardware, timing=timing, precision=precision)
        )
    store(root, *records)
    return read_pool(root)


def test_hours_are_images_over_rate_times_overhead():
    paper = Run("cifar_resnet20")
    assert cost.Rate(1_000.0, 1.0, "").hours(paper) == pytest.approx(64_000 * 128 / 1_000 / 3_600)
    assert cost.Rate(1_000.0, 1.5, "").hours(paper) == pytest.approx(1.5 * 64_000 * 128 / 1_000 / 3_600)


def test_the_rate_is_the_median_of_the_records_of_all_pools(tmp_path):
    first, second = pool(tmp_path / "1", [100.0, 900.0]), pool(tmp_path / "2", [300.0])
    rate = cost.recorded_rate(RUN, [first, second], {})
    assert rate.images_per_second == 300.0 and rate.overhead == pytest.approx(1.1)
    assert rate.source == "3 records on GPU X"


def test_the_rate_of_runs_that_shared_a_device_is_that_of_all_of_them(tmp_path):
    timing = {"images_per_second": 100.0, "wall_seconds": 110.0, "train_seconds": 100.0, "packed_with": 3}
    record = make_record(RUN, 20.0, hardware={"device": "GPU X"}, timing={**timing, "device_seconds": 27.5})
    store(tmp_path, record)
    rate = cost.recorded_rate(RUN, [read_pool(tmp_path)], {"type": "cuda"})
    assert rate.images_per_second == pytest.approx(400.0) and rate.overhead == pytest.approx(1.1)


def test_a_run_that_moved_gives_no_rate(tmp_path):
    store(tmp_path, move(make_record(RUN, 20.0), RUN.recipe.iterations // 2, hardware={"device": "GPU X"}))
    assert cost.recorded_rate(RUN, [read_pool(tmp_path)], {"type": "cuda"}) is None


def test_records_of_the_first_schema_were_alone_on_their_device(tmp_path):
    record = as_of_schema(make_record(RUN, 20.0), 1)
    store(tmp_path, record)
    hardware = provenance.hardware(CPU, 1) | {"type": "cuda", "device": "NVIDIA H200"}
    rate = cost.recorded_rate(RUN, [read_pool(tmp_path)], hardware)
    assert rate.images_per_second == pytest.approx(record["timing"]["images_per_second"])


def test_records_of_another_device_model_or_batch_size_tell_nothing(tmp_path):
    records = [pool(tmp_path, [100.0])]
    assert cost.recorded_rate(RUN, records, {"device": "GPU Y"}) is None
    assert cost.recorded_rate(RUN, records, {"type": "cpu"}) is None
    assert cost.recorded_rate(RUN, records, {"processes": 2}) is None
    assert cost.recorded_rate(replace(RUN, model="cifar_resnet14"), records, {}) is None
    assert cost.recorded_rate(replace(RUN, recipe=Recipe()), records, {}) is None
    longer = replace(RUN, recipe=replace(TINY, iterations=600))
    assert cost.recorded_rate(longer, records, {"device": "GPU X", "type": "cuda"}).images_per_second == 100.0


def test_rates_that_nobody_knows_are_estimated_by_multiply_adds():
    small, large = Run("cifar_resnet20"), Run("cifar_resnet110")
    known = {cost.work_of(small): cost.Rate(106_900.0, 1.1, "measured")}
    estimated = cost.estimated_rates([small, large], known)
    assert set(estimated) == {cost.work_of(large)}  # measured on an H100: 21,600
    assert estimated[cost.work_of(large)].images_per_second == pytest.approx(21_600, rel=0.25)
    taught = replace(small, recipe=replace(small.recipe, temperature=4.0), teacher=small)
    rate = cost.estimated_rates([small, taught], known)[cost.work_of(taught)]
    assert rate.images_per_second == pytest.approx(106_900 / (1 + 1 / 3))
    assert cost.estimated_rates([small, large], {}) == {}


def test_rates_here_are_recorded_ones_of_this_device_or_measured_now(tmp_path):
    other = replace(RUN, model="cifar_plain8")
    here = provenance.device_name(CPU)
    rates = cost.rates_here(
        [RUN, other], [pool(tmp_path, [123.0], device=here, type="cpu", threads=torch.get_num_threads())], CPU
    )
    assert rates[cost.work_of(RUN)].images_per_second == 123.0
    assert (
        rates[cost.work_of(other)].source == f"measured now on {here}"
        and rates[cost.work_of(other)].images_per_second > 0
    )


def test_rates_elsewhere_are_those_of_gpu_records_only(tmp_path):
    other = replace(RUN, model="cifar_plain8")
    pools = [pool(tmp_path / "gpu", [5_000.0]), pool(tmp_path / "cpu", [50.0], other, type="cpu", device="CPU")]
    rates = cost.rates_elsewhere([RUN, other], pools)
    assert {work: rate.images_per_second for work, rate in rates.items()} == {cost.work_of(RUN): 5_000.0}


def test_what_the_cost_of_an_image_depends_on():
    taught = replace(RUN, recipe=replace(TINY, temperature=4.0), teacher=Run("cifar_resnet14", TINY, "synthetic"))
    others = [
        replace(RUN, model_options={"shortcut": "B"}),
        replace(RUN, recipe=replace(TINY, precision="fp16")),
        replace(RUN, recipe=replace(TINY, batch_size=16)),
        taught,
    ]
    assert len({cost.work_of(run) for run in (RUN, *others)}) == 5
    assert cost.work_of(replace(RUN, seed=5, recipe=replace(TINY, learning_rate=1.0))) == cost.work_of(RUN)
    assert str(cost.work_of(taught)) == "cifar_resnet8, batch 8, taught by cifar_resnet14"
    assert str(cost.work_of(others[0])) == "cifar_resnet8 shortcut=B, batch 8"


def test_a_student_and_a_large_batch_are_measured_and_an_image_folder_is_not():
    taught = replace(RUN, recipe=replace(TINY, temperature=4.0), teacher=Run("cifar_resnet14", TINY, "synthetic"))
    large = replace(RUN, recipe=Recipe(batch_size=4_096, batch_norm_size=1_024))
    folder = Run("resnet18", Recipe(crop="area"), "imagenet")
    rates = cost.rates_here([taught, large, folder], [], CPU)
    assert set(rates) == {cost.work_of(taught), cost.work_of(large)}
    assert all(rate.images_per_second > 0 for rate in rates.values())
