"""Ledgers by URL, as bare as they are: without the guard that a Router puts around them."""

from __future__ import annotations

import time
from itertools import count
from typing import TYPE_CHECKING

import pytest

from tests.ledger.leased import Leased
from tests.redis_server import RedisServer
from tierline.ledger import RedisLedger, SQLiteLedger
from tierline.store.redis import RedisStore
from tierline.store.sqlite import SQLiteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tierline.ledger import Ledger


def ledger_of(url: str, lease: float = 30.0, ahead: Callable[[], float] | None = None) -> Ledger:
    """The ledger of a URL. A machine on which everybody is busy is no outage: it has time to answer.

    Its clock is so many seconds `ahead` of that of all others. `leased+redis://…` leases slices, and is used as a
    Router uses it.
    """
    clock = None if ahead is None else lambda: time.time() + ahead()
    if url.startswith("leased+"):
        store = RedisStore(url.removeprefix("leased+"), timeout=5.0)
        ledger = Leased(store, lease=lease, slices=0.4, clock=clock)
        assert ledger.slices is not None
        ledger.slices.hot = 1  # however slow the machine is
        return ledger
    if url.startswith("redis"):
        return RedisLedger(RedisStore(url, timeout=5.0), lease=lease, clock=clock)
    file = SQLiteStore(url.removeprefix("sqlite:///"), timeout=5.0)
    return SQLiteLedger(file, lease=lease, clock=clock or time.time)


@pytest.fixture(params=["sqlite", "redis"])
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Gives the URL of an empty store that several processes can share, each time that it is called."""
    if request.param == "sqlite":
        names = count()
        yield lambda: f"sqlite:///{tmp_path}/ledger-{next(names)}.db"
        return
    servers: list[RedisServer] = []

    def start() -> str:
        for old in servers:
            old.remove()
        servers.append(RedisServer())
        servers[-1].start()
        return servers[-1].url

    yield start
    for server in servers:
        server.remove()


@pytest.fixture
def store(fresh: Callable[[], str]) -> str:
    """One such store."""
    return fresh()
