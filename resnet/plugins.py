"""Plugins: tricks of a user's own in a recipe, as classes that are named by import path. See docs/plugins.md.

A plugin is plain data, its path, its options and a digest of its source, so a record can be read where its code is not.
:mod:`resnet.hooks` calls the classes.
"""

import ast
import copy
import difflib
import importlib
import importlib.util
import inspect
import math
import re
import sys
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from resnet.files import sources_digest

ROOT = Path(__file__).resolve().parents[1]
OWN = ("resnet", "reproductions", "examples")  # packages of this repository, whose commit is in every record
HOOKS = {
    "model": ("model",),
    "batch": ("images", "labels", "draws"),
    "loss": ("logits", "targets"),
    "after_step": ("trainer",),
    "evaluate_with": ("model",),
    "state_dict": (),
    "load_state_dict": ("state",),
}
MOST_MEGABYTES = 64  # of a package: it is read at every start, and copied for the jobs of a cluster
_imported: dict[str, str] = {}  # the digest of each imported plugin's source


class PluginError(ValueError):
    """A plugin that can't be used. The message names the plugin, the fault and the remedy."""


@dataclass(frozen=True, init=False)
class Plugin:
    """A trick in a recipe: the class at an import path, ``Plugin("mypackage.cutmix:CutMix", alpha=1.0)``.

    ``options``: the class's keyword arguments, plain JSON values. ``sha256``: the digest of the source, that is of the
    module if it is a file alone or in this repository, else of its whole top-level package: every file in folders with
    Python files. Raises PluginError if there is no such module, or if an option is no plain value.
    """

    path: str
    options: dict = field(hash=False)
    sha256: str

    def __init__(self, path: str, /, **options):
        if not re.fullmatch(r"[^\W\d]\w*(\.\w+)*:\w+", path):
            raise PluginError(
                f"plugin {path!r}: the path must be written module:Class, such as mypackage.cutmix:CutMix"
            )
        for name, value in options.items():
            if not _is_plain(value):  # it is a part of the run's identity
                raise PluginError(f"plugin {path}: option {name} must be a plain value, as JSON has them: a finite "
                                  "number, a text, true, false, None, a list, or a dict whose keys are texts; not "
                                  f"{value!r}")  # fmt: skip
        self._set(path, copy.deepcopy(options), sources_digest(_sources(path)))

    @classmethod
    def recorded(cls, values: dict) -> "Plugin":
        """Make the plugin of a specification, whose source need not be here. Raises PluginError."""
        if not isinstance(values, dict) or set(values) != {"path", "options", "sha256"}:
            raise PluginError(f"not a plugin's specification: {values!r}")
        plugin = object.__new__(cls)
        plugin._set(**copy.deepcopy(values))
        return plugin

    def _set(self, path: str, options: dict, sha256: str) -> None:
        for name, value in (("path", path), ("options", options), ("sha256", sha256)):
            object.__setattr__(self, name, value)

    def __str__(self) -> str:
        return self.path

    @property
    def module(self) -> str:
        """The name of the module."""
        return self.path.partition(":")[0]

    @property
    def name(self) -> str:
        """The name of the class."""
        return self.path.partition(":")[2]

    def specification(self) -> dict:
        """Return the plugin as JSON values."""
        return {"path": self.path, "options": copy.deepcopy(self.options), "sha256": self.sha256}

    def load(self):
        """Import the class and make an object of it. Raises PluginError, also for another source than the plugin's."""
        if (here := sources_digest(_sources(self.path))) != self.sha256:
            raise PluginError(f"plugin {self}: the run was declared with a source whose SHA-256 is {self.sha256[:16]}, "
                              f"but the source here has {here[:16]}; put that source back, or declare the run "
                              "anew")  # fmt: skip
        if _imported.get(self.module, self.sha256) != self.sha256:
            raise PluginError(f"plugin {self}: this process imported another source of it; start a new process")
        try:
            module = importlib.import_module(self.module)
        except Exception as error:  # the module's own
            raise PluginError(f"plugin {self}: its module can't be imported: {_said(error)}") from error
        _imported[self.module] = self.sha256
        if not inspect.isclass(kind := getattr(module, self.name, None)):
            classes = [n for n, value in vars(module).items() if inspect.isclass(value) and not n.startswith("_")]
            raise PluginError(
                f"plugin {self}: {self.module} has no class {self.name}; its classes: {', '.join(classes)}"
            )
        _check_hooks(self, kind)
        try:
            return kind(**copy.deepcopy(self.options))
        except Exception as error:
            raise PluginError(f"plugin {self} can't be made with the options {self.options}: {_said(error)}") from error


def sources_outside(plugins: Iterable[Plugin]) -> dict[str, bytes]:
    """Read the sources of the plugins that are not in this repository, by the paths that Python would import."""
    return {name: text for one in plugins if not is_own(one) for name, text in _sources(one.path).items()}


def is_own(plugin: Plugin) -> bool:
    """Return whether a plugin's path is in a package of this repository."""
    return plugin.module.partition(".")[0] in OWN


def imported_versions(plugins: Collection[Plugin]) -> dict[str, str]:
    """Return the versions of the installed distributions that the plugins' sources import, by name."""
    names, own = set(), {plugin.module.partition(".")[0] for plugin in plugins}
    for text in (text for one in plugins for file, text in _sources(one.path).items() if file.endswith(".py")):
        with suppress(SyntaxError):  # of a file that the plugin does not import
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Import):
                    names |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names.add(node.module.partition(".")[0])
    names -= {*sys.stdlib_module_names, *OWN, *own}
    found = metadata.packages_distributions() if names else {}
    return {one: metadata.version(one) for one in sorted({one for name in names for one in found.get(name, [])})}


def _sources(path: str) -> dict[str, bytes]:
    """Read the files that a plugin's digest is of, by their paths from a folder on ``sys.path``."""
    module = path.partition(":")[0]
    top = module.partition(".")[0]
    if top == "__main__":
        raise PluginError(f"plugin {path}: name the module as another script would import it, by the name of its file")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not (spec.submodule_search_locations or spec.has_location):
        raise PluginError(f"plugin {path}: there is no module {top!r} on sys.path; run the script from its folder, or "
                          "name the folder in PYTHONPATH")  # fmt: skip
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    if not folders:
        return {Path(spec.origin).name: Path(spec.origin).read_bytes()}
    if top in OWN:
        if folders[0].resolve().parent != ROOT:
            raise PluginError(f"plugin {path}: {folders[0]} has the name of a package of this project; rename it")
        relative = module.replace(".", "/")
        for name in (f"{relative}.py", f"{relative}/__init__.py"):
            if (ROOT / name).is_file():
                return {name: (ROOT / name).read_bytes()}
        raise PluginError(f"plugin {path}: there is no module {module} in {ROOT}")
    inside = {file.parent for folder in folders for file in folder.rglob("*.py") if "__pycache__" not in file.parts}
    files = {
        f"{top}/{file.relative_to(folder).as_posix()}": file
        for folder in folders
        for file in folder.rglob("*")
        if file.parent in inside and file.is_file() and not file.name.startswith(".")
    }
    if not files:
        raise PluginError(f"plugin {path}: the package {top} in {', '.join(map(str, folders))} has no Python files")
    if sum(file.stat().st_size for file in files.values()) > MOST_MEGABYTES * 2**20:
        raise PluginError(f"plugin {path}: the package {top} has more than {MOST_MEGABYTES} MiB in folders with "
                          "Python files; move data to another folder")  # fmt: skip
    return {name: file.read_bytes() for name, file in files.items()}


def _check_hooks(plugin: Plugin, kind: type) -> None:
    """Raise PluginError unless the class has hooks, and only hooks are public among its functions."""
    top = plugin.module.partition(".")[0]
    bases = [base for base in kind.__mro__ if base.__module__.partition(".")[0] == top]
    public = {
        name for base in bases for name, value in vars(base).items() if inspect.isroutine(value) and name[0] != "_"
    }
    for name in sorted(public - set(HOOKS)):
        close = difflib.get_close_matches(name, HOOKS, 1)
        hint = f"did you mean {close[0]}?" if close else f"the hooks are {', '.join(HOOKS)};"
        raise PluginError(f"plugin {plugin}: {name} is no hook; {hint} Other functions begin with an underscore")
    hooks = [name for name in HOOKS if callable(getattr(kind, name, None))]
    if not hooks:
        raise PluginError(f"plugin {plugin} has no hook; the hooks are {', '.join(HOOKS)}")
    for name in hooks:
        try:
            inspect.signature(getattr(kind, name)).bind(None, *HOOKS[name])
        except TypeError as error:
            wanted = ", ".join(("self", *HOOKS[name]))
            raise PluginError(f"plugin {plugin}: {name} must take {wanted}") from error
    if ("state_dict" in hooks) != ("load_state_dict" in hooks):
        raise PluginError(f"plugin {plugin} needs both state_dict and load_state_dict, or neither")


def _is_plain(value) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(one) for key, one in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value))


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
