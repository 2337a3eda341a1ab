"""Tables made from records: their numbers, what they say of missing and lost runs, and where they came from."""

import math
import re
import statistics
from dataclasses import replace

import pytest
from fakes import make_pool, make_record, make_results, move, numbers_of, page_of, report_on, store
from printed import lines_of
from scipy import stats

from reproductions import cifar_table, degradation, precision, reported
from reproductions.bag_of_tricks import efficient as bag_of_tricks_efficient
from reproductions.cifar_imagenet_stem import experiment as cifar_imagenet_stem
from reproductions.harness.experiment import RowResult, Variant
from reproductions.harness.records import ORIGIN, read_pool, records_digest
from reproductions.harness.reporting import compare, footnotes, intervals, text
from reproductions.harness.reporting.index import write_index
from reproductions.harness.reporting.intervals import Interval
from reproductions.harness.reporting.page import ReportError, of_fullest_row, write_report
from reproductions.harness.reporting.text import markdown_table
from reproductions.plan import plan
from resnet.models import count_parameters, create_model

pytestmark = pytest.mark.usefixtures("no_plots")
TABLE, DEGRADATION = cifar_table.EXPERIMENT, degradation.EXPERIMENT
PAPER, SHORT, SMOKE = Variant("paper"), Variant("short"), Variant("smoke")
ERRORS = {
    "resnet20": [8.71, 8.55, 8.93, 8.60, 8.81],
    "resnet32": [7.62, 7.70, 7.41],
    "resnet44": [7.50, None, 7.31, 7.20, 7.05],
    "resnet56": [7.02],
    "resnet110": [],
}


def report_pools(pool, published, out):
    """The table of the records of two pools."""
    return write_report(TABLE, PAPER, TABLE.results(PAPER, 5, pool, published), out)


def text_on(errors, root, variant=PAPER, **more) -> str:
    """The Markdown of a table of residual nets that end at these errors."""
    return report_on(TABLE, variant, errors, root, **more)[0].read_text()


def rows_of(text) -> list[dict[str, str]]:
    """The lines of a Markdown text's first table as dictionaries by heading."""
    heading, *rows = lines_of(text.split("\n\n")[2])
    return [dict(zip(heading, row, strict=True)) for row in rows]


@pytest.fixture
def published(tmp_path):
    """The published table's text and numbers."""
    markdown, table, *_ = report_on(TABLE, PAPER, ERRORS, tmp_path)
    return markdown.read_text(), numbers_of(table)


def test_heading_names_title_source_and_profile(published, tmp_path):
    title = "# CIFAR-10 test error of residual nets\n\nHe et al. 2015, Table 6 · "
    assert published[0].startswith(f"{title}the paper's protocol\n\n| net ")
    smoke, *_ = report_on(TABLE, SMOKE, {}, tmp_path / "smoke", published={})
    assert smoke.name == "cifar_table_smoke.md"
    assert smoke.read_text().startswith(f"{title}smoke profile: synthetic data, not comparable with the paper\n")


def test_every_cell_of_a_complete_row(published):
    assert rows_of(published[0])[0] == {
        "net": "ResNet-20",
        "parameters": "269,722",
        "test error, reported": "8.75 (single)",
        "test error, reproduced": "8.72 ± 0.15 (n = 5)",
        "95 % t-interval": "[8.53, 8.91]",  # 8.72 ± 2.7764 · 0.15460 / sqrt(5)
        "best of n": "8.55",
        "expected best of 5": "8.54",  # 8.72 - 1.16296 · 0.15460
        "best over the curve (selected on the test set)": "8.72 ± 0.15",
        "difference from reported": "−0.03",
        "95 % prediction interval (of 1 more run)": "[8.25, 9.19]",  # 8.72 ± 2.7764 · 0.15460 · sqrt(6 / 5)
        "reported number": "not contradicted (± 0.47)",
        "test error, other implementations": "8.51 ± 0.22 (b); 8.27 (c); 8.29 (f); 9.18 (g); 8.586 ± 0.120 (i)",
    }


def test_missing_and_diverged_runs_are_said(published):
    text, _ = published
    rows = {row["net"]: row for row in rows_of(text)}
    assert rows["ResNet-32"]["test error, reproduced"] == "7.58 ± 0.15 (n = 3 of 5)"
    assert rows["ResNet-44"]["test error, reproduced"] == "7.26 ± 0.19 (n = 4 of 5, 1 diverged)"
    single = rows["ResNet-56"]
    assert single["test error, reproduced"] == "7.02 (n = 1 of 5)" and single["reported number"] == "none: n < 3"
    assert single["95 % t-interval"] == single["best of n"] == single["expected best of 5"] == "–"
    assert single["difference from reported"] == "+0.05"
    assert "ResNet-110" not in rows and "\nNot yet run: ResNet-110.\n" in text
    assert "in no mean: ResNet-44 seed 1 (found at iteration 3,000)." in text


def test_only_diverged_runs(tmp_path):
    (row,) = rows_of(text_on({"resnet20": [None, None]}, tmp_path))
    assert row["test error, reproduced"] == "– (n = 0 of 5, 2 diverged)"


def test_no_records_at_all(tmp_path):
    written = report_on(TABLE, PAPER, {}, tmp_path)
    assert [path.name for path in written] == ["cifar_table.md", "cifar_table.csv", "cifar_table_claims.csv"]
    rows = rows_of(text := written[0].read_text())
    assert {row["test error, reproduced"] for row in rows} == {"no records"} and "- From 0 records" in text
    assert rows[4]["parameters"] == "1,727,962"  # the model's


def test_csv_holds_the_same_numbers_and_their_origin(published):
    text, numbers = published
    first, last = numbers["resnet20"], numbers["resnet110"]
    expected = {"n": "5", "seeds": "5", "diverged": "0", "reported": "8.75", "profile": "paper"}
    expected |= {"test_error_mean": "8.72", "test_error_std": "0.154596", "difference": "-0.03"}
    expected |= {"prediction_runs": "1", "reported_number": "not contradicted"}
    expected |= {"records": "14", "command": "make report"}
    assert {name: first[name] for name in expected} == expected
    assert (last["n"], last["test_error_mean"], last["reported_kind"]) == ("0", "", "mean")
    assert first["records_sha256"] in text


def test_a_users_table_has_reported_published_and_yours(tmp_path):
    results = make_results(TABLE, PAPER, {"resnet20": [8.9, 9.1]}, tmp_path, published=ERRORS, seeds=2)
    text = write_report(TABLE, PAPER, results, tmp_path / "runs")[0].read_text()
    row = rows_of(text)[0]
    assert list(row)[2:5] == ["test error, reported", "test error, published here", "test error, yours"]
    assert row["test error, published here"] == "8.72 ± 0.15 (n = 5)"
    assert row["test error, yours"] == "8.90, 9.10 (n = 2)"
    assert row["difference from reported"] == "+0.25"
    assert "made again by `make reproduce-cifar-table SEEDS=2`" in text
    assert f"- From 2 records, SHA-256 over their digests `{records_digest(results[0].records)}`" in text
    assert "- Published here: 14 records in `results/records`" in text


def test_smoke_has_no_reported_columns(tmp_path):
    text = text_on({"resnet8": [40.0, 42.0]}, tmp_path, SMOKE, published={})
    assert not re.search("reported|implementations|not contradicted|published", text)
    assert rows_of(text)[0]["test error, yours"] == "40.00, 42.00 (n = 2)"
    assert "synthetic images made by the code" in text


def test_short_is_not_comparable(tmp_path):
    text = text_on({"resnet20": [33.0, 34.8]}, tmp_path, SHORT, published={})
    row = rows_of(text)[0]
    assert row["test error, reported"] == "8.75 (single)"
    assert not {"reported number", "difference from reported", "95 % t-interval", "best of n"} & set(row)
    assert "made again by `make reproduce-cifar-table PROFILE=short`" in text


def test_departures_are_in_name_heading_and_command(tmp_path):
    path, *_ = report_on(TABLE, Variant("paper", 45_000, "fp32"), {"resnet20": [8.9, 9.1]}, tmp_path, published={})
    assert path.name == "cifar_table_45000-images_fp32.md"
    assert "· the paper's protocol; 45,000 training images; fp32 throughout\n" in path.read_text()
    assert "`make reproduce-cifar-table TRAIN_IMAGES=45000 PRECISION=fp32`" in path.read_text()


# -------------------------------------------------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        ([8.0, 9.0, 10.0], "not contradicted (± 4.97)"),
        ([8.0, 8.1, 8.05], "contradicted, above (± 0.25)"),
        ([9.0, 9.1, 9.05], "contradicted, below (± 0.25)"),
    ],
)
def test_a_single_number_is_compared_with_one_more_run(sample, said):
    found = compare.verdict(sample, reported.target("resnet20"), PAPER)  # 8.75
    assert (found.k, found.test) == (1, None) and str(found) == said
    half = 4.302653 * (4 / 3) ** 0.5 * statistics.stdev(sample)
    assert found.interval.high == pytest.approx(statistics.mean(sample) + half, abs=1e-5)


def test_an_interval_ends_at_0(tmp_path):
    assert compare.verdict([0.1, 1.0, 2.0], reported.target("resnet20"), PAPER).interval.low == 0
    assert rows_of(text_on({"resnet20": [0.1, 1.0, 2.0]}, tmp_path))[0]["95 % t-interval"] == "[0.00, 3.39]"


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        ([6.7, 6.9, 6.8, 6.9, 6.7], "not contradicted (± 0.20)"),
        ([6.8, 7.0, 6.9, 7.0, 6.8], "contradicted, below (± 0.20)"),
        ([6.2, 6.4, 6.3, 6.4, 6.2], "contradicted, above (± 0.20)"),
    ],
)
def test_a_mean_with_its_std_is_compared_by_welchs_test(sample, said):
    found = compare.verdict(sample, reported.target("resnet110"), PAPER)  # 6.61 ± 0.16 of 5
    theirs = stats.ttest_ind_from_stats(statistics.mean(sample), 0.1, 5, 6.61, 0.16, 5, equal_var=False)
    assert str(found) == said and found.interval is None
    assert (found.test.t, found.test.p) == pytest.approx((theirs.statistic, theirs.pvalue))


@pytest.mark.parametrize(
    ("errors", "said"),
    [([6.7, 6.9, 6.8, 6.9, 6.7], "not shown, p = 0.118"), ([6.6, 6.7, 6.5, 6.7, 6.6], "shown, p = ")],
)
def test_the_table_says_whether_a_mean_is_equivalent(tmp_path, errors, said):
    (row,) = rows_of(text_on({"resnet110": errors}, tmp_path))
    assert f"equivalent within 0.3: {said}" in row["Welch's test against reported mean ± std"]
    assert "95 % prediction interval (of 1 more run)" not in row


def test_ends_belong_to_the_interval():
    for end, said in ((8.75, "not contradicted"), (8.76, "contradicted, below")):
        found = compare.Verdict(reported.target("resnet20"), Interval(end, end))  # 8.75
        assert {*found.sides.values()} == {said}


def test_where_there_is_no_verdict():
    single = reported.target("resnet20")
    for sample in ([], [8.7, 8.8], [8.76] * 3):  # the last are equal by chance: nothing to judge by
        assert compare.verdict(sample, single, PAPER) is None
    assert compare.verdict([], reported.target("resnet110"), PAPER) is None
    assert compare.verdict([8.7, 8.8, 8.9], None, PAPER) is None
    assert compare.verdict([8.7, 8.8, 8.9], single, SHORT) is None


# ------------------------------------------------------------------------------------------------------- footnotes


def test_data_that_are_not_official_are_said(tmp_path):
    copy = {"data": {"official": False, "sha256": "ab" * 32}}
    text = text_on({"resnet20": [8.9, 9.1]}, tmp_path, **copy)
    assert "2 runs on a copy of cifar10 that is **not the official files**" in text
    assert f"SHA-256 of the arrays `{'ab' * 32}`" in text


def test_official_data_are_said_too(published):
    assert f"14 runs on the official files of cifar10, SHA-256 of the arrays `{'2' * 64}`" in published[0]


def test_hardware_is_grouped_and_hours_added_up(tmp_path):
    run = [PAPER.apply(TABLE.rows("paper")[0].run(seed)) for seed in range(3)]
    cpu = {"hardware": {"type": "cpu", "device": "AMD EPYC", "threads": 2}, "precision": "fp32"}
    cpu |= {"timing": {"wall_seconds": 1800.0}, "versions": {"cuda": None, "cudnn": None}}
    store(tmp_path / "records", make_record(run[0], 8.7), make_record(run[1], 8.8), make_record(run[2], 8.9, **cpu))
    fused = make_record(TABLE.rows("paper")[0].run(3), 8.7, versions={"triton": "3.9.0", "kernels": "fused"})
    store(tmp_path / "records", fused)
    pool = read_pool(tmp_path / "records")
    text = report_pools(pool, pool, tmp_path)[0].read_text()
    assert "2 runs on NVIDIA H200; bf16; torch 2.11.0, CUDA 13.0, cuDNN 91200; 2.00 GPU-hours" in text
    assert "1 run on NVIDIA H200; bf16; torch 2.11.0, CUDA 13.0, cuDNN 91200, fused kernels, Triton 3.9.0; 1.00" in text
    assert "1 run on AMD EPYC, 2 threads; fp32; torch 2.11.0; 0.50 CPU-hours" in text


def test_runs_that_moved_are_named_and_counted_where_they_were(tmp_path):
    runs = [TABLE.rows("paper")[0].run(seed) for seed in range(4)]
    cpu = {"hardware": {"type": "cpu", "device": "AMD EPYC"}, "versions": {"torch": "2.15.0"}}
    interrupted = make_record(runs[3], 8.6, schema=3, interruptions=1)
    store(
        tmp_path,
        make_record(runs[0], 8.7),
        move(make_record(runs[1], 8.8), 3_000, **cpu, code={"commit": "ab" * 20}),
        move(make_record(runs[2], 8.9), 5_000, **dict.fromkeys(ORIGIN)),
        interrupted,
    )
    text = report_pools(read_pool(tmp_path), read_pool(tmp_path), tmp_path / "results")[0].read_text()
    gpu, other = "NVIDIA H200; bf16; torch 2.11.0, CUDA 13.0, cuDNN 91200", "AMD EPYC, 1 thread; bf16; torch 2.15.0"
    nowhere = "a device and with software that are not known"
    assert f"- Hardware: 4 runs, 2 of them in part, on {gpu}; 3.00 GPU-hours, the" in text
    assert f"- Hardware: 1 run, 1 of them in part, on {other}; 0.50 CPU-hours, the" in text
    assert f"- Hardware: 1 run, 1 of them in part, on {nowhere}; 0.50 device-hours, the" in text
    assert f"- Moved: ResNet-20 seed 1 (to iteration 3,000 on {other}, then to iteration 64,000 on {gpu}); " in text
    assert f"ResNet-20 seed 2 (to iteration 5,000 on {nowhere}, then to iteration 64,000 on {gpu}). An" in text
    assert "record that names only the last device and software: ResNet-20 seed 3.\n" in text
    assert "commit ababababab, then commit c0ffee0000 (1 run)" in text
    assert "unknown commit, then commit c0ffee0000 (1 run)" in text


def test_code_that_changed_midway_is_said():
    record = make_record(TABLE.rows("paper")[0].run(0), 8.7)
    moved = move(record, 3_000, code={"commit": "ab" * 20, "resnet_sha256": "3" * 64})
    said = "(1 run, **begun by one version of the code and ended by another**)"
    assert footnotes.code_note([moved], True) == f"Code: commit ababababab, then commit c0ffee0000 {said}."


def test_modified_and_unknown_code_is_said(tmp_path):
    runs = [PAPER.apply(TABLE.rows("paper")[0].run(seed)) for seed in range(3)]
    store(
        tmp_path / "records",
        make_record(runs[0], 8.7),
        make_record(runs[1], 8.8, code={"modified": True}),
        make_record(runs[2], 8.9, code={"commit": None, "modified": None}),
    )
    pool = read_pool(tmp_path / "records")
    text = report_pools(pool, pool, tmp_path)[0].read_text()
    assert "commit c0ffee0000 (1 run); commit c0ffee0000 (1 run, **modified code**)" in text
    assert "unknown commit (1 run, not known whether modified)" in text


def test_code_copied_without_git_is_what_its_digest_proved_where_it_is_published(tmp_path):
    copied = {"code": {"modified": None}}
    text = text_on({"resnet20": [8.7, 8.8]}, tmp_path / "a", **copied)
    assert "- Code: commit c0ffee0000 (2 runs, package resnet proved to be the commit's by its digest).\n" in text
    text = text_on({"resnet20": [8.7, 8.8]}, tmp_path / "b", published={}, **copied)
    assert "- Code: commit c0ffee0000 (2 runs, not known whether modified).\n" in text


def test_precisions_that_devices_chose_are_said(tmp_path):
    runs = [TABLE.rows("paper")[0].run(seed) for seed in range(3)]
    cpu = {"hardware": {"type": "cpu", "device": "AMD EPYC"}}
    named = replace(runs[2], recipe=replace(runs[2].recipe, precision="fp32"))
    gpu, fast, slow, other = (
        make_record(runs[0], 8.7),
        make_record(runs[1], 8.8, **cpu),
        make_record(runs[2], 8.9, **cpu, precision="fp32"),
        make_record(named, 8.9, **cpu, precision="fp32"),
    )
    first, second = (replace(row, label=label) for row, label in zip(TABLE.rows("paper"), ("one", "other")))

    def notes(*records: dict, others: tuple[dict, ...] = ()):
        return footnotes.precision_notes([RowResult(first, [*records], None, 3), RowResult(second, [*others], None, 3)])

    assert notes(gpu, other) == []
    said = "Precision: left to the device (`auto`), which chose: "
    assert notes(fast) == [f"{said}1 run in bf16 on a CPU."]
    both = f"{said}1 run in fp32 on a CPU, 1 run in bf16 on a GPU."
    assert notes(gpu, slow) == [both], "both are of one row"
    (text,) = notes(gpu, others=(slow,))
    assert text.startswith(f"{both} By row: one 1 in bf16; other 1 in fp32. A difference between rows")
    store(tmp_path, fast)
    assert said in report_pools(read_pool(tmp_path), read_pool(tmp_path), tmp_path)[0].read_text()


def test_sources_are_named(published):
    text, _ = published
    assert "- Reported: [He et al. 2015](https://arxiv.org/abs/1512.03385), *Deep Residual" in text
    name = "akamaster/pytorch_resnet_cifar10"
    assert f"(c) [{name}](https://github.com/{name}), 1 run, best epoch on the test set, 50,000 training" in text


# ---------------------------------------------------------------------------------------------------- the report step


def test_the_same_records_give_the_same_bytes(tmp_path):
    make_results(TABLE, PAPER, ERRORS, tmp_path)
    first, second = (
        report_pools(read_pool(tmp_path / "own"), read_pool(tmp_path / "own"), tmp_path / name)
        for name in ("one", "two")
    )
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert str(tmp_path) not in first[0].read_text() + first[1].read_text()


def test_another_record_changes_the_digest(tmp_path):
    tables = [report_on(TABLE, PAPER, {"resnet20": [8.7, 8.8, 8.9][:n]}, tmp_path / str(n))[1] for n in (2, 3)]
    assert len({numbers_of(table)["resnet20"]["records_sha256"] for table in tables}) == 2


def test_a_damaged_record_is_not_counted(tmp_path):
    make_results(TABLE, PAPER, {"resnet20": [8.7, 8.8]}, tmp_path)
    path = next((tmp_path / "own").rglob("*.json"))
    path.write_text(path.read_text().replace("8.7", "7.7").replace("8.8", "7.8"))
    pool = read_pool(tmp_path / "own")
    assert list(pool.damaged) == [path]
    written = report_pools(pool, pool, tmp_path / "results")
    assert rows_of(written[0].read_text())[0]["test error, reproduced"].endswith("(n = 1 of 5)")


def test_the_pool_itself_makes_the_published_table_and_another_one_a_users(tmp_path):
    make_results(TABLE, PAPER, {"resnet20": [8.7, 8.8]}, tmp_path, published={"resnet20": [8.6, 8.9]})
    own, results = read_pool(tmp_path / "own"), read_pool(tmp_path / "published")
    assert "published here" in report_pools(own, results, tmp_path / "runs")[0].read_text()
    text = report_pools(results, read_pool(results.root), tmp_path / "results")[0].read_text()
    assert "published here" not in text
    assert "made again by `make report`" in text


# -------------------------------------------------------------------------------------------------------- degradation


DEPTHS = {
    "plain20": [9.6, 9.8, 9.7],
    "plain56": [12.5, 13.3, 12.9],
    "resnet20": [8.6, 8.8, 8.7],
    "resnet32": [7.9, 7.8, 8.0],
    "resnet44": [7.6, 7.5, 7.7],
    "resnet56": [7.2, 7.6, 7.4],
}


def claims_of(errors, variant, root, training=None) -> dict[str, dict[str, str]]:
    """The lines of the CSV of claims by key."""
    written = report_on(DEGRADATION, variant, errors, root, training=training)
    assert [path.name for path in written][1:] == [f"degradation{variant.suffix}{end}.csv" for end in ("", "_claims")]
    return numbers_of(written[2], "claim")


def test_degradation_has_training_and_test_error_and_claims_about_depth(tmp_path):
    lines = claims_of(DEPTHS, PAPER, tmp_path, training={"plain20": 5.5, "plain56": 10.5})
    text = (tmp_path / "tables" / "degradation.md").read_text()
    first = rows_of(text)[0]
    assert first["training error, reproduced"] == "5.50 ± 0.00 (n = 3 of 5)"
    assert first["test error, reproduced"] == "9.70 ± 0.10 (n = 3 of 5)"
    assert first["test error, reported"] == "≈ 9 (read off a figure)"
    assert first["test error, other implementations"] == "9.78 ± 0.13 (b); 9.74 (g)"
    assert "mean over the augmented training batches since the evaluation before (1,000 iterations)" in text
    assert "\nNot yet run: plain-32, plain-44.\n" in text and "corrected for 10 claims" in text
    plain = lines["plain56_plain20_test_error"]
    welch = stats.ttest_ind(DEPTHS["plain56"], DEPTHS["plain20"], equal_var=False)
    assert (plain["effect"], plain["n"], plain["comparisons"], plain["effect_reported"]) == ("3.2", "3 3", "10", "4")
    assert float(plain["t"]) == pytest.approx(welch.statistic, rel=1e-5)
    assert float(plain["p_corrected"]) == pytest.approx(10 * welch.pvalue, rel=1e-5)
    bounds = welch.confidence_interval(1 - 0.05 / 10)
    assert float(plain["low_corrected"]) == pytest.approx(bounds.low, rel=1e-5)
    assert lines["plain56_plain20_training_error"]["effect"] == "5"
    assert lines["plain32_resnet32_test_error"]["statement"] == "too few runs (n = 0, 3)"
    said = {key: line["statement"] for key, line in lines.items() if "training" not in key and "32" not in key}
    assert said == {
        "plain56_plain20_test_error": "shown",
        "resnet20_resnet56_test_error": "shown",
        "plain20_resnet20_test_error": "shown",
        "plain44_resnet44_test_error": "too few runs (n = 0, 3)",
        "plain56_resnet56_test_error": "shown",
        "trend": "shown",
        "interaction": "shown",
    }
    # A line through (20, 8.7), (32, 7.9), (44, 7.6), (56, 7.4) falls by 0.42 in 12 layers.
    assert float(lines["trend"]["effect"]) == pytest.approx(3 * 0.42) and lines["interaction"]["effect"] == "4.5"


def test_claims_are_contradicted_not_resolvable_or_of_another_profile(tmp_path):
    errors = {**DEPTHS, "resnet20": [9.71, 9.73, 9.6], "resnet56": [14.3, 14.2, 14.4]}
    lines = claims_of(errors, PAPER, tmp_path / "other")
    assert lines["resnet20_resnet56_test_error"]["statement"] == "contradicted"
    said = "not shown with n = 3, 3"  # reported is 0.25, no more than what the reading of a figure may be wrong by
    assert lines["plain20_resnet20_test_error"]["statement"] == said
    errors["resnet20"], errors["resnet56"] = [9.0, 8.0, 7.0], [7.5, 8.5, 9.5]
    lines = claims_of(errors, PAPER, tmp_path / "wide")
    assert lines["resnet20_resnet56_test_error"]["statement"] == "not resolvable with n = 3, 3"  # reported: 1.78
    lines = claims_of({"plain20": [20.0, 20.1, 20.2], "resnet20": [16.0, 16.1, 16.2]}, SHORT, tmp_path / "short")
    assert lines["plain20_resnet20_test_error"]["statement"] == "shown, in the short profile"
    assert {line["effect_reported"] for line in lines.values()} == {""}


def test_claims_say_beforehand_what_seeds_can_find(tmp_path):
    claims_of({"resnet20": [8.5, 8.7, 8.6]}, PAPER, tmp_path)
    text = (tmp_path / "tables" / "degradation.md").read_text()
    claims = {cells[0]: cells for cells in lines_of(text)}
    *_, said, expected, least, seeds = claims["ResNet-20 has a lower test error than plain-20"]
    assert (said, expected, seeds) == ("too few runs (n = 0, 3)", "≈ +0.2", "–")
    assert float(least) == pytest.approx(intervals.smallest_effect(0.1, 5, comparisons=10), abs=0.005)
    assert "deviation of the records of “ResNet-20”, which other rows need not share: 0.10" in text
    seeds = int(claims["ResNet-56 has a lower test error than ResNet-20"][-1])
    assert intervals.power(1.78, 0.1, seeds, comparisons=10) >= 0.8
    assert "≈: of numbers read off a figure, each to about 0.5 points" in text


def test_the_plan_says_what_seeds_find_and_what_they_cost(tmp_path):
    text = plan(make_pool(TABLE, PAPER, {"resnet20": [8.5, 8.6, 8.7]}, tmp_path / "own"))
    found = {line[0]: line[1:] for line in lines_of(text)}
    five, ten, _, expected, seeds, hours = found["ResNet-56 has a lower test error than ResNet-44"]
    assert expected == "+0.20" and float(five) > float(ten) > 0
    assert float(five) == pytest.approx(intervals.smallest_effect(0.1, 5, comparisons=4), abs=0.005)
    assert int(seeds) == intervals.seeds_for(0.2, 0.1, comparisons=4)
    assert float(hours) > int(seeds) * 2 * 1.0  # of an hour a run of ResNet-20
    assert found["+ cosine decay, after efficient"][3] == "+0.47"
    assert "standard deviation 0.10 (test error)" in text
    assert "| – " in plan(read_pool(tmp_path / "nothing"))


def test_smoke_degradation_claims_about_its_own_depths(tmp_path):
    nets = {line["nets"] for line in claims_of({}, SMOKE, tmp_path).values()}
    assert {"plain26 plain8", "resnet8 resnet26", "resnet8 resnet14 resnet20 resnet26"} <= nets


def test_the_spread_and_the_steps_of_depth(tmp_path):
    errors = {"resnet20": [8.5, 8.6, 8.7], "resnet56": [6.0, 7.0, 8.0]}
    text = text_on(errors, tmp_path)
    p = stats.levene(errors["resnet20"], errors["resnet56"], center="median").pvalue
    assert f"ResNet-20 0.10 (n = 3), ResNet-56 1.00 (n = 3); not shown unequal, p = {p:.3f}." in text
    assert "Implementation (i) has the standard deviations 0.120, 0.318, 0.475, 0.523 for ResNet-20" in text
    (step,) = [cells for cells in lines_of(text) if cells[0] == "ResNet-56 has a lower test error than ResNet-44"]
    assert step[1:3] == ["too few runs (n = 0, 3)", "+0.20"]


# ------------------------------------------------------------------------------------------------------------- cells


def test_signed():
    assert [text.signed(v) for v in (0.126, -0.126, 0.001, -0.001, None)] == ["+0.13", "−0.13", "0.00", "0.00", "–"]


def test_p_value():
    assert [text.p_value(v) for v in (0.5, 0.0014, 0.0009, None)] == ["0.500", "0.001", "< 0.001", "–"]


def test_count():
    assert text.count([{"status": "completed"}] * 5, 5) == "n = 5"
    assert text.count([{"status": "completed"}] * 3, 5) == "n = 3 of 5"
    assert text.count([{"status": "diverged"}] * 5, 5) == "n = 0 of 5, 5 diverged"


def escaped_cells(line: str) -> list[str]:
    """As readers of GitHub's Markdown see them: a backslash takes a bar's or another backslash's meaning."""
    cells = [""]
    for found in re.finditer(r"\\([\\|<])|(.)", line):
        if found[2] == "|":
            cells.append("")
        else:
            cells[-1] += found[1] or found[2]
    return [cell.strip() for cell in cells[1:-1]]


@pytest.mark.parametrize(
    "text", ["a|b", r"a\|b", r"a\\|b", "|", "a || b", "<b>", r"\<b>", "a <-> b", r"C:\data", "ends in \\"]
)
def test_any_text_stays_in_its_cell(text):
    heading, _, first, second = markdown_table({text: [text, "x"], "n": ["1", "2"]}).splitlines()
    assert [escaped_cells(line) for line in (heading, first, second)] == [[text, "n"], [text, "1"], ["x", "2"]]
    assert not re.search(r"(?<!\\)<b>", heading)


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\u2028", "\x85", "\x1b[31m", "\0"])
def test_a_line_of_a_table_is_a_line(ending):
    lines = markdown_table({"net": [f"a{ending}b", "c"]}).splitlines()
    assert len(lines) == 4 and escaped_cells(lines[2])[0].startswith("a ") and all(line.isprintable() for line in lines)


def test_markdown_table_is_padded():
    assert markdown_table({"net": ["A", "BBBB"], "n": ["1", "22"]}) == (
        "| net  | n  |\n|------|----|\n| A    | 1  |\n| BBBB | 22 |\n"
    )


# ---------------------------------------------------------------------------------------------------------- precision


def precision_page(root, fast, full, used=("bf16", "fp32"), **changes):
    results = make_results(precision.EXPERIMENT, PAPER, {"fast": fast, "fp32": full}, root, **changes)
    for result, name in zip(results, used, strict=True):
        for record in result.records:
            record["precision"] = name
    files = write_report(precision.EXPERIMENT, PAPER, results, root)
    assert [path.name for path in files] == ["precision.md", "precision.csv"]
    return files[0].read_text()


def test_equivalence_of_two_precisions_is_shown_or_not(tmp_path):
    fast, full = [8.1, 8.3, 8.2, 8.4, 8.0], [8.2, 8.3, 8.3, 8.1, 8.2]
    text = precision_page(tmp_path / "near", fast, full, timing={"packed_with": 24})
    assert "## Equivalence within 0.3 points" in text and "| yes" in text and "Shown: the 90 % interval" in text
    assert "| 24 " in text and "**" not in text.split("Equivalence")[1].split("- Errors")[0]
    text = precision_page(tmp_path / "far", fast, [x + 0.6 for x in full])
    assert "| not shown" in text and "Not shown: the 90 % interval" in text
    assert "Not shown: it needs 3 runs of both rows." in precision_page(tmp_path / "few", fast, full[:2])
    assert "steps of Table 6: ResNet-44 to 56 (0.20)." in text and "% with 10, 100 % with 20 seeds" in text


def test_rows_of_one_precision_are_said_to_compare_nothing(tmp_path):
    text = precision_page(tmp_path, [8.0, 8.1, 8.2], [8.0, 8.1, 8.2], used=("fp32", "fp32"))
    assert "Nothing is compared: both rows have runs in fp32 here." in text
    assert "hown:" not in text and not re.search(r"\| yes", text)


def test_fused_kernels_are_compared_with_the_librarys_runs_or_the_published_ones(tmp_path):
    errors, published = [8.4, 8.5, 8.7, 8.6, 8.5], [8.3, 8.5, 8.6, 8.4, 8.6]

    def page(root, own, kernels):
        rows = {"fast": own, "fused": errors}
        results = make_results(precision.EXPERIMENT, PAPER, rows, root, {"fast": published})
        for record in results[1].records:
            record["versions"]["kernels"] = kernels
        text = write_report(precision.EXPERIMENT, PAPER, results, root)[0].read_text()
        return text.split("## Equivalence within 0.3 points")[2]

    text = page(tmp_path / "published", [], "fused")
    assert "| ResNet-20, fused kernels − ResNet-20, fast | 5, 5 " in text and "Shown: the 90 % interval" in text
    assert "Not shown: the" in page(tmp_path / "own", [x - 0.4 for x in published], "fused")
    said = "Nothing is compared: both rows have runs in library kernels here."
    assert said in page(tmp_path / "same", published, "library")


def test_the_headline_compares_the_row_with_most_runs(tmp_path):
    errors = {"resnet20": [8.5, 8.7, 8.6], "resnet32": [7.6, 7.5, 7.7], "resnet56": [7.0]}
    headline = of_fullest_row(page_of(TABLE, PAPER, errors, tmp_path))
    assert (headline.row, headline.reported) == ("ResNet-32", "7.51 (single)")
    assert headline.reproduced == "test error 7.60 ± 0.10 (n = 3 of 5)"
    assert headline.verdict == "not contradicted (± 0.50)"
    alone = page_of(TABLE, PAPER, {"resnet20": [8.5]}, tmp_path / "alone")
    assert of_fullest_row(alone).verdict == "none: n < 3"


def test_the_index_has_a_line_an_experiment_with_the_paper_profile_before_others(tmp_path):
    variants = (SHORT, PAPER, replace(PAPER, precision="fp32"))
    pages = [page_of(TABLE, variant, {"resnet20": [9.0]}, tmp_path / variant.suffix) for variant in variants]
    (line,) = [line for line in write_index(pages).splitlines() if "](tables/cifar_table" in line]
    assert line.startswith(f"| [{TABLE.title}](tables/cifar_table.md) ")
    assert line.endswith("| [paper, fp32](tables/cifar_table_fp32.md), [short](tables/cifar_table_short.md) |")


def test_the_headline_compares_with_no_number_of_other_data(tmp_path):
    table = bag_of_tricks_efficient.EXPERIMENTS["cifar10"]
    headline = of_fullest_row(page_of(table, PAPER, {table.rows("paper")[-1].key: [6.2, 6.3, 6.1]}, tmp_path))
    assert headline.reported.endswith(", on ImageNet") and headline.verdict == "not comparable"
    assert headline.reproduced == "top-1 accuracy 93.80 ± 0.10 (n = 3 of 5)"


def test_nets_are_counted_with_the_classes_of_their_data(tmp_path):
    page = page_of(cifar_imagenet_stem.EXPERIMENT, PAPER, {}, tmp_path)
    ten = [create_model(r.row.model, num_classes=10, **r.row.model_options) for r in page.results]
    assert page.parameters().numbers["parameters"] == [count_parameters(model) for model in ten]
    assert page.multiply_adds().numbers["multiply_adds"] == [37_278_720, 75_027_456, 559_617_024]


def test_a_report_that_returns_no_files_is_named(tmp_path):
    silent = replace(cifar_table.EXPERIMENT, report=lambda page: None)
    with pytest.raises(ReportError, match="the report of cifar_table returned None instead of the files that it wrote"):
        report_on(silent, Variant("short"), {}, tmp_path)


def test_numbers_that_differ_in_the_last_bit_look_the_same():
    mean_of_differences, difference_of_means = math.nextafter(-2.365, 0), -2.365
    assert f"{mean_of_differences:.2f}" == "-2.36" and text.signed(mean_of_differences) == "−2.37"
    assert text.signed(difference_of_means) == "−2.37"
