"""The ledger in SQL: what each method of it does inside of one transaction of a SQLite file."""

# ruff: noqa: S608  (names of columns and question marks are all that is put into statements)

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tierline.budgets import first_fit
from tierline.ledger.accounts import ENDED, LAPSED, LIVE, REMEMBER_POSTED, Accounts
from tierline.ledger.base import Hold, Origin, Reservation, Spent
from tierline.ledger.checks import plain
from tierline.ledger.limits import limited
from tierline.ledger.refusing import Part, refusal
from tierline.ledger.rollup import hour_of
from tierline.ledger.rows import Given, Kept, Place, lines_text, marks, wrong_offers
from tierline.values import Offer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from sqlite3 import Connection

    from tierline.budgets import Line
    from tierline.values import Refusal


class Tables(Accounts):
    """The methods of `Ledger`, after a `tick`."""

    # Reserving

    def reserve(
        self, db: Connection, key: str, offers: Sequence[Offer], lines: Sequence[Line], thresholds: bool, origin: Origin
    ) -> Reservation | Refusal | ValueError:
        """As `Ledger.reserve`; a ValueError is returned."""
        known = db.execute("SELECT state FROM hold WHERE id = ?", (key,)).fetchone()
        if known is not None:
            if known[0] != LIVE:
                return ValueError(f"reservation {key!r:.80} has ended")
            return self._repeated(db, key, offers)
        if (wrong := wrong_offers(offers)) is not None:
            return wrong
        places, distinct = self._places(db, lines)
        if self._limits:
            lines = [limited(self._limits, line) for line in lines]
        used = [place.used for place in places]
        skipped, left_out, tight = first_fit(offers, lines, used, thresholds=thresholds)
        if skipped == len(offers):
            return self._refuse(db, offers[left_out:], lines, places, distinct)

        offer = offers[skipped]
        cost = offer.cost or 0
        for place in distinct:
            if place.current is None:
                self._open(db, place, Given.of(place.line))
            else:
                self._relined(db, place)
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
                LIVE,
                self._moment + self._lease,
                cost,
                offer.cost,
                self._now,
                plain(offer.tier),
                plain(offer.model),
                skipped,
                tight,
                origin.tenant and plain(origin.tenant),
                origin.route and plain(origin.route),
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
            self._relined(db, place)
            if (
                (line.budget, line.account) == (found.budget, found.account)
                and line.alert_at
                and line.alert_at[-1] == 1
                and any(row.spent or row.held for row in live)
            ):
                if place.current is None:
                    self._open(db, place, Given.of(line))
                self._note(db, self._live(db, *live[0][1:4]), 1 << (len(line.alert_at) - 1), refused=True)
        return found

    @staticmethod
    def _repeated(db: Connection, key: str, offers: Sequence[Offer]) -> Reservation:
        """A live reservation once more, with the offer of the one who asks again: bodies are not kept."""
        row = db.execute(
            "SELECT cost, asked, at, tier, model, skipped, tight, tenant, route, own, lines FROM hold WHERE id = ?",
            (key,),
        ).fetchone()
        cost, asked, at, tier, model, skipped, tight, tenant, route, own, text = row
        taken = (tier, model, asked)
        known = (each for each in offers if (plain(each.tier), plain(each.model), each.cost) == taken)
        offer = next(known, Offer(*taken))
        kept = [Kept.of(entry) for entry in json.loads(text)]
        lines, used = tuple((each.line, each.span) for each in kept), tuple(each.used for each in kept)
        return Reservation(key, offer, cost, lines, used, skipped, tight, at, Origin(tenant, route, bool(own)))

    # Ending

    def settle(self, db: Connection, reservation: Reservation, cost: int, *, estimated: bool) -> bool:
        """As `Ledger.settle`."""
        known = reservation.at >= self._born or self._is_known(db, reservation.id)
        if not known:
            # It was held in a file that was lost: what it came to is charged all the same.
            return self.post(db, reservation, cost, estimated=estimated)
        return self.end(db, reservation.id, cost, estimated=estimated, attempts=reservation.attempts)

    @staticmethod
    def _is_known(db: Connection, key: str) -> bool:
        return db.execute("SELECT 1 FROM hold WHERE id = ?", (key,)).fetchone() is not None

    def end(self, db: Connection, key: str, cost: int, *, estimated: bool, attempts: int) -> bool:
        """The first ending of an id replaces its hold, or the estimate of its lapse, by `cost`."""
        row = db.execute(
            "SELECT state, cost, at, tenant, route, tier, own, spans FROM hold WHERE id = ?", (key,)
        ).fetchone()
        if row is None:
            self._forbid(db, key, self._remember)
            return False
        state, held, at, tenant, route, tier, own, spans = row
        if state == ENDED:
            return False
        ids = [int(text) for text in spans.split()]
        guess = cost if estimated else 0
        if state == LIVE:
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
            (ENDED, self._moment + self._remember, key),
        )
        self._alarm_at(db, ids)
        return True

    def post(self, db: Connection, reservation: Reservation, cost: int, *, estimated: bool) -> bool:
        """As `Ledger.post`."""
        if self._is_known(db, reservation.id):
            return False
        self._forbid(db, reservation.id, max(REMEMBER_POSTED, self._remember))
        guess = cost if estimated else 0
        lines = {(line.budget, line.account, line.window.series): (line, span) for line, span in reservation.lines}
        ids = []
        for name, (line, span) in lines.items():
            if span.end <= self._now:
                continue
            place = Place(line, span, self._live(db, *name))
            found = next((row for row in place.live if row.start == span.start), None)
            if found is None:
                last = place.live[-1] if place.live else None  # the line that the account was last given stands
                given = Given.of(line) if last is None else Given(last.most, last.hard, last.shares)
                found = self._open(db, place, given)
            ids.append(found.id)
        db.execute(
            f"UPDATE span SET spent = spent + ?, estimated = estimated + ? WHERE id IN ({marks(ids)})",
            (cost, guess, *ids),
        )
        origin = reservation.origin
        tenant, route = origin.tenant and plain(origin.tenant), origin.route and plain(origin.route)
        booked = (hour_of(reservation.at), tenant, route, plain(reservation.offer.tier), origin.own)
        self._book(db, booked, cost, guess, reservation.attempts)
        self._alarm_at(db, ids)
        return True

    def renew(self, db: Connection, keys: Iterable[str]) -> None:
        """Begin the leases of live holds anew."""
        due = self._moment + self._lease
        db.executemany("UPDATE hold SET due = ? WHERE id = ? AND state = 0", [(due, key) for key in keys])

    def _forbid(self, db: Connection, key: str, seconds: float) -> None:
        """No reservation may have this id any more."""
        db.execute("INSERT INTO hold (id, state, due) VALUES (?, ?, ?)", (key, ENDED, self._moment + seconds))

    # What operators ask

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

    def history(self, db: Connection, since: float, until: float) -> list[Spent]:
        """As `Ledger.history`."""
        self.settled_down(db)
        rows = db.execute(
            "SELECT hour, tenant, route, tier, attempts, cost, own, estimated FROM spend"
            " WHERE hour >= ? AND hour < ? AND hour > ? AND (attempts OR cost) ORDER BY hour, rowid",
            (since, until, self._now - self._retention),
        )
        return [Spent(float(hour), *rest) for hour, *rest in rows]

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
        if db.execute("DELETE FROM limits WHERE account = ?", (account,)).rowcount:
            self._limits_changed(db)
        # What a lapsed one was booked to has gone: its late settlement takes nothing back from another row.
        db.execute("UPDATE hold SET at = NULL WHERE state = ? AND tenant = ?", (LAPSED, account))
        db.execute("UPDATE hold SET tenant = NULL WHERE state < ? AND tenant = ?", (ENDED, account))
        for id_, text in db.execute("SELECT id, lines FROM hold WHERE state < ?", (ENDED,)).fetchall():
            entries = json.loads(text)
            kept = [entry for entry in entries if entry[2] != account]
            if len(kept) < len(entries):
                db.execute("UPDATE hold SET lines = ? WHERE id = ?", (json.dumps(kept), id_))
