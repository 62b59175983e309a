"""What the rows of a SQLite ledger hold, and how it is written into them."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tierline.budgets import Line
from tierline.ledger.checks import bounded_cost, check_offers
from tierline.ledger.lines import fields_of, line_of
from tierline.windows import Span, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tierline.ledger.base import Reservation
    from tierline.values import Offer

COLUMNS: Final = "id, budget, account, series, start, until, spent, held, estimated, told, most, hard, shares"


class Row(NamedTuple):
    """One row of the table `span`."""

    id: int
    budget: str
    account: str
    series: str
    start: float
    until: float
    spent: int
    held: int
    estimated: int
    told: int
    most: int
    hard: int
    shares: str

    @property
    def rolls(self) -> bool:
        """Whether several rows of the account count at a time."""
        return self.series.startswith("rolling")


class Given(NamedTuple):
    """What a row notes of the line that its account was last given."""

    most: int
    hard: int
    shares: str

    @classmethod
    def of(cls, line: Line) -> Given:
        """From the line."""
        return cls(line.limit, int(line.hard), _shares_text(line.alert_at))

    @property
    def alarm(self) -> int | None:
        """The least spent at which somebody must look whether there is something to tell, while that is not known."""
        return None if self.shares == "[]" else 0


class Place:
    """Where a line is charged: the span of its window, its row if there is one, and all rows that count."""

    __slots__ = ("current", "line", "live", "span")

    def __init__(self, line: Line, span: Span, live: list[Row]) -> None:
        self.line, self.span, self.live = line, span, live
        self.current = live[-1] if live and live[-1].start == span.start else None

    @property
    def used(self) -> int:
        """Spent + held, in nano-USD."""
        return sum([row.spent + row.held for row in self.live])


class Kept(NamedTuple):
    """A line of a reservation as it is kept with the hold."""

    line: Line
    span: Span
    used: int

    @classmethod
    def of(cls, entry: Sequence[Any]) -> Kept:
        """From what `lines_text` wrote."""
        _, *fields, start, until, end, used = entry
        return cls(line_of(fields), Span(start, until, end), used)


def lines_text(reservation: Reservation, places: Sequence[Place]) -> str:
    """JSON of the lines of a reservation, each with the id of its row, the budget and the account in front."""
    entries = []
    for (line, span), used, place in zip(reservation.lines, reservation.used, places, strict=True):
        row = place.current.id if place.current is not None else 0
        entries.append(f"[{row},{_line_text(line)},{_span_text(span)},{used}]")
    return f"[{','.join(entries)}]"


@lru_cache(maxsize=4096)
def _line_text(line: Line) -> str:
    return json.dumps(fields_of(line))[1:-1]


@lru_cache(maxsize=1024)
def _span_text(span: Span) -> str:
    return json.dumps(span)[1:-1]


@lru_cache(maxsize=256)
def _shares_text(shares: tuple[float, ...]) -> str:
    """JSON of the shares at which there is an alert."""
    return json.dumps(shares)


@lru_cache(maxsize=1024)
def alerts_of(text: str, limit: int) -> tuple[tuple[float, int], ...]:
    """Each share of `Given.shares`, and the least amount spent at or above it. Money in nano-USD."""
    shares = tuple(json.loads(text))
    return tuple(zip(shares, Line("", "", limit, Window("total"), alert_at=shares).alerts, strict=True))


@lru_cache(maxsize=1024)
def _marks(number: int) -> str:
    return ",".join("?" * number)


def marks(values: Sequence[object]) -> str:
    """A place for each of the values in a statement."""
    return _marks(len(values))


def wrong_offers(offers: Sequence[Offer]) -> ValueError | None:
    """What is wrong with the offers; None where nothing is."""
    try:
        check_offers(offers)
        for offer in offers:
            bounded_cost(offer.cost or 0)
    except ValueError as error:
        return error
    return None
