"""Real traffic over the real SDK: what is added up is what the ledger has, and what reports tell, to the nano-USD."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anthropic
import pytest

from tests.redis_server import redis_server
from tierline import Budget, Router, policy
from tierline.attempts import Timing
from tierline.classify import ClaudeClassifier
from tierline.errors import BudgetExceededError
from tierline.escalation import Escalate
from tierline.ledger import MemoryLedger, RedisLedger, SQLiteLedger
from tierline.report import NO_ROUTE, NO_TENANT
from tierline.store.redis import RedisStore
from tierline.store.sqlite import SQLiteStore
from tierline.testing import FakeClaude, Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from tierline.ledger import Ledger
    from tierline.testing import Received
    from tierline.traffic.base import Counts

pytestmark = pytest.mark.usefixtures("quiet")

SONNET = "claude-sonnet-5-5"


def said(received: Received) -> str:
    poor = "poor" in str(received.body["messages"]) and "haiku" in str(received.model)
    return "I'm not sure about that one." if poor else "It is scattered light, as far as anybody knows. " * 20


@pytest.fixture
def fake() -> FakeClaude:
    """Haiku is not sure of poor questions; the judge sees no difference."""
    return FakeClaude(answer=said, judge=lambda _: "same", grade=lambda _: 5)


@pytest.fixture(params=["memory", "sqlite", "redis"])
def ledgers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Ledger]]:
    """A ledger as each process opens it; in memory there is one alone."""
    if request.param == "redis":
        with redis_server() as server:
            yield lambda: RedisLedger(RedisStore(server.url, timeout=5))
    elif request.param == "sqlite":
        yield lambda: SQLiteLedger(SQLiteStore(tmp_path / "a.db", timeout=5))
    else:
        yield MemoryLedger


@pytest.fixture
async def routers(ledgers: Callable[[], Ledger], make_router: Callable[..., Router]) -> AsyncIterator[list[Router]]:
    """Two processes, as far as their Routers are concerned; one where there is only memory."""
    opened = [ledgers() for _ in range(1 if ledgers is MemoryLedger else 2)]
    made = [
        make_router(
            ledger=ledger,
            traffic=True,
            classifier=ClaudeClassifier(worth=0),
            budgets=[Budget("$5"), Budget("$0.02", per="tenant", downgrade_at=0.5, cheapest_at=0.8)],
            timing=Timing(sleep=lambda _: asyncio.sleep(0), jitter=lambda: 0.5, chance=iter_chance()),
            shadow=0.4,
            shadow_budget="$1/day",
        )
        for ledger in opened
    ]
    yield made
    for router, ledger in zip(made, opened, strict=True):
        await router.aclose()
        await ledger.aclose()


def iter_chance() -> Callable[[], float]:
    numbers = iter(range(1_000_000))
    return lambda: next(numbers) % 5 / 5


async def one(router: Router, kind: str, number: int, fake: FakeClaude) -> None:
    """A call of its kind, by somebody, somewhere; in the end there is no money left for some of them."""
    with suppress(BudgetExceededError):
        await _one(router, kind, number, fake)


async def _one(router: Router, kind: str, number: int, fake: FakeClaude) -> None:
    ask: dict[str, Any] = {
        "model": "auto", "max_tokens": 300, "messages": [{"role": "user", "content": f"{kind} question {number % 4}?"}]
    }  # fmt: skip
    create = router.claude.messages.create
    tenant = None if kind == "nobody" else f"t{number % 3}" if kind not in ("dear", "hard") else "rich"
    async with router.bind(
        tenant=tenant, route=f"/{kind}" if kind != "nobody" else None, run="nightly" if number % 2 else None
    ):
        if kind == "poor":
            with policy(escalate=Escalate(graded=True)):
                await create(**ask)
        elif kind == "left":
            stream = await create(**ask, stream=True)
            async for event in stream:
                if event.type == "content_block_delta":
                    break
            await stream.close()
        elif kind == "read":
            async for _ in await create(**ask, stream=True):
                pass
        elif kind == "broken":
            fake.script(*[Fault.overloaded()] * 3, model=SONNET)
            with policy(floor="sonnet"), suppress(anthropic.APIStatusError):
                await create(**ask)
        elif kind == "dear":
            with policy(tier="opus"):
                await create(**{**ask, "max_tokens": 900 if number % 2 else 9_000})
        elif kind == "hard":
            with policy(label="complex"):
                await create(**ask)
        elif kind == "many":
            await router.classify_many([f"text {n % 3}" for n in range(4)], ("yes", "no"), "Is it?", 2)
            await router.classify("a text", ("yes", "no"), "Is it?")
        elif kind == "beside":
            with policy(speculate=True):
                await create(**ask)
        elif kind == "bad":
            fake.script(Fault("error", 400, message="no"), model="claude-opus-5-5")
            with policy(tier="opus"), suppress(anthropic.BadRequestError):
                await create(**ask)
        else:
            await create(**ask)


KINDS = ("plain", "poor", "left", "read", "broken", "hard", "dear", "many", "beside", "bad", "nobody")


def spent(counts: Counts) -> tuple[int, int, int]:
    return counts.cost, counts.own, counts.estimated


async def rest(router: Router) -> None:
    """Wait until nothing of a Router is under way, shadows included."""
    async with asyncio.timeout(20):
        while router.shadowing is not None and len(router.shadowing._under_way):  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_it_is_what_the_ledger_has(routers: list[Router], fake: FakeClaude) -> None:
    """By tier, route, account and hour; calls, refusals and all that happened to them are those of the reports."""
    for number in range(4):
        for kind in KINDS:
            await one(routers[number % len(routers)], kind, number, fake)
    await asyncio.gather(*(one(routers[n % len(routers)], KINDS[n % 4], n, fake) for n in range(12)))
    await fake.idle()
    for router in routers:
        await rest(router)
    assert not any(hold for hold in await routers[0].holds())
    for router in routers:
        assert router.meter is not None
        await router.meter.flush()

    found = await routers[0].traffic(timedelta(hours=1), most=50)
    history = await routers[0].history(found.since)
    total = history.total
    assert total.cost > 0
    assert spent(found.total) == (total.cost, total.own, total.estimated)
    for what, kept in (("tier", found.by_tier), ("route", found.by_route), ("account", found.by_account)):
        booked = {name: (each.cost, each.own, each.estimated) for name, each in history.by(what).items()}
        assert {name: spent(each) for name, each in kept.items() if any(spent(each))} == {
            name: each for name, each in booked.items() if any(each)
        }, what
    assert found.accounts == len(found.by_account) == len({"t0", "t1", "t2", "rich", NO_TENANT})
    assert NO_ROUTE in found.by_route
    costs = {hour: sum(each.cost for each in tiers.values()) for hour, tiers in found.hours}
    assert costs == {hour: sum(r.cost for r in history.rows if r.hour == hour) for hour in costs}

    reports = [router.report() for router in routers]
    for name, told in (
        ("calls", "calls"), ("saved", "saved"), ("downgrades", "downgraded"), ("escalations", "escalations"),
        ("fallbacks", "fallbacks"), ("refusals", "refusals"), ("failures", "failures"), ("hits", "cache_hits"),
    ):  # fmt: skip
        assert getattr(found.total, name) == sum(getattr(report, told) for report in reports), name
        assert getattr(found.total, name) > 0, f"nothing was seen of {name}"
    assert found.total.lookups == sum(report.cache_hits + report.cache_misses for report in reports)
    assert found.total.cost == sum(report.cost for report in reports)
    for name, tier in found.by_tier.items():
        assert tier.calls == sum(report.by_tier[name].calls for report in reports if name in report.by_tier)
    runs = {
        name: sum(report.by_run[name].calls for report in reports if name in report.by_run) for name in found.by_job
    }
    assert {name: each.calls for name, each in found.by_job.items() if each.calls} == {
        n: c for n, c in runs.items() if c
    }

    latest = await routers[-1].decisions(200)
    assert [each["at"] for each in latest] == sorted((each["at"] for each in latest), reverse=True)
    assert {each["worker"] for each in latest} == {router.meter.worker for router in routers if router.meter}
    assert await routers[0].decision(latest[0]["id"]) == latest[0]
    assert "question" not in str(latest), "no text of a prompt is kept"
    assert {worker.id for worker in found.workers} == {router.meter.worker for router in routers if router.meter}


async def test_an_account_is_erased(routers: list[Router], fake: FakeClaude) -> None:
    """Its name is in nothing that is told afterwards; what the others came to stays."""
    for number in range(3):
        await one(routers[0], "plain", number, fake)
        await one(routers[0], "read", 1, fake)
    await rest(routers[0])
    await routers[0].erase("t1")
    found = await routers[-1].traffic(timedelta(days=3))
    assert "t1" not in str(found) + str(await routers[-1].decisions())
    assert found.total.calls == 6
    assert {"t0", "t2"} <= found.by_account.keys()


async def test_synchronous_calls_are_in_it(
    fake: FakeClaude, sync_sdk: anthropic.Anthropic, make_router: Callable[..., Router]
) -> None:
    """Calls of threads are added up like any, and those that speculate in vain with what is read on after them."""
    router = make_router(
        None, sync_client=sync_sdk, traffic=True, classifier=ClaudeClassifier(worth=0), policy=policy(speculate=True)
    )

    def ask(number: int) -> None:
        with router.bind(tenant="acme", route="/ask"):
            router.sync_claude.messages.create(
                model="auto",
                max_tokens=50,
                messages=[{"role": "user", "content": f"Prove theorem {number} in detail."}],
            )

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    await router.aclose()
    found, history = await router.traffic(timedelta(hours=1)), await router.history(timedelta(hours=1))
    assert found.total.calls == 3
    assert found.total.cost == history.total.cost == router.report().cost == fake.billed


async def test_nothing_is_recorded_unasked(fake: FakeClaude, make_router: Callable[..., Router]) -> None:
    """A Router that was not told to records nothing, and can be told to later."""
    router = make_router()
    await one(router, "plain", 1, fake)
    found = await router.traffic(timedelta(hours=1))
    assert (found.total.calls, found.workers, await router.decisions()) == (0, (), ())
    assert str(found).endswith("none was recorded")
    router.record_traffic()
    router.record_traffic()
    await one(router, "plain", 1, fake)
    assert (await router.traffic(timedelta(hours=1))).total.calls == 1
    assert len(await router.decisions()) == 1
