"""What a ledger is: the contract that every backend keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from tierline.values import Remaining

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tierline.budgets import Line
    from tierline.values import Offer, Refusal


class Reservation(NamedTuple):
    """A hold on every account of one attempt.

    It carries all that settling needs, so that nothing is looked up later: in which accounts and in which
    windows the money is held (`lines`), and how much (`cost`, nano-USD; what a soft budget could not bound is 0).
    A named tuple, for one is made on every call: a frozen dataclass costs four times as much.
    """

    id: str
    offer: Offer
    cost: int
    lines: tuple[tuple[Line, int], ...]
    """Each account with the key of the window in which the hold was made."""
    used: tuple[int, ...] = ()
    """What each of `lines` had spent and held before this call, in nano-USD."""
    skipped: int = 0
    """How many offers were passed over, for a threshold or for lack of room."""
    tight: str = ""
    """The name of the budget that made it skip them."""

    @property
    def share(self) -> float:
        """The fullest budget's (spent + held) / limit before this call; 0.0 without budgets."""
        return max((used / line.limit for (line, _), used in zip(self.lines, self.used, strict=True)), default=0.0)

    @property
    def remaining(self) -> tuple[Remaining, ...]:
        """Each budget as it stood when the call was admitted, this hold included; below 0 is past the limit."""
        return tuple(
            Remaining(line.budget, line.account, line.limit, line.limit - used - self.cost, line.hard)
            for (line, _), used in zip(self.lines, self.used, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Balance:
    """One account of one budget, now. Money in nano-USD; `renews_at` in seconds since the epoch."""

    budget: str
    account: str
    spent: int
    held: int
    limit: int
    renews_at: float | None
    estimated: int = 0
    """The part of `spent` that nobody has measured: lapsed holds, and what was settled as an estimate."""


class Ledger(Protocol):
    """Balances of accounts, and the holds on them.

    - `reserve` is atomic over all accounts: it takes the first offer that every hard line has room for, or none
    - thresholds are applied inside the same step: see `tierline.budgets.first_fit`
    - repeating the id of a live reservation returns that reservation, and holds nothing more; the id of one
      that has ended is not used again
    - an account that stands in `lines` twice is charged once
    - an offer that cannot be bounded (`cost is None`) is refused by a hard line; a soft one holds nothing for it
    - a hold that is not renewed for `lease` seconds lapses: it is charged whole, as an estimate, never dropped
    - `settle` replaces the hold by a cost, once: the first ending wins, and a late settlement
      of a lapsed hold replaces its estimate. `release` is a settlement of 0
    - a reservation is charged to the windows in which it was made
    - a cost above the hold is charged in full: `spent` may then be above the limit
    - the balances of a window that has ended are dropped; a clock that goes back does not bring them back
    - costs are integers >= 0, in nano-USD: anything else is a mistake in the program, and a ValueError
    - LedgerUnavailableError where the ledger cannot be asked
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
        self, key: str, offers: Sequence[Offer], lines: Sequence[Line], *, thresholds: bool = True
    ) -> Reservation | Refusal:
        """Hold the worst case of the first offer that fits. `offers` are in order of preference, not empty."""
        ...

    async def settle(self, reservation: Reservation, cost: int, *, estimated: bool = False) -> bool:
        """Replace the hold by `cost`. False where it had been settled before."""
        ...

    async def release(self, reservation: Reservation) -> bool:
        """Give the hold back. False where it had been settled before."""
        ...

    async def renew(self, reservations: Sequence[Reservation]) -> None:
        """Begin the lease of every hold anew; those that have ended are left alone."""
        ...

    async def forget(self, lines: Sequence[Line]) -> None:
        """Drop the balances of accounts that cannot come back (a budget for each request)."""
        ...

    async def ping(self) -> None:
        """Return where the ledger can be asked."""
        ...

    async def balances(self) -> list[Balance]:
        """Every account that was ever charged in a window that has not ended."""
        ...
