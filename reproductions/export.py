"""``python -m reproductions export``: final weights of an experiment's nets as safetensors files, for release.

For each row one seed is exported, the one whose final test error is closest to the row's mean, so that a released net
is neither the best nor the worst of its kind. The file's card names its run and the other seeds' results. The file has
the row's name, :func:`file_name`: two rows never share a file.
"""

import json
from fractions import Fraction
from pathlib import Path

from rich.console import Console

from reproductions.harness.console import DEFAULT_DATA, EXIT_REFUSED, complain
from reproductions.harness.experiment import Experiment, Row, Variant
from reproductions.harness.final_weights import read_final_weights
from reproductions.harness.provenance import ROOT
from reproductions.harness.records import read_pool
from reproductions.harness.reporting import intervals
from reproductions.harness.reporting.frame import completed, final_values
from resnet.data import FOLDERS, IMAGE_SHAPES, NUM_CLASSES, DataError, load, place
from resnet.files import write_atomically
from resnet.models import changed_options
from resnet.preprocessing import Preprocessing, of_known_data, of_resident_data
from resnet.released import pack_weights, read_card
from resnet.run import Run, canonical_json
from resnet.weights import WeightsError

LIMIT = 30_000_000  # bytes in a folder of released weights: they are kept in the repository
# The normalization of images in memory, with values from 0 to 1.
NORMALIZED = {
    "pixel_mean": "less the per-pixel mean of the training images",
    "channel_mean": "less each channel's mean of the training images",
    "channel_std": "less each channel's mean of the training images, over its standard deviation",
}


def export_weights(
    experiment: Experiment,
    variant: Variant,
    keys: list[str] | None,
    out: Path,
    to: Path,
    console: Console,
    data: Path = DEFAULT_DATA,
) -> int:
    """Export the weights of the rows with these keys, None for all, from ``out`` into the folder ``to``.

    ``data`` is the folder of the training images: a file has their mean and scale, and is not written without them.

    Returns the exit status. 0: every row with completed runs was exported. 1: some could not be, or there was nothing
    to export. 2: nothing was written, because the files would exceed LIMIT, or replace another row's, or the variant or
    row is unknown.
    """
    try:
        variant = experiment.resolve(variant, keys)
        rows = experiment.chosen_rows(variant, keys)
        if tasks := {row.task.name for row in rows if row.task is not None}:
            raise ValueError(f"{experiment.name} has networks for {', '.join(tasks)}: only classifiers are exported")
    except ValueError as error:  # more images than there are; an unknown row
        complain(console, str(error))
        return EXIT_REFUSED
    pool, files, problems, clashes = read_pool(out / "records"), {}, list[str](), list[str]()
    for row in rows:
        records = completed(row.records(variant, pool))
        if not records:
            console.print(f"{row.label}: no completed runs in {out}")
            continue
        chosen = choose(records)
        try:
            state, values = read_final_weights(out, chosen), _preprocessing(chosen, data).card()
        except WeightsError as error:
            problems.append(f"{row.label}: not exported: {error}; train again in another OUT")
            continue
        except DataError as error:
            problems.append(f"{row.label}: not exported: {error}")
            continue
        card = make_card(experiment, row, variant, chosen, records) | values
        path = to / file_name(experiment, row, variant)
        if path in files:
            clashes.append(f"{row.label}: {path} belongs to another row of {experiment.name}; change one of the keys")
        elif clash := _why_not_replaced(path, row, variant):
            clashes.append(f"{row.label}: {clash}; move it away, or name another folder with --to (TO= with make)")
        files[path] = pack_weights(state, card)
    problems += map(str, pool.damaged.values())
    for text in (*problems, *clashes):
        complain(console, text)
    if clashes:
        complain(console, "nothing was written")
        return EXIT_REFUSED
    kept = sum(path.stat().st_size for path in to.glob("*.safetensors") if path not in files)
    if (size := kept + sum(map(len, files.values()))) > LIMIT:
        complain(console, f"{to} would hold {size / 1e6:.1f} MB of weights, more than the limit of "
                          f"{LIMIT / 1e6:.0f} MB for released weights: nothing was written")  # fmt: skip
        return EXIT_REFUSED
    for path, content in files.items():
        write_atomically(path, content)
        console.print(f"wrote {path} ({len(content) / 1e6:.2f} MB)")
    return int(bool(problems) or not files)


def file_name(experiment: Experiment, row: Row, variant: Variant) -> str:
    """Name the file of a row's weights, with the variant's suffix.

    A row with its net's key and no options has the net's name: ``cifar_resnet20``. A key that extends the net's extends
    the name, ``cifar_resnet20-nesterov``; both end in a data set other than the script's first, as in
    ``cifar_resnet20-cifar100``. Any other key follows net and experiment:
    ``cifar_bottleneck56-bag_of_tricks_tweaks-b_standard``.
    """
    net, options = row.model.removeprefix("cifar_"), changed_options(row.model, row.model_options)
    dataset = f"-{experiment.dataset}" if experiment.dataset else ""
    if row.key == net and not options:
        name = row.model + dataset
    elif row.key.startswith(f"{net}-"):
        name = row.model + row.key.removeprefix(net) + dataset
    else:
        name = f"{row.model}-{experiment.name}-{row.key}"
    return f"{name}{variant.suffix}.safetensors"


def _why_not_replaced(path: Path, row: Row, variant: Variant) -> str:
    """Explain why an existing file must not be replaced by this row's; empty if it is the row's, or there is none.

    A row of several experiments is one row: the file's run must be one of the row's.
    """
    if not path.exists():
        return ""
    try:
        card = read_card(path)
    except WeightsError as error:
        return str(error)
    seed = card.get("seed", "")
    if seed.isdigit() and variant.apply(row.run(int(seed))).identity == card.get("record_identity"):
        return ""
    what = f"the weights of {card['row']} ({card['experiment']})" if {"row", "experiment"} <= set(card) else "weights"
    return f"{path} has {what}, trained in another way"


def choose(records: list[dict]) -> dict:
    """Choose the completed run whose final test error is closest to the mean, of equals the one with the lowest seed.

    Errors count as written, not as rounded to binary numbers, which would decide between equals.
    """
    errors = [Fraction(str(record["final"]["test_error"])) for record in records]
    centre = sum(errors) / len(errors)
    distances = {r["specification"]["seed"]: abs(error - centre) for r, error in zip(records, errors)}
    return min(records, key=lambda r: (distances[r["specification"]["seed"]], r["specification"]["seed"]))


def make_card(experiment: Experiment, row: Row, variant: Variant, record: dict, records: list[dict]) -> dict[str, str]:
    """Describe the network for its file: ``record`` is its run's record, ``records`` has all completed seeds.

    ``precision`` is the precision of training and tests: the same weights have a slightly different error in another.
    """
    run, errors = Run.from_specification(record["specification"]), final_values(records)
    options = {"num_classes": NUM_CLASSES[run.data], **run.model_options}
    card = {
        "row": row.label,
        "model": run.model,
        "options": canonical_json(changed_options(run.model, options)).decode(),
        "recipe": canonical_json(record["specification"]["recipe"]).decode(),
        "experiment": f"{experiment.title} ({experiment.source})",
        "profile": variant.name,
        "input": _input(run),
        "seed": str(run.seed),
        "seeds": json.dumps([r["specification"]["seed"] for r in records]),
        "choice": "final test error closest to the row's mean",
        "test_error": str(record["final"]["test_error"]),
        "precision": record["precision"],
        "row_test_error_mean": str(intervals.mean(errors)),
        "row_test_error_std": str(intervals.std(errors) if len(errors) > 1 else ""),
        "row_test_error_n": str(len(errors)),
        "record_identity": record["identity"],
        "record_sha256": record["record_sha256"],
        "weights_sha256": record["weights_sha256"],
        "data": record["data"]["name"],
        "data_sha256": record["data"]["sha256"],
        "data_official": str(record["data"]["official"]).lower(),
        "commit": record["code"]["commit"] or "",
        "code_modified": {True: "true", False: "false", None: "unknown"}[record["code"]["modified"]],
    }
    if (licence := ROOT / "LICENSE").exists():
        card["licence"] = f"{licence.name}: {licence.read_text(encoding='utf-8').strip().splitlines()[0].strip()}"
    return card


def _preprocessing(record: dict, data: Path) -> Preprocessing:
    """Find the preprocessing of a record's run. Raises DataError if it needs the run's data and these are others."""
    run, digest = Run.from_specification(record["specification"]), record["data"]["sha256"]
    if (known := of_known_data(run, digest)) is not None:
        return known
    dataset = load(run.data, data, download=False)
    if dataset.digest != digest:
        raise DataError(f"{run.data} in {data} has the SHA-256 {dataset.digest}, but the run was trained on {digest}; "
                        "name the folder of its data with --data (DATA= with make)")  # fmt: skip
    return of_resident_data(place(dataset, run.train_images, "cpu"), run.recipe)


def _input(run: Run) -> str:
    """Describe the network's input."""
    if run.data in FOLDERS:
        size = run.recipe.image_size
        return f"RGB images (N, 3, {size}, {size}), each channel less ImageNet's mean, over its standard deviation"
    height, width, channels = IMAGE_SHAPES[run.data]
    colours = "RGB" if channels == 3 else "grey"
    shape = f"(N, {channels}, {height}, {width})"
    return f"{colours} images {shape} from 0 to 1, {NORMALIZED[run.recipe.normalization]}"
