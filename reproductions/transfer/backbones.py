"""Transfer of weights that exist, instead of the ladder's: a table of its own, with a row for each file.

    --backbones "torchvision:resnet50:IMAGENET1K_V1 torchvision:resnet50:IMAGENET1K_V2 FILE"

asks whether better classifiers make better detectors without training a classifier. The weights are of ImageNet nets,
from torchvision or in files of any kind that :mod:`resnet.weights` reads. They are copied into ``OUT/backbones``, where
runs find them by their SHA-256, which is a part of the runs' identities. Each row is compared with the one before.
"""

import hashlib
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from reproductions.harness import cli
from reproductions.harness.console import (
    DEFAULT_OUT,
    EXIT_REFUSED,
    ArgumentParser,
    complain,
    make_console,
    path_argument,
)
from reproductions.harness.experiment import PROFILES, Experiment, Row
from reproductions.harness.final_weights import keep_backbone
from reproductions.harness.reporting.page import of_fullest_row
from reproductions.transfer.protocol import SETTINGS
from resnet.weights import TORCHVISION, Architecture, WeightsError, find_architecture, read_weights, torchvision_file


def main(experiments: Mapping[str, Experiment], arguments: list[str] | None = None) -> int:
    """Run the table of the ladder's classifiers, or of the weights that ``--backbones`` names; return the exit status.

    2: weights can't be used, or the data set is not one of real images, and the message says why.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = ArgumentParser(add_help=False)
    parser.add_argument("--backbones")
    parser.add_argument("--dataset")
    options, others = parser.parse_known_args(arguments)  # others: for the command line of a table of one data set
    if options.backbones is None:
        return cli.run_experiment(experiments, arguments)
    parser.add_argument("--out", type=path_argument, default=DEFAULT_OUT)
    parser.add_argument("--profile", choices=PROFILES, default="paper")
    options, _ = parser.parse_known_args(arguments)
    try:
        real = [name for name in experiments if name != "canvas"]
        if options.dataset not in real or options.profile == "smoke":
            raise WeightsError(f"weights of ImageNet nets need real images: --dataset {' or '.join(real)} (DATASET= "
                               "with make), in the profiles paper and short")  # fmt: skip
        experiment = of_backbones(experiments[options.dataset], options.backbones.split(), options.out)
    except (WeightsError, OSError) as error:
        complain(make_console(stderr=True), str(error))
        return EXIT_REFUSED
    return cli.run_experiment(experiment, others)


def of_backbones(experiment: Experiment, names: list[str], out: Path) -> Experiment:
    """Return the experiment with a row for each of the weights, which are copied below ``out``.

    Raises WeightsError for weights that can't be found, read or recognized, and for weights that are named twice.
    """
    if not names:
        raise WeightsError("no weights are named")
    found = [(name, *_read(name, out)) for name in names]
    digests = [digest for *_, digest in found]
    if len({*digests}) < len(found):
        raise WeightsError(f"the same weights are named twice: {' '.join(names)}")

    def rows(profile: str) -> list[Row]:
        setting = SETTINGS[experiment.script.removeprefix("transfer_")][experiment.dataset][profile]
        keys = [re.sub(r"\W+", "_", f"{Path(name).name} {digest[:8]}").lower() for name, _, digest in found]
        return [
            Row(
                key=key,
                label=name.removeprefix(TORCHVISION) if name.startswith(TORCHVISION) else Path(name).name,
                model=architecture.model,
                recipe=setting.recipe,
                data=setting.data,
                model_options={k: v for k, v in architecture.options.items() if k != "num_classes"},
                after=before,
                task=replace(setting.task, backbone=digest),
            )
            for key, before, (name, architecture, digest) in zip(keys, [None, *keys], found)
        ]

    return replace(
        experiment,
        name=f"{experiment.name}_backbones_{hashlib.sha256(''.join(digests).encode()).hexdigest()[:8]}",
        title=f"{experiment.title}, from given weights",
        rows=rows,
        headline=of_fullest_row,
        claims=None,
        dataset=f'{experiment.dataset} BACKBONES="{" ".join(names)}"',  # for the command that makes the table again
    )


def _read(name: str, out: Path) -> tuple[Architecture, str]:
    """Return the network of weights, and the SHA-256 of their copy below ``out``."""
    path = torchvision_file(name.removeprefix(TORCHVISION)) if name.startswith(TORCHVISION) else Path(name)
    state = read_weights(path)
    try:
        return find_architecture(state, file=path.name), keep_backbone(out, state)
    except WeightsError as error:
        raise WeightsError(f"{name}: {error}") from error
