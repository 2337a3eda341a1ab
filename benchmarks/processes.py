"""Several processes with one run each on the same device, with or without CUDA's Multi-Process Service (MPS).

python -m benchmarks.processes --models cifar_resnet20      # one such process, which waits for lines on its input
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from benchmarks.measuring import BATCH, IMAGES, Rates, random_images
from benchmarks.nets import run_of
from benchmarks.packs import PackedLoop, measured_run
from benchmarks.variants import Measured
from resnet.data.resident import ResidentData
from resnet.device import find_device, synchronized_time
from resnet.trainer import Trainer

ROOT = Path(__file__).resolve().parents[1]
CONTROL = "nvidia-cuda-mps-control"
BURST = 40  # steps between two readings of the clock, on a GPU
READY, MEASURED = "READY", "MEASURED "


class Unavailable(Exception):
    """Measurement that is not possible here, or that failed."""


@contextmanager
def mps() -> Iterator[dict[str, str]]:
    """Run an own MPS daemon inside the context; yield its environment variables. Raises Unavailable."""
    if (control := shutil.which(CONTROL)) is None:
        raise Unavailable(f"{CONTROL} isn't installed")
    with tempfile.TemporaryDirectory() as folder:
        # With its own folders it does not interfere with another daemon, and needs no privileges.
        variables = {"CUDA_MPS_PIPE_DIRECTORY": f"{folder}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{folder}/log"}
        for path in variables.values():
            os.mkdir(path)
        variables["CUDA_DEVICE_MAX_CONNECTIONS"] = "8"  # CUDA's default: more may leave room for fewer processes
        environment = os.environ | variables
        try:
            # Output is not captured, because the daemon would keep the pipes open, and reading them would never end.
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "timeout": 30}
            subprocess.run([control, "-d"], env=environment, check=True, **quiet)
        except (OSError, subprocess.SubprocessError) as error:
            raise Unavailable(f"{CONTROL} did not start: {error}") from error
        try:
            yield variables
        finally:
            with suppress(subprocess.SubprocessError):
                subprocess.run([control], input=b"quit\n", env=environment, timeout=60, check=False)


def measure_processes(
    name: str,
    count: int,
    models: list[str],
    rounds: int,
    seconds: float,
    device: str = "auto",
    images: int = IMAGES,
    variables: dict[str, str] | None = None,
    timeout: float = 180.0,
) -> list[Measured]:
    """Measure the images per second of ``count`` processes together, for each model. Raises Unavailable."""
    command = [sys.executable, "-m", "benchmarks.processes", "--models", *models, "--rounds", str(rounds)]
    command += ["--seconds", str(seconds), "--device", device, "--images", str(images)]
    with ExitStack() as stack:
        errors = stack.enter_context(tempfile.TemporaryFile("w+"))
        workers = []
        timer = threading.Timer(timeout, lambda: [worker.kill() for worker in workers])
        for _ in range(count):
            worker = subprocess.Popen(
                command, cwd=ROOT, env=os.environ | (variables or {}), text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
            stack.enter_context(worker)
            stack.callback(worker.kill)
            workers.append(worker)
        timer.start()
        stack.callback(timer.cancel)

        def answers(marker: str) -> list[str]:
            """Return the next line with the marker from each process; skip the output of libraries."""
            found = []
            for worker in workers:
                line = next((line for line in worker.stdout if line.startswith(marker)), None)
                if line is None:
                    reason = "took too long" if not timer.is_alive() else last_line(errors)
                    raise Unavailable(f"a process ended: {reason}")
                found.append(line.removeprefix(marker))
            return found

        results = []
        for model in models:
            answers(READY)
            rates, steps = [], 0
            for _ in range(rounds):
                for worker in workers:
                    worker.stdin.write("go\n")
                    worker.stdin.flush()
                measured = [json.loads(answer) for answer in answers(MEASURED)]
                rates.append(round(sum(each["steps"] * BATCH / each["seconds"] for each in measured), 1))
                steps = max(each["steps"] for each in measured)
            results.append(Measured(name, model, count, Rates(steps, tuple(rates))))
        return results


def last_line(errors) -> str:
    """Return the last line that is not empty of a file of error messages."""
    errors.seek(0)
    lines = [line.strip() for line in errors if line.strip()]
    return lines[-1] if lines else "no message"


def main(argv: list[str] | None = None) -> int:
    """Prepare a run of each model, print READY, and take steps after each line on the input; return 0.

    This is one of the measured processes. Its answers to the lines are marked with MEASURED.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--images", type=int, default=IMAGES)
    options = parser.parse_args(argv)
    device = find_device(options.device)
    data = ResidentData(random_images(options.images, 1), None, device)
    burst = BURST if device.type == "cuda" else 1
    for model in options.models:
        pack = PackedLoop([Trainer(measured_run(run_of(model)), data)])
        pack.advance(pack.settling if device.type == "cuda" else 1)
        synchronized_time(device)
        print(READY, flush=True)
        for _ in range(options.rounds):
            sys.stdin.readline()
            steps, taken, start = 0, 0.0, synchronized_time(device)
            while taken < options.seconds:
                pack.advance(burst)
                steps += burst
                taken = synchronized_time(device) - start
            print(MEASURED + json.dumps({"steps": steps, "seconds": taken}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
