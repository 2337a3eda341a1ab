"""Results as a GPU would give them, made up."""

from benchmarks.floor import Limits
from benchmarks.measuring import Rates
from benchmarks.results import CONVENTIONAL, ModelResult, Results, Row, TableResult, TableRow

LIMITS = Limits("bf16", 700e12, 4e12)


def rates(*values, joules=None):
    return Rates(20, values, joules)


def gpu_results() -> Results:
    rows = (
        Row(CONVENTIONAL, 1, rates(19_000.0, 20_000.0, 21_000.0, joules=(9.0, 10.0, 11.0)), 0.75, 1.0),
        Row("one run", 1, rates(100_000.0, 110_000.0, 120_000.0, joules=(1.0, 2.0, 3.0)), 0.5, 5.5),
        Row("packed", 8, rates(599_000.0, 600_000.0, 601_000.0, joules=(0.5, 0.6, 0.7)), 3.25, 30.0),
        Row("packed", 512, left_out="needs about 150 GiB more, 130 GiB are free"),
    )
    table = TableResult(
        ("cifar_resnet20", "cifar_resnet110"),
        runs=10,
        iterations=64_000,
        evaluations=64,
        rows=(
            TableRow(1, 2, rates(50_000.0, 51_000.0), 2.0, minutes=27.5),
            TableRow(5, 10, left_out="out of memory: of CUDA"),
        ),
        evaluation_minutes=1.25,
    )
    return Results(
        hardware={"type": "cuda", "device": "NVIDIA H200", "threads": 16},
        versions={"python": "3.12.1", "torch": "2.11", "cuda": "13.0", "cudnn": 91_000},
        code={"commit": "0123456789abcdef", "modified": False, "resnet_sha256": "00"},
        batch=128,
        rounds=3,
        seconds=0.6,
        workers=16,
        limits=LIMITS,
        models=(ModelResult("cifar_resnet20", rows),),
        table=table,
    )
