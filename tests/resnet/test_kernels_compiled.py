"""The fused kernels as code of a GPU, made without one: they compile as they are launched, and nothing is spilled."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="without Triton there are the library's kernels alone")

# In a process of its own, because Triton's interpreter is chosen before its first import.
CODE = """
import json, sys, torch
from dataclasses import asdict
from benchmarks.kernel_costs import costs, step_launches

model, dtype, capability, kernels = sys.argv[1:5]
options = dict(option.split("=") for option in sys.argv[5:])
launches = step_launches(model, getattr(torch, dtype), **options)
if kernels != "all":  # one launch of each, of 16 channels and with a shortcut if it can have one
    chosen = {}
    for launch in launches:
        widths = {launch.constants[name] for name in ("C", "CI", "CO") if name in launch.constants}
        name = launch.kernel.fn.__name__
        if name in kernels.split() and widths == {16} and launch.constants.get("SHORT") != 0:
            chosen.setdefault(name, launch)
    launches = [*chosen.values()]
for cost in costs(launches, int(capability)):
    print(json.dumps(asdict(cost)))
"""
HEAVIEST = "convolution input_gradient weight_gradient"


def compiled(folder, *arguments: str) -> list[dict]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(folder)}
    command = [sys.executable, "-c", CODE, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_heaviest_kernels_compile_for_an_h100_without_spills(tmp_path):
    costs = {cost["kernel"]: cost for cost in compiled(tmp_path, "cifar_resnet8", "bfloat16", "90", HEAVIEST)}
    assert costs.keys() == set(HEAVIEST.split())
    assert all(cost["stack"] == 0 and cost["registers"] <= 255 and cost["resident"] >= 1 for cost in costs.values())
    assert 0 < costs["convolution"]["issue"] < costs["convolution"]["memory"]  # the library's takes 18 µs


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["80", "90"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("net", [["cifar_resnet14"], ["cifar_bottleneck20", "variant=b"]], ids=["basic", "bottlenecks"])
def test_all_kernels_of_a_step_compile_without_spills(tmp_path, capability, dtype, net):
    model, *options = net
    costs = compiled(tmp_path, model, dtype, capability, "all", *options)
    assert len(costs) > 40 and {cost["kernel"] for cost in costs} >= {"output_gradient", "add_parts"}
    assert ("map_statistics" in {cost["kernel"] for cost in costs}) == bool(options)
    assert [cost for cost in costs if cost["stack"] or cost["resident"] < 1] == []
