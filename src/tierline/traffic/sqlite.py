"""Traffic in a SQLite file, for the processes of one machine: in the ledger's file, over its connection."""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from tierline.budgets import run_account
from tierline.report import OTHER
from tierline.traffic.base import NAMES, Counts, Worker, breakers_of, breakers_text, values_of
from tierline.traffic.store import (
    AHEAD,
    ALIVE,
    DAY,
    HOUR,
    KEPT,
    KINDS,
    LEVELS,
    MOST_DECISIONS,
    MOST_NAMES,
    REMEMBERED,
    Found,
    Ranking,
    kept_for,
    pieces_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from sqlite3 import Connection

    from tierline.store.sqlite import SQLiteStore
    from tierline.traffic.store import Beat, Kind, Piece, Place, Record, Row, Span

_KINDS: Final[dict[Kind, int]] = {"tier": 0, "route": 1, "account": 2, "job": 3}
_SUM: Final = 0
_AT_ONCE: Final = 200
"""Names that are looked up by one statement."""
_COLUMNS: Final = ", ".join(NAMES)
_SUMS: Final = ", ".join(f"sum(t.{name})" for name in NAMES)
_ADD: Final = (
    f"INSERT INTO traffic (kind, level, start, name, {_COLUMNS}) VALUES (?, ?, ?, ?{', ?' * len(NAMES)}) "  # noqa: S608
    f"ON CONFLICT (kind, level, start, name) DO UPDATE SET {', '.join(f'{n} = {n} + excluded.{n}' for n in NAMES)}"
)


class SQLiteTraffic:
    """A `TrafficStore` in a SQLite file. `names` is how many are told apart within a day."""

    def __init__(self, store: SQLiteStore, *, names: int = MOST_NAMES, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._most, self._clock = names, clock

    async def add(self, beat: Beat, number: int, rows: Sequence[Row], records: Sequence[Record]) -> None:
        """Add what a worker has seen."""
        now = self._clock()
        await self._store.run(lambda db: self._add(db, beat, number, rows, records, now))

    def _add(
        self, db: Connection, beat: Beat, number: int, rows: Sequence[Row], records: Sequence[Record], now: float
    ) -> None:
        found = db.execute("SELECT last FROM traffic_worker WHERE id = ?", (beat.worker,)).fetchone()
        last = found[0] if found is not None else 0
        db.execute(
            "INSERT INTO traffic_worker VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
            "seen = excluded.seen, last = excluded.last, breakers = excluded.breakers",
            (beat.worker, beat.started, now, max(last, number), breakers_text(beat.breakers)),
        )
        if number <= last:
            return
        adder = _Adder(db, now, self._most)
        for row in rows:
            adder.add(row)
        adder.write()
        if adder.began:
            _drop(db, now)
        for record in records:
            db.execute("INSERT OR REPLACE INTO traffic_decision VALUES (?, ?, ?, ?)", record)
        if records:
            db.execute("DELETE FROM traffic_decision WHERE at > ?", (now + AHEAD,))
            oldest = "SELECT at, id FROM traffic_decision ORDER BY at DESC, id DESC LIMIT 1 OFFSET ?"
            db.execute(f"DELETE FROM traffic_decision WHERE (at, id) <= ({oldest})", (MOST_DECISIONS,))  # noqa: S608

    async def read(self, span: Span, most: int) -> Found:
        """Sums of a span, and who is there now."""
        now = self._clock()
        return await self._store.read(lambda db: _read(db, span, most, now))

    async def decisions(self, most: int, before: Place | None) -> list[str]:
        """Records, the newest first; those that stand before a place."""
        at, id_ = before or (inf, "")
        rows = await self._store.run(
            lambda db: db.execute(
                "SELECT record FROM traffic_decision WHERE (at, id) < (?, ?) ORDER BY at DESC, id DESC LIMIT ?",
                (at, id_, most),
            ).fetchall()
        )
        return [row[0] for row in rows]

    async def decision(self, id: str) -> str | None:  # noqa: A002  (the field's name)
        """One record."""
        row = await self._store.run(
            lambda db: db.execute("SELECT record FROM traffic_decision WHERE id = ?", (id,)).fetchone()
        )
        return None if row is None else row[0]

    async def forget(self, account: str) -> None:
        """Drop what is kept of an account."""
        await self._store.run(lambda db: _forget(db, account))

    async def end(self, session: str, until: float) -> None:
        """Note that a session has ended, which would have gone on until then."""
        now = self._clock()

        def note(db: Connection) -> None:
            db.execute("DELETE FROM traffic_ended WHERE until <= ?", (now,))
            db.execute("INSERT OR REPLACE INTO traffic_ended VALUES (?, ?)", (session, until))

        await self._store.run(note)

    async def ended(self) -> frozenset[str]:
        """Sessions that have ended before their time."""
        now = self._clock()
        rows = await self._store.run(
            lambda db: db.execute("SELECT session FROM traffic_ended WHERE until > ?", (now,)).fetchall()
        )
        return frozenset(session for (session,) in rows)


class _Adder:
    """Rows on their way into one transaction."""

    def __init__(self, db: Connection, now: float, most: int) -> None:
        self._db, self._now, self._most = db, now, most
        self._values: list[tuple[int, ...]] = []
        self._sums: dict[tuple[int, Piece], Counts] = {}
        self.began = False
        """Whether an hour is the first row's."""

    def add(self, row: Row) -> None:
        """Add a row wherever it counts."""
        pieces, kind = pieces_of(row, self._now), _KINDS[row.kind]
        if not pieces:
            return
        if row.kind == "tier":
            self.began = self.began or not self._has(kind, *pieces[0])
            name = self._id(kind, row.name, row.hour)
        else:
            name = self._name(kind, row, row.hour - row.hour % DAY)
            for piece in pieces:
                self._sums[kind, piece] = self._sums.get((kind, piece), Counts()).plus(row.counts)
        values = values_of(row.counts)
        self._values += [(kind, *piece, name, *values) for piece in pieces]

    def write(self) -> None:
        """Add what was gathered."""
        sums = [(kind, *piece, _SUM, *values_of(counts)) for (kind, piece), counts in self._sums.items()]
        self._db.executemany(_ADD, self._values + sums)

    def _name(self, kind: int, row: Row, day: int) -> int:
        """The name's number; that of `(other)` where the day has no room for another name."""
        known = _named(self._db, kind, row.name)
        if known is not None and self._has(kind, DAY, day, known[0]):
            return self._id(kind, row.name, row.hour)
        if not self._has_room(kind, day):
            return self._id(kind, OTHER, row.hour)
        name = self._id(kind, row.name, row.hour)
        self._db.execute(
            "INSERT INTO traffic_day VALUES (?, ?, 1) ON CONFLICT (kind, start) DO UPDATE SET names = names + 1",
            (kind, day),
        )
        self._db.execute(_ADD, (kind, DAY, day, name, *values_of(Counts())))  # it is there for the next row
        return name

    def _has_room(self, kind: int, day: int) -> bool:
        found = self._db.execute("SELECT names FROM traffic_day WHERE kind = ? AND start = ?", (kind, day)).fetchone()
        return found is None or found[0] < self._most

    def _id(self, kind: int, name: str, hour: int) -> int:
        known = _named(self._db, kind, name)
        if known is None or known[1] < hour - DAY:  # when it was last there need not be known to the hour
            self._db.execute(
                "INSERT INTO traffic_name (kind, name, last) VALUES (?, ?, ?) "
                "ON CONFLICT (kind, name) DO UPDATE SET last = excluded.last",
                (kind, name, hour),
            )
            known = _named(self._db, kind, name)
            assert known is not None  # noqa: S101  (just written)
        return known[0]

    def _has(self, kind: int, level: int, start: int, name: int = _SUM) -> bool:
        where = "kind = ? AND level = ? AND start = ? AND name" + (" = ?" if name else " >= ?")
        found = self._db.execute(f"SELECT 1 FROM traffic WHERE {where} LIMIT 1", (kind, level, start, name))  # noqa: S608
        return found.fetchone() is not None


def _drop(db: Connection, now: float) -> None:
    """Drop what is too old."""
    for level in LEVELS:
        for kind, number in _KINDS.items():
            oldest = now - kept_for(kind, level) - level
            db.execute("DELETE FROM traffic WHERE kind = ? AND level = ? AND start <= ?", (number, level, oldest))
    db.execute("DELETE FROM traffic_day WHERE start <= ?", (now - KEPT,))
    # A name is in a week for so long after its last hour.
    db.execute("DELETE FROM traffic_name WHERE last <= ?", (now - KEPT - 2 * LEVELS[-1],))
    db.execute("DELETE FROM traffic_worker WHERE seen <= ?", (now - REMEMBERED,))


def _read(db: Connection, span: Span, most: int, now: float) -> Found:
    hours: dict[int, dict[str, Counts]] = {}
    rows = db.execute(
        f"SELECT t.start, n.name, {_COLUMNS} FROM traffic t JOIN traffic_name n ON n.id = t.name "  # noqa: S608
        "WHERE t.kind = 0 AND t.level = ? AND t.start >= ? AND t.start < ? ORDER BY t.start, t.name",
        (HOUR, span.since, span.until),
    )
    for start, name, *sums in rows:
        hours.setdefault(start, {})[name] = Counts(*sums)
    ranked = {kind: _ranked(db, _KINDS[kind], span.pieces, most) for kind in KINDS} if most else {}
    alive = db.execute(
        "SELECT id, started, seen, breakers FROM traffic_worker WHERE seen > ? ORDER BY started", (now - ALIVE,)
    ).fetchall()
    return Found(
        list(hours.items()),
        ranked,
        [Worker(*row[:3]) for row in alive],
        [breaker for row in alive for breaker in breakers_of(row[3])],
    )


class _Range(NamedTuple):
    level: int
    begin: int
    end: int


def _ranges(pieces: Sequence[Piece]) -> list[_Range]:
    """Pieces of one length that follow each other, as one."""
    found: list[_Range] = []
    for level, start in pieces:
        if found and found[-1].level == level and found[-1].end == start:
            found[-1] = found[-1]._replace(end=start + level)
        else:
            found.append(_Range(level, start, start + level))
    return found


def _ranked(db: Connection, kind: int, pieces: Sequence[Piece], most: int) -> Ranking:
    # First by cost alone, which is one walk along the key; then all the rest of the few that are wanted.
    walks = [(kind, *each) for each in _ranges(pieces)]
    one = "SELECT name, cost FROM traffic WHERE kind = ? AND level = ? AND start >= ? AND start < ? AND name > 0"
    rows = db.execute(
        "SELECT name, sum(cost) AS cost, count(*) OVER () FROM"  # noqa: S608  (constants)
        f" ({' UNION ALL '.join([one] * len(walks))}) GROUP BY name ORDER BY cost DESC, name LIMIT ?",
        (*(number for walk in walks for number in walk), most + 1),
    ).fetchall()
    other = _named(db, kind, OTHER)
    dearest = [name for name, *_ in rows if other is None or name != other[0]][:most]
    sums = _sums(db, kind, pieces, [*dearest, _SUM])
    names = {_name_of(db, name): sums[name] for name in dearest}
    return Ranking(names, rows[0][2] if rows else 0, sums.get(_SUM, Counts()))


def _named(db: Connection, kind: int, name: str) -> tuple[int, int] | None:
    """The number of a name, and the hour in which it was last there, about."""
    found: tuple[int, int] | None = db.execute(
        "SELECT id, last FROM traffic_name WHERE kind = ? AND name = ?", (kind, name)
    ).fetchone()
    return found


def _name_of(db: Connection, name: int) -> str:
    found: str = db.execute("SELECT name FROM traffic_name WHERE id = ?", (name,)).fetchone()[0]
    return found


def _sums(db: Connection, kind: int, pieces: Sequence[Piece], names: Sequence[int]) -> dict[int, Counts]:
    """Of a few names, looked up one by one."""
    found: dict[int, Counts] = {}
    for begin in range(0, len(names), _AT_ONCE):
        some = names[begin : begin + _AT_ONCE]
        rows = db.execute(
            f"WITH piece(level, start) AS (VALUES {', '.join(['(?, ?)'] * len(pieces))}),"  # noqa: S608  (places)
            f" wanted(name) AS (VALUES {', '.join(['(?)'] * len(some))})"
            f" SELECT t.name, {_SUMS} FROM wanted CROSS JOIN piece CROSS JOIN traffic t"
            " ON t.kind = ? AND t.level = piece.level AND t.start = piece.start AND t.name = wanted.name"
            " GROUP BY t.name",
            (*(number for piece in pieces for number in piece), *some, kind),
        )
        found |= {name: Counts(*sums) for name, *sums in rows}
    return found


def _forget(db: Connection, account: str) -> None:
    runs = run_account(account, "")
    names = db.execute(
        "SELECT id, kind FROM traffic_name WHERE (kind = ? AND name = ?) OR (kind = ? AND substr(name, 1, ?) = ?)",
        (_KINDS["account"], account, _KINDS["job"], len(runs), runs),
    ).fetchall()
    for name, kind in names:
        db.execute("DELETE FROM traffic WHERE kind = ? AND name = ?", (kind, name))
        db.execute("DELETE FROM traffic_name WHERE id = ?", (name,))
    db.execute("DELETE FROM traffic_decision WHERE account = ?", (account,))
