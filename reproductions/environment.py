"""A check that packages come from the environment of this Python; it imports none of them."""

import os
import sys
import sysconfig
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

# What constraints.txt pins for training and reports, by the names of import.
MODULES = (
    *("PIL", "cloudpickle", "contourpy", "cycler", "dateutil", "filelock", "fontTools", "fsspec", "jinja2"),
    *("kiwisolver", "markdown_it", "markupsafe", "matplotlib", "mdurl", "mpmath", "networkx", "numpy", "packaging"),
    *("pandas", "psutil", "pygments", "pyparsing", "rich", "safetensors", "scipy", "submitit", "sympy", "torch"),
    *("torchvision", "typing_extensions", "tzdata"),
)


def check_packages() -> None:
    """Raise ImportError, or end ``python -m``, for packages in PYTHONPATH that replace the environment's own.

    Other packages in PYTHONPATH are left alone, and so is an environment that has no torch of its own.
    """
    if not (foreign := _foreign_packages()):
        return
    origin = next(iter(foreign.values()))
    names = ", ".join(name for name, folder in foreign.items() if folder == origin)
    text = (
        f"PYTHONPATH has Python import {names} from {origin} instead of the environment {sys.prefix}, "
        f"whose versions may differ: unset PYTHONPATH, or take the folder out of it, and start again"
    )
    if sys.argv[0] != "-m":  # as it is while python -m imports the package of the module that it runs
        raise ImportError(text)
    print(text, file=sys.stderr)
    raise SystemExit(2)


def _foreign_packages() -> dict[str, Path]:
    """Find the modules that come from a folder in PYTHONPATH instead of the environment, each with that folder."""
    folders = {Path(folder).absolute() for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder}
    environment = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    own = {os.path.realpath(folder) for folder in environment}
    folders = {folder for folder in folders if os.path.realpath(folder) not in own}
    if not folders or _folder(PathFinder.find_spec("torch", environment)) is None:
        return {}
    found = {name: _folder(PathFinder.find_spec(name)) for name in MODULES}
    foreign = {name: folder for name, folder in found.items() if folder in folders}
    return {name: folder for name, folder in foreign.items() if PathFinder.find_spec(name, environment) is not None}


def _folder(spec: ModuleSpec | None) -> Path | None:
    """Return the folder of a module."""
    if spec is None or spec.origin is None:  # a folder without __init__.py
        return None
    file = Path(spec.origin).absolute()
    return file.parent.parent if spec.submodule_search_locations is not None else file.parent
