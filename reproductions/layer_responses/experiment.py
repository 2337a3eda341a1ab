"""He et al. 2015, Figure 7: standard deviations of layer responses on CIFAR-10.

    python -m reproductions.layer_responses --profile paper --seeds 5

The runs are those of the CIFAR-10 table and of the degradation experiment: what they have trained is not trained again.
Their final networks' responses are measured once and kept beside the records; see
:mod:`reproductions.layer_responses.responses`.
"""

from pathlib import Path

from reproductions import cifar_table, degradation
from reproductions.harness.experiment import Experiment, Row
from reproductions.harness.reporting.figure import save
from reproductions.harness.reporting.footnotes import is_published
from reproductions.harness.reporting.page import Headline, Page
from reproductions.layer_responses import report as responses
from reproductions.layer_responses.measuring import RESPONSES


def depths(profile: str) -> tuple[int, int, int]:
    return (8, 26, 32) if profile == "smoke" else (20, 56, 110)


def rows(profile: str) -> list[Row]:
    """Plain-20, plain-56, ResNet-20, 56, 110; in the smoke profile 8 and 26, and 8, 26, 32."""
    shallow, deep, deepest = depths(profile)
    known = {row.key: row for row in (*degradation.rows(profile), *cifar_table.rows(profile))}
    keys = [f"plain{shallow}", f"plain{deep}", f"resnet{shallow}", f"resnet{deep}", f"resnet{deepest}"]
    return [known[key] for key in keys]


def pairs(profile: str) -> list[tuple[str, str]]:
    """Rows of which the paper finds that the first has the smaller responses: residual nets, and deeper ones."""
    shallow, deep, deepest = depths(profile)
    residual = [(f"resnet{depth}", f"plain{depth}") for depth in (shallow, deep)]
    return [*residual, (f"resnet{deep}", f"resnet{shallow}"), (f"resnet{deepest}", f"resnet{deep}")]


def report(page: Page) -> list[Path]:
    """The responses of each net in two numbers, what the paper finds of them, and its figure.

    Nothing where the published table would be one without numbers.
    """
    nets = responses.find_nets(page.results, page.out)
    if is_published(page.results) and not any(net.responses for net in nets):
        return []
    comparisons = responses.compare(nets, pairs(page.variant.profile), page.variant)
    description = f"{page.description}; {responses.origin(nets)}"
    return [
        *page.write(responses.columns(page, nets), [responses.section(comparisons)]),
        page.write_csv(responses.with_digest(responses.layer_numbers(nets), nets), "layers"),
        page.write_csv(responses.with_digest(responses.comparison_numbers(comparisons), nets), "comparisons"),
        *save(responses.figure(nets, page.variant), page.plot_path("layers"), description),
    ]


def headline(page: Page) -> Headline:
    """The last pair of nets whose responses were measured: are the first one's smaller, as in the paper?"""
    nets = responses.find_nets(page.results, page.out)
    return responses.headline(nets, responses.compare(nets, pairs(page.variant.profile), page.variant))


EXPERIMENT = Experiment(
    name="layer_responses",
    title="Layer responses on CIFAR-10",
    source="He et al. 2015, Figure 7",
    rows=rows,
    report=report,
    headline=headline,
    measure=RESPONSES.make_missing,
)
