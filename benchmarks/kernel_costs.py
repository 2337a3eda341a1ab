"""Costs of the fused kernels without a GPU: kernels are compiled for one, and their instructions counted.

A GPU issues at most four instructions per cycle and streaming multiprocessor, and its memory has a limited bandwidth.
These give two lower bounds on a kernel's time.
"""

import math
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import triton
from torch import nn
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from resnet.kernels import launching, nets
from resnet.kernels.launching import SETTINGS, Launch, Settings
from resnet.models import create_model, image_size

_TOOLS = Path(nvidia.__file__).parent / "bin"
_TYPES = {torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.float32: "*fp32", int: "i32", float: "fp32"}
_REGISTERS, _THREADS = 65_536, 2_048  # of a multiprocessor


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU: name, multiprocessors, GHz, KiB of shared memory per multiprocessor, and bytes/s of copies."""

    name: str
    multiprocessors: int
    gigahertz: float
    shared_kib: int
    bytes_per_second: float


GPUS = {80: Gpu("A100", 108, 1.41, 164, 1.6e12), 90: Gpu("H100", 132, 1.75, 228, 3.0e12)}  # by compute capability


@dataclass(frozen=True)
class Cost:
    """The cost of a kernel as it is launched for one shape.

    ``launches``: of a step. ``stack``: bytes of a thread that did not fit into registers, 0 without spills.
    ``resident``: blocks that fit on a multiprocessor. ``instructions``: of a warp. ``issue`` and ``memory``: the bounds
    of one launch in µs.
    """

    kernel: str
    shape: str
    launches: int
    blocks: int
    warps: int
    registers: int
    stack: int
    shared: int
    resident: int
    instructions: int
    issue: float
    memory: float


def step_launches(
    model: str,
    dtype: torch.dtype = torch.bfloat16,
    device: str | torch.device = "meta",
    settings: Settings = SETTINGS,
    batch: int = 128,
    **options,
) -> list[Launch]:
    """Record the kernel launches of a training step of ``model``, in order, on uninitialised tensors.

    The fused kernels compute nothing. On the device "meta" the tensors have no memory either. ``options``: of the
    model.
    """
    size = image_size(model)
    with torch.device(device), launching.recording() as launches, launching.using(settings):
        net = create_model(model, **options).train().to(memory_format=torch.channels_last)
        for conv in (m for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)):
            conv.to(dtype)  # as under autocast, which "meta" lacks
        maps = nets.find(net).compute(torch.empty(batch, 3, size, size), dtype)
        maps.backward(torch.empty_like(maps))
    return launches


def costs(launches: list[Launch], capability: int) -> list[Cost]:
    """Return the costs of the kernels on a kind of GPU, one for equal launches."""
    return [_cost(same[0], len(same), capability) for same in alike(launches)]


def alike(launches: list[Launch]) -> list[list[Launch]]:
    """Group the launches that run the same compiled code, in the order of each group's first launch."""
    groups: dict[tuple, list[Launch]] = {}
    for launch in launches:
        kinds = [(_type(value), _specialized(value)) for value in launch.arguments.values()]
        constants = tuple(launch.constants.items())
        groups.setdefault((launch.kernel.fn.__name__, *kinds, constants, launch.warps), []).append(launch)
    return list(groups.values())


def _type(value) -> str:
    return _TYPES[value.dtype if isinstance(value, torch.Tensor) else type(value)]


def _specialized(value) -> bool | int:
    """Return Triton's specialization of a value: tensors are 16-byte aligned; integers are 1 or divisible by 16."""
    return isinstance(value, torch.Tensor) or (type(value) is int and (value % 16 == 0 or (1 if value == 1 else 0)))


def _cost(launch: Launch, count: int, capability: int) -> Cost:
    binary, gpu = _compiled(launch, capability), GPUS[capability]
    usage = re.search(r"REG:(\d+) STACK:(\d+)", _tool("cuobjdump", "--dump-resource-usage", binary.asm["cubin"]))
    registers, shared, threads = int(usage[1]), binary.metadata.shared, 32 * launch.warps
    room = (
        _THREADS // threads,
        _REGISTERS // (max(16, registers) * threads),
        gpu.shared_kib * 1024 // (shared + 1024),
    )
    blocks = math.prod(launch.grid)
    instructions = _issued(_tool("nvdisasm", "-c", binary.asm["cubin"]), _trips(launch))
    cycles = blocks * launch.warps * instructions / (4 * gpu.multiprocessors)
    tensors = {id(t): t for t in launch.arguments.values() if isinstance(t, torch.Tensor)}.values()
    moved = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return Cost(
        kernel=launch.kernel.fn.__name__,
        shape=shape_of(launch.constants),
        launches=count,
        blocks=blocks,
        warps=launch.warps,
        registers=registers,
        stack=int(usage[2]),
        shared=shared,
        resident=min(32, *room),
        instructions=instructions,
        issue=cycles / gpu.gigahertz / 1e3,
        memory=moved / gpu.bytes_per_second * 1e6,
    )


def shape_of(constants: dict) -> str:
    """Describe the maps that a kernel processes, and its input and output channels."""
    if "SIZE" in constants:
        return f"{constants['SIZE']} values"
    height, width = (constants.get(name, constants.get(f"{name}I")) for name in "HW")
    channels = [constants[name] for name in ("CI", "CO", "C") if name in constants]
    stride = f", stride {constants['S']}" if constants.get("S", 1) > 1 else ""
    short = f", shortcut's stride {constants['SHORT']}" if constants.get("SHORT") else ""
    return f"{height}x{width}, {'→'.join(map(str, channels))}{stride}{short}"


def _compiled(launch: Launch, capability: int):
    names = launch.kernel.arg_names
    ones = [name for name, value in launch.arguments.items() if type(value) is int and value == 1]
    constants = launch.constants | dict.fromkeys(ones, 1)
    arguments = {name: value for name, value in launch.arguments.items() if name not in constants}
    signature = {name: _type(arguments[name]) if name in arguments else "constexpr" for name in names}
    attributes = {
        (names.index(name),): [["tt.divisibility", 16]]
        for name, value in arguments.items()
        if type(value) is not float and _specialized(value)
    }
    source = ASTSource(fn=launch.kernel, signature=signature, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=launching.options(launch.warps))


def _tool(name: str, option: str, cubin: bytes) -> str:
    """Return the output of one of Triton's tools for a compiled kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = (str(_TOOLS / name), option, file.name)
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _trips(launch: Launch) -> int:
    """Return the number of iterations of a kernel's loop; all loops of a kernel have the same length."""
    constants, arguments = launch.constants, launch.arguments
    if "STEPS" in constants:
        return constants["STEPS"]
    if "PARTS" in constants:
        return triton.cdiv(arguments["BLOCKS"], constants["PARTS"])
    if "BLOCKS" in constants:
        return triton.cdiv(arguments["N"] * triton.cdiv(constants["H"], constants["ROWS"]), constants["BLOCKS"])
    return 1


def _issued(code: str, trips: int) -> int:
    """Count the instructions that a warp issues up to the last exit, with a loop's instructions ``trips`` times."""
    instructions, labels = [], {}
    for line in code.splitlines():
        if label := re.match(r"\s*(\.L_x_\w+):", line):
            labels[label[1]] = len(instructions)
        elif found := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)(.*)", line):
            instructions.append(found.groups())
    ends = [number for number, (name, _) in enumerate(instructions) if name == "EXIT"]
    loops = set()
    for number, (name, rest) in enumerate(instructions):
        target = re.search(r"\.L_x_\w+", rest) if name == "BRA" else None
        if target and labels.get(target[0], number) < number:
            loops.add((labels[target[0]], number))
    body = sum(any(first <= number <= last for first, last in loops) for number in range(ends[-1] + 1))
    return ends[-1] + 1 + body * (trips - 1)
