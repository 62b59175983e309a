"""A line as plain values, as files keep it: of a SQLite ledger, and of a journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tierline.budgets import Line
from tierline.windows import Window

if TYPE_CHECKING:
    from collections.abc import Sequence


def fields_of(line: Line) -> tuple[Any, ...]:
    """A line, for JSON."""
    window = line.window
    return (
        *(line.budget, line.account, line.limit, window.unit, window.timezone, window.seconds),
        *(line.hard, line.downgrade_at, line.cheapest_at, line.alert_at),
    )


def line_of(fields: Sequence[Any]) -> Line:
    """The line that `fields_of` was given. ValueError or TypeError for other values."""
    budget, account, limit, unit, timezone, seconds, hard, downgrade_at, cheapest_at, alert_at = fields
    return Line(
        budget, account, limit, Window(unit, timezone, seconds), hard, downgrade_at, cheapest_at, tuple(alert_at)
    )
