"""What sets two rows apart whose seeds are not paired: Welch's test of a difference, and a test of equivalence."""

from collections.abc import Callable
from dataclasses import dataclass

from reproductions.harness.experiment import RowResult
from reproductions.harness.reporting import statistics
from reproductions.harness.reporting.cells import NONE, interval, number, p_value, signed
from reproductions.harness.reporting.markdown import markdown_table
from reproductions.harness.reporting.samples import METRICS, final_values
from reproductions.harness.reporting.statistics import WelchTest


@dataclass(frozen=True)
class Difference:
    """What sets a deep net's final error apart from a shallow one's."""

    deep: RowResult
    shallow: RowResult
    metric: str

    @property
    def samples(self) -> tuple[list[float], list[float]]:
        return final_values(self.deep.records, self.metric), final_values(self.shallow.records, self.metric)

    @property
    def difference(self) -> float | None:
        """Mean of the deep net minus mean of the shallow one, in percentage points."""
        deep, shallow = map(statistics.mean, self.samples)
        return None if deep is None or shallow is None else deep - shallow

    @property
    def test(self) -> WelchTest | None:
        return statistics.welch_test(*self.samples)


def section(differences: list[Difference]) -> str:
    """A table of differences with Welch's test, and what it means, under a heading."""
    samples = [difference.samples for difference in differences]
    table = markdown_table(
        {
            "nets": [f"{d.deep.row.label} − {d.shallow.row.label}" for d in differences],
            "error": [METRICS[d.metric] for d in differences],
            "n": [f"{len(deep)}, {len(shallow)}" for deep, shallow in samples],
            "difference": [signed(d.difference) for d in differences],
            **welch_cells([difference.test for difference in differences], signed),
        }
    )
    return (
        f"## What depth does\n\n{table}\nDeepest minus shallowest net, in percentage points: above 0, the deeper net "
        "is worse. Welch's two-sided t-test with Welch–Satterthwaite degrees of freedom; it needs two runs of both.\n"
    )


def numbers(differences: list[Difference]) -> dict[str, list]:
    """The same as columns for a CSV."""
    return {
        "deep": [d.deep.row.key for d in differences],
        "shallow": [d.shallow.row.key for d in differences],
        "metric": [d.metric for d in differences],
        "n_deep": [len(d.samples[0]) for d in differences],
        "n_shallow": [len(d.samples[1]) for d in differences],
        "difference": [d.difference for d in differences],
        **welch_numbers([d.test for d in differences]),
    }


def welch_cells(tests: list[WelchTest | None], show: Callable[[float | None], str]) -> dict[str, list[str]]:
    """What Welch's tests say, as columns of a table; ``show`` writes the ends of the intervals."""
    return {
        "95 % interval": [interval(test and test.interval, show) for test in tests],
        "t": [number(test and test.t) for test in tests],
        "df": [number(test and test.df, 1) for test in tests],
        "p": [p_value(test and test.p) for test in tests],
    }


def welch_numbers(tests: list[WelchTest | None]) -> dict[str, list]:
    """The same as columns for a CSV."""
    return {
        "low": [test and test.interval.low for test in tests],
        "high": [test and test.interval.high for test in tests],
        "t": [test and test.t for test in tests],
        "df": [test and test.df for test in tests],
        "p": [test and test.p for test in tests],
    }


def equivalence_section(
    fast: RowResult, full: RowResult, margin: float, way: Callable[[dict], str] = lambda record: record["precision"]
) -> str:
    """Whether two rows' test errors are less than ``margin`` percentage points apart, under a heading.

    ``way`` tells from a record how it was trained. Rows that have runs trained the same way are not compared: "auto"
    may be the precision that it is compared with.
    """
    samples = [final_values(result.records) for result in (fast, full)]
    same = set.intersection(*(set(map(way, result.records)) for result in (fast, full)))
    test = None if same else statistics.equivalence_test(*samples, margin)
    if same:
        said = f"Nothing is compared: both rows have runs in {', '.join(sorted(same))} here."
    elif test is None:
        said = "Not shown: it needs two runs of both rows."
    else:
        said = "Shown" if test.equivalent else "Not shown"
        said += f": the 90 % interval of the difference is {interval(test.interval, signed)}, p = {p_value(test.p)}."
    table = markdown_table(
        {
            "rows": [f"{fast.row.label} − {full.row.label}"],
            "n": [f"{len(samples[0])}, {len(samples[1])}"],
            "difference": [signed(test and test.difference)],
            "90 % interval": [interval(test and test.interval, signed)],
            "margin": [f"± {margin:g}"],
            "p": [p_value(test and test.p)],
            "equivalent": [NONE if test is None else "yes" if test.equivalent else "not shown"],
        }
    )
    return (
        f"## Equivalence within {margin:g} points\n\n{table}\n{said} Two one-sided Welch tests (TOST) at the 5 % "
        "level of the mean test errors, in percentage points; equivalent if the interval lies within the margin.\n"
    )
