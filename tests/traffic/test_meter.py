"""What a process has seen, on its way to the store: nothing is lost, nothing counts twice, and no call waits."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tierline.errors import ConfigurationError, LedgerUnavailableError
from tierline.ledger.base import Origin, Reservation
from tierline.report import NO_ROUTE, NO_TENANT, OTHER
from tierline.traffic import meter as meters
from tierline.traffic.base import BreakerStanding, Counts, Traffic
from tierline.traffic.memory import MemoryTraffic
from tierline.traffic.meter import Meter
from tierline.traffic.reading import Reading
from tierline.traffic.store import DAY, HOUR, KEPT, Beat, Record, Row
from tierline.values import Attempt, Decision, Offer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tierline.traffic.store import Found, Span

NOW = 1_795_305_600.0 + 1_800
HERE = int(NOW // HOUR) * HOUR


class Flaky(MemoryTraffic):
    """A store that is away, or whose answers are lost, for as long as it is told."""

    def __init__(self) -> None:
        super().__init__(clock=lambda: NOW)
        self.away = self.deaf = 0
        self.calls: list[int] = []

    async def add(self, beat: Beat, number: int, rows: Sequence[Row], records: Sequence[Record]) -> None:
        self.calls.append(number)
        if self.away:
            raise LedgerUnavailableError("away")
        await super().add(beat, number, rows, records)
        if self.deaf:
            raise LedgerUnavailableError("no answer")


@pytest.fixture
def store() -> Flaky:
    return Flaky()


@pytest.fixture
def meter(store: Flaky) -> Meter:
    return Meter(store, now=lambda: NOW)


def held(cost: int = 5, tier: str = "haiku", at: float = NOW, **origin: Any) -> Reservation:
    return Reservation("r", Offer(tier, tier, cost), cost, (), at=at, origin=Origin(**origin))


def decision(name: str = "d", **more: Any) -> Decision:
    return Decision(name, "haiku", "h", "haiku", "simple", 1.0, "claude", settled=True, **more)


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110  (nothing tells of it)
            await asyncio.sleep(0.001)


async def told(store: Flaky, most: int = 50) -> Traffic:
    reading = Reading(store, ("haiku", "opus"), lambda: NOW)
    return await reading.traffic(NOW - 5 * HOUR, NOW, most)


async def test_where_money_is_booked(meter: Meter, store: Flaky) -> None:
    """Each attempt counts at its own tier, for its route and tenant, in the hour in which it was reserved."""
    meter.spent(held(at=NOW - HOUR, tenant="acme", route="/a"), 7, estimated=False)
    meter.spent(held(tier="opus", own=True), 11, estimated=True)
    await meter.flush()
    found = await told(store)
    assert [(hour, list(tiers)) for hour, tiers in found.hours] == [(HERE - HOUR, ["haiku"]), (HERE, ["opus"])]
    assert found.by_tier["opus"] == Counts(cost=11, own=11, estimated=11, top=11)
    assert found.by_account == {NO_TENANT: found.by_tier["opus"], "acme": Counts(cost=7, top=7)}
    assert list(found.by_route) == [NO_ROUTE, "/a"]
    assert found.total.saved == 0


async def test_what_is_counted_of_a_call(meter: Meter, store: Flaky) -> None:
    """Calls where something was sent, refusals where nothing was; and what all of it came to, for a job."""
    attempts = tuple(Attempt("haiku", "h", role, "ok", cost=4, estimated=role == "first")  # type: ignore[arg-type]
                     for role in ("first", "fallback", "escalation"))  # fmt: skip
    one = decision(
        attempts=attempts, cost=15, classifier_cost=2, grading_cost=1, saved=100, tenant="a/b", run="nightly"
    )
    meter.ended(one, "ok", sent=True, failed=False, downgraded=True)
    meter.ended(decision("e", tenant="a/b"), "refused", sent=False, failed=True, downgraded=True)
    meter.ended(decision("f"), "overloaded_error", sent=True, failed=True, downgraded=False)
    meter.refused("haiku", None, "a/b")
    meter.looked_up("haiku", None, None, hit=True)
    meter.looked_up("haiku", None, None, hit=False)
    await meter.flush()
    found = await told(store)
    assert found.total == Counts(
        calls=2, top=100, lookups=2, hits=1, downgrades=1, escalations=1, fallbacks=1, refusals=2, failures=1
    )
    job = Counts(calls=1, cost=15, own=3, estimated=4, top=115, downgrades=1, escalations=1, fallbacks=1)
    assert found.by_job == {"a~1b/nightly": job}
    records = [json.loads(text) for text in await store.decisions(5, None)]
    assert [(each["id"], each["outcome"], each["worker"]) for each in records] == [
        ("f", "overloaded_error", meter.worker), ("e", "refused", meter.worker), ("d", "ok", meter.worker)
    ]  # fmt: skip


async def test_a_store_that_is_away(meter: Meter, store: Flaky) -> None:
    """What it does not take waits, added up, and counts once, also where only the answer was lost."""
    meter.spent(held(), 1, estimated=False)
    store.deaf = 1
    with pytest.raises(LedgerUnavailableError):
        await meter.flush()
    store.deaf, store.away = 0, 1
    for _ in range(3):
        meter.spent(held(), 10, estimated=False)
        with pytest.raises(LedgerUnavailableError):
            await meter.flush()
    store.away = 0
    await meter.flush()
    await meter.flush()
    assert (await told(store)).total.cost == 31
    assert store.calls == [1, 1, 1, 1, 1, 2, 0], "one batch waits, and what comes after it is one more"


async def test_many_rows_are_many_steps(meter: Meter, store: Flaky) -> None:
    """No step is long: the store has others to answer meanwhile. Each counts once, whichever of them fails."""
    for number in range(250):
        meter.spent(held(tenant=f"t{number}"), 1, estimated=False)
    store.deaf = 1
    for _ in range(3):
        with pytest.raises(LedgerUnavailableError):
            await meter.flush()
    store.deaf = 0
    await meter.flush()
    found = await told(store, 1_000)
    assert (found.total.cost, found.accounts, len(found.by_account)) == (250, 250, 250)
    assert store.calls == [1, 1, 1, 1, 2, 3]


async def test_what_waits_is_bounded(meter: Meter, store: Flaky, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that anybody may make up, and decisions, are so many at most; sums are whole all the same."""
    monkeypatch.setattr(meters, "MOST_CELLS", 10)
    for number in range(100):
        meter.spent(held(tenant=f"t{number}"), 1, estimated=False)
        meter.ended(decision(f"{number}", run=f"r{number}"), "ok", sent=True, failed=False, downgraded=False)
    assert len(meter._cells) <= 11
    assert len(meter._jobs) <= 11
    await meter.flush()
    found = await told(store)
    assert (found.total.cost, found.total.calls) == (100, 100)
    assert found.by_account[OTHER].cost > 80
    assert sum(each.calls for each in found.by_job.values()) == 100
    assert len(await store.decisions(500, None)) == meters.MOST_RECORDS
    assert json.loads((await store.decisions(1, None))[0])["id"] in {f"{n}" for n in range(50, 100)}


async def test_one_writes_at_a_time(meter: Meter, store: Flaky) -> None:
    """However many ask at once, and on whatever loop: numbers come in order."""
    meter.spent(held(), 1, estimated=False)
    await asyncio.gather(*(meter.flush() for _ in range(5)), asyncio.to_thread(lambda: asyncio.run(meter.flush())))
    assert (await told(store)).total.cost == 1
    assert sorted(store.calls) == [0] * 5 + [1]


def test_a_loop_that_stands_still(store: Flaky, meter: Meter) -> None:
    """It keeps nobody from writing; and when it goes on, nothing is lost and nothing counts twice."""
    standing, slow = asyncio.new_event_loop(), store.add

    async def add(*given: Any) -> None:
        await asyncio.sleep(0.05 if asyncio.get_running_loop() is standing else 0)
        await slow(*given)

    store.add = add  # type: ignore[method-assign]

    async def begin() -> asyncio.Task[None]:
        meter.spent(held(), 1, estimated=False)
        task = asyncio.create_task(meter.flush())
        await asyncio.sleep(0.01)
        return task

    async def other() -> None:
        meter.spent(held(), 10, estimated=False)
        async with asyncio.timeout(20):
            await meter.flush()

    task = standing.run_until_complete(begin())
    asyncio.run(other())
    standing.run_until_complete(task)
    standing.close()
    asyncio.run(other())
    assert asyncio.run(told(store)).total.cost == 21


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_who_is_gone_gives_nothing_back(meter: Meter, store: Flaky, monkeypatch: pytest.MonkeyPatch) -> None:
    """What wrote on a loop that is closed may end late: it lets nobody in beside who writes now."""
    monkeypatch.setattr(store, "add", lambda *_: asyncio.Event().wait())
    closed = asyncio.new_event_loop()
    gone: list[asyncio.Task[None]] = []

    async def begin() -> None:
        gone.append(asyncio.create_task(meter.flush()))
        await asyncio.sleep(0.01)

    async def write() -> None:
        writing = asyncio.create_task(meter.flush())
        await until(lambda: meter._sender is writing)
        gone.clear()
        gc.collect()
        assert meter._sender is writing
        writing.cancel()
        await asyncio.wait((writing,))
        assert meter._sender is None

    meter.spent(held(), 1, estimated=False)
    closed.run_until_complete(begin())
    closed.close()
    asyncio.run(write())


async def test_rounds_do_not_pile_up(meter: Meter, store: Flaky, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the store takes longer than they come, the next waits for the last."""
    monkeypatch.setattr(meters, "SOON", 0.001)
    monkeypatch.setattr(meters, "BEAT", 0.001)
    begun, gate = 0, asyncio.Event()

    async def add(*_: Any) -> None:
        nonlocal begun
        begun += 1
        await gate.wait()

    monkeypatch.setattr(store, "add", add)
    meter.begin_beating()
    for _ in range(20):
        meter.spent(held(), 1, estimated=False)
        await asyncio.sleep(0.002)
    assert (begun, len(meter._tasks)) == (1, 1)
    gate.set()
    await meter.close(5)


async def test_texts_are_bounded(meter: Meter, store: Flaky) -> None:
    """A tenant or a model may be what somebody outside has sent: a record has so much of it, and no more."""
    long = "x" * 100_000
    sent = (Attempt(long, long, "first", "ok"),)
    one = decision(tenant=long, route=long, reasons=(long,), tags={long: long}, attempts=sent)
    meter.ended(one, "ok", sent=True, failed=False, downgraded=False)
    await meter.flush()
    [text] = await store.decisions(5, None)
    assert len(text) < 8 * meters.LONGEST
    assert json.loads(text)["tenant"] == "x" * meters.LONGEST


async def test_it_is_written_behind(meter: Meter, store: Flaky, monkeypatch: pytest.MonkeyPatch) -> None:
    """About a second after the first thing that happened, by itself; a process with an app says that it is alive."""
    monkeypatch.setattr(meters, "SOON", 0.0)
    monkeypatch.setattr(meters, "BEAT", 0.01)
    meter.spent(held(), 1, estimated=False)
    await until(lambda: store.calls)
    assert store.calls == [1]
    meter.begin_beating()
    meter.begin_beating()
    await until(lambda: len(store.calls) >= 4)
    assert (await told(store)).workers[0].id == meter.worker
    await meter.close(1)
    assert not meter._beats
    assert not meter._timers


async def test_a_store_that_is_known_to_be_away_is_left_alone(store: Flaky, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of it; what happens meanwhile is written at its return, and at the latest at the end."""
    away = True
    monkeypatch.setattr(meters, "SOON", 0.0)
    monkeypatch.setattr(meters, "RETRY", 0.0)
    meter = Meter(store, now=lambda: NOW, away=lambda: away)
    meter.spent(held(), 1, estimated=False)
    for _ in range(10):
        await asyncio.sleep(0)
    assert store.calls == []
    away = False
    await until(lambda: store.calls)
    meter.spent(held(), 1, estimated=False)
    await meter.close(0)
    assert (await told(store)).total.cost == 2


async def test_the_end(meter: Meter, store: Flaky) -> None:
    """A store that is away at the end keeps nobody; one that is there gets the rest."""
    meter.spent(held(), 1, estimated=False)
    store.away = 1
    await meter.close(0)
    store.away = 0
    await meter.close(0)
    assert (await told(store)).total.cost == 1
    await meter.close(0)
    assert store.calls == [1, 1], "and nothing is said of one that has nothing to say"


async def test_breakers(store: Flaky) -> None:
    """What a process says of itself with everything that it writes."""
    meter = Meter(store, now=lambda: NOW, breakers=lambda me: (BreakerStanding(me, "h", "e", "open", NOW + 5),))
    await meter.flush()
    assert [(each.worker, each.model) for each in (await told(store)).breakers] == [(meter.worker, "h")]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_has_none_of_its_parents(meter: Meter) -> None:
    """What waits in a parent is the parent's to write; the child is another worker."""
    meter.spent(held(), 1, estimated=False)
    before = meter.worker
    pid = os.fork()
    if not pid:
        fine = not meter._cells and not meter._timers and meter.worker != before
        os.kill(os.getpid(), signal.SIGKILL if fine else signal.SIGTERM)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert meter._cells
    assert meter.worker == before


async def test_what_cannot_be_asked(store: Flaky) -> None:
    """A number that makes no sense is an error that says what to write."""
    reading = Reading(store, (), lambda: NOW)
    for most in (-1, 1_001, True, "5"):
        with pytest.raises(ConfigurationError, match="from 0 to 1000"):
            await reading.traffic(NOW, NOW, most)  # type: ignore[arg-type]
    for most in (0, 501, None):
        with pytest.raises(ConfigurationError, match="from 1 to 500"):
            await reading.decisions(most, None)  # type: ignore[arg-type]


async def test_the_store_is_asked_for_no_more_than_it_has(store: Flaky, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked for: hours before those that are kept, or to come, are not looked for one by one."""
    seen: list[Span] = []
    read = store.read

    async def looked(span: Span, most: int) -> Found:
        seen.append(span)
        return await read(span, most)

    monkeypatch.setattr(store, "read", looked)
    await store.add(Beat("me", NOW), 1, [Row("tier", hour, "haiku", Counts(1)) for hour in (HERE - KEPT, HERE)], ())
    reading = Reading(store, (), lambda: NOW)
    for most in (0, 50):
        assert (await reading.traffic(0.0, 1e11, most)).total.calls == 2
    assert (await reading.traffic(0.0, 1.0, 0)).total.calls == 0
    assert all(span.until - span.since < KEPT + 20 * DAY for span in seen)


async def test_the_rest_is_told_as_one(store: Flaky) -> None:
    """Names beyond those that are asked for are `(other)`, and everything adds up."""
    await store.add(Beat("me", NOW), 1, [Row("account", HERE, f"t{n}", Counts(1, n)) for n in range(10)], ())
    found = await told(store, 2)
    assert found.by_account == {"t9": Counts(1, 9), "t8": Counts(1, 8), OTHER: Counts(8, sum(range(8)))}
    assert found.accounts == 10


def test_the_table() -> None:
    """It says what there was, in columns; of nothing it says so."""
    counts = Counts(calls=3, cost=1_500_000_000, top=6_000_000_000, lookups=4, hits=1)
    text = str(Traffic(NOW - HOUR, NOW, counts, by_tier={"haiku": counts}, by_route={"/a": counts}))
    assert "traffic from 2026-11-21 23:30:00 UTC to 2026-11-22 00:30:00 UTC" in text
    assert "verdict cache: 1 hits of 4 (25%)" in text
    assert "saved $4.50" in text
    assert str(Traffic(NOW, NOW)).endswith("none was recorded")
    assert counts.plus(counts).minus(counts) == counts
