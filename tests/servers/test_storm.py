"""Many calls at once whose clients leave at random bytes, and what that takes of memory.

The ledger of the app writes down every hold and how it ended, the API has its own bills: they are compared by call.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from random import Random
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.servers import charges
from tests.servers.conftest import DEADLINE, SERVERS, Browser, Served, serving, until
from tierline.testing import OK, FakeClaude, Fault, Reply

if TYPE_CHECKING:
    from pathlib import Path

log: Final = logging.getLogger(__name__)

PATHS: Final = ("answer", "sync_answer", "texts", "events", "raw", "opened", "sync_texts")
TENANTS: Final = [f"tenant-{n}" for n in range(7)]
AT_ONCE: Final = 24


def fake_of(seed: int) -> FakeClaude:
    """An API that takes its time, and answers at any length."""
    dice = Random(seed)  # noqa: S311  (reproducible variety, not a secret)
    return FakeClaude(answer=lambda _: Reply("word " * dice.randint(1, 150)), chunk_delay=0.002, keep=200_000)


async def visit(app: Served, name: str, tenant: str, dice: Random) -> None:
    """A browser that reads all of an answer, or some of it, or none."""
    path = f"/{dice.choice(PATHS)}?tier={dice.choice(('plain', 'thinking'))}"
    try:
        browser = await Browser.get(app, path, name, tenant, connection="close")
    except OSError:
        return
    try:
        async with asyncio.timeout(DEADLINE):
            match dice.choice(("whole", "bytes", "bytes", "time")):
                case "whole":
                    await browser.reader.read()
                case "bytes":
                    await browser.reader.readexactly(dice.randint(1, 1_500))
                case _:
                    await asyncio.sleep(dice.random() * 0.2)
    except (asyncio.IncompleteReadError, OSError):
        pass
    finally:
        await browser.leave(politely=dice.random() < 0.5)


async def many(app: Served, visits: int, seed: int) -> dict[str, str]:
    """So many visits, some at a time; whose each of them was."""
    dice = Random(seed)  # noqa: S311
    of = {f"storm-{seed}-{n}": dice.choice(TENANTS) for n in range(visits)}
    queue = list(of.items())

    async def worker(own: Random) -> None:
        while queue:
            name, tenant = queue.pop()
            await visit(app, name, tenant, own)

    await asyncio.gather(*(worker(Random(dice.random())) for _ in range(AT_ONCE)))  # noqa: S311
    return of


async def check(app: Served, of: dict[str, str]) -> Counter[str]:
    """Every attempt is settled once, to its tenant, for what was billed or for the documented estimate."""
    await until(lambda: all(received.ended != "open" for received in app.fake.requests))
    for tenant in TENANTS:
        await app.settled(tenant, DEADLINE)
    found = await app.about(calls=True)
    holds: dict[str, dict[str, Any]] = found["holds"]
    assert {len(hold["settled"]) for hold in holds.values()} == {1}
    by_tenant: dict[str, int] = defaultdict(int)
    for hold in holds.values():
        by_tenant[hold["tenant"]] += hold["settled"][0]
    assert by_tenant == {tenant: spent for tenant, spent in found["spent"].items() if spent}
    seen: Counter[str] = Counter()
    billed: dict[str, list[Any]] = defaultdict(list)
    for received in app.fake.requests:
        billed[received.headers["x-call"]].append(received)
        assert received.headers["x-tenant"] == of[received.headers["x-call"]]
    by_name: dict[str, int] = defaultdict(int)
    for name, attempts in found["calls"].items():
        assert len(attempts) <= 1
        by_name[of[name]] += sum(attempt[2] for attempt in attempts)
        seen.update(charges.check(found, name, billed[name], of[name]))
    assert by_name == by_tenant
    return seen


async def one_of_each(app: Served) -> dict[str, str]:
    """A visit for each kind of ending, whose client leaves at the byte that makes it so; whose each of them was."""
    endings = {
        "exact": ("plain", OK),
        "input": ("plain", Fault.hang()),
        "seen": ("plain", Fault.hang(after=20)),
        "whole": ("thinking", Fault.hang(after=20)),
    }
    app.fake.answer, answer = lambda _: Reply("word " * 150, thinking="hm " * 150), app.fake.answer
    for kind, (tier, fault) in endings.items():
        app.fake.script(fault)
        browser = await Browser.get(app, f"/events?tier={tier}", kind, TENANTS[0], connection="close")
        received = await app.reached(kind, status=0 if kind == "input" else 200)
        assert await browser.body(0 if kind == "input" else 100) is not None
        if kind == "exact":
            await browser.rest()
        await browser.leave()
        await until(lambda received=received: received.ended != "open")
        await app.settled(TENANTS[0], DEADLINE)
        found = await app.about(calls=True)
        assert charges.check(found, kind, app.of(kind), TENANTS[0]) == [kind]
    app.fake.answer = answer
    return dict.fromkeys(endings, TENANTS[0])


async def storm(server: str, work: Path, visits: int) -> Counter[str]:
    with serving(server, work, fake=fake_of(1), LEDGER="slow") as app:
        return await check(app, await one_of_each(app) | await many(app, visits, 1))


@pytest.mark.parametrize("server", SERVERS)
async def test_random_disconnects(server: str, tmp_path: Path) -> None:
    """Clients that leave at random bytes leave every cost with the right account."""
    seen = await storm(server, tmp_path, 300)
    assert set(seen) == {"exact", "input", "seen", "whole"}


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("server", SERVERS)
async def test_ten_thousand_random_disconnects(server: str, tmp_path: Path) -> None:
    """The same, ten thousand times."""
    seen = await storm(server, tmp_path, 10_000)
    log.info("%s: %s", server, dict(seen))
    assert set(seen) == {"exact", "input", "seen", "whole"}
    assert sum(seen.values()) > 5_000


FULL: Final = 26_000
"""Visits after which all is full that a Router remembers: the ids of the last 20,000 calls are the most of it, and of
these clients up to one in five has gone before its call is made."""


async def growth(server: str, work: Path, *, warm: int, requests: int) -> int:
    """How many bytes more the app takes after so many requests; after the first of them, it has all that it needs."""
    fake = FakeClaude(answer=lambda _: Reply("word " * 10), keep=100)
    with serving(server, work, fake=fake, RECORD="no", PYTHONASYNCIODEBUG="") as app:

        async def some(count: int, seed: int) -> int:
            dice, left = Random(seed), count  # noqa: S311

            async def worker() -> None:
                nonlocal left
                while left > 0:
                    left -= 1
                    await visit(app, "", dice.choice(TENANTS), dice)

            await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
            await app.settled(TENANTS[0], DEADLINE)
            await app.get("/collect")
            size = int((await app.about())["rss"])
            log.info("%s: %.1f MB after %d more requests", server, size / 1e6, count)
            return size

        before = await some(warm, 0)
        sizes = [await some(requests // 10, seed) for seed in range(1, 11)]
        log.info("%s: %.1f MB, then %s KB more", server, before / 1e6, [(size - before) // 1000 for size in sizes])
        return sizes[-1] - before


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("server", SERVERS)
async def test_memory_of_a_hundred_thousand_requests(server: str, tmp_path: Path) -> None:
    """Whole answers, streams and clients that leave: a hundred thousand of them take less than 5 MB.

    Of what is left of growth, most is the C library's, which keeps memory for each thread that runs `def` endpoints:
    it grows as much where the same app uses the SDK without Tierline.
    """
    assert await growth(server, tmp_path, warm=FULL, requests=100_000) < 5_000_000
