"""Entry points for torch.hub: the nets of He et al. 2015, and of Bag of Tricks on CIFAR-10, for 32x32 images.

    torch.hub.load("DIR", "cifar_resnet20", source="local")                     # initialised, not trained
    torch.hub.load("DIR", "cifar_resnet20", source="local", pretrained=True)    # with released weights
    torch.hub.load("DIR", "cifar_resnet20", source="local", weights="cifar_resnet20_bf16")    # with those of that name

Trained nets take images as they were trained on, which the files' cards say: RGB from 0 to 1, less the per-pixel mean
of the training images, where a row does not depart from that.

A program may have a module ``resnet`` of its own. Then ``import resnet`` goes on to mean that one, before and after,
and networks can be saved by their state dicts alone, because pickle would look for their classes there.
"""

import sys as _sys
from contextlib import contextmanager as _contextmanager
from importlib.machinery import PathFinder as _PathFinder
from pathlib import Path as _Path

_ROOT = _Path(__file__).resolve().parent
_own = {}  # the modules of the package beside this file, by name


def _modules() -> dict:
    return {name: module for name, module in _sys.modules.items() if name.partition(".")[0] == "resnet"}


def _program_has_another() -> bool:
    """Whether ``import resnet`` would find something else if this folder were not on the path."""
    elsewhere = [folder for folder in _sys.path if _Path(folder).resolve() != _ROOT]
    spec = _PathFinder.find_spec("resnet", elsewhere)
    return spec is not None and spec.origin is not None


@_contextmanager
def _own_package():
    """Have ``resnet`` mean the package beside this file, and afterwards whatever the program means by it."""
    before, package = _modules(), _ROOT / "resnet" / "__init__.py"
    loaded = getattr(before.get("resnet"), "__file__", None)
    if not package.exists() or (loaded and _Path(loaded).resolve() == package):
        yield
        return
    for name in before:
        del _sys.modules[name]
    _sys.modules.update(_own)
    _sys.path.insert(0, str(_ROOT))
    try:
        yield
    finally:
        _sys.path.remove(str(_ROOT))
        _own.update(_modules())
        if before or _program_has_another():
            for name in _modules():
                del _sys.modules[name]
            _sys.modules.update(before)


with _own_package():
    from resnet.models import create_model as _create_model
    from resnet.released import architecture_of as _architecture_of
    from resnet.released import load_model as _load_model
    from resnet.released import read_card as _read_card
    from resnet.weights import WeightsError as _WeightsError

dependencies = ["numpy", "safetensors", "torch"]

_RELEASED = _ROOT / "weights"  # files as `make export` makes them


def _entry(model: str):
    """The function that torch.hub calls for a net."""

    def build(pretrained: bool = False, weights: str | _Path | None = None, **options):
        with _own_package():  # of which parts are imported only when they are needed
            path = _find(weights) if weights is not None else None
            if path is None and pretrained:
                path = _find_released(model, departures=True)
            if path is not None:
                options = _options_of(path, model) | options
            return _create_model(model, **options) if path is None else _load_model(model, path, **options)

    build.__name__ = build.__qualname__ = model
    build.__doc__ = f"""{model}: maps images (N, 3, 32, 32) to logits (N, 10).

    ``pretrained``: with the weights that were released for it, of the default recipe if there are such, else of one
    that departs from it. ``weights``: with those of a file, by its path, or by
    its name if it is a released one. The options are those of :mod:`resnet.models.cifar`; those in a file's card need
    not be given. Raises
    :class:`resnet.weights.WeightsError` if there are no such weights, or if they are those of another net.
    """
    return build


def _options_of(path: _Path, model: str) -> dict:
    """The options that a file's card has for this model; a file that can't be used is refused when it is loaded."""
    card = _read_card(path) if path.is_file() else {}
    return _architecture_of(card, path).options if card.get("model") == model else {}


def _find(weights: str | _Path) -> _Path:
    """The file of that released name or path. Raises WeightsError."""
    path = _Path(weights)
    return path if path.suffix or path.is_file() else _find_released(str(weights))


def _find_released(name: str, departures: bool = False) -> _Path:
    """The released file of that name; else, with ``departures``, the first of that net by a recipe that departs from
    the paper profile's default. Raises WeightsError, which lists what was released."""
    released = {path.stem: path for path in sorted(_RELEASED.glob("*.safetensors"))}
    others = [stem for stem in released if departures and stem.startswith(f"{name}_")]
    departing = (released[stem] for stem in others if not stem.startswith((f"{name}_short", f"{name}_smoke")))
    if found := released.get(name) or next(departing, None):
        return found
    there = f"there are: {', '.join(released)}" if released else "none have been released for any net yet"
    raise _WeightsError(f"no weights have been released for {name}; {there}. weights= also takes the path of a file")


cifar_resnet20, cifar_resnet32, cifar_resnet44, cifar_resnet56, cifar_resnet110 = (
    _entry(f"cifar_resnet{depth}") for depth in (20, 32, 44, 56, 110)
)
cifar_bottleneck29, cifar_bottleneck56, cifar_bottleneck164 = (
    _entry(f"cifar_bottleneck{depth}") for depth in (29, 56, 164)
)
cifar_plain20, cifar_plain32, cifar_plain44, cifar_plain56 = (_entry(f"cifar_plain{d}") for d in (20, 32, 44, 56))
