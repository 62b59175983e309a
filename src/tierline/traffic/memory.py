"""Traffic in the memory of a process: what itself has seen."""

from __future__ import annotations

import asyncio
import time
from threading import Lock
from typing import TYPE_CHECKING, Final

from tierline.budgets import is_run_of
from tierline.report import OTHER
from tierline.traffic.base import BreakerStanding, Counts, Worker
from tierline.traffic.store import (
    AHEAD,
    ALIVE,
    HOUR,
    KEPT,
    KINDS,
    MOST_DECISIONS,
    MOST_NAMES,
    REMEMBERED,
    Found,
    Place,
    Ranking,
    kept_for,
    pieces_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tierline.traffic.store import Beat, Kind, Piece, Record, Row, Span

_FEW: Final = 5_000
"""From so many names on, adding them up is left to a thread: calls would wait for it."""
_MOST_ROWS: Final = 200_000
"""Names of all pieces that are kept, about: of more, the pieces that ended first go."""
_SUM: Final = ""
"""The name under which a piece keeps the sum of all names."""


class MemoryTraffic:
    """A `TrafficStore` in memory. `names` is how many are told apart within a day; `clock` seconds since the epoch.

    Beyond `rows` names in all, what is oldest is dropped with each new hour, days by name before 90 of them, too.
    """

    def __init__(
        self, *, names: int = MOST_NAMES, rows: int = _MOST_ROWS, clock: Callable[[], float] = time.time
    ) -> None:
        self._most, self._rows, self._clock = names, rows, clock
        self._lock = Lock()
        self._tiers: dict[int, dict[str, Counts]] = {}
        self._pieces: dict[tuple[Kind, Piece], dict[str, Counts]] = {}
        self._records: dict[str, Record] = {}
        self._ended: dict[str, float] = {}
        self._workers: dict[str, tuple[Worker, tuple[BreakerStanding, ...], int]] = {}

    async def add(self, beat: Beat, number: int, rows: Sequence[Row], records: Sequence[Record]) -> None:
        """Add what a worker has seen."""
        now = self._clock()
        with self._lock:
            last = self._workers[beat.worker][2] if beat.worker in self._workers else 0
            worker = Worker(beat.worker, beat.started, now)
            self._workers[beat.worker] = (worker, beat.breakers, max(last, number))
            if number <= last:
                return
            for row in rows:
                self._add(row, now)
            for record in records:
                self._records.pop(record.id, None)
                self._records[record.id] = record
            past = [each for each in self._records.values() if each.at <= now + AHEAD]
            kept = sorted(past, key=_place)[-MOST_DECISIONS:]
            self._records = {each.id: each for each in kept}

    def _add(self, row: Row, now: float) -> None:
        pieces = pieces_of(row, now)
        if row.kind == "tier":
            if row.hour not in self._tiers:
                self._drop(now)
            if pieces:
                _plus(self._tiers.setdefault(row.hour, {}), row.name, row.counts)
            return
        # Days and weeks are kept for so long that an hour of which neither is kept has nothing to add to.
        kept = [self._pieces.setdefault((row.kind, piece), {}) for piece in pieces]
        day = kept[-2] if len(kept) > 1 else {}
        name = row.name if row.name in day or len(day) <= self._most else OTHER
        for names in kept:
            _plus(names, name, row.counts)
            _plus(names, _SUM, row.counts)

    def _drop(self, now: float) -> None:
        self._tiers = {hour: kept for hour, kept in self._tiers.items() if hour + HOUR > now - KEPT}
        self._pieces = {
            (kind, piece): kept
            for (kind, piece), kept in self._pieces.items()
            if piece.start + piece.level > now - kept_for(kind, piece.level)
        }
        rows = sum(map(len, self._pieces.values()))
        for key in sorted(self._pieces, key=lambda key: key[1].start + key[1].level):
            if rows <= self._rows:
                break
            rows -= len(self._pieces.pop(key))
        gone = [id_ for id_, (worker, _, _) in self._workers.items() if worker.seen <= now - REMEMBERED]
        for id_ in gone:
            del self._workers[id_]

    async def read(self, span: Span, most: int) -> Found:
        """Sums of a span, and who is there now."""
        now = self._clock()
        with self._lock:
            hours = [(hour, dict(self._tiers[hour])) for hour in sorted(self._tiers) if span.since <= hour < span.until]
            kinds = {kind: self._names(kind, span) for kind in KINDS} if most else {}
            alive = [each for each in self._workers.values() if each[0].seen > now - ALIVE]
        ranked: dict[Kind, Ranking] = {}
        for kind, pieces in kinds.items():
            few = sum(map(len, pieces)) <= _FEW
            ranked[kind] = _ranking(pieces, most) if few else await asyncio.to_thread(_ranking, pieces, most)
        return Found(
            hours, ranked, [worker for worker, _, _ in alive], [each for _, breakers, _ in alive for each in breakers]
        )

    def _names(self, kind: Kind, span: Span) -> list[dict[str, Counts]]:
        return [dict(self._pieces[kind, piece]) for piece in span.pieces if (kind, piece) in self._pieces]

    async def decisions(self, most: int, before: Place | None) -> list[str]:
        """Records, the newest first; those that stand before a place."""
        with self._lock:
            found = sorted(self._records.values(), key=_place, reverse=True)
        return [each.text for each in found if before is None or _place(each) < before][:most]

    async def decision(self, id: str) -> str | None:  # noqa: A002  (the field's name)
        """One record."""
        found = self._records.get(id)
        return None if found is None else found.text

    async def forget(self, account: str) -> None:
        """Drop what is kept of an account."""
        with self._lock:
            for (kind, _), names in self._pieces.items():
                gone = [account] if kind == "account" else [n for n in names if kind == "job" and is_run_of(account, n)]
                for name in gone:
                    names.pop(name, None)
            self._records = {id_: each for id_, each in self._records.items() if each.account != account}

    async def end(self, session: str, until: float) -> None:
        """Note that a session has ended, which would have gone on until then."""
        with self._lock:
            self._ended[session] = until

    async def ended(self) -> frozenset[str]:
        """Sessions that have ended before their time."""
        now = self._clock()
        with self._lock:
            self._ended = {session: until for session, until in self._ended.items() if until > now}
            return frozenset(self._ended)


def _ranking(pieces: Sequence[dict[str, Counts]], most: int) -> Ranking:
    names: dict[str, Counts] = {}
    for piece in pieces:
        for name, counts in piece.items():
            _plus(names, name, counts)
    total = names.pop(_SUM, Counts())
    number = len(names)
    names.pop(OTHER, None)
    dearest = sorted(names.items(), key=lambda each: -each[1].cost)
    return Ranking(dict(dearest[:most]), number, total)


def _place(record: Record) -> Place:
    return Place(record.at, record.id)


def _plus(names: dict[str, Counts], name: str, counts: Counts) -> None:
    kept = names.get(name)
    names[name] = counts if kept is None else kept.plus(counts)
