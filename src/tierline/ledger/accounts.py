"""Accounts in a SQLite file: the time they go by, what comes due, what is charged and what is told of it.

Everything here is done inside of one transaction. Nothing begins, commits or waits: see `tierline.store.sqlite`. The
tables are described in `store/schema.py`.
"""

# ruff: noqa: S608  (names of columns and question marks are all that is put into statements)

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, TypeAlias

from tierline.ledger.base import Alert
from tierline.ledger.limits import Limits, limit_of
from tierline.ledger.rollup import hour_of
from tierline.ledger.rows import Given, Place, Row, alerts_of, marks
from tierline.ledger.standings import Moment, balance_of, live_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from sqlite3 import Connection


log: Final = logging.getLogger("tierline")

LIVE, LAPSED, ENDED = 0, 1, 2
"""What a hold can be."""

REMEMBER: Final = 3_600.0
"""Seconds for which an id is remembered that has ended: a repetition of its `reserve` may still be under way."""
REMEMBER_POSTED: Final = 7 * 86_400.0
"""Least seconds for which one is that was posted: a journal may be read again after days."""
_REMEMBER_LAPSED: Final = 86_400.0
"""Least seconds for which a lapsed hold may be settled late. The estimates of older ones stand."""
_MOST_AT_ONCE: Final = 500
"""How many holds lapse, and how many old rows go, in one transaction: others wait meanwhile."""
_FAR: Final = 3_600.0
"""Seconds that a clock may be behind without a word."""
_SWEEP: Final = 1.0
"""Seconds between two sweeps of old rows."""

_Booked: TypeAlias = tuple[int, str | None, str | None, str, bool]
"""Hour, tenant, route, tier, and whether Tierline asked for itself."""


class Accounts:
    """The tables of a ledger, and the moment at which a transaction looks at them.

    `tick` comes first in every transaction. `noted` are the alerts to be told when it is committed.
    """

    def __init__(self, clock: Callable[[], float], lease: float, retention: float, remember: float) -> None:
        self.noted: list[Alert] = []
        self._clock = clock
        self._lease = lease
        self._retention = retention
        self._remember = remember
        self._now = self._moment = self._born = self._sweep_at = 0.0
        self._warned = False
        self._edition: int | None = None
        self._limits: Limits = {}

    def tick(self, db: Connection) -> None:
        """Read the clock, and do what has come due."""
        read = self._clock()
        row = db.execute("SELECT read, now, behind, born, edition FROM time").fetchone()
        if row is None:
            row = (read, read, 0.0, None, 0)
            db.execute("INSERT INTO time VALUES (1, ?, ?, ?, ?, ?)", row)
        last, now, behind, born, edition = row
        if read < last:
            behind += last - read
        now = max(now, read)
        if now - read > _FAR and not self._warned:
            self._warned = True
            log.warning(
                "the clock is %.0f s behind what the ledger's file has seen, and until it has caught up no budget "
                "renews: set it right, or confirm() that it is",
                now - read,
            )
        if born is None:
            born = now
        db.execute("UPDATE time SET read = ?, now = ?, behind = ?, born = ?", (read, now, behind, born))
        self._now, self._moment, self._born = now, read + behind, born
        self.noted = []
        if edition != self._edition:
            self._read_limits(db)
            self._edition = edition
        self._lapse(db)
        if not self._sweep_at - _SWEEP <= self._moment < self._sweep_at:
            self._sweep(db)

    def trust_clock(self, db: Connection) -> None:
        """Let time go back to what the clock says: an operator's word, where it once was far ahead.

        Balances of windows that have not begun yet are dropped.
        """
        db.execute("UPDATE time SET now = read, born = min(born, read)")
        db.execute("DELETE FROM span WHERE start > (SELECT now FROM time)")
        self._warned = False

    # What comes due

    def _lapse(self, db: Connection) -> bool:
        """Charge holds whole whose lease is over. Whether there may be more of them."""
        rows = db.execute(
            "SELECT id, cost, at, tenant, route, tier, own, spans FROM hold WHERE state = 0 AND due <= ?"
            " ORDER BY due LIMIT ?",
            (self._moment, _MOST_AT_ONCE),
        ).fetchall()
        if not rows:
            return False
        charges: dict[int, int] = {}
        booked: dict[_Booked, tuple[int, int]] = {}
        for _, cost, at, tenant, route, tier, own, spans in rows:
            for text in spans.split():
                charges[int(text)] = charges.get(int(text), 0) + cost
            where = (hour_of(at), tenant, route, tier, bool(own))
            sum_, count = booked.get(where, (0, 0))
            booked[where] = sum_ + cost, count + 1
        db.executemany(
            "UPDATE span SET held = held - ?, spent = spent + ?, estimated = estimated + ? WHERE id = ?",
            [(cost, cost, cost, id_) for id_, cost in charges.items()],
        )
        for where, (cost, count) in booked.items():
            self._book(db, where, cost, cost, count)
        db.executemany(
            "UPDATE hold SET state = ?, due = ? WHERE id = ?",
            [(LAPSED, self._moment + max(_REMEMBER_LAPSED, self._remember), row[0]) for row in rows],
        )
        ids = list(charges)
        for start in range(0, len(ids), _MOST_AT_ONCE):
            self._alarm_at(db, ids[start : start + _MOST_AT_ONCE])
        return len(rows) == _MOST_AT_ONCE

    def settled_down(self, db: Connection) -> Moment:
        """Let everything lapse that is due, for somebody reads. Gives what they need for that."""
        while self._lapse(db):
            pass
        return Moment(self._now, dict(self._limits))

    def _sweep(self, db: Connection) -> None:
        """Drop a bounded number of rows that nobody needs any more."""
        some = _MOST_AT_ONCE
        gone = [
            db.execute(
                "DELETE FROM hold WHERE id IN (SELECT id FROM hold WHERE state = ? AND due <= ? LIMIT ?)",
                (state, self._moment, some),
            ).rowcount
            for state in (LAPSED, ENDED)
        ]
        gone += [
            db.execute(
                "DELETE FROM span WHERE id IN (SELECT id FROM span WHERE until <= ? LIMIT ?)", (self._now, some)
            ).rowcount,
            db.execute(
                "DELETE FROM spend WHERE rowid IN (SELECT rowid FROM spend WHERE hour <= ? LIMIT ?)",
                (self._now - self._retention, some),
            ).rowcount,
        ]
        # Where there is more, the next transaction goes on.
        self._sweep_at = self._moment + (_SWEEP if max(gone) < some else 0)

    # Accounts

    def _open(self, db: Connection, place: Place, given: Given) -> Row:
        """A new row for the span of `place`."""
        line, span, live = place.line, place.span, place.live
        values = (line.budget, line.account, line.window.series, span.start, span.end, 0, 0, 0, 0)
        cursor = db.execute(
            "INSERT INTO span (budget, account, series, start, until, spent, held, estimated, told, most, hard, shares,"
            " alarm) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*values, *given, given.alarm),
        )
        place.current = Row(cursor.lastrowid or 0, *values, *given)
        if live and (live[-1].shares != given.shares or not live[-1].rolls):
            self._look_again(db, place, given)
        return place.current

    def _relined(self, db: Connection, place: Place) -> None:
        """Note the line that was last given with the newest row: a plan may have changed since."""
        row, given = place.live[-1], Given.of(place.line)
        if (row.most, row.hard, row.shares) != given:
            db.execute("UPDATE span SET most = ?, hard = ?, shares = ? WHERE id = ?", (*given, row.id))
            self._look_again(db, place, given)

    @staticmethod
    def _look_again(db: Connection, place: Place, given: Given) -> None:
        """With the next charge to any row of the account, see whether there is something to tell."""
        line = place.line
        db.execute(
            "UPDATE span SET alarm = ? WHERE budget = ? AND account = ? AND series = ?",
            (given.alarm, line.budget, line.account, line.window.series),
        )

    def _live(self, db: Connection, budget: str, account: str, series: str) -> list[Row]:
        """The rows of an account that count, oldest first."""
        return live_rows(db, budget, account, series, self._now)

    # Charges, and what is told of them

    def _book(self, db: Connection, booked: _Booked, cost: int, estimated: int, attempts: int) -> None:
        """Add to an hour; less than nothing takes back."""
        hour, tenant, route, tier, own = booked
        if hour > self._now - self._retention:
            db.execute(
                "INSERT INTO spend VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (hour, tier, ifnull(tenant, 0), ifnull(route, 0)) DO UPDATE SET"
                " attempts = attempts + excluded.attempts, cost = cost + excluded.cost, own = own + excluded.own,"
                " estimated = estimated + excluded.estimated",
                (hour, tenant, route, tier, 0 if own else attempts, cost, cost if own else 0, estimated),
            )

    def _alarm_at(self, db: Connection, ids: Sequence[int]) -> None:
        """Something was charged to these spans: note which alerts that reaches for the first time."""
        found = db.execute(
            f"SELECT budget, account, series FROM span WHERE id IN ({marks(ids)}) AND spent >= alarm AND until > ?",
            (*ids, self._now),
        ).fetchall()
        for name in dict.fromkeys(found):
            live = self._live(db, *name)
            last, spent = live[-1], sum([row.spent for row in live])
            alerts = self._alerts(last)
            reached = sum([1 << place for place, (_, amount) in enumerate(alerts) if spent >= amount])
            self._note(db, live, reached)
            if len(live) == 1 and not last.rolls:
                told = last.told | reached
                rest = [amount for place, (_, amount) in enumerate(alerts) if not told >> place & 1]
                db.execute("UPDATE span SET alarm = ? WHERE id = ?", (min(rest, default=None), last.id))

    def _note(self, db: Connection, live: Sequence[Row], reached: int, *, refused: bool = False) -> None:
        for row in live:
            reached &= ~row.told
        if not reached:
            return
        db.execute("UPDATE span SET told = told | ? WHERE id = ?", (reached, live[-1].id))
        balance = balance_of(live, self._limits)
        self.noted += [
            Alert(balance.budget, balance.account, share, balance.spent, balance.limit, balance.renews_at, refused)
            for place, (share, _) in enumerate(self._alerts(live[-1]))
            if reached >> place & 1
        ]

    def _alerts(self, row: Row) -> tuple[tuple[float, int], ...]:
        return alerts_of(row.shares, limit_of(self._limits, row.budget, row.account) or row.most)

    # Limits

    def set_limit(self, db: Connection, budget: str, account: str | None, limit: int | None) -> None:
        """As `Ledger.set_limit`."""
        db.execute("DELETE FROM limits WHERE budget = ? AND account IS ?", (budget, account))
        if limit is not None:
            db.execute("INSERT INTO limits VALUES (?, ?, ?)", (budget, account, limit))
        db.execute("UPDATE span SET alarm = 0 WHERE budget = ? AND alarm IS NOT NULL", (budget,))
        self._limits_changed(db)

    def limits(self, _: Connection) -> dict[tuple[str, str | None], int]:
        """As `Ledger.limits`."""
        return dict(self._limits)

    def _limits_changed(self, db: Connection) -> None:
        # Any other number will do, and a random one is not taken for that of a transaction that was undone.
        db.execute("UPDATE time SET edition = random()")
        self._edition = None
        self._read_limits(db)

    def _read_limits(self, db: Connection) -> None:
        rows = db.execute("SELECT budget, account, most FROM limits ORDER BY rowid")
        self._limits = {(budget, account): most for budget, account, most in rows}
