"""Stores of every kind, and a Redis for those that need one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.batches.stores import Shared
from tests.redis_server import RedisServer, fresh_namespace, redis_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture(scope="package")
def server() -> Iterator[RedisServer]:
    """One server for all that have namespaces of their own."""
    with redis_server() as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def shared(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shared]:
    """An empty state."""
    url = {"memory": "memory", "sqlite": str(tmp_path / "a.db"), "redis": ""}[request.param]
    found = Shared(url or request.getfixturevalue("server").url, fresh_namespace())
    yield found
    await found.aclose()
