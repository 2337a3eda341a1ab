"""The file of reported numbers against the numbers as the sources print them, and its errors."""

from collections import Counter
from statistics import mean, stdev

import pytest

from reproductions import reported
from reproductions.experiments import EXPERIMENTS
from reproductions.harness.reporting.frame import METRICS
from reproductions.reported import ReportedError

NO_ADDRESS = ("pytorch_option_a", "finetune_report", "stem_report")
ACCURACIES = ["top-1 accuracy", "top-5 accuracy"]


def printed(metrics: list[str], lines: dict[str, str]) -> dict[tuple[str, str], list[str]]:
    """Lines of single numbers, one for each of the metrics, by key."""
    return {
        (key, metric): [f"{value} (single)"]
        for key, line in lines.items()
        for metric, value in zip(metrics, line.split(), strict=True)
    }


# (key, metric) of a source: as printed. Written down a second time, so that a slip of the pen in the file shows.
PRINTED = {
    "he2015": {
        ("resnet20", "test error"): ["8.75 (single)"],
        ("resnet32", "test error"): ["7.51 (single)"],
        ("resnet44", "test error"): ["7.17 (single)"],
        ("resnet56", "test error"): ["6.97 (single)"],
        ("resnet110", "test error"): ["6.61 ± 0.16 (mean of 5)", "6.43 (best of 5)"],
        ("resnet1202", "test error"): ["7.93 (single)"],
        ("resnet1202", "training error"): ["< 0.1 (bound)"],
        ("resnet20", "parameters"): ["0.27 (single)"],
        ("resnet32", "parameters"): ["0.46 (single)"],
        ("resnet44", "parameters"): ["0.66 (single)"],
        ("resnet56", "parameters"): ["0.85 (single)"],
        ("resnet110", "parameters"): ["1.7 (single)"],
        ("resnet1202", "parameters"): ["19.4 (single)"],
        ("plain20", "test error"): ["≈ 9 (read off a figure)"],
        ("plain56", "test error"): ["≈ 13 (read off a figure)"],
        ("plain110", "test error"): ["> 60 (bound)"],
        **printed(
            ["FLOPs"],
            {
                "imagenet_resnet18": "1.8",
                "imagenet_resnet34a": "3.6",
                "imagenet_resnet50": "3.8",
                "imagenet_resnet101": "7.6",
                "imagenet_resnet152": "11.3",
            },
        ),
        **printed(
            ["top-1 error, 10-crop"],
            {
                "imagenet_plain18": "27.94",
                "imagenet_plain34": "28.54",
                "imagenet_resnet18": "27.88",
                "imagenet_resnet34a": "25.03",
            },
        ),
        ("imagenet_plain34", "top-5 error, 10-crop"): ["10.02 (single)"],
        ("imagenet_resnet34a", "top-5 error, 10-crop"): ["7.76 (single)"],
        **printed(
            ["top-1 error, 10-crop", "top-5 error, 10-crop", "top-1 error, multi-scale", "top-5 error, multi-scale"],
            {
                "imagenet_resnet34b": "24.52 7.46 21.84 5.71",
                "imagenet_resnet34c": "24.19 7.40 21.53 5.60",
                "imagenet_resnet50": "22.85 6.71 20.74 5.25",
                "imagenet_resnet101": "21.75 6.05 19.87 4.60",
                "imagenet_resnet152": "21.43 5.71 19.38 4.49",
            },
        ),
    },
    "bot2018": {
        **printed(
            ["FLOPs, as the paper compares them", *ACCURACIES],
            {
                "bot_compared_resnet50": "3.9 75.3 92.2",
                "bot_compared_se_resnet50": "3.9 76.71 93.38",
                "bot_compared_se_resnext50": "4.3 78.90 94.51",
                "bot_compared_densenet201": "4.3 77.42 93.66",
                "bot_compared_own": "4.3 79.29 94.63",
            },
        ),
        **printed(["FLOPs, as the paper compares them", "top-1 accuracy"], {"bot_compared_resnext50": "4.2 77.8"}),
        **printed(
            ACCURACIES,
            {
                "bot_baseline_resnet50": "75.87 92.70",
                "bot_baseline_inception_v3": "77.32 93.43",
                "bot_baseline_mobilenet": "69.03 88.71",
                "bot_reference_resnet50": "75.3 92.2",
                "bot_efficient_256_scaling": "75.87 92.70",
                "bot_efficient_256_warmup": "76.03 92.81",
                "bot_efficient_256_zero_gamma": "76.19 93.03",
                "bot_efficient_256_no_bias_decay": "76.16 92.97",
                "bot_efficient_256_fp16": "76.15 93.09",
                "bot_efficient_1024_scaling": "75.17 92.54",
                "bot_efficient_1024_warmup": "75.93 92.84",
                "bot_efficient_1024_zero_gamma": "76.37 92.96",
                "bot_efficient_1024_no_bias_decay": "76.03 92.86",
                "bot_efficient_1024_fp16": "76.21 92.97",
                "bot_refined_efficient": "77.16 93.52",
                "bot_refined_cosine": "77.91 93.81",
                "bot_refined_smoothing": "78.31 94.09",
                "bot_refined_distilled": "78.67 94.36",
                "bot_refined_mixup": "79.15 94.58",
                "bot_refined_mixup_distilled": "79.29 94.63",
            },
        ),
        ("bot_reference_inception_v3", "top-1 accuracy"): ["78.8 (unconfirmed) (single)"],
        ("bot_reference_inception_v3", "top-5 accuracy"): ["94.4 (unconfirmed) (single)"],
        ("bot_reference_mobilenet", "top-1 accuracy"): ["70.6 (unconfirmed) (single)"],
        ("bot_efficient_256_scaling", "time per epoch"): ["13.3 (single)"],
        ("bot_efficient_1024_fp16", "time per epoch"): ["4.4 (single)"],
        **printed(
            ["parameters", "FLOPs", *ACCURACIES],
            {
                "bot_resnet50": "25 3.8 76.21 92.97",
                "bot_resnet50b": "25 4.1 76.66 93.28",
                "bot_resnet50c": "25 4.3 76.87 93.48",
                "bot_resnet50d": "25 4.3 77.16 93.52",
            },
        ),
        **printed(
            ["top-1 accuracy", "mAP", "pixel accuracy", "mIoU"],
            {
                "bot_transfer_b_standard": "76.14 77.54 78.08 37.05",
                "bot_transfer_d_efficient": "77.16 78.30 78.88 38.88",
                "bot_transfer_cosine": "77.91 79.23 79.25 39.33",
                "bot_transfer_smoothing": "78.34 80.71 78.64 38.75",
                "bot_transfer_distilled": "78.67 80.96 78.97 38.90",
                "bot_transfer_mixup": "79.16 81.10 78.47 37.99",
                "bot_transfer_mixup_distilled": "79.29 81.33 78.72 38.40",
            },
        ),
    },
    "bot2019": {
        (f"bot_refined_{step}", metric): [f"{value} ± {std} (mean, number of runs not stated)"]
        for step, values in {
            "efficient": ("77.26 0.07", "93.53 0.05"),
            "cosine": ("77.73 0.13", "93.82 0.08"),
            "smoothing": ("78.37 0.09", "94.10 0.03"),
            "distilled": ("78.63 0.04", "94.38 0.03"),
            "mixup": ("79.01 0.09", "94.57 0.02"),
            "mixup_distilled": ("79.33 0.07", "94.66 0.03"),
        }.items()
        for metric, (value, std) in zip(ACCURACIES, map(str.split, values))
    },
    "mnist_report": {
        ("mnist_residual_epoch1", "top-1 accuracy"): ["96 (in whole percent, cut off)"],
        ("mnist_residual_epoch3", "top-1 accuracy"): ["98 (in whole percent, cut off)"],
        **{
            (f"mnist_residual_loss_{epoch}_{batches}", "mean training loss over 300 batches"): [f"{loss} (single)"]
            for epoch, losses in enumerate(
                ("0.535 0.165 0.121", "0.085 0.088 0.077", "0.060 0.060 0.060", "0.046 0.052 0.047", "0.039"), start=1
            )
            for batches, loss in zip((300, 600, 900), losses.split())
        },
    },
    "stem_report": {
        ("stem_resnet18", "top-1 accuracy"): ["86.79 (single)"],
        ("stem_resnet18", "training accuracy"): ["99.4 (single)"],
        ("stem_resnet18", "training loss"): ["0.018 (single)"],
        ("stem_resnet18_small", "top-1 accuracy"): ["95.17 (unconfirmed) (single)"],
    },
    "finetune_report": {
        ("finetune_scratch", "top-1 accuracy"): ["72.6 (single)"],
        ("finetune_finetuned", "top-1 accuracy"): ["88 (in whole percent)"],
        ("finetune_scratch", "training accuracy"): ["88 (in whole percent)"],
        ("finetune_finetuned", "training accuracy"): ["99 (in whole percent)"],
    },
    "kaiminghe": printed(
        ["top-1 error, 1-crop", "top-5 error, 1-crop"],
        {"imagenet_resnet50": "24.7 7.8", "imagenet_resnet101": "23.6 7.1", "imagenet_resnet152": "23.0 6.7"},
    ),
    "nabla0001": {
        ("resnet20", "test error"): ["8.51 ± 0.22 (mean of 5)"],
        ("resnet56", "test error"): ["7.40 ± 0.27 (mean of 5)"],
        ("resnet110", "test error"): ["7.14 ± 0.20 (mean of 5)"],
        ("plain20", "test error"): ["9.78 ± 0.13 (mean of 5)"],
        ("plain56", "test error"): ["12.95 ± 0.22 (mean of 5)"],
    },
    "akamaster": {
        ("resnet20", "test error"): ["8.27 (single)"],
        ("resnet32", "test error"): ["7.37 (single)"],
        ("resnet44", "test error"): ["6.90 (single)"],
        ("resnet56", "test error"): ["6.61 (single)"],
        ("resnet110", "test error"): ["6.32 (single)"],
        ("resnet1202", "test error"): ["6.18 (single)"],
    },
    "akamaster_again": {("resnet56", "test error"): ["7.56 ± 0.54 (mean of 6)"]},
    "hysts": {("resnet110", "test error"): ["6.52 (median of 3)"]},
    "gcr": {
        ("resnet20", "test error"): ["8.29 (single)"],
        ("resnet32", "test error"): ["7.63 (single)"],
        ("resnet44", "test error"): ["7.14 (single)"],
        ("resnet56", "test error"): ["6.94 (single)"],
        ("resnet110", "test error"): ["6.73 (single)", "6.97 (single)"],
    },
    "wooyeolbaek": {
        ("plain20", "test error"): ["9.74 (single)"],
        ("plain32", "test error"): ["10.41 (single)"],
        ("plain44", "test error"): ["11.73 (single)"],
        ("plain56", "test error"): ["11.86 (single)"],
        ("resnet20", "test error"): ["9.18 (single)"],
        ("resnet32", "test error"): ["8.68 (single)"],
        ("resnet44", "test error"): ["8.13 (single)"],
        ("resnet56", "test error"): ["7.10 (single)"],
        ("resnet110", "test error"): ["6.95 (single)"],
    },
    "tensorflow_models": {("resnet56", "test error"): ["6.88 ± 0.2 (mean of 5)"]},
    "pytorch_option_a": {
        ("resnet20", "test error"): ["8.586 ± 0.120 (mean of 5)"],
        ("resnet32", "test error"): ["7.728 ± 0.318 (mean of 5)"],
        ("resnet44", "test error"): ["7.540 ± 0.475 (mean of 5)"],
        ("resnet56", "test error"): ["7.884 ± 0.523 (mean of 5)"],
    },
}


def test_every_number_is_as_printed():
    found: dict = {}
    for number in reported.load():
        found.setdefault(number.source.key, {}).setdefault((number.key, number.metric), []).append(number.described)
    assert found == PRINTED


def test_every_number_says_where_it_is_from():
    for number in reported.load():
        large = {"ImageNet", "PASCAL VOC", "ADE20K"}
        data = {"imagenet": large, "bot": large, "mnist": {"MNIST"}, "finetune": {"14 classes of own images"}}
        data = data.get(number.key.split("_")[0], {"CIFAR-10"})
        assert number.data in data
        units = {"parameters": "million", "FLOPs": "billion", "time per epoch": "minutes"}
        units |= dict.fromkeys(("mean training loss over 300 batches", "training loss"), "nats")
        assert number.unit == units.get(number.metric.split(",")[0], "%")
        assert number.source.how if number.source.origin == "implementation" else number.where
        assert number.source.url.startswith("https://") or number.source.key in NO_ADDRESS


def test_no_source_gives_the_same_number_twice_without_saying_why():
    counts = Counter((n.source, n.key, n.metric, n.kind, n.note) for n in reported.load())
    assert max(counts.values()) == 1


def test_a_mean_is_compared_with_a_mean():
    target = reported.target("resnet110")
    assert (float(target.value), float(target.std), target.n, target.kind) == (6.61, 0.16, 5, "mean")
    assert float(reported.target("resnet20").value) == 8.75
    assert reported.target("plain56") is None  # read off a figure
    assert reported.target("plain32") is None  # not reported by the paper at all
    assert reported.target(None) is None


def test_one_implementation_has_one_letter_in_all_tables():
    sources = list(dict.fromkeys(n.source for n in reported.load() if n.source.origin == "implementation"))
    letters = [reported.letter(source) for source in sources]
    assert letters == list("abcdefghi") and sources[letters.index("c")].key == "akamaster"


def test_the_spread_of_six_runs_of_one_code_is_computed_from_what_its_user_reports():
    (again,) = [n for n in reported.load() if n.source.key == "akamaster_again"]
    errors = [7.40, 7.29, 7.40, 6.89, 8.42, 7.95]
    assert ", ".join(f"{error:.2f}" for error in errors) in again.source.how
    assert (f"{mean(errors):.2f}", f"{stdev(errors):.2f}") == (str(again.value), str(again.std))


def test_the_mean_of_an_unknown_number_of_runs_is_the_target_as_a_paper_gives_no_better():
    both = reported.in_paper("bot_refined_mixup", "top-1 accuracy")
    assert [(n.source.key, n.kind, n.n) for n in both] == [("bot2018", "single", None), ("bot2019", "mean", None)]
    assert reported.target("bot_refined_mixup", "top-1 accuracy") is both[1]


def test_papers_and_implementations_are_kept_apart():
    assert [str(n) for n in reported.in_paper("resnet56")] == ["6.97"]
    sources = [number.source.key for number in reported.elsewhere("resnet56")]
    assert sources == [
        "nabla0001",
        "akamaster",
        "akamaster_again",
        "gcr",
        "wooyeolbaek",
        "tensorflow_models",
        "pytorch_option_a",
    ]
    assert reported.in_paper("plain44") == []
    assert reported.in_paper(None) == reported.elsewhere(None) == []


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_every_key_of_a_row_is_known(experiment):
    metric = METRICS[experiment.metric]
    for row in experiment.rows("paper"):
        if row.reported is not None:
            assert reported.find(row.reported, metric)
        if metric.startswith("top-1") and row.reported is not None:
            assert reported.target(row.reported, metric)


def test_the_index_finds_what_is_reported_of_every_table():
    found = {}
    for experiment in EXPERIMENTS:
        if keys := [row.reported for row in experiment.rows("paper") if row.reported]:
            found[experiment.name] = any(reported.target(key, METRICS[experiment.metric]) for key in keys)
    assert "imagenet_table" in found and all(found.values()), found


def test_the_tables_of_papers_have_a_reported_number_in_every_row():
    own = {"precision", "protocol_details", "mnist_residual", "finetune", "layer_responses", "cifar_imagenet_stem"}
    for experiment in EXPERIMENTS:
        if experiment.name not in own:
            rows = experiment.rows("paper")
            assert all(row.reported for row in rows if not row.on_request), experiment.name


def test_unknown_key_is_an_error_that_lists_what_there_is():
    with pytest.raises(ReportedError, match=r"nothing is reported under 'resnet21'.*resnet20, resnet32"):
        reported.find("resnet21")


HEAD = '[a]\norigin = "paper"\nname = "A"\n[[a.tables]]\ndata = "d"\nmetric = "test error"\nunit = "%"\n'


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{ key = "x", kind = "guess", value = 1.0 }', "kind must be one of"),
        ('{ key = "x", kind = "best", value = 1.0 }', "'best' with n = None"),
        ('{ key = "x", kind = "median", value = 1.0 }', "'median' with n = None"),
        ('{ key = "x", kind = "single", value = 1.0, n = 5 }', "'single' with n = 5"),
        ('{ key = "x", kind = "single", value = 1.0, std = 0.1 }', "std = 0.1"),
        ('{ key = "x", kind = "single" }', "value"),
        ('{ key = "x", kind = "single", value = 1.0, colour = "red" }', "colour"),
    ],
)
def test_a_wrong_line_is_an_error_that_names_the_section(tmp_path, line, complaint):
    path = tmp_path / "reported.toml"
    path.write_text(f"{HEAD}values = [{line}]\n")
    with pytest.raises(ReportedError, match=rf"section a: .*{complaint}"):
        reported.load(path)


def test_unconfirmed_numbers_are_marked(tmp_path):
    path = tmp_path / "reported.toml"
    path.write_text(f'{HEAD}values = [{{ key = "x", kind = "single", value = 70.60, unconfirmed = true }}]\n')
    assert reported.load(path)[0].described == "70.60 (unconfirmed) (single)"
