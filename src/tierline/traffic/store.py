"""What a store of traffic must do, and in which pieces sums are kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

from tierline.traffic.base import Counts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tierline.traffic.base import BreakerStanding, Worker

HOUR: Final = 3_600
QUARTER: Final = 6 * HOUR
DAY: Final = 86_400
WEEK: Final = 7 * DAY
LEVELS: Final = (HOUR, QUARTER, DAY, WEEK)
"""Seconds of a piece: of any stretch there are few that are whole. Nobody sees that weeks begin on Thursdays.

Each is written with every row, and read with every name in it. With quarters of a day, 24 hours are at most nine pieces
and not 24: names of ten thousand accounts are told in a third of the time.
"""
KEPT: Final = 90 * DAY
"""Seconds for which days are kept, and hours by tier: as long as the ledger keeps spend."""
HOURS_KEPT: Final = 100 * HOUR
"""Seconds for which hours and quarters by name are kept: two days, and the two before them to compare with."""
_FINE: Final = 48 * HOUR
"""Seconds from which on names are added up by whole days."""
MOST_NAMES: Final = 20_000
"""Most names of a kind that are told apart within a day: they may come from anywhere. The rest is `(other)`."""
MOST_DECISIONS: Final = 500
"""Decisions that a store keeps."""
AHEAD: Final = HOUR
"""Seconds by which clocks may differ: a decision of later than that is dropped, or it would stay the latest."""
ALIVE: Final = 20.0
"""Seconds since a worker was last heard of in which it counts as alive."""
REMEMBERED: Final = DAY
"""Seconds for which it is remembered what a worker has written."""

Kind = Literal["tier", "route", "account", "job"]
KINDS: Final[tuple[Kind, ...]] = ("route", "account", "job")
"""Those whose names are many, and of which only the dearest are told."""


class Row(NamedTuple):
    """What is to be added to the sums of one name in one hour (seconds since the epoch)."""

    kind: Kind
    hour: int
    name: str
    counts: Counts


class Place(NamedTuple):
    """Where a decision stands among all: they are in the order of when they were settled, and then of their ids."""

    at: float
    id: str = ""


class Record(NamedTuple):
    """A decision as it is kept: `at` is when it was settled, as the record says it, `text` its record, as JSON."""

    id: str
    at: float
    account: str
    text: str


class Beat(NamedTuple):
    """That a worker is alive, and which of its breakers are not closed."""

    worker: str
    started: float
    breakers: tuple[BreakerStanding, ...] = ()


class Piece(NamedTuple):
    """A stretch for which sums are kept: how long it is, and when it begins. Whole seconds."""

    level: int
    start: int


class Span(NamedTuple):
    """What is read: hours by tier from `since` to `until` (not included), and names in these pieces."""

    since: int
    until: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Ranking:
    """Names of one kind, the dearest first; how many there were, and what all of them came to."""

    names: Mapping[str, Counts] = field(default_factory=dict)
    number: int = 0
    total: Counts = field(default_factory=Counts)


@dataclass(frozen=True, slots=True)
class Found:
    """What a store has of a span: hours by tier, in order, and the names of each kind."""

    hours: Sequence[tuple[int, Mapping[str, Counts]]]
    ranked: Mapping[Kind, Ranking]
    workers: Sequence[Worker]
    breakers: Sequence[BreakerStanding]


class TrafficStore(Protocol):
    """Where the processes of an app add up what their calls did.

    - `add` adds rows, keeps records, and notes that the worker is alive: all of it or nothing
    - the same `number` of one worker adds nothing a second time, for a day; numbers grow, and 0 adds nothing at all
    - a row of a name counts in its piece of each of `LEVELS`; a tier's in its hour alone
    - within a day at most `MOST_NAMES` names of a kind are told apart; what comes after them is `(other)`
    - days, and hours by tier, are dropped after `KEPT` seconds, hours and quarters of names after `HOURS_KEPT`
    - `read` gives at most `most` names of each kind, by cost; none of them is read for 0
    - the latest `MOST_DECISIONS` records are kept, in the order of `Place`; one that comes again replaces the first
    - `forget` drops an account, its jobs, and its decisions. Sums without a name keep what it came to
    - `ended` gives the sessions of the page that `end` was told of, until they would have ended by themselves
    - where the store is away, every method raises LedgerUnavailableError within its patience
    - each method may be called from any event loop
    """

    async def add(self, beat: Beat, number: int, rows: Sequence[Row], records: Sequence[Record]) -> None:
        """Add what a worker has seen."""
        ...

    async def read(self, span: Span, most: int) -> Found:
        """Sums of a span, and who is there now."""
        ...

    async def decisions(self, most: int, before: Place | None) -> list[str]:
        """Records, the newest first; those that stand before a place."""
        ...

    async def decision(self, id: str) -> str | None:  # noqa: A002  (the field's name)
        """One record."""
        ...

    async def forget(self, account: str) -> None:
        """Drop what is kept of an account."""
        ...

    async def end(self, session: str, until: float) -> None:
        """Note that a session has ended, which would have gone on until then."""
        ...

    async def ended(self) -> frozenset[str]:
        """Sessions that have ended before their time."""
        ...


def span_of(since: float, until: float, now: float, *, named: bool) -> Span:
    """The span that is read for what has a part between `since` and `until`. With `named`, names are read too."""
    begin, end = int(since // HOUR) * HOUR, _up(until, HOUR)
    if not named:
        return Span(begin, end, ())
    levels: tuple[int, ...] = (DAY, QUARTER, HOUR)
    if end - begin > _FINE + HOUR or begin < now - HOURS_KEPT:
        levels = (WEEK, DAY)
        begin, end = begin - begin % DAY, _up(until, DAY)
    pieces, start = [], begin
    while start < end:
        # Of what is to come there is nothing yet: the piece that it is now may be read whole.
        level = next(each for each in levels if start % each == 0 and (start + each <= end or end >= now))
        pieces.append(Piece(level, start))
        start += level
    return Span(begin, end, tuple(pieces))


def pieces_of(row: Row, now: float) -> tuple[Piece, ...]:
    """Where a row counts, as long as it is kept there."""
    levels = LEVELS[:1] if row.kind == "tier" else LEVELS
    pieces = [Piece(level, row.hour - row.hour % level) for level in levels]
    return tuple(each for each in pieces if each.start + each.level > now - kept_for(row.kind, each.level))


def kept_for(kind: Kind, level: int) -> int:
    """For how many seconds after its end a piece of this length is kept."""
    return HOURS_KEPT if level < DAY and kind != "tier" else KEPT


def _up(at: float, step: int) -> int:
    return int(-(-at // step)) * step
