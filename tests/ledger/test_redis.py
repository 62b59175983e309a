from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.redis_server import RedisServer, fresh_namespace, redis_server
from tierline.ledger.redis import RedisLedger
from tierline.store.redis import RedisStore
from tierline.testing import LedgerConformance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tierline.ledger import Ledger


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """One server for the tests that leave it alone: each has a namespace of its own."""
    with redis_server() as server:
        yield server


class TestRedis(LedgerConformance):
    """A server with no persistence; another object on the same state has connections of its own."""

    drift = 2_000
    herd = 200
    examples = 15

    @pytest.fixture(autouse=True)
    def _server(self, server: RedisServer) -> None:
        self.url = server.url

    def open_ledger(self, clock: Callable[[], float], lease: float) -> Ledger:
        store = RedisStore(self.url, namespace=fresh_namespace(), timeout=5)
        return RedisLedger(store, clock=clock, lease=lease)

    def open_again(self, ledger: Ledger, clock: Callable[[], float], lease: float) -> Ledger:
        assert isinstance(ledger, RedisLedger)
        return RedisLedger(RedisStore(self.url, namespace=ledger.store.namespace, timeout=5), clock=clock, lease=lease)
