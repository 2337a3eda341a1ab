"""The fused kernels as code of a GPU, made without one: they compile as they are launched, and nothing is spilled."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks import kernels

pytest.importorskip("triton", reason="without Triton there are the library's kernels alone")

# In a process of its own, because Triton's interpreter is chosen before its first import.
CODE = """
import json, sys, torch
from dataclasses import asdict
from benchmarks.kernel_costs import costs, step_launches

dtype, capability = getattr(torch, sys.argv[1]), int(sys.argv[2])
if kernels := sys.argv[3:]:  # one launch of each, of 16 channels and with a shortcut if it can have one
    launches = {}
    for launch in step_launches("cifar_resnet8", dtype):
        widths = {launch.constants[name] for name in ("C", "CI", "CO") if name in launch.constants}
        if widths == {16} and launch.constants.get("SHORT") != 0:
            launches.setdefault(launch.kernel.fn.__name__, launch)
    found = costs([launches[name] for name in kernels], capability)
else:
    launches = [*step_launches("cifar_resnet14", dtype), *step_launches("cifar_bottleneck20", dtype, variant="b")]
    found = costs(launches, capability)
for cost in found:
    print(json.dumps(asdict(cost)))
"""
HEAVIEST = ("convolution", "input_gradient", "weight_gradient")


def compiled(folder, *arguments: str) -> list[dict]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(folder)}
    command = [sys.executable, "-c", CODE, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_heaviest_kernels_compile_for_an_h100_without_spills(tmp_path):
    costs = {cost["kernel"]: cost for cost in compiled(tmp_path, "bfloat16", "90", *HEAVIEST)}
    assert costs.keys() == {*HEAVIEST}
    assert all(cost["stack"] == 0 and cost["registers"] <= 255 and cost["resident"] >= 1 for cost in costs.values())
    assert 0 < costs["convolution"]["issue"] < costs["convolution"]["memory"]  # the library's takes 18 µs


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["80", "90"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_all_kernels_compile_without_spills(tmp_path, capability, dtype):
    """The kernels of nets of basic blocks and of bottlenecks, for every shape of a step."""
    found = compiled(tmp_path, dtype, capability)
    assert len(found) == 80 and {kernel["kernel"] for kernel in found} == kernels._FUSED_PARTS.keys()
    assert [kernel for kernel in found if kernel["stack"] or kernel["resident"] < 1] == []
