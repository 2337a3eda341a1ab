"""A table of a user's own: a script anywhere, with plugins and data of its own, by all launchers."""

import importlib
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from reproductions.harness import cli, provenance
from reproductions.harness.launching.job import Job, import_folders
from reproductions.harness.launching.options import Options
from reproductions.harness.launching.run_paths import RunPaths, Status
from reproductions.harness.launching.slurm import snapshot
from reproductions.harness.launching.worker import execute
from reproductions.harness.records import read_pool
from resnet.data import DataError, add_arrays, arrays, load
from resnet.plugins import Plugin, PluginError
from resnet.recipe import Recipe
from resnet.run import Run

TRICKS = """
    import numpy
    from torch import nn

    class Shake:
        def __init__(self, size):
            self.size = size

        def batch(self, images, labels, draws):
            return images + self.size * draws.normal(images.shape), labels

        def model(self, model):
            model.fc = nn.Sequential(Drop(), model.fc)
            return model

    class Drop(nn.Module):
        draws = None

        def forward(self, x):
            return x * (self.draws.uniform(x.shape) < 0.8) / 0.8 if self.training else x
"""
TABLE = """
    import sys
    import numpy as np
    from reproductions.harness.cli import run_experiment
    from reproductions.harness.experiment import Experiment, Row
    from resnet.plugins import Plugin
    from resnet.recipe import Recipe

    RECIPE = Recipe().shortened(6, eval_interval=3, batch_size=8, precision="fp32")

    def load():
        draw = np.random.default_rng(3)
        images = [draw.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8) for count in (40, 20)]
        return images[0], np.arange(40) % 7, images[1], np.arange(20) % 7

    def rows(profile):
        shaken = RECIPE.shortened(6, eval_interval=3, plugins=(Plugin("{tricks}:Shake", size=0.1),))
        return [Row("plain", "plain", "cifar_resnet8", RECIPE, "mine"),
                Row("shaken", "shaken", "cifar_resnet8", shaken, "mine", after="plain")]

    def report(page):
        return page.write([page.net(), page.parameters(), page.reproduced()])

    EXPERIMENT = Experiment("mytable", "My table", "nobody's", rows, report, script=__file__, datasets={{"mine": load}})

    if __name__ == "__main__":
        sys.exit(run_experiment(EXPERIMENT))
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with ``mytable.py`` and a package of tricks, of a name that no other test has."""
    name = f"tricks{abs(hash(tmp_path))}"
    place = tmp_path / "a user's"
    (place / name).mkdir(parents=True)
    (place / name / "__init__.py").write_text(textwrap.dedent(TRICKS))
    (place / f"{name}_table.py").write_text(textwrap.dedent(TABLE.format(tricks=name)))
    yield place
    for module in [module for module in sys.modules if module.startswith(name)]:
        del sys.modules[module]


@pytest.fixture
def table(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    return importlib.import_module(next(folder.glob("*_table.py")).stem)


def weights(out):
    return {identity: record["weights_sha256"] for identity, record in read_pool(out / "records").records.items()}


def run(table, out, *flags):
    return cli.run_experiment(table.EXPERIMENT, ["--profile", "short", "--seeds", "1", "--out", str(out), *flags])


def test_inline_and_the_local_queue_give_the_same_weights(table, folder, tmp_path, monkeypatch, capsys):
    assert run(table, tmp_path / "inline", "--launcher", "inline") == 0
    shown = capsys.readouterr().out
    assert f"`python {table.__name__}.py --profile short --seeds 1`" in shown and "mine, given as arrays" in shown
    monkeypatch.chdir(tmp_path)  # the processes of jobs have no folder in common with the script
    assert run(table, tmp_path / "local", "--launcher", "local", "--slots", "2") == 0
    assert weights(tmp_path / "inline") == weights(tmp_path / "local") and len(weights(tmp_path / "local")) == 2
    records = read_pool(tmp_path / "local" / "records").records.values()
    (shaken,) = (record for record in records if record["specification"]["recipe"].get("plugins"))
    (plugin,) = shaken["specification"]["recipe"]["plugins"]
    assert plugin["options"] == {"size": 0.1} and shaken["versions"]["imports"]["numpy"] == np.__version__
    assert all("imports" not in record["versions"] for record in records if record is not shaken)
    facts = shaken["specification"]["arrays"]
    assert facts["num_classes"] == 7 and facts["sha256"] == shaken["data"]["sha256"] == load("mine").digest


def test_a_report_that_returns_no_files_is_named_after_the_training(table, tmp_path, capsys):
    silent = SimpleNamespace(EXPERIMENT=replace(table.EXPERIMENT, report=lambda page: None))
    assert run(silent, tmp_path / "out", "--launcher", "inline") == 1 and len(weights(tmp_path / "out")) == 2
    assert "the report of mytable returned None instead of the files" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_a_script_of_its_own_is_run_from_anywhere_and_goes_on(folder, tmp_path):
    (script,) = folder.glob("*_table.py")
    command = [sys.executable, script, "--profile", "short", "--seeds", "2", "--out", "out", "--launcher", "local"]
    environment = {**os.environ, "PYTHONPATH": str(provenance.ROOT)}
    for flags in (["--rows", "plain"], []):
        done = subprocess.run([*command, *flags], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert len(weights(tmp_path / "out")) == 4 and "2 already recorded" in done.stderr
    assert (tmp_path / "out" / "tables" / "mytable_short.md").exists()


@pytest.mark.slurm
def test_slurm_gives_the_same_weights_as_inline(table, cluster, tmp_path, monkeypatch):
    assert run(table, tmp_path / "inline", "--launcher", "inline") == 0
    monkeypatch.chdir(tmp_path)
    assert run(table, tmp_path / "slurm", "--launcher", "slurm", "--slurm-profile", "testcluster") == 0
    assert weights(tmp_path / "inline") == weights(tmp_path / "slurm")


def test_an_edited_plugin_is_another_run_and_the_old_one_is_refused(table, folder, tmp_path):
    old = table.EXPERIMENT.rows("short")[1].run(0)
    file = next(folder.glob("*/__init__.py"))
    file.write_text(file.read_text() + "# edited\n")
    assert table.EXPERIMENT.rows("short")[1].run(0).identity != old.identity
    out = tmp_path / "out"
    arrays.save(load("mine"), RunPaths(out, tmp_path).arrays)
    outcome = execute([old], RunPaths(out, tmp_path), lambda: False, options=Options(device="cpu"))
    assert "but the source here has" in outcome.failures[old] and "Traceback" not in outcome.failures[old]


def test_a_launch_says_that_runs_belong_to_another_version_of_a_plugin(table, folder, tmp_path, capsys):
    assert run(table, tmp_path / "out", "--launcher", "inline", "--rows", "shaken") == 0
    begun = table.EXPERIMENT.rows("short")[1].run(1)
    Status("stopped", str(begun), 0.0).write(RunPaths(tmp_path / "out", tmp_path).work(begun))
    command = ("--launcher", "inline", "--seeds", "2", "--dry-run")
    assert run(table, tmp_path / "out", *command) == 0 and "another version" not in capsys.readouterr().err
    file = next(folder.glob("*/__init__.py"))
    file.write_text(file.read_text() + "# edited\n")
    run(table, tmp_path / "out", *command)  # which refuses a second version in this process
    said = f"not counted, because they are of another version of {file.parent.name}: 1 record and 1 begun run\n"
    assert said in capsys.readouterr().err


def test_a_plugin_that_can_not_be_used_is_refused_before_any_job(table, folder, tmp_path, capsys):
    file = next(folder.glob("*/__init__.py"))
    file.write_text(file.read_text().replace("def batch", "def bacth"))
    assert run(table, tmp_path / "out", "--launcher", "inline") == 2
    assert "bacth is no hook; did you mean batch?" in " ".join(capsys.readouterr().err.split())
    assert not weights(tmp_path / "out")


def test_jobs_get_the_folders_to_import_from(table, folder, tmp_path, monkeypatch):
    folders = import_folders()
    assert str(folder) in folders and all(os.path.isabs(each) for each in folders)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != str(folder)])
    called = []
    monkeypatch.setattr("reproductions.harness.launching.job.execute", lambda *_, **__: called.append([*sys.path]))
    monkeypatch.setattr("submitit.JobEnvironment", FakeEnvironment)
    Job([], RunPaths(tmp_path, tmp_path), Options(), folders=folders)()
    assert called[0].count(str(folder)) == 1 and called[0][0] == sys.path[0]


class FakeEnvironment:
    num_tasks = 1

    @staticmethod
    def _usr_sig():
        import signal

        return signal.SIGUSR2


def test_a_snapshot_takes_the_packages_of_plugins_along(table, folder, tmp_path, monkeypatch):
    plugins = {plugin for row in table.EXPERIMENT.rows("short") for plugin in row.recipe.plugins}
    own = {Plugin("examples.cutmix:CutMix")}
    copy, without = (snapshot.take(tmp_path / "code", which) for which in (plugins | own, own))
    (plugin,) = plugins
    file = f"{plugin.module}/__init__.py"
    assert (copy / snapshot.PLUGINS / file).read_bytes() == (folder / file).read_bytes() and copy != without
    assert not (without / snapshot.PLUGINS).exists() and (without / "examples" / "cutmix.py").exists()
    monkeypatch.setattr(sys, "path", [str(copy), str(copy / snapshot.PLUGINS), *sys.path])
    monkeypatch.delitem(sys.modules, plugin.module, raising=False)
    importlib.invalidate_caches()
    (folder / file).write_text("changed after the launch")
    assert type(plugin.load()).__name__ == "Shake"  # the copy, whose digest is the run's
    assert snapshot.take(tmp_path / "code", own) == without
    (copy / snapshot.PLUGINS / file).write_text("changed")
    with pytest.raises(PluginError, match="but the source here has"):
        plugin.load()


# ------------------------------------------------------------------------------------------------------------ the data


def images(count=4, shape=(8, 8, 3), value=0):
    return np.full((count, *shape), value, np.uint8)


GOOD = (images(), np.arange(4), images(2), np.arange(2))


def test_arrays_have_the_properties_that_they_show():
    add_arrays("some_arrays", lambda: GOOD)
    run = Run("cifar_resnet8", data="some_arrays", train_images=3)
    assert (run.arrays.shape, run.arrays.num_classes, run.arrays.train_images) == ((8, 8, 3), 4, 4)
    assert Run.from_specification(run.specification()) == run
    with pytest.raises(ValueError, match="4 training images, so 5 can't"):
        Run("cifar_resnet8", data="some_arrays", train_images=5)
    add_arrays("some_arrays", lambda: (images(value=1), *GOOD[1:]))
    other = Run("cifar_resnet8", data="some_arrays", train_images=3)
    assert other.identity != run.identity and Run.from_specification(run.specification()) == run
    grey = images(shape=(8, 8)), GOOD[1], images(2, (8, 8)), GOOD[3]
    add_arrays("grey_arrays", lambda: grey)
    with pytest.raises(ValueError, match=r"with 3 channel\(s\), but images of grey_arrays have 1: stack .* or choose"):
        Run("cifar_resnet8", data="grey_arrays")
    add_arrays("stacked_arrays", lambda: [np.stack([one] * 3, axis=-1) if one.ndim == 3 else one for one in grey])
    assert Run("cifar_resnet8", data="stacked_arrays").arrays.shape == (8, 8, 3)
    with pytest.raises(ValueError, match="takes images of 28x28 pixels, but images of grey_arrays have 8x8: scale"):
        Run("mnist_residual", data="grey_arrays")
    assert Run("mnist_residual", Recipe(plugins=(Plugin("examples.cutmix:CutMix"),)), "grey_arrays").recipe.plugins
    add_arrays("digits", lambda: (images(shape=(28, 28)), GOOD[1], images(2, (28, 28)), GOOD[3]))
    assert Run("mnist_residual", data="digits").arrays.shape == (28, 28, 1)


def test_classes_without_a_training_image_are_named(recwarn):
    add_arrays("some_arrays", lambda: GOOD)
    Run("cifar_resnet8", data="some_arrays")
    assert not recwarn
    add_arrays("from_one", lambda: (GOOD[0], np.array([1, 2, 4, 4]), GOOD[2], np.array([1, 3])))
    with pytest.warns(UserWarning, match="data set from_one: no training image has the label 0, 3, but .* 5 outputs"):
        assert Run("cifar_resnet8", data="from_one").arrays.num_classes == 5


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (GOOD[:3], "must return four arrays: train_images, train_labels, test_images, test_labels"),
        ((images().astype(float), *GOOD[1:]), r"train_images must be uint8 images .* it is float64 \(4, 8, 8, 3\)"),
        ((*GOOD[:2], images(2, (9, 8, 3)), GOOD[3]), r"test_images must be of the training images' shape, \(8, 8, 3\)"),
        ((GOOD[0], np.arange(3), *GOOD[2:]), r"train_labels must be whole numbers \(4,\)"),
        ((GOOD[0], np.arange(4) - 1, *GOOD[2:]), "train_labels must be whole numbers"),
        ((GOOD[0], np.arange(4) / 2, *GOOD[2:]), "train_labels must be whole numbers"),
    ],
)
def test_arrays_that_are_no_data_set_are_refused(wrong, said):
    add_arrays("wrong_arrays", lambda: wrong)
    with pytest.raises(DataError, match=said):
        Run("cifar_resnet8", data="wrong_arrays")


def test_a_function_that_fails_is_named():
    add_arrays("failing_arrays", lambda: np.load("nowhere.npy"))
    with pytest.raises(DataError, match="of the data set failing_arrays failed: FileNotFoundError: .*nowhere"):
        Run("cifar_resnet8", data="failing_arrays")


def test_names_that_can_not_be_given():
    for name, said in (
        ("cifar10", "there is a data set cifar10 already"),
        ("../x", "can't have the name"),
        ("A", "can't"),
    ):
        with pytest.raises(ValueError, match=said):
            add_arrays(name, lambda: GOOD)


def test_jobs_read_the_arrays_of_the_launch(tmp_path):
    add_arrays("some_arrays", lambda: GOOD)
    run = Run("cifar_resnet8", data="some_arrays")
    with pytest.raises(DataError, match=r"some_arrays, can't be read .*; start the launch again, which writes it"):
        arrays.read("some_arrays", run.arrays, tmp_path)
    arrays.save(load("some_arrays"), tmp_path)
    read = arrays.read("some_arrays", run.arrays, tmp_path)
    assert read.digest == run.arrays.sha256 and (read.train_labels == GOOD[1]).all() and not read.official
    (file,) = tmp_path.iterdir()
    np.savez(
        file, **dict(zip(("train_images", "train_labels", "test_images", "test_labels"), (images(value=9), *GOOD[1:])))
    )
    with pytest.raises(DataError, match="holds other arrays than the run's"):
        arrays.read("some_arrays", run.arrays, tmp_path)
