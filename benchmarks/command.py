"""Command-line options, device selection and progress lines that the benchmarks share."""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from reproductions.harness import provenance
from reproductions.harness.console import replace_unprintable
from resnet.device import find_device

OUT = provenance.ROOT / "results" / "benchmarks"


def make_parser(
    description: str, seconds: float | None = None, round_help: str = "length of a round"
) -> argparse.ArgumentParser:
    """Create a parser with the options --rounds, --seconds (of a round), --device and --out."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=seconds, help=round_help)
    parser.add_argument("--device", default="auto", help="default: the GPU if there is one, else the CPU")
    parser.add_argument("--out", type=Path, default=OUT)
    return parser


def parse(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Parse the options, with ``device`` as a torch.device. Exits with status 2 for invalid options.

    From then on standard output replaces characters that it can't show.
    """
    replace_unprintable()
    options = parser.parse_args(argv)
    if options.rounds < 1 or (options.seconds is not None and options.seconds <= 0):
        parser.error("--rounds and --seconds must be positive")
    try:
        options.device = find_device(options.device)
    except ValueError as error:
        parser.error(str(error))
    return options


def stopwatch() -> Callable[[str], None]:
    """Return a function that prints a text on stderr with the seconds since this call."""
    started = time.perf_counter()

    def say(text: str) -> None:
        print(f"{time.perf_counter() - started:6.1f} s  {text}", file=sys.stderr, flush=True)

    return say
