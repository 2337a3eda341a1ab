"""Numbers that papers and other implementations report, from ``reported.toml``."""

import tomllib
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from string import ascii_lowercase

PATH = Path(__file__).with_name("reported.toml")
ORIGINS = ("paper", "report", "implementation")
KINDS = ("single", "mean", "best", "median", "whole", "cut_off", "approximate", "below", "above")
COUNTED = ("mean", "best", "median")  # kinds that are of n runs; for a mean n is not always stated


class ReportedError(ValueError):
    """A missing number, or an invalid entry of the file. The message names it."""


@dataclass(frozen=True)
class Source:
    """A paper, a report of a smaller system, or another implementation; ``how`` is its way of measuring."""

    key: str
    origin: str
    name: str
    title: str = ""
    url: str = ""
    how: str = ""

    @property
    def link(self) -> str:
        """The name as a Markdown link."""
        return f"[{self.name}]({self.url})" if self.url else self.name


@dataclass(frozen=True)
class Reported:
    """One reported number. Decimals keep the printed digits; ``unit`` is "%" for errors and accuracies.

    ``kind`` is one of KINDS; ``n`` the number of runs of a mean, best or median, None if a mean's source does not state
    it; ``std`` the standard deviation of a mean.
    """

    key: str
    source: Source
    data: str
    metric: str
    unit: str
    kind: str
    value: Decimal
    std: Decimal | None = None
    n: int | None = None
    where: str = ""
    note: str = ""
    unconfirmed: bool = False

    def __str__(self) -> str:
        """Format the number as printed, with its standard deviation: ``6.61 ± 0.16``, ``≈ 9``, ``> 60``."""
        sign = {"approximate": "≈ ", "below": "< ", "above": "> "}.get(self.kind, "")
        spread = "" if self.std is None else f" ± {self.std}"
        return f"{sign}{self.value}{spread}{' (unconfirmed)' if self.unconfirmed else ''}"

    @property
    def readings(self) -> dict[str, tuple[float, float]]:
        """Distances from the printed value to the lowest and highest number that it stands for, by reading.

        A number in whole percent was rounded or cut off.
        """
        rounded, cut_off = (-0.5, 0.5), (0.0, 1.0)
        readings = {"whole": {"if rounded": rounded, "if cut off": cut_off}, "cut_off": {"as it is": cut_off}}
        return readings.get(self.kind, {"as it is": (0.0, 0.0)})

    @property
    def reach(self) -> tuple[float, float]:
        """Distances below and above the printed value within which the number lies."""
        low, high = zip(*self.readings.values())
        return -min(low), max(high)

    @property
    def described(self) -> str:
        """The number with its kind: ``8.75 (single)``, ``6.61 ± 0.16 (mean of 5)``, ``≈ 9 (read off a figure)``."""
        if self.n:
            return f"{self} ({self.kind} of {self.n})"
        meanings = {"approximate": "read off a figure", "whole": "in whole percent", "below": "bound", "above": "bound"}
        meanings |= {"cut_off": "in whole percent, cut off", "mean": "mean, number of runs not stated"}
        return f"{self} ({meanings.get(self.kind, self.kind)})"


@cache
def load(path: Path = PATH) -> tuple[Reported, ...]:
    """Read every number of the file, in its order. Raises ReportedError for an entry against the rules in its head."""
    numbers = []
    for key, section in tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal).items():
        try:
            tables = section.pop("tables")
            source = Source(key, **section)
            for table in tables:
                shared = {name: value for name, value in table.items() if name != "values"}
                numbers += [_number(source, {**shared, **line}) for line in table["values"]]
        except (TypeError, KeyError, ReportedError) as error:
            raise ReportedError(f"{path.name}, section {key}: {error}") from error
        if source.origin not in ORIGINS:
            raise ReportedError(f"{path.name}, section {key}: origin must be one of {', '.join(ORIGINS)}")
    return tuple(numbers)


def _number(source: Source, values: dict) -> Reported:
    """Make one line of the file, with the values of its table, a number."""
    decimals = {name: Decimal(values[name]) for name in ("value", "std") if name in values}
    number = Reported(source=source, **{**values, **decimals})
    if number.kind not in KINDS:
        raise ReportedError(f"{number.key}: kind must be one of {', '.join(KINDS)}, not {number.kind!r}")
    wrong = number.kind not in COUNTED if number.n is not None else number.kind in ("best", "median")
    if wrong or (number.std is not None and number.kind != "mean"):
        raise ReportedError(f"{number.key}: {number.kind!r} with n = {number.n} and std = {number.std}")
    return number


def find(key: str, metric: str = "test error") -> list[Reported]:
    """Find the numbers of papers and implementations under ``key``. Raises ReportedError for an unknown key."""
    numbers = [number for number in load() if number.key == key]
    if not numbers:
        known = ", ".join(dict.fromkeys(number.key for number in load()))
        raise ReportedError(f"nothing is reported under {key!r} in {PATH.name}; available keys: {known}")
    return [number for number in numbers if number.metric == metric]


def in_paper(key: str | None, metric: str = "test error") -> list[Reported]:
    """Find the numbers of papers, or of reports of smaller systems, under ``key``; none for None."""
    return [number for number in find(key, metric) if number.source.origin != "implementation"] if key else []


def elsewhere(key: str | None, metric: str = "test error") -> list[Reported]:
    """Find the numbers of other implementations under ``key``; none for None."""
    return [number for number in find(key, metric) if number.source.origin == "implementation"] if key else []


def letter(source: Source) -> str:
    """Return the letter of an implementation in all tables, by the order of the file."""
    sources = dict.fromkeys(number.source for number in load() if number.source.origin == "implementation")
    return ascii_lowercase[[*sources].index(source)]


def target(key: str | None, metric: str = "test error") -> Reported | None:
    """Choose the paper's number to compare a reproduced mean with: its mean if it gives one, else its one number.

    None if the paper gives neither: a best of n or a reading of a figure is no fair target for a mean. A mean of an
    unknown number of runs counts as a mean of one, which makes the widest interval.
    """
    numbers = {number.kind: number for number in in_paper(key, metric)}
    return next((numbers[kind] for kind in ("mean", "single", "whole", "cut_off") if kind in numbers), None)
