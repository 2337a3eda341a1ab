"""How the runs in a pool stand."""

import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from reproductions.harness.experiment import PROFILES, Experiment, Variant
from reproductions.harness.launching.progress import describe, duration
from reproductions.harness.launching.workplace import Status
from reproductions.harness.publish import recorded_seeds
from reproductions.harness.records import read_pool

SILENT_SECONDS = 300  # a running job writes its status every second or, in a slow step, a little less often


def show_status(experiments: tuple[Experiment, ...], out: Path, console: Console) -> int:
    """Print what is recorded, running, stopped and failed below ``out``; returns 1 if anything failed or is damaged."""
    pool = read_pool(out / "records")
    table = Table("experiment", "profile", "row", "done", "diverged", "errors, %")
    for experiment in experiments:
        for profile in PROFILES:
            variant, seeds = Variant(profile), recorded_seeds(experiment, profile, pool)
            for result in experiment.results(variant, seeds, pool, pool):
                if result.records:
                    diverged = sum(record["status"] == "diverged" for record in result.records)
                    errors = [record["final"]["test_error"] for record in result.records]
                    shown = ", ".join("–" if error is None else f"{error:.2f}" for error in errors)
                    done = f"{len(result.records)}/{seeds}"
                    table.add_row(experiment.name, profile, result.row.key, done, str(diverged), shown)
    if table.row_count:
        console.print(table)
    else:
        known = f"{len(pool.records)} records, none of them in a listed table," if pool.records else "no records"
        console.print(f"{known} in {out / 'records'}", highlight=False, markup=False)

    failed = False
    recorded = {path.stem for path in (out / "records").glob("*/*/*.json")}
    for folder in sorted(path.parent for path in out.glob("work/*/status.json")):
        status = Status.read(folder)
        if status is None or folder.name in recorded:  # the job was killed just after it wrote the record
            continue
        silent = time.time() - status.updated
        if status.state == "running" and silent > SILENT_SECONDS:
            text = f"no sign of life for {duration(silent)}; the same command goes on from its checkpoint"
        elif status.state == "running":
            text = f"running: {describe(status)}" if status.progress else "running"
        else:
            text = f"{status.state}: {status.message.strip().splitlines()[-1] if status.message.strip() else ''}"
            failed |= status.state == "failed"
        console.print(f"{status.run}: {text}", highlight=False, markup=False)
    for message in pool.damaged.values():
        console.print(f"damaged record: {message}", style="red", highlight=False, markup=False)
    return int(failed or bool(pool.damaged))
