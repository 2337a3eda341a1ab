"""The fused kernels as code of a GPU, made without one: they compile as they are launched, and nothing is spilled."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="without Triton there are the library's kernels alone")
pytestmark = pytest.mark.slow

# In a process of its own, because Triton's interpreter is chosen before its first import.
CODE = """
import json, sys, torch
from dataclasses import asdict
from benchmarks.kernel_costs import costs, step_launches

model, dtype, capability, channels = sys.argv[1:]
launches = step_launches(model, getattr(torch, dtype))
if channels != "all":
    widths = [[launch.constants[name] for name in ("C", "CI", "CO") if name in launch.constants] for launch in launches]
    launches = [launch for launch, own in zip(launches, widths) if set(own) == {int(channels)}]
for cost in costs(launches, int(capability)):
    print(json.dumps(asdict(cost)))
"""


def compiled(folder, *arguments: str) -> list[dict]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(folder)}
    command = [sys.executable, "-c", CODE, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_kernels_of_16_channels_compile_for_an_h100_without_spills(tmp_path):
    costs = compiled(tmp_path, "cifar_resnet8", "bfloat16", "90", "16")
    assert {cost["kernel"] for cost in costs} == {
        "convolution", "stem_convolution", "statistics", "normalize", "input_gradient", "normalize_gradient",
        "weight_gradient", "stem_weight_gradient",
    }  # fmt: skip
    assert [cost for cost in costs if cost["stack"]] == []
    assert all(cost["registers"] <= 255 and cost["resident"] >= 1 and cost["issue"] > 0 for cost in costs)
    convolution = next(cost for cost in costs if cost["kernel"] == "convolution")
    assert convolution["issue"] < convolution["memory"]  # the library's takes 18 µs


@pytest.mark.parametrize("capability", ["80", "90"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_all_kernels_of_a_step_compile_without_spills(tmp_path, capability, dtype):
    costs = compiled(tmp_path, "cifar_resnet14", dtype, capability, "all")
    assert len(costs) > 40 and {cost["kernel"] for cost in costs} >= {"output_gradient", "add_parts"}
    assert [cost for cost in costs if cost["stack"] or cost["resident"] < 1] == []
