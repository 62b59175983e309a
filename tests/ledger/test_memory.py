from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime
from fractions import Fraction

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tierline.budgets import Budget, Line, Window
from tierline.errors import ConfigurationError
from tierline.ledger import Balance, MemoryLedger, Reservation
from tierline.ledger import memory as memory_module
from tierline.values import Offer, Refusal

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
LEASE = 30.0


class Clock:
    """A clock that moves only when it is told to."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def offer(cost: int | None, tier: str = "haiku") -> Offer:
    return Offer(tier, f"claude-{tier}", cost, unbounded="" if cost is not None else "max_tokens is missing")


def line(limit: int = 100, account: str = "acme", name: str = "b", unit="day", hard: bool = True, **shares) -> Line:
    return Line(name, account, limit, Window(unit), hard, **shares)


def done(coroutine):
    """The result of a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("a method of the memory ledger suspended")


def held(result) -> Reservation:
    assert isinstance(result, Reservation)
    return result


def money(ledger: MemoryLedger) -> dict[tuple[str, str], tuple[int, int]]:
    """Spent and held of every account that the ledger shows."""
    return {(balance.budget, balance.account): (balance.spent, balance.held) for balance in done(ledger.balances())}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> MemoryLedger:
    return MemoryLedger(clock=clock, lease=LEASE)


async def test_reserve_settle(ledger: MemoryLedger) -> None:
    """A reservation says what it holds, where, and what is left; settling replaces the hold by the cost."""
    day = line()
    first = held(await ledger.reserve("a", [offer(30)], [day]))
    assert first == Reservation("a", offer(30), 30, ((day, 20261121),), (0,))
    second = held(await ledger.reserve("b", [offer(20)], [day]))
    assert (second.share, second.remaining[0].remaining, second.remaining[0].budget) == (0.3, 50, "b")
    assert await ledger.settle(first, 10)
    assert await ledger.release(second)
    assert await ledger.balances() == [Balance("b", "acme", 10, 0, 100, NOON + 12 * 3600)]


async def test_without_budgets(ledger: MemoryLedger) -> None:
    """With no lines every first offer passes, bounded or not."""
    got = held(await ledger.reserve("a", [offer(None), offer(1)], []))
    assert (got.offer.cost, got.cost, got.share, got.remaining) == (None, 0, 0.0, ())
    assert await ledger.settle(got, 5)
    assert await ledger.balances() == []


async def test_the_first_offer_that_fits(ledger: MemoryLedger) -> None:
    """Offers without room are passed over, and the reservation says how many and for which budget."""
    lines = [line(1000, name="wide"), line(100, name="narrow")]
    got = held(await ledger.reserve("a", [offer(500, "opus"), offer(200, "sonnet"), offer(50)], lines))
    assert (got.offer.tier, got.skipped, got.tight) == ("haiku", 2, "narrow")
    got = held(await ledger.reserve("b", [offer(50), offer(1)], lines))
    assert (got.cost, got.skipped, got.tight) == (50, 0, "")


async def test_thresholds_in_the_same_step(ledger: MemoryLedger) -> None:
    """At a threshold a routed call is moved down though there is room; another call is not."""
    lines = [line(1000, downgrade_at=0.7, cheapest_at=0.9)]
    offers = [offer(30, "opus"), offer(20, "sonnet"), offer(10, "haiku")]
    await ledger.reserve("a", [offer(700)], lines)
    got = held(await ledger.reserve("b", offers, lines))
    assert (got.offer.tier, got.skipped, got.tight) == ("sonnet", 1, "b")
    got = held(await ledger.reserve("c", offers, lines, thresholds=False))
    assert (got.offer.tier, got.skipped, got.tight) == ("opus", 0, "")
    await ledger.reserve("d", [offer(150)], lines)
    got = held(await ledger.reserve("e", offers, lines))
    assert (got.offer.tier, got.skipped, got.tight) == ("haiku", 2, "b")


async def test_soft_lines_never_refuse(ledger: MemoryLedger) -> None:
    """A soft line holds and charges beyond its limit, and nothing for what has no bound."""
    lines = [line(10, hard=False)]
    got = held(await ledger.reserve("a", [offer(50)], lines))
    assert got.remaining[0].remaining == -40
    assert not got.remaining[0].hard
    held(await ledger.reserve("b", [offer(None)], lines))
    assert money(ledger) == {("b", "acme"): (0, 50)}


async def test_server_tool_unbounded(ledger: MemoryLedger) -> None:
    """A hard line refuses an offer without a bound, a bounded one after it still wins, and the reason is kept."""
    got = held(await ledger.reserve("a", [offer(None), offer(5)], [line()]))
    assert (got.cost, got.skipped, got.tight) == (5, 1, "b")
    refusal = await ledger.reserve("b", [offer(None)], [line(5, name="soft", hard=False), line()])
    assert refusal == Refusal("b", "acme", 100, 0, 5, None, 12 * 3600.0, "max_tokens is missing")


async def test_refusal_has_the_numbers(ledger: MemoryLedger) -> None:
    """A refusal names the line without room for the cheapest offer, and says when it renews."""
    hour, day, total = line(20, name="hour", unit="hour"), line(name="day"), line(name="total", unit="total")
    settled = held(await ledger.reserve("a", [offer(15)], [hour, day, total]))
    await ledger.settle(settled, 10)
    await ledger.reserve("b", [offer(5)], [hour, day, total])
    refusal = await ledger.reserve("c", [offer(90, "opus"), offer(6)], [hour, day, total])
    assert refusal == Refusal("hour", "acme", 20, 10, 5, 6, 3600.0)
    refusal = await ledger.reserve("d", [offer(90)], [hour, day])
    assert refusal == Refusal("day", "acme", 100, 10, 5, 90, 12 * 3600.0), "of two, the one that renews last"
    refusal = await ledger.reserve("e", [offer(90)], [hour, day, total])
    assert isinstance(refusal, Refusal)
    assert (refusal.budget, refusal.renews_in) == ("total", None)


async def test_first_request_unknown_tenant(ledger: MemoryLedger) -> None:
    """An account that was never seen has the whole limit and no more, and leaves no trace when it is refused."""
    assert isinstance(await ledger.reserve("a", [offer(101)], [line(account="new")]), Refusal)
    assert await ledger.balances() == []
    assert held(await ledger.reserve("b", [offer(100)], [line(account="new")])).cost == 100


async def test_multi_window_one_denies_none_held(ledger: MemoryLedger) -> None:
    """Where one line refuses, the others hold nothing."""
    lines = [line(1000, name="day"), line(10, name="hour", unit="hour"), line(1000, name="month", unit="month")]
    held(await ledger.reserve("a", [offer(5)], lines))
    assert isinstance(await ledger.reserve("b", [offer(6)], lines), Refusal)
    assert set(money(ledger).values()) == {(0, 5)}


async def test_duplicate_reserve_id(ledger: MemoryLedger) -> None:
    """Asking twice with one id gives the same reservation and holds once."""
    first = await ledger.reserve("a", [offer(60)], [line()])
    assert await ledger.reserve("a", [offer(60)], [line()]) is first
    assert money(ledger) == {("b", "acme"): (0, 60)}


async def test_duplicate_settle(ledger: MemoryLedger) -> None:
    """The first ending wins, whatever comes after it."""
    got = held(await ledger.reserve("a", [offer(60)], [line()]))
    assert await ledger.settle(got, 10)
    assert not await ledger.settle(got, 50)
    assert not await ledger.release(got)
    assert money(ledger) == {("b", "acme"): (10, 0)}


async def test_settle_after_expiry(ledger: MemoryLedger, clock: Clock) -> None:
    """A hold whose lease is over is charged whole as an estimate, and a late settlement replaces that, once."""
    got = held(await ledger.reserve("a", [offer(60)], [line()]))
    clock.now += LEASE - 1
    assert money(ledger) == {("b", "acme"): (0, 60)}
    clock.now += 1
    assert await ledger.balances() == [Balance("b", "acme", 60, 0, 100, NOON + 12 * 3600, estimated=60)]
    assert await ledger.settle(got, 7)
    assert not await ledger.settle(got, 8)
    assert await ledger.balances() == [Balance("b", "acme", 7, 0, 100, NOON + 12 * 3600)]


async def test_estimates_are_marked(ledger: MemoryLedger, clock: Clock) -> None:
    """What was settled as an estimate is told apart from what was measured, early or late."""
    early = held(await ledger.reserve("a", [offer(10)], [line()]))
    late = held(await ledger.reserve("b", [offer(20)], [line()]))
    await ledger.settle(early, 4, estimated=True)
    clock.now += LEASE
    await ledger.balances()
    await ledger.settle(late, 5, estimated=True)
    assert [(balance.spent, balance.estimated) for balance in await ledger.balances()] == [(9, 9)]


async def test_renewed_holds_outlive_their_lease(ledger: MemoryLedger, clock: Clock) -> None:
    """A heartbeat keeps a hold, a lapsed one is not revived by it, and one hold's does not help another."""
    kept = held(await ledger.reserve("a", [offer(10)], [line()]))
    held(await ledger.reserve("b", [offer(20)], [line()]))
    for _ in range(5):
        clock.now += LEASE / 2
        await ledger.renew([kept])
    assert money(ledger) == {("b", "acme"): (20, 10)}
    clock.now += LEASE
    await ledger.renew([kept])
    assert money(ledger) == {("b", "acme"): (30, 0)}


async def test_lapsed_id_reserved_anew(ledger: MemoryLedger, clock: Clock) -> None:
    """An id that lapsed is no live reservation: its estimate stands, and the new hold is another."""
    await ledger.reserve("a", [offer(10)], [line()])
    clock.now += LEASE
    again = held(await ledger.reserve("a", [offer(20)], [line()]))
    assert await ledger.settle(again, 1)
    assert not await ledger.settle(again, 1)
    assert money(ledger) == {("b", "acme"): (11, 0)}


async def test_lapsed_holds_are_remembered_in_bounds(ledger: MemoryLedger, clock: Clock, monkeypatch) -> None:
    """Past the bound the oldest estimate stands, and its late settlement says so."""
    monkeypatch.setattr(memory_module, "_MOST_LAPSED", 2)
    holds = [held(await ledger.reserve(str(number), [offer(10)], [line()])) for number in range(3)]
    clock.now += LEASE
    assert money(ledger) == {("b", "acme"): (30, 0)}
    assert [await ledger.settle(hold, 1) for hold in holds] == [False, True, True]
    assert money(ledger) == {("b", "acme"): (12, 0)}


async def test_settle_exceeds_reserve(ledger: MemoryLedger) -> None:
    """A cost above the hold is charged in full, and what then stands over the limit refuses the next call."""
    got = held(await ledger.reserve("a", [offer(60)], [line()]))
    assert await ledger.settle(got, 150)
    refusal = await ledger.reserve("b", [offer(0)], [line()])
    assert refusal == Refusal("b", "acme", 100, 150, 0, 0, 12 * 3600.0)


@pytest.mark.parametrize("cost", [-1, 1.0, "5", None, True])
async def test_negative_usage(ledger: MemoryLedger, cost) -> None:
    """A cost that is no whole number of at least 0 is a mistake of the program, and the hold stays."""
    got = held(await ledger.reserve("a", [offer(60)], [line()]))
    with pytest.raises(ValueError, match="whole number of nano-USD"):
        await ledger.settle(got, cost)
    assert money(ledger) == {("b", "acme"): (0, 60)}


@pytest.mark.parametrize("cost", [-5, 5.5])
async def test_negative_offer(ledger: MemoryLedger, cost) -> None:
    """An offer below 0 would raise the limit, and one in floats would drift: neither is held."""
    with pytest.raises(ValueError, match="whole number of nano-USD"):
        await ledger.reserve("a", [offer(cost)], [line()])
    assert set(money(ledger).values()) <= {(0, 0)}


async def test_rounding_drift_1e5_calls(ledger: MemoryLedger) -> None:
    """A hundred thousand settlements add up to the nano-USD."""
    lines = [line(10**18)]
    for number in range(100_000):
        await ledger.settle(held(await ledger.reserve("a", [offer(10)], lines)), number % 7)
    assert money(ledger) == {("b", "acme"): (sum(number % 7 for number in range(100_000)), 0)}


async def test_window_boundary_mid_stream(ledger: MemoryLedger, clock: Clock) -> None:
    """A call that ends in the next window is charged to the one it began in."""
    clock.now = NOON + 12 * 3600 - 1
    got = held(await ledger.reserve("a", [offer(60)], [line()]))
    clock.now += 2
    fresh = held(await ledger.reserve("b", [offer(100)], [line()]))
    assert [key for _, key in got.lines + fresh.lines] == [20261121, 20261122]
    assert await ledger.settle(got, 60)
    assert money(ledger) == {("b", "acme"): (0, 100)}


async def test_reset_during_inflight(ledger: MemoryLedger) -> None:
    """An account that is forgotten in mid-flight is gone, and the end of its call does no harm."""
    got = held(await ledger.reserve("a", [offer(60)], [line(), line(account="other")]))
    await ledger.forget([line(), line(account="never seen")])
    assert await ledger.settle(got, 10)
    assert money(ledger) == {("b", "other"): (10, 0)}


async def test_limit_lowered_midflight(ledger: MemoryLedger) -> None:
    """The limit that counts is the one that the call brings, and the balance shows the latest."""
    held(await ledger.reserve("a", [offer(60)], [line(100)]))
    assert isinstance(await ledger.reserve("b", [offer(1)], [line(50)]), Refusal)
    held(await ledger.reserve("c", [offer(30)], [line(90)]))
    assert [balance.limit for balance in await ledger.balances()] == [90]


async def test_clock_jump_1h(ledger: MemoryLedger, clock: Clock) -> None:
    """A clock that jumps ahead lapses leases; one that falls back brings neither money nor an ended window back."""
    lines = [line(name="hour", unit="hour")]
    got = held(await ledger.reserve("a", [offer(100)], lines))
    clock.now += 3600
    held(await ledger.reserve("b", [offer(70)], lines))
    assert await ledger.settle(got, 100)
    clock.now -= 3600
    assert isinstance(await ledger.reserve("c", [offer(40)], lines), Refusal)
    assert money(ledger) == {("hour", "acme"): (0, 70)}
    clock.now += LEASE
    assert money(ledger) == {("hour", "acme"): (70, 0)}, "leases go on while the clock catches up"


async def test_dst_month_end_leap(ledger: MemoryLedger, clock: Clock) -> None:
    """A month's money is there again with the first second of the next, leap day or not."""
    clock.now = datetime(2028, 2, 29, 23, 59, 59, tzinfo=UTC).timestamp()
    lines = [line(name="month", unit="month")]
    await ledger.settle(held(await ledger.reserve("a", [offer(100)], lines)), 100)
    refusal = await ledger.reserve("b", [offer(1)], lines)
    assert isinstance(refusal, Refusal)
    assert refusal.renews_in == 1.0
    clock.now += 1
    assert held(await ledger.reserve("c", [offer(100)], lines)).lines[0][1] == 202803


async def test_a_budget_that_applies_twice(ledger: MemoryLedger) -> None:
    """An account that two policies bring is charged once, and the lower limit of the two holds."""
    got = held(await ledger.reserve("a", [offer(50), offer(30)], [line(100), line(40)]))
    assert got.cost == 30
    assert money(ledger) == {("b", "acme"): (0, 30)}


async def test_ended_windows_are_pruned(clock: Clock) -> None:
    """Records of ended windows go while calls go on, so memory follows the accounts of one window."""
    ledger = MemoryLedger(clock=clock)
    for minute in range(20):
        for number in range(50):
            lines = [line(account=f"{minute}-{number}", unit="minute")]
            await ledger.settle(held(await ledger.reserve("a", [offer(1)], lines)), 1)
        clock.now += 60
    assert len(ledger._accounts) <= 100
    assert await ledger.balances() == []


async def test_huge_max_tokens_pins_budget(ledger: MemoryLedger) -> None:
    """A hold as large as the budget pins it only until the call ends."""
    got = held(await ledger.reserve("a", [offer(100)], [line()]))
    assert isinstance(await ledger.reserve("b", [offer(1)], [line()]), Refusal)
    await ledger.settle(got, 1)
    assert held(await ledger.reserve("b", [offer(99)], [line()]))


def test_thundering_herd_last_dollar() -> None:
    """Many threads with loops of their own share the last dollar, and not one nano-USD more is held."""
    ledger = MemoryLedger()
    lines = [line(1000), line(2000, name="wide", unit="total")]
    threads, admitted, start = 16, [], threading.Barrier(16)

    async def spend(number: int) -> None:
        for turn in range(40):
            got = await ledger.reserve(f"{number}-{turn}", [offer(7), offer(3)], lines)
            if isinstance(got, Reservation):
                admitted.append(got)
            await asyncio.sleep(0)

    def run(number: int) -> None:
        start.wait()
        asyncio.run(spend(number))

    workers = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    total = sum(got.cost for got in admitted)
    assert 997 < total <= 1000
    assert money(ledger) == {("b", "acme"): (0, total), ("wide", "acme"): (0, total)}
    for got in admitted:
        assert done(ledger.settle(got, 1))
    assert money(ledger) == {("b", "acme"): (len(admitted), 0), ("wide", "acme"): (len(admitted), 0)}


@pytest.mark.parametrize("lease", [0, -1.0, float("nan")])
def test_a_lease_that_is_none(lease: float) -> None:
    """A lease of no length is a configuration error that names it."""
    with pytest.raises(ConfigurationError, match="lease="):
        MemoryLedger(lease=lease)


# A model that shares nothing with the ledger: it keeps every hold for ever, and adds up when it is asked.

BUDGETS = [
    Budget("$0.000000100/minute", per="tenant"),
    Budget("$0.000000300/hour"),
    Budget("$0.000002", per="tenant", name="total", downgrade_at=None),
    Budget("$0.000000050/day", per="tenant", hard=False, name="soft", downgrade_at=0.5, cheapest_at=1.0),
]
FORMATS = {"minute": "%Y%m%d%H%M", "hour": "%Y%m%d%H", "day": "%Y%m%d", "total": "0"}
tenants = st.sampled_from(["acme", "umbrella"])
costs = st.one_of(st.none(), st.integers(0, 120))


class Model(RuleBasedStateMachine):
    """hypothesis_stateful_vs_model: balances and answers are those of the naive model, after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock(NOON + 3590)
        self.ledger = MemoryLedger(self.clock, LEASE)
        self.now, self.elapsed, self.made = self.clock.now, 0.0, 0
        self.holds: list[dict] = []
        self.live: dict[str, Reservation] = {}

    def slot(self, one: Line) -> tuple[str, str, str]:
        moment = datetime.fromtimestamp(int(self.now), UTC)
        return one.budget, one.account, moment.strftime(FORMATS[one.window.unit])

    def spent(self, slot) -> int:
        return sum(hold["charge"] for hold in self.holds if slot in hold["slots"] and hold["charge"] is not None)

    def held(self, slot) -> int:
        return sum(hold["cost"] for hold in self.holds if slot in hold["slots"] and hold["charge"] is None)

    def find(self, key: str) -> dict:
        return next(hold for hold in self.holds if hold["key"] == key)

    def lapse(self) -> None:
        for hold in self.holds:
            if hold["charge"] is None and self.elapsed >= hold["deadline"]:
                hold["charge"] = hold["cost"]

    @rule(seconds=st.one_of(st.integers(0, 40), st.sampled_from([60, 3600, 86_400])))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds
        self.elapsed += seconds
        self.now = max(self.now, self.clock.now)

    @rule(seconds=st.integers(1, 4000))
    def fall_back(self, seconds: int) -> None:
        self.clock.now -= seconds
        done(self.ledger.balances())  # a clock that nobody reads has not gone back

    @rule(tenant=tenants, asked=st.lists(costs, min_size=1, max_size=4), thresholds=st.booleans(), data=st.data())
    def reserve(self, tenant: str, asked: list[int | None], thresholds: bool, data) -> None:
        chosen = data.draw(st.lists(st.sampled_from(BUDGETS), unique=True))
        lines = [budget.line(tenant if budget.per else "global") for budget in chosen]
        self.lapse()
        used = {one: self.spent(self.slot(one)) + self.held(self.slot(one)) for one in lines}
        first = 0
        for one in lines if thresholds else ():
            share = Fraction(used[one], one.limit)
            if one.cheapest_at is not None and share >= Fraction(str(one.cheapest_at)):
                first = max(first, len(asked) - 1)
            elif one.downgrade_at is not None and share >= Fraction(str(one.downgrade_at)):
                first = max(first, min(1, len(asked) - 1))

        def fits(cost: int | None) -> bool:
            return all(not one.hard or (cost is not None and used[one] + cost <= one.limit) for one in lines)

        fitting = [index for index in range(first, len(asked)) if fits(asked[index])]
        self.made += 1
        key = f"r{self.made}"
        got = done(self.ledger.reserve(key, [offer(cost) for cost in asked], lines, thresholds=thresholds))
        if not fitting:
            assert isinstance(got, Refusal), "a call was admitted that did not fit"
            return
        assert isinstance(got, Reservation), "a phantom refusal"
        assert got.skipped == fitting[0]
        assert (got.tight != "") == (got.skipped > 0)
        cost = asked[fitting[0]] or 0
        self.holds.append(
            {
                "key": key,
                "cost": cost,
                "slots": {self.slot(one) for one in lines},
                "deadline": self.elapsed + LEASE,
                "charge": None,
            }
        )
        self.live[key] = got
        for one in lines:
            assert not one.hard or self.spent(self.slot(one)) + self.held(self.slot(one)) <= one.limit
        assert [left.remaining for left in got.remaining] == [one.limit - used[one] - cost for one in lines]
        assert done(self.ledger.reserve(key, [offer(1)], lines)) is got

    @precondition(lambda self: self.live)
    @rule(data=st.data(), cost=st.integers(0, 200))
    def settle(self, data, cost: int) -> None:
        key = data.draw(st.sampled_from(sorted(self.live)))
        got = self.live.pop(key)
        self.lapse()
        self.find(key)["charge"] = cost
        assert done(self.ledger.settle(got, cost))
        assert not done(self.ledger.settle(got, cost + 1))
        assert not done(self.ledger.release(got))

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def renew(self, data) -> None:
        keys = data.draw(st.lists(st.sampled_from(sorted(self.live)), unique=True))
        self.lapse()
        for key in keys:
            self.find(key)["deadline"] = self.elapsed + LEASE
        done(self.ledger.renew([self.live[key] for key in keys]))

    @rule(tenant=tenants)
    def forget(self, tenant: str) -> None:
        total = BUDGETS[2].line(tenant)
        for hold in self.holds:
            hold["slots"].discard(self.slot(total))
        done(self.ledger.forget([total]))

    @rule()
    def finish(self) -> None:
        for got in self.live.values():
            self.find(got.id)["charge"] = 3
            assert done(self.ledger.settle(got, 3))
        self.live.clear()
        assert all(balance.held == 0 for balance in done(self.ledger.balances()))

    @invariant()
    def balances_agree(self) -> None:
        self.lapse()
        lines = [budget.line(who) for budget in BUDGETS for who in ("acme", "umbrella", "global")]
        slots = {self.slot(one) for one in lines} & {slot for hold in self.holds for slot in hold["slots"]}
        assert money(self.ledger) == {slot[:2]: (self.spent(slot), self.held(slot)) for slot in slots}


Model.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestHypothesisStatefulVsModel = Model.TestCase
