"""Many processes on one ledger, some of them killed: nothing is overspent, lost, or refused in vain."""

from __future__ import annotations

import os
import time
from collections import Counter
from itertools import count
from typing import TYPE_CHECKING

import pytest

from tests.processes.stores import fresh
from tests.processes.storm import rage, reckon, reckon_leased
from tests.redis_server import redis_server

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["fresh"]

SOAK = float(os.environ.get("TIERLINE_SOAK_SECONDS", "300"))
"""Seconds of storms for each store."""


async def test_processes_and_kills(fresh: Callable[[], str]) -> None:
    """Four processes, 25 calls at a time, one of them killed."""
    store = fresh()
    storm = rage(store, processes=4, concurrency=25, calls=1_200, kills=1, total=6, lease=8.0, seed=7)
    assert sorted(storm.codes) == [-9, 0, 0, 0]
    found = await reckon(store, storm, lease=8.0)
    assert found["admitted"] > 300
    assert found["refused"] > 100


@pytest.mark.parametrize("kills", [0, 1])
async def test_processes_that_lease_and_kills(kills: int) -> None:
    """Four processes that lease slices, 25 calls at a time, none or one of them killed."""
    with redis_server() as server:
        store = f"leased+{server.url}"
        storm = rage(store, processes=4, concurrency=25, calls=2_000, kills=kills, total=15, lease=5.0, seed=11)
        assert sorted(storm.codes) == [-9] * kills + [0] * (4 - kills)
        found = await reckon_leased(store, storm, lease=5.0)
    assert found["leased"] > 40, found
    assert found["refused"] > 30, found


@pytest.mark.soak
@pytest.mark.timeout(0)
async def test_ten_minutes(fresh: Callable[[], str]) -> None:
    """Eight processes, 50 calls at a time, 10,000 calls, two of them killed; over and over."""
    ends = time.monotonic() + SOAK
    seen: Counter[str] = Counter()
    for seed in count():
        store = fresh()
        storm = rage(store, processes=8, concurrency=50, calls=10_000, kills=2, total=45, lease=30.0, seed=seed)
        assert sorted(storm.codes) == [-9, -9, 0, 0, 0, 0, 0, 0]
        seen += Counter(await reckon(store, storm, lease=30.0))
        if time.monotonic() > ends:
            break
    print({"storms": seed + 1, "seconds": round(SOAK), **seen})  # noqa: T201  (a figure for whoever runs it)
