"""How the accounts of a SQLite file stand: read of any connection, and on any thread.

Calls wait for the one that writes, and whoever looks at ten thousand accounts may take a while.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from tierline.ledger.base import Balance, Fullest, by_share
from tierline.ledger.limits import Limits, limit_of
from tierline.ledger.rows import COLUMNS, Row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from sqlite3 import Connection

_ALL: Final = f"SELECT {COLUMNS} FROM span WHERE until > ? AND (? IS NULL OR account = ?) ORDER BY id"  # noqa: S608
_ONE: Final = (
    f"SELECT {COLUMNS} FROM span"  # noqa: S608  (names of columns)
    " WHERE budget = ? AND account = ? AND series = ? AND until > ? ORDER BY start"
)
_NUMBER: Final = (
    "SELECT budget, count(*) FROM (SELECT DISTINCT budget, account, series FROM span WHERE until > ?) GROUP BY budget"
)
# Beside max() stand the values of its row: `most` is that of the newest. total() is no integer, and has no end.
_FULLEST: Final = """
WITH used AS (
    SELECT budget, account, series, total(spent) + total(held) AS amount, most, max(start) FROM span
    WHERE until > ? GROUP BY budget, account, series
)
SELECT used.budget, used.account, series FROM used
LEFT JOIN limits AS own ON own.budget = used.budget AND ifnull(own.account, 0) = +used.account
LEFT JOIN limits AS every ON every.budget = used.budget AND ifnull(every.account, 0) = 0
ORDER BY amount / coalesce(own.most, every.most, used.most) DESC, used.budget, used.account, series LIMIT ?
"""


class Moment(NamedTuple):
    """When it is looked, and under which limits."""

    now: float
    limits: Limits


def live_rows(db: Connection, budget: str, account: str, series: str, now: float) -> list[Row]:
    """The rows of an account that count, oldest first."""
    return list(map(Row._make, db.execute(_ONE, (budget, account, series, now))))


def balance_of(live: Sequence[Row], limits: Limits) -> Balance:
    """What the rows of an account that count come to."""
    last = live[-1]
    if len(live) == 1:  # nearly always
        spent, held, estimated, end = last.spent, last.held, last.estimated, last.until
    else:
        end = min([row.until for row in live if row.spent or row.held] or [last.until])
        spent, held, estimated = (sum(column) for column in zip(*(row[6:9] for row in live), strict=True))
    return Balance(
        last.budget,
        last.account,
        spent,
        held,
        limit_of(limits, last.budget, last.account) or last.most,
        None if end == inf else end,
        estimated,
        bool(last.hard),
        last.series,
    )


def balances(db: Connection, moment: Moment, account: str | None) -> list[Balance]:
    """As `Ledger.balances`."""
    accounts: dict[tuple[str, str, str], list[Row]] = {}
    for row in map(Row._make, db.execute(_ALL, (moment.now, account, account))):
        accounts.setdefault((row.budget, row.account, row.series), []).append(row)
    return [balance_of(_in_order(live), moment.limits) for live in accounts.values()]


def fullest(db: Connection, moment: Moment, most: int) -> Fullest:
    """As `Ledger.fullest`."""
    names = db.execute(_FULLEST, (moment.now, most)).fetchall()
    found = [
        balance_of(live_rows(db, budget, account, series, moment.now), moment.limits)
        for budget, account, series in names
    ]
    numbers = dict(db.execute(_NUMBER, (moment.now,)).fetchall())
    return Fullest(tuple(sorted(found, key=by_share)), sum(numbers.values()), frozenset(numbers))


def _in_order(rows: list[Row]) -> list[Row]:
    return rows if len(rows) == 1 else sorted(rows, key=lambda row: row.start)
