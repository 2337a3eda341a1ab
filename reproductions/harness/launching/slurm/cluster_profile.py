"""Cluster profiles, the requests of a job to SLURM, from ``slurm/profiles/<name>.toml``."""

import re
import sys
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path

from reproductions.harness.provenance import ROOT

FOLDER = ROOT / "slurm" / "profiles"

# These become lines "#SBATCH --partition=…" of the job's script: one word each, of characters that mean nothing there.
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,:@%/+-]*", re.ASCII)
_FEATURES = re.compile(r"[A-Za-z0-9_\[(][A-Za-z0-9_.,:@%/+&|*()\[\]=-]*", re.ASCII)
_SHAPES = {
    "partition": _WORD,
    "account": _WORD,
    "qos": _WORD,
    "constraint": _FEATURES,
    "mail_user": _WORD,
    "mail_type": _WORD,
}
_OPTION = re.compile(r"[a-z][a-z-]*", re.ASCII)
# Options of sbatch that are not for [extra]: by the profile's key that sets them, or as the jobs' own.
_BY_KEY = {
    **{name.replace("_", "-"): name for name in _SHAPES},
    **dict.fromkeys(("gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket", "ntasks-per-gpu"), "gpus"),
    **dict.fromkeys(("cpus-per-task", "cpus-per-gpu"), "cpus"),
    **dict.fromkeys(("mem", "mem-per-cpu", "mem-per-gpu"), "memory_gb"),
    **dict.fromkeys(("ntasks", "ntasks-per-node"), "tasks_per_node"),
    "nodes": "nodes",
    "time": "time_minutes",
    "signal": "signal_seconds",
}
_OWN = {
    *("array", "chdir", "error", "export", "export-file", "input", "job-name", "open-mode", "output", "wckey"),
    *("requeue", "no-requeue", "wrap", "wait", "test-only", "parsable", "quiet", "help", "usage", "version"),
    *("cluster", "clusters", "uid", "gid"),
}


@dataclass(frozen=True)
class ClusterProfile:
    """The requests of a job; ``slurm/profiles/example.toml`` explains the keys. None leaves a request to the cluster.

    A job is ``nodes`` × ``tasks_per_node`` processes, which train one run at a time together. Each of them has ``gpus``
    GPUs, ``cpus`` cores and ``memory_gb`` GB; the GPUs of a node are visible to all its processes, which choose by
    their local rank. One process alone may train several runs side by side. A launch submits at most ``max_jobs`` jobs:
    any of them trains any run, so fewer jobs than runs are fine. ``setup`` has lines of shell that the job's script
    runs unchanged: they are the profile's author's own code. ``srun_args`` are options of the ``srun`` that starts the
    processes. ``python`` is their Python, or a command that ends with it, word by word; None is this process's own.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    nodes: int = 1
    tasks_per_node: int = 1
    gpus: int = 1
    cpus: int = 4
    memory_gb: int = 16
    time_minutes: int = 240
    signal_seconds: int = 90
    array_parallelism: int = 64
    max_jobs: int = 200
    setup: list = field(default_factory=list)
    python: str | list | None = None
    srun_args: list = field(default_factory=list)
    mail_user: str | None = None
    mail_type: str | None = None
    extra: dict = field(default_factory=dict)

    @property
    def processes(self) -> int:
        """The number of processes that train one run together."""
        return self.nodes * self.tasks_per_node

    @property
    def python_command(self) -> list[str]:
        """The words of the command that starts Python in a job."""
        return [self.python or sys.executable] if not isinstance(self.python, list) else self.python

    def submitit_parameters(self) -> dict:
        """Convert the profile to parameters of submitit's AutoExecutor, which counts GPUs and memory per node."""
        named = {name: getattr(self, name) for name in ("partition", "account", "qos", "constraint")}
        extra = {**self.extra, "mail-user": self.mail_user, "mail-type": self.mail_type}
        return {
            "nodes": self.nodes,
            "tasks_per_node": self.tasks_per_node,
            "cpus_per_task": self.cpus,
            "mem_gb": self.memory_gb * self.tasks_per_node,
            "timeout_min": self.time_minutes,
            "slurm_signal_delay_s": self.signal_seconds,
            "slurm_array_parallelism": self.array_parallelism,
            "slurm_setup": self.setup,
            "slurm_srun_args": self.srun_args,
            "slurm_additional_parameters": {name: value for name, value in extra.items() if value is not None},
            # None asked for is not the same as 0 of them, which would stand beside a gres of [extra].
            **({"gpus_per_node": self.gpus * self.tasks_per_node} if self.gpus else {}),
            **{f"slurm_{name}": value for name, value in named.items() if value is not None},
        }


def load_cluster_profile(name: str | None, folder: Path = FOLDER) -> ClusterProfile:
    """Read the profile ``name``, or return the defaults for None.

    Raises ValueError that names the file and the key for an unknown profile or key, a wrong type or value.
    """
    if name is None:
        return ClusterProfile()
    known = sorted(path.stem for path in folder.glob("*.toml"))
    if name not in known:
        raise ValueError(f"there is no cluster profile {name!r} in {folder}; available profiles: {', '.join(known)}")
    path = folder / f"{name}.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} can't be read as TOML: {error}") from error
    accepted = {f.name: f.type for f in fields(ClusterProfile)}
    for key, value in values.items():
        if key not in accepted:
            raise ValueError(f"{path}: there is no key {key!r}; available keys: {', '.join(accepted)}")
        kind = accepted[key]
        if isinstance(value, bool) or not isinstance(value, kind):
            wanted = {int: "a whole number", list: "a list", dict: "a table"}.get(kind, "a text")
            wanted += " or a list" if key == "python" else ""
            raise ValueError(f"{path}: {key} must be {wanted}, not {value!r}")
        if isinstance(value, int) and value < (0 if key == "gpus" else 1):
            raise ValueError(f"{path}: {key} is {value}, too small")
    profile = ClusterProfile(**values)
    if not all(isinstance(line, str) for line in profile.setup):
        raise ValueError(f"{path}: setup must be a list of texts, not {profile.setup!r}")
    if not profile.python_command or not all(map(_is_line, profile.python_command)):
        raise ValueError(f"{path}: python must be a text, or a list of a command's words, not {profile.python!r}")
    if not all(_is_line(option) and option.startswith("-") for option in profile.srun_args):
        raise ValueError(f"{path}: srun_args must be a list of texts that begin with -, each with its value behind =, "
                         f"not {profile.srun_args!r}")  # fmt: skip
    for key, shape in _SHAPES.items():
        if (value := getattr(profile, key)) is not None and not shape.fullmatch(value):
            raise ValueError(f"{path}: {key} is {value!r}, but must be one word without blanks, quotes or characters "
                             "that are special in the shell")  # fmt: skip
    for key, value in profile.extra.items():
        _check_extra(path, key, value)
    if 60 * profile.time_minutes <= profile.signal_seconds:
        raise ValueError(f"{path}: signal_seconds is {profile.signal_seconds}, longer than time_minutes")
    return profile


def _is_line(value) -> bool:
    """Return whether a value is a text of one line, which can be quoted for the shell."""
    return isinstance(value, str) and value != "" and value.isprintable()


def _check_extra(path: Path, key: str, value) -> None:
    """Refuse an option that could override the profile's own keys or the jobs' own options."""
    if not _OPTION.fullmatch(key):
        raise ValueError(f"{path}: extra.{key!r} is not an option of sbatch: write its long name without dashes")
    # sbatch takes the beginning of an option's name for the whole.
    if meant := [option for option in sorted(_BY_KEY) if option.startswith(key)]:
        raise ValueError(f"{path}: extra.{key} is not for [extra]: the key {_BY_KEY[meant[0]]} sets it")
    if any(option.startswith(key) for option in _OWN):
        raise ValueError(f"{path}: extra.{key} is not for [extra]: the jobs need it as it is")
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"{path}: extra.{key} must be a text or a whole number, not {value!r}")
    if not str(value).isprintable():  # a line break would begin another line of the job's script
        raise ValueError(f"{path}: extra.{key} is {value!r}, but must be one line of text")
