"""torch.hub's modules beside a program's own of the same name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

PROGRAM = """
import sys, torch
sys.path.insert(0, sys.argv[1])

def use():
    for arguments in ({}, {"weights": "cifar_resnet20_bf16"}, {"pretrained": True}):
        model = torch.hub.load(sys.argv[2], "cifar_resnet20", source="local", **arguments)
        assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)

ORDER
assert resnet.MINE == 1 and resnet.__file__.startswith(sys.argv[1])
if len(sys.argv) > 3:
    import resnet.part
    assert resnet.part.MINE == 2
assert sys.argv[2] not in sys.path
"""


def run(folder: Path, program: str, *arguments: str) -> None:
    """Run a program in a folder, where no package of this repository can be imported."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", program, *arguments], env=environment, cwd=folder,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("order", ["import resnet; use()", "use(); import resnet", "use(); import resnet; use()"])
@pytest.mark.parametrize("package", [False, True])
def test_hub_and_a_programs_own_module_resnet_do_not_meet(tmp_path, order, package):
    if package:
        (tmp_path / "resnet").mkdir()
        (tmp_path / "resnet" / "part.py").write_text("MINE = 2")
    (tmp_path / ("resnet/__init__.py" if package else "resnet.py")).write_text("MINE = 1")
    arguments = [str(tmp_path), str(REPOSITORY), *(["package"] if package else [])]
    run(tmp_path, PROGRAM.replace("ORDER", order.replace("; ", "\n")), *arguments)


def test_hubs_networks_can_be_pickled_where_nothing_else_is_called_resnet(tmp_path):
    program = "import pickle, torch; pickle.dumps(torch.hub.load(%r, 'cifar_resnet20', source='local'))"
    run(tmp_path, program % str(REPOSITORY))
