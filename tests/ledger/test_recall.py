from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.ledger.words import hold, money, offer
from tests.redis_server import RedisServer, fresh_namespace, redis_server
from tierline.budgets import Line
from tierline.errors import LedgerUnavailableError
from tierline.ledger import recall as recall_module
from tierline.ledger import session as session_module
from tierline.ledger.redis import RedisLedger
from tierline.store.redis import RedisStore
from tierline.values import Refusal
from tierline.windows import Window

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

DAY = Line("day", "global", 1_000, Window("day"), alert_at=(0.5,))
TOTAL = Line("total", "acme", 1_000, Window("total"))
ROLLING = Line("rolling", "acme", 1_000, Window("rolling", seconds=3600))


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A server without persistence: it may be restarted by every test."""
    with redis_server() as server:
        yield server


@pytest.fixture
async def process(server: RedisServer) -> AsyncIterator[Callable[[], RedisLedger]]:
    """Make ledgers as processes have them: each with connections and memories of its own."""
    namespace, made = fresh_namespace(), []

    def make() -> RedisLedger:
        made.append(RedisLedger(RedisStore(server.url, namespace=namespace, timeout=2)))
        return made[-1]

    yield make
    for ledger in made:
        await ledger.aclose()


async def back(*ledgers: RedisLedger) -> None:
    """Ask as a guard does, until every one of them can be used again."""
    async with asyncio.timeout(20):
        while True:
            for ledger in ledgers:
                with suppress(LedgerUnavailableError):
                    await ledger.ping()
            with suppress(LedgerUnavailableError):
                for ledger in ledgers:
                    await ledger.ping()
                return
            await asyncio.sleep(0.1)


async def unavailable(*ledgers: RedisLedger) -> None:
    for ledger in ledgers:
        with pytest.raises(LedgerUnavailableError, match="lost its data"):
            await ledger.reserve("refused", [offer(1)], [DAY])
        with pytest.raises(LedgerUnavailableError, match="lost its data"):
            await ledger.balances()


async def test_redis_restart_empty(server: RedisServer, process: Callable[[], RedisLedger]) -> None:
    """A server that comes back empty is noticed by all, and open again when all have given back what they know."""
    one, two = process(), process()
    lines = [DAY, TOTAL, ROLLING]
    await one.settle(await hold(one, "a", 100, *lines), 70)
    await two.settle(await hold(two, "b", 100, *lines), 30)
    mine, other = await hold(one, "c", 50, *lines), await hold(two, "d", 5, *lines)
    await one.ping()  # who is there
    await two.ping()
    await one.set_limit("total", "acme", 500)
    server.restart()
    await unavailable(one, two)
    with pytest.raises(LedgerUnavailableError):
        await one.ping()
    await unavailable(two)
    await back(one, two)
    assert await money(one) == {"day": (100, 55), "total": (100, 55), "rolling": (100, 55)}
    assert await two.limits() == {("total", "acme"): 500}
    assert await one.settle(mine, 20)
    assert await two.settle(other, 5)
    assert not await two.settle(other, 5)
    assert await money(two) == {"day": (125, 0), "total": (125, 0), "rolling": (125, 0)}
    refused = await one.reserve("e", [offer(500)], lines)
    assert isinstance(refused, Refusal)
    assert refused.limit == 500


async def test_a_lost_store_confirmed(server: RedisServer, process: Callable[[], RedisLedger]) -> None:
    """An operator goes on with what is there; what was held before is charged when it ends."""
    ledger, other = process(), process()
    await ledger.settle(await hold(ledger, "a", 100, DAY), 70)
    held = await hold(ledger, "b", 10, DAY)
    await other.ping()
    server.restart()
    await unavailable(ledger, other)
    await process().confirm()
    assert await money(ledger) == {}
    assert await ledger.settle(held, 8)
    assert not await ledger.settle(held, 8)
    assert await money(other) == {"day": (8, 0)}


async def test_confirmed_before_anyone_noticed(server: RedisServer, process: Callable[[], RedisLedger]) -> None:
    """An operator who restarts a server on purpose says so, and nobody is kept from working."""
    ledger = process()
    held = await hold(ledger, "a", 100, DAY)
    server.restart()
    await process().confirm()
    await hold(ledger, "b", 10, DAY)
    assert await ledger.settle(held, 70)
    assert await money(ledger) == {"day": (70, 10)}


async def test_flushed_under_a_running_process(server: RedisServer, process: Callable[[], RedisLedger]) -> None:
    """FLUSHALL is a loss too, and the one process that there is gives all back."""
    ledger = process()
    told = []
    ledger.watch(told.append)
    await ledger.settle(await hold(ledger, "a", 600, DAY), 600)
    assert len(told) == 1
    with server.client() as client:
        client.flushall()
    await unavailable(ledger)
    await back(ledger)
    assert await money(ledger) == {"day": (600, 0)}
    await ledger.settle(await hold(ledger, "b", 1, DAY), 1)
    assert len(told) == 1, "what was told is not told again"


async def test_a_new_process_finds_nothing(server: RedisServer, process: Callable[[], RedisLedger]) -> None:
    """A process that never saw the old data begins anew, until one that did comes along: then it is added up."""
    old = process()
    await old.settle(await hold(old, "a", 100, DAY), 70)
    server.restart()
    new = process()
    await new.settle(await hold(new, "b", 10, DAY), 7)
    with pytest.raises(LedgerUnavailableError):
        await old.balances()
    await unavailable(new)
    await back(old, new)
    assert await money(new) == {"day": (77, 0)}


async def test_a_process_that_is_missing(server: RedisServer, process: Callable[[], RedisLedger]) -> None:
    """Where one that was there does not come back, an operator decides; what the others gave back stands."""
    one, gone = process(), process()
    await one.settle(await hold(one, "a", 100, DAY), 70)
    await gone.settle(await hold(gone, "b", 100, TOTAL), 30)
    await one.ping()
    await gone.store.aclose()
    server.restart()
    for _ in range(15):
        with pytest.raises(LedgerUnavailableError):
            await one.ping()
        await asyncio.sleep(0.1)
    with pytest.raises(LedgerUnavailableError, match="1 of them are missing"):
        await one.ping()
    await one.confirm()
    assert await money(one) == {"day": (70, 0)}


async def test_those_who_left_are_not_waited_for(server: RedisServer, process: Callable[[], RedisLedger]) -> None:
    """What they had spent is known to those who stay."""
    one, left = process(), process()
    await left.settle(await hold(left, "b", 100, TOTAL), 30)
    await one.ping()
    await left.settle(await hold(left, "c", 100, ROLLING), 40)
    await left.aclose()
    await one.ping()
    server.restart()
    await back(one)
    assert await money(one) == {"total": (30, 0), "rolling": (40, 0)}


async def test_one_who_was_not_known_comes_late(
    server: RedisServer, process: Callable[[], RedisLedger], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that nobody who gave back had heard of gives back what it knows, too, and nothing is counted twice."""
    monkeypatch.setattr(session_module, "_BEAT", 3600.0)
    idle, busy = process(), process()
    await idle.settle(await hold(idle, "a", 100, DAY), 70)
    await busy.settle(await hold(busy, "b", 100, TOTAL, DAY), 30)
    held = await hold(busy, "c", 5, TOTAL)
    server.restart()
    await back(idle)
    assert await money(idle) == {"day": (70, 0)}
    await idle.settle(await hold(idle, "d", 100, DAY), 1)
    with pytest.raises(LedgerUnavailableError):
        await busy.reserve("e", [offer(1)], [TOTAL])
    await unavailable(idle)
    await back(idle, busy)
    assert await money(idle) == {"day": (101, 0), "total": (30, 5)}
    assert await busy.settle(held, 5)
    await process().ping()


async def test_one_who_has_been_idle_waits_for_others(
    server: RedisServer, process: Callable[[], RedisLedger], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has not asked for long who is there is not believed at once to be the only one."""
    monkeypatch.setattr(session_module, "_BEAT", 3600.0)
    idle = process()
    await idle.ping()
    idle._session.recall.met -= 60
    busy = process()
    await busy.settle(await hold(busy, "b", 1000, DAY), 1000)
    server.restart()
    for _ in range(15):
        with pytest.raises(LedgerUnavailableError):
            await idle.ping()
        await asyncio.sleep(0.1)
    await back(busy, idle)
    assert isinstance(await idle.reserve("e", [offer(1)], [DAY]), Refusal)


async def test_restarted_with_its_data(process: Callable[[], RedisLedger]) -> None:
    """A server with an append-only file comes back with everything, and nothing is to be confirmed."""
    with redis_server(appendonly="yes", appendfsync="always") as server:
        ledger = RedisLedger(RedisStore(server.url, timeout=2))
        held = await hold(ledger, "a", 100, DAY)
        server.restart()
        assert await ledger.settle(held, 70)
        assert await money(ledger) == {"day": (70, 0)}
        await ledger.aclose()


async def test_more_than_can_be_remembered(
    server: RedisServer, process: Callable[[], RedisLedger], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has seen more accounts than it remembers does not say that it gave back all."""
    monkeypatch.setattr(recall_module, "_MOST", 3)
    ledger = process()
    for number in range(5):
        line = Line("b", f"tenant {number}", 100, Window("total"))
        await ledger.settle(await hold(ledger, f"{number}", 10, line), 10)
    server.restart()
    for _ in range(15):
        with pytest.raises(LedgerUnavailableError):
            await ledger.ping()
        await asyncio.sleep(0.1)
    await ledger.confirm()
    assert len(await ledger.balances()) == 3


async def test_given_back_in_parts(
    server: RedisServer, process: Callable[[], RedisLedger], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many accounts and holds come back a bounded number at a time."""
    monkeypatch.setattr(recall_module, "_CHUNK", 2)
    ledger = process()
    lines = [Line("b", f"tenant {number}", 100, Window("total")) for number in range(5)]
    for line in lines:
        await ledger.settle(await hold(ledger, f"s{line.account}", 10, line), 10)
        await hold(ledger, f"h{line.account}", 5, line)
    server.restart()
    await back(ledger)
    assert [(each.spent, each.held) for each in await ledger.balances()] == [(10, 5)] * 5
    assert len(await ledger.holds()) == 5
