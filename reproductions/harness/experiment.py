"""Experiments and their rows, which the tables' scripts declare."""

import hashlib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from reproductions.harness.records import Pool
from reproductions.harness.settings import combinations, parse_settings, parse_sweep, with_settings
from resnet.data import TRAIN_IMAGES, add_arrays
from resnet.kernels import made_for
from resnet.recipe import Recipe
from resnet.run import Run
from resnet.tasks import Task

PROFILES = {
    "paper": "the paper's protocol",
    "short": "short profile: real data, fewer iterations, not comparable with the paper",
    "smoke": "smoke profile: synthetic data, not comparable with the paper",
}
SEEDS = {"paper": 5, "short": 5, "smoke": 2}  # runs a row, where an experiment does not say otherwise
LONGEST = 100  # characters of settings in a file's name; longer ones are named by their digest


@dataclass(frozen=True)
class Variant:
    """A version of an experiment: a profile, and departures from its default recipe.

    settings: values of fields of the recipes and of models' options, as of
    :func:`~reproductions.harness.settings.parse_settings`. sweep: several values of some, as of
    :func:`~reproductions.harness.settings.parse_sweep`: then each row stands for the rows of all combinations, trained
    without a tenth of the images (unless ``train_images`` is set) and compared by the error on those. Neither changes a
    row's teacher, except that it has the same images.
    """

    profile: str = "paper"
    train_images: int | None = None
    precision: str = "auto"
    kernels: str = "auto"
    settings: tuple[str, ...] = ()
    sweep: tuple[str, ...] = ()

    def __post_init__(self):
        if self.profile not in PROFILES:
            raise ValueError(f"there is no profile {self.profile!r}; available profiles: {', '.join(PROFILES)}")
        for name, parse in (("settings", parse_settings), ("sweep", parse_sweep)):
            given = getattr(self, name)
            object.__setattr__(self, name, parse(" ".join(given)) if given else ())
        swept, named = ([one.split("=")[0] for one in given] for given in (self.sweep, self.settings))
        if both := [name for name in swept if name in named]:
            raise ValueError(f"{', '.join(both)} can't be both set and swept")

    @property
    def name(self) -> str:
        """The profile and the departures from the default recipe: "paper, 45000-images, fp32"."""
        sweep = [f"sweep of {', '.join(one.split('=')[0] for one in self.sweep)}"] if self.sweep else []
        return ", ".join([self.profile, *self._flagged, *self.settings, *sweep])

    @property
    def suffix(self) -> str:
        """The end of this variant's file names: empty for the paper profile, as in ``cifar_table.md``."""
        parts = [] if self.profile == "paper" else [self.profile]
        given = [*self.settings, *(["sweep", *self.sweep] if self.sweep else [])]
        if len("_".join(given)) > LONGEST or "/" in "".join(given):
            given = [f"set-{hashlib.sha256(' '.join(given).encode()).hexdigest()[:12]}"]
        return "".join(f"_{part}" for part in (*parts, *self._flagged, *given))

    @property
    def _flagged(self) -> list[str]:
        """The departures that have a flag of their own."""
        parts = [] if self.train_images is None else [f"{self.train_images}-images"]
        parts += [] if self.precision == "auto" else [self.precision]
        return parts + ([] if self.kernels == "auto" else [f"{self.kernels}-kernels"])

    @property
    def heading(self) -> str:
        """The variant's part of a table's heading."""
        parts = [PROFILES[self.profile]]
        parts += [] if self.train_images is None else [f"{self.train_images:,} training images"]
        parts += [] if self.precision == "auto" else [f"{self.precision} throughout"]
        parts += [] if self.kernels == "auto" else [f"{self.kernels} kernels where there are two kinds"]
        parts += [f"with {', '.join(self.settings)}"] if self.settings else []
        parts += [f"sweep of {' and '.join(self.sweep)}, on held-out training images"] if self.sweep else []
        return "; ".join(parts)

    def rows_of(self, row: "Row") -> "list[Row]":
        """Return the row with this variant's settings, or a row for each combination of its sweep."""
        if not self.sweep:
            return [_with_settings(row, self.settings)]
        return [
            replace(
                _with_settings(row, (*self.settings, *combination)),
                key=f"{row.key} {' '.join(combination)}",
                label=f"{row.label}, {', '.join(combination)}",
                after=None,
                reported=None,
                swept=combination,
            )
            for combination in combinations(self.sweep)
        ]

    def apply(self, run: Run) -> Run:
        """Change a run, and the runs that it needs, to this variant. Raises ValueError for a run that can't be so."""
        if self.sweep and run.task is not None:
            raise ValueError(f"a sweep ranks by held-out images, and training for {run.task.name} holds out none")
        recipe = run.recipe if self.precision == "auto" else replace(run.recipe, precision=self.precision)
        fits = made_for(run.model, run.model_options, recipe.precision) and recipe.batch_norm_size is None
        if self.kernels != "auto" and fits and recipe.kernels == "auto":
            recipe = replace(recipe, kernels=self.kernels)
        needs = {role: self.apply(need) for role, need in run.needs.items()}
        train_images = run.train_images if self.train_images is None else self.train_images
        if self.sweep and train_images is None:
            train_images = TRAIN_IMAGES[run.data] * 9 // 10
        return replace(run, train_images=train_images, recipe=recipe, **needs)


@dataclass(frozen=True)
class Row:
    """One line of a table: a model and a recipe.

    ``reported``: the key of the reported numbers in ``reported.toml``; always None for synthetic data.

    ``teacher``: a row whose run with seed 0 is the teacher for all seeds, as in Bag of Tricks, section 5.3.

    ``pretrained``: a row whose run with the same seed gives the initial weights. It should be a row of the same table,
    which otherwise does not mention its records.

    ``train_images``: the number of images to train on, from the first; the others are held out.

    ``keep_weights``: the number of seeds, from 0, whose final weights are published beside their records, for runs that
    start from them or learn from them. It does not change the run.

    ``after``: in a ladder, the key of the row that this row extends, not always the line above: in Table 6 of Bag of
    Tricks distillation and mixup are each added to label smoothing, and then distillation to mixup.

    ``on_request``: the row is trained only if it is named (``--rows``); tables show it once it has records.

    ``swept``: the values that a sweep gives to the row. ``unfit``: why a variant's settings can't be the row's, which
    then has no runs; empty if they can.

    ``task``: another task than classification; ``pretrained`` may then be a classifier's row.
    """

    key: str
    label: str
    model: str
    recipe: Recipe
    data: str = "cifar10"
    model_options: dict = field(default_factory=dict, hash=False)
    reported: str | None = None
    teacher: "Row | None" = None
    after: str | None = None
    train_images: int | None = None
    pretrained: "Row | None" = None
    keep_weights: int = 0
    on_request: bool = False
    swept: tuple[str, ...] = ()
    unfit: str = ""
    task: Task | None = None

    def __post_init__(self):
        if self.data.startswith("synthetic"):
            object.__setattr__(self, "reported", None)

    @property
    def own_key(self) -> str:
        """The key of the table's row, without a sweep's values."""
        return self.key.removesuffix(f" {' '.join(self.swept)}")

    def run(self, seed: int) -> Run:
        """Make the row's run with this seed, including the runs that it needs."""
        teacher, pretrained = self.teacher and self.teacher.run(0), self.pretrained and self.pretrained.run(seed)
        needs = teacher, pretrained
        return Run(
            self.model, self.recipe, self.data, seed, self.model_options, self.train_images, *needs, task=self.task
        )

    def records(self, variant: Variant, pool: Pool) -> list[dict]:
        """Find the records of the row's runs in ``pool``, for all seeds, ordered by seed.

        The row is one of :meth:`Experiment.rows_of` the variant.
        """
        return [] if self.unfit else pool.of_row(variant.apply(self.run(0)))


def _with_settings(row: Row, settings: Sequence[str]) -> Row:
    """Return the row with these settings, itself if they change nothing: no paper reports on a changed row.

    The run that it is pretrained as, a row of the same table, has them too, but not if it is of another task; its
    teacher has not.
    """
    if not settings:
        return row
    try:
        recipe, options = with_settings(settings, row.model, row.recipe, row.model_options)
        pretrained = row.pretrained
        if pretrained and pretrained.task == row.task:
            pretrained = _with_settings(pretrained, settings)
        if pretrained and pretrained.unfit:
            raise ValueError(pretrained.unfit)
        changed = replace(row, recipe=recipe, model_options=options, pretrained=pretrained, reported=None)
        return row if changed.run(0) == row.run(0) else changed
    except ValueError as error:
        return replace(row, unfit=str(error), reported=None)


@dataclass(frozen=True)
class RowResult:
    """A row with the records of its runs, ordered by seed.

    ``records`` has completed and diverged runs; ``published`` has the project's published ones for comparison (None
    while the published table itself is made). ``seeds`` is the number of seeds asked for. ``teacher`` is the record of
    the teacher's run, None if the row has no teacher or the run no record. ``pretrained``: the records of the runs that
    those with ``records`` began with, as far as they have one.
    """

    row: Row
    records: list[dict]
    published: list[dict] | None
    seeds: int
    teacher: dict | None = None
    pretrained: list[dict] = field(default_factory=list)


@dataclass(frozen=True)
class Experiment:
    """One table or figure of a paper.

    ``rows`` gives the rows of a profile. ``report`` takes a :class:`~reproductions.harness.reporting.page.Page` with
    the rows' results, writes tables and plots, and returns the files, tables (``.md``) first. ``metric`` is the page's
    metric. ``headline`` takes the same page and returns a :class:`~reproductions.harness.reporting.page.Headline` for
    the index of all tables; None stands for the row with most runs.

    ``claims`` takes the same page and returns a :class:`~reproductions.harness.reporting.found.Found` for each of the
    paper's claims; None for a table without claims.

    ``script``: the name of a script with several experiments, one per data set; ``dataset``: the experiment's name on
    its command line, None for the first. ``module`` is the module below ``reproductions`` to run, if it has another
    name than the script. The script of a table of one's own, anywhere, is ``__file__``, which ``python`` runs, or the
    name of a module with a dot, which ``python -m`` runs. ``datasets``: data sets of its own by name, each a function
    that returns arrays (:func:`resnet.data.add_arrays`). ``epilog`` ends the command line's help. ``protocol``
    describes the paper profile if no paper does.

    ``measure`` measures the runs' final networks before the report, for a report that needs more than records and the
    errors on exact test images, which are measured for all experiments. It takes the completed runs' records, the
    :class:`~reproductions.harness.launching.run_paths.RunPaths`, a device, and the time after which it starts nothing
    more, writes files, and returns the problems. ``measurements``: the kinds of
    :class:`~reproductions.harness.measurements.Measurement` that it makes, which are published beside the records.

    ``overview`` draws a plot of all profiles for the README. It takes the experiment, the folder of the plots and all
    published records, and returns the files.
    """

    name: str
    title: str
    source: str
    rows: Callable[[str], list[Row]]
    report: Callable[[Any], list[Path]]
    seeds: dict[str, int] = field(default_factory=lambda: dict(SEEDS), hash=False)
    metric: str = "test_error"
    headline: Callable[[Any], Any] | None = None
    claims: Callable[[Any], list] | None = None
    script: str = ""
    module: str = ""
    dataset: str | None = None
    epilog: str = ""
    protocol: str = PROFILES["paper"]
    measure: Callable[[list[dict], Any, torch.device, float], list[str]] | None = None
    measurements: tuple = field(default=(), hash=False)
    overview: "Callable[[Experiment, Path, Pool], list[Path]] | None" = None
    datasets: dict[str, Callable[[], Any]] = field(default_factory=dict, hash=False)

    def __post_init__(self):
        for name, make in self.datasets.items():
            add_arrays(name, make)
        if not self.script:
            object.__setattr__(self, "script", self.name)
        if not self.module:
            object.__setattr__(self, "module", self.script)

    def default_seeds(self, variant: Variant) -> int:
        """Return the number of runs per row where none is asked for; of a sweep, whose rows are many, it is 1."""
        return 1 if variant.sweep else self.seeds[variant.profile]

    def command(self, variant: Variant, seeds: int | None = None, keys: Sequence[str] = ()) -> str:
        """Write the command that makes this variant's files with this number of seeds per row, None for the default.

        ``keys``: the rows that it names, none for all.
        """
        values = {
            "PROFILE": None if variant.profile == "paper" else variant.profile,
            "SEEDS": None if seeds == self.default_seeds(variant) else seeds,
            "ROWS": ",".join(keys),
            "TRAIN_IMAGES": variant.train_images,
            "PRECISION": None if variant.precision == "auto" else variant.precision,
            "KERNELS": None if variant.kernels == "auto" else variant.kernels,
            "SET": " ".join(variant.settings),
            "SWEEP": " ".join(variant.sweep),
        }
        return self.command_with(**{name: value for name, value in values.items() if value})

    def command_with(self, **values) -> str:
        """Write a command for this experiment with values of make's variables, or of a script's flags of that name."""
        quoted = {name: shlex.quote(str(value)) for name, value in values.items()}
        if "." in self.script:
            return self.program + "".join(f" --{n.lower().replace('_', '-')} {v}" for n, v in quoted.items())
        return f"make {self.target}" + "".join(f" {name}={value}" for name, value in quoted.items())

    @property
    def program(self) -> str:
        """The command that starts the script."""
        if self.script.endswith(".py"):
            return f"python {shlex.quote(Path(self.script).name)}"
        return f"python -m {self.script}" if "." in self.script else f"python -m reproductions.{self.module}"

    def heading(self, variant: Variant) -> str:
        """Write the variant's part of a table's heading."""
        text = variant.heading.replace(PROFILES["paper"], self.protocol, 1)
        if variant.profile == "smoke" and not all(row.data.startswith("synthetic") for row in self.rows("smoke")):
            return text.replace("synthetic data", "a few iterations")  # on data of the user's own
        return text

    @property
    def target(self) -> str:
        """The arguments of ``make`` for the experiment: a target, and the data set unless it is the script's first."""
        dataset = f" DATASET={self.dataset}" if self.dataset else ""
        return f"reproduce-{self.script.replace('_', '-')}{dataset}"

    def runs(
        self,
        variant: Variant,
        seeds: int,
        keys: list[str] | None = None,
        given: Callable[[Run], bool] = lambda need: False,
    ) -> list[Run]:
        """List all runs, each once: first the runs that others need, then seeds 0, 1, 2, ... of each row.

        A run that only others need is left out if it is ``given``, together with its own needs. Raises ValueError for
        an unknown row.
        """
        rows = self.chosen_rows(variant, keys)
        runs = [variant.apply(row.run(seed)) for row in rows for seed in range(seeds)]
        return list(dict.fromkeys([need for run in runs for need in _all_needs(run, given)] + runs))

    def chosen_rows(self, variant: Variant, keys: list[str] | None) -> list[Row]:
        """Choose the rows with these keys, in the table's order; None: all rows but those on request.

        Raises ValueError for an unknown key, and for settings of the variant that a chosen row can't have.
        """
        rows = self.rows(variant.profile)
        known = {row.key: row for row in rows}
        if unknown := [key for key in keys or [] if key not in known]:
            text = f"{self.name} has no row {', '.join(unknown)} in the {variant.profile} profile; available rows: "
            raise ValueError(text + ", ".join(known))
        chosen = [row for row in rows if (not row.on_request if keys is None else row.key in keys)]
        varied = {row.key: variant.rows_of(row) for row in chosen}
        fit = [key for key, own in varied.items() if not any(row.unfit for row in own)]
        if unfit := [(key, row.unfit) for key, own in varied.items() for row in own if row.unfit]:
            key, reason = unfit[0]
            others = f"; rows that could have them: ROWS={','.join(fit)} (--rows)" if fit else ""
            raise ValueError(f"row {key} can't have these settings: {reason}{others}")
        return [row for own in varied.values() for row in own]

    def rows_of(self, variant: Variant) -> list[Row]:
        """List all rows of the variant; those that can't have its settings are marked."""
        return [varied for row in self.rows(variant.profile) for varied in variant.rows_of(row)]

    def fit_rows(self, variant: Variant) -> list[Row]:
        """List the rows of the variant that can have its settings."""
        return [row for row in self.rows_of(variant) if not row.unfit]

    def resolve(self, variant: Variant, keys: list[str] | None = None) -> Variant:
        """Drop the variant's number of training images if it is all of them, and settings that every row has anyway.

        So files are named alike. Raises ValueError for an unknown row, for more images than there are, and for kernels
        that no row has.
        """
        variant = self._without_needless_settings(variant)
        fit = self.fit_rows(variant)
        rows = self.chosen_rows(variant, keys) if keys else [row for row in fit if not row.on_request] or fit
        runs = [variant.apply(row.run(0)) for row in rows]
        if variant.kernels not in {"auto", *(run.recipe.kernels for run in runs)}:
            raise ValueError(f"{variant.kernels} kernels can't be chosen here: none of these rows is a CIFAR net in "
                             "bf16 or fp16, for which there are two kinds")  # fmt: skip
        changed = any(run.train_images is not None for run in runs)
        return variant if changed else replace(variant, train_images=None)

    def recorded_seeds(self, variant: Variant, pool: Pool) -> int:
        """Count the seeds of a table of these records: at least the default number, but 0 without any record.

        In a table of comparisons the records of baselines alone do not count.
        """
        rows = self.rows_of(variant)
        counted = [row for row in rows if row.after] or rows
        records = [record for row in counted for record in row.records(variant, pool)]
        seeds = [record["specification"]["seed"] for record in records]
        return max(self.default_seeds(variant), max(seeds) + 1) if seeds else 0

    def _without_needless_settings(self, variant: Variant) -> Variant:
        """Drop the settings that change no row."""

        def runs_with(settings: tuple[str, ...]) -> list[Run | str]:
            return [row.unfit or row.run(0) for row in self.rows_of(replace(variant, settings=settings, sweep=()))]

        for one in variant.settings:
            without = tuple(other for other in variant.settings if other != one)
            if runs_with(without) == runs_with(variant.settings):
                variant = replace(variant, settings=without)
        return variant

    def results(self, variant: Variant, seeds: int, pool: Pool, published: Pool) -> list[RowResult]:
        """Collect every row's records in ``pool`` and ``published``; a row on request without records is left out.

        Both are the same pool for the published table itself. If the teacher's run has no record in ``pool``, the
        published one counts, provided that the row's runs learned from it. Damaged records in ``pool.damaged`` are left
        to the caller.
        """
        same = pool.root.resolve() == published.root.resolve()
        results = []
        for row in self.rows_of(variant):
            if row.unfit:
                results += [] if row.on_request else [RowResult(row, [], None if same else [], seeds)]
                continue
            first = variant.apply(row.run(0))
            own, others = (
                [record for record in p.of_row(first) if record["specification"]["seed"] < seeds]
                for p in (pool, published)
            )
            if row.on_request and not own + others:
                continue
            teacher = None
            if seeds and (needed := first.teacher):
                other, taught_by = published.get(needed), {record.get("teacher_sha256") for record in own}
                teacher = pool.get(needed) or (other if other and other["weights_sha256"] in taught_by else None)
            begun = [Run.from_specification(r["specification"]).pretrained for r in own] if row.pretrained else []
            known = [record for run in begun if (record := pool.get(run) or published.get(run)) is not None]
            results.append(RowResult(row, own, None if same else others, seeds, teacher, known))
        return results


Table = tuple[Experiment, Variant]


def kept_runs(experiments: Sequence[Experiment]) -> list[Run]:
    """List the runs whose final weights are published: of rows that keep them, and of the rows that these need."""
    rows = [row for experiment in experiments for profile in PROFILES for row in experiment.rows(profile)]
    kept = [one for row in rows for one in (row, row.teacher, row.pretrained) if one is not None]
    return list(dict.fromkeys(row.run(seed) for row in kept for seed in range(row.keep_weights)))


def _all_needs(run: Run, given: Callable[[Run], bool]) -> list[Run]:
    """List the runs that a run needs and that are not given, after their own needs."""
    needs = [need for need in run.needs.values() if not given(need)]
    return [other for need in needs for other in (*_all_needs(need, given), need)]
