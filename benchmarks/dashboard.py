"""How long the page of an operator takes, over a million calls of ten thousand accounts; and what it costs a call.

python -m benchmarks.dashboard [--calls N] [--accounts N] [--days N]

Requests go through the whole app, without a socket: `cold` is the first look, and any after more than the time for
which an answer is kept; `warm` is another look within that. `held up` is for how long the event loop, on which an app's
calls run, was not free meanwhile; `CPU` is that of this process, the least of all rounds. At the end: CPU time of a
call without a page, and with one that nobody looks at.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx

from benchmarks import traffic
from benchmarks.traffic import fill, fill_balances, parsed, rows_of
from tests.redis_server import redis_server
from tierline import Budget, Router
from tierline.classify import FixedClassifier
from tierline.dashboard import app as page
from tierline.dashboard import dashboard
from tierline.ledger import RedisLedger, SQLiteLedger
from tierline.store.redis import RedisStore
from tierline.store.sqlite import SQLiteStore
from tierline.testing import FakeClaude
from tierline.traffic.opening import open_traffic

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from tierline.ledger import Ledger
    from tierline.traffic.store import Row

TOKEN: Final = "a token of the benchmark"
ROUNDS: Final = 9
CALLS: Final = 150
PATHS: Final = {
    "overview, 24 h": "/api/overview?hours=24",
    "overview, 7 d": "/api/overview?hours=168",
    "overview, 30 d": "/api/overview?hours=720",
    "accounts": "/api/accounts?most=50",
    "accounts, searched": "/api/accounts?search=99&sort=name&offset=50",
    "decisions": "/api/decisions",
}


class Loop:
    """The longest time for which the event loop was not free."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._task = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            self.longest = max(self.longest, time.perf_counter() - began - 0.001)

    async def end(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


async def look(browser: httpx.AsyncClient, path: str) -> tuple[float, int]:
    began = time.perf_counter()
    found = await browser.get(path)
    assert found.status_code == 200, found.text
    return time.perf_counter() - began, len(found.content)


async def measure(name: str, ledger: Any, hours: Sequence[list[Row]], options: argparse.Namespace) -> None:
    await fill(open_traffic(ledger.store, clock=time.time), hours)
    await fill_balances(ledger, options.accounts)
    print(f"{name}: {options.calls:,} calls of {options.accounts:,} accounts over {options.days} days")
    print("                        cold: median shortest      CPU   held up     warm: median     size")
    for what, path in PATHS.items():
        cold, warm, held, busy, size = [], [], [], [], 0
        for _ in range(ROUNDS):
            router = Router(FakeClaude().client(), budgets=budgets(), ledger=ledger)
            app = dashboard(router, token=TOKEN)
            headers = {"authorization": f"Bearer {TOKEN}"}
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="http://desk", headers=headers
            ) as browser:
                await browser.get("/static/index.html")
                loop, began = Loop(), time.process_time()
                took, size = await look(browser, path)
                busy.append(time.process_time() - began)
                await loop.end()
                cold.append(took)
                held.append(loop.longest)
                warm += [(await look(browser, path))[0] for _ in range(3)]
        print(
            f"  {what:<20} {statistics.median(cold) * 1e3:11.1f} ms {min(cold) * 1e3:5.0f} ms {min(busy) * 1e3:5.0f} ms"
            f" {statistics.median(held) * 1e3:6.0f} ms {statistics.median(warm) * 1e3:12.1f} ms {size / 1e3:6.0f} kB",
            flush=True,
        )


def budgets() -> list[Budget]:
    return [Budget("$1/day", per="tenant"), Budget("$50/month")]


async def cost_of_a_call() -> None:
    """CPU time of a call, in blocks that alternate, so that what slows the machine slows all of them."""
    fake = FakeClaude()
    async with fake.client() as client:
        routers = {what: Router(client, classifier=FixedClassifier("moderate"), budgets=budgets()) for what in ROWS}
        dashboard(routers[ROWS[2]], token=TOKEN)
        blocks: dict[str, list[float]] = {what: [] for what in ROWS}
        for _ in range(ROUNDS + 2):
            for what, router in routers.items():
                began = time.process_time()
                for _ in range(CALLS):
                    await router.claude.messages.create(
                        model="auto", max_tokens=10, messages=[{"role": "user", "content": "hi"}]
                    )
                blocks[what].append((time.process_time() - began) / CALLS)
        print("CPU time of a call, with the SDK and the offline API:")
        for what in ROWS:
            kept = sorted(blocks[what][2:])
            print(f"  {what:<32} {statistics.median(kept) * 1e6:7.0f} µs median {kept[0] * 1e6:7.0f} µs shortest")
        for router in routers.values():
            await router.aclose()


ROWS: Final = ("no page", "no page (once more: the noise)", "a page that nobody looks at")


async def main() -> None:
    options = parsed()
    hours = list(rows_of(options, time.time()))
    with tempfile.TemporaryDirectory() as place:
        sqlite: Ledger = SQLiteLedger(SQLiteStore(Path(place) / "tierline.db", timeout=10))
        await measure("SQLite", sqlite, hours, options)
        await sqlite.aclose()
    with redis_server() as server:
        redis = RedisLedger(RedisStore(server.url, timeout=10))
        await measure("Redis", redis, hours, options)
        await redis.aclose()
    await cost_of_a_call()


if __name__ == "__main__":
    assert page.HOURS == 24, "the rows are named by what is shown"
    traffic.PER_STEP = 2_000  # how long it takes to write is not measured here
    asyncio.run(main())
