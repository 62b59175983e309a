"""What a ledger is: the contract that every backend keeps, and the values that go in and out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from tierline.values import Remaining

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tierline.budgets import Line
    from tierline.values import Offer, Refusal
    from tierline.windows import Span

RETENTION: Final = 90 * 86_400.0
"""Seconds for which spend by hour is kept, unless a ledger is told otherwise."""


class Origin(NamedTuple):
    """Where a hold comes from: what spend by hour is added up by, beside the tier.

    `own` marks a question that Tierline asks for itself, such as a verdict. Ledgers may keep names cut to 200
    characters, and with what is no character replaced.
    """

    tenant: str | None = None
    route: str | None = None
    own: bool = False


NOWHERE: Final = Origin()


class Reservation(NamedTuple):
    """A hold on every account of one attempt.

    It carries all that settling needs, so that nothing is looked up later: in which accounts and in which
    spans the money is held (`lines`), and how much (`cost`, nano-USD; what a soft budget could not bound is 0).
    A named tuple, for one is made on every call: a frozen dataclass costs four times as much.
    """

    id: str
    offer: Offer
    cost: int
    lines: tuple[tuple[Line, Span], ...]
    """Each account, under the limit that held for it, with the span of its window in which the hold was made."""
    used: tuple[int, ...] = ()
    """What each of `lines` had spent and held before this call, in nano-USD."""
    skipped: int = 0
    """How many offers were passed over, for a threshold or for lack of room."""
    tight: str = ""
    """The name of the budget that made it skip them."""
    at: float = 0.0
    """When it was made, in seconds since the epoch, by the ledger's clock."""
    origin: Origin = NOWHERE
    unasked: bool = False
    """Whether it was made from this worker's own memory, because the ledger could not be asked."""
    attempts: int = 1
    """How many attempts `history` counts when it is settled: requests of a batch are held for many at a time."""
    leased: bool = False
    """Whether it was made out of a slice that this process holds: no other process can settle it."""

    @property
    def share(self) -> float:
        """The fullest budget's (spent + held) / limit before this call; 0.0 without budgets."""
        return max((used / line.limit for (line, _), used in zip(self.lines, self.used, strict=True)), default=0.0)

    @property
    def remaining(self) -> tuple[Remaining, ...]:
        """Each budget as it stood when the call was admitted, this hold included; below 0 is past the limit."""
        cost = self.cost
        return tuple(
            [
                Remaining(line.budget, line.account, line.limit, line.limit - used - cost, line.hard)
                for (line, _), used in zip(self.lines, self.used, strict=True)
            ]
        )


@dataclass(frozen=True, slots=True)
class Balance:
    """One account of one budget, now. Money in nano-USD.

    `renews_at`, in seconds since the epoch, is when the window ends; for a rolling one, when the oldest of what counts
    stops counting. None where nothing will.
    """

    budget: str
    account: str
    spent: int
    held: int
    limit: int
    renews_at: float | None
    estimated: int = 0
    """The part of `spent` that nobody has measured: lapsed holds, and what was settled as an estimate."""
    hard: bool = True
    window: str = "total"
    """`Window.series`, such as `day` or `rolling 86400`."""

    @property
    def share(self) -> float:
        """How full it is: (spent + held) / limit. Above 1 where it is past its limit."""
        return (self.spent + self.held) / self.limit


def by_share(balance: Balance) -> tuple[float, str, str, str]:
    """What balances are sorted by: the fullest first, then by name."""
    return -balance.share, balance.budget, balance.account, balance.window


class Fullest(NamedTuple):
    """The accounts that have used most of their limits, in the order of `by_share`; and what else there is.

    `number` is how many accounts there are in all, `budgets` are those that have one.
    """

    balances: tuple[Balance, ...]
    number: int
    budgets: frozenset[str]


@dataclass(frozen=True, slots=True)
class Hold:
    """A reservation that has not ended, as the ledger knows it. `at` and `lapses_at` in seconds since the epoch.

    `accounts` are pairs of a budget and an account. `lapses_at` is when the lease ends, if nobody renews it.
    """

    id: str
    tier: str
    model: str
    cost: int
    at: float
    lapses_at: float
    accounts: tuple[tuple[str, str], ...]
    tenant: str | None = None
    route: str | None = None


@dataclass(frozen=True, slots=True)
class Spent:
    """What one tenant spent on one route and one tier within one hour. Money in nano-USD.

    `hour` is when it began, in seconds since the epoch; a hold is booked to the hour in which it was made. `attempts`
    counts those of the app's calls, and its requests of batches that were sent; `own` is the part of `cost` that
    Tierline's own questions came to, `estimated` the part that nobody has measured.
    """

    hour: float
    tenant: str | None
    route: str | None
    tier: str
    attempts: int
    cost: int
    own: int = 0
    estimated: int = 0


@dataclass(frozen=True, slots=True)
class Alert:
    """So much of a budget is spent: told once for each share in each window, over all processes. Money in nano-USD.

    `share` is the one of `Budget(alert_at=…)` that was reached. At 1.0, `refused` says that a call was refused
    because it might have exceeded the limit; `spent` may then be below it.
    """

    budget: str
    account: str
    share: float
    spent: int
    limit: int
    renews_at: float | None
    refused: bool = False


class Ledger(Protocol):
    """Balances of accounts, and the holds on them.

    Reserving and settling:

    - `reserve` is atomic over all accounts: it takes the first offer that every hard line has room for, or none
    - what an account has used is what was spent and is held in those spans of its window that have not ended
    - thresholds are applied inside the same step: see `tierline.budgets.first_fit`
    - repeating the id of a live reservation returns that reservation, and holds nothing more; the id of one
      that has ended raises ValueError, for as long as a repetition may still be under way
    - an account that stands in `lines` twice is charged once
    - an offer that cannot be bounded (`cost is None`) is refused by a hard line; a soft one holds nothing for it
    - a hold that is not renewed for `lease` seconds lapses: it is charged whole, as an estimate, never dropped.
      Whatever is read of a ledger is read after that has been done
    - `settle` replaces the hold by a cost, once: the first ending wins, and a late settlement of a lapsed hold replaces
      its estimate, for as long as its process may yet come back. `release` is a settlement of 0, by the id alone: an id
      that is not known is ended by it all the same, so that a `reserve` that comes after its release holds nothing
    - `post` charges what was spent without a hold here, once for each id, to the spans of the reservation it is given
    - a reservation is charged to the spans in which it was made, and to the hour
    - a cost above the hold is charged in full: `spent` may then be above the limit
    - the balances of a span that has ended are dropped; a clock that goes back does not bring them back: time stands
      still until it is reached again, and leases run on in the steps that the clock goes forward
    - a call that is refused leaves no trace of an account that has none, and ends no id
    - costs are integers >= 0, in nano-USD: anything else is a mistake in the program, and a ValueError
    - any thread and any event loop may call, one after the other or at once
    - LedgerUnavailableError where the ledger cannot be asked, in bounded time. Whether the step was done is then not
      known: repeat it, or `release` the id

    Limits: `set_limit` stands over the limit of the lines it names, from the next `reserve` on, for all processes.
    Holds that were made before stay, also where they exceed it.

    Alerts: whenever what an account has spent reaches one of its line's `alerts`, and whenever a call is refused by a
    line whose last alert is at the whole limit, listeners are told, once for each in each window over all processes. A
    share that was told is not told again where the limit changes. A refusal by an account that has nothing spent or
    held is not told: no trace is kept of it.
    """

    @property
    def lease(self) -> float:
        """Seconds that a hold lives without being renewed."""
        ...

    @property
    def instant(self) -> bool:
        """Whether no method ever suspends, so that a cancellation cannot come between."""
        ...

    async def reserve(
        self,
        key: str,
        offers: Sequence[Offer],
        lines: Sequence[Line],
        *,
        thresholds: bool = True,
        origin: Origin = NOWHERE,
    ) -> Reservation | Refusal:
        """Hold the worst case of the first offer that fits. `offers` are in order of preference, not empty."""
        ...

    async def settle(self, reservation: Reservation, cost: int, *, estimated: bool = False) -> bool:
        """Replace the hold by `cost`. False where it had been settled before."""
        ...

    async def release(self, key: str) -> bool:
        """Give the hold back. False where there is none, or it had been settled before."""
        ...

    async def post(self, reservation: Reservation, cost: int, *, estimated: bool = False) -> bool:
        """Charge `cost`, without asking for room. False where this id is held here, or has ended before."""
        ...

    async def renew(self, reservations: Sequence[Reservation]) -> None:
        """Begin the lease of every hold anew; those that have ended are left alone."""
        ...

    async def forget(self, lines: Sequence[Line]) -> None:
        """Drop the balances of accounts that cannot come back (a budget for each request).

        A hold on one of them ends as any other, and is charged nowhere.
        """
        ...

    async def ping(self) -> None:
        """Return where the ledger can be asked."""
        ...

    async def aclose(self) -> None:
        """Let go of what belongs to this event loop: connections, threads. The ledger may be used again."""
        ...

    # What operators ask

    async def balances(self, account: str | None = None) -> list[Balance]:
        """Every account that was ever charged in a span that has not ended; or those with one name."""
        ...

    async def fullest(self, most: int) -> Fullest:
        """Of all `balances` the `most` that have the largest share of their limit used, as the store has chosen them.

        For who looks often: whatever `most` is, each account is looked at, but only these are told. Of those that are
        equally full any may be told, and the same ones each time.
        """
        ...

    async def holds(self) -> list[Hold]:
        """Every hold, oldest first."""
        ...

    async def history(self, since: float, until: float | None = None) -> list[Spent]:
        """Spend of every hour that began at or after `since` and before `until` (seconds since the epoch), by hour.

        Hours are kept for a bounded time. What was released is no row of it, and no attempt.
        """
        ...

    async def set_limit(self, budget: str, account: str | None, limit: int | None) -> None:
        """Let `limit` (nano-USD, above 0) hold for an account of a budget; None: for those without one of their own.

        A limit of None takes that back: what the app says holds again.
        """
        ...

    async def limits(self) -> dict[tuple[str, str | None], int]:
        """What `set_limit` has set, by budget and account."""
        ...

    async def confirm(self) -> None:
        """Go on with the balances as they are: an operator's word, where the ledger found that it had lost them."""
        ...

    async def erase(self, account: str) -> None:
        """Drop all that is kept under the name of an account or a tenant: balances, limits, spend by hour.

        Holds of it end as any other, and are charged to their other accounts alone; a late settlement corrects nothing
        that is gone.
        """
        ...

    def watch(self, listener: Callable[[Alert], None]) -> None:
        """Tell `listener` of every alert that a call of this object brings about. It must not block and not raise."""
        ...
