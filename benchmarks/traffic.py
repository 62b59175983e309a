"""How long it takes to ask what a million calls of ten thousand accounts did, and what keeping it takes.

python -m benchmarks.traffic [--calls N] [--accounts N] [--days N]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.redis_server import redis_server
from tierline.budgets import Budget
from tierline.ledger import RedisLedger, SQLiteLedger
from tierline.ledger.base import Reservation
from tierline.store.redis import RedisStore
from tierline.store.sqlite import SQLiteStore
from tierline.traffic.base import Counts
from tierline.traffic.opening import open_reading
from tierline.traffic.store import DAY, HOUR, HOURS_KEPT, Beat, Record, Row
from tierline.values import Offer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tierline.ledger import Ledger

TIERS = ("haiku", "sonnet", "opus")
ROUNDS = 7
PER_STEP = 500


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--accounts", type=int, default=10_000)
    parser.add_argument("--days", type=int, default=30)
    return parser.parse_args()


def rows_of(options: argparse.Namespace, now: float) -> Iterator[list[Row]]:
    """All that so many calls add, hour by hour.

    Of hours that are kept only in days, those of a day come as one: the sums are the same, and are written sooner.
    """
    dice = random.Random(1)
    last = int(now // HOUR) * HOUR
    cells: dict[tuple[Any, int, str], list[int]] = defaultdict(lambda: [0] * 12)
    hours = options.days * 24
    for number in range(hours):
        hour = last - (hours - 1 - number) * HOUR
        named = hour if hour > now - HOURS_KEPT - DAY else hour - hour % DAY
        for _ in range(options.calls // hours):
            cost = dice.randrange(10**5, 10**8)
            places = (
                ("tier", hour, TIERS[min(2, int(dice.expovariate(1.2)))]),
                ("route", named, f"/route/{dice.randrange(40)}"),
                ("account", named, f"tenant-{dice.randrange(options.accounts)}"),
                ("job", named, f"team-{dice.randrange(20)}/nightly-{number // 24}"),
            )
            sums = (1, cost, cost // 20, 0, cost * 4, 1, dice.random() < 0.3, dice.random() < 0.02, 0, 0, 0, 0)
            for key in places:
                cell = cells[key]
                for place, each in enumerate(sums):
                    cell[place] += each
        if named == hour or hour % DAY == DAY - HOUR:
            yield [Row(kind, at, name, Counts(*cell)) for (kind, at, name), cell in cells.items()]
            cells.clear()


async def fill(store: Any, hours: Sequence[list[Row]]) -> float:
    number, began = 0, time.perf_counter()
    for rows in hours:
        for place in range(0, len(rows), PER_STEP):
            number += 1
            await store.add(Beat("worker", 0.0), number, rows[place : place + PER_STEP], ())
    records = [Record(f"{n}", time.time() - n / 100, "tenant-1", '{"reasons": "…"}' + " " * 1500) for n in range(500)]
    await store.add(Beat("worker", 0.0), number + 1, (), records)
    return time.perf_counter() - began


async def fill_balances(ledger: Ledger, accounts: int) -> None:
    budgets = Budget("$1/day", per="tenant"), Budget("$50/month")
    gate = asyncio.Semaphore(50)

    async def one(number: int) -> None:
        async with gate:
            lines = [budgets[0].line(f"tenant-{number}"), budgets[1].line("global")]
            held = await ledger.reserve(f"bench-{number}", [Offer("haiku", "claude-haiku-5-5", 10**6)], lines)
            assert isinstance(held, Reservation)
            await ledger.settle(held, 10**5)

    await asyncio.gather(*map(one, range(accounts)))


async def timed(what: str, ask: Any) -> None:
    times = []
    for _ in range(ROUNDS):
        began, cpu = time.perf_counter(), time.process_time()
        await ask()
        times.append((time.perf_counter() - began, time.process_time() - cpu))
    times.sort()
    (shortest, cpu), (median, _) = times[0], times[len(times) // 2]
    print(
        f"  {what:<26} {shortest * 1e3:7.1f} ms shortest ({cpu * 1e3:.1f} of CPU here), {median * 1e3:7.1f} median",
        flush=True,
    )


async def measure(name: str, ledger: Any, hours: Sequence[list[Row]], options: argparse.Namespace, size: Any) -> None:
    now = time.time()
    reading = open_reading(ledger.store, TIERS, time.time)
    empty = size()
    took = await fill(reading.store, hours)
    rows = sum(map(len, hours))
    print(f"{name}: {options.calls:,} calls of {options.accounts:,} accounts over {options.days} days")
    print(f"  {rows:,} rows written in {took:.0f} s ({took / rows * 1e6:.0f} µs each), {(size() - empty) / 1e6:.0f} MB")
    for days in (1, 2, 7, 30, 90):
        since = now - days * DAY
        await timed(f"traffic, {days} d", lambda since=since: reading.traffic(since, time.time(), 50))
    await timed("traffic, 30 d, no names", lambda: reading.traffic(now - 30 * DAY, time.time(), 0))
    await timed("50 decisions", lambda: reading.decisions(50, None))
    await fill_balances(ledger, options.accounts)
    await timed(f"balances ({options.accounts + 1:,})", ledger.balances)


async def main() -> None:
    options = parsed()
    hours = list(rows_of(options, time.time()))
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "tierline.db"
        ledger = SQLiteLedger(SQLiteStore(path, timeout=10))
        await measure(
            "SQLite", ledger, hours, options, lambda: sum(each.stat().st_size for each in Path(place).iterdir())
        )
        await ledger.aclose()
    with redis_server() as server, server.client() as client:
        shared = RedisLedger(RedisStore(server.url, timeout=10))
        await measure("Redis", shared, hours, options, lambda: client.info("memory")["used_memory"])
        await shared.aclose()


if __name__ == "__main__":
    asyncio.run(main())
