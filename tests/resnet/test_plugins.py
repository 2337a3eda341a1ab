"""Plugins as plain data: path, options and the digest of the source; errors for unusable ones."""

import importlib
import sys

import pytest

from resnet.plugins import Plugin, PluginError, imported_versions, is_own, sources_outside
from resnet.recipe import Recipe
from resnet.run import Run

CLASS = """\
class Trick:
    def __init__(self, alpha=1.0):
        self.alpha = alpha
    def after_step(self, trainer):
        pass
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A folder on the path with a package ``tricks_<test>`` of two modules, and a module alone beside it."""
    name = f"tricks{abs(hash(tmp_path))}"
    folder = tmp_path / name
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "one.py").write_text(f"import scipy.stats, json\nfrom . import helpers\n{CLASS}")
    (folder / "helpers.py").write_text("import numpy\n")
    (folder / "data" / "log.txt").write_text("a folder without Python files")
    (tmp_path / f"{name}_alone.py").write_text(CLASS)
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for module in [module for module in sys.modules if module.startswith(name)]:
        del sys.modules[module]


def test_a_plugin_is_its_path_its_options_and_its_source(package):
    plugin = Plugin(f"{package.name}.one:Trick", alpha=0.5)
    assert plugin.load().alpha == 0.5
    assert plugin == Plugin(f"{package.name}.one:Trick", alpha=0.5) != Plugin(f"{package.name}.one:Trick", alpha=1)
    assert hash(plugin) == hash(Plugin.recorded(plugin.specification())) and len(plugin.sha256) == 64
    assert Plugin.recorded(plugin.specification()) == plugin


@pytest.mark.parametrize(
    ("file", "whole", "alone"),
    [
        ("one.py", True, False),
        ("helpers.py", True, False),
        ("data.txt", True, False),
        ("data/log.txt", False, False),
        ("__pycache__/one.pyc", False, False),
        ("../{name}_alone.py", False, True),
    ],
)
def test_the_digest_is_of_the_whole_package_or_of_a_module_alone(package, file, whole, alone):
    paths = f"{package.name}.one:Trick", f"{package.name}_alone:Trick"
    before = [Plugin(path).sha256 for path in paths]
    path = package / file.format(name=package.name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{CLASS}# changed\n")
    importlib.invalidate_caches()
    assert [Plugin(path).sha256 != old for path, old in zip(paths, before)] == [whole, alone]


def test_of_this_repository_the_module_is_enough():
    plugin = Plugin("examples.cutmix:CutMix")
    assert is_own(plugin) and sources_outside([plugin]) == {}
    assert plugin.sha256 != Plugin("examples.ema:EMA").sha256
    assert is_own(Plugin("examples:Nothing")) and not is_own(Plugin("hooked:Noise"))


def test_sources_to_take_along_and_versions_of_what_they_import(package):
    plugins = [Plugin(f"{package.name}.one:Trick"), Plugin(f"{package.name}_alone:Trick")]
    assert set(sources_outside(plugins)) == {
        *(f"{package.name}/{file}" for file in ("__init__.py", "one.py", "helpers.py")),
        f"{package.name}_alone.py",
    }
    versions = imported_versions(plugins)
    assert set(versions) == {"numpy", "scipy"} and versions["numpy"] == importlib.import_module("numpy").__version__


@pytest.mark.parametrize("value", [(1, 2), {1: 2}, {1, 2}, float("nan"), float("inf"), object(), [{"a": (1,)}], b"x"])
def test_options_are_plain_values(value):
    with pytest.raises(PluginError, match="option alpha must be a plain value"):
        Plugin("examples.cutmix:CutMix", alpha=value)
    assert Plugin("examples.cutmix:CutMix", alpha=[{"a": [1, None, True, 0.5, "x"]}]).options


def test_the_path_is_module_and_class():
    for path in (
        "examples.cutmix",
        "examples.cutmix:",
        ":CutMix",
        "examples/cutmix.py:CutMix",
        "examples cutmix:CutMix",
    ):
        with pytest.raises(PluginError, match="must be written module:Class"):
            Plugin(path)


def test_a_module_that_is_not_there():
    with pytest.raises(PluginError, match=r"plugin nowhere\.x:Y: there is no module 'nowhere' on sys\.path"):
        Plugin("nowhere.x:Y")
    with pytest.raises(PluginError, match=r"there is no module examples\.nowhere in "):
        Plugin("examples.nowhere:Y")
    with pytest.raises(PluginError, match="name the module as another script would import it"):
        Plugin("__main__:Y")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import nowhere_at_all", r"its module can't be imported: ModuleNotFoundError: .*nowhere_at_all"),
        ("class Other: pass", r"has no class Trick; its classes: Other"),
        ("class Trick: pass", r"has no hook; the hooks are model, batch, loss"),
        ("class Trick:\n def bacth(self, images, labels, draws): pass", r"bacth is no hook; did you mean batch\?"),
        ("class Trick:\n def xyz(self): pass", r"xyz is no hook; the hooks are .* begin with an underscore"),
        ("class Trick:\n def batch(self, images): pass", r"batch must take self, images, labels, draws"),
        ("class Trick:\n def state_dict(self): pass", r"needs both state_dict and load_state_dict"),
        ("class Trick:\n def __init__(self): pass\n def model(self, model): pass", r"can't be made with .*alpha"),
    ],
)
def test_a_class_that_can_not_be_used_is_named_with_the_reason(package, source, said):
    (package / "wrong.py").write_text(source)
    with pytest.raises(PluginError, match=rf"plugin {package.name}\.wrong:Trick.*{said}"):
        Plugin(f"{package.name}.wrong:Trick", alpha=1).load()


def test_another_source_than_the_runs_is_refused(package):
    plugin = Plugin(f"{package.name}.one:Trick")
    recorded = Run("cifar_resnet8", Recipe(plugins=(plugin,)), "synthetic").specification()
    (package / "helpers.py").write_text("changed = True\n")
    run = Run.from_specification(recorded)  # a record can be read where the source is another, or none
    with pytest.raises(PluginError, match=f"whose SHA-256 is {plugin.sha256[:16]}, but the source here has "):
        run.recipe.plugins[0].load()
    Plugin(f"{package.name}.one:Trick").load()
    (package / "helpers.py").write_text("changed = 'again'\n")
    with pytest.raises(PluginError, match="this process imported another source"):
        Plugin(f"{package.name}.one:Trick").load()


def test_a_package_with_data_is_too_large(package, monkeypatch):
    monkeypatch.setattr("resnet.plugins.MOST_MEGABYTES", 1)
    (package / "images.bin").write_bytes(bytes(2**20))
    with pytest.raises(PluginError, match="has more than 1 MiB"):
        Plugin(f"{package.name}.one:Trick")


def test_a_run_is_named_with_its_plugins():
    cutmix, ema = Plugin("examples.cutmix:CutMix"), Plugin("examples.ema:EMA")
    plain, one, two = (Run("cifar_resnet8", Recipe(plugins=each)) for each in ((), (cutmix,), (cutmix, ema)))
    assert str(plain) == f"cifar_resnet8 seed 0 (cifar10, {plain.short_id})"
    assert str(one) == f"cifar_resnet8 with CutMix seed 0 (cifar10, {one.short_id})"
    assert str(two) == f"cifar_resnet8 with CutMix and EMA seed 0 (cifar10, {two.short_id})"


def test_a_run_with_plugins_has_them_in_its_specification_and_identity(package):
    plugin = Plugin(f"{package.name}.one:Trick", alpha=0.5)
    run, plain = (Run("cifar_resnet8", Recipe(plugins=plugins), "synthetic") for plugins in ((plugin,), ()))
    assert run.specification()["recipe"]["plugins"] == [plugin.specification()]
    assert Run.from_specification(run.specification()) == run and run.identity != plain.identity
    assert run.recipe.changes() == {"plugins": [plugin.specification()]}
    (package / "helpers.py").write_text("changed = True\n")
    other = Plugin(f"{package.name}.one:Trick", alpha=0.5)
    assert Run("cifar_resnet8", Recipe(plugins=[other]), "synthetic").identity != run.identity
    assert "plugins" not in plain.specification()["recipe"] and "arrays" not in plain.specification()
    with pytest.raises(ValueError, match="plugins must be a tuple"):
        Recipe(plugins=plugin)
    with pytest.raises(PluginError, match="not a plugin's specification: 'examples"):
        Recipe(plugins=["examples.cutmix:CutMix"])
