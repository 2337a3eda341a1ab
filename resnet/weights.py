"""Recognition of the network that weights belong to, and torchvision's published weights.

:mod:`resnet.weight_files` reads the files. State dicts have torchvision's keys (see :class:`resnet.models.net.Net`), so
weights identify their ImageNet network, except where networks with equal weights compute differently: the variants
"original" and "b" of a bottleneck net, and a plain net and the residual net with shortcut A.
"""

import hashlib
import http.client
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from resnet.files import some
from resnet.models import changed_options, create_model
from resnet.models.blocks import PADDINGS, SHORTCUTS, VARIANTS
from resnet.models.imagenet import BLOCKS, PLAIN_DEPTHS
from resnet.weight_files import WeightsError, read_weights

__all__ = [
    "Architecture",
    "WeightsError",
    "find_architecture",
    "find_small_architecture",
    "fitting_architectures",
    "fitting_small_architectures",
    "has_options",
    "load_network",
    "nearest_architecture",
    "read_weights",
    "torchvision_file",
    "weight_shapes",
]

TORCHVISION = "torchvision:"  # prefix of the names of torchvision's published weights
PUBLISHED = tuple(f"resnet{depth}" for depth in BLOCKS)  # their networks
SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Architecture:
    """A network's name and options, as :func:`resnet.models.create_model` takes them."""

    model: str
    options: dict = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join([self.model, *(f"{name}={value}" for name, value in self.options.items())])

    @property
    def variant(self) -> str:
        """The variant of an ImageNet net: the option or its default."""
        return self.options.get("variant", "original")

    @property
    def shortcut(self) -> str | None:
        """The shortcut of an ImageNet net: the option or its default; None for a plain net."""
        return None if "plain" in self.model else self.options.get("shortcut", "B")


def torchvision_file(name: str) -> Path:
    """Return torchvision's file of ImageNet weights in torch.hub's cache; download it if missing.

    ``name``: a network, whose first weights are taken, or "resnet50:IMAGENET1K_V2", a network and its weights' name.

    Raises WeightsError, which names the file and its address, if the file can't be downloaded or its content differs
    from the published one.
    """
    model, _, version = name.partition(":")
    if model not in PUBLISHED:
        known = ", ".join(f"{TORCHVISION}{known}" for known in PUBLISHED)
        raise WeightsError(f"unknown weights {TORCHVISION}{name}; known are: {known}")
    from torchvision.models import get_model_weights

    versions = get_model_weights(model)
    try:
        url = versions[version or "IMAGENET1K_V1"].url
    except KeyError as error:
        known = ", ".join(one.name for one in versions)
        raise WeightsError(f"unknown weights {TORCHVISION}{name}; {model} has: {known}") from error
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    (digest,) = re.findall(r"-([0-9a-f]{8,})\.", path.name)  # its first digits
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=digest, progress=False)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            raise WeightsError(f"torchvision's weights are not at {path}, and {url} can't be downloaded ({error}); "
                               "download this file elsewhere and copy it to that path") from error  # fmt: skip
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(digest):
        raise WeightsError(f"{path} is damaged: its SHA-256 begins with {found[: len(digest)]} instead of {digest}; "
                           f"remove it to have it downloaded from {url} again")  # fmt: skip
    return path


def find_architecture(
    state: Mapping[str, Tensor],
    model: str | None = None,
    variant: str | None = None,
    shortcut: str | None = None,
    file: str = "",
) -> Architecture:
    """Find the ImageNet network that the weights belong to.

    ``model``, ``variant`` and ``shortcut`` are needed only where the weights leave them open. The ``file``'s name can
    give the model, and the form of torchvision's names, resnet50-0676ba61.pth, implies variant "b". Raises WeightsError
    if no network or several fit, or if the weights don't fit the requested network.
    """
    fitting = fitting_architectures(state)
    if variant == "b" and not any(found.variant == "b" for found in fitting):  # the net has no bottlenecks
        variant = "original"
    chosen = [
        found
        for found in fitting
        if model in (None, found.model) and variant in (None, found.variant) and shortcut in (None, found.shortcut)
    ]
    if not chosen:
        wanted = model or (fitting[0].model if fitting else None)
        if wanted is None:
            near = nearest_architecture(state)
            like = f"; nearest is {near}" + _different(state, near) if near else _several(state)
            raise WeightsError(f"the weights fit no ImageNet network ({some(list(state), SHOWN)}){like}; name the "
                               "expected network with --model to see the differences")  # fmt: skip
        options = {"variant": variant, "shortcut": None if wanted.startswith("plain") else shortcut}
        options = {name: value for name, value in options.items() if value is not None}
        raise WeightsError(_why_not(state, Architecture(wanted, options | _classes(state)), fitting))
    if len(chosen) > 1 and (named := re.search(r"(plain|resnet)-?(\d+)", file.lower())):
        chosen = [found for found in chosen if found.model == "".join(named.groups())] or chosen
    if len(chosen) > 1 and re.fullmatch(r"resnet\d+-[0-9a-f]{8}\.pth", file):
        chosen = [found for found in chosen if found.variant == "b"] or chosen
    if len(chosen) > 1:
        either = " or ".join(map(str, chosen))
        flag = "--model" if len({found.model for found in chosen}) > 1 else "--variant"
        values = [found.model if flag == "--model" else found.variant for found in chosen]
        raise WeightsError(f"the weights fit {either}, whose weights have the same names and shapes but compute "
                           f"differently: choose one with {flag} {' or '.join(values)}")  # fmt: skip
    return chosen[0]


def fitting_architectures(state: Mapping[str, Tensor]) -> list[Architecture]:
    """List the ImageNet networks, of any variant, shortcut and stem, with exactly these weight names and shapes."""
    blocks = tuple(
        len({key.split(".")[1] for key in state if key.startswith(f"layer{stage}.")}) for stage in range(1, 5)
    )
    found = []
    for depth in (depth for depth, counts in BLOCKS.items() if counts == blocks):
        candidates = [Architecture(f"plain{depth}", _classes(state))] if depth in PLAIN_DEPTHS else []
        for variant in VARIANTS:
            for shortcut in SHORTCUTS:
                if (variant == "b" and depth < 50) or (variant, shortcut) == ("d", "A"):
                    continue  # the same as the original; not a network
                options = {"variant": variant, "shortcut": shortcut, **_classes(state)}
                candidates.append(Architecture(f"resnet{depth}", options))
                if variant in ("original", "b"):  # the other variants have their own stems
                    candidates.append(Architecture(f"resnet{depth}", {**options, "small_stem": True}))
        found += [candidate for candidate in candidates if not any(_differences(state, candidate))]
    return found


def find_small_architecture(
    state: Mapping[str, Tensor], model: str | None = None, options: Mapping | None = None, file: str = ""
) -> Architecture:
    """Find the network for small images that the weights belong to.

    ``model`` and ``options`` are needed only where the weights leave them open; a model's other options are then its
    defaults. The ``file``'s name can tell plain from residual nets. Raises WeightsError if no network or several fit,
    and ValueError for an unknown model or option.
    """
    asked = dict(options or {})
    fitting = fitting_small_architectures(state)
    chosen = [found for found in fitting if model in (None, found.model) and has_options(found, asked)]
    if model is not None and not chosen:
        chosen = [Architecture(model, {**asked, **_classes(state, 10)})]
        if any(_differences(state, chosen[0])):
            fits = f"; they fit {' and '.join(map(str, fitting))}" if fitting else ""
            raise WeightsError(f"the weights do not fit {chosen[0]}{_different(state, chosen[0])}{fits}")
    if not chosen:
        if fitting:
            raise WeightsError(f"the weights fit {' and '.join(map(str, fitting))}, but not with these options")
        near = nearest_architecture(state)
        like = f"; nearest is {near}{_different(state, near)}" if near else _several(state)
        raise WeightsError(f"the weights fit no network for small images ({some(list(state), SHOWN)}){like}; name the "
                           "expected network with --model to see the differences")  # fmt: skip
    if model is None and len({found.model for found in chosen}) > 1 and "plain" in file.lower():
        chosen = [found for found in chosen if "plain" in found.model]
    if model is None and len(chosen) > 1:
        raise WeightsError(f"the weights fit {' or '.join(map(str, chosen))}, whose weights have the same names and "
                           "shapes but compute differently: choose with --model and --option, as in --model "
                           f"{chosen[-1].model} {_flags(chosen[-1])}".rstrip())  # fmt: skip
    return chosen[0]


def has_options(architecture: Architecture, options: dict) -> bool:
    """Return whether a network has these options; an option of other networks only is one that it does not have."""
    own = changed_options(architecture.model, architecture.options)
    try:
        asked = changed_options(architecture.model, options)
    except ValueError:
        return False
    return all(own.get(name) == asked.get(name) for name in options)


def _flags(architecture: Architecture) -> str:
    options = architecture.options.items()
    return " ".join(f"--option {name}={value}" for name, value in options if name != "num_classes")


def fitting_small_architectures(state: Mapping[str, Tensor]) -> list[Architecture]:
    """List the networks for small images with exactly these weight names and shapes; defaults come first.

    They are the nets for CIFAR, with any shortcut, padding or variant, and ImageNet's nets with a small stem.
    """
    blocks = len({key.split(".")[1] for key in state if key.startswith("layer1.")})
    small = [found for found in fitting_architectures(state) if found.options.get("small_stem")]
    if not blocks or any(key.startswith("layer4.") for key in state):
        return small
    options = _classes(state, 10) | ({"conv_bias": True} if "conv1.bias" in state else {})
    resnet, plain, bottleneck = f"cifar_resnet{6 * blocks + 2}", f"cifar_plain{6 * blocks + 2}", 9 * blocks + 2
    candidates = [Architecture(resnet, {**options, "shortcut_padding": padding}) for padding in PADDINGS]
    candidates += [Architecture(resnet, {**options, "shortcut": shortcut}) for shortcut in SHORTCUTS[1:]]
    candidates += [Architecture(plain, options)]
    if "conv_bias" not in options:
        candidates += [Architecture(f"cifar_bottleneck{bottleneck}", {**options, "variant": v}) for v in VARIANTS]
    candidates = [Architecture(found.model, changed_options(found.model, found.options)) for found in candidates]
    return [candidate for candidate in candidates if not any(_differences(state, candidate))]


def nearest_architecture(state: Mapping[str, Tensor]) -> Architecture | None:
    """Find the ImageNet or CIFAR network that shares most names and shapes; None if it shares half or less."""
    given = weight_shapes(state).items()
    candidates = [Architecture(name, _classes(state)) for name in (*PUBLISHED, *(f"plain{d}" for d in PLAIN_DEPTHS))]
    blocks = len({key.split(".")[1] for key in state if key.startswith("layer1.")})
    if blocks and not any(key.startswith("layer4.") for key in state):
        names = f"cifar_resnet{6 * blocks + 2}", f"cifar_plain{6 * blocks + 2}", f"cifar_bottleneck{9 * blocks + 2}"
        candidates = [Architecture(name, _classes(state, 10)) for name in names]

    def likeness(architecture: Architecture) -> float:
        wanted = _network_shapes(architecture.model, tuple(architecture.options.items())).items()
        return len(wanted & given) / max(len(wanted), len(given))

    best = max(candidates, key=likeness)
    return best if likeness(best) > 0.5 else None


def weight_shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all weights by name, without BN's counters of batches, which are unused."""
    return {key: tuple(value.shape) for key, value in state.items() if not key.endswith("num_batches_tracked")}


def load_network(state: Mapping[str, Tensor], architecture: Architecture) -> nn.Module:
    """Build the network with the weights, in evaluation mode. Raises WeightsError if they don't fit it."""
    if any(_differences(state, architecture)):
        raise WeightsError(_why_not(state, architecture, fitting_architectures(state)))
    model = create_model(architecture.model, **architecture.options)
    model.load_state_dict(state, strict=False)  # old files lack BN's counters of batches
    return model.eval()


def _classes(state: Mapping[str, Tensor], default: int = 1000) -> dict:
    """Return the option ``num_classes`` if the weights' number of classes is not the default."""
    fc = state.get("fc.bias")
    return {} if fc is None or fc.dim() != 1 or len(fc) == default else {"num_classes": len(fc)}


def _differences(state: Mapping[str, Tensor], architecture: Architecture) -> tuple[list[str], list[str], list[str]]:
    """Return the names of weights that the state dict lacks, that the network lacks, and that differ in shape."""
    wanted, given = _network_shapes(architecture.model, tuple(architecture.options.items())), weight_shapes(state)
    shapes = [f"{k} {given[k]} instead of {wanted[k]}" for k in wanted if k in given and given[k] != wanted[k]]
    return [k for k in wanted if k not in given], [k for k in given if k not in wanted], shapes


@cache
def _network_shapes(model: str, options: tuple) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return weight_shapes(create_model(model, **dict(options)).state_dict())


def _why_not(state: Mapping[str, Tensor], architecture: Architecture, fitting: list[Architecture]) -> str:
    said = _different(state, architecture)
    fits = f"; they fit {' and '.join(map(str, fitting))}" if fitting else "; they fit no ImageNet network"
    return f"the weights do not fit {architecture}{said}{fits}"


def _several(state: Mapping[str, Tensor]) -> str:
    """Describe weights of several networks, as contrastive learning saves them, for a message."""
    stems = [key.removesuffix("conv1.weight") for key in state if re.fullmatch(r"(\w+\.)+conv1\.weight", key)]
    stems = [stem for stem in stems if not re.search(r"layer\d\.", stem)]
    return f"; there are several networks, under {' and '.join(stems)}: save only one" if len(stems) > 1 else ""


def _different(state: Mapping[str, Tensor], architecture: Architecture) -> str:
    """Describe the differences from a network's names and shapes, after a colon."""
    found = zip(_differences(state, architecture), ("missing", "unknown", "of another shape"))
    said = [f"{len(names)} {kind} ({some(names, SHOWN)})" for names, kind in found if names]
    return f": {'; '.join(said)}" if said else ""
