"""Values from the command line: fields of the recipe and options of the nets, one by one or swept."""

import json
import shlex
from dataclasses import asdict, replace

import pytest
from fakes import make_record, make_results, store, with_validation, written_in
from scipy.stats import binomtest
from tiny import TINY, make_experiment

from reproductions import cifar_table, export
from reproductions.bag_of_tricks import refinements
from reproductions.experiments import EXPERIMENTS
from reproductions.finetune import experiment as finetune
from reproductions.harness import cli
from reproductions.harness.experiment import RowResult, Variant
from reproductions.harness.launched import launched_tables, note_tables
from reproductions.harness.recorded import summarize
from reproductions.harness.records import Pool, read_pool
from reproductions.harness.reporting import sweep
from reproductions.harness.reporting.curves import learning_curves
from reproductions.harness.reporting.page import make_page, write_report
from reproductions.harness.settings import combinations, parse_settings, parse_sweep
from reproductions.transfer import detection

TABLE = cifar_table.EXPERIMENT
REFINEMENTS = refinements.EXPERIMENTS["cifar10"]


def variant(text, **others):
    return Variant(**others, settings=parse_settings(text))


def sweeping(text, profile="paper", **others):
    return Variant(profile, **others, sweep=parse_sweep(text))


# ------------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("given", "form"),
    [
        ("weight_decay=5e-4 learning_rate=.05", ("learning_rate=0.05", "weight_decay=0.0005")),
        ("learning_rate=1", ("learning_rate=1",)),
        ("batch_size=64  nesterov=TRUE", ("batch_size=64", "nesterov=true")),
        ("milestones=2000,3000 schedule=step", ("milestones=2000,3000", "schedule=step")),
        ("milestones=() base_batch_size=None", ("base_batch_size=none", "milestones=")),
        ("zero_gamma=True shortcut=B", ("shortcut=B", "zero_gamma=true")),
        ("learning_rate=0.123456789", ("learning_rate=0.123456789",)),
    ],
)
def test_values_have_one_form_however_they_are_written(given, form):
    assert parse_settings(given) == form == parse_settings(" ".join(form))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate", "'learning_rate' is not of the form name=value"),
        ("=3", "'=3' is not of the form"),
        ("", "no name=value is given"),
        ("momentum=0.9 momentum=0.8", "momentum is given twice"),
        ("learning_rate=fast", "learning_rate must be a number, not 'fast'"),
        ("batch_size=12.5", "batch_size must be a whole number, not '12.5'"),
        ("nesterov=1", "nesterov must be true or false, not '1'"),
        ("milestones=1,x", "milestones must be a whole number, not 'x'"),
    ],
)
def test_what_is_no_value_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_settings(text)


def test_fields_and_options_are_the_rows_and_no_other_departs():
    changed = variant("weight_decay=5e-4 conv_bias=true shortcut=B")
    for before, run in zip(TABLE.runs(Variant(), 2), TABLE.runs(changed, 2), strict=True):
        assert run.recipe == replace(before.recipe, weight_decay=5e-4)
        assert run.model_options == {"conv_bias": True, "shortcut": "B"}
        assert (run.seed, run.model, run.train_images) == (before.seed, before.model, before.train_images)


def test_values_that_a_row_has_anyway_are_the_same_runs():
    own = variant("learning_rate=0.1 shortcut=A milestones=32000,48000 weight_decay=1e-4")
    assert TABLE.runs(own, 3) == TABLE.runs(Variant(), 3) and TABLE.resolve(own) == Variant()
    some = variant("learning_rate=0.1 weight_decay=5e-4")
    assert TABLE.resolve(some) == variant("weight_decay=5e-4")
    # One row has it, the others have not: the variant is one, and that row's runs are the default's.
    warmed = variant("warmup_learning_rate=0.01")
    assert TABLE.resolve(warmed) == warmed
    assert TABLE.runs(warmed, 1, ["resnet110"]) == TABLE.runs(Variant(), 1, ["resnet110"])
    assert not set(TABLE.runs(warmed, 1, ["resnet20"])) & set(TABLE.runs(Variant(), 1))


def test_what_no_paper_reports_is_compared_with_none():
    rows = {row.key: row for row in TABLE.rows_of(variant("warmup_learning_rate=0.01"))}
    assert rows["resnet20"].reported is None and rows["resnet110"].reported == "resnet110"


def test_files_headings_and_commands_say_which_values():
    changed = variant("weight_decay=5e-4 learning_rate=0.05", profile="short", precision="fp32")
    assert changed.suffix == "_short_fp32_learning_rate=0.05_weight_decay=0.0005"
    assert changed.name == "short, fp32, learning_rate=0.05, weight_decay=0.0005"
    assert changed.heading.endswith("; fp32 throughout; with learning_rate=0.05, weight_decay=0.0005")
    command = TABLE.command(changed, 5)
    assert command == ("make reproduce-cifar-table PROFILE=short PRECISION=fp32 "
                       "SET='learning_rate=0.05 weight_decay=0.0005'")  # fmt: skip
    row = TABLE.rows_of(changed)[0]
    assert export.file_name(TABLE, row, changed) == f"cifar_resnet20{changed.suffix}.safetensors"


def test_many_values_are_named_by_their_digest_because_names_of_files_are_short():
    many = variant("learning_rate=0.123456789 weight_decay=0.123456789 warmup_learning_rate=0.123456789 momentum=0.7 "
                   "label_smoothing=0.1")  # fmt: skip
    other = replace(many, settings=(*many.settings[:-1], "weight_decay=0.2"))
    assert many.suffix.startswith("_set-") and len(many.suffix) < 30 and many.suffix != other.suffix
    assert "label_smoothing=0.1" in many.heading


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("weight_dekay=1", r"nothing is called 'weight_dekay'; did you mean weight_decay\?"),
        ("short_cut=B", r"nothing is called 'short_cut'; did you mean shortcut\?"),
        ("speed=1", "nothing is called 'speed'; fields of the recipe: iterations, .*weight_decay.*; "
                    "options of cifar_resnet20: shortcut, "),
        ("precision=bf16", "precision has a variable of its own, PRECISION="),
        ("num_classes=5", "num_classes follows from the data"),
        ("learning_rate=-1", "row resnet20 .*learning_rate must be a number of at least 0, not -1"),
        ("schedule=linear", "schedule must be one of step, cosine"),
        ("shortcut=D", "shortcut must be one of 'A', 'B', 'C', not 'D'"),
        ("zero_gamma=2", "zero_gamma must be true or false"),
        ("zero_gamma=true", "row resnet20 .*zero_gamma needs projections, shortcut 'B' or 'C'"),
        ("schedule=cosine", "a cosine schedule has no milestones"),
        ("milestones=2000,99000", "milestones 99000 are beyond the 64000 iterations"),
        ("temperature=4", "there is a temperature, but no teacher"),
    ],
)  # fmt: skip
def test_what_a_row_cannot_have_is_refused_in_a_line(text, message):
    with pytest.raises(ValueError, match=message) as refused:
        TABLE.runs(variant(text), 1)
    assert "\n" not in str(refused.value)


def test_rows_that_cannot_have_a_value_are_named_and_the_others_have_it(tmp_path):
    hot = variant("temperature=10", profile="smoke")
    with pytest.raises(ValueError, match=r"row efficient .*; rows that could have them: ROWS=distilled,mixup_dist"):
        REFINEMENTS.runs(hot, 1)
    (run,) = [run for run in REFINEMENTS.runs(hot, 1, ["distilled"]) if run.teacher]
    assert run.recipe.temperature == 10 and REFINEMENTS.resolve(hot) == hot
    store(tmp_path, make_record(run, 20.0))
    pool = read_pool(tmp_path)
    results = {result.row.key: result for result in REFINEMENTS.results(hot, 1, pool, Pool(tmp_path / "no"))}
    assert len(results["distilled"].records) == 1 and results["efficient"].records == []
    assert results["efficient"].row.unfit and REFINEMENTS.recorded_seeds(hot, pool) == 2


def test_a_teacher_keeps_its_recipe_and_a_pretraining_is_the_tables_own_row():
    changed, default = variant("weight_decay=5e-4"), Variant()
    (student,) = [run for run in REFINEMENTS.runs(changed, 1, ["distilled"]) if run.teacher]
    (before,) = [run for run in REFINEMENTS.runs(default, 1, ["distilled"]) if run.teacher]
    assert student != before and student.teacher == before.teacher
    runs = finetune.EXPERIMENT.runs(changed, 1)
    tuned = [run for run in runs if run.pretrained]
    assert tuned and all(run.pretrained in runs and run.pretrained.recipe.weight_decay == 5e-4 for run in tuned)


def test_a_launched_table_with_values_is_found_again(tmp_path):
    tiny, changed = make_experiment(), variant("momentum=0.8", profile="smoke")
    (tmp_path / "launched.jsonl").write_text('{"experiment": "tiny", "profile": "smoke"}\n')  # of older code
    note_tables(tmp_path, [(tiny, changed)])
    assert json.loads((tmp_path / "launched.jsonl").read_text().splitlines()[1])["settings"] == ["momentum=0.8"]
    runs = [tiny.runs(one, 1, ["resnet8"])[0] for one in (Variant("smoke"), changed)]
    store(tmp_path / "records", *(make_record(run, error) for run, error in zip(runs, (20.0, 10.0))))
    pool = read_pool(tmp_path / "records")
    assert launched_tables([tiny], tmp_path, pool) == [(tiny, Variant("smoke")), (tiny, changed)]
    rows = summarize(tmp_path, [tiny])["rows"]
    found = [(row["profile"], row["test_errors"]) for row in rows]
    assert found == [("smoke", [20.0]), ("smoke, momentum=0.8", [10.0])]
    assert Variant(**json.loads(json.dumps(asdict(changed)))) == changed


def test_the_command_line_takes_values_and_refuses_others(capsys):
    given = ["--profile", "smoke", "--set", "momentum=0.8 batch_size=8"]
    options = cli.parse(make_experiment(), given)
    assert options.variant == variant("momentum=0.8", profile="smoke")  # the batch size is its own
    assert {run.recipe for run in options.runs} == {replace(TINY, momentum=0.8)}
    for wrong, said in (
        ("weightdecay=5e-4", "nothing is called 'weightdecay'; did you mean weight_decay?\n--help lists the flags\n"),
        ("speed=1", "nothing is called 'speed'; fields of the recipe: iterations, "),
        ("momentum", "is not of the form name=value"),
    ):
        with pytest.raises(SystemExit):
            cli.parse(make_experiment(), ["--set", wrong])
        printed = capsys.readouterr().err
        assert said in printed and printed.startswith("python -m reproductions.tiny: error: ")


# ---------------------------------------------------------------------------------------------------------------- sweep


def test_all_combinations_are_swept_on_nine_tenths_of_the_images():
    swept = sweeping("learning_rate=0.05,.1,0.1,0.2 weight_decay=5e-4,1e-4")
    assert swept.sweep == ("learning_rate=0.05,0.1,0.2", "weight_decay=0.0005,0.0001")
    assert combinations(swept.sweep)[:2] == [("learning_rate=0.05", "weight_decay=0.0005"),
                                             ("learning_rate=0.05", "weight_decay=0.0001")]  # fmt: skip
    runs = TABLE.runs(swept, TABLE.default_seeds(swept), ["resnet20"])
    assert [(run.recipe.learning_rate, run.recipe.weight_decay) for run in runs] == [
        (rate, decay) for rate in (0.05, 0.1, 0.2) for decay in (5e-4, 1e-4)
    ]
    assert {(run.train_images, run.seed, run.model) for run in runs} == {(45_000, 0, "cifar_resnet20")}
    assert {run.train_images for run in TABLE.runs(replace(swept, train_images=40_000), 1)} == {40_000}
    smoke = TABLE.runs(sweeping("learning_rate=0.1,0.2", "smoke"), 1)
    assert {run.train_images for run in smoke} == {1_800}
    (taught, _) = [run for run in REFINEMENTS.runs(sweeping("learning_rate=0.1,0.2"), 1, ["distilled"]) if run.teacher]
    assert taught.teacher.train_images == 45_000  # it would else know the images that are held out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate=0.1", "a sweep needs a name with several values"),
        ("learning_rate=0.1,0.10", "a sweep needs a name with several values"),
        ("milestones=1,2", "milestones can't be swept"),
        ("learning_rate=0.1,fast", "learning_rate must be a number, not 'fast'"),
    ],
)
def test_what_is_no_sweep_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_sweep(text)


def test_a_name_is_either_set_or_swept():
    with pytest.raises(ValueError, match="momentum can't be both set and swept"):
        Variant(settings=("momentum=0.8",), sweep=("momentum=0.8,0.9",))
    with pytest.raises(ValueError, match="an image folder has no validation split"):
        refinements.EXPERIMENTS["imagenet"].runs(sweeping("learning_rate=0.1,0.2"), 1)
    with pytest.raises(ValueError, match="a sweep ranks by held-out images, and training for detection holds out none"):
        detection.EXPERIMENTS["canvas"].runs(sweeping("learning_rate=0.1,0.2"), 1)


def test_a_key_of_several_words_stays_the_key_of_a_swept_row():
    (first, second) = sweeping("learning_rate=0.1,0.2").rows_of(replace(TABLE.rows("smoke")[0], key="my net"))
    assert first.own_key == second.own_key == "my net" and first.key == "my net learning_rate=0.1"


SWEEP = sweeping("learning_rate=0.05,0.1,0.2 weight_decay=1e-4,5e-4", "smoke", settings=("momentum=0.8",))


def page_of(tmp_path, errors, variant=SWEEP, experiment=TABLE):
    """The page of validation errors by row and combination, each a list by seed; the test errors are 77."""
    runs = {}
    for row in experiment.rows_of(variant):
        for seed, error in enumerate(errors.get(row.key, [])):
            runs[variant.apply(row.run(seed))] = error
    records = [make_record(run, 77.77, diverged=e is None) for run, e in runs.items()]
    records = [with_validation(r, e) if e is not None else r for r, e in zip(records, runs.values())]
    store(tmp_path / "records", *records)
    pool, seeds = read_pool(tmp_path / "records"), max(map(len, errors.values()))
    return make_page(experiment, variant, experiment.results(variant, seeds, pool, Pool(tmp_path / "no")), tmp_path)


ERRORS = {
    "resnet8 learning_rate=0.05 weight_decay=0.0001": [30.0],
    "resnet8 learning_rate=0.1 weight_decay=0.0001": [22.5],
    "resnet8 learning_rate=0.2 weight_decay=0.0005": [25.0],
    "resnet8 learning_rate=0.2 weight_decay=0.0001": [None],
}


def test_the_page_ranks_by_the_validation_error_and_gives_the_command_for_the_best(tmp_path):
    files = sweep.write_sweep(page_of(tmp_path, ERRORS))
    text = files[0].read_text()
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ResNet")
    ]
    assert [line[:4] for line in lines] == [
        ["ResNet-8", "1", "0.1", "0.0001"],
        ["ResNet-8", "2", "0.2", "0.0005"],
        ["ResNet-8", "3", "0.05", "0.0001"],
        ["ResNet-8", "–", "0.2", "0.0001"],
    ]
    assert "77.77" not in "".join(path.read_text() for path in files if path.suffix in (".md", ".csv"))
    assert "ResNet-8: learning_rate=0.1, weight_decay=0.0001, validation error 22.50 %." in text
    assert "2 of the 2 others have an interval that overlaps" in text and "3 of 6 have no completed run yet" in text
    assert "At the edge of the values tried: weight_decay=0.0001; try larger or smaller ones." in text
    assert "ResNet-14" not in text
    # 0.0001 is the row's own value.
    winner = "make reproduce-cifar-table PROFILE=smoke ROWS=resnet8 SET='learning_rate=0.1 momentum=0.8'"
    assert f"\n    {winner}\n" in text
    arguments = [one.partition("=") for one in shlex.split(winner)[2:]]
    flags = [text for name, _, value in arguments for text in (f"--{name.lower()}", value)]
    trained = cli.parse(TABLE, flags).runs
    assert {run.train_images for run in trained} == {None} and [run.seed for run in trained] == [0, 1]
    assert {(run.recipe.learning_rate, run.recipe.momentum) for run in trained} == {(0.1, 0.8)}
    again = "ROWS=resnet8 SET=momentum=0.8 SWEEP='learning_rate=0.05,0.1,0.2 weight_decay=0.0001,0.0005'`"
    assert again in text and {path.suffix for path in files} == {".md", ".csv", ".png", ".svg"}
    assert files[0].name == f"cifar_table{SWEEP.suffix}.md" and "_sweep_learning_rate=0.05,0.1,0.2_" in SWEEP.suffix


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (2, "The other has an interval that overlaps with its own. At"),
        (3, "1 of the 2 others has an interval that overlaps with its own. At"),
        (4, "1 of the 2 others has an interval that overlaps with its own. 1 of 4 has no completed run yet. At"),
    ],
)
def test_one_row_of_a_sweep_has(tmp_path, values, said):
    swept = sweeping(f"learning_rate={','.join(('0.4', '0.3', '0.2', '0.1')[:values])}", "smoke")
    errors = {f"resnet8 learning_rate={rate}": [error] for rate, error in ((0.4, 20.0), (0.3, 20.5), (0.2, 80.0))}
    assert f" %. {said} the edge of" in sweep.write_sweep(page_of(tmp_path, errors, swept))[0].read_text()


def test_the_interval_is_over_images_of_few_runs_and_over_seeds_of_three(tmp_path):
    few, many = (f"resnet8 learning_rate={rate} weight_decay=0.0001" for rate in (0.1, 0.05))
    results = page_of(tmp_path, {few: [20.0, 22.0], many: [20.0, 22.0, 24.0]}).results
    found = {result.row.key: sweep.error_interval(result) for result in results if result.records}
    wilson = binomtest(42, 200).proportion_ci(method="wilson")
    assert (found[few].low, found[few].high) == pytest.approx((100 * wilson.low, 100 * wilson.high))
    assert (found[many].low, found[many].high) == pytest.approx((22 - 4.968, 22 + 4.968), abs=1e-3)


def test_the_plot_has_every_net_with_its_values(tmp_path):
    errors = ERRORS | {"resnet14 learning_rate=0.1 weight_decay=0.0005": [19.0, 20.0]}
    page = page_of(tmp_path, errors)
    nets = {"ResNet-8": page.results[:6], "ResNet-14": page.results[6:12]}
    written = written_in(sweep.validation_errors(nets, page))
    assert {"(a) ResNet-8", "(b) ResNet-14", "0.1, 0.0005 (n = 2)", "validation error (%)"} <= {*written}
    assert sweep.validation_errors({"none": [RowResult(TABLE.rows("smoke")[0], [], [], 1)]}, page) is None


def test_a_sweep_is_launched_and_its_status_shows_no_test_error(tmp_path, published, capsys):
    flags = ["--profile", "smoke", "--rows", "resnet8", "--launcher", "inline", "--out", str(tmp_path)]
    assert cli.run_experiment(make_experiment(), [*flags, "--sweep", "learning_rate=0.1,0.01"]) == 0
    printed = capsys.readouterr()
    pool = read_pool(tmp_path / "records")
    assert len(pool.records) == 2 and "validation error" in printed.out
    assert "test error" not in printed.err and printed.err.count("validation error") == 2
    assert "make reproduce-tiny PROFILE=smoke ROWS=resnet8" in printed.out
    finals = {record["final"]["validation_error"] for record in pool.records.values()}
    rows = summarize(tmp_path, [make_experiment()])["rows"]
    assert {error for row in rows for error in row["validation_errors"]} == finals and len(rows) == 2
    assert not any("test_errors" in row for row in rows)


# ----------------------------------------------------------------------------------------------------- validation error


def test_a_table_shows_the_validation_error_where_it_was_measured(tmp_path):
    held_out = Variant("smoke", train_images=1_800)
    page = page_of(tmp_path, {"resnet8": [12.34, 12.36]}, held_out)
    text = page.write([page.net(), page.reproduced()])[0].read_text()
    assert "validation error" in text and "12.34, 12.36" in text and "77.77" in text
    results = make_results(TABLE, Variant("smoke"), {"resnet8": [9.0]}, tmp_path / "none", {})
    other = make_page(TABLE, Variant("smoke"), results, tmp_path)
    assert "validation" not in other.write([other.net()])[0].read_text()


@pytest.mark.parametrize("setting", ["iterations=20", "momentum=0.8", "temperature=3", "warmup_learning_rate=0.01"])
@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda one: one.name)
def test_every_table_is_written_with_other_values(experiment, setting, tmp_path, no_plots):
    changed = variant(setting, profile="smoke")
    runs = {changed.apply(row.run(seed)) for row in experiment.fit_rows(changed) for seed in range(3)}
    runs |= {need for run in runs for need in run.needs.values()}
    store(tmp_path / "records", *(make_record(run, 20.0 + run.seed) for run in runs))
    pool = read_pool(tmp_path / "records")
    results = experiment.results(changed, 3, pool, Pool(tmp_path / "none"))
    (page, *_) = write_report(experiment, changed, results, tmp_path) or [None]
    assert page is None or not runs or f"with {setting}" in page.read_text()


def test_drops_after_the_last_iteration_are_not_drawn(tmp_path):
    for setting, drawn in (("iterations=80", 1), ("iterations=40", 0), ("iterations=100", 2)):
        changed = variant(setting, profile="smoke")
        row = TABLE.rows_of(changed)[0]
        store(tmp_path / setting, *(make_record(changed.apply(row.run(seed)), 20.0) for seed in range(2)))
        results = TABLE.results(changed, 2, read_pool(tmp_path / setting), Pool(tmp_path / "none"))
        assert written_in(learning_curves({"nets": results}, changed)).count("÷ 10") == drawn
