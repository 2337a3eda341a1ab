"""Report of both tables: values, paired effects of the steps, claims as tests, a plot, and pictures of test images."""

from functools import partial
from pathlib import Path

from reproductions import reported
from reproductions.bag_of_tricks.ladder import ladder
from reproductions.harness.experiment import Experiment, Variant
from reproductions.harness.reporting import compare, intervals
from reproductions.harness.reporting.claims import Claim, Finding, claims_numbers, claims_section, judge
from reproductions.harness.reporting.compare import Step
from reproductions.harness.reporting.figure import save
from reproductions.harness.reporting.found import Found, of_findings
from reproductions.harness.reporting.frame import METRICS, final_values
from reproductions.harness.reporting.page import Column, Headline, Page
from reproductions.harness.reporting.text import NONE, interval, mean_std, signed
from reproductions.transfer import pictures
from reproductions.transfer.protocol import SETTINGS, UNTRAINED, rows

PLACE = "He T. et al. 2018, section 6"
NOTE = (
    "; that a step does not help is tested as that it harms, because no test shows that there is no difference at all. "
    "Claims compare rows as wholes, but steps compare runs with the same seed, so the same difference has another "
    "interval there"
)


def write(page: Page, metrics: tuple[str, ...]) -> list[Path]:
    """Write the table of these metrics, the page's own first; return the files."""
    on_papers_data = page.experiment.dataset in ("voc", "ade20k")
    agreement = "confirmed" if on_papers_data else "carries over"
    columns = [page.net("network that it begins with"), *_base_accuracy(page)]
    for metric in metrics:
        columns += [page.published(metric), page.reproduced(metric)]
        columns += [page.interval()] if metric == page.metric else []
        columns += page.reported_by_source(metric)
    columns += [page.difference(), *page.verdict()] if on_papers_data else []
    steps = {metric: _steps(page, metric) for metric in metrics}
    findings = find(page)
    headings = {metric: f"What each step does to {METRICS[metric]}" for metric in metrics}
    every = [step for own in steps.values() for step in own]
    sections = [
        compare.steps_section(own, page.variant, agreement, headings[metric], compare.count_steps(every))
        for metric, own in steps.items()
        if own
    ]
    shown = pictures.figure(page.results, page.variant, page.out)
    return [
        *page.write(columns, [*sections, claims_section(findings, NOTE)]),
        *([page.write_csv(compare.steps_numbers(every, page.variant, agreement), "steps")] if every else []),
        *([page.write_csv(claims_numbers(findings), "claims")] if findings else []),
        *save(ladder({"": page.results}, page.variant, page.metric), page.plot_path("ladder"), page.description),
        *save(shown, page.plot_path("pictures"), page.description),
    ]


def _steps(page: Page, metric: str) -> list[Step]:
    """Return the steps whose both rows the page has: rows on request may be missing."""
    known = {result.row.key: result for result in page.results}
    return [Step(r, known[r.row.after], metric) for r in page.results if r.row.after in known]


def _base_accuracy(page: Page) -> list[Column]:
    """Return the columns of the classifiers' accuracies: the paper's, on ImageNet, and the records'."""
    metric = "top1_accuracy"
    heading = f"{METRICS[metric]} of the classifier"
    numbers = [next(iter(reported.in_paper(r.row.reported, METRICS[metric])), None) for r in page.results]
    samples = [final_values(result.pretrained, metric) for result in page.results]
    note = (
        "The classifiers are the runs of the ladder with the same seeds, whose final networks the rows begin with. The "
        "classifiers' accuracies are on their own test images."
    )
    return [
        Column(f"{heading} on ImageNet, reported", [str(n or NONE) for n in numbers],
               {"classifier_reported": [n and float(n.value) for n in numbers]}, shown=any(numbers)),
        Column(heading, [mean_std(sample) or NONE for sample in samples],
               {"classifier_mean": [intervals.mean(sample) for sample in samples]}, note, shown=any(samples)),
    ]  # fmt: skip


def claims(task: str, variant: Variant) -> list[Claim]:
    """Return the paper's claims on the task, and on canvases that training on images helps at all."""
    without = "cosine" if variant.profile == "paper" else "efficient"
    what = f"training the classifier with {'' if variant.profile == 'paper' else 'cosine decay and '}label smoothing"
    name = "smoothing" if variant.profile == "paper" else "cosine_smoothing"
    first = "mean_iou" if task == "segmentation" else "map_11_point"
    trained = Claim("trained", f"a trained classifier is a better beginning than random weights: {METRICS[first]}",
                    "", ("efficient", UNTRAINED), (1, -1), first)  # fmt: skip
    if task == "detection":
        text = f"{what} helps detection: mAP"
        return [trained, Claim(f"{name}_helps", text, PLACE, ("smoothing", without), (1, -1), "map_11_point")]
    return [
        trained,
        *(
            Claim(f"{name}_harms_{metric}", f"{what} does not help segmentation: {METRICS[metric]}",
                  PLACE, (without, "smoothing"), (1, -1), metric)
            for metric in ("mean_iou", "pixel_accuracy")
        ),
    ]  # fmt: skip


def find(page: Page) -> list[Finding]:
    """Judge the claims whose rows the page has by the runs."""
    there = {result.row.key for result in page.results}
    task = page.results[0].row.task.name
    return judge([c for c in claims(task, page.variant) if there >= {*c.nets}], page.results, page.variant)


def claimed(page: Page) -> list[Found]:
    """Return the findings on the claims, for the page of all claims."""
    return of_findings(find(page))


def headline(page: Page) -> Headline:
    """Return the paper's claim with the finding on it; without the claim's rows, the last row."""
    findings = [finding for finding in find(page) if finding.claim.where]
    if not findings:
        last = page.results[-1]
        return Headline(last.row.label, NONE, mean_std(final_values(last.records, page.metric)) or NONE, NONE)
    one = findings[0]
    bounds = interval(one.test and one.test.interval, signed)
    return Headline(one.claim.text, signed(one.reported), f"{signed(one.effect)} {bounds}", one.statement)


def tables(task: str, table: str, metrics: tuple[str, ...]) -> dict[str, Experiment]:
    """Return a table's experiments by the data sets' names, canvases first; the first metric is the pages' own."""
    script = f"transfer_{task}"
    on = {"canvas": "canvases of CIFAR-10's images", "voc": "PASCAL VOC", "ade20k": "ADE20K"}
    return {
        dataset: Experiment(
            name=script if dataset == "canvas" else f"{script}_{dataset}",
            title=f"Transfer of classifiers to {task} on {on[dataset]}",
            source=f"He T. et al. 2018, {table}" + (", asked of other data" if dataset == "canvas" else ""),
            rows=lambda profile, settings=settings: rows(settings[profile], profile),
            report=partial(write, metrics=metrics),
            seeds={"paper": 5 if dataset == "canvas" else 3, "short": 3, "smoke": 1},
            metric=metrics[0],
            headline=headline,
            claims=claimed,
            script=script,
            module=script.replace("transfer_", "transfer."),
            dataset=None if dataset == "canvas" else dataset,
            epilog="" if dataset == "canvas" else "With --backbones, weights that exist: docs/transfer.md.",
            protocol="all of this suite's own protocol" if dataset == "canvas" else "the paper's protocol",
            measure=pictures.PICTURES.make_missing,
            measurements=(pictures.PICTURES,),
        )
        for dataset, settings in SETTINGS[task].items()
    }
