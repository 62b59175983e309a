"""Redis goes away under an app that is being served: frozen, stopped, restarted empty, or not there yet."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.apps import app_of
from tests.ledger.words import money
from tests.redis_server import RedisServer, redis_server
from tests.test_outage import SLACK, reconciled
from tierline import Budget, policy
from tierline.classify import ClaudeClassifier

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    import httpx

    from tierline import Router
    from tierline.testing import FakeClaude

    MakeRouter = Callable[..., Router]
    Serve = Callable[[Any], Awaitable[httpx.AsyncClient]]

pytestmark = pytest.mark.usefixtures("quiet")

BUDGET = Budget("$5/day", downgrade_at=None, cheapest_at=None)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as found:
        yield found


def freeze(server: RedisServer) -> Callable[[], None]:
    server.freeze()
    return server.thaw


def stop(server: RedisServer) -> Callable[[], None]:
    server.options["appendonly"] = "yes"
    with server.client() as client:
        client.config_set("appendonly", "yes")
        until = time.monotonic() + 10
        while client.info("persistence")["aof_rewrite_in_progress"]:
            assert time.monotonic() < until
            time.sleep(0.01)
    server.stop()
    return server.start


@pytest.mark.parametrize("away", [freeze, stop])
async def test_closed(make_router: MakeRouter, serve: Serve, fake: FakeClaude, server: RedisServer, away: Any) -> None:
    """While Redis is away every call is a 503 within the promised time, nothing is sent, and then all is well."""
    router = make_router(store=server.url, budgets=[BUDGET], classifier=ClaudeClassifier())
    browser = await serve(app_of(router))
    assert (await browser.get("/answer")).status_code == 200
    sent, come_back = len(fake.requests), await asyncio.to_thread(away, server)
    for _ in range(3):
        began = time.perf_counter()
        refused = await asyncio.gather(*(browser.get("/answer?q=other") for _ in range(4)))
        assert time.perf_counter() - began < SLACK
        assert {each.status_code for each in refused} == {503}
    assert len(fake.requests) == sent
    assert not await router.ready()
    await asyncio.to_thread(come_back)
    await reconciled(router)
    assert (await browser.get("/answer")).status_code == 200
    assert await money(router) == {"$5/day": (fake.billed, 0)}


@pytest.mark.parametrize("away", [freeze, stop])
async def test_open(
    make_router: MakeRouter, serve: Serve, fake: FakeClaude, server: RedisServer, away: Any, tmp_path: Path
) -> None:
    """While Redis is away calls are answered within the allowance, then 503; then the balance is the bill."""
    router = make_router(
        store=server.url,
        budgets=[BUDGET],
        policy=policy(tier="sonnet"),
        on_ledger_error="open",
        allowance=0.004,
        journal=str(tmp_path / "journal"),
    )
    browser = await serve(app_of(router))
    assert (await browser.get("/answer")).status_code == 200
    first, come_back = fake.billed, await asyncio.to_thread(away, server)
    statuses = [(await browser.get("/answer")).status_code for _ in range(12)]
    assert statuses == [200] * statuses.count(200) + [503] * statuses.count(503)
    assert 200 in statuses
    assert 503 in statuses
    assert fake.billed - first <= 5_000_000_000 * 4 // 1000
    assert await router.ready()
    await asyncio.to_thread(come_back)
    await reconciled(router)
    assert await money(router) == {"$5/day": (fake.billed, 0)}
    assert (await browser.get("/answer")).status_code == 200


async def test_redis_restart_empty(
    make_router: MakeRouter, serve: Serve, fake: FakeClaude, server: RedisServer, tmp_path: Path
) -> None:
    """A Redis that comes back empty is no fresh budget: what was spent before and meanwhile is there again."""
    router = make_router(store=server.url, budgets=[BUDGET], on_ledger_error="open", journal=str(tmp_path / "journal"))
    browser = await serve(app_of(router))
    assert (await browser.get("/answer")).status_code == 200
    await asyncio.to_thread(server.kill)
    assert (await browser.get("/answer")).status_code == 200
    await asyncio.to_thread(server.start)
    assert (await browser.get("/answer")).status_code == 200
    await reconciled(router)
    assert await money(router) == {"$5/day": (fake.billed, 0)}


async def test_redis_restart_empty_and_confirmed(
    make_router: MakeRouter, serve: Serve, fake: FakeClaude, server: RedisServer
) -> None:
    """Where another process knows more and says nothing, calls wait for the operator's word; then they pass."""
    router, other = (make_router(store=server.url, budgets=[BUDGET]) for _ in range(2))
    browser, theirs = await serve(app_of(router)), await serve(app_of(other))
    assert (await browser.get("/answer")).status_code == 200
    assert (await theirs.get("/answer")).status_code == 200
    await asyncio.to_thread(server.restart)
    for _ in range(3):
        assert (await browser.get("/answer")).status_code == 503
        await asyncio.sleep(0.3)
    assert "lost its data" in (await router.ready()).problems[0]
    await router.confirm()
    before = await money(router)
    assert (await browser.get("/answer")).status_code == 200
    assert before["$5/day"][0] <= fake.billed


async def test_redis_absent_at_start(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """An app starts without its Redis, answers 503, and serves when that is there."""
    server = RedisServer()
    try:
        router = make_router(store=server.url, budgets=[BUDGET])
        browser = await serve(app_of(router))
        assert (await browser.get("/answer")).status_code == 503
        assert fake.requests == []
        await asyncio.to_thread(server.start)
        await reconciled(router)
        assert (await browser.get("/answer")).status_code == 200
        assert await money(router) == {"$5/day": (fake.billed, 0)}
    finally:
        server.remove()
