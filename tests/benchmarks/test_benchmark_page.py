"""The throughput benchmark's page and files, from made-up results of a GPU."""

import json
from dataclasses import asdict, replace

import pytest
from made_up import LIMITS, gpu_results

from benchmarks import markdown
from benchmarks.floor import floor
from benchmarks.results import file_name, judged, write


@pytest.fixture
def results():
    results = gpu_results()
    return replace(results, models=tuple(judged(model, LIMITS, 128) for model in results.models))


def cells(line):
    return [cell.strip() for cell in line.strip("| ").split("|")]


def line_of(page, start):
    return cells(next(line for line in page.splitlines() if line.startswith(f"| {start}")))


def test_a_packed_row_has_every_figure(results):
    page = markdown.page(results)
    assert page.startswith("# Training throughput on NVIDIA H200\n")
    fraction = 600_000 * floor("cifar_resnet20", 128, LIMITS).seconds / 128
    assert line_of(page, "packed") == [
        "packed",
        "8",
        "600,000 (599,000 to 601,000)",
        "75,000",
        "30.00",
        f"{100 * fraction:.1f} %",
        "3.25",
        "0.60 (0.50 to 0.70)",
    ]
    assert line_of(page, "conventional loop")[4:6] == ["1.00", "–"]


def test_what_did_not_fit_is_left_out_with_its_reason(results):
    page = markdown.page(results)
    assert "\npacked, 512 runs: left out, needs about 150 GiB more, 130 GiB are free.\n" in page
    assert "\n10 runs at once: left out, out of memory: of CUDA.\n" in page


def test_table_6_is_summed_up_in_minutes(results):
    page = markdown.page(replace(results, table=replace(results.table, floor_minutes=3.5)))
    assert line_of(page, "1 ") == ["1", "2", "50,500 (50,000 to 51,000)", "2.00", "27.5", "28.8"]
    assert "At the floor's rate training would take 3.5 minutes." in " ".join(page.split())


def test_a_cpu_has_no_columns_of_memory_and_energy(results):
    model = results.models[0]
    rows = [
        replace(row, memory_gib=None, rates=replace(row.rates, joules_per_1000_images=None)) for row in model.rows[:2]
    ]
    page = markdown.page(replace(results, models=(replace(model, rows=tuple(rows)),), table=None))
    assert "memory" not in page.replace("go through memory", "") and "NVML" not in page and "Table 6" not in page


def test_no_line_of_text_is_longer_than_the_page(results):
    text = [line for line in markdown.page(results).splitlines() if not line.startswith("|")]
    assert max(map(len, text)) <= 120


def test_before_the_first_model_there_is_a_page_too(results):
    assert "Regenerate with `make bench`" in markdown.page(replace(results, models=(), table=None))


def test_files_are_named_for_the_device_and_hold_everything(results, tmp_path):
    assert file_name("throughput", "AMD EPYC, 2 cores") == "throughput-amd-epyc-2-cores"
    write(tmp_path, "throughput", "NVIDIA H200", asdict(results), markdown.page(results))
    assert (tmp_path / "throughput-nvidia-h200.md").read_text() == markdown.page(results)
    values = json.loads((tmp_path / "throughput-nvidia-h200.json").read_text())
    packed = values["models"][0]["rows"][2]
    assert packed["rates"]["images_per_second"] == [599_000.0, 600_000.0, 601_000.0]
    assert packed["memory_gib"] == 3.25 and 0 < packed["of_floor_with_cache"] <= packed["of_floor"]
    assert {"hardware", "versions", "code", "limits", "table"} <= set(values)
