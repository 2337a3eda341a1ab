"""Entry points for torch.hub: the nets of He et al. 2015, and of Bag of Tricks on CIFAR-10, for 32x32 images.

    torch.hub.load("DIR", "cifar_resnet20", source="local")                     # initialised, not trained
    torch.hub.load("DIR", "cifar_resnet20", source="local", pretrained=True)    # released weights
    torch.hub.load("DIR", "cifar_resnet20", source="local", weights="cifar_resnet20_bf16")    # released weights by name

Trained nets expect normalised images, as described on the files' cards: by default RGB from 0 to 1, minus the per-pixel
mean of the training images. The attribute ``preprocessing`` of a net with released weights converts uint8 images.

If the calling program has its own module ``resnet``, ``import resnet`` still imports that one. Networks can then be
saved only by their state dicts, because pickle would look for their classes in the program's module.
"""

import sys as _sys
from contextlib import contextmanager as _contextmanager
from importlib.machinery import PathFinder as _PathFinder
from pathlib import Path as _Path

_ROOT = _Path(__file__).resolve().parent
_own = {}  # modules of the package beside this file, by name


def _modules() -> dict:
    return {name: module for name, module in _sys.modules.items() if name.partition(".")[0] == "resnet"}


def _program_has_another() -> bool:
    """Return whether ``import resnet`` would find another package if this folder were not on the path."""
    elsewhere = [folder for folder in _sys.path if _Path(folder).resolve() != _ROOT]
    spec = _PathFinder.find_spec("resnet", elsewhere)
    return spec is not None and spec.origin is not None


@_contextmanager
def _own_package():
    """Import ``resnet`` from beside this file inside the context, and restore the program's own one afterwards."""
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
    from resnet.released import find_file as _find_file
    from resnet.released import find_released as _find_released
    from resnet.released import load_model as _load_model
    from resnet.released import read_card as _read_card

dependencies = ["PIL", "numpy", "safetensors", "torch"]

_RELEASED = _ROOT / "weights"  # files that `make export` writes


def _entry(model: str):
    """Create the function that torch.hub calls for a net."""

    def build(pretrained: bool = False, weights: str | _Path | None = None, **options):
        with _own_package():  # because some parts of the package are imported on demand
            path = _find_file(weights, _RELEASED) if weights is not None else None
            if path is None and pretrained:
                path = _find_released(model, _RELEASED, departures=True)
            if path is not None:
                options = _options_of(path, model) | options
            return _create_model(model, **options) if path is None else _load_model(model, path, **options)

    build.__name__ = build.__qualname__ = model
    build.__doc__ = f"""Build {model}, which maps images (N, 3, 32, 32) to logits (N, 10).

    ``pretrained``: use the net's released weights, preferably from the default recipe. ``weights``: use the weights in
    a file, given by its path, or by its name if it is a released one. See :mod:`resnet.models.cifar` for the options;
    options on a file's card need not be given. Raises :class:`resnet.weights.WeightsError` if there are no such weights
    or they belong to another net.
    """
    return build


def _options_of(path: _Path, model: str) -> dict:
    """Return the options on a file's card for this model, empty if there are none; unusable files fail when loaded."""
    card = _read_card(path) if path.is_file() else {}
    return _architecture_of(card, path).options if card.get("model") == model else {}


cifar_resnet20, cifar_resnet32, cifar_resnet44, cifar_resnet56, cifar_resnet110 = (
    _entry(f"cifar_resnet{depth}") for depth in (20, 32, 44, 56, 110)
)
cifar_bottleneck29, cifar_bottleneck56, cifar_bottleneck164 = (
    _entry(f"cifar_bottleneck{depth}") for depth in (29, 56, 164)
)
cifar_plain20, cifar_plain32, cifar_plain44, cifar_plain56 = (_entry(f"cifar_plain{d}") for d in (20, 32, 44, 56))
