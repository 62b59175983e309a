"""What the cases stand on: a clock that is moved by hand, short words for lines and offers, a loop for each case."""

from __future__ import annotations

from asyncio import Runner, new_event_loop
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from tierline.budgets import Line
from tierline.ledger.base import NOWHERE, Alert, Balance, Origin, Reservation
from tierline.values import Offer, Refusal
from tierline.windows import Window

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tierline.ledger.base import Ledger

NOON: Final = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
"""Where every clock begins: a Saturday in the middle of a month."""
MINUTE, HOUR, DAY = 60, 3_600, 86_400

TOTAL: Final = Window("total")
"""A window that never ends."""


def at(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> float:
    """Seconds since the epoch of a date and time in UTC."""
    return datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp()


def offer(cost: Any, tier: str = "haiku") -> Offer:
    """An offer of a tier, by its worst case in nano-USD."""
    return Offer(tier, f"claude-{tier}", cost, unbounded="" if cost is not None else "max_tokens is missing")


def line(limit: int = 100, account: str = "acme", budget: str = "b", window: Window | str = "day", **more: Any) -> Line:
    """A line of an account, over a unit of the calendar in UTC or another window."""
    return Line(budget, account, limit, Window(window) if isinstance(window, str) else window, **more)  # type: ignore[arg-type]


def rolling(seconds: int) -> Window:
    """A window of the last `seconds`."""
    return Window("rolling", seconds=seconds)


class Clock:
    """A clock that moves only when it is told to, in seconds since the epoch."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Cases:
    """What a ledger says of itself to be tested. Its tests are in the classes that inherit from this one."""

    lease: float = 30.0
    """Seconds."""
    remembers: float = 1_800.0
    """Seconds for which ids are known that have ended, and lapsed holds may be settled late."""
    drift: int = 10_000
    """How many calls are added up in `rounding_drift_1e6_calls`."""
    herd: int = 300
    """How many calls compete at a time."""
    threads: int = 4
    examples: int = 50
    """How many stories the state machine tells."""
    steps: int = 30
    """Of how many steps at most."""

    def open_ledger(self, clock: Callable[[], float], lease: float) -> Ledger:
        """A ledger that is new and empty, also where this is called several times in one test."""
        raise NotImplementedError

    def open_again(self, ledger: Ledger, clock: Callable[[], float], lease: float) -> Ledger:
        """Another object on the state of `ledger`, as another process has it; `ledger` itself, where none can be."""
        raise NotImplementedError


class World:
    """One ledger, its clock, and another ledger object on the same state."""

    def __init__(self, cases: Cases, clock: Clock) -> None:
        self.cases = cases
        self.clock = clock
        self.lease = cases.lease
        self.ledger = cases.open_ledger(clock, cases.lease)
        self.other = cases.open_again(self.ledger, clock, cases.lease)
        self.alerts: list[Alert] = []

    @property
    def objects(self) -> tuple[Ledger, ...]:
        """The ledger as each process has it."""
        return (self.ledger,) if self.other is self.ledger else (self.ledger, self.other)

    async def aclose(self) -> None:
        """Let go of everything."""
        for ledger in self.objects:
            await ledger.aclose()

    async def ask(
        self,
        key: str,
        cost: int | Sequence[Offer] | None,
        *lines: Line,
        thresholds: bool = True,
        origin: Origin = NOWHERE,
    ) -> Reservation | Refusal:
        """Reserve `cost`, or the first of several offers, on `lines`."""
        offers = [offer(cost)] if cost is None or isinstance(cost, int) else cost
        return await self.ledger.reserve(key, offers, lines, thresholds=thresholds, origin=origin)

    async def hold(self, key: str, cost: int | Sequence[Offer] | None, *lines: Line, **more: Any) -> Reservation:
        """The same, where there must be room."""
        found = await self.ask(key, cost, *lines, **more)
        assert isinstance(found, Reservation), f"{key}: a phantom refusal: {found}"
        return found

    async def refusal(self, key: str, cost: int | Sequence[Offer] | None, *lines: Line, **more: Any) -> Refusal:
        """The same, where there must be none."""
        found = await self.ask(key, cost, *lines, **more)
        assert isinstance(found, Refusal), f"{key}: admitted without room: {found}"
        return found

    async def spend(self, key: str, cost: int, *lines: Line, origin: Origin = NOWHERE) -> None:
        """Reserve and settle."""
        assert await self.ledger.settle(await self.hold(key, cost, *lines, origin=origin), cost)

    async def balances(self) -> dict[tuple[str, str], Balance]:
        """Balances by budget and account: the same from every object."""
        found = await self.ledger.balances()
        assert sorted(map(repr, await self.other.balances())) == sorted(map(repr, found))
        by_account = {(balance.budget, balance.account): balance for balance in found}
        assert len(by_account) == len(found), "an account is listed twice"
        return by_account

    async def money(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Spent and held by budget and account, without those that have neither."""
        found = await self.balances()
        return {name: (each.spent, each.held) for name, each in found.items() if each.spent or each.held}

    def watch(self) -> list[Alert]:
        """Listen on every object; the list grows with what is told."""
        for ledger in self.objects:
            ledger.watch(self.alerts.append)
        return self.alerts

    def told(self) -> list[tuple[str, float, int]]:
        """Account, share and amount spent of the alerts since the last time this was asked."""
        found = [(alert.account, alert.share, alert.spent) for alert in self.alerts]
        self.alerts.clear()
        return found


def case(test: Callable[[Any, World], Awaitable[None]]) -> Callable[[Any], None]:
    """A test without arguments, for any runner: it opens a world and plays `test` in it, on a loop of its own."""

    async def play(cases: Cases) -> None:
        world = World(cases, Clock())
        try:
            await test(cases, world)
        finally:
            await world.aclose()

    def run(self: Cases) -> None:
        with Runner(loop_factory=new_event_loop) as runner:
            runner.run(play(self))

    # Not `functools.wraps`: runners look through it, and would ask for the world as a fixture.
    run.__name__, run.__qualname__, run.__doc__ = test.__name__, test.__qualname__, test.__doc__
    run.__module__ = test.__module__
    return run


async def value_error(work: Awaitable[object]) -> None:
    """`work` must raise a ValueError."""
    try:
        found = await work
    except ValueError:
        return
    raise AssertionError(f"no ValueError: {found!r:.200}")
