"""What a store has in it when an upgrade comes: filled by one version, and read again by another.

    python tests/store/earlier/filling.py URL        (fills an empty store; prints what this version reads in it)

It runs under the sources of any version since there was a store, and leaves out the parts that one does not have. So it
uses nothing but the stores, and no name of theirs that was ever another one. `files.py` makes the fixtures with it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Final

from tierline.budgets import Line
from tierline.ledger import RedisLedger, Reservation, SQLiteLedger
from tierline.ledger.base import Origin
from tierline.store.redis import RedisStore
from tierline.store.sqlite import SQLiteStore
from tierline.values import Offer
from tierline.windows import Window

NOON: Final = 1_795_262_400.0
MUCH: Final = 900_000_000_000_000_001
"""Nano-USD that a float cannot tell from one more."""
LASTING: Final = (
    Line("total", "global", 2 * MUCH, Window("total"), alert_at=(0.8, 1.0)),
    Line("daily", "acme", 1_000, Window("day"), downgrade_at=0.7),
    Line("rolling", "acme", 1_000, Window("rolling", seconds=86_400)),
)
FOR: Final = Origin("acme", "/answer")


def store_of(url: str) -> Any:
    """The connection of a URL: a Redis, or the path of a file."""
    return RedisStore(url, timeout=5) if url.startswith("redis") else SQLiteStore(url, timeout=5)


def ledger_of(store: Any, now: list[float]) -> Any:
    """The ledger over a connection, by a clock of one's own."""
    kind = RedisLedger if isinstance(store, RedisStore) else SQLiteLedger
    return kind(store, clock=lambda: now[0])


async def held(ledger: Any, key: str, cost: int) -> Any:
    """A hold on all of the lines. Whoever asks again by the same key is given the same one."""
    found = await ledger.reserve(key, [Offer("haiku", "m", cost)], LASTING, origin=FOR)
    assert isinstance(found, Reservation), found
    return found


async def fill(store: Any) -> None:
    """All parts, in every state that a row can be in."""
    now = [NOON]
    ledger = ledger_of(store, now)
    whole = await ledger.reserve("whole", [Offer("opus", "o", MUCH)], LASTING[:1])
    await ledger.settle(whole, MUCH)
    await held(ledger, "lapsed", 70)
    now[0] += 2 * ledger.lease
    await ledger.settle(await held(ledger, "settled", 300), 120)
    await ledger.settle(await held(ledger, "guessed", 40), 30, estimated=True)
    await held(ledger, "released", 5)
    await ledger.release("released")
    await held(ledger, "flying", 500)
    await ledger.set_limit("daily", "globex", MUCH)
    await ledger.set_limit("daily", None, 900)
    for part in (_outcomes, _verdicts, _traffic, _batches, _queue):
        try:
            await part(store)
        except ImportError:
            continue  # this version does not have it
    await ledger.aclose()


async def _outcomes(store: Any) -> None:
    from tierline.learn.outcomes import Evidence

    outcomes = _opened_outcomes(store)
    await outcomes.secret()
    await outcomes.add(
        [Evidence(f"o{n}", "/answer", "haiku", 0.5, b"\x00\xff1", account="d" * (n % 2), at=NOON) for n in range(3)]
    )


async def _verdicts(store: Any) -> None:
    from tierline.verdicts.opening import open_verdicts
    from tierline.verdicts.store import Kept

    verdicts: Any = open_verdicts(store, clock=lambda: NOON)
    await verdicts.put([Kept("k1", "a1", "sealed one", 1e9), Kept("k2", "a2", "sealed two", 1e9)])
    await verdicts.used({"k1": 3}, 12_345)


async def _traffic(store: Any) -> None:
    from tierline.traffic.base import Counts
    from tierline.traffic.opening import open_traffic
    from tierline.traffic.store import Beat, Record, Row

    traffic = open_traffic(store, clock=lambda: NOON)
    hour = int(NOON) - 3600
    rows = [Row("tier", hour, "haiku", Counts(3, 2**53 + 1)), Row("account", hour, "acme", Counts(3, 2**53 + 1, top=7))]
    await traffic.add(Beat("worker", NOON), 1, rows, [Record("d1", NOON, "acme", '{"id":"d1"}')])
    await traffic.end("session", NOON + 1e6)


async def _batches(store: Any) -> None:
    from tierline.batches.jobs import FINAL, SENT, Ended, Held, Item
    from tierline.batches.opening import open_jobs

    jobs = open_jobs(store, clock=lambda: NOON, lease=30.0)
    await jobs.begin("job", "uid", "me", '{"when_full":"refuse"}')
    await jobs.intend("job", "me", ["h1", "h2"])
    items = [Item(n, f"r{n}", f'{{"n":{n}}}', "h1", SENT, MUCH, "haiku", "m") for n in range(3)]
    await jobs.add("job", "me", "b1", items, [Held("h1", "entry")], ["h1"])
    await jobs.seal("b1", "me")
    await jobs.take("you", 1)
    await jobs.collect("b1", "you", [Ended(0, FINAL, "succeeded", "text", MUCH, estimated=True)])


async def _queue(store: Any) -> None:
    from tierline.batches.opening import open_jobs, open_queue
    from tierline.batches.queue.store import Item

    queue = open_queue(store, open_jobs(store, clock=lambda: NOON, lease=30.0), clock=lambda: NOON, lease=30.0)
    for handle in ("a", "b", "c"):
        times = [NOON, NOON - 1, NOON + 1e5, NOON + 2e5, NOON + 3e5, NOON + 4e5]
        await queue.put(Item(handle, "acme", f"r-{handle}", "refuse", "", *times, f'{{"q":"{handle}"}}'))
        if handle == "b":
            await queue.gather("group", 2)


def _opened_outcomes(store: Any) -> Any:
    if isinstance(store, RedisStore):
        from tierline.learn.redis import RedisOutcomes

        return RedisOutcomes(store)
    from tierline.learn.sqlite import SQLiteOutcomes

    return SQLiteOutcomes(store)


async def read(store: Any) -> dict[str, Any]:
    """What the stores give of all that, as JSON has it. No lease ends by it."""
    ledger = ledger_of(store, [NOON + 60])
    found: dict[str, Any] = {
        "balances": sorted(
            [b.budget, b.account, b.spent, b.held, b.estimated, b.limit] for b in await ledger.balances()
        ),
        "holds": [[h.id, h.tier, h.cost, h.tenant, h.route] for h in await ledger.holds()],
        "history": sorted(
            [s.hour, str(s.tenant), str(s.route), s.tier, s.attempts, s.cost, s.own, s.estimated]
            for s in await ledger.history(0)
        ),
        "limits": sorted([budget, str(account), limit] for (budget, account), limit in (await ledger.limits()).items()),
    }
    for part in (_read_learned, _read_verdicts, _read_traffic, _read_batches):
        try:
            found |= await part(store)
        except ImportError:
            continue
    await ledger.aclose()
    return found


async def _read_learned(store: Any) -> dict[str, Any]:
    outcomes = _opened_outcomes(store)
    kept, cursor = await outcomes.since("")
    return {
        "outcomes": [[*each[:4], each.features.hex(), *each[5:]] for each in kept],
        "edition": cursor,
        "secret": (await outcomes.secret()).hex(),
    }


async def _read_verdicts(store: Any) -> dict[str, Any]:
    from tierline.verdicts.opening import open_verdicts

    verdicts: Any = open_verdicts(store, clock=lambda: NOON)
    stats = await verdicts.stats()
    return {"verdicts": [await verdicts.get(["k1", "k2", "k3"]), stats.size, stats.hits, stats.saved]}


async def _read_traffic(store: Any) -> dict[str, Any]:
    from tierline.traffic.opening import open_traffic
    from tierline.traffic.store import span_of

    traffic = open_traffic(store, clock=lambda: NOON)
    found = await traffic.read(span_of(NOON - 7200, NOON, NOON, named=True), 10)
    hours = [[hour, name, counts.calls, counts.cost] for hour, tiers in found.hours for name, counts in tiers.items()]
    accounts = [[name, counts.calls, counts.cost, counts.top] for name, counts in found.ranked["account"].names.items()]
    return {
        "traffic": [hours, accounts, found.ranked["account"].number],
        "decisions": await traffic.decisions(10, None),
        "ended": sorted(await traffic.ended()),
    }


async def _read_batches(store: Any) -> dict[str, Any]:
    from tierline.batches.opening import open_jobs, open_queue

    jobs = open_jobs(store, clock=lambda: NOON, lease=30.0)
    queue = open_queue(store, jobs, clock=lambda: NOON, lease=30.0)
    counts: Any = await jobs.counts("job")
    results = [[row.place, row.name, row.outcome, row.result] for row in await jobs.results("job", -1, 10)]
    queued = [await queue.get(handle) for handle in ("a", "b", "c")]
    return {
        "job": [
            results,
            counts and sorted(counts.outcomes.items()),
            await jobs.payloads("b1", -1, 10),
            await jobs.left(),
        ],
        "shares": await jobs.shares("b1"),
        "queued": [item and item._replace(created=0.0) for item in queued],
        "members": await queue.members("group", -1, 10),
    }


async def _main(url: str) -> None:
    store = store_of(url)
    await fill(store)
    found = await read(store)
    await store.aclose()
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
