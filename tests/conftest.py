"""What all tests share: those that need a GPU or SLURM are skipped without, and the small nets run on one thread."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

# A step of these nets is so short that threads mostly wait for one another. The variable is for the tests' processes.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
# "auto" is fp32 then, whatever processor the tests run on.
os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE"
if not torch.cuda.is_available():  # said before anything imports Triton: its kernels are then tested in its interpreter
    os.environ["TRITON_INTERPRET"] = "1"

TESTCLUSTER = Path(__file__).resolve().parents[1] / "slurm" / "testcluster"
PACKAGES = {  # by a program of each
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "sbatch": "slurm-wlm",
    "slurmdbd": "slurmdbd",
    "munged": "munge",
    "mariadbd": "mariadb-server",
}


@dataclass(frozen=True)
class Cluster:
    """A cluster of slurm/testcluster that is up. ``folder`` has its slurm.conf, log/ and pid/."""

    folder: Path

    @property
    def configuration(self) -> Path:
        return self.folder / "slurm.conf"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A process of several has whole files, whose fixtures are made once, and one has all that need the cluster."""
    from xdist.scheduler import LoadFileScheduling

    class Files(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return "slurm" if Path(file).name in with_cluster else file

    tests = Path(__file__).parent.rglob("test_*.py")
    with_cluster = {path.name for path in tests if "mark.slurm" in path.read_text(encoding="utf-8")}
    return Files(config, log)


def pytest_collection_modifyitems(items):
    missing = {"gpu": None if torch.cuda.is_available() else "needs a CUDA GPU"}
    if any(item.get_closest_marker("slurm") for item in items):
        missing["slurm"] = why_no_cluster()
    for item in items:
        for marker, reason in missing.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


def why_no_cluster() -> str | None:
    """Why there is no cluster of slurm/testcluster and none can be started; None if there is or can be."""
    if running_cluster() is not None:
        return None
    if os.geteuid() != 0:
        return "needs root to start a SLURM cluster"
    missing = sorted({package for program, package in PACKAGES.items() if shutil.which(program) is None})
    return f"needs Debian's packages {' '.join(missing)} for a SLURM cluster" if missing else None


def running_cluster() -> Cluster | None:
    """The test cluster that SLURM_CONF names, if it answers. Any other cluster is not for tests."""
    folder = Path(os.environ.get("SLURM_CONF", "")).parent
    if not (folder / "testcluster").exists():
        return None
    try:
        subprocess.run(["squeue"], check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return Cluster(folder)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real SLURM, which SLURM's commands find: the test cluster that is up, else one for these tests alone."""
    if (running := running_cluster()) is not None:
        yield running
        return
    # Not pytest's own folder, which the users of munge and the database may not enter.
    parent = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    parent.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_TESTCLUSTER", str(parent / "cluster"))
        patch.setenv("SLURM_CONF", str(parent / "cluster" / "slurm.conf"))
        # Into a file: the database keeps standard output open, and a pipe would never end.
        with (parent / "up").open("w+") as output:
            code = subprocess.run([TESTCLUSTER, "up"], stdout=output, stderr=subprocess.STDOUT, timeout=300).returncode
        try:
            assert code == 0, (parent / "up").read_text()
            yield Cluster(parent / "cluster")
        finally:
            subprocess.run([TESTCLUSTER, "down"], stdout=subprocess.DEVNULL, timeout=120)
            shutil.rmtree(parent, ignore_errors=True)
