"""Tables of results: Markdown for readers, CSV for programs.

A table is put together from columns; each brings its numbers for the CSV and the footnote that it needs. Errors and
accuracies are in percent. The same records give the same bytes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path

from reproductions import reported
from reproductions.harness.experiment import Experiment, Row, RowResult, Variant
from reproductions.harness.records import records_digest
from reproductions.harness.reporting import footnotes, intervals
from reproductions.harness.reporting.compare import from_reported, no_verdict, verdict
from reproductions.harness.reporting.frame import (
    ACCURACIES,
    HIGHER_IS_BETTER,
    METRICS,
    aggregated,
    best_values,
    completed,
    csv_text,
    final_values,
)
from reproductions.harness.reporting.notes import section as notes_section
from reproductions.harness.reporting.text import (
    NONE,
    interval,
    markdown_table,
    mean_std,
    number,
    p_value,
    sample,
    signed,
)
from reproductions.reported import Reported
from resnet.data import IMAGE_SHAPES, NUM_CLASSES, WITH_TOP5
from resnet.files import write_atomically
from resnet.models.complexity import multiply_adds, parameters


@dataclass(frozen=True)
class Column:
    """Column of a table: a cell for every row, numbers for the CSV, and a footnote; hidden if not ``shown``."""

    heading: str
    cells: list[str]
    numbers: dict[str, list] = field(default_factory=dict)
    note: str = ""
    shown: bool = True

    def of(self, metric: str) -> "Column":
        """Return the column for a table with several of METRICS, with the metric in its heading and numbers."""
        heading, name = self.heading, METRICS[metric]
        numbers = {key if metric in key else f"{metric}_{key}": values for key, values in self.numbers.items()}
        return replace(self, heading=heading if name in heading else f"{name}, {heading}", numbers=numbers)


@dataclass(frozen=True)
class Section:
    """Further table of a page, with the same rows, under its own heading."""

    heading: str
    columns: list[Column]


@dataclass(frozen=True)
class Page:
    """Table of an experiment: columns to choose from, and the paths of its files below ``out``.

    ``metric``: one of METRICS; columns show it unless another is named.
    """

    experiment: Experiment
    variant: Variant
    results: list[RowResult]
    out: Path
    metric: str

    # ---------------------------------------------------------------------------------------------------- columns

    def net(self, heading: str = "net") -> Column:
        """Create the column of the rows' labels."""
        labels, keys = [r.row.label for r in self.results], [r.row.key for r in self.results]
        note = (
            f"{self._values} in percent: mean ± sample "
            f"standard deviation over n seeds, after the last iteration ({self._iterations})."
        )
        return Column(heading, labels, {"row": keys, "net": labels}, note)

    def parameters(self) -> Column:
        """Create the column of the numbers of trainable parameters."""
        counts = [_parameters(r) for r in self.results]
        return Column("parameters", [f"{n:,}" for n in counts], {"parameters": counts})

    def multiply_adds(self) -> Column:
        """Create the column of multiply-adds of the forward pass for one image, which the papers call FLOPs."""
        counts = [_multiply_adds(r) for r in self.results]
        note = "Multiply-adds count convolutions and the fully connected layer, for one image."
        return Column("multiply-adds", [f"{n / 1e6:,.1f} M" for n in counts], {"multiply_adds": counts}, note)

    def precision(self) -> Column:
        """Create the column of the precisions that the runs were computed in."""
        texts = [", ".join(sorted({record["precision"] for record in r.records})) or NONE for r in self.results]
        return Column("precision", texts, {"precision": texts})

    def packed(self) -> Column:
        """Create the column of the numbers of other runs that shared the device."""
        others = [[record["timing"].get("packed_with", 0) for record in r.records] for r in self.results]
        texts = [_distinct(counts) if counts else NONE for counts in others]
        return Column("others on the device", texts, {"packed_with": texts})

    def reported(self) -> Column:
        """Create the column of the paper's numbers, each with its kind."""
        values = [self._in_paper(r) for r in self.results]
        numbers = {
            "reported": [float(t.value) if t else None for t in self._targets],
            "reported_std": [float(t.std) if t and t.std is not None else None for t in self._targets],
            "reported_kind": [t.kind if t else None for t in self._targets],
            "reported_n": [t.n if t else None for t in self._targets],
        }
        cells = ["; ".join(value.described for value in row) or NONE for row in values]
        note = f"Reported: {footnotes.reported_note(self.results, self.metric)}."
        heading = f"{METRICS[self.metric]}, reported"
        return Column(heading, cells, numbers, note, self._has_targets or any(values))

    def reported_by_source(self, metric: str | None = None) -> list[Column]:
        """Create a column of reported numbers for each paper, headed by its data set."""
        metric = metric or self.metric
        values = [reported.in_paper(r.row.reported, METRICS[metric]) for r in self.results]
        note = f"Reported: {footnotes.reported_note(self.results, metric)}."
        columns = []
        for source in dict.fromkeys(value.source for row in values for value in row):
            own = [next((value for value in row if value.source == source), None) for row in values]
            data = next(value.data for value in own if value)
            key = f"{source.key}_{metric}"
            numbers = {
                key: [value and float(value.value) for value in own],
                f"{key}_std": [value and value.std and float(value.std) for value in own],
            }
            heading = f"{METRICS[metric]} on {data}, {source.name}"
            columns.append(Column(heading, [str(value or NONE) for value in own], numbers, note))
        return columns

    def reproduced(self, metric: str | None = None) -> Column:
        """Create the column of this table's final values, mean ± std (n)."""
        metric = metric or self.metric
        numbers = {
            "n": [len(completed(r.records)) for r in self.results],
            "seeds": [r.seeds for r in self.results],
            "diverged": [len(r.records) - len(completed(r.records)) for r in self.results],
            **_summary(metric, [final_values(r.records, metric) for r in self.results]),
        }
        cells = [sample(r.records, r.seeds, metric) for r in self.results]
        note = (
            "The training error is the mean over the augmented training batches since the evaluation before "
            f"({self._intervals} iterations)."
        )
        note = note if metric == "training_error" else ""
        return Column(f"{METRICS[metric]}, {self._whose}", cells, numbers, note)

    def validation(self) -> Column:
        """Create the column of errors on held-out training images; hidden if it is empty or the table's own metric."""
        metric = "validation_error"
        measured = [[record for record in r.records if metric in record["final"]] for r in self.results]
        samples = [final_values(records, metric) for records in measured]
        note = "Validation error: on the training images that were held out."
        shown = self.metric != metric and any(samples)
        return Column("validation error", [*map(mean_std, samples)], _summary(metric, samples), note, shown)

    def top5(self) -> list[Column]:
        """Create the columns of top-5 errors; none if a row's data set has no top-5 error."""
        if any(r.row.data not in WITH_TOP5 for r in self.results):
            return []
        metric = "test_top5_error"
        return [self.published(metric), self.reproduced(metric), self.other_implementations(metric)]

    def published(self, metric: str | None = None) -> Column:
        """Create the column of published values beside a user's; hidden for synthetic data, which aren't."""
        metric = metric or self.metric
        records = [r.published or [] for r in self.results]
        cells = [sample(own, result.seeds, metric) for own, result in zip(records, self.results)]
        numbers = {f"published_{metric}_n": [len(completed(own)) for own in records]}
        numbers |= _summary(f"published_{metric}", [final_values(own, metric) for own in records])
        real = any(not r.row.data.startswith("synthetic") for r in self.results)
        shown = not footnotes.is_published(self.results) and real
        return Column(f"{METRICS[metric]}, published here", cells, numbers, shown=shown)

    def interval(self) -> Column:
        """Create the column of the mean's 95 % t-intervals, whose bounds are in the CSV already."""
        cells = [interval(intervals.percent(intervals.mean_interval(sample))) for sample in self._samples]
        return Column("95 % t-interval", cells)

    def best_of_n(self) -> Column:
        """Create the column of the best final value over the seeds."""
        choose = max if self.metric in HIGHER_IS_BETTER else min
        best = [choose(sample) if len(sample) >= intervals.FEWEST else None for sample in self._samples]
        return Column("best of n", [number(value) for value in best], {"best_of_n": best})

    def best_over_curve(self) -> Column:
        """Create the column of each seed's best value at any evaluation, which is a selection on the test set."""
        samples = [best_values(r.records, self.metric) for r in self.results]
        over_seeds = aggregated(samples)
        numbers = {f"best_over_curve_{statistic}": [*over_seeds[statistic]] for statistic in ("mean", "std")}
        best = "highest" if self.metric in HIGHER_IS_BETTER else "lowest"
        what = f"the {best} {METRICS[self.metric]} at any evaluation"
        note = f"Best over the curve: of each seed {what}, so selected on the test set."
        heading = "best over the curve (selected on the test set)"
        return Column(heading, [*map(mean_std, samples)], numbers, note)

    def difference(self) -> Column:
        """Create the column of reproduced minus reported, in percentage points; shown in the paper profile only."""
        pairs = zip(self._samples, self._targets)
        values = [intervals.mean(s) - float(t.value) if s and t else None for s, t in pairs]
        shown = self._has_targets and self.variant.profile == "paper"
        sources = list(dict.fromkeys(t.source.name for t in self._targets if t))
        several = len({n.source for r in self.results for n in self._in_paper(r)}) > len(sources)
        note = f"Difference and interval are compared with the numbers of {', '.join(sources)}." if several else ""
        cells = [from_reported(value, target) for value, target in zip(values, self._targets)]
        return Column("difference from reported", cells, {"difference": values}, note, shown)

    def verdict(self) -> list[Column]:
        """Create the columns of the comparison with reported numbers, by prediction intervals or Welch's test."""
        verdicts = [verdict(s, t, self.variant) for s, t in zip(self._samples, self._targets)]
        missing = [no_verdict(s, self.variant) if t else NONE for s, t in zip(self._samples, self._targets)]
        cells = [str(found) if found else none for found, none in zip(verdicts, missing)]
        expected, tests = [v and v.interval for v in verdicts], [v and v.test for v in verdicts]
        bounds = [v.interval_text if v else NONE for v in verdicts]
        equal = [test and intervals.equivalence_p(test) for test in tests]
        shown = self._has_targets and any(verdicts)
        note = (
            "Reported number: contradicted where it lies outside of the 95 % prediction interval of one more run like "
            f"these, which needs {intervals.FEWEST} runs. In brackets the half-width of the interval: a number that "
            "lies nearer than that to the mean is not contradicted, which does not say that the two are equal."
        )
        if any(tests):
            note += (
                " A reported mean ± std of n runs is contradicted by Welch's two-sided t-test, and equivalent if two "
                f"one-sided tests at the 5 % level show that the means differ by less than {intervals.MARGIN:g} points."
            )
        kinds = {target.kind for target in self._targets if target}
        if "whole" in kinds:
            note += (
                " A number in whole percent stands for anything from half a point less to half a point more if it was "
                "rounded, to one point more if it was cut off: not contradicted, if any of that is not."
            )
        if "cut_off" in kinds:
            note += " A number in whole percent that was cut off stands for anything up to one point more."
        numbers = {
            "prediction_low": [e and e.low for e in expected],
            "prediction_high": [e and e.high for e in expected],
            "prediction_runs": [v.k if v and v.interval else None for v in verdicts],
        }
        welch = {
            "welch_low": [test and test.interval.low for test in tests],
            "welch_high": [test and test.interval.high for test in tests],
            "welch_p": [test and test.p for test in tests],
            "equivalence_p": equal,
        }
        said = {"reported_number": [v and "; ".join(dict.fromkeys(v.sides.values())) for v in verdicts]}
        compared = [
            f"{signed(t.difference)} {interval(t.interval, signed)}, p = {p_value(t.p)}; equivalent within "
            f"{intervals.MARGIN:g}: {'shown' if p < 1 - intervals.LEVEL else 'not shown'}, p = {p_value(p)}"
            if t
            else NONE
            for t, p in zip(tests, equal)
        ]
        return [
            Column("95 % prediction interval (of 1 more run)", bounds, numbers, shown=self._has_targets),
            Column("Welch's test against reported mean ± std", compared, welch, shown=any(tests)),
            Column("reported number", cells if shown else [NONE] * len(cells), said, note if shown else "",
                   self._has_targets),
        ]  # fmt: skip

    def training(self) -> list[Column]:
        """Create the columns of final training accuracy and loss, reported and reproduced."""
        columns = []
        for name, key, digits in (("training accuracy", "training_error", 2), ("training loss", "training_loss", 3)):
            printed = [next(iter(reported.in_paper(r.row.reported, name)), None) for r in self.results]
            means = [intervals.mean([record["final"][key] for record in completed(r.records)]) for r in self.results]
            own = [100 - mean if mean is not None and key == "training_error" else mean for mean in means]
            note = (
                "Training accuracy and loss are means over the batches since the evaluation before the last "
                f"({self._intervals} iterations), and over the seeds."
            )
            cells = [f"{n} ({n.where})" if n else NONE for n in printed]
            columns += [
                Column(f"{name}, reported", cells, shown=any(printed)),
                Column(f"{name}, {self._whose}", [number(value, digits) for value in own], {key: own}, note),
            ]
        return columns

    def other_implementations(self, metric: str | None = None) -> Column:
        """Create the column of other implementations' numbers, each with the letter of its source in the footnote."""
        name = METRICS[metric or self.metric]
        values = [reported.elsewhere(r.row.reported, name) for r in self.results]
        used = {value.source for row in values for value in row}
        sources = [source for source in dict.fromkeys(v.source for v in reported.load()) if source in used]
        letters = {source: reported.letter(source) for source in sources}
        cells = ["; ".join(f"{value} ({letters[value.source]})" for value in row) or NONE for row in values]
        numbers = {"other_implementations": ["; ".join(f"{v} {v.source.name}" for v in row) for row in values]}
        explained = "; ".join(f"({letter}) {source.link}, {source.how}" for source, letter in letters.items())
        numbers = numbers if metric is None else {f"{metric}_other_implementations": numbers["other_implementations"]}
        note = f"Other implementations, {name}: {explained}."
        return Column(f"{name}, other implementations", cells, numbers, note, bool(used))

    # ------------------------------------------------------------------------------------------------------ files

    def write(self, columns: list[Column], sections: Sequence[str | Section] = ()) -> list[Path]:
        """Write the Markdown, with ``sections`` between table and footnotes, and the CSV; returns both paths.

        Footnotes and CSV are of all tables; a number of the same name in two of them must be the same.
        """
        columns = [*columns, self.validation()]
        tables = [section.columns for section in sections if isinstance(section, Section)]
        shown = [column for column in (*columns, *chain.from_iterable(tables)) if column.shown]
        head = f"# {self.experiment.title}\n\n{self.experiment.source} · {self.experiment.heading(self.variant)}\n"
        texts = [
            section if isinstance(section, str) else f"## {section.heading}\n\n{self._table_of(section.columns)}"
            for section in sections
            if section
        ]
        keys = [row.key for row in self.experiment.rows_of(self.variant)]
        found = footnotes.is_published(self.results) and notes_section(self._name, self.results, self.metric, keys)
        if found:
            texts.insert(0, found)
        if lacking := [r.row.label for r in self.results if r not in self._run]:
            texts.insert(0, f"Not yet run: {', '.join(lacking)}.\n")
        notes = "".join(f"- {note}\n" for note in [*dict.fromkeys(c.note for c in shown if c.note), *self._origin()])
        numbers = {name: values for column in shown for name, values in column.numbers.items()}
        return [
            _write(self._path("tables", ".md"), "\n".join([head, self._table_of(columns), *texts, notes])),
            self.write_csv(numbers),
        ]

    def write_csv(self, numbers: dict[str, list], what: str = "") -> Path:
        """Write columns of numbers, to six digits, an absent one empty.

        Profile, records and command stand in columns too: so a line still says where it came from when it is put
        together with others.
        """
        records = footnotes.all_records(self.results)
        origin = {
            "profile": self.variant.profile,
            "protocol": self.experiment.heading(self.variant),
            "records": len(records),
            "records_sha256": records_digest(records),
            "command": footnotes.command(self.experiment, self.variant, self.results),
        }
        import pandas

        table = pandas.DataFrame(numbers).assign(**origin)
        return _write(self._path("tables", f"{what and '_'}{what}.csv"), csv_text(table))

    def plot_path(self, what: str) -> Path:
        """Return the path of a plot, without the suffix of its format."""
        return self._path("plots", f"_{what}")

    @property
    def description(self) -> str:
        """One line on content, records and the command that makes the file again."""
        return footnotes.description(self.experiment, self.variant, self.results)

    def _path(self, folder: str, end: str) -> Path:
        return self.out / folder / f"{self._name}{end}"

    @property
    def _name(self) -> str:
        """Beginning of the files' names."""
        return f"{self.experiment.name}{self.variant.suffix}"

    def _origin(self) -> list[str]:
        records = footnotes.all_records(self.results)
        notes = footnotes.teacher_notes(self.variant, self.results, self.metric)
        notes += footnotes.diverged_notes(self.results)
        notes += footnotes.data_notes(records + footnotes.published_records(self.results))
        notes += [] if self.variant.sweep else footnotes.exact_notes(records, self.out)
        notes += footnotes.hardware_notes(records) + footnotes.precision_notes(self.results)
        notes += footnotes.moved_notes(self.results)
        notes += [footnotes.code_note(records, footnotes.is_published(self.results))] if records else []
        return notes + footnotes.records_notes(self.experiment, self.variant, self.results)

    def _table_of(self, columns: list[Column]) -> str:
        """Format the columns as a table without rows that have no records and without columns that are empty then."""
        places = [place for place, result in enumerate(self.results) if result in self._run]
        return markdown_table({c.heading: [c.cells[place] for place in places] for c in columns if c.shown})

    @cached_property
    def _run(self) -> list[RowResult]:
        """The rows that have records, here or published; all of them if none has."""
        return [result for result in self.results if result.records or result.published] or self.results

    @cached_property
    def _samples(self) -> list[list[float]]:
        return [final_values(result.records, self.metric) for result in self.results]

    @cached_property
    def _targets(self) -> list[Reported | None]:
        return [reported.target(result.row.reported, METRICS[self.metric]) for result in self.results]

    def _in_paper(self, result: RowResult) -> list[Reported]:
        return reported.in_paper(result.row.reported, METRICS[self.metric])

    @property
    def _has_targets(self) -> bool:
        return any(self._targets)

    @property
    def _whose(self) -> str:
        return "reproduced" if footnotes.is_published(self.results) else "yours"

    @property
    def _values(self) -> str:
        """``Errors are top-1,`` where the metric's name does not say that."""
        if self.metric in ACCURACIES:
            return "Accuracies are"
        if self.metric in HIGHER_IS_BETTER:
            return "Values are"
        return "Errors are" if "top-" in METRICS[self.metric] else "Errors are top-1,"

    @property
    def _iterations(self) -> str:
        return _distinct(result.row.recipe.iterations for result in self.results)

    @property
    def _intervals(self) -> str:
        return _distinct(result.row.recipe.eval_interval for result in self.results)


def _distinct(values) -> str:
    return " or ".join(f"{value:,}" for value in sorted(set(values)))


def _options(result: RowResult) -> dict:
    """Return the options that the row's model is created with."""
    return {"num_classes": NUM_CLASSES[result.row.data], **result.row.model_options}


def _parameters(result: RowResult) -> int:
    """Return the number of trainable parameters of the row's model."""
    if result.records:
        return result.records[0]["parameters"]
    return parameters(result.row.model, _options(result))


def _multiply_adds(result: RowResult) -> int:
    """Count multiply-adds for an image of the data; where sizes differ, for the size that the net was designed for."""
    size = IMAGE_SHAPES[result.row.data][0] if result.row.data in IMAGE_SHAPES else None
    return multiply_adds(result.row.model, _options(result), size)


def _summary(name: str, samples: list[list[float]]) -> dict[str, list]:
    """Return mean, standard deviation and 95 % t-interval of each sample as columns."""
    table = aggregated(samples)
    return {f"{name}_{statistic}": [*table[statistic]] for statistic in ("mean", "std", "low", "high")}


def _write(path: Path, text: str) -> Path:
    write_atomically(path, text.encode())
    return path


def write_report(experiment: Experiment, variant: Variant, results: list[RowResult], out: Path) -> list[Path]:
    """Write the experiment's tables and plots of these results below ``out``; returns the files, .md first."""
    return write_page(make_page(experiment, variant, results, out))


class ReportError(Exception):
    """A report that does not return its files. The message names the table."""


def write_page(page: Page) -> list[Path]:
    """Write the tables and plots of the page, and show the plots at the end of its Markdown; returns the files.

    Raises ReportError if the report does not return its files, as a user's own may.
    """
    files = page.experiment.report(page)
    if not isinstance(files, list | tuple):
        raise ReportError(f"the report of {page.experiment.name} returned {files!r} instead of the files that it "
                          "wrote; let it end with: return page.write(columns, sections)")  # fmt: skip
    plots = [f"![{path.stem}](../plots/{path.name})\n" for path in files if path.suffix == ".png"]
    if plots:
        _write(files[0], "\n".join([files[0].read_text(encoding="utf-8"), "## Plots\n", *plots]))
    return files


def make_page(experiment: Experiment, variant: Variant, results: list[RowResult], out: Path) -> Page:
    """Create the page that the experiment's report takes."""
    return Page(experiment, variant, results, out, "validation_error" if variant.sweep else experiment.metric)


@dataclass(frozen=True)
class Headline:
    """Line of the index: a row, claim or comparison, its reported and its reproduced result, and their comparison."""

    row: str
    reported: str
    reproduced: str
    verdict: str


def of_fullest_row(page: Page) -> Headline:
    """Summarize the row with most completed runs, the last of equals; rows with a reported number come first."""
    metric, name = page.metric, METRICS[page.metric]
    filled = [result for result in page.results if final_values(result.records, metric)] or page.results
    compared = [result for result in filled if reported.target(result.row.reported, name)] or filled
    shown = max(reversed(compared), key=lambda result: len(completed(result.records)))
    values, target = final_values(shown.records, metric), reported.target(shown.row.reported, name)
    reproduced = f"{name} {sample(shown.records, shown.seeds, metric)}"
    if target is None:
        return Headline(shown.row.label, NONE, reproduced, NONE)
    if not _is_of_the_rows_data(target, shown.row):
        return Headline(shown.row.label, f"{target.described}, on {target.data}", reproduced, "not comparable")
    found = verdict(values, target, page.variant)
    said = str(found) if found else no_verdict(values, page.variant)
    return Headline(shown.row.label, target.described, reproduced, said)


def _is_of_the_rows_data(target: Reported, row: Row) -> bool:
    """Return whether a reported number was measured on the row's data set: "CIFAR-10" is cifar10."""
    return re.sub(r"\W", "", target.data).lower() == row.data
