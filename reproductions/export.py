"""``python -m reproductions export``: final weights of the CIFAR-10 table's nets as safetensors files, for release.

Of each row one seed's: the one whose final test error is closest to the row's mean, so that a released net is neither
the best nor the worst of its kind. The file's card says which run it is from and how the others did.
"""

import json
from fractions import Fraction
from pathlib import Path

from rich.console import Console

from reproductions.cifar_table import EXPERIMENT
from reproductions.harness.console import EXIT_REFUSED, complain
from reproductions.harness.experiment import Row, Variant
from reproductions.harness.final_weights import read_final_weights
from reproductions.harness.provenance import ROOT
from reproductions.harness.records import read_pool
from reproductions.harness.reporting import statistics
from reproductions.harness.reporting.samples import completed, final_values
from resnet.files import write_atomically
from resnet.models import changed_options
from resnet.released import pack_weights
from resnet.run import Run, canonical_json
from resnet.weights import WeightsError

LIMIT = 20_000_000  # bytes in a folder of released weights: they are kept in the repository


def export_weights(variant: Variant, out: Path, to: Path, console: Console) -> int:
    """Export every row's weights of that variant from ``out`` into the folder ``to``; returns the exit status.

    0: of every row that has completed runs. 1: some could not be exported, or there was nothing to export; 2: the files
    would be more than LIMIT, or there is no such variant, and none was written.
    """
    try:
        variant = EXPERIMENT.resolve(variant)
    except ValueError as error:  # more images than there are
        complain(console, str(error))
        return EXIT_REFUSED
    pool, files, problems = read_pool(out / "records"), {}, list[str]()
    for row in EXPERIMENT.rows(variant.profile):
        records = completed(row.records(variant, pool))
        if not records:
            console.print(f"{row.label}: no completed runs in {out}")
            continue
        chosen = choose(records)
        try:
            state = read_final_weights(out, chosen)
        except WeightsError as error:
            problems.append(f"{row.label}: not exported: {error}; train again in another OUT")
            continue
        card = make_card(row, variant, chosen, records)
        files[to / f"{row.model}{variant.suffix}.safetensors"] = pack_weights(state, card)
    problems += pool.damaged.values()
    for text in problems:
        complain(console, text)
    kept = sum(path.stat().st_size for path in to.glob("*.safetensors") if path not in files)
    if (size := kept + sum(map(len, files.values()))) > LIMIT:
        complain(console, f"{to} would hold {size / 1e6:.1f} MB of weights, more than the {LIMIT / 1e6:.0f} MB that a "
                          "folder of released weights may: nothing was written")  # fmt: skip
        return EXIT_REFUSED
    for path, content in files.items():
        write_atomically(path, content)
        console.print(f"wrote {path} ({len(content) / 1e6:.2f} MB)")
    return int(bool(problems) or not files)


def choose(records: list[dict]) -> dict:
    """The completed run whose final test error is closest to the mean of all, of equals the one with the lowest seed.

    By the numbers as they are written, not by their binary rounding, which would decide between equals.
    """
    errors = [Fraction(str(record["final"]["test_error"])) for record in records]
    centre = sum(errors) / len(errors)
    distances = {r["specification"]["seed"]: abs(error - centre) for r, error in zip(records, errors)}
    return min(records, key=lambda r: (distances[r["specification"]["seed"]], r["specification"]["seed"]))


def make_card(row: Row, variant: Variant, record: dict, records: list[dict]) -> dict[str, str]:
    """What the file says of the network: ``record`` is that of its run, ``records`` those of all completed seeds.

    ``precision`` is what it was trained and tested in: the same weights have a slightly different error in another.
    """
    run, errors = Run.from_specification(record["specification"]), final_values(records)
    card = {
        "row": row.label,
        "model": run.model,
        "options": canonical_json(changed_options(run.model, run.model_options)).decode(),
        "recipe": canonical_json(record["specification"]["recipe"]).decode(),
        "experiment": f"{EXPERIMENT.title} ({EXPERIMENT.source})",
        "profile": variant.name,
        "input": "RGB images (N, 3, 32, 32) from 0 to 1, less the per-pixel mean of the training images",
        "seed": str(run.seed),
        "seeds": json.dumps([r["specification"]["seed"] for r in records]),
        "choice": "final test error closest to the row's mean",
        "test_error": str(record["final"]["test_error"]),
        "precision": record["precision"],
        "row_test_error_mean": str(statistics.mean(errors)),
        "row_test_error_std": str(statistics.std(errors) if len(errors) > 1 else ""),
        "row_test_error_n": str(len(errors)),
        "record_identity": record["identity"],
        "record_sha256": record["record_sha256"],
        "weights_sha256": record["weights_sha256"],
        "data": record["data"]["name"],
        "data_sha256": record["data"]["sha256"],
        "data_official": str(record["data"]["official"]).lower(),
        "commit": record["code"]["commit"] or "",
        "code_modified": str(record["code"]["modified"]).lower(),
    }
    licence = next((path for name in ("LICENSE", "LICENCE", "COPYING") for path in ROOT.glob(f"{name}*")), None)
    if licence is not None:
        card["licence"] = f"{licence.name}: {licence.read_text(encoding='utf-8').strip().splitlines()[0].strip()}"
    return card
