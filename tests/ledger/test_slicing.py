from __future__ import annotations

import asyncio
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from subprocess import run
from typing import TYPE_CHECKING, Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.ledger.leased import Leased
from tests.ledger.words import hold, money, offer
from tests.redis_server import RedisServer, fresh_namespace, redis_server
from tierline.budgets import Line
from tierline.errors import ConfigurationError, LedgerUnavailableError
from tierline.ledger.base import Origin
from tierline.ledger.redis import RedisLedger
from tierline.store.redis import RedisStore
from tierline.testing import LedgerConformance
from tierline.values import Refusal
from tierline.windows import Window

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tierline.ledger import Ledger, Reservation

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """One server for the tests that leave it alone: each has a namespace of its own."""
    with redis_server() as server:
        yield server


class TestLeasedRedis(LedgerConformance):
    """The suite of every ledger, with slices taken as soon as calls come often."""

    drift = 2_000
    herd = 200
    examples = 10

    @pytest.fixture(autouse=True)
    def _server(self, server: RedisServer) -> None:
        self.url = server.url

    def open_ledger(self, clock: Callable[[], float], lease: float) -> Ledger:
        store = RedisStore(self.url, namespace=fresh_namespace(), timeout=5)
        return Leased(store, clock=clock, lease=lease, slices=0.05)

    def open_again(self, ledger: Ledger, clock: Callable[[], float], lease: float) -> Ledger:
        assert isinstance(ledger, RedisLedger)
        store = RedisStore(self.url, namespace=ledger.store.namespace, timeout=5)
        return Leased(store, clock=clock, lease=lease, slices=0.05)


def slices_of(url: str, namespace: str) -> dict[str, int]:
    """What each slice holds, by what is kept of it in the store."""
    with redis.Redis.from_url(url) as client:
        ids = [each.decode() for each in client.zrange(f"{{{namespace}}}:leases", 0, -1)]
        records = {each: json.loads(client.get(f"{{{namespace}}}:h:{each}")) for each in ids}
    return {each: int(kept["cost"]) for each, kept in records.items() if "idle" in kept}


# Several processes and a model of what they really do

LIMITS = {"all": 40_000, "day": 15_000, "hour": 9_000, "soft": 3_000}


def lines_of(tenant: str) -> list[Line]:
    """What calls of a tenant count on."""
    return [
        Line("all", "global", LIMITS["all"], Window("total"), True, 0.5, 0.9),
        Line("day", tenant, LIMITS["day"], Window("day"), True, 0.7, None),
        Line("hour", tenant, LIMITS["hour"], Window("rolling", seconds=3600)),
        Line("soft", tenant, LIMITS["soft"], Window("day"), hard=False),
    ]


@dataclass
class Charge:
    """What one call holds, or has come to, as whoever made it knows."""

    held: Reservation
    by: int
    deadline: float
    settled: int | None = None

    @property
    def amount(self) -> int:
        """What counts of it."""
        return self.held.cost if self.settled is None else self.settled


@dataclass
class Truth:
    """What really happened."""

    charges: dict[str, Charge] = field(default_factory=dict)

    def used(self, budget: str, account: str) -> int:
        """What calls hold and have spent, the dead's included."""
        return sum(
            charge.amount
            for charge in self.charges.values()
            if any((line.budget, line.account) == (budget, account) for line, _ in charge.held.lines)
        )


class Clock:
    """In the middle of a day and of a part of a rolling window."""

    def __init__(self) -> None:
        self.now = 20_700.0 * 86_400 + 40_003

    def __call__(self) -> float:
        return self.now


LEASE = 30.0


def play(url: str, examples: int) -> None:
    """Tell stories of processes that lease slices, report, are renewed, killed, and replaced."""

    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.runner = asyncio.Runner()
            self.clock = Clock()
            self.namespace = fresh_namespace()
            self.client = redis.Redis.from_url(url)
            self.truth = Truth()
            self.asked = 0
            self.estates: dict[str, int] = {}
            self.made = 0
            self.run(self.open())

        async def open(self) -> None:
            self.live = {number: self.process() for number in range(3)}
            self.made = 3

        def process(self) -> Leased:
            store = RedisStore(url, namespace=self.namespace, timeout=5)
            ledger = Leased(store, clock=self.clock, lease=LEASE, slices=0.2)
            assert ledger.slices is not None
            ledger.slices.wake = lambda _: None  # reports come where the story says so
            ledger.slices.hot = 1
            return ledger

        def run(self, work: Any) -> Any:
            return self.runner.get_loop().run_until_complete(work)

        def teardown(self) -> None:
            try:
                self.run(self.reckon())
                for ledger in self.live.values():
                    self.run(ledger.aclose())
            finally:
                self.client.close()
                self.runner.close()

        def any_process(self, data: Any) -> int:
            return data.draw(st.sampled_from(sorted(self.live)))

        async def while_others_report(self, asking: int, work: Any) -> Any:
            task = asyncio.ensure_future(work)
            await asyncio.wait((task,), timeout=0.02)
            while not task.done():
                for number, ledger in self.live.items():
                    if number != asking:
                        await ledger.slicing.round()
                await asyncio.wait((task,), timeout=0.02)
            return await task

        @rule(
            data=st.data(), tenant=st.sampled_from(["acme", "umbrella"]),
            costs=st.lists(st.integers(1, 30) | st.integers(1, 4_000), min_size=1, max_size=2), whole=st.booleans(),
            times=st.integers(1, 12) | st.just(60), reports=st.integers(1, 3) | st.just(90),
        )  # fmt: skip
        def call(self, data: Any, tenant: str, costs: list[int], times: int, reports: int, *, whole: bool) -> None:
            number = self.any_process(data)
            lines = lines_of(tenant) if whole else lines_of(tenant)[:2]
            for turn in range(times):
                if turn % reports == 1:
                    self.run(self.live[number].slicing.round())
                self.asked += 1
                key = f"k{self.asked}"
                offers = [offer(cost) for cost in sorted(costs, reverse=True)]
                asking = self.live[number].reserve(key, offers, lines, thresholds=False, origin=Origin(tenant, "/x"))
                found = self.run(self.while_others_report(number, asking))
                room = min(line.limit - self.truth.used(line.budget, line.account) for line in lines if line.hard)
                if isinstance(found, Refusal):
                    dead = sum(self.estates.values())
                    assert min(costs) > room - dead, f"a phantom refusal: {found}"
                    return
                assert found.cost <= room, "overshoot"
                if not found.leased:
                    dead = sum(self.estates.values())
                    best = next((each.cost for each in offers if each.cost <= room - dead), None)
                    assert best is None or found.cost >= best, "a dearer offer would have fitted"
                self.truth.charges[key] = Charge(found, number, self.clock.now + LEASE)

        @precondition(lambda self: any(charge.settled is None for charge in self.truth.charges.values()))
        @rule(data=st.data(), share=st.integers(0, 100), release=st.booleans(), many=st.integers(1, 5))
        def end(self, data: Any, share: int, many: int, *, release: bool) -> None:
            for _ in range(many):
                open_now = [
                    key
                    for key, charge in self.truth.charges.items()
                    if charge.settled is None and charge.by in self.live
                ]
                if not open_now:
                    return
                key = data.draw(st.sampled_from(open_now))
                charge = self.truth.charges[key]
                ledger = self.live[charge.by]
                if release:
                    assert self.run(ledger.release(key))
                    charge.settled = 0
                else:
                    cost = charge.held.cost * share // 100
                    assert self.run(ledger.settle(charge.held, cost))
                    assert not self.run(ledger.settle(charge.held, cost))
                    charge.settled = cost

        @rule(data=st.data())
        def report(self, data: Any) -> None:
            self.run(self.live[self.any_process(data)].slicing.round())

        @rule(data=st.data(), arrives=st.booleans())
        def report_in_vain(self, data: Any, *, arrives: bool) -> None:
            """The report of a process is lost, or the answer to it is."""
            ledger = self.live[self.any_process(data)]
            run = ledger.store.script

            async def unlucky(name: str, *rest: Any) -> Any:
                if arrives or name != "ledger/slice":
                    answer = await run(name, *rest)
                if name == "ledger/slice":
                    raise LedgerUnavailableError("nobody knows")
                return answer

            ledger.store.script = unlucky  # type: ignore[method-assign]
            with suppress(LedgerUnavailableError):
                self.run(ledger.slicing.round())
            ledger.store.script = run  # type: ignore[method-assign]

        @rule(by=st.sampled_from([0.5, 1, 5, 12]))
        def pass_time(self, by: float) -> None:
            """Everybody who lives renews what it has."""
            self.clock.now += by
            for number, ledger in self.live.items():
                mine = [
                    charge.held
                    for charge in self.truth.charges.values()
                    if charge.by == number and charge.settled is None
                ]
                self.run(ledger.renew(mine))
                self.run(ledger.slicing.round())

        @rule(data=st.data())
        def kill(self, data: Any) -> None:
            """A process is gone with all that it has not reported, and another comes."""
            number = self.any_process(data)
            ledger = self.live.pop(number)
            for found in ledger.slices.all():
                ledger.slices._drop(found)
            self.run(ledger.store.aclose())
            self.live[self.made] = self.process()
            self.made += 1
            slices = {found.id for each in self.live.values() for found in each.slices.all()}
            for name, size in slices_of(url, self.namespace).items():
                if name not in slices:
                    self.estates[name] = size

        @rule()
        def look(self) -> None:
            """What everybody sees is never less than what is so, and never more than the limits."""
            ledger = next(iter(self.live.values()))
            for each in self.run(ledger.balances()):
                if each.hard:
                    assert each.spent + each.held <= each.limit

        @invariant()
        def nothing_over(self) -> None:
            for tenant in ("acme", "umbrella"):
                for line in lines_of(tenant):
                    used = self.truth.used(line.budget, line.account)
                    assert not line.hard or used <= line.limit
                    assert used <= self.store_has(line), "calls came to more than was held for them"

        def store_has(self, line: Line) -> int:
            """What the store has spent and held of an account, slices whole."""
            name = json.dumps([line.budget, line.account, line.window.series], separators=(",", ":"))
            return int(self.client.hget(f"{{{self.namespace}}}:a:{name}", "U") or 0)

        async def reckon(self) -> None:
            """At rest everything is as it was: what was settled, and what the dead have left."""
            for charge in self.truth.charges.values():
                if charge.settled is None and charge.by in self.live:
                    assert await self.live[charge.by].settle(charge.held, 1)
                    charge.settled = 1
            for ledger in self.live.values():
                ledger.slices.close()
                await ledger.slicing.sync()
                assert ledger.slices.empty
            self.clock.now += 2 * LEASE
            ledger = next(iter(self.live.values()))
            found = {(each.budget, each.account): each for each in await ledger.balances()}
            assert await ledger.holds() == []
            for (budget, account), each in found.items():
                assert each.held == 0
                least = sum(
                    charge.settled
                    for charge in self.truth.charges.values()
                    if charge.by in self.live and charge.settled is not None
                    and any((line.budget, line.account) == (budget, account) for line, _ in charge.held.lines)
                )  # fmt: skip
                assert least <= each.spent
                if each.hard:
                    assert self.truth.used(budget, account) <= each.spent <= each.limit
                if self.made == 3:
                    assert each.spent == least, "nobody was killed: to the last nano-USD"
                    assert each.estimated == 0
            spent = sum(row.cost for row in await ledger.history(0))
            assert spent == (found["all", "global"].spent if found else 0)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


@pytest.mark.timeout(600)
def test_processes_that_lease(server: RedisServer) -> None:
    """Whatever several processes lease, report and leave behind: no overshoot, no phantom refusal, nothing lost."""
    play(server.url, examples=25)


# One process, or two, step by step

DAY = Line("day", "global", 10**9, Window("day"))
TENANT = Line("hour", "acme", 10**9, Window("hour"))
MOST = 10**9


class Steps:
    """Ledgers on one state, with a clock that is moved by hand. Reports are made where a test says so."""

    def __init__(self, url: str) -> None:
        self.url, self.namespace, self.clock = url, fresh_namespace(), Clock()
        self.made: list[Leased] = []
        self.numbers = count()

    def process(self, slices: float = 0.1, hot: int = 1) -> Leased:
        store = RedisStore(self.url, namespace=self.namespace, timeout=5)
        ledger = Leased(store, clock=self.clock, lease=LEASE, slices=slices)
        assert ledger.slices is not None
        ledger.slices.wake = lambda _: None
        ledger.slices.hot = hot
        self.made.append(ledger)
        return ledger

    async def hold(self, ledger: Leased, cost: int, *lines: Line, leased: bool | None = None) -> Reservation:
        found = await ledger.reserve(f"s{next(self.numbers)}", [offer(cost)], lines or (DAY, TENANT))
        assert not isinstance(found, Refusal), found
        assert leased is None or found.leased == leased
        return found

    async def lease(self, ledger: Leased, cost: int = 1_000, *lines: Line) -> None:
        """Have a slice, as after some calls."""
        for _ in range(3):
            await ledger.settle(await self.hold(ledger, cost, *lines), 0)
            await report(ledger)
        assert await ledger.settle(await self.hold(ledger, 0, *lines, leased=True), 0)


async def report(ledger: Leased) -> None:
    """What a process does every second."""
    await ledger.slicing.round()


async def sizes(ledger: Leased) -> list[int]:
    """What slices hold, by the store."""
    return list(slices_of(ledger.store._url, ledger.store.namespace).values())


@pytest.fixture
async def steps(server: RedisServer) -> AsyncIterator[Steps]:
    found = Steps(server.url)
    yield found
    for ledger in found.made:
        await ledger.aclose()


async def test_one_trip_in_fifty_calls(server: RedisServer, steps: Steps) -> None:
    """A busy process asks for the first calls, and then reports."""
    ledger = steps.process(hot=20)
    with server.client() as client:
        client.config_resetstat()
        leased = 0
        for number in range(1_000):
            held = await steps.hold(ledger, 1_000)
            leased += held.leased
            assert await ledger.settle(held, 10)
            if number % 100 == 99:
                await report(ledger)
        found = client.info("commandstats")
    trips = found["cmdstat_evalsha"]["calls"] + found["cmdstat_eval"]["calls"]
    assert leased == 900
    assert trips < 1_000 / 4, "two for each of the first hundred, and a few reports"
    assert await money(ledger) == {"day": (10_000, 0), "hour": (10_000, 0)}
    (row,) = await ledger.history(0)
    assert (row.attempts, row.cost, row.estimated) == (1_000, 10_000, 0)


async def used_up(steps: Steps, ledger: Leased, cost: int, *lines: Line) -> int:
    """What was held, in calls of `cost`, until the ledger had to be asked."""
    held = 0
    while ledger.slices.admit(f"u{next(steps.numbers)}", [offer(cost)], lines or (DAY, TENANT), thresholds=True):
        held += cost
    return held


async def test_a_slice_is_used_up(steps: Steps) -> None:
    """Calls in flight and what others came to are never more than the store holds; a report makes room again."""
    ledger = steps.process()
    await steps.lease(ledger)
    (size,) = await sizes(ledger)
    for _ in range(3):
        assert await ledger.settle(await steps.hold(ledger, 1_000, leased=True), 900)
    assert size - 2_700 - 1_000 < await used_up(steps, ledger, 1_000) <= size - 2_700
    await report(ledger)
    (size,) = await sizes(ledger)
    more = await used_up(steps, ledger, 1_000)
    assert 0 < more <= size


async def test_a_slice_while_a_report_is_in_doubt(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the ledger has asked it back in an answer that was lost, no more is admitted than the ledger holds."""
    one, two = steps.process(slices=0.5), steps.process()
    line = Line("b", "a", 1_000_000, Window("day"))
    await steps.lease(one, 10_000, line)
    (size,) = await sizes(one)
    spent = 0
    while spent < size * 3 // 4:
        assert await one.settle(await steps.hold(one, 10_000, line, leased=True), 10_000)
        spent += 10_000
    asked = asyncio.create_task(two.reserve("all", [offer(1_000_000 - spent)], [line]))
    await asyncio.sleep(0.1)
    run = one.store.script

    async def lost(name: str, *rest: Any) -> Any:
        await run(name, *rest)
        raise LedgerUnavailableError("nobody knows")

    monkeypatch.setattr(one.store, "script", lost)
    with pytest.raises(LedgerUnavailableError):
        await report(one)
    (left,) = await sizes(one)
    assert left < size
    assert await used_up(steps, one, 1_000, line) <= left
    monkeypatch.undo()
    assert isinstance(await asked, Refusal)


async def test_rows_are_those_of_the_calls(steps: Steps) -> None:
    """Spend by hour knows tenants, routes, tiers, own questions and estimates, though many calls are told at once."""
    ledger = steps.process()
    await steps.lease(ledger)
    made = []
    for tenant, tier, own, cost in (("acme", "haiku", False, 3), ("acme", "opus", False, 5), (None, "haiku", True, 7)):
        for number in range(3):
            held = await ledger.reserve(
                f"{tenant}{tier}{number}", [offer(1_000, tier)], [DAY, TENANT], origin=Origin(tenant, "/x", own)
            )
            assert not isinstance(held, Refusal)
            assert held.leased
            made.append((held, cost, number == 2))
    for held, cost, estimated in made:
        assert await ledger.settle(held, cost, estimated=estimated)
    rows = {(row.tenant, row.tier): row for row in await ledger.history(0) if row.route == "/x"}
    assert {name: (row.attempts, row.cost, row.own, row.estimated) for name, row in rows.items()} == {
        ("acme", "haiku"): (3, 9, 0, 3), ("acme", "opus"): (3, 15, 0, 5), (None, "haiku"): (0, 21, 21, 7),
    }  # fmt: skip


async def test_a_slice_counts_apart(steps: Steps) -> None:
    """What a slice holds idle is held for nobody's call: no threshold goes by it, and no balance shows it."""
    one, two = steps.process(slices=0.5), steps.process()
    line = Line("b", "a", 10**6, Window("day"), True, 0.7, 0.9)
    await steps.lease(one, 10_000, line)
    (size,) = await sizes(one)
    assert size > 100_000
    held = await two.reserve("other", [offer(5_000, "opus"), offer(1)], [line])
    assert not isinstance(held, Refusal)
    assert (held.offer.tier, held.used) == ("opus", (0,))
    assert await money(two) == {"b": (0, 5_000)}
    assert (await two.fullest(1)).balances[0].held == 5_000


async def test_a_threshold_is_no_later_for_a_slice(steps: Steps) -> None:
    """However calls are spread over processes with slices, a threshold moves them when it is reached."""
    ledgers = [steps.process(slices=0.3) for _ in range(3)]
    line = Line("b", "a", 100_000, Window("day"), True, 0.5, 0.8)
    spent = 0
    for number in range(400):
        ledger = ledgers[number % 3]
        held = await ledger.reserve(f"t{number}", [offer(300, "opus"), offer(250, "sonnet"), offer(100)], [line])
        if isinstance(held, Refusal):
            break
        expected = "opus" if spent < 50_000 else "sonnet" if spent < 80_000 else "haiku"
        # Others may have spent since this process was last told: at most what their slices held.
        assert held.offer.tier == expected or (held.leased and abs(spent - (50_000, 80_000)[spent > 60_000]) < 15_000)
        assert await ledger.settle(held, held.cost)
        spent += held.cost
        if number % 3 == 2:
            await asyncio.gather(*map(report, ledgers))
    assert 90_000 < spent <= 100_000


async def test_what_others_hold_idle_is_asked_back(steps: Steps) -> None:
    """A call that fits but for slices waits until they are given back, and is not refused, nor moved down."""
    one, two = steps.process(slices=0.5), steps.process()
    line = Line("b", "a", 1_000_000, Window("day"))
    await steps.lease(one, 10_000, line)
    asked = asyncio.create_task(two.reserve("all", [offer(1_000_000, "opus"), offer(1)], [line]))
    await asyncio.sleep(0.1)
    assert not asked.done()
    await report(one)
    await report(one)
    held = await asked
    assert not isinstance(held, Refusal)
    assert held.offer.tier == "opus"
    assert await sizes(one) == [] or await sizes(one) == [0]
    assert isinstance(await one.reserve("more", [offer(1)], [line]), Refusal)


async def test_only_what_is_in_the_way_is_given_back(server: RedisServer, steps: Steps) -> None:
    """To drop an account costs no report of slices that hold nothing of it, and takes none of them away."""
    ledger = steps.process()
    await steps.lease(ledger)
    other = Line("request", "req-1", 1_000_000, Window("total"))
    await ledger.settle(await steps.hold(ledger, 10, other, leased=False), 10)
    with server.client() as client:
        client.config_resetstat()
        await ledger.forget([other])
        found = client.info("commandstats")
    assert sum(found.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha")) == 1
    assert await ledger.settle(await steps.hold(ledger, 1, leased=True), 0)


async def test_who_does_not_give_back_is_waited_for_in_bounds(steps: Steps) -> None:
    """A process that says nothing holds what it holds until its lease ends: then it is spent."""
    one, two = steps.process(slices=0.5), steps.process()
    line = Line("b", "a", 1_000_000, Window("day"))
    await steps.lease(one, 10_000, line)
    (size,) = await sizes(one)
    found = await two.reserve("all", [offer(1_000_000)], [line])
    assert isinstance(found, Refusal)
    assert (found.spent, found.held) == (0, size)
    steps.clock.now += LEASE + 1
    (balance,) = await RedisLedger.balances(two)
    assert (balance.spent, balance.held, balance.estimated) == (size, 0, size)


async def test_a_slice_that_lapsed_is_put_right(steps: Steps) -> None:
    """A process that was away for longer than a lease says what its calls came to after all."""
    one, two = steps.process(), steps.process()
    await steps.lease(one)
    held = [await steps.hold(one, 1_000, leased=True) for _ in range(3)]
    assert await one.settle(held[0], 10)
    steps.clock.now += LEASE + 1
    (size,) = {each.spent for each in await RedisLedger.balances(two)}
    assert size > 3_000
    assert not (await steps.hold(one, 5)).leased, "its lease is over"
    assert await one.settle(held[1], 20)
    await report(one)  # learns that it has lapsed; one call is in flight, and nobody renews it
    await report(one)
    assert await one.settle(held[2], 30), "late, and taken all the same"
    await report(one)
    assert {(each.spent, each.held, each.estimated) for each in await two.balances()} == {(60, 5, 0)}
    assert sum(row.cost for row in await two.history(0)) == 60
    assert sum(row.attempts for row in await two.history(0)) == 7


async def test_a_call_that_nobody_renews(steps: Steps) -> None:
    """It is charged whole when its lease is over though its slice lives on, and a late settlement replaces that."""
    ledger = steps.process()
    await steps.lease(ledger)
    lost, kept = await steps.hold(ledger, 1_000, leased=True), await steps.hold(ledger, 500, leased=True)
    for _ in range(5):
        steps.clock.now += LEASE / 4
        await ledger.renew([kept])
        await ledger.settle(await steps.hold(ledger, 1, leased=True), 0)
        await report(ledger)
    assert await money(ledger) == {"day": (1_000, 500), "hour": (1_000, 500)}
    assert await ledger.settle(lost, 7)
    assert not await ledger.settle(lost, 8)
    assert await ledger.settle(kept, 2)
    assert {(each.spent, each.held, each.estimated) for each in await ledger.balances()} == {(9, 0, 0)}


async def test_a_window_ends(steps: Steps) -> None:
    """Near its end calls are asked for; what is settled later is charged to the window in which it was made."""
    steps.clock.now = DAY.window.span(steps.clock.now).until - 100
    ledger = steps.process()
    await steps.lease(ledger)
    held = await steps.hold(ledger, 1_000, leased=True)
    steps.clock.now += 99.5
    await ledger.renew([held])
    await report(ledger)
    await steps.hold(ledger, 1, leased=False)
    steps.clock.now += 1
    assert await ledger.settle(held, 1_000)
    fresh = await steps.hold(ledger, 5, leased=False)
    assert fresh.used == (0, 0)
    await report(ledger)
    assert await money(ledger) == {"day": (0, 5), "hour": (0, 5)}


async def test_a_limit_that_is_set(steps: Steps) -> None:
    """What a slice holds stays, also where a limit is lowered below it; with its next report it is given back."""
    one, two = steps.process(), steps.process()
    await steps.lease(one)
    await two.set_limit("day", None, 2_000)
    await report(one)
    found = await one.reserve("big", [offer(3_000)], [DAY, TENANT])
    assert isinstance(found, Refusal)
    assert found.limit == 2_000
    assert await sizes(one) in ([], [0])
    await one.set_limit("day", None, 10**9)
    steps.clock.now += 5
    await steps.lease(one)
    held = await steps.hold(one, 5_000, leased=True)
    assert held.lines[0][0].limit == 10**9


async def test_erased_names_do_not_come_back(steps: Steps) -> None:
    """What another process has yet to report of a name that was erased is reported without it."""
    one, two = steps.process(), steps.process()
    await steps.lease(one)
    held = await one.reserve("a", [offer(1_000)], [DAY, TENANT], origin=Origin("acme", "/x"))
    assert not isinstance(held, Refusal)
    assert held.leased
    await one.settle(held, 40)
    await two.erase("acme")
    await report(one)
    assert {row.tenant for row in await two.history(0) if row.cost} == {None}
    assert await money(two) == {"day": (40, 0)}


async def test_a_report_whose_answer_is_lost(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told again, as it was, and counts once."""
    ledger = steps.process()
    await steps.lease(ledger)
    held = await steps.hold(ledger, 1_000, leased=True)
    run = ledger.store.script
    lose = [False]

    async def unlucky(name: str, *rest: Any) -> Any:
        answer = await run(name, *rest)
        if name == "ledger/slice" and lose[0]:
            raise LedgerUnavailableError("the answer was lost")
        return answer

    monkeypatch.setattr(ledger.store, "script", unlucky)
    for cost, used in ((100, 100), (200, 300)):
        lose[0] = True
        assert await ledger.settle(held, cost)
        with pytest.raises(LedgerUnavailableError):
            await report(ledger)
        held = await steps.hold(ledger, 1_000, leased=True)
        assert held.used == (used, used)
        with pytest.raises(LedgerUnavailableError):
            await report(ledger)
        lose[0] = False
        await report(ledger)
    await ledger.settle(held, 0)
    assert await money(ledger) == {"day": (300, 0), "hour": (300, 0)}
    assert sum(row.attempts for row in await ledger.history(0)) == 7


async def test_data_that_are_lost_are_given_back(server: RedisServer, steps: Steps) -> None:
    """After a loss a process gives back its slices, and reports them as if nothing had been."""
    one, two = steps.process(), steps.process()
    await steps.lease(one)
    await two.ping()
    await one.ping()
    held = await steps.hold(one, 1_000, leased=True)
    await one.settle(held, 70)
    with server.client() as client:
        for key in client.keys(f"{one.store.prefix}*"):
            client.delete(key)
    with pytest.raises(LedgerUnavailableError):
        await report(one)
    waiting = {one, two}
    async with asyncio.timeout(10):
        while waiting:
            for each in tuple(waiting):
                with suppress(LedgerUnavailableError):
                    await each.ping()
                    waiting.discard(each)
            await asyncio.sleep(0.1)
    await report(one)
    await report(one)
    found = {(each.budget): each.spent for each in await two.balances()}
    assert found == {"day": 70, "hour": 70}


async def test_data_that_are_lost_and_confirmed(server: RedisServer, steps: Steps) -> None:
    """Where an operator goes on without them, what calls came to is charged all the same, once."""
    one = steps.process()
    await steps.lease(one)
    done, open_now = [await steps.hold(one, 1_000, leased=True) for _ in range(2)]
    await one.settle(done, 70, estimated=True)
    with server.client() as client:
        for key in client.keys(f"{one.store.prefix}*"):
            client.delete(key)
    await one.confirm()
    await report(one)
    await report(one)
    assert await one.settle(open_now, 5)
    await report(one)
    await report(one)
    assert {(each.spent, each.held, each.estimated) for each in await one.balances()} == {(75, 0, 70)}
    (row,) = await one.history(0)
    assert (row.cost, row.estimated, row.attempts) == (75, 70, 3)
    assert one.slices.empty


async def test_what_is_never_leased(steps: Steps) -> None:
    """Calls without budgets, without a bound, with an account twice, or near the end of a window are asked for."""
    ledger = steps.process()
    assert ledger.slices.admit("a", [offer(1)], [], thresholds=True) is None
    await steps.lease(ledger)
    assert ledger.slices.admit("b", [offer(None)], [DAY, TENANT], thresholds=True) is None
    for lines in ([DAY, DAY], [Line("m", "a", MOST, Window("rolling", seconds=60))]):
        for _ in range(3):
            await steps.hold(ledger, 1, *lines, leased=False)
            await report(ledger)
    asked = await steps.hold(ledger, 10**8)
    assert not asked.leased
    again = await ledger.reserve(asked.id, [offer(10**8)], [DAY, TENANT])
    assert again == asked


async def test_ids(steps: Steps) -> None:
    """One that is held here is the same reservation; one that has ended here holds nothing any more."""
    ledger = steps.process()
    await steps.lease(ledger)
    held = await ledger.reserve("a", [offer(10)], [DAY, TENANT])
    assert held.leased
    assert await ledger.reserve("a", [offer(99)], [DAY, TENANT]) == held
    assert not await ledger.post(held, 5)
    assert await ledger.release("a")
    assert not await ledger.release("a")
    assert not await ledger.post(held, 5)
    with pytest.raises(ValueError, match="ended"):
        await ledger.reserve("a", [offer(1)], [DAY, TENANT])
    assert not await ledger.release("never")
    with pytest.raises(ValueError, match="ended"):
        await ledger.reserve("never", [offer(1)], [DAY, TENANT])
    assert await money(ledger) == {"day": (0, 0), "hour": (0, 0)}


@pytest.mark.parametrize("share", [0, -0.1, 0.6, True, "0.1", float("nan")])
def test_shares_that_cannot_be(share: Any) -> None:
    """A share is named at start-up that cannot be one."""
    with pytest.raises(ConfigurationError, match="above 0 and at most"):
        RedisLedger("redis://localhost", slices=share)


async def test_a_task_reports_and_gives_back(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an app nobody has to do anything: slices are taken, reported, and given back when calls end."""
    monkeypatch.setattr("tierline.ledger.slicing.PERIOD", 0.02)
    store = RedisStore(server.url, namespace=fresh_namespace(), timeout=5)
    ledger = Leased(store, slices=0.1)
    leased = 0
    for number in range(300):
        held = await hold(ledger, f"{number}", 1_000, DAY, TENANT)
        leased += held.leased
        await asyncio.sleep(0.001)
        assert await ledger.settle(held, 10)
    assert leased > 200
    async with asyncio.timeout(10):
        while slices_of(server.url, store.namespace):  # noqa: ASYNC110  (a task gives them back)
            await asyncio.sleep(0.05)
    assert await money(ledger) == {"day": (3_000, 0), "hour": (3_000, 0)}
    assert ledger.slicing._watcher is None
    await ledger.aclose()


def test_loop_after_loop(server: RedisServer) -> None:
    """Threads with loops of their own share slices, and what one loop leaves another one reports."""
    ledger = Leased(RedisStore(server.url, namespace=fresh_namespace(), timeout=5), slices=0.1)

    async def spend(number: int) -> int:
        leased = 0
        for turn in range(200):
            held = await hold(ledger, f"{number}-{turn}", 1_000, DAY, TENANT)
            await asyncio.sleep(0)
            assert await ledger.settle(held, 1)
            leased += held.leased
        return leased

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda number: asyncio.run(spend(number)), range(4))) > 100
    assert asyncio.run(spend(9)) > 0
    found = asyncio.run(money(ledger))
    assert found == {"day": (1_000, 0), "hour": (1_000, 0)}


FORK = """
import asyncio, os, sys
from tests.ledger.test_slicing import DAY, TENANT, Leased, hold
from tierline.store.redis import RedisStore

ledger = Leased(RedisStore(sys.argv[1], namespace=sys.argv[2], timeout=5), slices=0.1)

async def spend(who):
    for number in range(200):
        held = await hold(ledger, f"{who}-{number}", 1_000, DAY, TENANT)
        await asyncio.sleep(0)
        await ledger.settle(held, 1)
    assert held.leased, who

loop = asyncio.new_event_loop()
loop.run_until_complete(spend("before"))
child = os.fork()
if child == 0:
    async def work():
        await spend("child")
        await ledger.aclose()
    asyncio.run(work())
    os._exit(0)
loop.run_until_complete(spend("parent"))
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the child failed"
loop.run_until_complete(spend("after"))
loop.run_until_complete(ledger.aclose())
loop.close()
"""


FORK_WITH_THE_LOCK = """
import os, signal
from tierline.ledger.slices import Slices

slices = Slices(0.1, 30.0, time=lambda: 0.0, version=str)
with slices._lock:  # as a thread of the parent may have it
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        slices.asked("a")
        slices.renew(["b"])
        assert not slices.release("c")
        assert slices.knows("c")
        assert slices.standing() == slices.all() == slices.tend() == []
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, "the child waits for ever"
"""


async def test_fork_while_a_thread_is_at_the_slices() -> None:
    """A child waits for no thread of its parent."""
    command = [sys.executable, "-W", "error", "-c", FORK_WITH_THE_LOCK]
    await asyncio.to_thread(run, command, check=True, timeout=60)


async def test_fork_with_slices(server: RedisServer) -> None:
    """A child has no part of its parent's slices, and takes its own."""
    namespace = fresh_namespace()
    command = [sys.executable, "-W", "error", "-c", FORK, server.url, namespace]
    await asyncio.to_thread(run, command, check=True, timeout=60, cwd=Path(__file__).parents[2])
    ledger = RedisLedger(RedisStore(server.url, namespace=namespace, timeout=2))
    assert await money(ledger) == {"day": (800, 0), "hour": (800, 0)}
    assert await ledger.holds() == []
    await ledger.aclose()
