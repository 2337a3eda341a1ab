"""The papers' tables, a script each; ``python -m reproductions list`` names them."""

import os

import resnet  # noqa: F401  (sets what torch reads when it is loaded)
from reproductions.environment import check_packages

check_packages()
# A notebook's shell names one that matplotlib refuses where the notebook's packages are not installed; plots need none.
os.environ.pop("MPLBACKEND", None)
