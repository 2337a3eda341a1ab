"""The file of reported numbers against the numbers as the sources print them, and its errors."""

from collections import Counter
from statistics import mean, stdev

import pytest

from reproductions import reported
from reproductions.experiments import EXPERIMENTS
from reproductions.harness.reporting.frame import METRICS
from reproductions.reported import ReportedError

NO_ADDRESS = ("pytorch_option_a", "finetune_report", "stem_report")
ACCURACIES = "top-1 accuracy; top-5 accuracy"


def printed(metrics: str, lines: str, prefix: str = "", kind: str = "single") -> dict[tuple[str, str], list[str]]:
    """Numbers by key: ``metrics`` parted by semicolons, lines such as ``resnet20 8.75`` by commas."""
    found = {}
    for line in lines.split(","):
        key, *values = line.split()
        for metric, value in zip(metrics.split("; "), values, strict=True):
            found[prefix + key, metric] = [f"{value.replace('±', ' ± ').replace('?', ' (unconfirmed)')} ({kind})"]
    return found


# (key, metric) of a source: as printed. Written down a second time, so that a slip of the pen in the file shows.
PRINTED = {
    "he2015": {
        **printed("test error", "resnet20 8.75, resnet32 7.51, resnet44 7.17, resnet56 6.97, resnet1202 7.93"),
        ("resnet110", "test error"): ["6.61 ± 0.16 (mean of 5)", "6.43 (best of 5)"],
        ("resnet1202", "training error"): ["< 0.1 (bound)"],
        **printed("parameters", "resnet20 0.27, resnet32 0.46, resnet44 0.66, resnet56 0.85, resnet110 1.7"),
        **printed("parameters", "resnet1202 19.4"),
        ("plain20", "test error"): ["≈ 9 (read off a figure)"],
        ("plain56", "test error"): ["≈ 13 (read off a figure)"],
        ("plain110", "test error"): ["> 60 (bound)"],
        **printed("FLOPs", "18 1.8, 34a 3.6, 50 3.8, 101 7.6, 152 11.3", "imagenet_resnet"),
        **printed("top-1 error, 10-crop", "plain18 27.94, plain34 28.54, resnet18 27.88, resnet34a 25.03", "imagenet_"),
        **printed("top-5 error, 10-crop", "plain34 10.02, resnet34a 7.76", "imagenet_"),
        **printed(
            "top-1 error, 10-crop; top-5 error, 10-crop; top-1 error, multi-scale; top-5 error, multi-scale",
            "34b 24.52 7.46 21.84 5.71, 34c 24.19 7.40 21.53 5.60, 50 22.85 6.71 20.74 5.25, "
            "101 21.75 6.05 19.87 4.60, 152 21.43 5.71 19.38 4.49",
            "imagenet_resnet",
        ),
    },
    "bot2018": {
        **printed(
            f"FLOPs, as the paper compares them; {ACCURACIES}",
            "resnet50 3.9 75.3 92.2, se_resnet50 3.9 76.71 93.38, se_resnext50 4.3 78.90 94.51, "
            "densenet201 4.3 77.42 93.66, own 4.3 79.29 94.63",
            "bot_compared_",
        ),
        **printed("FLOPs, as the paper compares them; top-1 accuracy", "bot_compared_resnext50 4.2 77.8"),
        **printed(
            ACCURACIES,
            "baseline_resnet50 75.87 92.70, baseline_inception_v3 77.32 93.43, baseline_mobilenet 69.03 88.71, "
            "reference_resnet50 75.3 92.2, reference_inception_v3 78.8? 94.4?, efficient_256_scaling 75.87 92.70, "
            "efficient_256_warmup 76.03 92.81, efficient_256_zero_gamma 76.19 93.03, "
            "efficient_256_no_bias_decay 76.16 92.97, efficient_256_fp16 76.15 93.09, "
            "efficient_1024_scaling 75.17 92.54, efficient_1024_warmup 75.93 92.84, "
            "efficient_1024_zero_gamma 76.37 92.96, efficient_1024_no_bias_decay 76.03 92.86, "
            "efficient_1024_fp16 76.21 92.97, refined_efficient 77.16 93.52, refined_cosine 77.91 93.81, "
            "refined_smoothing 78.31 94.09, refined_distilled 78.67 94.36, refined_mixup 79.15 94.58, "
            "refined_mixup_distilled 79.29 94.63",
            "bot_",
        ),
        **printed("top-1 accuracy", "bot_reference_mobilenet 70.6?"),
        **printed("time per epoch", "256_scaling 13.3, 1024_fp16 4.4", "bot_efficient_"),
        **printed(
            f"parameters; FLOPs; {ACCURACIES}",
            "50 25 3.8 76.21 92.97, 50b 25 4.1 76.66 93.28, 50c 25 4.3 76.87 93.48, 50d 25 4.3 77.16 93.52",
            "bot_resnet",
        ),
        **printed(
            "top-1 accuracy; mAP; pixel accuracy; mIoU",
            "b_standard 76.14 77.54 78.08 37.05, d_efficient 77.16 78.30 78.88 38.88, cosine 77.91 79.23 79.25 39.33, "
            "smoothing 78.34 80.71 78.64 38.75, distilled 78.67 80.96 78.97 38.90, mixup 79.16 81.10 78.47 37.99, "
            "mixup_distilled 79.29 81.33 78.72 38.40",
            "bot_transfer_",
        ),
    },
    "bot2019": printed(
        ACCURACIES,
        "efficient 77.26±0.07 93.53±0.05, cosine 77.73±0.13 93.82±0.08, smoothing 78.37±0.09 94.10±0.03, "
        "distilled 78.63±0.04 94.38±0.03, mixup 79.01±0.09 94.57±0.02, mixup_distilled 79.33±0.07 94.66±0.03",
        "bot_refined_",
        "mean, number of runs not stated",
    ),
    "mnist_report": {
        **printed("top-1 accuracy", "epoch1 96, epoch3 98", "mnist_residual_", "in whole percent, cut off"),
        **printed(
            "mean training loss over 300 batches",
            "1_300 0.535, 1_600 0.165, 1_900 0.121, 2_300 0.085, 2_600 0.088, 2_900 0.077, 3_300 0.060, 3_600 0.060, "
            "3_900 0.060, 4_300 0.046, 4_600 0.052, 4_900 0.047, 5_300 0.039",
            "mnist_residual_loss_",
        ),
    },
    "stem_report": {
        **printed("top-1 accuracy; training accuracy; training loss", "stem_resnet18 86.79 99.4 0.018"),
        **printed("top-1 accuracy", "stem_resnet18_small 95.17?"),
    },
    "finetune_report": {
        **printed("top-1 accuracy", "finetune_scratch 72.6"),
        **printed("top-1 accuracy", "finetune_finetuned 88", kind="in whole percent"),
        **printed("training accuracy", "scratch 88, finetuned 99", "finetune_", "in whole percent"),
    },
    "kaiminghe": printed(
        "top-1 error, 1-crop; top-5 error, 1-crop", "50 24.7 7.8, 101 23.6 7.1, 152 23.0 6.7", "imagenet_resnet"
    ),
    "nabla0001": printed(
        "test error",
        "resnet20 8.51±0.22, resnet56 7.40±0.27, resnet110 7.14±0.20, plain20 9.78±0.13, plain56 12.95±0.22",
        kind="mean of 5",
    ),
    "akamaster": printed("test error", "20 8.27, 32 7.37, 44 6.90, 56 6.61, 110 6.32, 1202 6.18", "resnet"),
    "akamaster_again": printed("test error", "resnet56 7.56±0.54", kind="mean of 6"),
    "hysts": printed("test error", "resnet110 6.52", kind="median of 3"),
    "gcr": {
        **printed("test error", "20 8.29, 32 7.63, 44 7.14, 56 6.94", "resnet"),
        ("resnet110", "test error"): ["6.73 (single)", "6.97 (single)"],
    },
    "wooyeolbaek": {
        **printed("test error", "20 9.74, 32 10.41, 44 11.73, 56 11.86", "plain"),
        **printed("test error", "20 9.18, 32 8.68, 44 8.13, 56 7.10, 110 6.95", "resnet"),
    },
    "tensorflow_models": printed("test error", "resnet56 6.88±0.2", kind="mean of 5"),
    "pytorch_option_a": printed(
        "test error", "20 8.586±0.120, 32 7.728±0.318, 44 7.540±0.475, 56 7.884±0.523", "resnet", "mean of 5"
    ),
    "chenyaofo": printed(
        "test error; top-5 error",
        "20 31.17 8.99, 32 29.84 9.11, 44 28.37 8.42, 56 27.37 8.06",  # of 68.83 and 91.01 %, and so on
        "cifar100_resnet",
    ),
    "bearpaw": printed("test error", "cifar100_resnet110 28.86"),
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
        data["cifar100"] = {"CIFAR-100"}
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
    assert letters == list("abcdefghijk") and sources[letters.index("c")].key == "akamaster"


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
    no_paper = {"cifar_table_cifar100", "degradation_cifar100"}  # other implementations only
    assert "imagenet_table" in found and {name for name, known in found.items() if not known} == no_paper


def test_the_tables_of_papers_have_a_reported_number_in_every_row():
    own = {"precision", "protocol_details", "mnist_residual", "finetune", "layer_responses", "cifar_imagenet_stem"}
    own.add("degradation_cifar100")  # no plain nets
    for experiment in EXPERIMENTS:
        if experiment.name not in own:
            rows = experiment.rows("paper")
            assert all(row.reported for row in rows if not row.on_request and row.key != "untrained"), experiment.name


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
