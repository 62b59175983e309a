"""What a worker may spend from its own memory while its ledger is away, and what it goes by: the last that it saw."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from tierline.budgets import first_fit
from tierline.errors import LedgerUnavailableError
from tierline.ledger.memory import MemoryLedger
from tierline.ledger.refusing import Part, refusal
from tierline.values import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tierline.budgets import Line
    from tierline.ledger.base import Origin, Reservation
    from tierline.values import Offer
    from tierline.windows import Span

_MOST_SEEN: Final = 10_000
"""How many accounts are remembered."""

_Name: TypeAlias = tuple[str, str, str]


class _Last(NamedTuple):
    """An account as it was last seen: the limit that held, what was spent and held (nano-USD), and until when
    that counts (seconds since the epoch)."""  # noqa: D205, D209

    limit: int
    used: int
    until: float


class Seen:
    """Accounts as a worker saw them last: bounded, and safe from any thread, for every step is one of a dict's."""

    def __init__(self) -> None:
        self._last: dict[_Name, _Last] = {}

    def held(self, held: Reservation) -> None:
        """Remember what a reservation told."""
        for (line, span), used in zip(held.lines, held.used, strict=True):
            self._keep(line, _Last(line.limit, used + held.cost, span.end))

    def refused(self, found: Refusal, lines: Sequence[Line]) -> None:
        """Remember what a refusal told of `lines`."""
        for line, left in zip(lines, found.budgets, strict=False):
            self._keep(line, _Last(left.limit, left.limit - left.remaining, line.window.span(found.at).end))

    def sliced(self, standing: Iterable[tuple[Line, Span, int]]) -> None:
        """Remember what the accounts of slices had used, the slices themselves included."""
        for line, span, used in standing:
            self._keep(line, _Last(line.limit, used, span.end))

    def spent(self, budget: str, account: str, series: str, amount: int) -> None:
        """Add what was spent without the ledger."""
        name = (budget, account, series)
        if (last := self._last.get(name)) is not None:
            self._last[name] = last._replace(used=last.used + amount)

    def of(self, line: Line, now: float) -> tuple[Line, int]:
        """The line under the limit that held for it last, and what it had used."""
        last = self._last.get(_name(line))
        if last is None:
            return line, 0
        return line.limited(last.limit), last.used if now < last.until else 0

    def _keep(self, line: Line, last: _Last) -> None:
        seen = self._last
        seen[_name(line)] = last
        if len(seen) > _MOST_SEEN:
            seen.pop(next(iter(seen)), None)


class Allowance:
    """The spending of one worker in one outage.

    `share` is how much of each hard limit it may spend in each window, from 0 to 1, and never more than was left when
    the account was last seen. Soft lines record and never refuse.
    """

    def __init__(self, seen: Seen, share: float, clock: Callable[[], float], lease: float) -> None:
        self._seen = seen
        self._share = Fraction(repr(share))
        self._clock = clock
        self._ledger = MemoryLedger(clock, lease)

    async def reserve(
        self, key: str, offers: Sequence[Offer], lines: Sequence[Line], *, thresholds: bool, origin: Origin
    ) -> Reservation | Refusal:
        """Hold the worst case of the first offer that fits.

        A Refusal where none would have fitted when the accounts were last seen, LedgerUnavailableError where the
        allowance is used up. The reservation's numbers are those of the accounts, as far as they are known here.
        """
        now = self._clock()
        seen = [self._seen.of(line, now) for line in lines]
        known, used = [line for line, _ in seen], [amount for _, amount in seen]
        skipped, left_out, tight = first_fit(offers, known, used, thresholds=thresholds)
        if skipped == len(offers):
            parts = [[Part(line.window.span(now).end, amount, 0)] for line, amount in seen]
            return refusal(offers[left_out:], known, parts, now)
        allowed = []
        for line, amount in seen:
            room = min(int(line.limit * self._share), line.limit - amount)
            if line.hard and room <= 0:
                raise LedgerUnavailableError(_used_up(line.budget))
            allowed.append(line.limited(room) if line.hard else line)
        held = await self._ledger.reserve(key, offers[skipped:], allowed, thresholds=thresholds, origin=origin)
        if isinstance(held, Refusal):
            raise LedgerUnavailableError(_used_up(held.budget))
        spans = [span for _, span in held.lines]
        return held._replace(
            lines=tuple(zip(known, spans, strict=True)),
            used=tuple(there + here for there, here in zip(used, held.used, strict=True)),
            skipped=skipped + held.skipped,
            tight=held.tight or tight,
            unasked=True,
        )

    async def settle(self, held: Reservation, cost: int) -> None:
        """Replace a hold by `cost`."""
        await self._ledger.settle(held, cost)

    async def release(self, key: str) -> None:
        """Give a hold back."""
        await self._ledger.release(key)

    async def renew(self, held: Sequence[Reservation]) -> None:
        """Begin leases anew."""
        await self._ledger.renew(held)

    async def close(self) -> None:
        """The ledger is back: what was spent here is a part of what the accounts have used."""
        for balance in await self._ledger.balances():
            self._seen.spent(balance.budget, balance.account, balance.window, balance.spent + balance.held)


def _used_up(budget: str) -> str:
    return f"it is away, and what this worker may spend of budget {budget!r} meanwhile is used up"


def _name(line: Line) -> _Name:
    return line.budget, line.account, line.window.series
