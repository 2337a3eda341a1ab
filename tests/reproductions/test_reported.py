"""The file of reported numbers against the numbers as the sources print them, and its errors."""

from collections import Counter

import pytest

from reproductions import cifar_table, degradation, reported
from reproductions.reported import ReportedError

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
    },
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
    },
    "hysts": {("resnet110", "test error"): ["6.52 (median of 3)"]},
    "gcr": {
        ("resnet20", "test error"): ["8.29 (single)"],
        ("resnet32", "test error"): ["7.63 (single)"],
        ("resnet44", "test error"): ["7.14 (single)"],
        ("resnet56", "test error"): ["6.94 (single)"],
        ("resnet110", "test error"): ["6.73 (single)"],
    },
    "wooyeolbaek": {
        ("plain20", "test error"): ["9.74 (single)"],
        ("plain32", "test error"): ["10.41 (single)"],
        ("plain44", "test error"): ["11.73 (single)"],
        ("plain56", "test error"): ["11.86 (single)"],
    },
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
        assert number.data == "CIFAR-10"
        assert number.unit == ("million" if number.metric == "parameters" else "%")
        assert number.where if number.source.origin == "paper" else number.source.how
        assert number.source.url.startswith("https://") or number.source.key == "pytorch_option_a"


def test_no_source_gives_the_same_number_twice():
    counts = Counter((n.source, n.key, n.metric, n.kind) for n in reported.load())
    assert max(counts.values()) == 1


def test_a_mean_is_compared_with_a_mean():
    target = reported.target("resnet110")
    assert (float(target.value), float(target.std), target.n, target.kind) == (6.61, 0.16, 5, "mean")
    assert float(reported.target("resnet20").value) == 8.75
    assert reported.target("plain56") is None  # read off a figure
    assert reported.target("plain32") is None  # not reported by the paper at all
    assert reported.target(None) is None


def test_papers_and_implementations_are_kept_apart():
    assert [str(n) for n in reported.in_paper("resnet56")] == ["6.97"]
    sources = [number.source.key for number in reported.elsewhere("resnet56")]
    assert sources == ["nabla0001", "akamaster", "gcr", "pytorch_option_a"]
    assert reported.in_paper("plain44") == []
    assert reported.in_paper(None) == reported.elsewhere(None) == []


@pytest.mark.parametrize("experiment", [cifar_table.EXPERIMENT, degradation.EXPERIMENT], ids=lambda e: e.name)
def test_every_row_of_the_paper_profile_is_known(experiment):
    for row in experiment.rows("paper"):
        assert reported.find(row.reported)


def test_unknown_key_is_an_error_that_lists_what_there_is():
    with pytest.raises(ReportedError, match=r"nothing is reported under 'resnet21'.*resnet20, resnet32"):
        reported.find("resnet21")


HEAD = '[a]\norigin = "paper"\nname = "A"\n[[a.tables]]\ndata = "d"\nmetric = "test error"\nunit = "%"\n'


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{ key = "x", kind = "guess", value = 1.0 }', "kind must be one of"),
        ('{ key = "x", kind = "best", value = 1.0 }', "'best' with n = None"),
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
