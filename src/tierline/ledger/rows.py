"""What the rows of a SQLite ledger hold, and how it is written into them."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tierline.budgets import MOST_MONEY, Line
from tierline.windows import Span, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tierline.ledger.base import Reservation

COLUMNS: Final = "id, budget, account, series, start, until, spent, held, estimated, told, most, hard, alerts"


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
    alerts: str

    @property
    def rolls(self) -> bool:
        """Whether several rows of the account count at a time."""
        return self.series.startswith("rolling")


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
        _, budget, account, limit, unit, timezone, seconds, hard, downgrade, cheapest, alerts, *rest = entry
        window = Window(unit, timezone, seconds)
        line = Line(budget, account, limit, window, hard, downgrade, cheapest, tuple(alerts))
        start, until, end, used = rest
        return cls(line, Span(start, until, end), used)


def lines_text(reservation: Reservation, places: Sequence[Place]) -> str:
    """JSON of the lines of a reservation, each with the id of its row, the budget and the account in front."""
    entries = []
    for (line, span), used, place in zip(reservation.lines, reservation.used, places, strict=True):
        row = place.current.id if place.current is not None else 0
        entries.append(f"[{row},{_line_text(line)},{_span_text(span)},{used}]")
    return f"[{','.join(entries)}]"


@lru_cache(maxsize=4096)
def _line_text(line: Line) -> str:
    window = line.window
    return json.dumps(
        [
            line.budget,
            line.account,
            line.limit,
            window.unit,
            window.timezone,
            window.seconds,
            line.hard,
            line.downgrade_at,
            line.cheapest_at,
            line.alert_at,
        ]
    )[1:-1]


@lru_cache(maxsize=1024)
def _span_text(span: Span) -> str:
    return json.dumps(span)[1:-1]


@lru_cache(maxsize=1024)
def alerts_text(shares: tuple[float, ...], amounts: tuple[int, ...]) -> str:
    """JSON of the shares at which there is an alert, each with its amount in nano-USD."""
    return json.dumps(list(zip(shares, amounts, strict=True)))


@lru_cache(maxsize=1024)
def alerts_of(text: str) -> tuple[tuple[float, int], ...]:
    """What `alerts_text` wrote."""
    return tuple((share, amount) for share, amount in json.loads(text))


def alarm(alerts: str, told: int, *, rolls: bool) -> int | None:
    """The least that one row has spent when there may be an alert to tell; None for never."""
    if rolls:  # the sum of several rows counts
        return 0 if alerts_of(alerts) else None
    return next((amount for place, (_, amount) in enumerate(alerts_of(alerts)) if not told >> place & 1), None)


@lru_cache(maxsize=1024)
def _marks(number: int) -> str:
    return ",".join("?" * number)


def marks(values: Sequence[object]) -> str:
    """A place for each of the values in a statement."""
    return _marks(len(values))


def wrong_cost(cost: object) -> ValueError | None:
    """What is wrong with a cost; None where nothing is. Sums of such costs fit a 64-bit integer."""
    if type(cost) is int and 0 <= cost <= MOST_MONEY:
        return None
    return ValueError(
        f"a cost is a whole number of nano-USD, at least 0 and at most {MOST_MONEY} ($1,000,000,000), not {cost!r:.40}"
    )
