"""The ledger goes away: who is refused, who passes, and that nothing is lost when it is back."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.ledger import words
from tests.ledger.switched import Switched, until
from tests.ledger.words import money, offer
from tierline import Budget
from tierline.errors import ConfigurationError, LedgerUnavailableError
from tierline.ledger import Origin, Reservation, allowance, outage, watcher
from tierline.ledger.journal import DiskJournal, MemoryJournal
from tierline.ledger.outage import LOCAL, GuardedLedger
from tierline.testing import LedgerConformance
from tierline.values import Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tierline.budgets import Line
    from tierline.ledger import Ledger

DOLLAR = 1_000_000_000
HARD = Budget("$1/day", downgrade_at=None, cheapest_at=None).line("global")
SOFT = Budget("$1/hour", name="soft", hard=False).line("global")


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "_INTERVAL", 0.01)


@pytest.fixture
def store() -> Switched:
    return Switched()


@pytest.fixture
async def closed(store: Switched) -> AsyncIterator[GuardedLedger]:
    guard = GuardedLedger(store)
    yield guard
    await guard.aclose()


@pytest.fixture
async def opened(store: Switched, tmp_path: Path) -> AsyncIterator[GuardedLedger]:
    guard = GuardedLedger(store, on_error="open", allowance=0.1, journal=DiskJournal(tmp_path / "journal.db"))
    yield guard
    await guard.aclose()


async def hold(ledger: GuardedLedger, key: str, cost: int, *lines: Line, **options: Any) -> Reservation:
    return await words.hold(ledger, key, cost, *(lines or (HARD,)), **options)


async def back(guard: GuardedLedger, store: Switched) -> None:
    """Switch the store on, and wait until all is told."""
    store.away = False
    await until(lambda: not guard.away)
    await until(lambda: _told(guard))


async def _told(guard: GuardedLedger) -> bool:
    return await guard.journal.next_due() is None


async def test_nothing_changes_while_it_is_there(closed: GuardedLedger, store: Switched) -> None:
    """A guard adds nothing of its own to a ledger that answers."""
    held = await hold(closed, "a", 5)
    assert not held.unasked
    assert held.id == "a"
    await closed.renew([held])
    assert await closed.settle(held, 3)
    assert not await closed.release("a")
    assert await money(store) == {HARD.budget: (3, 0)}
    assert store.asked == ["reserve", "renew", "settle", "release", "balances"]


async def test_closed_refuses_hard_lines_at_once(closed: GuardedLedger, store: Switched) -> None:
    """Under a hard budget nothing is held, and nobody waits for a ledger that is known to be away."""
    store.away = True
    for _ in range(3):
        with pytest.raises(LedgerUnavailableError, match="no route to host"):
            await hold(closed, "a", 5)
    assert store.asked.count("reserve") == 1
    assert closed.away
    await back(closed, store)
    assert await money(store) == {}
    await hold(closed, "b", 5)


@pytest.mark.parametrize("lines", [(), (SOFT,), (HARD.softened, SOFT)])
async def test_without_a_hard_line_calls_pass(closed: GuardedLedger, store: Switched, lines: tuple[Line, ...]) -> None:
    """What nothing refuses is held here, and the ledger is told what it cost when it is back."""
    store.away = True
    held = [(await closed.reserve(f"k{n}", [offer(2 * DOLLAR)], lines, origin=Origin("acme", "/x"))) for n in range(3)]
    for each in held:
        assert isinstance(each, Reservation)
        assert each.unasked
        assert each.id.endswith(LOCAL)
        await closed.settle(each, 7)
    await back(closed, store)
    assert set((await money(store)).values()) == ({(21, 0)} if lines else set())
    assert [(row.tenant, row.route, row.attempts, row.cost) for row in await store.history(0)] == [
        ("acme", "/x", 3, 21)
    ]


async def test_open_spends_its_allowance(opened: GuardedLedger, store: Switched) -> None:
    """Up to the share of the limit calls are held here, then they are refused for want of a ledger."""
    store.away = True
    held = [await hold(opened, f"k{n}", DOLLAR // 20) for n in range(2)]
    with pytest.raises(LedgerUnavailableError, match=r"'\$1/day' meanwhile is used up"):
        await hold(opened, "k2", 1)
    await opened.settle(held[0], 10)
    await opened.release(held[1].id)
    await hold(opened, "k3", DOLLAR // 20)
    assert held[0].unasked
    assert (held[0].lines[0][0].limit, held[0].remaining[0].remaining) == (DOLLAR, DOLLAR - DOLLAR // 20)
    store.away = False
    await until(lambda: not opened.away)
    assert await money(store) == {HARD.budget: (10, 0)}


async def test_open_spends_no_more_than_was_left(opened: GuardedLedger, store: Switched) -> None:
    """An account that was nearly full when it was last seen is not filled past its limit."""
    first = await hold(opened, "a", DOLLAR - 30)
    await opened.settle(first, DOLLAR - 30)
    store.away = True
    await hold(opened, "b", 20)
    with pytest.raises(LedgerUnavailableError, match="used up"):
        await hold(opened, "c", 20)
    found = await opened.reserve("d", [offer(31)], (HARD,))
    assert isinstance(found, Refusal)
    assert (found.limit, found.spent + found.held, found.needed) == (DOLLAR, DOLLAR - 30, 31)
    assert found.renews_in is not None


async def test_a_refusal_is_remembered(opened: GuardedLedger, store: Switched) -> None:
    """An account that was full when it was refused last gets no allowance."""
    other = await store.reserve("another worker", [offer(DOLLAR)], (HARD,))
    assert isinstance(other, Reservation)
    assert isinstance(await opened.reserve("a", [offer(1)], (HARD,)), Refusal)
    store.away = True
    assert isinstance(await opened.reserve("b", [offer(1)], (HARD,)), Refusal)


async def test_a_limit_that_was_set_holds(opened: GuardedLedger, store: Switched) -> None:
    """The share is one of the limit that held last, not of what the app says."""
    await store.set_limit(HARD.budget, None, 1000)
    await opened.release((await hold(opened, "a", 1)).id)
    store.away = True
    await hold(opened, "b", 99)
    with pytest.raises(LedgerUnavailableError):
        await hold(opened, "c", 2)


async def test_what_was_spent_in_an_outage_is_not_there_in_the_next(opened: GuardedLedger, store: Switched) -> None:
    """Several outages in a row do not spend what was left of an account several times."""
    first = await hold(opened, "a", DOLLAR - 30)
    await opened.settle(first, DOLLAR - 30)
    for key in "bc":
        store.away = True
        held = await hold(opened, key, 15)
        await opened.settle(held, 15)
        await back(opened, store)
    store.away = True
    assert isinstance(await opened.reserve("d", [offer(1)], (HARD,)), Refusal)
    assert opened.away


async def test_every_window_has_its_allowance() -> None:
    """What was left counts until its window ends, and each window of an outage has an allowance of its own."""
    now = [1_000.0]
    store = Switched(clock=lambda: now[0])
    guard = GuardedLedger(store, on_error="open", allowance=0.1, clock=lambda: now[0])
    await guard.settle(await hold(guard, "a", DOLLAR), DOLLAR)
    store.away = True
    assert isinstance(await guard.reserve("b", [offer(1)], (HARD,)), Refusal)
    for day in (1, 2):
        now[0] = 1_000.0 + day * 86_400
        await guard.settle(await hold(guard, f"{day}", DOLLAR // 10), DOLLAR // 10)
        with pytest.raises(LedgerUnavailableError):
            await hold(guard, f"{day} again", 1)
    await back(guard, store)
    assert await money(store) == {HARD.budget: (DOLLAR // 10, 0)}
    await guard.aclose()


async def test_rolling_windows_in_an_outage() -> None:
    """What a rolling window held when it was last seen counts for as long as any of it may."""
    now = [1_000.0]
    line = Budget("$1/1h rolling", downgrade_at=None, cheapest_at=None).line("global")
    store = Switched(clock=lambda: now[0])
    guard = GuardedLedger(store, on_error="open", allowance=0.1, clock=lambda: now[0])
    await guard.settle(await hold(guard, "a", DOLLAR, line), DOLLAR)
    store.away = True
    now[0] += 3_500
    assert isinstance(await guard.reserve("b", [offer(1)], (line,)), Refusal)
    now[0] += 200
    await hold(guard, "c", 1, line)
    await guard.aclose()


async def test_accounts_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch, store: Switched) -> None:
    """Names of tenants may come from anywhere: those seen longest ago are forgotten."""
    monkeypatch.setattr(allowance, "_MOST_SEEN", 2)
    guard = GuardedLedger(store, on_error="open", allowance=0.1)
    budget = Budget("$1/day", per="tenant")
    for name in "abc":
        await hold(guard, name, 5, budget.line(name))
    assert [account for _, account, _ in guard._seen._last] == ["b", "c"]
    await guard.aclose()


async def test_thresholds_hold_in_an_outage(opened: GuardedLedger, store: Switched) -> None:
    """A budget that was past its threshold still leaves the dearer tiers out, and so does an allowance."""
    line = Budget("$1/day", downgrade_at=0.5, cheapest_at=0.9).line("global")
    offers = [offer(30, "opus"), offer(20, "sonnet"), offer(10, "haiku")]
    store.away = True
    found = await opened.reserve("a", offers, (line,))
    assert isinstance(found, Reservation)
    assert (found.offer.tier, found.skipped) == ("opus", 0)
    await opened.settle(found, DOLLAR // 20)  # half of the allowance
    found = await opened.reserve("b", offers, (line,))
    assert isinstance(found, Reservation)
    assert (found.offer.tier, found.skipped, found.tight) == ("sonnet", 1, "$1/day")
    await opened.settle(found, 0)
    await back(opened, store)
    await opened.settle(await hold(opened, "c", DOLLAR * 9 // 10, line), DOLLAR * 9 // 10)
    store.away = True
    found = await opened.reserve("d", offers, (line,))
    assert isinstance(found, Reservation)
    assert (found.offer.tier, found.skipped, found.tight) == ("haiku", 2, "$1/day")


async def test_what_cannot_be_bounded_is_refused(opened: GuardedLedger, store: Switched) -> None:
    """An outage does not let a call pass that a hard budget never would."""
    store.away = True
    found = await opened.reserve("a", [offer(None)], (HARD,))
    assert isinstance(found, Refusal)
    assert found.unbounded


@pytest.mark.parametrize("mode", ["closed", "open"])
async def test_a_reservation_whose_answer_was_lost_holds_nothing(mode: Any, store: Switched) -> None:
    """A reserve that may have been done is released as soon as the ledger is back."""
    guard = GuardedLedger(store, on_error=mode)
    store.lost = {"reserve", "ping"}
    if mode == "closed":
        with pytest.raises(LedgerUnavailableError):
            await hold(guard, "a", 5)
    else:
        assert (await hold(guard, "a", 5)).id != "a"
    assert [found.id for found in await store.holds()] == ["a"]
    store.lost = set()
    await until(lambda: not guard.away)
    assert await store.holds() == []
    with pytest.raises(ValueError, match="has ended"):
        await store.reserve("a", [offer(5)], (HARD,))
    await guard.aclose()


async def test_settlements_arrive_late(closed: GuardedLedger, store: Switched) -> None:
    """What was held before the outage is settled and released after it, for what it came to."""
    held = [await hold(closed, f"k{n}", 100) for n in range(3)]
    store.away = True
    assert await closed.settle(held[0], 40)
    assert await closed.settle(held[1], 50, estimated=True)
    assert await closed.release(held[2].id)
    await closed.renew(held)
    await back(closed, store)
    assert [(b.spent, b.held, b.estimated) for b in await store.balances()] == [(90, 0, 50)]


async def test_the_first_ending_wins(opened: GuardedLedger, store: Switched) -> None:
    """While the ledger is away, too, what has ended stays ended."""
    there = await hold(opened, "a", 100)
    store.away = True
    here = await hold(opened, "b", 100)
    for held in (there, here):
        assert await opened.settle(held, 40)
        await opened.settle(held, 70)
        await opened.release(held.id)
    assert not await opened.settle(here, 70)
    assert not await opened.release(here.id)
    await back(opened, store)
    assert await money(store) == {HARD.budget: (80, 0)}


async def test_a_journal_that_cannot_be_written(
    closed: GuardedLedger, store: Switched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where what was told cannot be dropped, it is told again now and then, and not without end."""
    store.away = True
    await closed.settle(await hold(closed, "a", 5, SOFT), 3)
    with monkeypatch.context() as stuck:

        async def drop(_: Any) -> None:
            pass

        stuck.setattr(closed.journal, "drop", drop)
        store.away = False
        await until(lambda: not closed.away)
        assert await money(store) == {"soft": (3, 0)}
    await back(closed, store)
    assert await money(store) == {"soft": (3, 0)}


async def test_leases_that_lapsed_meanwhile_are_corrected(tmp_path: Path) -> None:
    """A hold that lapsed in the ledger while that was away is charged what it cost in the end."""
    now = [1_000.0]
    store = Switched(clock=lambda: now[0])
    guard = GuardedLedger(store, clock=lambda: now[0])
    held = await hold(guard, "a", 100)
    store.away = True
    await guard.settle(held, 40)
    now[0] += 100
    store.away = False
    assert await money(store) == {HARD.budget: (100, 0)}
    await back(guard, store)
    assert [(b.spent, b.held, b.estimated) for b in await store.balances()] == [(40, 0, 0)]
    await guard.aclose()


async def test_a_call_in_flight_when_the_ledger_is_back(opened: GuardedLedger, store: Switched) -> None:
    """What was held here is charged there when it ends, however late, and its lease is renewed until then."""
    store.away = True
    held = await hold(opened, "a", 100)
    store.away = False
    await until(lambda: not opened.away)
    before = await opened.journal.next_due()
    await opened.renew([held])
    after = await opened.journal.next_due()
    assert before is not None
    assert after is not None
    assert after > before
    assert await opened.settle(held, 60)
    await back(opened, store)
    assert await money(store) == {HARD.budget: (60, 0)}


async def test_accounts_are_forgotten_after_they_were_charged(closed: GuardedLedger, store: Switched) -> None:
    """The account of a request that ran in an outage does not stay behind."""
    line = Budget("$1", per="request", hard=False).line("req-1")
    store.away = True
    await closed.settle(await hold(closed, "a", 5, line, SOFT), 3)
    await closed.forget([line])
    await back(closed, store)
    assert await money(store) == {"soft": (3, 0)}


async def test_operators_are_told(closed: GuardedLedger, store: Switched, caplog: pytest.LogCaptureFixture) -> None:
    """Balances are not made up; the log says once that the ledger is away, and once that it is back."""
    changes: list[bool] = []
    closed._on_change = changes.append
    store.away = True
    with pytest.raises(LedgerUnavailableError, match="cannot be asked: no route"):
        await closed.balances()
    for ask in (
        closed.holds(), closed.history(0), closed.limits(), closed.set_limit("b", None, 1), closed.erase("x"),
        closed.ping(),
    ):  # fmt: skip
        with pytest.raises(LedgerUnavailableError, match="no route"):
            await ask
    await closed.settle(await hold(closed, "a", 5, SOFT), 3)
    await back(closed, store)
    assert await closed.holds() == []
    assert await closed.limits() == {}
    assert len(await closed.balances()) == 1
    assert len(await closed.history(0)) == 1
    await closed.ping()
    said = [r.getMessage() for r in caplog.records if r.name == "tierline" and r.levelno >= logging.WARNING]
    assert len(said) == 2
    assert said[0].startswith("the ledger cannot be asked: no route to host. Calls under a hard budget are refused")
    assert said[1].startswith("the ledger is back after")
    assert said[1].endswith("that it was told: 1")
    assert changes == [True, False]


async def test_open_is_ready_in_an_outage(opened: GuardedLedger, store: Switched) -> None:
    """Where calls can be served without the ledger, a readiness probe finds nothing wrong."""
    store.away = True
    await opened.ping()
    await opened.ping()
    assert opened.away


async def test_confirm(closed: GuardedLedger, store: Switched) -> None:
    """After the operator's word the ledger is told what it was not told, and calls pass at once."""
    store.away = True
    await closed.settle(await hold(closed, "a", 5, SOFT), 3)
    await closed.confirm()
    assert store.confirmed == 1
    assert await money(store) == {"soft": (3, 0)}
    await hold(closed, "b", 5)


async def test_cancelled_while_it_is_written(opened: GuardedLedger, store: Switched) -> None:
    """A caller that is cancelled releases the id that it asked for, and nothing is charged."""
    store.away = True
    await opened.reserve("first", [offer(1)], ())
    task = asyncio.create_task(hold(opened, "a", 50))
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await opened.release("a")
    assert (await hold(opened, "b", DOLLAR // 10)).used == (0,)
    await opened.release("b")
    await opened.release("first")
    await back(opened, store)
    assert await money(store) == {}


async def test_a_delivery_that_breaks_off(closed: GuardedLedger, store: Switched) -> None:
    """Where the ledger goes away again in the middle, the rest is told later and nothing twice."""
    held = [await hold(closed, f"k{n}", 10) for n in range(40)]
    store.away = True
    for each in held:
        await closed.settle(each, 3)
    store.away, store.lost = False, {"settle"}
    await until(lambda: "settle" in store.asked[-40:])
    assert closed.away
    store.lost = set()
    await back(closed, store)
    assert await money(store) == {HARD.budget: (120, 0)}


async def test_an_entry_that_cannot_be_told(
    opened: GuardedLedger, store: Switched, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """What the ledger rejects as a mistake is said in the log, stays in the file, and holds up nothing else."""
    first, second = await hold(opened, "a", 10), await hold(opened, "b", 10)
    store.away = True
    with pytest.raises(ValueError, match="whole number"):
        await opened.settle(first, -1)
    await opened.settle(first, 3)
    await opened.settle(second, 4)
    settle = store.settle

    async def picky(held: Reservation, cost: int, **options: Any) -> bool:
        if held.id == "a":
            raise ValueError("no")
        return await settle(held, cost, **options)

    store.settle = picky  # type: ignore[method-assign]
    await back(opened, store)
    await opened.aclose()
    with closing(sqlite3.connect(tmp_path / "journal.db")) as file:
        assert file.execute("SELECT key FROM entries").fetchall() == [("a",)]
    assert await money(store) == {HARD.budget: (4, 10)}
    assert any("cannot be told: ValueError a" in r.getMessage() for r in caplog.records)


def test_loops_come_and_go(store: Switched) -> None:
    """The loop that looked for the ledger may be closed: the next one that calls looks on."""
    guard = GuardedLedger(store)
    store.away = True

    async def call(key: str) -> None:
        await guard.settle(await hold(guard, key, 5, SOFT), 3)

    asyncio.run(call("a"))
    asyncio.run(call("b"))
    store.away = False

    async def wait() -> None:
        await call("c")
        await back(guard, store)
        await hold(guard, "d", 5)
        await guard.aclose()

    asyncio.run(wait())
    assert asyncio.run(money(store)) == {"soft": (9, 0), HARD.budget: (0, 5)}


def test_threads(store: Switched) -> None:
    """Several threads with loops of their own find the outage, spend, and lose nothing."""
    guard = GuardedLedger(store)
    store.away = True

    async def calls(name: int) -> None:
        for n in range(20):
            await guard.settle(await hold(guard, f"{name}.{n}", 5, SOFT), 3)
            await asyncio.sleep(0.001)
            if name == 0 and n == 10:
                store.away = False
        await back(guard, store)
        await guard.aclose()

    threads = [threading.Thread(target=lambda name=name: asyncio.run(calls(name))) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asyncio.run(money(store)) == {"soft": (240, 0)}


def test_fork(store: Switched) -> None:
    """A child that is forked in an outage looks for the ledger itself, and leaves what its parent spent to that."""
    guard = GuardedLedger(store)

    async def outage() -> None:
        store.away = True
        await guard.settle(await hold(guard, "parent", 5, SOFT), 3)

    async def afterwards(key: str) -> dict[str, tuple[int, int]]:
        await guard.settle(await hold(guard, key, 5, SOFT), 4)
        await back(guard, store)
        await guard.aclose()
        return await money(store)

    asyncio.run(outage())
    child = os.fork()
    if not child:
        try:
            os._exit(0 if asyncio.run(afterwards("child")) == {"soft": (4, 0)} else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert asyncio.run(afterwards("again")) == {"soft": (7, 0)}


async def test_closing_leaves_no_task(store: Switched, caplog: pytest.LogCaptureFixture) -> None:
    """At the end a last delivery is tried; what cannot be told is said in the log; the guard may be used again."""
    guard = GuardedLedger(store, owned=True)
    store.away = True
    await guard.settle(await hold(guard, "a", 5, SOFT), 3)
    await guard.aclose()
    assert store.closed == 1
    assert len(asyncio.all_tasks()) == 1
    assert "was not told all that was spent" in caplog.text
    await guard.settle(await hold(guard, "b", 5, SOFT), 4)
    store.away = False
    await guard.aclose()
    assert await money(store) == {"soft": (7, 0)}
    assert len(asyncio.all_tasks()) == 1


async def test_a_watch_that_is_deaf(closed: GuardedLedger, store: Switched, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task on a loop that nobody runs any more is replaced, though it is neither done nor closed."""
    store.away = True
    loop = asyncio.new_event_loop()
    thread = threading.Thread(
        target=lambda: loop.run_until_complete(closed.settle(Reservation("x", offer(1), 1, ()), 1))
    )
    thread.start()
    thread.join()
    stuck = closed._watcher
    assert stuck is not None
    assert stuck.alive
    monkeypatch.setattr(watcher, "_DEAF", 0.0)
    time.sleep(0.001)  # noqa: ASYNC251  (so that time has passed)
    await closed.release("a")
    monkeypatch.setattr(watcher, "_DEAF", 15.0)
    assert closed._watcher is not stuck
    await back(closed, store)
    stuck.task.cancel()
    await asyncio.to_thread(loop.run_until_complete, asyncio.gather(stuck.task, return_exceptions=True))
    loop.close()


async def test_what_a_dead_process_left(tmp_path: Path) -> None:
    """A hold of a process that died in the outage is charged as estimated, by the next that has its journal."""
    now = [1_000.0]
    store = Switched(clock=lambda: now[0])
    path = tmp_path / "journal.db"
    dead = GuardedLedger(store, on_error="open", journal=DiskJournal(path), clock=lambda: now[0])
    store.away = True
    settled = await hold(dead, "a", 50)
    await dead.settle(settled, 20)
    await hold(dead, "b", 70)
    assert dead._watcher is not None
    dead._watcher.task.cancel()  # it is dead
    await dead.journal.aclose()

    store.away = False
    heir = GuardedLedger(store, on_error="open", journal=DiskJournal(path), clock=lambda: now[0])
    await heir.start()
    await until(lambda: HARD.budget in {name for name, *_ in store._accounts})
    assert await money(store) == {HARD.budget: (20, 0)}
    now[0] += 31
    heir._watch()
    await back(heir, store)
    assert [(b.spent, b.held, b.estimated) for b in await store.balances()] == [(90, 0, 70)]
    await heir.aclose()


@pytest.mark.parametrize(
    "options",
    [
        {"on_error": "ajar"}, {"on_error": None}, {"allowance": 0}, {"allowance": 1.1}, {"allowance": True},
        {"allowance": "5%"}, {"allowance": float("nan")},
    ],
)  # fmt: skip
def test_options_that_cannot_be(store: Switched, options: Any) -> None:
    """A mistake in the options is told at once."""
    with pytest.raises(ConfigurationError, match=next(iter(options)).replace("on_error", "on_ledger_error")):
        GuardedLedger(store, **options)


async def test_alerts_pass(closed: GuardedLedger, store: Switched) -> None:
    """Who watches the guard is told what the ledger tells."""
    told: list[Any] = []
    closed.watch(told.append)
    await closed.settle(await hold(closed, "a", DOLLAR), DOLLAR)
    assert [alert.share for alert in told] == [0.8, 1.0]
    await closed.post(Reservation("p", offer(5), 5, (await hold(closed, "b", 1, SOFT)).lines), 5)
    assert (await money(store))["soft"] == (5, 1)


class TestGuarded(LedgerConformance):
    """A guard is a ledger as any other while the one behind it is there."""

    drift = 1_000
    examples = 10

    def open_ledger(self, clock: Callable[[], float], lease: float) -> Ledger:
        return GuardedLedger(Switched(clock=clock, lease=lease), clock=clock)

    def open_again(self, ledger: Ledger, clock: Callable[[], float], lease: float) -> Ledger:
        return ledger


def test_memory_is_the_default(store: Switched) -> None:
    """Without a journal a guard keeps its own in memory."""
    assert isinstance(GuardedLedger(store).journal, MemoryJournal)
