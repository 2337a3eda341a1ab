"""The summary of the paper profile: one line for each net with records, compared with the papers."""

from fakes import page_of
from printed import rows_of

from reproductions import cifar_table, degradation
from reproductions.harness.experiment import Variant
from reproductions.harness.reporting.summary import write_summary

PAPER, SHORT, BF16 = Variant("paper"), Variant("short"), Variant(precision="bf16")
HEADINGS = ["reported", "mean ± std (n)", "difference", "GPU-hours"]
TABLE, DEGRADATION = cifar_table.EXPERIMENT, degradation.EXPERIMENT


def lines_of(summary):
    """The cells of the table's lines by net."""
    lines = {net: [*cells.items()] for net, cells in rows_of(summary).items()}
    assert all([heading for heading, _ in cells] == HEADINGS for cells in lines.values())
    return {net: [cell for _, cell in cells] for net, cells in lines.items()}


def test_it_has_each_net_of_the_paper_profile_once(tmp_path):
    nets = {"resnet20": [8.71, 8.55], "resnet110": [6.5, 6.6, 6.7, 6.4, None]}
    pages = [
        page_of(TABLE, PAPER, nets, tmp_path / "table"),
        page_of(TABLE, SHORT, {"resnet56": [15.0, 16.0]}, tmp_path / "short"),
        page_of(TABLE, BF16, {"resnet56": [7.0, 7.1]}, tmp_path / "bf16"),
        page_of(DEGRADATION, PAPER, {"resnet20": [8.71, 8.55], "plain20": [9.0, 9.2]}, tmp_path / "degradation"),
    ]
    summary = write_summary(pages)
    assert lines_of(summary) == {
        "ResNet-20": ["8.75 (single)", "8.71, 8.55 (n = 2 of 5)", "−0.12", "2.00"],
        "ResNet-110": [
            "6.61 ± 0.16 (mean of 5); 6.43 (best of 5)", "6.55 ± 0.13 (n = 4 of 5, 1 diverged)", "−0.06", "5.00"
        ],
        "plain-20": ["≈ 9 (read off a figure)", "9.00, 9.20 (n = 2 of 5)", "–", "2.00"],
    }  # fmt: skip
    assert "\nNot run yet, with the reported error: ResNet-32 (7.51), ResNet-44 (7.17), ResNet-56 (6.97)," in summary
    assert "From 9 records, SHA-256" in summary and "plain-32" not in summary


def test_hours_of_a_processor_are_named(tmp_path):
    hardware = {"type": "cpu", "device": "a processor"}
    pages = [page_of(TABLE, PAPER, {"resnet20": [8.5]}, tmp_path, hardware=hardware)]
    assert lines_of(write_summary(pages))["ResNet-20"][-1] == "1.00 (CPU)"


def test_without_records_it_says_so(tmp_path):
    pages = [page_of(TABLE, SHORT, {"resnet20": [15.0]}, tmp_path)]
    assert write_summary(pages).endswith("No records yet.\n") and write_summary([]).endswith("No records yet.\n")
