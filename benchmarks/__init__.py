"""Benchmarks of training speed, run by ``make bench`` and ``make gpu-check``."""

import reproductions  # noqa: F401  (sets torch's environment variables before torch is loaded, and checks its origin)
