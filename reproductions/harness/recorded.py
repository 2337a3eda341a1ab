"""A summary of the records in a folder, by table and row, for its status."""

from collections.abc import Collection, Sequence
from pathlib import Path

from reproductions.harness.experiment import Experiment, Table
from reproductions.harness.known_records import read_known_pool
from reproductions.harness.launched import launched_tables, listed_tables, needed, own_tables
from reproductions.harness.record_files import judged_by

NAMED_SEEDS = 20  # of each row: unfinished runs with these seeds are called by their rows


def summarize(out: Path, experiments: Sequence[Experiment] | None = None) -> dict:
    """Summarize the records below ``out`` in plain values.

    ``experiments``: those whose tables are listed; None for all. The summary has "rows", each with the experiment,
    profile and row, "seeds" (of the profile, or of the records if these are more), the number of "done" and of
    "diverged" ones, and "test_errors" in percent ("mean_ious" for segmentation, "map_11_points" for detection), None
    for a run that diverged; "records": their number; "in_no_table": the number of those that no row shows or needs;
    "own_tables": the names of other tables launched there, and "own_commands": the commands that show them; "damaged":
    a sentence for each file that can't be used; "row_names": by the short id of each run without a record that was
    launched, its table and row.
    """
    if experiments is None:
        from reproductions.experiments import EXPERIMENTS as experiments
    pool = read_known_pool(out / "records", whole=False)
    rows, left = [], set(pool.records)
    for experiment, variant in launched_tables(experiments, out, pool):
        seeds = experiment.recorded_seeds(variant, pool)
        for result in experiment.results(variant, seeds, pool, pool):
            if result.records:
                left.difference_update(record["identity"] for record in result.records)
                left.difference_update(*(needed(record["specification"]) for record in result.records))
                diverged = sum(record["status"] == "diverged" for record in result.records)
                names = {"experiment": experiment.name, "profile": variant.name, "row": result.row.key}
                counts = {"seeds": seeds, "done": len(result.records), "diverged": diverged}
                judged = judged_by(result.records[0]["final"])
                metric = "validation_error" if variant.sweep else judged  # which a sweep hides
                rows.append({**names, **counts, f"{metric}s": [record["final"][metric] for record in result.records]})
    damaged = [f"{error.kind}: {error}" for error in pool.damaged.values()]
    counts = {"records": len(pool.records), "in_no_table": len(left)}
    names, own = _row_names(listed_tables(experiments, out), pool.records), own_tables(experiments, out)
    commands = [command for commands in own.values() for command in commands]
    others = {"own_tables": [*own], "own_commands": commands}
    return {"rows": rows, **counts, **others, "damaged": damaged, "row_names": names}


def _row_names(tables: Sequence[Table], recorded: Collection[str]) -> dict[str, str]:
    """Name the tables' runs that are not ``recorded`` (identities) by their short ids, each after its first row."""
    names, needed_by = dict[str, str](), dict[str, str]()
    for experiment, variant in tables:
        for row in experiment.fit_rows(variant):
            called = f"{experiment.name}{variant.suffix}, {row.label}"
            for run in (variant.apply(row.run(seed)) for seed in range(NAMED_SEEDS)):
                if run.identity not in recorded:
                    names.setdefault(run.short_id, called)
                for need in run.needs.values():
                    if need.identity not in recorded:
                        needed_by.setdefault(need.short_id, f"{called}, needed by it")
    return needed_by | names
