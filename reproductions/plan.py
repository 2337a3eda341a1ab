"""Plan of several tables: the effects that numbers of seeds can show, and their cost, before training."""

from reproductions import cifar_table, degradation
from reproductions.bag_of_tricks import refinements, tweaks
from reproductions.harness.experiment import Experiment, Row, RowResult, Variant
from reproductions.harness.launching import cost
from reproductions.harness.records import Pool
from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.claims import about, judge, seeds_text
from reproductions.harness.reporting.compare import count_steps, find_steps
from reproductions.harness.reporting.frame import METRICS, final_values
from reproductions.harness.reporting.text import NONE, markdown_table, number, signed

PAPER, SEEDS = Variant("paper"), (5, 10, 20)
_HEAD = """What seeds can show by the paper's protocol on CIFAR-10, and what they cost.

For each claim and step: the smallest difference in points that a number of seeds of each net finds with a probability
of {power:.0f} %, the reported difference, the number of seeds that find it, and the GPU-hours of these seeds. They are
computed for normal errors with the standard deviations of the published records, and corrected for the number of claims
or steps in their table. A smaller difference is not resolvable with that number of seeds, which does not say that there
is none.
"""


def plan(pool: Pool) -> str:
    """Return the text of the plan, from published records."""
    parts = [_HEAD.format(power=100 * intervals.POWER)]
    table = _results(cifar_table.EXPERIMENT, pool)
    depth = _results(degradation.EXPERIMENT, pool)
    for experiment, results, claims in (
        (cifar_table.EXPERIMENT, table, cifar_table.depth_claims([result.row for result in table])),
        (degradation.EXPERIMENT, depth, degradation.claims(depth)),
    ):
        findings = judge(claims, results, PAPER)
        lines = [
            [
                finding.claim.text,
                *(number(finding.smallest(n)) for n in SEEDS),
                about(finding.reported, finding.doubt),
                finding.seeds,
                _hours([result.row for result in finding.results], finding.seeds, pool),
            ]
            for finding in findings
        ]
        sigmas = {METRICS[finding.claim.metric]: finding.sigma for finding in findings}
        spread = " and ".join(f"{number(sigma)} ({metric})" for metric, sigma in sigmas.items())
        parts.append(_section(experiment, lines, spread))
    spread = intervals.pooled_std([final_values(result.records) for result in (*table, *depth)])
    for script in (tweaks, refinements):
        parts.append(_ladder(script.EXPERIMENTS["cifar10"], pool, spread and spread * 2**0.5))
    return "\n".join(parts)


def _ladder(experiment: Experiment, pool: Pool, sigma: float | None) -> str:
    """Plan the steps of a ladder: differences of pairs, whose standard deviation is ``sigma``."""
    steps = [step for step in find_steps(_results(experiment, pool)) if step.expected is not None]
    comparisons, lines = count_steps(steps), []
    for step in steps:
        seeds = seeds_text(step.expected, sigma, comparisons, (1,))
        least = [intervals.smallest_effect(sigma, n, (1,), comparisons) for n in SEEDS]
        rows = [step.row.row, step.before.row]
        cells = [*map(number, least), signed(step.expected), seeds, _hours(rows, seeds, pool)]
        lines.append([f"{step.row.row.label}, after {step.before.row.label}", *cells])
    spread = f"{number(sigma)} of paired differences, √2 times the one of the residual and plain nets' test errors"
    return _section(experiment, lines, spread)


def _results(experiment: Experiment, pool: Pool) -> list[RowResult]:
    """Find what is published of the rows, but for those on request."""
    return [r for r in experiment.results(PAPER, experiment.seeds["paper"], pool, pool) if not r.row.on_request]


def _section(experiment: Experiment, lines: list[list[str]], spread: str) -> str:
    headings = ("claim or step", *(f"{n} seeds" for n in SEEDS), "reported", "seeds for it", "GPU-hours")
    table = markdown_table(dict(zip(headings, map(list, zip(*lines)), strict=True)))
    return f"{experiment.title} ({experiment.source}); standard deviation {spread}\n\n{table}"


def _hours(rows: list[Row], seeds: str, pool: Pool) -> str:
    """Return the GPU-hours of the rows' seeds, by rates of records or in proportion to them."""
    runs = [row.run(0) for row in rows]
    known = cost.rates_elsewhere(runs, [pool]) or cost.rates_elsewhere([cifar_table.rows("paper")[0].run(0)], [pool])
    rates = known | cost.estimated_rates([cifar_table.rows("paper")[0].run(0), *runs], known)
    if not seeds.isdigit() or any(cost.work_of(run) not in rates for run in runs):
        return NONE
    return number(int(seeds) * sum(rates[cost.work_of(run)].hours(run) for run in runs))
