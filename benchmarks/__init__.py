"""How fast training is; ``make bench`` and ``make gpu-check`` run what is here."""

import reproductions  # noqa: F401  (sets what torch reads when it is loaded, and looks where it comes from)
