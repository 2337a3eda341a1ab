"""The code, software and hardware of a run."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from resnet.files import sources_digest
from resnet.plugins import OWN

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parents[2]
COMMIT_VARIABLE = "RESNET_COMMIT"  # names the commit where the code was copied without its .git
SOURCE_SUFFIXES = (".py", ".toml")
# By these git looks at another repository than the one it is asked for; hooks set them.
_GIT_ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY")
CODE_FILE = "CODE.json"  # in a copy of the code: which code it is


class _GitError(Exception):
    """A failure of git; the message gives the reason, in git's own words if possible."""


def _ask_git(*arguments: str) -> str:
    """Return the output of git. Raises _GitError."""
    try:
        command = ["git", "-C", str(ROOT), *arguments]
        environment = {name: value for name, value in os.environ.items() if name not in _GIT_ELSEWHERE}
        return subprocess.run(command, env=environment, capture_output=True, check=True, timeout=30).stdout.decode()
    except OSError as error:
        raise _GitError(f"git can't be started: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        raise _GitError(f"git says: {' '.join(error.stderr.decode(errors='replace').split())}") from error
    except subprocess.SubprocessError as error:
        raise _GitError(f"git does not answer: {error}") from error


def _git(*arguments: str) -> str | None:
    """Return the output of git, None if it fails."""
    try:
        return _ask_git(*arguments)
    except _GitError:
        return None


def source_files(root: Path | None = None) -> dict[str, bytes]:
    """Read the code that decides results and reports, and the reported numbers, by paths relative to the repository.

    Raises OSError if one cannot be read.
    """
    root = ROOT if root is None else root
    paths = (path for package in OWN for path in (root / package).rglob("*") if path.suffix in SOURCE_SUFFIXES)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths if path.is_file()}


def resnet_digest(files: dict[str, bytes]) -> str:
    """Return the digest of the package resnet, which decides results, among these source files."""
    return sources_digest({n: text for n, text in files.items() if n.startswith("resnet/") and n.endswith(".py")})


def code_identity() -> dict:
    """Identify the code: the commit, whether the sources differ from it, and a digest of the package resnet.

    A copy made for jobs (:mod:`reproductions.harness.launching.slurm.snapshot`) has its identity in a file; a copy that
    was changed since counts as modified.
    """
    files = source_files()
    identity = {
        "commit": os.environ.get(COMMIT_VARIABLE),
        "modified": None,
        "resnet_sha256": resnet_digest(files),
    }
    if (ROOT / ".git").exists():
        if commit := _git("rev-parse", "HEAD"):
            changes = _git("status", "--porcelain", "--untracked-files=normal", "--", *OWN)
            identity |= {"commit": commit.strip(), "modified": None if changes is None else bool(changes)}
    elif (ROOT / CODE_FILE).exists():
        identity |= _described_code(files)
    return identity


def why_unpublishable(identity: dict) -> str:
    """Explain why no record of the code with this :func:`code_identity` can be published; empty if it can."""
    commit, has_git = identity["commit"], (ROOT / ".git").exists()
    if identity["modified"]:
        since = f" since commit {commit[:12]}" if commit else ""
        return f"the code was modified{since}; begin from a commit with all changes"
    if commit is None:
        reason = f"{ROOT} has no .git"
        if has_git:
            try:
                _ask_git("rev-parse", "HEAD")
            except _GitError as error:
                reason = str(error)
        return f"the code's commit is not known ({reason}); make git work there, or name it in {COMMIT_VARIABLE}"
    if has_git and committed_resnet_digest(commit) not in (None, identity["resnet_sha256"]):
        text = f"the files in {ROOT / 'resnet'} differ from commit {commit[:12]}, though git sees no change"
        return f"{text}: look for other line endings, and for files that git ignores"
    return ""


def _described_code(files: dict[str, bytes]) -> dict:
    """Read the commit from CODE.json, and whether the code is modified: the files may have changed since."""
    try:
        described = json.loads((ROOT / CODE_FILE).read_text())
        commit, modified, digest = (described[name] for name in ("commit", "modified", "sources_sha256"))
    except (OSError, ValueError, TypeError, KeyError):
        return {"commit": None, "modified": True}
    return {"commit": commit, "modified": modified if digest == sources_digest(files) else True}


def describe(code: dict) -> str:
    """Describe a code identity in a few words."""
    commit = f"commit {code['commit'][:12]}" if code["commit"] else "no commit"
    return f"{commit}{', modified' if code['modified'] else ''} (resnet {code['resnet_sha256'][:12]})"


def has_history() -> bool:
    """Return whether the repository has all its commits."""
    return (ROOT / ".git").exists() and _git("rev-parse", "--is-shallow-repository") == "false\n"


@cache
def committed_resnet_digest(commit: str) -> str | None:
    """Return the digest that :func:`code_identity` gives for a clean checkout of ``commit``; None if it is unknown."""
    if not commit or commit.startswith("-"):
        return None
    names = _git("ls-tree", "-r", "-z", "--name-only", commit, "--", "resnet")
    if names is None:
        return None
    shown = {name: _git("show", f"{commit}:{name}") for name in names.split("\0") if name.endswith(".py")}
    return sources_digest({name: text.encode() for name, text in shown.items() if text is not None})


@cache
def committed_module_digest(commit: str, module: str) -> str | None:
    """Return the digest of a plugin's module in this repository at ``commit``; None if it is not there."""
    path = module.replace(".", "/")
    for name in (f"{path}.py", f"{path}/__init__.py"):
        if commit and not commit.startswith("-") and (text := _git("show", f"{commit}:{name}")) is not None:
            return sources_digest({name: text.encode()})
    return None


def device_name(device: torch.device) -> str:
    """Return the GPU's or processor's name."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
        if psutil.MACOS:
            with suppress(OSError, subprocess.SubprocessError):
                command = ["sysctl", "-n", "machdep.cpu.brand_string"]
                name = subprocess.run(command, capture_output=True, check=True, text=True, timeout=10).stdout.strip()
    return f"{name}, {psutil.cpu_count()} cores"


def hardware(device: torch.device, threads: int, processes: int = 1) -> dict:
    """Describe the hardware for a record: the device and processor threads of each of the ``processes``."""
    return {"type": device.type, "device": device_name(device), "threads": threads, "processes": processes}


def origin(device: torch.device) -> dict:
    """Describe the hardware, versions and code of this process's results."""
    import torch

    return {
        "hardware": hardware(device, torch.get_num_threads()),
        "versions": versions(),
        "code": code_identity(),
    }


def _installed(package: str) -> str | None:
    """Return the version of a package without importing it, None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def versions(kernels: str = "library") -> dict:
    """Return the versions of Python, torch, CUDA, cuDNN and Triton, and the ``kernels``: "library" or "fused".

    The versions of CUDA and cuDNN are None without a GPU, Triton's if it is not installed.
    """
    import torch

    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # which is a string of a class of its own
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,
        "triton": _installed("triton"),
        "kernels": kernels,
    }
