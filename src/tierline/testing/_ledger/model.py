"""A ledger beside a model of it that adds up every hold anew: nothing is kept, so nothing can drift.

Needs `hypothesis`, which is imported when the machine is made.
"""

from __future__ import annotations

from asyncio import Runner, new_event_loop
from collections import defaultdict
from dataclasses import dataclass, field
from fractions import Fraction
from math import inf
from typing import TYPE_CHECKING, Any, Final

from tierline.budgets import Line
from tierline.ledger.base import Origin, Reservation
from tierline.testing._ledger.world import DAY, HOUR, TOTAL, Cases, World, offer, rolling
from tierline.values import Refusal
from tierline.windows import Span, Window

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence
    from typing import TypeVar

    T = TypeVar("T")

TENANTS: Final = ("acme", "umbrella")
LIMITS: Final = {"day": 150, "hour": 90, "rolling": 120, "soft": 40, "all": 220}
LIMITED: Final = (
    ("day", None), ("day", "acme"), ("hour", None), ("hour", "umbrella"), ("rolling", "acme"), ("soft", None),
    ("all", "global"), ("all", None), ("nothing", "acme"),
)  # fmt: skip
"""Whose limits are set."""
_ROLLING: Final = 10 * 60
STEPS: Final = (0.25, 1, 7, 10, 14, 16, 20, 25, 29, 30, 31, 61, 300, 700, HOUR, DAY)
"""By how many seconds time passes: around a lease of 30, the parts of a rolling window, its whole, and windows."""
_STEP: Final = 10
"""Seconds: a sixtieth of the rolling window."""


def lines_of(tenant: str) -> list[Line]:
    """The lines that a call of a tenant may count on."""
    return [
        Line("day", tenant, LIMITS["day"], Window("day"), True, 0.5, 0.8),
        Line("hour", tenant, LIMITS["hour"], Window("hour")),
        Line("rolling", tenant, LIMITS["rolling"], rolling(_ROLLING), True, None, 0.9),
        Line("soft", tenant, LIMITS["soft"], Window("hour"), False, 0.7, 0.9),
        Line("all", "global", LIMITS["all"], TOTAL, True, 0.7, None),
    ]


def span_of(line: Line, now: float) -> tuple[float, float]:
    """When the span of a charge at `now` begins and when it stops counting: all units in UTC, so that it is plain."""
    unit = line.window.unit
    if unit == "total":
        return 0, inf
    if unit == "rolling":
        start = now // _STEP * _STEP
        return start, start + _STEP + _ROLLING
    length = {"hour": HOUR, "day": DAY}[unit]
    return now // length * length, now // length * length + length


@dataclass(eq=False)
class Charge:
    """One id, from its hold to its end. `slots` are budget, account, begin and end of what it counts in.

    `deadline` is when it lapses, `ended` when it did so or was settled, in what the clock has run.
    """

    cost: int
    slots: set[tuple[str, str, float, float]]
    row: tuple[float, str, str] | None
    deadline: float = inf
    ended: float = inf
    settled: int | None = None
    guessed: bool = False
    lapsed: bool = False

    @property
    def held(self) -> int:
        """What is held for it now."""
        return self.cost if self.settled is None and not self.lapsed else 0

    @property
    def spent(self) -> int:
        """What is spent on it so far."""
        if self.settled is not None:
            return self.settled
        return self.cost if self.lapsed else 0

    @property
    def estimated(self) -> int:
        """What of that is a guess."""
        return self.spent if self.settled is None or self.guessed else 0


@dataclass
class Model:
    """All charges that ever were. `now` stands still while the clock is back, `run` is what it went forward in all."""

    now: float
    read: float
    lease: float
    run: float = 0
    charges: dict[str, Charge] = field(default_factory=dict)
    released: set[str] = field(default_factory=set)
    limits: dict[tuple[str, str | None], int] = field(default_factory=dict)

    def move(self, read: float) -> None:
        """The clock shows `read`."""
        self.run += max(0, read - self.read)
        self.read = read
        self.now = max(self.now, read)
        for charge in self.charges.values():
            if charge.settled is None and not charge.lapsed and charge.deadline <= self.run:
                charge.lapsed, charge.ended = True, charge.deadline

    def limited(self, line: Line) -> Line:
        """The line under the limit that holds for it."""
        own = self.limits.get((line.budget, line.account), self.limits.get((line.budget, None)))
        return line if own is None else line.limited(own)

    def sums(self, budget: str, account: str) -> tuple[int, int, int]:
        """Spent, held and estimated in what has not ended."""
        counting = [
            charge
            for charge in self.charges.values()
            if any(slot[:2] == (budget, account) and slot[3] > self.now for slot in charge.slots)
        ]
        return (
            sum(charge.spent for charge in counting),
            sum(charge.held for charge in counting),
            sum(charge.estimated for charge in counting),
        )

    def used(self, line: Line) -> int:
        """What counts against a limit."""
        spent, held, _ = self.sums(line.budget, line.account)
        return spent + held

    def fitting(self, costs: Sequence[int | None], lines: Iterable[Line], *, thresholds: bool) -> int | None:
        """The number of the first offer that may be had, None where none may."""
        first = 0
        for line in lines:
            share = Fraction(self.used(line), line.limit)
            if not thresholds:
                continue
            if line.downgrade_at is not None and share >= Fraction(str(line.downgrade_at)):
                first = max(first, min(1, len(costs) - 1))
            if line.cheapest_at is not None and share >= Fraction(str(line.cheapest_at)):
                first = len(costs) - 1
        for number in range(first, len(costs)):
            cost = costs[number]
            if all(not line.hard or (cost is not None and self.used(line) + cost <= line.limit) for line in lines):
                return number
        return None

    def open(self, cost: int, lines: Iterable[Line], tenant: str) -> Charge:
        """A charge of a hold that is made now."""
        slots = {(line.budget, line.account, *span_of(line, self.now)) for line in lines}
        return Charge(cost, slots, (self.now // HOUR * HOUR, tenant, "haiku"), self.run + self.lease)

    def history(self) -> dict[tuple[float, str, str], list[int]]:
        """Attempts, cost and what of it is estimated, by hour, tenant and tier."""
        rows: dict[tuple[float, str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        for charge in self.charges.values():
            if charge.row is not None and (charge.settled is not None or charge.lapsed):
                for place, amount in enumerate((1, charge.spent, charge.estimated)):
                    rows[charge.row][place] += amount
        return dict(rows)


def play(cases: Cases) -> None:
    """Tell stories to a ledger of `cases` and to the model, and compare them after every step."""
    from hypothesis import HealthCheck, settings  # noqa: PLC0415  (only who runs this needs it)
    from hypothesis import strategies as st  # noqa: PLC0415
    from hypothesis.stateful import (  # noqa: PLC0415
        RuleBasedStateMachine,
        invariant,
        precondition,
        rule,
        run_state_machine_as_test,
    )  # fmt: skip

    tenants = st.sampled_from(TENANTS)
    costs = st.lists(st.integers(0, 130) | st.integers(0, 25) | st.none(), min_size=1, max_size=3)
    accounts = st.sampled_from(LIMITED)

    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.runner = Runner(loop_factory=new_event_loop)
            self.clock = _Clock()
            self.world = self.run(_opened(cases, self.clock))
            self.model = Model(self.clock.now, self.clock.now, cases.lease)
            self.made: dict[str, Reservation] = {}
            self.asked = 0

        def run(self, work: Awaitable[T]) -> T:
            async def wait() -> T:
                return await work

            return self.runner.get_loop().run_until_complete(wait())

        def teardown(self) -> None:
            try:
                self.run(self.world.aclose())
            finally:
                self.runner.close()

        def any_object(self, data: Any) -> Any:
            return data.draw(st.sampled_from(self.world.objects))

        def key(self) -> str:
            self.asked += 1
            return f"k{self.asked}"

        @rule(
            data=st.data(), tenant=tenants, asked=costs, thresholds=st.booleans(),
            chosen=st.sets(st.integers(0, len(LIMITS) - 1), min_size=1),
        )  # fmt: skip
        def reserve(
            self, data: Any, tenant: str, asked: list[int | None], chosen: set[int], *, thresholds: bool
        ) -> None:
            lines = [lines_of(tenant)[number] for number in sorted(chosen)]
            limited = [self.model.limited(line) for line in lines]
            before = [self.model.used(line) for line in lines]
            fitting = self.model.fitting(asked, limited, thresholds=thresholds)
            key, ledger = self.key(), self.any_object(data)
            got = self.run(
                ledger.reserve(
                    key,
                    [offer(cost) for cost in asked],
                    lines,
                    thresholds=thresholds,
                    origin=Origin(tenant, "/chat"),
                )
            )
            if fitting is None:
                assert isinstance(got, Refusal), "a call was admitted that did not fit"
                place = [line.budget for line in lines].index(got.budget)
                assert (got.limit, got.spent + got.held) == (limited[place].limit, before[place])
                assert got.needed is None or before[place] + got.needed > got.limit
                assert limited[place].hard
                assert got.at == self.model.now
                return
            assert isinstance(got, Reservation), f"a phantom refusal: {got}"
            assert (got.skipped, got.used, got.at) == (fitting, tuple(before), self.model.now)
            assert (got.tight != "") == (got.skipped > 0)
            assert [(span.start, span.end) for _, span in got.lines] == [
                span_of(line, self.model.now) for line in lines
            ]
            charge = self.model.open(asked[fitting] or 0, lines, tenant)
            assert got.cost == charge.cost
            self.model.charges[key], self.made[key] = charge, got
            for line in limited:
                assert not line.hard or self.model.used(line) <= line.limit

        @precondition(lambda self: self.made)
        @rule(data=st.data(), cost=st.integers(0, 200), guessed=st.booleans(), by=st.sampled_from("ssssrp"))
        def end(self, data: Any, cost: int, by: str, *, guessed: bool) -> None:
            """By settling mostly, else by releasing; posting ends nothing that is known."""
            pending = [key for key in self.made if self.model.charges[key].settled is None]
            if not pending or data.draw(st.integers(0, 5)) == 0:
                pending = list(self.made)
            key = data.draw(st.sampled_from(pending))
            charge, ledger = self.model.charges[key], self.any_object(data)
            if by == "s":
                done = self.run(ledger.settle(self.made[key], cost, estimated=guessed))
            elif by == "r":
                done = self.run(ledger.release(key))
                cost, guessed = 0, False
            else:
                assert not self.run(ledger.post(self.made[key], cost, estimated=guessed))
                return
            assert done == (charge.settled is None)
            if done:
                charge.settled, charge.guessed, charge.ended = cost, guessed, self.model.run
                if by == "r":
                    charge.row = None

        @precondition(lambda self: self.made)
        @rule(data=st.data())
        def repeat(self, data: Any) -> None:
            """A repeated id is the same hold or an error, and never another one."""
            key = data.draw(st.sampled_from(sorted(self.made)))
            charge, lines = self.model.charges[key], [each for each, _ in self.made[key].lines]
            again = self.any_object(data).reserve(key, [offer(1)], lines)
            if charge.settled is None and not charge.lapsed:
                found = self.run(again)
                assert (found.id, found.cost) == (key, charge.cost)
                return
            try:
                found = self.run(again)
            except ValueError:
                return
            raise AssertionError(f"an id that has ended was reserved: {found}")

        @rule(data=st.data(), tenant=tenants)
        def release_first(self, data: Any, tenant: str) -> None:
            key = self.key()
            assert not self.run(self.any_object(data).release(key))
            try:
                self.run(self.any_object(data).reserve(key, [offer(1)], lines_of(tenant)))
            except ValueError:
                return
            raise AssertionError("an id was reserved that had been released")

        @precondition(lambda self: self.made)
        @rule(data=st.data())
        def renew(self, data: Any) -> None:
            keys = data.draw(st.lists(st.sampled_from(sorted(self.made)), unique=True))
            self.run(self.any_object(data).renew([self.made[key] for key in keys]))
            for key in keys:
                self.model.charges[key].deadline = self.model.run + self.model.lease

        @rule(data=st.data(), tenant=tenants, cost=st.integers(0, 60), ago=st.sampled_from([0, 0, 60, HOUR, DAY]))
        def post(self, data: Any, tenant: str, cost: int, ago: float) -> None:
            lines = lines_of(tenant)[1:4]
            now = self.model.now - ago
            key = self.key()
            spans = tuple((line, Span(start, start, end)) for line in lines for start, end in [span_of(line, now)])
            origin = Origin(tenant, "/chat")
            made = Reservation(key, offer(cost), cost, spans, (0,) * len(spans), at=now, origin=origin)
            assert self.run(self.any_object(data).post(made, cost))
            slots = {(line.budget, line.account, *span_of(line, now)) for line in lines}
            row = (now // HOUR * HOUR, tenant, "haiku")
            self.model.charges[key] = Charge(cost, slots, row, ended=self.model.run, settled=cost)
            self.made[key] = made

        @rule(by=st.sampled_from(STEPS) | st.integers(-HOUR, -1))
        def pass_time(self, by: float) -> None:
            self.clock.now += by

        @rule(data=st.data(), account=accounts, limit=st.none() | st.integers(1, 300))
        def set_limit(self, data: Any, account: tuple[str, str | None], limit: int | None) -> None:
            self.run(self.any_object(data).set_limit(*account, limit))
            if limit is None:
                self.model.limits.pop(account, None)
            else:
                self.model.limits[account] = limit

        @rule(data=st.data(), tenant=tenants)
        def forget(self, data: Any, tenant: str) -> None:
            """Of accounts that nothing may yet be settled on: one that is forgotten does not come back before."""
            charges = self.model.charges.values()
            pending = {slot[:2] for charge in charges if charge.settled is None for slot in charge.slots}
            lines = [line for line in lines_of(tenant)[:3] if (line.budget, tenant) not in pending]
            forgotten = {(line.budget, tenant) for line in lines}
            self.run(self.any_object(data).forget(lines))
            for charge in charges:
                charge.slots = {slot for slot in charge.slots if slot[:2] not in forgotten}

        @rule(data=st.data(), tenant=tenants)
        def erase(self, data: Any, tenant: str) -> None:
            self.run(self.any_object(data).erase(tenant))
            self.model.limits = {name: limit for name, limit in self.model.limits.items() if name[1] != tenant}
            for charge in self.model.charges.values():
                charge.slots = {slot for slot in charge.slots if slot[1] != tenant}
                if charge.row is not None and charge.row[1] == tenant:
                    charge.row = None

        @invariant()
        def balances_agree(self) -> None:
            self.model.move(self.clock.now)
            charges, since = self.model.charges, self.model.run - cases.remembers
            self.made = {key: made for key, made in self.made.items() if charges[key].ended > since}
            expected = {}
            for line in [*lines_of(TENANTS[0]), *lines_of(TENANTS[1])[:4]]:
                spent, held, estimated = self.model.sums(line.budget, line.account)
                if spent or held:
                    limit = self.model.limited(line).limit
                    expected[line.budget, line.account] = (spent, held, estimated, limit)
            for ledger in self.world.objects:
                found = self.run(ledger.balances())
                assert {
                    (each.budget, each.account): (each.spent, each.held, each.estimated, each.limit)
                    for each in found
                    if each.spent or each.held
                } == expected
                fullest = self.run(ledger.fullest(3))
                shares = sorted((each.share for each in found), reverse=True)
                assert [each.share for each in fullest.balances] == shares[:3]
                assert set(fullest.balances) <= set(found)
                assert (fullest.number, fullest.budgets) == (len(found), frozenset(each.budget for each in found))

        @invariant()
        def holds_agree(self) -> None:
            live = {
                key: charge.deadline - self.model.run
                for key, charge in self.model.charges.items()
                if charge.settled is None and not charge.lapsed
            }
            found = {hold.id: hold.lapses_at - self.model.now for hold in self.run(self.world.ledger.holds())}
            assert found == live

        @invariant()
        def history_agrees(self) -> None:
            rows = self.run(self.world.other.history(0))
            assert {
                (row.hour, row.tenant, row.tier): [row.attempts, row.cost, row.estimated]
                for row in rows
                if row.tenant is not None
            } == self.model.history()
            assert all(row.cost >= row.estimated >= 0 for row in rows)

        @invariant()
        def limits_agree(self) -> None:
            assert self.run(self.world.ledger.limits()) == self.model.limits

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=cases.examples,
            stateful_step_count=cases.steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


class _Clock:
    """Near the end of an hour and of a day, so that windows end in many stories."""

    def __init__(self) -> None:
        self.now = 20_700.0 * DAY - 120

    def __call__(self) -> float:
        return self.now


async def _opened(cases: Cases, clock: Any) -> World:
    return World(cases, clock)
