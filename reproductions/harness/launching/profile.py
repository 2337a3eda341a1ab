"""Cluster profiles: what a job asks SLURM for, from ``slurm/profiles/<name>.toml``."""

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path

from reproductions.harness.provenance import ROOT

FOLDER = ROOT / "slurm" / "profiles"


@dataclass(frozen=True)
class Profile:
    """What a job asks for; ``slurm/profiles/example.toml`` explains the keys. None leaves it to the cluster."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus: int = 1
    cpus: int = 4
    memory_gb: int = 16
    time_minutes: int = 240
    signal_seconds: int = 90
    array_parallelism: int = 64
    setup: list = field(default_factory=list)
    mail_user: str | None = None
    mail_type: str | None = None
    extra: dict = field(default_factory=dict)

    def submitit_parameters(self) -> dict:
        """The same in the words of submitit's AutoExecutor."""
        named = {name: getattr(self, name) for name in ("partition", "account", "qos", "constraint")}
        extra = {**self.extra, "mail-user": self.mail_user, "mail-type": self.mail_type}
        return {
            "gpus_per_node": self.gpus,
            "cpus_per_task": self.cpus,
            "mem_gb": self.memory_gb,
            "timeout_min": self.time_minutes,
            "slurm_signal_delay_s": self.signal_seconds,
            "slurm_array_parallelism": self.array_parallelism,
            "slurm_setup": self.setup,
            "slurm_additional_parameters": {name: value for name, value in extra.items() if value is not None},
            **{f"slurm_{name}": value for name, value in named.items() if value is not None},
        }


def load_profile(name: str | None, folder: Path = FOLDER) -> Profile:
    """The profile ``name``, or the defaults for None.

    Raises ValueError that names the file and the key for an unknown profile or key, a wrong type or value.
    """
    if name is None:
        return Profile()
    known = sorted(path.stem for path in folder.glob("*.toml"))
    if name not in known:
        raise ValueError(f"there is no cluster profile {name!r} in {folder}; there are: {', '.join(known)}")
    path = folder / f"{name}.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} can't be read as TOML: {error}") from error
    accepted = {f.name: f.type for f in fields(Profile)}
    for key, value in values.items():
        if key not in accepted:
            raise ValueError(f"{path}: there is no key {key!r}; the keys are: {', '.join(accepted)}")
        kind = accepted[key]
        if isinstance(value, bool) or not isinstance(value, kind):
            wanted = {int: "a whole number", list: "a list", dict: "a table"}.get(kind, "a text")
            raise ValueError(f"{path}: {key} must be {wanted}, not {value!r}")
        if isinstance(value, int) and value < (0 if key == "gpus" else 1):
            raise ValueError(f"{path}: {key} is {value}, too small")
    profile = Profile(**values)
    if not all(isinstance(line, str) for line in profile.setup):
        raise ValueError(f"{path}: setup must be a list of texts, not {profile.setup!r}")
    for key, value in profile.extra.items():
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise ValueError(f"{path}: extra.{key} must be a text or a whole number, not {value!r}")
    if 60 * profile.time_minutes <= profile.signal_seconds:
        raise ValueError(f"{path}: signal_seconds is {profile.signal_seconds}, longer than time_minutes")
    return profile
