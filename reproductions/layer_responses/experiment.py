"""He et al. 2015, Figure 7: standard deviations of layer responses on CIFAR-10.

    python -m reproductions.layer_responses --profile paper --seeds 5

The runs are the CIFAR-10 table's and the degradation experiment's; finished ones are not trained again. The responses
of their final networks are measured once and kept beside the records; see
:mod:`reproductions.layer_responses.responses`.
"""

from pathlib import Path

from reproductions import cifar_table, degradation
from reproductions.harness.experiment import Experiment, Row
from reproductions.harness.reporting.figure import save
from reproductions.harness.reporting.footnotes import is_published
from reproductions.harness.reporting.page import Page
from reproductions.layer_responses import report as reporting
from reproductions.layer_responses.responses import RESPONSES


def depths(profile: str) -> tuple[int, int, int]:
    """Return the profile's three depths; the deepest has no plain net."""
    return (8, 26, 32) if profile == "smoke" else (20, 56, 110)


def rows(profile: str) -> list[Row]:
    """Return the rows: plain-20 and 56, ResNet-20, 56 and 110; in the smoke profile depths 8, 26 and 32."""
    shallow, deep, deepest = depths(profile)
    known = {row.key: row for row in (*degradation.rows(profile), *cifar_table.rows(profile))}
    keys = [f"plain{shallow}", f"plain{deep}", f"resnet{shallow}", f"resnet{deep}", f"resnet{deepest}"]
    return [known[key] for key in keys]


def pairs(profile: str) -> list[tuple[str, str]]:
    """Return pairs of row keys; in the paper, the first row has the smaller responses.

    Residual nets are paired with plain ones, and deeper residual nets with shallower ones.
    """
    shallow, deep, deepest = depths(profile)
    residual = [(f"resnet{depth}", f"plain{depth}") for depth in (shallow, deep)]
    return [*residual, (f"resnet{deep}", f"resnet{shallow}"), (f"resnet{deepest}", f"resnet{deep}")]


def report(page: Page) -> list[Path]:
    """Write each net's mean and maximum response, the paper's comparisons, and its figure; return the files.

    Nothing is written if the published table would have no numbers.
    """
    nets, comparisons = _measured(page)
    if is_published(page.results) and not any(net.responses for net in nets):
        return []
    description = f"{page.description}; {reporting.origin(nets)}"
    return [
        *page.write(reporting.columns(page, nets), [reporting.section(comparisons)]),
        page.write_csv(reporting.with_digest(reporting.layer_numbers(nets), nets), "layers"),
        page.write_csv(reporting.with_digest(reporting.comparison_numbers(comparisons), nets), "comparisons"),
        *save(reporting.figure(nets, page.variant), page.plot_path("layers"), description),
    ]


def _measured(page: Page) -> tuple[list[reporting.Net], list[reporting.Comparison]]:
    """Return the page's nets with the responses of their runs, and the comparisons of their pairs."""
    nets = reporting.find_nets(page.results, page.out)
    return nets, reporting.compare(nets, pairs(page.variant.profile), page.variant)


EXPERIMENT = Experiment(
    name="layer_responses",
    title="Layer responses on CIFAR-10",
    source="He et al. 2015, Figure 7",
    rows=rows,
    report=report,
    headline=lambda page: reporting.headline(*_measured(page)),
    claims=lambda page: reporting.found(_measured(page)[1]),
    measure=RESPONSES.make_missing,
    measurements=(RESPONSES,),
)
