"""Released weights: a network in one safetensors file, with a card that describes it and its training.

The card is the file's metadata, a dictionary of text. ``model`` and ``options`` (JSON) are the arguments of
:func:`resnet.models.create_model`, ``weights_sha256`` is the digest of the weights, and ``mean``, ``scale`` and
``image_size`` are the values of :class:`resnet.preprocessing.Preprocessing`; all other entries are for human readers.
Reading a file executes no code.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from resnet import preprocessing
from resnet.checkpoint import digest_of_weights
from resnet.files import write_atomically
from resnet.models import changed_options, create_model
from resnet.weight_files import is_safetensors
from resnet.weights import (
    Architecture,
    WeightsError,
    fitting_architectures,
    nearest_architecture,
    read_weights,
    weight_shapes,
)

RELEASED = Path(__file__).resolve().parents[1] / "weights"  # files that `make export` writes
_INITIAL_OPTIONS = ("initialization", "zero_gamma")  # options that affect only the initial weights


def pack_weights(state: Mapping[str, Tensor], card: Mapping[str, str]) -> bytes:
    """Return a state dict and its card as the bytes of a safetensors file; equal input gives equal bytes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    content = safetensors.torch.save(tensors, {"format": "pt", **card})
    # The file begins with the length of a JSON header, in which the library writes metadata in random order.
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[end:]


def write_weights(path: str | Path, state: Mapping[str, Tensor], card: Mapping[str, str]) -> None:
    """Write a state dict and its card atomically. Raises OSError."""
    write_atomically(Path(path), pack_weights(state, card))


def find_released(name: str, folder: str | Path | None = None, departures: bool = False) -> Path:
    """Return the released file of that name, or, with ``departures``, the first by another paper-profile recipe.

    ``folder``: where the files are; None for the folder ``weights`` beside this package. Raises WeightsError, with a
    list of the released files.
    """
    released = {path.stem: path for path in sorted(Path(folder or RELEASED).glob("*.safetensors"))}
    others = [stem for stem in released if departures and stem.startswith(f"{name}_")]
    departing = (released[stem] for stem in others if not stem.startswith((f"{name}_short", f"{name}_smoke")))
    if found := released.get(name) or next(departing, None):
        return found
    there = f"released: {', '.join(released)}" if released else "there are no released weights of any net yet"
    raise WeightsError(f"there are no released weights of {name}; {there}. A file is named by its path")


def find_file(weights: str | Path, folder: str | Path | None = None) -> Path:
    """Return the path of a weights file that is named by its path, or by its name if it is a released one.

    ``folder`` is as in :func:`find_released`. Raises WeightsError for a name without a folder or a suffix that is
    neither a file nor a released one, with a list of the released files.
    """
    path = Path(weights)
    return path if path.suffix or path.parent != Path() or path.is_file() else find_released(str(path), folder)


def read_card(path: str | Path) -> dict[str, str]:
    """Read the card of a file or a released name; return an empty one for other formats.

    Raises WeightsError for a damaged file.

    Other programs' safetensors files have metadata, too, in which ``model`` can mean anything; only metadata with the
    weights' digest are a card.
    """
    path = find_file(path)
    if path.suffix != ".safetensors" and not is_safetensors(path):
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            card = file.metadata() or {}
            return card if {"model", "weights_sha256"} <= card.keys() else {}
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} can't be read as safetensors: {error}") from error


def architecture_of(card: Mapping[str, str], path: str | Path) -> Architecture:
    """Return the network that the card of the file ``path`` names. Raises WeightsError for invalid options."""
    try:
        return Architecture(card["model"], dict(json.loads(card.get("options", "{}"))))
    except (ValueError, TypeError) as error:
        raise WeightsError(f"the options on the card of {path} can't be read: {error}") from error


def load_model(name: str | Path, weights: str | Path | None = None, **options) -> nn.Module:
    """Build ``create_model(name, **options)`` with the weights in a file, or with released weights, by their name.

    ``load_model(file)`` builds the network that the file's card names, ``load_model("cifar_resnet20")`` the one of the
    released file ``cifar_resnet20``. The network's attribute ``preprocessing`` is the
    card's :class:`resnet.preprocessing.Preprocessing`, which converts images to its input; None if the file has none.

    Raises ValueError as :func:`resnet.models.create_model`, and WeightsError for a file that can't be used or holds
    another network.
    """
    path = find_file(name if weights is None else weights)
    if weights is None:
        card = read_card(path) if path.is_file() else {}
        if not card:
            read_weights(path)  # refuses files that hold no weights
            raise WeightsError(f"{path} has no card that names its network: name it before the file, as in "
                               f'load_model("cifar_resnet20", {str(path)!r})')  # fmt: skip
        architecture = architecture_of(card, path)
        name, options = architecture.model, architecture.options | options
    model = create_model(str(name), **options)
    load_weights(model, str(name), options, path)
    model.preprocessing = preprocessing.of_card(read_card(path), path)
    return model


def preprocess(weights: str | Path) -> preprocessing.Preprocessing:
    """Return the conversion of images to the input of the network in a file, or of released weights, by their name.

    See :class:`resnet.preprocessing.Preprocessing` for the accepted images and shapes. Raises WeightsError for a file
    that can't be read, and for one without these values.
    """
    path = find_file(weights)
    card = read_card(path) if path.is_file() else {}
    if (found := preprocessing.of_card(card, path)) is not None:
        return found
    if not path.is_file():
        raise WeightsError(f"there is no file {path}")
    said = f"; its card says: {card['input']}" if "input" in card else ""
    raise WeightsError(f"{path} does not say how images are normalised for its network{said}")


def load_weights(model: nn.Module, name: str, options: dict, path: str | Path) -> None:
    """Load the weights in a file into a network that ``create_model(name, **options)`` made.

    A card must name this network. Without a card only names and shapes of weights are compared, which are the same for
    a plain net and the residual net with shortcut A. Raises WeightsError, which names the file's network.
    """
    state, wanted = read_weights(path), Architecture(name, options)
    card = read_card(path)
    if "model" in card and _decisive(found := architecture_of(card, path)) != _decisive(wanted):
        raise WeightsError(f"{path} holds {_describe(card, found)}, not {wanted}")
    own, given = weight_shapes(model.state_dict()), weight_shapes(state)
    if own != given:
        differing = sorted(key for key in own.keys() | given.keys() if own.get(key) != given.get(key))
        first = next((key for key in differing if key in own and key in given), differing[0])
        how = f"{given.get(first, 'missing')} instead of {own.get(first, 'none')}"
        raise WeightsError(f"{path} holds {_guess(state)}, not {wanted}: {len(differing)} weights are missing, "
                           f"unknown or of another shape, for example {first} ({how})")  # fmt: skip
    model.load_state_dict(state, strict=False)  # old files lack BN's counters of batches
    _check_digest(model, card, path)


def _describe(card: Mapping[str, str], architecture: Architecture) -> str:
    """Describe a card's network in a few words."""
    said = [card[key] for key in ("row", "profile") if key in card]
    said += [f"test error {card['test_error']} %"] if "test_error" in card else []
    return str(architecture) + (f" ({', '.join(said)})" if said else "")


def _decisive(architecture: Architecture) -> tuple[str, dict]:
    """Return a network's name and the options that decide its shape and computation."""
    try:
        changed = changed_options(architecture.model, architecture.options)
    except ValueError:  # the card names a network that this code does not have
        changed = architecture.options
    return architecture.model, {name: value for name, value in changed.items() if name not in _INITIAL_OPTIONS}


def _guess(state: Mapping[str, Tensor]) -> str:
    """Guess the network that the weights belong to, in words for a message."""
    if found := [str(architecture) for architecture in fitting_architectures(state)]:
        return f"weights that look like {' or '.join(found)}"
    if (near := nearest_architecture(state)) is None:
        return "the weights of an unknown network"
    plain = f" or {str(near).replace('resnet', 'plain')}" if near.model.startswith("cifar_resnet") else ""
    return f"weights that look like {near}{plain}"


def _check_digest(model: nn.Module, card: Mapping[str, str], path: Path) -> None:
    expected = card.get("weights_sha256")
    if expected is not None and (digest := digest_of_weights(model.state_dict())) != expected:
        raise WeightsError(f"{path} is damaged or was changed: its weights have the SHA-256 {digest}, but its card "
                           f"says {expected}")  # fmt: skip
