"""State dicts from other programs' files: recognized by their first bytes, and read without executing code.

Files of training scripts often hold other objects beside the weights, of classes that may not exist here. None of these
classes is imported or called: an inert stand-in takes the place of each.
"""

import pickletools
import re
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from resnet import checkpoint
from resnet.files import some

# Keys under which training scripts save weights beside other objects. The first key that holds weights wins, so weights
# are preferred to their moving averages.
WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "model", "net_state_dict", "net", "network", "module", "weights",
    "params", "state_dict_ema", "model_ema", "ema_state_dict", "ema", "params_ema",
)  # fmt: skip
PREFIXES = ("module.", "model.", "net.", "network.", "backbone.", "encoder.")  # may begin some of the names
LAST_LAYERS = ("linear", "classifier", "head", "last_linear")  # other programs' names for fc
SHOWN = 6  # entries of a file in a message

# By the first bytes of the file.
_NO_WEIGHTS = {
    b"version https://git-lfs": "a git-lfs pointer, not the file itself: fetch the file with git lfs pull",
    b"<": "a web page, not the file itself: download the file from the page's link",
    b"{": "JSON text, such as an index of weights files",
    b"\x89HDF": "an HDF5 file, as written by Keras, not a PyTorch file",
    b"\x93NUMPY": "a NumPy array, not weights by name",
    b"\x1f\x8b": "compressed with gzip: unpack it",
    b"BZh": "compressed with bzip2: unpack it",
    b"\xfd7zXZ": "compressed with xz: unpack it",
    b"7z\xbc\xaf": "a 7z archive: unpack it",
    b"Rar!": "a RAR archive: unpack it",
    b"GGUF": "a GGUF file, not a PyTorch file",
}


class WeightsError(Exception):
    """Weights that can't be found, read or used. The message names the file and the remedy."""


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the state dict in a file: one of ``runs/weights``, a safetensors file, or a PyTorch file.

    A PyTorch file may hold a dictionary with other objects or a whole pickled network. Names may have prefixes, or
    other programs' names for the last layer (``linear``) and for projections (``shortcut``). Raises WeightsError.
    """
    path = Path(path)
    if path.is_dir():
        raise WeightsError(f"{path} is a folder; name a weights file in it")
    if not path.exists():
        raise WeightsError(f"there is no file {path}; torchvision's weights are named like torchvision:resnet50")
    if not path.is_file():  # such as a pipe, which would block
        raise WeightsError(f"{path} is not a regular file: write the weights to one")
    try:
        if checkpoint.is_checkpoint(path):
            content = checkpoint.load(path)
        elif is_safetensors(path):
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            _refuse_others(path)
            content = _load(path)
    except checkpoint.CheckpointError as error:
        raise WeightsError(str(error)) from error
    except WeightsError:
        raise
    except Exception as error:  # each format's reader raises its own types
        raise WeightsError(f"{path} can't be read as weights ({_reason(error)}): it is damaged, or holds objects other "
                           "than tensors and plain values; torch.save(model.state_dict(), ...) makes a readable file"
                           ) from error  # fmt: skip
    if not (state := find_state(content)):
        if names := _tensor_names(content):
            raise WeightsError(f"{path} holds tensors whose names fit no net, because none ends in weight or bias: "
                               f"{some(names, SHOWN)}; give them the names of the net's state_dict()")  # fmt: skip
        raise WeightsError(f"{path} holds no state dict, a dictionary of tensors by name; it holds "
                           f"{_describe(content)}")  # fmt: skip
    if odd := [f"{name} {why}" for name, value in state.items() if (why := _why_no_weight(name, value))]:
        raise WeightsError(f"{path} can't be used as weights: {some(odd, SHOWN)}")
    return state


def _why_no_weight(name: str, value: Tensor) -> str:
    """Return the reason why no network can compute with this weight; empty if one can."""
    if value.is_meta:
        return "has no values (saved from the device meta)"
    if name.endswith("num_batches_tracked"):
        return ""
    if not value.is_floating_point() or value.layout != torch.strided:
        kind = value.dtype if value.layout == torch.strided else value.layout
        return f"is {kind} (of a quantized or pruned network? save the one that it was made from)"
    return "" if value.float().isfinite().all() else "has values that are not finite (of a training that diverged?)"


def is_safetensors(path: str | Path) -> bool:
    """Return whether a file begins like a safetensors file: with a length below 100 MB and JSON."""
    with open(path, "rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") < 100_000_000


def _refuse_others(path: Path) -> None:
    """Raise WeightsError for files known not to hold weights."""
    with path.open("rb") as file:
        head = file.read(512).removeprefix(b"\xef\xbb\xbf").lstrip()
    for beginning, what in _NO_WEIGHTS.items():
        if head.startswith(beginning):
            raise WeightsError(f"{path} is {what}")
    if zipfile.is_zipfile(path):
        names = zipfile.ZipFile(path).namelist()
        if any(name.endswith("/constants.pkl") for name in names):
            raise WeightsError(f"{path} is a TorchScript program: load it with torch.jit.load if you trust it, and "
                               "save its state_dict()")  # fmt: skip
        if not any(name.endswith("data.pkl") for name in names):
            raise WeightsError(f"{path} is a zip archive of {some(names, SHOWN)}, not a PyTorch file: unpack it")


# ------------------------------------------------------------------------------------------------------ PyTorch's files


class _StandIn:
    """Stand-in for an object of a class or function that is not allowed; ``state`` is the object's pickled state."""

    def __new__(cls, *arguments):
        return super().__new__(cls)

    def __setstate__(self, state):
        self.state = state


class _DictionaryStandIn:
    """Stand-in for a dictionary class such as EasyDict, which creates a plain dictionary."""

    def __new__(cls, *arguments):
        return OrderedDict()


def _load(path: Path):
    """Load a file of torch.save, with stand-ins for all classes that PyTorch does not allow by default."""
    names = _globals(path)
    for other in (_StandIn, _DictionaryStandIn):  # a class's name does not tell which of the two it needs
        stand_ins = [(_StandIn if name.startswith("numpy.") else other, name) for name in sorted(names)]
        try:
            with torch.serialization.safe_globals(stand_ins), path.open("rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
        except UnpicklingError as error:
            if other is _DictionaryStandIn or "SETITEM" not in str(error):
                raise


def _globals(path: Path) -> set[str]:
    """Return the full names of all classes and functions in a file of torch.save, without importing them."""
    names = set()
    with ExitStack() as stack, suppress(ValueError):  # damaged files are reported later
        if zipfile.is_zipfile(path):
            archive = stack.enter_context(zipfile.ZipFile(path))
            file = stack.enter_context(archive.open(next(n for n in archive.namelist() if n.endswith("data.pkl"))))
        else:
            file = stack.enter_context(path.open("rb"))
        for _ in range(4):  # pickles: 4 before PyTorch 1.6, followed by the tensors' bytes; 1 since then
            names |= {argument for code, argument, _ in pickletools.genops(file) if code.name == "GLOBAL"}
    pairs = (tuple(name.split(" ", 1)) for name in names)  # possibly Python 2's names
    return {".".join(NAME_MAPPING.get(pair, (IMPORT_MAPPING.get(pair[0], pair[0]), pair[1]))) for pair in pairs}


def _reason(error: Exception) -> str:
    """Return an error's first line, without PyTorch's long advice on loading files that execute code."""
    text = str(error) or type(error).__name__
    if text.startswith("Weights only load failed"):
        text = text.partition("WeightsUnpickler error: ")[2] or text.partition("\n\n")[2]
    return text.strip().splitlines()[0].partition(" Please use")[0]


# -------------------------------------------------------------------------------------------------- contents of a file


def find_state(content) -> dict[str, Tensor]:
    """Find the state dict in a file's content and return it with this suite's names; empty if there is none.

    If no key of WRAPPERS holds one, the only state dict under any other key is taken.
    """
    if isinstance(content, _StandIn):
        content = dict(_tensors_of(content))
    if not isinstance(content, Mapping):
        return {}
    if _is_state(content):
        return _renamed(dict(content))
    found = {key: state for key, value in content.items() if (state := find_state(value))}
    wrapped = [found[key] for key in WRAPPERS if key in found]
    return wrapped[0] if wrapped else next(iter(found.values())) if len(found) == 1 else {}


def _is_state(content: Mapping) -> bool:
    """Return whether these are weights by name, not tensors of an optimizer."""
    return all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()) and any(
        key.endswith(("weight", "bias")) for key in content
    )


def _tensor_names(content) -> list[str]:
    """List the names in a dictionary of tensors alone, which may be under a key of WRAPPERS; none without one."""
    inside = [content, *(content.get(key) for key in WRAPPERS)] if isinstance(content, Mapping) else []
    found = [one for one in inside if isinstance(one, Mapping) and all(isinstance(v, Tensor) for v in one.values())]
    return next((list(map(str, one)) for one in found if one), [])


def _tensors_of(module: _StandIn, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the names and weights of a network that was pickled as a whole, in the order of its state dict."""
    inside = getattr(module, "state", None)
    if not isinstance(inside, dict) or not isinstance(inside.get("_modules"), dict):
        return
    own = {**inside.get("_parameters", {}), **inside.get("_buffers", {})}
    left_out = inside.get("_non_persistent_buffers_set", ())
    yield from ((prefix + name, value) for name, value in own.items() if value is not None and name not in left_out)
    for name, child in inside["_modules"].items():
        if isinstance(child, _StandIn):
            yield from _tensors_of(child, f"{prefix}{name}.")


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return all weights under this suite's names."""
    while len(first := {key.partition(".")[0] for key in state}) == 1 and all(key.count(".") > 1 for key in state):
        state = _without(state, f"{first.pop()}.")
    if "conv1.weight" not in state:
        for prefix in PREFIXES:
            if any(f"{prefix}conv1.{rest}" in state for rest in ("weight", "0.weight")):
                state = _without(state, prefix)
    last = next((name for name in LAST_LAYERS if f"{name}.weight" in state and f"{name}.bias" in state), None)
    if last and "fc.weight" not in state:
        state = {re.sub(rf"^{last}\.", "fc.", key): value for key, value in state.items()}
    if not any(".downsample." in key for key in state):
        state = {key.replace(".shortcut.", ".downsample."): value for key, value in state.items()}
    return state


def _without(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Remove a prefix from the names, unless two names would then be equal."""
    shorter = {key.removeprefix(prefix): value for key, value in state.items()}
    return shorter if len(shorter) == len(state) else state


def _describe(content) -> str:
    """Describe a file's content for a message."""
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}" if not isinstance(content, _StandIn) else "an object of an unknown class"
    kinds = [f"{key} ({'dict' if isinstance(value, Mapping) else type(value).__name__.lstrip('_')})"
             for key, value in content.items()]  # fmt: skip
    return some(kinds, SHOWN) or "nothing"
