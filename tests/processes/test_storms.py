"""Many processes on one ledger, some of them killed: nothing is overspent, nothing is lost, nothing is refused in vain."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from tests.processes.storm import rage, reckon

if TYPE_CHECKING:
    from pathlib import Path

SOAK = float(os.environ.get("TIERLINE_SOAK_SECONDS", "300"))
"""Seconds of storms for each store."""


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that several processes share."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    return request.getfixturevalue("redis_url")


async def test_processes_and_kills(store: str) -> None:
    """Four processes, 25 calls at a time, one of them killed."""
    lease = 20.0
    storm = rage(store, processes=4, concurrency=25, calls=1_200, kills=1, lease=lease, seed=7)
    assert sorted(storm.codes) == [-9, 0, 0, 0]
    found = await reckon(store, [storm], lease=lease)
    assert found["calls"] > 900
    assert found["refused"] > 0
    assert found["settled"] > 0


@pytest.mark.soak
@pytest.mark.timeout(0)
async def test_ten_minutes(store: str) -> None:
    """Eight processes, 50 calls at a time, 10,000 calls, two of them killed; over and over."""
