"""Traffic in a Redis, for any number of machines: in the ledger's namespace, over its connections."""

from __future__ import annotations

import json
import time
from heapq import nlargest
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from tierline.budgets import run_account
from tierline.report import OTHER
from tierline.traffic.base import Counts, Worker, breakers_of, breakers_text, total_of, values_of
from tierline.traffic.store import (
    AHEAD,
    ALIVE,
    HOUR,
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

    from tierline.store.redis import RedisStore
    from tierline.traffic.store import Beat, Kind, Place, Record, Row, Span

_NAMES: Final = 2_000
"""Names that one script tells the cost of."""
_SUMS: Final = 100
"""Names of which one script tells all sums."""
_AT_ONCE: Final = 4
"""Pieces of which one script drops names: the server does nothing else meanwhile."""


class RedisTraffic:
    """A `TrafficStore` in a Redis. `names` is how many are told apart within a day.

    `clock` gives seconds since the epoch, by which is told what is too old; who is alive is told by the server's.
    """

    def __init__(self, store: RedisStore, *, names: int = MOST_NAMES, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._most, self._clock = names, clock
        self._keys = (f"{store.prefix}traffic",)

    async def add(self, beat: Beat, number: int, rows: Sequence[Row], records: Sequence[Record]) -> None:
        """Add what a worker has seen."""
        now = self._clock()
        added = [[row.kind, row.name, _text(row.counts), *places] for row in rows if (places := _places(row, now))]
        kept = [[each.id, f"{each.at:.6f}", f"{each.account}\n{each.text}"] for each in records]
        await self._run(
            "add", beat.worker, repr(beat.started), breakers_text(beat.breakers), str(number), str(REMEMBERED),
            str(self._most), str(MOST_DECISIONS), json.dumps(added), json.dumps(kept), f"{now + AHEAD:.6f}",
        )  # fmt: skip

    async def read(self, span: Span, most: int) -> Found:
        """Sums of a span, and who is there now."""
        hours = json.dumps([str(hour) for hour in range(span.since, span.until, HOUR)])
        found, alive = await self._run("read", str(ALIVE), hours)
        pieces = json.dumps([[str(level), str(start)] for level, start in span.pieces])
        # One by one: while a script runs the server does nothing else.
        ranked = {kind: await self._ranked(kind, pieces, len(span.pieces), most) for kind in (KINDS if most else ())}
        workers = [Worker(id_, float(started), seen) for id_, (started, seen, _, _) in alive]
        breakers = [each for _, worker in alive for each in breakers_of(worker[3])]
        return Found(
            [(int(hour), _sums(pairs)) for hour, pairs in found],
            ranked,
            sorted(workers, key=lambda worker: worker.started),
            breakers,
        )

    async def _ranked(self, kind: Kind, pieces: str, number: int, most: int) -> Ranking:
        costs: dict[str, float] = {}
        place, begin = 1, 0
        while place <= number:
            found, place, begin = await self._run("names", kind, pieces, str(place), str(begin), str(_NAMES))
            for some in found or ():
                for name, cost in zip(some[::2], some[1::2], strict=True):
                    costs[name] = costs.get(name, 0.0) + float(cost)
        count = len(costs)
        costs.pop(OTHER, None)
        # The order of the server is by numbers that are not exact.
        dearest = nlargest(most, costs, key=costs.__getitem__)
        sums: dict[str, Counts] = {}
        total = Counts()
        for at in range(0, len(dearest), _SUMS) or (0,):
            rows, all_names = await self._run("ranked", kind, json.dumps(dearest[at : at + _SUMS]), pieces)
            sums |= {name: total_of(map(_counts, parts)) for name, *parts in rows or ()}
            total = total_of(map(_counts, all_names or ()))
        return Ranking(dict(sorted(sums.items(), key=lambda each: -each[1].cost)), count, total)

    async def decisions(self, most: int, before: Place | None) -> list[str]:
        """Records, the newest first; those that stand before a place."""
        place = ("+inf", "") if before is None else (f"{before.at:.6f}", before.id)
        found = await self._run("decisions", "", str(most), *place)
        return [text.rpartition("\n")[2] for text in found]

    async def decision(self, id: str) -> str | None:  # noqa: A002  (the field's name)
        """One record."""
        found = await self._run("decisions", id)
        return found[0].rpartition("\n")[2] if found else None

    async def forget(self, account: str) -> None:
        """Drop what is kept of an account. Where it fails halfway it may be done again."""
        now = self._clock()
        pieces = [
            [str(level), str(start)]
            for level in LEVELS
            for start in range(int((now - kept_for("account", level)) // level - 1) * level, int(now) + HOUR, level)
        ]
        for place in range(0, len(pieces), _AT_ONCE):
            part = json.dumps(pieces[place : place + _AT_ONCE])
            await self._run("forget", account, run_account(account, ""), part)

    async def end(self, session: str, until: float) -> None:
        """Note that a session has ended, which would have gone on until then."""
        await self._run("ended", f"{self._clock():.6f}", session, f"{until:.6f}")

    async def ended(self) -> frozenset[str]:
        """Sessions that have ended before their time."""
        return frozenset(await self._run("ended", f"{self._clock():.6f}"))

    async def _run(self, name: str, *arguments: str) -> list[Any]:
        answer: Any = json.loads(await self._store.script(f"traffic/{name}", self._keys, lambda _: arguments))
        return answer or []  # what is empty is an object to Lua


def _places(row: Row, now: float) -> list[list[str]]:
    """Where a row counts: how long the piece is, when it begins, and for how many seconds it is kept."""
    return [
        [str(level), str(start), str(ceil(start + level + kept_for(row.kind, level) - now))]
        for level, start in pieces_of(row, now)
    ]


def _text(counts: Counts) -> str:
    values = list(values_of(counts))
    while len(values) > 1 and not values[-1]:
        values.pop()
    return " ".join(map(str, values))


def _counts(text: str) -> Counts:
    return Counts(*map(int, text.split()))


def _sums(pairs: Sequence[str]) -> dict[str, Counts]:
    return {name: _counts(text) for name, text in zip(pairs[::2], pairs[1::2], strict=True)}
