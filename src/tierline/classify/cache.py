"""Verdicts that were paid for once: an exact TTL-LRU cache, with one flight for those who ask at the same time."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from cachetools import TTLCache

from tierline.errors import ConfigurationError
from tierline.recent import keyed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tierline.values import Classification, View

_PURPOSE: Final = b"tierline verdict"


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What a cache has done since it was made.

    - `hits` were answered from the cache, `joined` by waiting for somebody else's flight, `misses` by asking
    - `evictions` are verdicts that were dropped: too old (TTL) or too many (LRU); `clear` drops are none
    - `saved` is what those hits and joins would have cost, in nano-USD
    - `size` is how many verdicts are kept now
    """

    hits: int = 0
    misses: int = 0
    joined: int = 0
    evictions: int = 0
    saved: int = 0
    size: int = 0


class _Entry(NamedTuple):
    hit: Classification
    """The verdict as a hit returns it. Made once: a hit is the hot path."""
    cost: int
    stored_at: float


class _Counted(TTLCache[bytes, _Entry, float]):
    """Counts what it drops. Both ways out are methods that cachetools documents for overriding."""

    evictions = 0

    def popitem(self) -> tuple[bytes, _Entry]:
        item = super().popitem()
        self.evictions += 1
        return item

    def expire(self, time: float | None = None) -> list[tuple[bytes, _Entry]]:
        gone = list(super().expire(time))
        self.evictions += len(gone)
        return gone


class VerdictCache:
    """A bounded cache of verdicts.

    - exact: a verdict is found again only for the same tenant, classifier, policy version and view
    - a key tells nothing about the text it was made from to one who does not have `secret`
    - only opinions are kept: neither None nor an exception is
    - of those who ask for a key at the same time on one event loop, one asks and the others wait for its answer
    - it may be used from any thread and any loop; its lock is never held over an await

    `maxsize` is in verdicts (about 400 bytes each), `ttl` in seconds of `clock`. `on_lookup` is told of every look-up,
    whether it was a hit. Raises ConfigurationError for a size, an age or a secret that cannot work.
    """

    def __init__(
        self,
        maxsize: int = 10_000,
        ttl: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
        *,
        secret: bytes,
        on_lookup: Callable[[bool], None] = lambda _: None,
    ) -> None:
        _check(maxsize, ttl, secret)
        self._maxsize, self._ttl, self._clock = maxsize, ttl, clock
        self._on_lookup = on_lookup
        self._keyed = keyed(secret, _PURPOSE)
        self._verdicts = self._empty()
        self._lock = threading.Lock()
        # Not bounded: there is a flight only for a request that is being served, each ends with its question's
        # timeout, and refusing one would only mean asking the same question without sharing the answer.
        self._flights: dict[asyncio.AbstractEventLoop, dict[bytes, asyncio.Task[Classification | None]]] = {}
        self._hits = self._misses = self._joined = self._saved = self._evictions = 0

    def key(self, view: View, *, tenant: str | None, fingerprint: str, version: str) -> bytes:
        """The key (16 bytes) of a verdict: `fingerprint` is the classifier's, `version` the policy's.

        Each text is preceded by its length, so that no two different inputs are the same bytes. `None` and an
        empty text differ.
        """
        text = view.text.encode("utf-8", "surrogatepass")
        context = view.context.encode("utf-8", "surrogatepass")
        who = b"" if tenant is None else tenant.encode("utf-8", "surrogatepass")
        task = b"" if view.task is None else view.task.encode("utf-8", "surrogatepass")
        judge = fingerprint.encode("utf-8", "surrogatepass")
        policy = version.encode("utf-8", "surrogatepass")
        # Every length and number comes first, in a header that ends with its only zero byte: what follows is then cut
        # in one way only.
        header = (
            f"{-1 if tenant is None else len(who)},{len(judge)},{len(policy)},{len(text)},{len(context)},"
            f"{-1 if view.task is None else len(task)},{view.turns},{view.tools},{view.forced_tool:d},{view.images},"
            f"{view.documents},{view.max_tokens},{view.expected_output}\0"
        ).encode()
        digest = self._keyed.copy()
        digest.update(b"".join((header, who, judge, policy, task, context)))
        digest.update(text)
        return digest.digest()

    def peek(self, key: bytes) -> Classification | None:
        """The kept verdict, with source `cache` and cost 0. Counts a hit; finding none counts nothing.

        (The miss is counted by the `get_or_ask` that follows, if one does.)
        """
        with self._lock:
            entry = self._find(key)
            if entry is None:
                return None
            self._hits += 1
            self._saved += entry.cost
        self._on_lookup(True)
        return entry.hit

    def age(self, key: bytes) -> float | None:
        """Seconds since the verdict was stored, or None where there is none. A use of it, but counted as nothing."""
        with self._lock:
            entry = self._find(key)
            return None if entry is None else self._clock() - entry.stored_at

    def put(self, key: bytes, verdict: Classification) -> None:
        """Keep a verdict that came another way. Counts nothing."""
        entry = _Entry(_free(verdict), verdict.cost, self._clock())
        with self._lock:
            self._verdicts[key] = entry

    async def get_or_ask(
        self, key: bytes, ask: Callable[[], Awaitable[Classification | None]]
    ) -> tuple[Classification | None, bool]:
        """The verdict, and whether it came for free: from the cache, or from a flight that was under way.

        What is free has source `cache` and cost 0. `ask` runs in a task of its own, in a copy of the context of the
        one who started it, so that a caller who is cancelled takes nobody along: the flight goes on, and its verdict
        is kept even if nobody waits any more. What `ask` raises reaches everyone who waits for that flight. A flight
        that was itself cancelled (`drain`) is no opinion to those who are still there.
        """
        if (kept := self.peek(key)) is not None:
            return kept, True
        loop = asyncio.get_running_loop()
        with self._lock:
            flight = self._flights.get(loop, {}).get(key)
        joined = flight is not None and not flight.done()
        if flight is None or not joined:
            flight = self._start(loop, key, ask)
        # `wait` and not `await flight`: cancelling one who waits must not cancel the flight. And not `shield`: it
        # cannot tell whose cancellation it was, and from 3.14 on it logs a failure that nobody waited for.
        await asyncio.wait((flight,))
        verdict = None if flight.cancelled() else flight.result()
        found = joined and verdict is not None
        with self._lock:
            self._joined += joined
            self._misses += not joined
            self._saved += verdict.cost if joined and verdict is not None else 0
        self._on_lookup(found)
        return (_free(verdict), True) if joined and verdict is not None else (verdict, False)

    async def drain(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for the flights of this loop, then cancel the rest and see them end.

        Flights of other loops cannot be awaited from here: whoever runs a loop drains it.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            flights = list(self._flights.get(loop, {}).values())
        if not flights:
            return
        _, late = await asyncio.wait(flights, timeout=timeout)
        for flight in late:
            flight.cancel()
        if late:
            await asyncio.wait(late)

    def clear(self) -> None:
        """Forget every verdict. Flights under way go on, and store what they bring."""
        with self._lock:
            self._evictions += self._verdicts.evictions
            self._verdicts = self._empty()

    def stats(self) -> CacheStats:
        """What the cache has done until now; verdicts that are too old are dropped and counted first."""
        with self._lock:
            size = len(self._verdicts)
            evictions = self._evictions + self._verdicts.evictions
            return CacheStats(self._hits, self._misses, self._joined, evictions, self._saved, size)

    def _empty(self) -> _Counted:
        return _Counted(self._maxsize, self._ttl, self._clock)

    def _find(self, key: bytes) -> _Entry | None:
        # Not `get`, which in cachetools looks twice.
        try:
            return self._verdicts[key]
        except KeyError:
            return None

    def _start(
        self, loop: asyncio.AbstractEventLoop, key: bytes, ask: Callable[[], Awaitable[Classification | None]]
    ) -> asyncio.Task[Classification | None]:
        # Outside the lock: a loop with eager tasks runs the flight from in here.
        flight = loop.create_task(self._fly(key, ask), name="tierline verdict")
        with self._lock:
            flights = self._flights.get(loop)
            if flights is None:
                # A loop that was closed in mid-flight never ran `_land`.
                for closed in [other for other in self._flights if other.is_closed()]:
                    del self._flights[closed]
                flights = self._flights[loop] = {}
            flights[key] = flight
        flight.add_done_callback(partial(self._land, loop, key))
        return flight

    async def _fly(self, key: bytes, ask: Callable[[], Awaitable[Classification | None]]) -> Classification | None:
        verdict = await ask()
        if verdict is not None:
            self.put(key, verdict)
        return verdict

    def _land(self, loop: asyncio.AbstractEventLoop, key: bytes, flight: asyncio.Task[Classification | None]) -> None:
        with self._lock:
            flights = self._flights.get(loop, {})
            # One that failed may have been followed by another before this ran.
            if flights.get(key) is flight:
                del flights[key]
            if not flights:
                self._flights.pop(loop, None)
        if not flight.cancelled():
            # Seen, so that asyncio does not log a failure that nobody waited for.
            flight.exception()


def _check(maxsize: object, ttl: object, secret: object) -> None:
    if not isinstance(maxsize, int) or isinstance(maxsize, bool) or maxsize < 1:
        raise ConfigurationError(f"the verdict cache's maxsize is {maxsize!r}; write a whole number above 0")
    if not isinstance(ttl, (int, float)) or isinstance(ttl, bool) or math.isnan(ttl) or ttl <= 0:
        raise ConfigurationError(f"the verdict cache's ttl is {ttl!r}; write a number of seconds above 0")
    if not isinstance(secret, bytes) or not secret:
        raise ConfigurationError("the verdict cache's secret is empty or not bytes; give it some random bytes")


def _free(verdict: Classification) -> Classification:
    return replace(verdict, source="cache", cost=0)
