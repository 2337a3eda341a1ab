"""The papers' tables, a script each; ``python -m reproductions list`` names them."""

import resnet  # noqa: F401  (sets what torch reads when it is loaded)
from reproductions.environment import check_packages

check_packages()
