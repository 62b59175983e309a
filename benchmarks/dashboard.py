"""How long the page of an operator takes, over a million calls of ten thousand accounts; and what it costs a call.

python -m benchmarks.dashboard [--calls N] [--accounts N] [--days N]

Requests go through the whole app, without a socket: `cold` is the first look of a process, with new connections, and
any after more than the time for which an answer is kept; `warm` is another look within that. `CPU` is that of this
process and of the Redis, the least of all rounds: what a cold look takes where nothing else runs is hardly more than
both. `held up` is for how long the event loop, on which an app's calls run, was not free meanwhile. At the end: CPU
time of a call without a page, and with one that nobody looks at.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
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
    from collections.abc import Callable, Sequence

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


async def measure(
    name: str,
    open_ledger: Callable[[], Any],
    hours: Sequence[list[Row]],
    options: argparse.Namespace,
    theirs: Callable[[], float],
) -> None:
    """`theirs` is the CPU time of the store's own process."""
    ledger = open_ledger()
    await fill(open_traffic(ledger.store, clock=time.time), hours)
    await fill_balances(ledger, options.accounts)
    await ledger.aclose()
    print(f"{name}: {options.calls:,} calls of {options.accounts:,} accounts over {options.days} days")
    print("                        cold: median shortest  CPU: here   there   held up     warm: median     size")
    for what, path in PATHS.items():
        cold, warm, held, here, there, size = [], [], [], [], [], 0
        for _ in range(ROUNDS):
            ledger = open_ledger()
            router = Router(FakeClaude().client(), budgets=budgets(), ledger=ledger)
            app = dashboard(router, token=TOKEN)
            headers = {"authorization": f"Bearer {TOKEN}"}
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="http://desk", headers=headers
            ) as browser:
                await browser.get("/static/index.html")
                loop, began, before = Loop(), time.process_time(), theirs()
                took, size = await look(browser, path)
                here.append(time.process_time() - began)
                there.append(theirs() - before)
                await loop.end()
                cold.append(took)
                held.append(loop.longest)
                warm += [(await look(browser, path))[0] for _ in range(3)]
            await router.aclose()
            await ledger.aclose()
        times = (median(cold), min(cold), min(here), min(there), median(held), median(warm))
        shown = "".join(
            f"{each * 1e3:{width}.{digits}f} ms" for each, (width, digits) in zip(times, WIDTHS, strict=True)
        )
        print(f"  {what:<20}{shown} {size / 1e3:6.0f} kB", flush=True)


WIDTHS: Final = ((12, 1), (6, 0), (8, 0), (5, 0), (7, 0), (13, 1))


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
            print(f"  {what:<32} {median(kept) * 1e6:7.0f} µs median {kept[0] * 1e6:7.0f} µs shortest")
        for router in routers.values():
            await router.aclose()


ROWS: Final = ("no page", "no page (once more: the noise)", "a page that nobody looks at")


async def main() -> None:
    options = parsed()
    hours = list(rows_of(options, time.time()))
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "tierline.db"
        await measure("SQLite", lambda: SQLiteLedger(SQLiteStore(path, timeout=10)), hours, options, lambda: 0.0)
    with redis_server() as server, server.client() as client:

        def busy() -> float:
            told = client.info("cpu")
            return told["used_cpu_user"] + told["used_cpu_sys"]

        await measure("Redis", lambda: RedisLedger(RedisStore(server.url, timeout=10)), hours, options, busy)
    await cost_of_a_call()


if __name__ == "__main__":
    assert page.HOURS == 24, "the rows are named by what is shown"
    traffic.PER_STEP = 2_000  # how long it takes to write is not measured here
    asyncio.run(main())
