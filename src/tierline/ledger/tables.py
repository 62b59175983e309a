"""The ledger in SQL: what is done inside of one transaction of a SQLite file.

Nothing here begins, commits or waits: see `tierline.store.sqlite`. The tables are described in `store/schema.py`.
"""

# ruff: noqa: S608  (names of columns and question marks are all that is put into statements)

from __future__ import annotations

import json
from math import inf
from typing import TYPE_CHECKING, Final, TypeAlias

from tierline.budgets import first_fit
from tierline.ledger.base import Alert, Balance, Hold, Origin, Reservation, Spent
from tierline.ledger.refusing import Part, refusal
from tierline.ledger.rollup import hour_of
from tierline.ledger.rows import COLUMNS, Kept, Place, Row, alerts_of, lines_text, marks, shares_text, wrong_offers
from tierline.values import Offer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from sqlite3 import Connection

    from tierline.budgets import Line
    from tierline.values import Refusal

_LIVE, _LAPSED, _ENDED = 0, 1, 2

REMEMBER: Final = 3_600.0
"""Seconds for which an id is remembered that has ended: a repetition of its `reserve` may still be under way."""
_REMEMBER_POSTED: Final = 7 * 86_400.0
"""Least seconds for which one is that was posted: a journal may be read again after days."""
_REMEMBER_LAPSED: Final = 86_400.0
"""Least seconds for which a lapsed hold may be settled late. The estimates of older ones stand."""
_MOST_AT_ONCE: Final = 500
"""How many holds lapse, and how many old rows go, in one transaction: others wait meanwhile."""
_SWEEP: Final = 1.0
"""Seconds between two sweeps of old rows."""

_Booked: TypeAlias = tuple[int, str | None, str | None, str, bool]
"""Hour, tenant, route, tier, and whether Tierline asked for itself."""


class Tables:
    """The tables of a ledger, and the moment at which a transaction looks at them.

    `tick` comes first in every transaction. `noted` are the alerts to be told when it is committed.
    """

    def __init__(self, clock: Callable[[], float], lease: float, retention: float, remember: float) -> None:
        self.noted: list[Alert] = []
        self._clock = clock
        self._lease = lease
        self._retention = retention
        self._remember = remember
        self._now = self._moment = self._sweep_at = 0.0
        self._edition: int | None = None
        self._ceilings: dict[tuple[str, str | None], int] = {}

    def tick(self, db: Connection) -> None:
        """Read the clock, and do what has come due."""
        read = self._clock()
        row = db.execute("SELECT read, now, behind, edition FROM time").fetchone()
        if row is None:
            row = (read, read, 0.0, 0)
            db.execute("INSERT INTO time VALUES (1, ?, ?, ?, ?)", row)
        last, now, behind, edition = row
        if read < last:
            behind += last - read
        now = max(now, read)
        db.execute("UPDATE time SET read = ?, now = ?, behind = ?", (read, now, behind))
        self._now, self._moment = now, read + behind
        self.noted = []
        if edition != self._edition:
            self._read_ceilings(db)
            self._edition = edition
        self._lapse(db)
        if not self._sweep_at - _SWEEP <= self._moment < self._sweep_at:
            self._sweep(db)

    # Reserving

    def reserve(
        self, db: Connection, key: str, offers: Sequence[Offer], lines: Sequence[Line], thresholds: bool, origin: Origin
    ) -> Reservation | Refusal | ValueError:
        """As `Ledger.reserve`; a ValueError is returned."""
        known = db.execute("SELECT state FROM hold WHERE id = ?", (key,)).fetchone()
        if known is not None:
            if known[0] != _LIVE:
                return ValueError(f"reservation {key!r:.80} has ended")
            return self._repeated(db, key, offers)
        if (wrong := wrong_offers(offers)) is not None:
            return wrong
        places, distinct = self._places(db, lines)
        if self._ceilings:
            lines = [self._limited(line) for line in lines]
        used = [place.used for place in places]
        skipped, left_out, tight = first_fit(offers, lines, used, thresholds=thresholds)
        if skipped == len(offers):
            return self._refuse(db, offers[left_out:], lines, places, distinct)

        offer = offers[skipped]
        cost = offer.cost or 0
        for place in distinct:
            if place.current is None:
                self._open(db, place)
            else:
                self._relined(db, place.current, place.line)
        ids = [place.current.id for place in distinct if place.current is not None]
        db.execute(f"UPDATE span SET held = held + ? WHERE id IN ({marks(ids)})", (cost, *ids))
        reservation = Reservation(
            key,
            offer,
            cost,
            tuple([(line, place.span) for line, place in zip(lines, places, strict=True)]),
            tuple(used),
            skipped,
            tight,
            self._now,
            origin,
        )
        db.execute(
            "INSERT INTO hold VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                key,
                _LIVE,
                self._moment + self._lease,
                cost,
                offer.cost,
                self._now,
                offer.tier,
                offer.model,
                skipped,
                tight,
                origin.tenant,
                origin.route,
                origin.own,
                " ".join(map(str, ids)),
                lines_text(reservation, places),
            ),
        )
        return reservation

    def _places(self, db: Connection, lines: Sequence[Line]) -> tuple[list[Place], list[Place]]:
        """Where each line is charged; and each place once, as an account may stand in `lines` twice."""
        places: list[Place] = []
        distinct: list[Place] = []
        for line in lines:
            window = line.window
            for place in distinct:
                known = place.line
                if (
                    known.account == line.account
                    and known.budget == line.budget
                    and known.window.series == window.series
                ):
                    place.line = line
                    break
            else:
                live = self._live(db, line.budget, line.account, window.series)
                place = Place(line, window.span(self._now), live)
                distinct.append(place)
            places.append(place)
        return places, distinct

    def _refuse(
        self,
        db: Connection,
        offers: Sequence[Offer],
        lines: Sequence[Line],
        places: Sequence[Place],
        distinct: Sequence[Place],
    ) -> Refusal:
        # Who is refused leaves no trace where there is none: names of tenants may come from anywhere.
        parts = [[Part(row.until, row.spent, row.held) for row in place.live] for place in places]
        found = refusal(offers, lines, parts, self._now)
        for place in distinct:
            if not place.live:
                continue
            line, live = place.line, place.live
            self._relined(db, live[-1], line)
            if (
                (line.budget, line.account) == (found.budget, found.account)
                and line.alert_at
                and line.alert_at[-1] == 1
                and any(row.spent or row.held for row in live)
            ):
                if place.current is None:
                    self._open(db, place)
                self._note(db, self._live(db, *live[0][1:4]), 1 << (len(line.alert_at) - 1), refused=True)
        return found

    def _open(self, db: Connection, place: Place) -> None:
        """A new row for the span of `place`."""
        line, span = place.line, place.span
        values = (line.budget, line.account, line.window.series, span.start, span.end, 0, 0, 0, 0)
        given = (line.limit, int(line.hard), shares_text(line.alert_at))
        cursor = db.execute(
            "INSERT INTO span (budget, account, series, start, until, spent, held, estimated, told, most, hard, shares,"
            " alarm) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*values, *given, 0 if line.alert_at else None),
        )
        place.current = Row(cursor.lastrowid or 0, *values, *given)
        if place.live:
            # From now on the sum of several rows counts, and no row can tell by itself.
            self._look_again(db, "budget = ? AND account = ? AND series = ?", values[:3])

    def _relined(self, db: Connection, row: Row, line: Line) -> None:
        """Note the line that was last given: a plan may have changed since."""
        given = (line.limit, int(line.hard), shares_text(line.alert_at))
        if (row.most, row.hard, row.shares) != given:
            alarm = 0 if line.alert_at else None
            db.execute(
                "UPDATE span SET most = ?, hard = ?, shares = ?, alarm = ? WHERE id = ?", (*given, alarm, row.id)
            )

    @staticmethod
    def _look_again(db: Connection, which: str, values: Sequence[str]) -> None:
        """With the next charge, see whether there is something to tell."""
        db.execute(f"UPDATE span SET alarm = 0 WHERE {which} AND alarm IS NOT NULL", values)

    @staticmethod
    def _repeated(db: Connection, key: str, offers: Sequence[Offer]) -> Reservation:
        """A live reservation once more, with the offer of the one who asks again: bodies are not kept."""
        row = db.execute(
            "SELECT cost, asked, at, tier, model, skipped, tight, tenant, route, own, lines FROM hold WHERE id = ?",
            (key,),
        ).fetchone()
        cost, asked, at, tier, model, skipped, tight, tenant, route, own, text = row
        taken = (tier, model, asked)
        offer = next((each for each in offers if (each.tier, each.model, each.cost) == taken), Offer(*taken))
        kept = [Kept.of(entry) for entry in json.loads(text)]
        lines, used = tuple((each.line, each.span) for each in kept), tuple(each.used for each in kept)
        return Reservation(key, offer, cost, lines, used, skipped, tight, at, Origin(tenant, route, bool(own)))

    # Ending

    def end(self, db: Connection, key: str, cost: int, *, estimated: bool, attempts: int) -> bool:
        """The first ending of an id replaces its hold, or the estimate of its lapse, by `cost`."""
        row = db.execute(
            "SELECT state, cost, at, tenant, route, tier, own, spans FROM hold WHERE id = ?", (key,)
        ).fetchone()
        if row is None:
            self._forbid(db, key, self._remember)
            return False
        state, held, at, tenant, route, tier, own, spans = row
        if state == _ENDED:
            return False
        ids = [int(text) for text in spans.split()]
        guess = cost if estimated else 0
        if state == _LIVE:
            db.execute(
                "UPDATE span SET held = held - ?, spent = spent + ?, estimated = estimated + ?"
                f" WHERE id IN ({marks(ids)})",
                (held, cost, guess, *ids),
            )
            if attempts:
                self._book(db, (hour_of(at), tenant, route, tier, bool(own)), cost, guess, attempts)
        else:
            more, guess = cost - held, guess - held
            db.execute(
                f"UPDATE span SET spent = spent + ?, estimated = estimated + ? WHERE id IN ({marks(ids)})",
                (more, guess, *ids),
            )
            if at is not None:
                self._book(db, (hour_of(at), tenant, route, tier, bool(own)), more, guess, attempts - 1)
        db.execute(
            "UPDATE hold SET state = ?, due = ?, cost = NULL, asked = NULL, at = NULL, tier = NULL, model = NULL,"
            " skipped = NULL, tight = NULL, tenant = NULL, route = NULL, own = NULL, spans = NULL, lines = NULL"
            " WHERE id = ?",
            (_ENDED, self._moment + self._remember, key),
        )
        self._alarm_at(db, ids)
        return True

    def post(self, db: Connection, reservation: Reservation, cost: int, *, estimated: bool) -> bool:
        """As `Ledger.post`."""
        if db.execute("SELECT 1 FROM hold WHERE id = ?", (reservation.id,)).fetchone() is not None:
            return False
        self._forbid(db, reservation.id, max(_REMEMBER_POSTED, self._remember))
        guess = cost if estimated else 0
        lines = {(line.budget, line.account, line.window.series): (line, span) for line, span in reservation.lines}
        ids = []
        for name, (line, span) in lines.items():
            if span.end <= self._now:
                continue
            place = Place(line, span, self._live(db, *name))
            found = next((row for row in place.live if row.start == span.start), None)
            if found is None:
                self._open(db, place)
                found = place.current
                assert found is not None  # noqa: S101  (it was opened)
                if place.live:  # the line that the account was last given stands
                    db.execute(
                        "UPDATE span SET (most, hard, shares) = (SELECT most, hard, shares FROM span WHERE id = ?)"
                        " WHERE id = ?",
                        (place.live[-1].id, found.id),
                    )
            ids.append(found.id)
        db.execute(
            f"UPDATE span SET spent = spent + ?, estimated = estimated + ? WHERE id IN ({marks(ids)})",
            (cost, guess, *ids),
        )
        origin = reservation.origin
        booked = (hour_of(reservation.at), origin.tenant, origin.route, reservation.offer.tier, origin.own)
        self._book(db, booked, cost, guess, 1)
        self._alarm_at(db, ids)
        return True

    def renew(self, db: Connection, keys: Iterable[str]) -> None:
        """Begin the leases of live holds anew."""
        due = self._moment + self._lease
        db.executemany("UPDATE hold SET due = ? WHERE id = ? AND state = 0", [(due, key) for key in keys])

    def _forbid(self, db: Connection, key: str, seconds: float) -> None:
        """No reservation may have this id any more."""
        db.execute("INSERT INTO hold (id, state, due) VALUES (?, ?, ?)", (key, _ENDED, self._moment + seconds))

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
            [(_LAPSED, self._moment + max(_REMEMBER_LAPSED, self._remember), row[0]) for row in rows],
        )
        ids = list(charges)
        for start in range(0, len(ids), _MOST_AT_ONCE):
            self._alarm_at(db, ids[start : start + _MOST_AT_ONCE])
        return len(rows) == _MOST_AT_ONCE

    def settled_down(self, db: Connection) -> None:
        """Let everything lapse that is due, for somebody reads."""
        while self._lapse(db):
            pass

    def _sweep(self, db: Connection) -> None:
        """Drop a bounded number of rows that nobody needs any more."""
        some = _MOST_AT_ONCE
        gone = [
            db.execute(
                "DELETE FROM hold WHERE id IN (SELECT id FROM hold WHERE state = ? AND due <= ? LIMIT ?)",
                (state, self._moment, some),
            ).rowcount
            for state in (_LAPSED, _ENDED)
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

    # Spend by hour

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

    def history(self, db: Connection, since: float, until: float) -> list[Spent]:
        """As `Ledger.history`."""
        self.settled_down(db)
        rows = db.execute(
            "SELECT hour, tenant, route, tier, attempts, cost, own, estimated FROM spend"
            " WHERE hour >= ? AND hour < ? AND hour > ? AND (attempts OR cost) ORDER BY hour, rowid",
            (since, until, self._now - self._retention),
        )
        return [Spent(float(hour), *rest) for hour, *rest in rows]

    # Alerts

    def _alarm_at(self, db: Connection, ids: Sequence[int]) -> None:
        """Something was charged to these spans: note which alerts that reaches for the first time."""
        found = db.execute(
            f"SELECT DISTINCT budget, account, series FROM span WHERE id IN ({marks(ids)})"
            " AND spent >= alarm AND until > ?",
            (*ids, self._now),
        ).fetchall()
        for name in found:
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
        balance = self._balance(live)
        self.noted += [
            Alert(balance.budget, balance.account, share, balance.spent, balance.limit, balance.renews_at, refused)
            for place, (share, _) in enumerate(self._alerts(live[-1]))
            if reached >> place & 1
        ]

    def _alerts(self, row: Row) -> tuple[tuple[float, int], ...]:
        return alerts_of(row.shares, self._ceiling(row.budget, row.account) or row.most)

    # What operators ask

    def balances(self, db: Connection, account: str | None) -> list[Balance]:
        """As `Ledger.balances`."""
        self.settled_down(db)
        rows = db.execute(
            f"SELECT {COLUMNS} FROM span WHERE until > ? AND (? IS NULL OR account = ?) ORDER BY id",
            (self._now, account, account),
        )
        accounts: dict[tuple[str, str, str], list[Row]] = {}
        for row in map(Row._make, rows):
            accounts.setdefault((row.budget, row.account, row.series), []).append(row)
        return [self._balance(sorted(live, key=lambda row: row.start)) for live in accounts.values()]

    def _balance(self, live: Sequence[Row]) -> Balance:
        last = live[-1]
        end = min([row.until for row in live if row.spent or row.held] or [last.until])
        return Balance(
            last.budget,
            last.account,
            sum(row.spent for row in live),
            sum(row.held for row in live),
            self._ceiling(last.budget, last.account) or last.most,
            None if end == inf else end,
            sum(row.estimated for row in live),
            bool(last.hard),
            last.series,
        )

    def holds(self, db: Connection) -> list[Hold]:
        """As `Ledger.holds`."""
        self.settled_down(db)
        rows = db.execute("SELECT id, tier, model, cost, at, due, tenant, route, lines FROM hold WHERE state = 0")
        found = []
        for id_, tier, model, cost, at, due, tenant, route, text in rows:
            accounts = {entry[0]: (entry[1], entry[2]) for entry in json.loads(text)}
            lapses_at = self._now + due - self._moment
            found.append(Hold(id_, tier, model, cost, at, lapses_at, tuple(accounts.values()), tenant, route))
        return sorted(found, key=lambda hold: hold.at)

    def forget(self, db: Connection, lines: Iterable[Line]) -> None:
        """As `Ledger.forget`."""
        db.executemany(
            "DELETE FROM span WHERE budget = ? AND account = ? AND series = ?",
            [(line.budget, line.account, line.window.series) for line in lines],
        )

    def erase(self, db: Connection, account: str) -> None:
        """As `Ledger.erase`."""
        db.execute("DELETE FROM span WHERE account = ?", (account,))
        db.execute("DELETE FROM spend WHERE tenant = ?", (account,))
        if db.execute("DELETE FROM ceiling WHERE account = ?", (account,)).rowcount:
            self._ceilings_changed(db)
        # What a lapsed one was booked to has gone: its late settlement takes nothing back from another row.
        db.execute("UPDATE hold SET at = NULL WHERE state = ? AND tenant = ?", (_LAPSED, account))
        db.execute("UPDATE hold SET tenant = NULL WHERE state < ? AND tenant = ?", (_ENDED, account))
        for id_, text in db.execute("SELECT id, lines FROM hold WHERE state < ?", (_ENDED,)).fetchall():
            entries = json.loads(text)
            kept = [entry for entry in entries if entry[2] != account]
            if len(kept) < len(entries):
                db.execute("UPDATE hold SET lines = ? WHERE id = ?", (json.dumps(kept), id_))

    # Limits

    def set_limit(self, db: Connection, budget: str, account: str | None, limit: int | None) -> None:
        """As `Ledger.set_limit`."""
        db.execute("DELETE FROM ceiling WHERE budget = ? AND account IS ?", (budget, account))
        if limit is not None:
            db.execute("INSERT INTO ceiling VALUES (?, ?, ?)", (budget, account, limit))
        self._look_again(db, "budget = ?", (budget,))
        self._ceilings_changed(db)

    def limits(self, _: Connection) -> dict[tuple[str, str | None], int]:
        """As `Ledger.limits`."""
        return dict(self._ceilings)

    def _ceilings_changed(self, db: Connection) -> None:
        # Any other number will do, and a random one is not taken for that of a transaction that was undone.
        db.execute("UPDATE time SET edition = random()")
        self._edition = None
        self._read_ceilings(db)

    def _read_ceilings(self, db: Connection) -> None:
        rows = db.execute("SELECT budget, account, most FROM ceiling ORDER BY rowid")
        self._ceilings = {(budget, account): most for budget, account, most in rows}

    def _ceiling(self, budget: str, account: str) -> int | None:
        return self._ceilings.get((budget, account)) or self._ceilings.get((budget, None))

    def _limited(self, line: Line) -> Line:
        limit = self._ceiling(line.budget, line.account)
        return line if limit is None else line.limited(limit)

    def _live(self, db: Connection, budget: str, account: str, series: str) -> list[Row]:
        """The rows of an account that count, oldest first."""
        rows = db.execute(
            f"SELECT {COLUMNS} FROM span WHERE budget = ? AND account = ? AND series = ? AND until > ? ORDER BY start",
            (budget, account, series, self._now),
        )
        return [Row._make(row) for row in rows]
