"""What the benchmarks' tests share: they measure as little as possible."""

import pytest

from benchmarks import measuring
from benchmarks.packs import Pack


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(measuring, "LEAST_STEPS", 1)
    monkeypatch.setattr(Pack, "settling", 1)
