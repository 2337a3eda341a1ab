"""Benchmark of alternative ways to train small nets on one large GPU.

    python -m benchmarks.alternatives
    python -m benchmarks.alternatives --models cifar_resnet20 --kinds streams processes mps
    python -m benchmarks.alternatives --models cifar_resnet20:shortcut=B --kinds graph    # with a row's options

The kinds, in order: eager fp32 with data on the device; bf16 channels-last; the whole step as a CUDA graph; several
processes, without and with CUDA's Multi-Process Service; graphs on streams of one process, as in ``resnet.packing``;
the same with fused kernels (``resnet.kernels``, not yet run on a GPU), and with cuDNN's fastest kernels; torch.compile
inside the graphs, of nets and of blocks; fused graphs of NVIDIA's cuDNN frontend, where it is installed; seeds as
groups of convolutions. Every kind runs in its own process, so a kind that fails or takes too long becomes a row with
the reason. Writes ``results/benchmarks/alternatives-<device>.md`` and ``.json`` after each kind. Needs a GPU.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks import markdown
from benchmarks.command import OUT, stopwatch
from benchmarks.measuring import IMAGES, Rates, from_json, random_images
from benchmarks.processes import ROOT, Unavailable, last_line, measure_processes, mps
from benchmarks.results import write
from benchmarks.variants import KINDS, Measured, Setting
from reproductions.harness import provenance
from resnet.data.resident import ResidentData
from resnet.device import find_device

PROCESSES = (2, 4, 8)
ORDER = ("eager", "graph", "processes", "mps", "streams", "fused", "tuned", "compiled", "blocks", "frontend", "grouped")
ROW = "ROW "  # marks a child's results among the output of libraries


def measure_kind(
    kind: str, models: list[str], rounds: int, seconds: float, device: str, images: int, limit: float
) -> list[Measured]:
    """Measure one kind in other processes, within ``limit`` seconds (for each number of processes); return its rows."""
    common = {"rounds": rounds, "seconds": seconds, "device": device, "images": images}
    if kind == "processes":
        return _numbers_of_processes("processes, one run each", models, None, timeout=limit, **common)
    if kind == "mps":
        name = "processes, one run each, under MPS"
        try:
            with mps() as variables:
                return _numbers_of_processes(name, models, variables, timeout=limit, **common)
        except Unavailable as error:
            return [Measured(name, None, max(PROCESSES), failed=str(error))]
    command = [sys.executable, "-m", "benchmarks.alternatives", "--only", kind, "--models", *models]
    for name, value in common.items():
        command += [f"--{name}", str(value)]
    return rows_of(kind, command, limit)


def rows_of(kind: str, command: list[str], limit: float) -> list[Measured]:
    """Run a child process and return the rows that it prints, and one more if it fails."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        try:
            code = subprocess.run(command, cwd=ROOT, stdout=out, stderr=errors, timeout=limit).returncode
            reason = last_line(errors) if code else None
        except subprocess.TimeoutExpired:
            reason = f"not finished within {limit:.0f} s"
        out.seek(0)
        rows = [row_of(line.removeprefix(ROW)) for line in out if line.startswith(ROW)]
    return rows if reason is None else [*rows, Measured(kind, None, 1, failed=reason)]


def _numbers_of_processes(name: str, models: list[str], variables: dict | None, **common) -> list[Measured]:
    rows = []
    for count in PROCESSES:
        try:
            rows += measure_processes(name, count, models, variables=variables, **common)
        except Unavailable as error:
            rows.append(Measured(name, None, count, failed=str(error)))
    return rows


def row_of(text: str) -> Measured:
    """Rebuild a row from its JSON text."""
    values = json.loads(text)
    return Measured(**values | {"rates": values["rates"] and from_json(Rates, values["rates"])})


def page(results: dict, rows: list[Measured]) -> str:
    """Render the results as Markdown: a table for each model, with each rate relative to the first."""
    parts = [f"# Ways to train small nets on {results['hardware']['device']}\n"]
    for model in dict.fromkeys(row.model for row in rows if row.model):
        own = [row for row in rows if row.model == model]
        first = next((row.rates.median for row in own if row.rates), None)
        cells = [
            (
                row.name,
                str(row.runs),
                markdown.spread(row.rates.images_per_second) if row.rates else f"failed: {row.failed}",
                markdown.number(row.rates.median / first, 2) if row.rates else markdown.NOTHING,
            )
            for row in own
        ]
        table = markdown.table(("", "runs", "images/s", "× the first"), cells)
        parts.append(f"## {model}\n\n{table}")
    if failed := [row for row in rows if row.model is None]:
        lines = "".join(f"- {row.name}, {row.runs}: {row.failed}\n" for row in failed)
        parts.append(f"## Not measured\n\n{lines}")
    text = f"""Training images per second of all runs together at batch 128: median (lowest to highest) of
        {results["rounds"]} rounds of about {results["seconds"]:g} s. Kinds are measured one after another, each in its
        own process; rows of the same kind are measured in turn. Graphs train like resnet.trainer. "Convolutions only"
        has no data, shortcuts, loss or optimizer and is comparable only with itself.
        {markdown.versions_sentence(results["versions"], results["code"])} Regenerate with
        `python -m benchmarks.alternatives`."""
    parts.append(markdown.paragraph(text))
    return "\n".join(parts)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["cifar_resnet20", "cifar_resnet56"])
    parser.add_argument("--kinds", nargs="+", choices=ORDER, default=ORDER)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a round")
    parser.add_argument("--limit", type=float, default=180.0, help="time limit of a kind in seconds")
    parser.add_argument("--images", type=int, default=IMAGES, help="training images of the random data set")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--only", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--device", default="auto", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def measure_here(options: argparse.Namespace) -> None:
    """Measure one kind in this process, a child, and print its rows."""
    data = ResidentData(random_images(options.images, 1), None, find_device(options.device))
    setting = Setting(data, options.rounds, options.seconds)
    for model in options.models:
        for row in KINDS[options.only](model, setting):
            print(ROW + json.dumps(asdict(row)), flush=True)


def main(argv: list[str] | None = None) -> int:
    """Measure every kind, write the page after each, and print it; return the exit status.

    0: every kind was measured or is on the page with the reason for its failure. 2: there is no such device, or no GPU.
    """
    options = _arguments(argv)
    if options.only:
        measure_here(options)
        return 0
    try:
        device = find_device(options.device)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if device.type != "cuda":
        print("error: this benchmark needs a CUDA GPU, and there is none here", file=sys.stderr)
        return 2
    results = {
        **provenance.origin(device),
        "rounds": options.rounds,
        "seconds": options.seconds,
    }
    rows, say = [], stopwatch()
    for kind in (kind for kind in ORDER if kind in options.kinds):
        say(f"measuring {kind}")
        rows += measure_kind(
            kind, options.models, options.rounds, options.seconds, options.device, options.images, options.limit
        )
        values = {**results, "alternatives": [asdict(row) for row in rows]}
        write(options.out, "alternatives", results["hardware"]["device"], values, page(results, rows))
    print(page(results, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
