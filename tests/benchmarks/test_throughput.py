"""The throughput benchmark from the command line, and packed on a GPU."""

import json
from dataclasses import replace

import pytest
import torch

from benchmarks import throughput
from benchmarks.conventional import ConventionalLoop
from benchmarks.floor import Limits
from benchmarks.measuring import random_images
from benchmarks.nets import make_net, run_of
from benchmarks.results import CONVENTIONAL, judged
from resnet.device import find_device
from resnet.models import count_parameters
from resnet.run import Run

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset():
    return random_images(256, 50)


@pytest.fixture
def quick_limits(monkeypatch):
    monkeypatch.setattr(throughput, "measure_limits", lambda device, precision: Limits(precision, 1e11, 1e10))


@pytest.mark.parametrize("workers", [0, 1])
def test_the_conventional_loop_goes_on_past_the_end_of_the_data(dataset, workers):
    loop = ConventionalLoop("cifar_resnet8", dataset.train_images, dataset.train_labels, 128, CPU, workers)
    before = loop.model.fc.weight.clone()
    loop.advance(3)
    assert not torch.equal(before, loop.model.fc.weight) and loop.settling == 2


def test_a_model_has_the_conventional_loop_and_one_run(dataset):
    said = []
    result = throughput.measure_model("cifar_resnet8", [], dataset, CPU, 2, 0.01, workers=0, say=said.append)
    assert [(row.name, row.runs) for row in result.rows] == [(CONVENTIONAL, 1), ("one run", 1)]
    assert all(len(row.rates.images_per_second) == 2 and row.memory_gib is None for row in result.rows)
    assert said == ["preparing 1 run", "measuring 2 loops, 2 rounds"]


def test_a_model_has_the_options_of_a_row(dataset):
    model = "cifar_bottleneck11:variant=d,zero_gamma=true"
    result = throughput.measure_model(model, [], dataset, CPU, 1, 0.01, workers=0)
    assert result.model == model and all(row.rates.median > 0 for row in result.rows)
    run, net = run_of(model, seed=1), make_net(model)
    assert (run.model, run.model_options, run.seed) == ("cifar_bottleneck11", {"variant": "d", "zero_gamma": True}, 1)
    assert count_parameters(net) != count_parameters(make_net("cifar_bottleneck11"))
    limits = Limits("fp32", 1e11, 1e10)
    plain = replace(result, model="cifar_bottleneck11")
    assert judged(result, limits, 128).floor.flops > judged(plain, limits, 128).floor.flops


def test_a_mixed_pack_is_summed_up(dataset):
    runs = [Run(model, seed=seed) for seed in range(2) for model in ("cifar_resnet8", "cifar_plain8")]
    result = throughput.measure_table(runs, [1, 2], dataset, CPU, 1, 0.01)
    assert [(row.seeds, row.runs) for row in result.rows] == [(1, 2), (2, 4)]
    images = 4 * 64_000 * 128
    assert result.rows[1].minutes == pytest.approx(images / result.rows[1].rates.median / 60)
    assert result.evaluations == 64 and result.evaluation_minutes > 0 and result.runs == 4


def test_table_6_has_five_nets_with_five_seeds():
    runs = throughput.table_runs()
    assert len(set(runs)) == 25 and {run.recipe.iterations for run in runs} == {64_000}
    assert [run.model.removeprefix("cifar_resnet") for run in runs[:6]] == ["20", "32", "44", "56", "110", "20"]
    limits = Limits("bf16", 1e15, 1e12)
    assert throughput.floor_minutes(runs, limits) == pytest.approx(5 * throughput.floor_minutes(runs[:5], limits))


def test_the_command_writes_both_files(tmp_path, quick_limits, capsys):
    arguments = "--device cpu --models cifar_resnet8 --rounds 1 --seconds 0.01 --workers 0 --images 256"
    assert throughput.main([*arguments.split(), "--out", str(tmp_path)]) == 0
    (page,) = tmp_path.glob("throughput-*.md")
    printed = capsys.readouterr()
    assert printed.out.strip() == page.read_text().strip() and "## cifar_resnet8" in printed.out
    assert "cifar_resnet8: preparing 1 run" in printed.err
    values = json.loads(page.with_suffix(".json").read_text())
    assert values["models"][0]["rows"][1]["of_floor"] > 0 and values["table"] is None


@pytest.mark.slow
def test_what_was_measured_stays_when_it_is_cut_off(tmp_path, quick_limits, monkeypatch):
    measure = throughput.measure_model

    def cut_off(model, *arguments, **options):
        if model == "cifar_plain8":
            raise KeyboardInterrupt
        return measure(model, *arguments, **options)

    monkeypatch.setattr(throughput, "measure_model", cut_off)
    arguments = "--device cpu --rounds 1 --seconds 0.01 --workers 0 --images 256 --models cifar_resnet8 cifar_plain8"
    with pytest.raises(KeyboardInterrupt):
        throughput.main([*arguments.split(), "--out", str(tmp_path)])
    (page,) = tmp_path.glob("*.md")
    assert "## cifar_resnet8" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--pack 4", "need a CUDA GPU"),
        ("--table", "need a CUDA GPU"),
        ("--rounds 0", "must be positive"),
        ("--seconds 0", "must be positive"),
        ("--images 100", "at least 128"),
        ("--table-seeds 6", "from 1 to 5"),
        ("--models resnet20", "there is no model 'resnet20'"),
        ("--models cifar_resnet9", "depth 9 is not"),
        ("--models cifar_bottleneck11:variant=e", "variant must be one of"),
        ("--models cifar_bottleneck11:shortcut=B", "nothing is called 'shortcut'"),
        ("--models cifar_resnet8:learning_rate=0.1", "learning_rate belongs to the recipe, not to cifar_resnet8"),
        ("--device cuda:77", "there is no device 'cuda:77'"),
    ],
)
def test_bad_input_is_refused_at_once(arguments, message, capsys):
    device = [] if "--device" in arguments else ["--device", "cpu"]
    with pytest.raises(SystemExit) as exit:
        throughput.main([*device, *arguments.split()])
    assert exit.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.gpu
def test_packed_rows_on_a_gpu(dataset):
    result = throughput.measure_model("cifar_resnet8", [2, 4], dataset, find_device(), 2, 0.05, workers=1)
    assert [row.runs for row in result.rows] == [1, 1, 2, 4]
    one, two, four = result.rows[1:]
    assert 0 < one.memory_gib < two.memory_gib < four.memory_gib
    assert all(row.rates.median > 0 for row in result.rows)


@pytest.mark.gpu
def test_a_mixed_pack_on_a_gpu(dataset):
    runs = [Run(model, seed=seed) for seed in range(2) for model in ("cifar_resnet8", "cifar_resnet14")]
    result = throughput.measure_table(runs, [1, 2], dataset, find_device(), 1, 0.05)
    assert all(row.minutes > 0 and row.memory_gib > 0 for row in result.rows) and result.evaluation_minutes > 0
