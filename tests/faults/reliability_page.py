"""The page on what was injected and what was seen: ``results/reliability.md``."""

import re
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from faulted import Findings

from reproductions.harness import provenance

COMMAND = "make reliability"


@dataclass(frozen=True)
class Injection:
    """A fault that was injected ``times`` into launches of ``runs`` runs, and what was found in the end.

    ``counted``: interruptions that the records had to count, None where they can't be known. ``said``: what else was
    checked.
    """

    fault: str
    how: str
    times: int
    runs: int
    counted: int | None
    findings: Findings
    said: str = ""


def write_page(path: Path, injections: list[Injection], failed: list[str], skipped: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(injections, failed, skipped), encoding="utf-8")


def page(injections: list[Injection], failed: list[str], skipped: dict[str, str]) -> str:
    head = (
        *("fault", "injected", "times", "runs", "records lost, duplicated, damaged"),
        *("interruptions in the records", "weights, curves, table", "besides"),
    )
    faults = list(dict.fromkeys(one.fault for one in injections))
    ordered = sorted(injections, key=lambda one: faults.index(one.fault))
    lines = [head, ["---"] * len(head), *map(_cells, ordered)]
    table = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    parts = [
        "# Faults injected, and what came of them\n",
        "Each fault is injected into launches of a few tiny runs, where moments matter at random ones. "
        "The same command\nis then given again if need be, until all runs have a record, and what is left is "
        "compared with what a launch\nleft that nothing disturbed. Equal means bit for bit. "
        "A kill before a run has begun interrupts none.\n",
        table,
    ]
    if failed or skipped:
        parts.append(
            "".join(
                [f"- **Failed**: {_words(name)}.\n" for name in failed]
                + [f"- Not tried: {_words(name)}: {reason}.\n" for name, reason in skipped.items()]
            )
        )
    parts.append(_provenance())
    return "\n".join(parts)


def _cells(one: Injection) -> tuple[str, ...]:
    found = one.findings
    if found.miscounted:
        counted = f"**wrong**: {'; '.join(found.miscounted)}"
    elif found.twice:
        counted = f"**trained twice**: {', '.join(found.twice)}"
    else:
        counted = "not countable" if one.counted is None else f"{one.counted}, right"
    equal = f"**differing**: {', '.join(found.differing)}" if found.differing else "equal"
    damage = f"{found.lost}, {found.duplicated}, {found.damaged}"
    return one.fault, one.how, str(one.times), str(one.runs), damage, counted, equal, one.said or "–"


def _words(test: str) -> str:
    return test.removeprefix("test_").replace("_", " ")


def _provenance() -> str:
    hardware, versions = provenance.hardware(torch.device("cpu"), 1), provenance.versions()
    code = provenance.code_identity()
    commit = (
        f"commit {code['commit'][:10]}{' with changes' if code['modified'] else ''}" if code["commit"] else "unknown"
    )
    software = [f"Python {versions['python']}", f"torch {versions['torch']}", f"submitit {version('submitit')}"]
    return (
        f"- Hardware: {hardware['device']}, {hardware['threads']} thread a run.\n"
        f"- Software: {', '.join(software)}, {_slurm()}.\n"
        f"- Code: {commit}, tests/faults.\n"
        f"- Made again by `{COMMAND}`.\n"
    )


def _slurm() -> str:
    try:
        said = subprocess.run(["slurmctld", "-V"], capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return "no SLURM"
    return f"SLURM {match.group()}" if (match := re.search(r"\d+(\.\d+)+", said)) else "no SLURM"
