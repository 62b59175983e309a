from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.ledger.words import offer
from tests.redis_server import RedisServer, fresh_namespace, redis_server
from tierline.budgets import Line
from tierline.ledger.base import NOWHERE, Origin
from tierline.ledger.redis import RedisLedger
from tierline.store.redis import RedisStore
from tierline.testing import LedgerConformance
from tierline.values import Refusal
from tierline.windows import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tierline.ledger import Ledger, Reservation
    from tierline.values import Offer

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """One server for the tests that leave it alone: each has a namespace of its own."""
    with redis_server() as server:
        yield server


class Leased(RedisLedger):
    """A ledger that is used as a Router does: out of a slice where there is one."""

    async def reserve(
        self, key: str, offers: Sequence[Offer], lines: Sequence[Line], *, thresholds: bool = True,
        origin: Origin = NOWHERE,
    ) -> Reservation | Refusal:  # fmt: skip
        assert self.slices is not None
        held = self.slices.admit(key, offers, lines, thresholds=thresholds, origin=origin)
        if held is not None:
            return held
        return await super().reserve(key, offers, lines, thresholds=thresholds, origin=origin)


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
            self.truth = Truth()
            self.asked = 0
            self.estates: dict[str, tuple[int, int]] = {}
            self.made = 0
            self.run(self.open())

        async def open(self) -> None:
            self.live = {number: self.process() for number in range(3)}
            self.made = 3

        def process(self) -> Leased:
            store = RedisStore(url, namespace=self.namespace, timeout=5)
            ledger = Leased(store, clock=self.clock, lease=LEASE, slices=0.2)
            assert ledger.slices is not None
            ledger.slices.wake = lambda: None  # reports come where the story says so
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
                self.runner.close()

        def any_process(self, data: Any) -> int:
            return data.draw(st.sampled_from(sorted(self.live)))

        async def while_others_report(self, asking: int, work: Any) -> Any:
            task = asyncio.ensure_future(work)
            await asyncio.wait((task,), timeout=0.02)
            while not task.done():
                for number, ledger in self.live.items():
                    if number != asking:
                        await ledger._slicing.round()
                await asyncio.wait((task,), timeout=0.02)
            return await task

        @rule(
            data=st.data(), tenant=st.sampled_from(["acme", "umbrella"]),
            costs=st.lists(st.integers(1, 30) | st.integers(1, 4_000), min_size=1, max_size=2), whole=st.booleans(),
            times=st.integers(1, 12), reports=st.integers(1, 3),
        )  # fmt: skip
        def call(self, data: Any, tenant: str, costs: list[int], times: int, reports: int, *, whole: bool) -> None:
            number = self.any_process(data)
            lines = lines_of(tenant) if whole else lines_of(tenant)[:2]
            for turn in range(times):
                if turn % reports == 1:
                    self.run(self.live[number]._slicing.round())
                self.asked += 1
                key = f"k{self.asked}"
                offers = [offer(cost) for cost in sorted(costs, reverse=True)]
                asking = self.live[number].reserve(key, offers, lines, thresholds=False, origin=Origin(tenant, "/x"))
                found = self.run(self.while_others_report(number, asking))
                room = min(line.limit - self.truth.used(line.budget, line.account) for line in lines if line.hard)
                if isinstance(found, Refusal):
                    dead = sum(cost for cost, _ in self.estates.values())
                    assert min(costs) > room - dead, f"a phantom refusal: {found}"
                    return
                assert found.cost <= room, "overshoot"
                if not found.leased:
                    dead = sum(cost for cost, _ in self.estates.values())
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
            self.run(self.live[self.any_process(data)]._slicing.round())

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
                self.run(ledger._slicing.round())

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
            survivor = next(iter(self.live.values()))
            mine = {charge.held.id for charge in self.truth.charges.values() if charge.by in self.live}
            slices = {found.id for each in self.live.values() for found in each.slices.all()}
            for hold in self.run(super(Leased, survivor).holds()):
                if hold.id not in mine and hold.id not in slices and hold.id not in self.truth.charges:
                    self.estates[hold.id] = (hold.cost, number)

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
                    if line.hard:
                        assert self.truth.used(line.budget, line.account) <= line.limit

        async def reckon(self) -> None:
            """At rest everything is as it was: what was settled, and what the dead have left."""
            for charge in self.truth.charges.values():
                if charge.settled is None and charge.by in self.live:
                    assert await self.live[charge.by].settle(charge.held, 1)
                    charge.settled = 1
            for ledger in self.live.values():
                ledger.slices.close()
                await ledger._slicing.sync()
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
