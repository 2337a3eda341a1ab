"""What the benchmarks' tests share: they measure as little as possible."""

import pytest

from benchmarks import measuring
from benchmarks.packs import PackedLoop


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(measuring, "LEAST_STEPS", 1)
    monkeypatch.setattr(PackedLoop, "settling", 1)
