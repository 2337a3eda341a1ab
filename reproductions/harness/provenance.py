"""Which code, software and hardware a run used."""

import hashlib
import os
import platform
import subprocess
from functools import cache
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
COMMIT_VARIABLE = "RESNET_COMMIT"  # names the commit where the code was copied without its .git
SOURCES = ("resnet", "reproductions")


def _git(*arguments: str) -> str | None:
    """What git prints; None where it fails."""
    try:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, check=True, timeout=30).stdout.decode()
    except (OSError, subprocess.SubprocessError):
        return None


def sources_digest(files: dict[str, bytes]) -> str:
    """SHA-256 of source files by their paths relative to the repository, with forward slashes."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode() + files[name])
    return digest.hexdigest()


def code_identity() -> dict:
    """The commit, whether the sources differ from it, and a digest of the package resnet, which decides results."""
    files = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in (ROOT / "resnet").rglob("*.py")}
    identity = {"commit": os.environ.get(COMMIT_VARIABLE), "modified": None, "resnet_sha256": sources_digest(files)}
    if (ROOT / ".git").exists() and (commit := _git("rev-parse", "HEAD")):
        changes = _git("status", "--porcelain", "--", *SOURCES)
        identity |= {"commit": commit.strip(), "modified": None if changes is None else bool(changes)}
    return identity


def has_history() -> bool:
    """Whether the repository is here with all its commits."""
    return (ROOT / ".git").exists() and _git("rev-parse", "--is-shallow-repository") == "false\n"


@cache
def committed_resnet_digest(commit: str) -> str | None:
    """The digest that :func:`code_identity` gives for a clean checkout of ``commit``; None if it isn't known here."""
    if not commit or commit.startswith("-"):
        return None
    names = _git("ls-tree", "-r", "-z", "--name-only", commit, "--", "resnet")
    if names is None:
        return None
    shown = {name: _git("show", f"{commit}:{name}") for name in names.split("\0") if name.endswith(".py")}
    return sources_digest({name: text.encode() for name, text in shown.items() if text is not None})


def device_name(device: torch.device) -> str:
    """The GPU's or processor's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def hardware(device: torch.device, threads: int) -> dict:
    """What a record says of the hardware; ``threads`` are the processor's that take part."""
    return {"type": device.type, "device": device_name(device), "threads": threads}


def versions() -> dict:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,
    }
