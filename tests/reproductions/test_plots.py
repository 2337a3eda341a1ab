"""Plots made from records: what they draw, what they say of themselves, and that equal records give equal files."""

import sys
from collections import Counter

import matplotlib
import numpy as np
import pandas
import pytest
from fakes import make_pool, make_record, make_results, page_of, with_validation, written_in
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from reproductions import cifar_table, degradation, headline, mnist_residual
from reproductions.bag_of_tricks import efficient, refinements, tweaks
from reproductions.cifar_imagenet_stem import experiment as cifar_imagenet_stem
from reproductions.cifar_imagenet_stem import report as stem_report
from reproductions.cifar_imagenet_stem.report import Predicted
from reproductions.cifar_table import error_against_depth
from reproductions.experiments import EXPERIMENTS
from reproductions.finetune import experiment as finetune
from reproductions.finetune import report as finetune_report
from reproductions.harness.console import PUBLISHED
from reproductions.harness.experiment import RowResult, Variant
from reproductions.harness.publish import write_published
from reproductions.harness.records import read_pool, records_digest
from reproductions.harness.reporting import curves, footnotes, sweep
from reproductions.harness.reporting.curves import learning_curves
from reproductions.harness.reporting.figure import (
    COLOURS,
    DOUBLE,
    GREY,
    INK,
    MARKERS,
    SINGLE,
    STYLE,
    bars,
    fonts_for,
    read_description,
    save,
    spread,
)
from reproductions.harness.reporting.frame import curve
from reproductions.harness.reporting.intervals import Interval
from reproductions.harness.reporting.page import make_page, write_report
from reproductions.layer_responses import experiment as layer_responses
from reproductions.layer_responses import report as layer_report
from reproductions.layer_responses.report import Net

TABLE, DEGRADATION = cifar_table.EXPERIMENT, degradation.EXPERIMENT
PAPER, SHORT = Variant("paper"), Variant("short")
ERRORS = {"resnet20": [8.7, 8.9], "resnet56": [7.0, 7.1, None]}


@pytest.fixture
def results(tmp_path):
    return make_results(TABLE, PAPER, ERRORS, tmp_path)


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
    assert [*found.index] == list(range(1_000, 64_001, 1_000))
    assert (found["min"].iloc[-1], found["max"].iloc[-1]) == (7.0, 7.1)
    assert found["mean"].iloc[-1] == pytest.approx(7.05)
    tenth = [run["curve"][10]["test_error"] for run in runs if run["status"] == "completed"]
    assert len(tenth) == 2
    assert (found["min"].iloc[10], found["max"].iloc[10]) == (min(tenth), max(tenth))
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
    written = written_in(figure)
    assert "ResNet-20 (n = 2)" in written
    assert "ResNet-56 (n = 2; 1 diverged)" in written
    assert not [text for text in written if "ResNet-110" in text]  # no records
    assert {"test error, mean", "lowest to highest seed", "learning rate ÷ 10"} <= set(written)


def test_panels_share_their_axes(tmp_path):
    results = make_results(DEGRADATION, PAPER, {"plain20": [9.7], "resnet20": [8.7]}, tmp_path)
    figure = learning_curves({"plain nets": results[:4], "residual nets": results[4:]}, PAPER)
    plain, residual = figure.axes
    assert (plain.get_title(loc="left"), residual.get_title(loc="left")) == ("(a) plain nets", "(b) residual nets")
    assert plain.get_ylim() == residual.get_ylim()
    assert plain.get_xlim() == residual.get_xlim()


def test_the_caption_names_the_data_and_any_profile_but_the_papers(tmp_path, results):
    short = make_results(TABLE, SHORT, {"resnet20": [33.0, 34.0]}, tmp_path / "short")
    for figure in (learning_curves({"": short}, SHORT), error_against_depth(short, SHORT)):
        said = figure.get_suptitle().replace("\n", " ")
        assert said.startswith("CIFAR-10 · short profile: real data, fewer iterations, not comparable with the paper")
    said = error_against_depth(results, PAPER).get_suptitle().replace("\n", " ")
    assert said == "CIFAR-10 · not yet run: ResNet-32, ResNet-44, ResNet-110"
    assert learning_curves({"": short}, SHORT).axes[0].get_xlabel() == "iterations"


def test_depth_draws_every_seed_and_the_reported_number(results):
    figure = error_against_depth(results, PAPER)
    (axis,) = figure.axes
    dots = [points for points in axis.collections if isinstance(points, PathCollection)]
    assert sorted(y for points in dots for _, y in points.get_offsets()) == [7.0, 7.1, 8.7, 8.9]  # none that diverged
    reported = {float(line.get_ydata()[0]) for line in axis.lines if line.get_marker() in ("D", "x")}
    assert reported == {8.75, 6.97}
    assert [label.get_text() for label in axis.get_xticklabels()] == ["ResNet-20\nn = 2", "ResNet-56\nn = 2"]


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
    own = {"text.usetex": True, "axes.grid": True, "savefig.bbox": "tight"}  # usetex needs LaTeX
    with matplotlib.rc_context(own):
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
    ("experiment", "table", "drawn"),
    [
        (TABLE, "claims", ["depth", "curves"]),
        (DEGRADATION, "claims", ["curves"]),
        (efficient.EXPERIMENTS["cifar10"], "steps", ["ladder", "curves"]),
        (tweaks.EXPERIMENTS["cifar10"], "steps", ["ladder", "curves"]),
        (refinements.EXPERIMENTS["cifar10"], "steps", ["ladder", "curves", "schedules"]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_report_leaves_its_files_where_they_belong(tmp_path, experiment, table, drawn):
    out, name = tmp_path / "results", f"{experiment.name}_short"
    errors = {row.key: [60.0, 61.0] for row in experiment.rows("short")}
    written = write_report(experiment, SHORT, make_results(experiment, SHORT, errors, tmp_path), out)
    expected = [f"tables/{name}{end}" for end in (".md", ".csv", f"_{table}.csv")]
    expected += [f"plots/{name}_{what}.{suffix}" for what in drawn for suffix in ("png", "svg")]
    assert [path.relative_to(out).as_posix() for path in written] == expected
    assert all(path.stat().st_size for path in written)
    assert sorted(path for path in out.rglob("*") if path.is_file()) == sorted(written)


def line(*values) -> pandas.DataFrame:
    return pandas.DataFrame({name: values for name in ("mean", "min", "max")})


@pytest.mark.parametrize(
    ("errors", "low", "high"),
    [
        ([75.0, 60.0, 40.0, 34.0], 31.54, 76.74),  # all of it
        ([60.0, 40.0, 30.0] + [20.0] * 30 + [8.0] * 31, 7.28, 20.51),  # 9 in 10 of the points
        ([25.0, 4.0, 20.0], 0.0, 26.0),
        ([99.0, 98.0, 99.5], 97.91, 99.56),
        ([100.0, 50.0], 47.0, 100.0),  # no error is larger
        ([0.5, 0.2], 0.182, 0.513),
    ],
)
def test_axis_shows_everything_unless_the_beginning_would_take_most_of_it(monkeypatch, errors, low, high):
    monkeypatch.setattr(curves, "errors_of", lambda drawn: [line(*drawn)])
    assert curves.limits([errors]) == pytest.approx((low, high), abs=0.01)


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


# ------------------------------------------------------------------------------------------------- legible when printed


def luminance(colour: str) -> float:
    """The relative luminance of the Web Content Accessibility Guidelines, 0 to 1."""
    parts = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in to_rgb(colour)]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), parts))


def lightness(colour: str) -> float:
    """CIE L*, 0 to 100: the grey in which a colour is printed."""
    y = luminance(colour)
    return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y


def test_colours_show_on_white_and_differ_in_grey():
    assert all(1.05 / (luminance(colour) + 0.05) >= 3 for colour in (*COLOURS, INK, GREY))
    greys = sorted(map(lightness, COLOURS))
    assert min(darker - lighter for lighter, darker in zip(greys, greys[1:])) >= 8.5
    assert len(set(MARKERS)) == len(MARKERS) == len(COLOURS)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Every figure of every table, from five made-up runs a row, by the name of its file; and the README's."""
    folder, figures = tmp_path_factory.mktemp("figures"), {}
    with pytest.MonkeyPatch.context() as patch:
        keep = lambda figure, path, description: figures.update({path.name: figure}) or []  # noqa: E731
        for module in [module for name, module in sys.modules.items() if name.startswith("reproductions")]:
            if getattr(module, "save", None) is save:
                patch.setattr(module, "save", keep)
        for experiment in (one for one in EXPERIMENTS if one.dataset is None):
            rows = experiment.rows("short")
            errors = {row.key: [12.0 + i + 0.3 * seed for seed in range(3)] for i, row in enumerate(rows)}
            experiment.report(page_of(experiment, SHORT, errors, folder / experiment.name))
    nets, measured = make_results(layer_responses.EXPERIMENT, PAPER, {}, folder / "nets"), {"std": [1.0] * 30}
    figures["layers"] = layer_report.figure([Net(net, [measured] * 3, Counter()) for net in nets], PAPER)
    files = {"labels": [1] * 20, "predicted": [0] * 20, "probability": [1.0] * 20, "data": {"name": "cifar10"}}
    stem = make_results(cifar_imagenet_stem.EXPERIMENT, PAPER, {}, folder / "predicted")[:3]
    figures["confusion"] = stem_report.confusion_figure([Predicted(result, [files]) for result in stem], PAPER)
    figures["images"] = stem_report.grid_figure(files, np.zeros((20, 32, 32, 3), np.uint8), "a run, test error 10.00 %")
    swept = Variant("short", sweep=("label_smoothing=0,0.05,0.1", "learning_rate=0.05,0.1", "conv_bias=true,false"))
    rows = [row for row in cifar_table.EXPERIMENT.rows_of(swept) if not row.on_request]
    for name, count in (("sweep", 36), ("small sweep", 2)):
        runs = [[swept.apply(row.run(seed)) for seed in range(3)] for row in rows[:count]]
        records = [[with_validation(make_record(run, 9.0), 8.0 + run.seed) for run in own] for own in runs]
        nets: dict[str, list[RowResult]] = {}
        for row, own in zip(rows, records):
            nets.setdefault(row.label.split(",")[0], []).append(RowResult(row, own, [], 3))
        figures[name] = sweep.validation_errors(nets, make_page(cifar_table.EXPERIMENT, swept, [], folder))
    for classes in (3, 14, 40):
        names = tuple(f"gesture number {i}" for i in range(classes))
        figures[f"{classes} classes"] = finetune_report.confusion_plot(np.full((classes, classes), 12), names)
    panels = {"paper": ERRORS_BY_DEPTH, "short": ERRORS_BY_DEPTH}
    figures["headline"] = headline.error_against_depth(
        {profile: places(profile, errors, folder / profile) for profile, errors in panels.items()}
    )
    return {name: figure for name, figure in figures.items() if figure is not None}


def test_every_text_of_every_figure_is_at_least_7_pt_inside_it_and_not_over_another(drawn):
    assert len(drawn) >= 20 and {*drawn} >= {"headline", "layers", "images", "finetune_short_curves"}
    for name, figure in drawn.items():
        with matplotlib.rc_context(STYLE):
            figure.canvas.draw()
        assert figure.get_figwidth() in (SINGLE, DOUBLE) == (3.3, 7.0), name
        page, beyond, seen = figure.bbox.padded(2), ticks_beyond(figure), []
        for text in figure.findobj(Text):
            if text.get_text() and text.get_visible() and text not in beyond:
                assert text.get_fontsize() >= 7, (name, text.get_text())
                where, upright = text.get_window_extent(), text.get_rotation() % 90 == 0
                inside = page.x0 <= where.x0 and where.x1 <= page.x1 and page.y0 <= where.y0 and where.y1 <= page.y1
                assert inside, (name, text.get_text())
                over = [other for other, place in seen if upright and where.padded(-1).overlaps(place.padded(-1))]
                assert not over, (name, text.get_text(), over)
                seen += [(text.get_text(), where)] if upright else []


def ticks_beyond(figure) -> set[Text]:
    """The labels that matplotlib keeps of ticks beyond an axis, and does not draw."""
    return {
        text
        for axis in figure.axes
        for place, labels, limits in (
            (0, axis.get_xticklabels(), axis.get_xlim()),
            (1, axis.get_yticklabels(), axis.get_ylim()),
        )
        for text in labels
        if not min(limits) <= text.get_position()[place] <= max(limits)
    }


def test_data_take_at_least_half_of_every_panel_that_is_published(monkeypatch):
    pool, figures = read_pool(PUBLISHED / "records"), {}
    monkeypatch.setattr(headline, "save_figure", lambda figure, path, _: figures.update({path.name: figure}) or [])
    for module in (cifar_table, degradation, mnist_residual, finetune):
        monkeypatch.setattr(module, "save", lambda figure, path, _: figures.update({path.name: figure}) or [])
        experiment = module.EXPERIMENT
        for variant in map(Variant, ("paper", "short")):
            if seeds := experiment.recorded_seeds(variant, pool):
                page = make_page(experiment, variant, experiment.results(variant, seeds, pool, pool), PUBLISHED)
                monkeypatch.setattr(type(page), "write", lambda *_: [])
                monkeypatch.setattr(type(page), "write_csv", lambda *_: [])
                experiment.report(page)
    headline.write(DEGRADATION, PUBLISHED, pool)
    shown = [(name, axis) for name, figure in figures.items() if figure for axis in figure.axes]
    assert len(shown) >= 10
    for name, axis in shown:
        points = [artist.get_xydata() for artist in axis.lines if artist.get_transform() == axis.transData]
        points += [artist.get_offsets() for artist in axis.collections if isinstance(artist, PathCollection)]
        places = (axis.transData - axis.transAxes).transform(np.concatenate(points))
        width, height = np.ptp(np.clip(places, 0, 1), axis=0)
        assert height >= 0.5 and (width >= 0.5 or len(axis.get_xticks()) <= 2), (name, width, height)


def test_no_bar_of_two_runs_and_none_beyond_0_or_100_percent():
    assert bars([1.0, 2.0]) is None
    assert bars([0.1, 0.2, 0.9])[0] == [pytest.approx(0.4)]  # to 0
    assert bars([99.9, 99.0, 98.0])[1] == [pytest.approx(100 - 98.9667, abs=1e-3)]
    assert bars([0.1, 0.2, 0.9], Interval(-1.0, 1.8)) == [[pytest.approx(1.4)], [pytest.approx(1.4)]]  # differences
    assert bars([5.0, 5.0, 5.0]) is None


# -------------------------------------------------------------------------------------------- Figure 6 and the headline


def test_110_layers_have_a_panel_of_their_own_once_they_have_runs(tmp_path):
    results = make_results(DEGRADATION, PAPER, ERRORS_BY_DEPTH | {"plain110": [65.0], "resnet110": [6.6]}, tmp_path)
    plain, residual, deepest = degradation.error_curves(results, PAPER).axes
    assert deepest.get_title(loc="left") == "(c) 110 layers"
    assert plain.get_ylim() == residual.get_ylim() != deepest.get_ylim() and deepest.get_ylim()[1] > 65
    solid = {line.get_color() for line in deepest.lines if len(line.get_xdata()) == 64}
    assert len(solid) == 2
    without = [result for result in results if not result.row.on_request]
    assert len(degradation.error_curves(without, PAPER).axes) == 2


ERRORS_BY_DEPTH = {"plain20": [9.1, 9.3], "plain56": [13.0, 13.4, 13.1], "resnet20": [8.6], "resnet56": [7.0, 7.1]}


def places(profile: str, errors: dict, root) -> list[headline.Place]:
    results = make_results(DEGRADATION, Variant(profile), errors, root)
    found = {result.row.key: result.records for result in results}
    return [headline.Place(row, found.get(row.key, [])) for row in DEGRADATION.rows(profile)]


def test_the_headline_has_the_short_profile_beside_a_paper_profile_of_one_plain_depth(tmp_path):
    def panels(name: str, **errors) -> list[str]:
        for profile, own in errors.items():
            make_pool(DEGRADATION, Variant(profile), own, tmp_path / name)
        return [*headline.find(DEGRADATION, read_pool(tmp_path / name))]

    one = {"plain20": [9.1, 9.3], "resnet20": [8.6]}
    assert panels("a", paper=one, short=ERRORS_BY_DEPTH) == ["paper", "short"]
    assert panels("b", paper=ERRORS_BY_DEPTH, short=ERRORS_BY_DEPTH) == ["paper"]
    assert panels("c", short=ERRORS_BY_DEPTH) == ["short"]
    (tmp_path / "none").mkdir()
    assert headline.write(DEGRADATION, tmp_path, read_pool(tmp_path / "none")) == []


def test_the_headline_draws_every_seed_and_the_papers_numbers(tmp_path):
    figure = headline.error_against_depth({p: places(p, ERRORS_BY_DEPTH, tmp_path / p) for p in ("paper", "short")})
    paper, short = figure.axes
    dots = sorted(float(y) for points in paper.collections for _, y in points.get_offsets())
    assert dots == sorted(error for errors in ERRORS_BY_DEPTH.values() for error in errors)
    diamonds = [line for line in paper.lines if line.get_marker() == "D"]
    assert sorted(y for line in diamonds for y in line.get_ydata()) == [6.61, 6.97, 7.17, 7.51, 8.75, 9, 13]
    assert all(line.get_markerfacecolor() == "none" for line in diamonds)
    assert not [line for line in short.lines if line.get_marker() == "D"]
    assert [label.get_text() for label in short.get_xticklabels()] == ["20", "56"]
    assert short.get_title(loc="left") == "(b) short profile, 1/16 of the iterations"
    assert "not comparable" in " ".join(figure.get_suptitle().split())
    assert "plain nets, one seed a dot; (a) n = 2, 3; (b) n = 2, 3" in written_in(figure)


def test_the_headline_is_published_and_checked(tmp_path):
    pool = make_pool(DEGRADATION, PAPER, ERRORS_BY_DEPTH, tmp_path / "own")
    written, _ = write_published([(DEGRADATION, PAPER)], tmp_path / "results", pool)
    assert {path.name for path in written} >= {"headline.png", "headline.svg"}
    description = read_description(tmp_path / "results/plots/headline.png")
    assert "from 8 records" in description and records_digest([*pool.records.values()]) in description
    (tmp_path / "plain").mkdir()
    written, _ = write_published([(TABLE, PAPER)], tmp_path / "plain", pool)
    assert "headline.png" not in {path.name for path in written}
