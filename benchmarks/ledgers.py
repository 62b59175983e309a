"""What it costs to reserve and to settle, on every kind of ledger, beside the least that its store can do.

    python -m benchmarks.ledgers [--quick] [--json FILE]

A pair is a `reserve` and the `settle` after it. Beside SQLite stand two bare commits of one UPDATE, on a thread, with
`synchronous=FULL`; beside Redis two EVALSHA of a script that adds one to a counter. Blocks of pairs alternate, so that
what slows the machine down slows all columns down; shown are wall-clock microseconds of a pair as its caller waits for
them, and the ratio of the medians to the bare store. At the end, 8 processes share one store.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table

from tierline.budgets import Budget
from tierline.ledger import MemoryLedger, RedisLedger, SQLiteLedger
from tierline.ledger.base import Reservation
from tierline.values import Offer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tierline.budgets import Line
    from tierline.ledger import Ledger

SECONDS: Final = 20.0
QUICK_SECONDS: Final = 2.0
PROCESSES: Final = 8
BLOCK: Final = 100
"""Pairs of one column before the next one has its turn."""
OFFERS: Final = (Offer("haiku", "h", 1_000_000), Offer("sonnet", "s", 3_000_000))
ONE: Final = (Budget("$1000000/day", name="day").line("global"),)
FOUR: Final = (
    *ONE,
    Budget("$1000000/month", name="month").line("global"),
    Budget("$1000000/hour", "tenant", "hour").line("acme"),
    Budget("$1000000/24h rolling", "tenant", "rolling").line("acme"),
)


@dataclass
class Column:
    """One way to spend: `pair` does it once. `bare` is the column that it is compared with."""

    name: str
    pair: Callable[[], Awaitable[None]]
    bare: str = ""
    micros: list[float] = field(default_factory=list)


def on_ledger(ledger: Ledger, lines: tuple[Line, ...], name: str) -> Callable[[], Awaitable[None]]:
    """Reserve and settle, with an id of its own each time."""
    number = iter(range(1 << 60))

    async def pair() -> None:
        held = await ledger.reserve(f"{name}-{next(number)}", OFFERS, lines)
        assert isinstance(held, Reservation)
        await ledger.settle(held, 700_000)

    return pair


def bare_sqlite(path: Path) -> Callable[[], Awaitable[None]]:
    """Two commits of one UPDATE, on a thread that does nothing else."""
    thread = ThreadPoolExecutor(1)

    def opened() -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE counter (n INTEGER)")
        connection.execute("INSERT INTO counter VALUES (0)")
        return connection

    connection = thread.submit(opened).result()

    def commit() -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE counter SET n = n + 1")
        connection.execute("COMMIT")

    async def pair() -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(thread, commit)
        await loop.run_in_executor(thread, commit)

    return pair


async def bare_redis(url: str) -> Callable[[], Awaitable[None]]:
    """Two EVALSHA of the least script that writes."""
    from redis.asyncio import Redis  # noqa: PLC0415

    client = Redis.from_url(url)
    add = client.register_script("return redis.call('INCR', KEYS[1])")
    await add(keys=["bare"])

    async def pair() -> None:
        await client.evalsha(add.sha, 1, "bare")
        await client.evalsha(add.sha, 1, "bare")

    return pair


@contextmanager
def redis_running() -> Iterator[str | None]:
    """A Redis of our own on a free port; None where there is none to start."""
    if not any(map(shutil.which, ("redis-server", "valkey-server"))):
        yield None
        return
    from tests.redis_server import redis_server  # noqa: PLC0415

    with redis_server() as server:
        yield server.url


async def measure(columns: list[Column], concurrency: int, seconds: float) -> None:
    """Blocks of every column in turn, in shuffled order, for about so long."""
    for column in columns:
        column.micros = []
        await column.pair()
    order = list(columns)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        random.shuffle(order)
        for column in order:
            left = iter(range(BLOCK))

            async def lane(column: Column = column, left: Iterator[int] = left) -> None:
                for _ in left:
                    began = time.perf_counter()
                    await column.pair()
                    column.micros.append((time.perf_counter() - began) * 1e6)

            await asyncio.gather(*(lane() for _ in range(concurrency)))


def table(columns: list[Column], concurrency: int) -> Table:
    """A row for each column."""
    shown = Table(title=f"reserve + settle, {concurrency} at a time: µs a pair", title_justify="left")
    for name in ("", "p50", "p99", "ratio of medians to the bare store"):
        shown.add_column(name, justify="left" if not name else "right")
    medians = {column.name: statistics.median(column.micros) for column in columns}
    for column in columns:
        ratio = f"{medians[column.name] / medians[column.bare]:.2f}" if column.bare else ""
        shown.add_row(column.name, f"{medians[column.name]:,.0f}", f"{p99(column.micros):,.0f}", ratio)
    return shown


def p99(micros: list[float]) -> float:
    """The 99th of a hundred."""
    return statistics.quantiles(micros, n=100)[-1]


async def share(url: str, seconds: float) -> list[float]:
    """One of several processes on a store: 50 lanes of pairs for so long. Microseconds of each pair."""
    ledger = opened(url)
    column = Column("", on_ledger(ledger, FOUR[:2], f"{random.random()}"))
    await column.pair()
    ends = time.monotonic() + seconds

    async def lane() -> None:
        while time.monotonic() < ends:
            began = time.perf_counter()
            await column.pair()
            column.micros.append((time.perf_counter() - began) * 1e6)

    await asyncio.gather(*(lane() for _ in range(50)))
    await ledger.aclose()
    return column.micros


def opened(url: str) -> Ledger:
    """The ledger of a URL, without the guard that a Router puts around it."""
    return RedisLedger(url) if url.startswith("redis") else SQLiteLedger(url)


def together(url: str, seconds: float) -> list[float]:
    """What `share` measured, of all processes."""
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.ledgers", "--share", url, "--seconds", str(seconds)],
            stdout=subprocess.PIPE,
        )
        for _ in range(PROCESSES)
    ]
    found: list[float] = []
    for process in running:
        found += json.loads(process.communicate()[0])
    return found


async def main(seconds: float, file: str) -> None:
    """Measure and show everything."""
    console = Console(width=120)
    said: dict[str, dict[str, float]] = {}
    with redis_running() as redis, tempfile.TemporaryDirectory() as folder:
        memory, sqlite = MemoryLedger(), SQLiteLedger(Path(folder) / "ledger.db")
        columns = [
            Column("memory, 1 budget", on_ledger(memory, ONE, "m1")),
            Column("memory, 4 budgets", on_ledger(memory, FOUR, "m4")),
            Column("bare SQLite", bare_sqlite(Path(folder) / "bare.db")),
            Column("SQLite, 1 budget", on_ledger(sqlite, ONE, "s1"), "bare SQLite"),
            Column("SQLite, 4 budgets", on_ledger(sqlite, FOUR, "s4"), "bare SQLite"),
        ]
        ledgers: list[Ledger] = [sqlite]
        if redis is not None:
            ledgers.append(ledger := RedisLedger(redis))
            columns += [
                Column("bare Redis", await bare_redis(redis)),
                Column("Redis, 1 budget", on_ledger(ledger, ONE, "r1"), "bare Redis"),
                Column("Redis, 4 budgets", on_ledger(ledger, FOUR, "r4"), "bare Redis"),
            ]
        else:
            console.print("no redis-server here: Redis is left out")
        for concurrency in (1, 50):
            await measure(columns, concurrency, seconds)
            console.print(table(columns, concurrency))
            for column in columns:
                said[f"{column.name}, {concurrency} at a time"] = {
                    "p50": statistics.median(column.micros), "p99": p99(column.micros)
                }  # fmt: skip
        for each in ledgers:
            await each.aclose()

        shown = Table(title=f"{PROCESSES} processes, 50 pairs at a time each, 2 budgets", title_justify="left")
        for name in ("", "pairs a second", "p50 ms", "p99 ms"):
            shown.add_column(name, justify="left" if not name else "right")
        for name, url in (("SQLite", str(Path(folder) / "shared.db")), ("Redis", redis)):
            if url is None:
                continue
            lasting = max(2.0, seconds / 2)
            micros = await asyncio.to_thread(together, url, lasting)
            rate, p50 = len(micros) / lasting, statistics.median(micros)
            shown.add_row(name, f"{rate:,.0f}", f"{p50 / 1e3:,.1f}", f"{p99(micros) / 1e3:,.1f}")
            said[f"{name}, {PROCESSES} processes"] = {"rate": rate, "p50": p50, "p99": p99(micros)}
        console.print(shown)
    if file:
        await asyncio.to_thread(Path(file).write_text, json.dumps(said, indent=1))


if __name__ == "__main__":
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--quick", action="store_true", help="a few seconds for each table")
    read.add_argument("--seconds", type=float)
    read.add_argument("--json", default="", help="write the figures to this file")
    read.add_argument("--share", help=argparse.SUPPRESS)
    given = read.parse_args()
    lasting = given.seconds or (QUICK_SECONDS if given.quick else SECONDS)
    if given.share:
        json.dump(asyncio.run(share(given.share, lasting)), sys.stdout)
    else:
        asyncio.run(main(lasting, given.json))
