"""Findings on claims from the runs of one profile, in one form for the page of all claims."""

from collections.abc import Callable
from dataclasses import dataclass

from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.claims import WITHIN_NOISE, Finding, power_of, statement_on
from reproductions.harness.reporting.compare import Step, count_steps, sigmas_of
from reproductions.harness.reporting.frame import METRICS
from reproductions.harness.reporting.intervals import Interval
from reproductions.harness.reporting.text import NONE, interval, signed


@dataclass(frozen=True)
class Found:
    """Finding on a claim: an effect that is above 0 if the claim holds.

    key, text: the claim's name and sentence, the same in all profiles. counts: completed runs of each net, or pairs.
    effect, interval: in percentage points, None of too few runs; the interval is corrected for the claims of its table.
    reported: the effect in the paper, which may be wrong by ``doubt``. power: the probability that these runs, or the
    wanted number where they are too few, show an effect as large as the reported one. said: WITHIN_NOISE, or the
    statement on a claim that is no contrast. show: how an effect is written.
    """

    key: str
    text: str
    counts: tuple[int, ...]
    effect: float | None
    interval: Interval | None
    reported: float | None = None
    power: float | None = None
    said: str = ""
    show: Callable[[float | None], str] = signed
    doubt: float = 0.0

    @property
    def statement(self) -> str:
        """Shown, contradicted, not resolvable or not shown with the number of runs, too few runs, or not yet run."""
        if self.said == WITHIN_NOISE or (self.said and min(self.counts) >= intervals.FEWEST):
            return self.said
        return statement_on(self.counts, self.interval, self.power)

    @property
    def measured(self) -> str:
        """The effect with its interval: ``+3.45 [+1.03, +5.86]``; a dash without runs."""
        return f"{self.show(self.effect)} {interval(self.interval, self.show) if self.interval else ''}".rstrip()


def of_findings(findings: list[Finding]) -> list[Found]:
    """Return the findings on a page's claims about nets."""
    return [
        Found(
            finding.claim.key,
            finding.claim.text,
            tuple(map(len, finding.samples)),
            finding.effect,
            finding.test and finding.test.interval,
            finding.reported,
            finding.power,
            doubt=finding.doubt,
        )
        for finding in findings
    ]


def of_steps(steps: list[Step], profile: str) -> list[Found]:
    """Return the findings on a ladder's steps that have a reported effect: whether each has the reported sign.

    A reported effect within the paper's own noise has no sign to be found.
    """
    comparisons, sigmas, found = count_steps(steps), sigmas_of(steps), []
    for step in steps:
        if not (expected := step.expected) or step.changes_nothing:
            continue
        sign, bounds = (1 if expected > 0 else -1), step.interval(comparisons)
        if bounds is not None and sign < 0:
            bounds = Interval(-bounds.high, -bounds.low)
        text = (
            f"“{step.row.row.label}” {'raises' if sign > 0 else 'lowers'} the {METRICS[step.metric]} of "
            f"“{step.before.row.label}”"
        )
        effect = None if step.mean is None else sign * step.mean
        reported = abs(expected) if profile == "paper" else None
        power = power_of(reported, sigmas[step.metric], [step.differences], step.row.seeds, comparisons)
        key = f"{step.row.row.key}_{step.metric}"
        said = WITHIN_NOISE if abs(expected) <= step.noise else ""
        found.append(Found(key, text, (len(step.differences),), effect, bounds, reported, power, said))
    return found


def percent(power: float | None) -> str:
    """Format a probability in whole percent; a dash for None."""
    return NONE if power is None else f"{100 * power:.0f} %"
