"""One slice: a part of some accounts that this process holds, and what its calls came to since it was last reported."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from tierline.budgets import MOST_MONEY
from tierline.ledger.base import Origin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tierline.budgets import Line
    from tierline.ledger.base import Reservation
    from tierline.windows import Span

_AHEAD: Final = 4
"""How many times as much as calls have lately needed at once a slice is to hold."""
_FEWEST: Final = 10
"""Of how many calls a slice has to hold the worst case, or each call is asked for."""
MARGIN: Final = 1.0
"""Seconds before a window ends from which on each call is asked for: this process may misread the ledger's clock."""

Name: TypeAlias = tuple[tuple[str, str, str], ...]
"""Budget, account and series of each line."""
_Row: TypeAlias = tuple[float, Origin, str]
"""An hour, an origin and a tier."""


class Sum(NamedTuple):
    """What calls of one `_Row` came to since the last report. `first` is one of them."""

    first: Reservation
    cost: int = 0
    guess: int = 0
    attempts: int = 0


class Report(NamedTuple):
    """What the ledger is told of a slice. It stays as it is until it is known whether the ledger has it."""

    number: int
    spent: int
    guess: int
    rows: tuple[Sum, ...]
    left: tuple[Reservation, ...]
    """Calls that nobody has renewed: the ledger charges them whole, and remembers them for a late settlement."""
    busy: int
    keep: int
    want: int
    least: int
    final: bool


class Slice:
    """A part of the accounts of `lines`. Money in nano-USD.

    `size` is what it may come to from the last report on: `busy` (in flight now) and `spent` (since then) are a part of
    it. `seen` is what each line had used at that report, with `base` of it here.
    """

    __slots__ = (
        "admitted", "alarmed", "base", "busy", "cap", "due", "expires", "guess", "id", "lapsed", "largest", "left",
        "lines", "name", "number", "open", "origin", "orphan", "pairs", "peak", "pending", "quiet", "reporting", "rows",
        "seen", "size", "spent", "started", "until", "version", "woken",
    )  # fmt: skip

    def __init__(self, name: Name, lines: tuple[Line, ...], started: Reservation, wanted: int) -> None:
        self.id = f"slice-{secrets.token_hex(12)}"
        self.name = name
        self.lines = lines
        self.pairs: tuple[tuple[Line, Span], ...] = started.lines
        self.started = started
        """What it is for, in the ledger's eyes: the origin of its calls, as far as they have one, and an offer."""
        self.open = False
        self.lapsed = False
        """Whether its lease has ended in the ledger: it is charged whole there until it ends here."""
        self.orphan = False
        """Whether the ledger has lost it."""
        self.size = self.busy = self.spent = self.guess = self.base = self.admitted = 0
        self.cap = 0
        """How much of it may be admitted while a report is under way: all of it, but where there is less room now."""
        self.peak = wanted
        """The most that was needed at once since the last report."""
        self.largest = 0
        self.seen: tuple[int, ...] = ()
        self.alarmed = False
        self.until = min(span.until for _, span in started.lines) - MARGIN
        self.expires = self.due = 0.0
        self.version = ""
        """That of the limits that `pairs` are under."""
        self.rows: dict[_Row, Sum] = {}
        self.left: list[Reservation] = []
        self.number = 0
        self.pending: Report | None = None
        self.reporting = False
        self.quiet = 0
        """How many times it was looked after since a call came."""
        self.woken = False
        """Whether somebody was called because it is nearly used up."""
        self.origin: Origin | None = None

    @property
    def room(self) -> int:
        """What may yet be admitted."""
        return self.size - self.busy - self.spent

    def used(self) -> tuple[int, ...]:
        """What each line has used, as far as this process can tell."""
        more = self.busy + self.spent - self.base
        return tuple([seen + more for seen in self.seen])

    def add(self, cost: int) -> None:
        """A call that holds so much is a part of it again, or, below 0, no more. What may yet be admitted stays."""
        self.busy += cost
        self.size += cost
        self.base += cost

    def note(self, held: Reservation, cost: int, guess: int) -> None:
        """A call of it came to `cost`."""
        self.spent += cost
        self.guess += guess
        key = (held.at // 3600, held.origin, held.offer.tier)
        first, so_far, guessed, attempts = self.rows.get(key) or Sum(held)
        self.rows[key] = Sum(first, so_far + cost, guessed + guess, attempts + held.attempts)

    def report(self, moment: float, *, final: bool) -> Report:
        """What is to be told now. What is told is counted there from now on."""
        if self.pending is not None:
            return self.pending
        used = max(self.busy + self.spent, self.busy + self.largest)
        want = least = keep = 0
        if self.open and moment < self.expires and not self.lapsed:
            least = _FEWEST * self.largest
            want = min(max(_AHEAD * max(self.peak, used), 2 * least), MOST_MONEY)
            keep = max(min(self.room, want, self.cap), 0)
        elif self.number == 0:
            least = _FEWEST * self.largest
            want = min(max(_AHEAD * self.peak, 2 * least), MOST_MONEY)
        self.number += 1
        self.pending = Report(
            self.number, self.spent, self.guess, tuple(self.rows.values()), tuple(self.left), self.busy, keep, want,
            least, final,
        )  # fmt: skip
        self.base -= self.spent
        self.spent = self.guess = self.admitted = 0
        self.rows, self.left = {}, []
        self.peak, self.woken = self.busy, False
        self.size = self.busy + keep
        return self.pending

    def accepted(self, report: Report, idle: int, cap: int, seen: Sequence[int], expires: float) -> None:
        """The ledger has a report, and holds so much more than what was in flight by it."""
        self.pending = None
        self.size, self.cap = report.busy + idle, cap
        self.base = report.busy
        self.seen = tuple(seen)
        self.alarmed = any(used >= line.alarm_from for (line, _), used in zip(self.pairs, seen, strict=True))
        self.expires = expires

    def withdrawn(self) -> None:
        """The ledger does not have the report, and never will."""
        report, self.pending = self.pending, None
        if report is None:
            return
        self.spent += report.spent
        self.base += report.spent
        self.guess += report.guess
        self.left[:0] = report.left
        for row in report.rows:
            key = (row.first.at // 3600, row.first.origin, row.first.offer.tier)
            later = self.rows.get(key) or Sum(row.first)
            self.rows[key] = Sum(
                row.first, row.cost + later.cost, row.guess + later.guess, row.attempts + later.attempts
            )
