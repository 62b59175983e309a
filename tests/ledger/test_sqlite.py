from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import tierline
from tierline.budgets import MOST_MONEY, Line
from tierline.errors import ConfigurationError, LedgerUnavailableError
from tierline.ledger import Reservation
from tierline.ledger.base import Origin
from tierline.ledger.sqlite import SQLiteLedger
from tierline.store.sqlite import SQLiteStore
from tierline.testing import LedgerConformance
from tierline.values import Offer, Refusal
from tierline.windows import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tierline.ledger import Ledger

NOON = 1795262400.0
DAY = 86_400.0

PRELUDE = """
import asyncio, os, sys, threading, time
from tierline.budgets import Line
from tierline.ledger import Reservation
from tierline.ledger.sqlite import SQLiteLedger
from tierline.values import Offer
from tierline.windows import Window
ledger, lines = SQLiteLedger(sys.argv[1]), [Line("b", "acme", int(sys.argv[2]), Window("total"))]
async def ask(key, cost):
    return await ledger.reserve(key, [Offer("haiku", "m", cost)], lines)
"""


class TestSQLite(LedgerConformance):
    """A file: another object on the same state has a connection and a thread of its own, as another process has."""

    drift = 200
    examples = 12

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path
        self.files = itertools.count()

    def open_ledger(self, clock: Callable[[], float], lease: float) -> Ledger:
        return SQLiteLedger(self.directory / f"{next(self.files)}.db", clock=clock, lease=lease)

    def open_again(self, ledger: Ledger, clock: Callable[[], float], lease: float) -> Ledger:
        assert isinstance(ledger, SQLiteLedger)
        return SQLiteLedger(ledger.store.path, clock=clock, lease=lease)


def line(limit: int = 100, window: str = "total", account: str = "acme") -> Line:
    return Line("b", account, limit, Window(window))  # type: ignore[arg-type]


def offers(cost: int) -> list[Offer]:
    return [Offer("haiku", "m", cost)]


@contextlib.contextmanager
def python(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A process of its own; it is killed at the end."""
    process = subprocess.Popen(  # noqa: S603  (a script of these tests)
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PRELUDE + script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(tierline.__file__).parents[1])},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> list[str]:
    """What it printed, when it has ended well."""
    found, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return found.split()


def rows(path: Path, table: str) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        count: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
        return count


def money(path: Path, ahead: float = 0.0) -> tuple[int, int, int]:
    """Spent, held and estimated, of a new process whose clock is ahead by so many seconds. All sums must agree."""

    async def look() -> tuple[int, int, int]:
        ledger = SQLiteLedger(path, clock=lambda: time.time() + ahead)
        (balance,) = await ledger.balances()
        holds = await ledger.holds()
        assert balance.held == sum(hold.cost for hold in holds)
        booked = await ledger.history(0)
        assert sum(row.cost for row in booked) == balance.spent
        assert sum(row.estimated for row in booked) == balance.estimated
        assert await ledger.store.run(lambda db: db.execute("PRAGMA integrity_check").fetchone()) == ("ok",)
        await ledger.aclose()
        return balance.spent, balance.held, balance.estimated

    return asyncio.run(look())


def test_thundering_herd_over_processes(tmp_path: Path) -> None:
    """Processes that race for the last dollar take all of it and not one nano-USD more."""
    script = """
async def main():
    found = await asyncio.gather(*(ask(f"{sys.argv[3]} {n}", 10) for n in range(100)))
    print(sum(isinstance(each, Reservation) for each in found))
    await ledger.aclose()
asyncio.run(main())
"""
    path = tmp_path / "a.db"
    with contextlib.ExitStack() as stack:
        racing = [stack.enter_context(python(script, path, 1509, number)) for number in range(4)]
        admitted = [int(said(process)[0]) for process in racing]
    assert sum(admitted) == 150
    assert money(path)[:2] == (0, 1500)


def test_it_outlives_a_process(tmp_path: Path) -> None:
    """What one process held and spent another finds, and ends."""
    script = """
async def main():
    await ask("open", 30)
    await ledger.settle(await ask("done", 30), 7)
asyncio.run(main())
"""
    path = tmp_path / "a.db"
    with python(script, path, 100) as process:
        said(process)

    async def go_on() -> None:
        ledger = SQLiteLedger(path)
        open_ = await ledger.reserve("open", offers(30), [line()])
        assert isinstance(open_, Reservation)
        assert await ledger.settle(open_, 11)
        with pytest.raises(ValueError, match="'done' has ended"):
            await ledger.reserve("done", offers(30), [line()])
        await ledger.aclose()

    asyncio.run(go_on())
    assert money(path) == (18, 0, 0)


def test_kill9_in_many_transactions(tmp_path: Path) -> None:
    """However often processes are killed, the file is whole, what was acknowledged stands, and holds lapse."""
    script = """
async def one(name):
    number = 0
    while True:
        number += 1
        made = await ask(f"{os.getpid()} {name} {number}", 10)
        os.write(1, b"r\\n")
        assert await ledger.settle(made, 3)
        os.write(1, b"s\\n")
async def main():
    await asyncio.gather(*(one(name) for name in range(20)))
asyncio.run(main())
"""
    path, acknowledged = tmp_path / "a.db", []
    for _ in range(3):
        with python(script, path, 10**12) as first, python(script, path, 10**12) as second:
            for process in (first, second):
                assert process.stdout is not None
                assert process.stdout.readline() == "r\n"
            time.sleep(random.uniform(0.05, 0.3))  # noqa: S311
            for process in (first, second):
                process.kill()
                acknowledged += ["r", *process.communicate()[0].split()]
    reserved, settled = acknowledged.count("r"), acknowledged.count("s")
    assert settled > 20
    spent, held, estimated = money(path)
    assert estimated == 0
    assert held <= 10 * 20 * 6
    assert spent + held > 0
    spent, held, estimated = money(path, ahead=35)
    assert held == 0
    done, lapsed = (spent - estimated) // 3, estimated // 10
    assert (spent - estimated, estimated) == (3 * done, 10 * lapsed)
    assert settled <= done
    assert reserved <= done + lapsed <= reserved + 20 * 6


def test_fork_after_client_use(tmp_path: Path) -> None:
    """Parent and children go on after a fork, also one in the midst of a transaction, and the sums are exact."""
    script = """
spent = 0
async def spend(name, calls):
    global spent
    for number in range(calls):
        made = await ask(f"{name} {number}", 10)
        assert await ledger.settle(made, 7)
        spent += 7
def hammer():
    turn = 0
    while not stop.is_set():
        turn += 1
        asyncio.run(spend(f"thread {turn}", 5))
asyncio.run(spend("before", 5))
stop = threading.Event()
thread = threading.Thread(target=hammer)
thread.start()
children = []
for number in range(6):
    time.sleep(0.01)
    pid = os.fork()
    if pid == 0:
        asyncio.run(spend(f"child {number}", 10))
        if number % 3 == 0:
            sys.exit(0)  # with all that an interpreter does at its end
        if number % 3 == 1:
            asyncio.run(ledger.aclose())
        os._exit(0)
    children.append(pid)
codes = [os.waitpid(pid, 0)[1] for pid in children]
stop.set()
thread.join()
asyncio.run(spend("after", 5))
asyncio.run(ledger.aclose())
print(spent + 6 * 70, *codes)
"""
    path = tmp_path / "a.db"
    with python(script, path, 10**9) as process:
        total, *codes = said(process)
    assert codes == ["0"] * 6
    assert money(path) == (int(total), 0, 0)


def test_event_loop_swap(tmp_path: Path) -> None:
    """A hold that was made on one loop is settled on the next, whether or not the first was closed properly."""
    ledger = SQLiteLedger(tmp_path / "a.db")
    made = asyncio.run(ledger.reserve("a", offers(60), [line()]))
    assert isinstance(made, Reservation)
    assert asyncio.run(ledger.settle(made, 5))
    asyncio.run(ledger.aclose())
    assert asyncio.run(ledger.release("b")) is False
    asyncio.run(ledger.aclose())
    assert money(tmp_path / "a.db") == (5, 0, 0)


async def test_sqlite_locked(tmp_path: Path) -> None:
    """A call that could not be done may be repeated, or its id released, when the file is free again."""
    ledger = SQLiteLedger(SQLiteStore(tmp_path / "a.db", timeout=0.05))
    await ledger.ping()
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerUnavailableError, match="locked by another process"):
            await ledger.reserve("a", offers(60), [line()])
        with pytest.raises(LedgerUnavailableError, match="locked by another process"):
            await ledger.ping()
    assert isinstance(await ledger.reserve("a", offers(60), [line()]), Reservation)
    assert await ledger.release("a")
    await ledger.aclose()


async def test_a_lost_file_is_an_operators_matter(tmp_path: Path) -> None:
    """Where the file has gone, nothing is admitted until `confirm`; then only what was in flight is charged."""
    ledger = SQLiteLedger(tmp_path / "a.db")
    made = await ledger.reserve("a", offers(60), [line()])
    assert isinstance(made, Reservation)
    for path in [ledger.store.path, *ledger.store.path.parent.glob("a.db-*")]:
        path.unlink()
    with pytest.raises(LedgerUnavailableError, match="what was spent"):
        await ledger.reserve("b", offers(60), [line()])
    await ledger.confirm()
    assert await ledger.balances() == []
    assert await ledger.settle(made, 60)
    assert not await ledger.settle(made, 60)
    assert [(balance.spent, balance.held) for balance in await ledger.balances()] == [(60, 0)]
    made = await ledger.reserve("c", offers(40), [line()])
    assert isinstance(made, Reservation)
    assert await ledger.release("c")
    assert not await ledger.settle(made, 40)
    await ledger.aclose()


async def test_a_file_in_the_place_of_a_lost_one(tmp_path: Path) -> None:
    """What was in flight when the file was lost is charged to the one that an operator lets stand in for it."""
    ledger, other = SQLiteLedger(tmp_path / "a.db"), SQLiteLedger(tmp_path / "b.db")
    await other.ping()
    made = await ledger.reserve("a", offers(60), [line()])
    assert isinstance(made, Reservation)
    await other.aclose()
    for path in [ledger.store.path, *ledger.store.path.parent.glob("a.db-*")]:
        path.unlink()
    (tmp_path / "b.db").rename(ledger.store.path)
    with pytest.raises(LedgerUnavailableError, match="what was spent"):
        await ledger.settle(made, 60)
    await ledger.confirm()
    assert await ledger.settle(made, 60)
    assert [(balance.spent, balance.held) for balance in await ledger.balances()] == [(60, 0)]
    await ledger.aclose()


async def test_a_clock_that_was_far_ahead(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Time stands still until it is caught up with, over restarts too; that is said, and an operator may end it."""
    now = NOON + 365 * DAY
    ledger = SQLiteLedger(tmp_path / "a.db", clock=lambda: now)
    assert isinstance(await ledger.reserve("a", offers(100), [line(100, "day")]), Reservation)
    await ledger.release("a")
    await ledger.aclose()
    now = NOON
    ledger = SQLiteLedger(tmp_path / "a.db", clock=lambda: now)
    made = await ledger.reserve("b", offers(100), [line(100, "day")])
    assert isinstance(made, Reservation)
    assert made.at == NOON + 365 * DAY
    assert await ledger.settle(made, 100)
    (warning,) = caplog.messages
    assert "behind" in warning
    now += DAY
    assert isinstance(await ledger.reserve("c", offers(100), [line(100, "day")]), Refusal)
    await ledger.confirm()
    made = await ledger.reserve("d", offers(100), [line(100, "day")])
    assert isinstance(made, Reservation)
    assert made.at == NOON + DAY
    await ledger.aclose()


async def test_erased_names_are_not_in_the_file(tmp_path: Path) -> None:
    """Erasing is more than no longer finding."""
    ledger = SQLiteLedger(tmp_path / "a.db")
    for key in ("a", "b"):
        made = await ledger.reserve(key, offers(5), [line(account="umbrella")], origin=Origin("umbrella"))
        assert isinstance(made, Reservation)
    await ledger.settle(made, 5)
    await ledger.set_limit("b", "umbrella", 50)
    await ledger.erase("umbrella")
    await ledger.aclose()
    assert b"umbrella" not in (tmp_path / "a.db").read_bytes()


async def test_alerts_that_were_asked_for_later(tmp_path: Path) -> None:
    """The shares of the latest line hold for all that counts, also for what was held under an earlier one."""
    now, told = NOON, []
    window = Window("rolling", seconds=600)
    ledger = SQLiteLedger(tmp_path / "a.db", clock=lambda: now)
    ledger.watch(told.append)
    made = await ledger.reserve("a", offers(60), [Line("b", "acme", 100, window)])
    assert isinstance(made, Reservation)
    now += 15
    await ledger.reserve("b", offers(1), [Line("b", "acme", 100, window, alert_at=(0.5,))])
    assert await ledger.settle(made, 60)
    assert [(alert.share, alert.spent) for alert in told] == [(0.5, 60)]
    await ledger.aclose()


async def test_old_rows_go(tmp_path: Path) -> None:
    """The file grows with what is open and recent, and not with what ever was."""
    now = NOON
    path = tmp_path / "a.db"
    ledger = SQLiteLedger(path, clock=lambda: now, retention=2 * DAY)

    async def call(number: int) -> None:
        origin = Origin(f"tenant {number}")
        made = await ledger.reserve(str(number), offers(1), [line(10, "minute", str(number))], origin=origin)
        assert isinstance(made, Reservation)
        if number % 2:
            await ledger.settle(made, 1)

    await asyncio.gather(*map(call, range(700)))
    assert [rows(path, table) for table in ("span", "hold", "spend")] == [700, 700, 350]
    now += 3601
    for _ in range(2):
        await ledger.ping()
        now += 1
    assert [rows(path, table) for table in ("span", "hold", "spend")] == [0, 350, 700]
    now += DAY
    await ledger.ping()
    assert [rows(path, table) for table in ("span", "hold", "spend")] == [0, 0, 700]
    now += DAY
    for _ in range(2):
        await ledger.ping()
        now += 1
    assert rows(path, "spend") == 0
    await ledger.aclose()


async def test_many_lapse_at_once(tmp_path: Path) -> None:
    """After a crash a reader waits for all of them, a call for some."""
    now = NOON
    ledger = SQLiteLedger(tmp_path / "a.db", clock=lambda: now)
    await asyncio.gather(*(ledger.reserve(str(number), offers(1), [line(10_000)]) for number in range(1200)))
    now += 30
    made = await ledger.reserve("late", offers(1), [line(10_000)])
    assert isinstance(made, Reservation)
    (balance,) = await ledger.balances()
    assert (balance.spent, balance.held, balance.estimated) == (1200, 1, 1200)
    assert [hold.id for hold in await ledger.holds()] == ["late"]
    await ledger.aclose()


async def test_no_prompt_in_the_file(tmp_path: Path) -> None:
    """Of an offer only its tier, model and cost are kept: what it changes in a body may be anything."""
    secret = Offer("haiku", "m", 5, changes={"system": "hush-hush"}, reasons=("hush-hush",))
    ledger = SQLiteLedger(tmp_path / "a.db")
    made = await ledger.reserve("a", [secret], [line()])
    assert isinstance(made, Reservation)
    again = await ledger.reserve("a", [secret], [line()])
    assert again == made
    await ledger.aclose()
    assert b"hush" not in (tmp_path / "a.db").read_bytes()


async def test_costs_that_do_not_fit(tmp_path: Path) -> None:
    """More than a thousand million dollars is refused before a sum could leave 64 bits."""
    ledger = SQLiteLedger(tmp_path / "a.db")
    with pytest.raises(ValueError, match="at most"):
        await ledger.reserve("a", offers(MOST_MONEY + 1), [])
    made = await ledger.reserve("a", offers(5), [line()])
    assert isinstance(made, Reservation)
    with pytest.raises(ValueError, match="at most"):
        await ledger.settle(made, MOST_MONEY + 1)
    assert await ledger.settle(made, MOST_MONEY)
    await ledger.aclose()


@pytest.mark.parametrize("lease", [0, -1.0, float("nan"), float("inf")])
def test_a_lease_that_is_none(lease: float) -> None:
    """A lease of no length is a configuration error that names it."""
    with pytest.raises(ConfigurationError, match="lease="):
        SQLiteLedger("a.db", lease=lease)
