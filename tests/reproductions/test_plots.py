"""Plots made from records: what they draw, what they say of themselves, and that equal records give equal files."""

import matplotlib
import pytest
from fakes import make_results
from matplotlib.collections import PathCollection

from reproductions import cifar_table, degradation
from reproductions.cifar_table import error_against_depth
from reproductions.harness.experiment import Variant
from reproductions.harness.records import records_digest
from reproductions.harness.reporting import curves, footnotes
from reproductions.harness.reporting.curves import learning_curves
from reproductions.harness.reporting.figure import fonts_for, read_description, save, spread
from reproductions.harness.reporting.frame import Curve, curve
from reproductions.harness.reporting.page import write_report

TABLE, DEGRADATION = cifar_table.EXPERIMENT, degradation.EXPERIMENT
PAPER, SHORT = Variant("paper"), Variant("short")
ERRORS = {"resnet20": [8.7, 8.9], "resnet56": [7.0, 7.1, None]}


@pytest.fixture
def results(tmp_path):
    return make_results(TABLE, PAPER, ERRORS, tmp_path)


def texts(figure) -> list[str]:
    """Everything that is written in a figure."""
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def test_letters_that_the_styles_font_lacks_are_drawn_in_one_that_has_them(results, tmp_path, recwarn):
    stix = "\u1d81"  # which STIX has, that comes with matplotlib, and DejaVu Sans has not
    assert fonts_for("abc é Ж ± −") == (["DejaVu Sans"], "")
    assert fonts_for(f"a{stix}") == (["DejaVu Sans", "STIXGeneral"], "")
    assert fonts_for("a\U0001fae8\U0010ffff")[1][-1] == "\U0010ffff"
    figure = learning_curves({stix: results}, PAPER)
    save(figure, tmp_path / "curves", "x")
    assert not [str(warning.message) for warning in recwarn if "missing from" in str(warning.message)]


def test_curve_is_mean_and_range_over_completed_runs(results):
    runs = results[3].records
    found = curve(runs, "test_error")
    assert found.iterations == list(range(1_000, 64_001, 1_000))
    assert (found.low[-1], found.high[-1]) == (7.0, 7.1)
    assert found.mean[-1] == pytest.approx(7.05)
    tenth = [run["curve"][10]["test_error"] for run in runs if run["status"] == "completed"]
    assert len(tenth) == 2
    assert (found.low[10], found.high[10]) == (min(tenth), max(tenth))
    assert curve(results[4].records, "test_error") is None


def test_learning_curves_draw_test_solid_and_training_dashed(results):
    figure = learning_curves({"residual nets": results}, PAPER)
    (axis,) = figure.axes
    last = {round(float(line.get_ydata()[-1]), 2): line for line in axis.lines if len(line.get_xdata()) == 64}
    assert set(last) == {8.8, 7.05, 5.0}  # two test curves; both training curves end at 5
    assert last[8.8].get_linestyle() == last[7.05].get_linestyle() == "-"
    assert last[5.0].get_linestyle() == "--"
    assert last[8.8].get_marker() != last[7.05].get_marker()
    assert last[8.8].get_color() != last[7.05].get_color()
    assert list(last[8.8].get_xdata())[-1] == 64.0  # thousands
    assert axis.get_xlabel() == "iterations (thousands)"
    drops = [line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == ":"]
    assert drops == [32.0, 48.0]
    written = texts(figure)
    assert "ResNet-20" in written
    assert "ResNet-56" in written
    assert "ResNet-110" not in written  # no records
    assert "test error, mean of 2 seeds (1 diverged, not drawn)" in written
    assert "from the lowest to the highest seed" in written


def test_panels_share_their_axes(tmp_path):
    results = make_results(DEGRADATION, PAPER, {"plain20": [9.7], "resnet20": [8.7]}, tmp_path)
    figure = learning_curves({"plain nets": results[:4], "residual nets": results[4:]}, PAPER)
    plain, residual = figure.axes
    assert (plain.get_title(loc="left"), residual.get_title(loc="left")) == ("plain nets", "residual nets")
    assert plain.get_ylim() == residual.get_ylim()
    assert plain.get_xlim() == residual.get_xlim()


def test_heading_unless_the_paper_profile(tmp_path, results):
    short = make_results(TABLE, SHORT, {"resnet20": [33.0, 34.0]}, tmp_path / "short")
    for figure in (learning_curves({"": short}, SHORT), error_against_depth(short, SHORT)):
        assert figure.get_suptitle().startswith("short profile: real data, fewer iterations, not comparable")
    assert error_against_depth(results, PAPER).get_suptitle() == ""
    assert learning_curves({"": short}, SHORT).axes[0].get_xlabel() == "iterations"


def test_depth_draws_every_seed_and_the_reported_number(results):
    figure = error_against_depth(results, PAPER)
    (axis,) = figure.axes
    dots = [points for points in axis.collections if isinstance(points, PathCollection)]
    assert sorted(y for points in dots for _, y in points.get_offsets()) == [7.0, 7.1, 8.7, 8.9]  # none that diverged
    reported = {float(line.get_ydata()[0]) for line in axis.lines if line.get_marker() in ("D", "x")}
    assert reported == {8.75, 7.51, 7.17, 6.97, 6.61, 6.43}
    assert [label.get_text() for label in axis.get_xticklabels()][0] == "ResNet-20"
    assert texts(figure).count("no completed runs") == 3


def test_depth_draws_reported_numbers_in_the_paper_profile_only(tmp_path):
    short = make_results(TABLE, SHORT, {"resnet20": [33.0, 34.0]}, tmp_path)
    (axis,) = error_against_depth(short, SHORT).axes
    assert not [line for line in axis.lines if line.get_marker() in ("D", "x")]
    assert axis.get_ylim()[0] >= 0


def test_depth_draws_what_is_published_beside_a_users(tmp_path):
    user = make_results(TABLE, PAPER, {"resnet20": [8.7, 8.9]}, tmp_path, published={"resnet20": [8.5, 8.6]})
    (axis,) = error_against_depth(user, PAPER).axes
    assert [float(line.get_ydata()[0]) for line in axis.lines if line.get_marker() == "s"] == [pytest.approx(8.55)]


def test_a_users_own_settings_of_matplotlib_change_no_plot(results, tmp_path):
    def saved():
        save(error_against_depth(results, PAPER), tmp_path / "depth", "x")
        return (tmp_path / "depth.png").read_bytes(), (tmp_path / "depth.svg").read_bytes()

    expected = saved()
    with matplotlib.rc_context(
        {"text.usetex": True, "axes.grid": True, "savefig.bbox": "tight"}
    ):  # usetex: needs LaTeX
        assert saved() == expected


def test_nothing_to_draw(tmp_path):
    empty = make_results(TABLE, PAPER, {"resnet20": [None]}, tmp_path)
    assert learning_curves({"": empty}, PAPER) is None
    assert error_against_depth(empty, PAPER) is None
    assert save(None, tmp_path / "plot", "") == []


def test_description_is_read_back_from_both_formats(results, tmp_path):
    text = footnotes.description(TABLE, PAPER, results)
    records = [record for result in results for record in result.records]
    assert text == (
        "CIFAR-10 test error of residual nets (He et al. 2015, Table 6); the paper's protocol; from 5 records, "
        f"SHA-256 {records_digest(records)}; made again by: make report"
    )
    png, svg = save(error_against_depth(results, PAPER), tmp_path / "a.b", text + " – ≤ &<")
    assert (png.name, svg.name) == ("a.b.png", "a.b.svg")
    assert read_description(png) == read_description(svg) == text + " – ≤ &<"


def test_equal_records_give_equal_files_without_dates(results, tmp_path):
    first, second = (save(learning_curves({"": results}, PAPER), tmp_path / name, "what it is") for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert b"<dc:date>" not in first[1].read_bytes()


@pytest.mark.parametrize(
    ("experiment", "tables", "drawn"),
    [(TABLE, ["", ""], ["depth", "curves"]), (DEGRADATION, ["", "", "_differences"], ["curves"])],
    ids=["cifar_table", "degradation"],
)
def test_report_leaves_its_files_where_they_belong(tmp_path, experiment, tables, drawn):
    out, name = tmp_path / "results", experiment.name
    written = write_report(experiment, PAPER, make_results(experiment, PAPER, ERRORS, tmp_path), out)
    expected = [f"tables/{name}{end}.{suffix}" for end, suffix in zip(tables, ["md", "csv", "csv"])]
    expected += [f"plots/{name}_{what}.{suffix}" for what in drawn for suffix in ("png", "svg")]
    assert [path.relative_to(out).as_posix() for path in written] == expected
    assert all(path.stat().st_size for path in written)
    assert sorted(path for path in out.rglob("*") if path.is_file()) == sorted(written)


def line(*values) -> Curve:
    return Curve(list(range(len(values))), list(values), list(values), list(values))


def test_axis_shows_everything_unless_the_beginning_would_take_most_of_it():
    assert curves.upper_limit([line(75.0, 60.0, 40.0, 34.0)]) == 80
    long = line(*([60.0, 40.0, 30.0] + [20.0] * 30 + [8.0] * 31))
    assert curves.upper_limit([long]) == 25
    assert curves.lower_limit([line(25.0, 4.0)], 25) == 0
    assert curves.lower_limit([line(80.0, 33.0)], 100) == 20
    assert curves.lower_limit([line(90.0, 89.0, 88.0)], 100) == 80


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ([], []),
        ([0.5], [0.5]),
        ([0.2, 0.8], [0.2, 0.8]),
        ([0.5, 0.5], [0.45, 0.55]),  # apart, around where they were
        ([0.51, 0.5, 0.9], [0.555, 0.455, 0.9]),  # order kept
        ([0.99, 1.0], [0.9, 1.0]),  # not beyond the axis
        ([0.0, 0.01, 0.02], [0.0, 0.1, 0.2]),
        ([0.5, 0.5, 0.58], [0.4266667, 0.5266667, 0.6266667]),  # the third is pushed and joins the stack
    ],
)
def test_spread(positions, expected):
    assert spread(positions, gap=0.1) == pytest.approx(expected)
