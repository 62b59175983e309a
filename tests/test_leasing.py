"""An app whose Redis ledger leases: busy accounts are hardly asked for, and the bill is right, whatever goes away."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.ledger.words import money
from tests.redis_server import RedisServer, fresh_namespace, redis_server
from tests.test_outage import reconciled
from tierline import Budget
from tierline.errors import LedgerUnavailableError
from tierline.ledger import RedisLedger
from tierline.store.redis import RedisStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tierline import Router
    from tierline.testing import FakeClaude

    MakeRouter = Callable[..., Router]

pytestmark = [pytest.mark.usefixtures("quiet"), pytest.mark.timeout(120)]

BUDGETS = [Budget("$1000/day"), Budget("$900/hour", per="tenant")]
ASK: dict[str, Any] = {"model": "auto", "max_tokens": 500, "messages": [{"role": "user", "content": "Why?"}]}


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as found:
        yield found


def leasing(make_router: MakeRouter, server: RedisServer, **options: Any) -> Router:
    store = RedisStore(server.url, namespace=fresh_namespace(), timeout=options.pop("timeout", 5))
    router = make_router(ledger=RedisLedger(store, slices=0.05, **options), budgets=BUDGETS)
    assert router.books.slices is not None
    router.books.slices.hot = 3  # however slow the machine is
    return router


async def ask(router: Router, many: int = 1) -> int:
    """Call so often, one after the other; how many were admitted without asking the store."""
    leased = 0
    for _ in range(many):
        async with router.bind(tenant="acme", route="/answer") as binding:
            await router.claude.messages.create(**ASK)
            leased += len(router.books.slices.standing()) > 0  # type: ignore[union-attr]
            assert binding.decisions[-1].settled
    return leased


async def test_at_most_one_round_trip_in_ten_calls(
    make_router: MakeRouter, fake: FakeClaude, server: RedisServer
) -> None:
    """Once an account is busy, calls are admitted here; what they come to is in the store to the nano-USD."""
    router = leasing(make_router, server)
    await ask(router, 60)
    with server.client() as client:
        client.config_resetstat()
        leased = await ask(router, 300)
        found = client.info("commandstats")
    trips = sum(found.get(f"cmdstat_{verb}", {"calls": 0})["calls"] for verb in ("eval", "evalsha"))
    assert leased > 250
    assert trips <= 30, "the scripts of everything that a Router keeps in its store"
    assert set((await money(router)).values()) == {(fake.billed, 0)}
    history = await router.history(since=0)
    assert (history.total.attempts, history.total.cost) == (360, fake.billed)


async def test_many_at_a_time(make_router: MakeRouter, fake: FakeClaude, server: RedisServer) -> None:
    """Fifty at a time: each is settled once, whether it was leased or asked for."""
    router = leasing(make_router, server)
    await asyncio.gather(*(ask(router, 8) for _ in range(50)))
    assert set((await money(router)).values()) == {(fake.billed, 0)}
    assert (await router.history(since=0)).total.attempts == 400


async def test_calls_that_are_cancelled(make_router: MakeRouter, fake: FakeClaude, server: RedisServer) -> None:
    """Whenever a call is cancelled, nothing of it stays held."""
    router = leasing(make_router, server)
    await ask(router, 60)
    tasks = [asyncio.ensure_future(ask(router)) for _ in range(40)]
    for task in tasks:
        await asyncio.sleep(0.001)
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(10):
        while any(held for _, held in (await money(router)).values()):  # noqa: ASYNC110  (they end in tasks of their own)
            await asyncio.sleep(0.05)
    assert router.books.slices is not None
    assert not router.books.slices._held


async def test_a_frozen_store(make_router: MakeRouter, fake: FakeClaude, server: RedisServer) -> None:
    """What is leased may be spent until the lease ends; then calls are refused; and then all is told."""
    router = leasing(make_router, server, lease=4.0, timeout=0.2)
    await ask(router, 60)
    await asyncio.to_thread(server.freeze)
    loop = asyncio.get_running_loop()
    frozen, admitted = loop.time(), 0
    with suppress(LedgerUnavailableError):
        while loop.time() < frozen + 20:
            await ask(router)
            await asyncio.sleep(0.05)
            admitted += 1
    assert admitted > 5
    assert loop.time() - frozen < 20, "a lease that nobody renews ends"
    with pytest.raises(LedgerUnavailableError):
        await ask(router)
    await asyncio.to_thread(server.thaw)
    await reconciled(router)
    await asyncio.sleep(1.5)  # a report of the slice that has lapsed
    assert set((await money(router)).values()) == {(fake.billed, 0)}
    await ask(router)


async def test_a_store_that_comes_back_empty(make_router: MakeRouter, fake: FakeClaude, server: RedisServer) -> None:
    """What was leased, reported and not yet reported when the data were lost is there again."""
    router = leasing(make_router, server)
    await ask(router, 100)
    await asyncio.to_thread(server.restart)
    found: dict[str, tuple[int, int]] = {}
    async with asyncio.timeout(30):
        while set(found.values()) != {(fake.billed, 0)}:
            with suppress(LedgerUnavailableError):
                await ask(router)
                found = await money(router)
            await asyncio.sleep(0.05)


async def test_a_shutdown_gives_all_back(make_router: MakeRouter, fake: FakeClaude, server: RedisServer) -> None:
    """A process that ends in order leaves no slice behind: others have the whole budget at once."""
    router = leasing(make_router, server)
    ledger = router.ledger.behind  # type: ignore[attr-defined]
    await ask(router, 60)
    await router.aclose()
    other = RedisLedger(RedisStore(server.url, namespace=ledger.store.namespace))
    assert set((await money(other)).values()) == {(fake.billed, 0)}
    await ledger.aclose()
    with server.client() as client:
        assert client.zcard(f"{{{ledger.store.namespace}}}:leases") == 0
    await other.aclose()
