"""The papers' tables, a script each; ``python -m reproductions list`` names them."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING

import resnet  # noqa: F401  (sets what torch reads when it is loaded)
from reproductions.environment import check_packages

if TYPE_CHECKING:
    from pathlib import Path

    import pandas

check_packages()
# A notebook's shell names one that matplotlib refuses where the notebook's packages are not installed; plots need none.
# In the notebook itself it is there, and shows what its user draws.
_backend = os.environ.get("MPLBACKEND", "").removeprefix("module://").partition(".")[0]
if not _backend or find_spec(_backend) is None:
    os.environ.pop("MPLBACKEND", None)


def frame(records: str | Path, curves: bool = False) -> pandas.DataFrame:
    """Read all records below a folder, such as ``results/records``, as one line a run, or one an evaluation.

    Errors are in percent, times in seconds. Lines of one ``row`` are of runs that differ in their seed alone:
    ``frame("results/records").groupby("row").test_error.agg(["mean", "std", "count"])`` are the numbers of the tables.
    ``recipe_changes`` is JSON of the fields of :class:`resnet.recipe.Recipe` that differ from their default. A run
    that diverged is a line, with its status; a damaged record is left out with a warning.

    Raises ValueError where the folder has no records, and PoolError where it can't be read.
    """
    from reproductions.harness.reporting.frame import read_frame

    return read_frame(records, curves)
