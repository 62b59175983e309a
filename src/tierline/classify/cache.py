"""Verdicts that were paid for once: an exact TTL-LRU cache, with one flight for those who ask at the same time."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from cachetools import TTLCache

from tierline.errors import ConfigurationError
from tierline.numeric import is_whole
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
    - `stored` were answered from the second level, which other processes share: no hits, and no misses; `passed_over`
      are look-ups there that brought no answer in time
    """

    hits: int = 0
    misses: int = 0
    joined: int = 0
    evictions: int = 0
    saved: int = 0
    size: int = 0
    stored: int = 0
    passed_over: int = 0


class About(NamedTuple):
    """What a verdict is on, and what else it depends on: see `VerdictCache.key`."""

    view: View
    tenant: str | None
    fingerprint: str
    version: str


class Stored(Protocol):
    """A verdict of the second level: what asking for it cost is in it, and it is `age` seconds old."""

    @property
    def verdict(self) -> Classification:
        """The verdict."""
        ...

    @property
    def age(self) -> float:
        """Seconds."""
        ...


class SecondLevel(Protocol):
    """Where verdicts are looked up that this cache has not, before anybody is asked: see `tierline.verdicts`."""

    @property
    def passed_over(self) -> int:
        """Look-ups that brought no answer in time."""
        ...

    async def find(self, about: About) -> Stored | None:
        """A verdict that still counts. In bounded time, and raises nothing."""
        ...

    def keep(self, about: About, verdict: Classification) -> None:
        """Store one. Waits for nothing."""
        ...


class _Entry(NamedTuple):
    hit: Classification
    """The verdict as a hit returns it. Made once: a hit is the hot path."""
    cost: int
    stored_at: float
    until: float = math.inf
    """When it is too old, where that is before the cache would say so: it was not new when it came."""
    whose: str | None = None
    """The tenant's: a place that it may lose to somebody else, or to this tenant itself."""


class _Flown(NamedTuple):
    """What a flight brought, and whether from the second level."""

    verdict: Classification | None = None
    stored: bool = False


class _Counted(TTLCache[bytes, _Entry, float]):
    """Counts what it drops, and lets no tenant drive out all others.

    The ways out are methods that cachetools documents for overriding. Where it is full, the verdict goes that was used
    longest ago; but a tenant with half of the places makes room among its own, oldest first.
    """

    evictions = 0

    def __init__(self, maxsize: int, ttl: float, clock: Callable[[], float]) -> None:
        super().__init__(maxsize, ttl, clock)
        self._of: dict[str | None, OrderedDict[bytes, None]] = {}
        """The keys of each tenant."""
        self._comes: str | None = None
        """Whose verdict is being kept."""

    def keep(self, key: bytes, entry: _Entry) -> None:
        self._comes = entry.whose
        self[key] = entry
        own = self._of.setdefault(entry.whose, OrderedDict())
        own[key] = None
        own.move_to_end(key)

    def popitem(self) -> tuple[bytes, _Entry]:
        own = self._of.get(self._comes, ())
        if self.maxsize <= 2 * len(own) < 2 * len(self):
            key = next(iter(own))
            item = key, self[key]
            del self[key]
        else:
            item = super().popitem()
        self.evictions += 1
        return item

    def expire(self, time: float | None = None) -> list[tuple[bytes, _Entry]]:
        gone = list(super().expire(time))
        self.evictions += len(gone)
        for key, entry in gone:
            self._left(key, entry)
        return gone

    def __delitem__(self, key: bytes) -> None:
        entry = self[key]
        super().__delitem__(key)
        self._left(key, entry)

    def _left(self, key: bytes, entry: _Entry) -> None:
        own = self._of[entry.whose]
        del own[key]
        if not own:
            del self._of[entry.whose]


class VerdictCache:
    """A bounded cache of verdicts.

    - exact: a verdict is found again only for the same tenant, classifier, policy version and view
    - a key tells nothing about the text it was made from to one who does not have `secret`
    - a tenant with half of the places makes room among its own verdicts: no flood of texts drives out all others
    - only opinions are kept: neither None nor an exception is
    - of those who ask for a key at the same time on one event loop, one asks and the others wait for its answer
    - it may be used from any thread and any loop; its lock is never held over an await

    `maxsize` is in verdicts (about 500 bytes each), `ttl` in seconds of `clock`. `on_lookup` is told of every look-up,
    whether it was a hit. `second` is looked in before anybody is asked. ConfigurationError for a size, an age or a
    secret that cannot work.
    """

    def __init__(
        self,
        maxsize: int = 10_000,
        ttl: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
        *,
        secret: bytes,
        on_lookup: Callable[[bool], None] = lambda _: None,
        second: SecondLevel | None = None,
    ) -> None:
        _check(maxsize, ttl, secret)
        self._maxsize, self._ttl, self._clock = maxsize, ttl, clock
        self._on_lookup = on_lookup
        self._second = second
        self._keyed = keyed(secret, _PURPOSE)
        self._verdicts = self._empty()
        self._lock = threading.Lock()
        # Not bounded: there is a flight only for a request that is being served, each ends with its question's
        # timeout, and refusing one would only mean asking the same question without sharing the answer.
        self._flights: dict[asyncio.AbstractEventLoop, dict[bytes, asyncio.Task[_Flown]]] = {}
        self._hits = self._misses = self._joined = self._saved = self._evictions = self._stored = 0

    def key(self, view: View, *, tenant: str | None, fingerprint: str, version: str) -> bytes:
        """The key (16 bytes) of a verdict: `fingerprint` is the classifier's, `version` the policy's.

        No two different inputs have one key: see `material`.
        """
        header, text = material(view, tenant, fingerprint, version)
        digest = self._keyed.copy()
        digest.update(header)
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

    def put(self, key: bytes, verdict: Classification, about: About | None = None) -> None:
        """Keep a verdict that came another way, and store it where `about` says what it is on. Counts nothing."""
        self._put(key, verdict, about)
        if about is not None and self._second is not None:
            self._second.keep(about, verdict)

    async def recall(self, key: bytes, about: About) -> Classification | None:
        """The verdict, where it costs nothing: kept here, or stored. As `peek`."""
        found = self.peek(key)
        if found is not None or self._second is None or (stored := await self._second.find(about)) is None:
            return found
        self._put(key, stored.verdict, about, stored.age)
        with self._lock:
            self._stored += 1
            self._saved += stored.verdict.cost
        self._on_lookup(True)
        return _free(stored.verdict)

    async def get_or_ask(
        self, key: bytes, ask: Callable[[], Awaitable[Classification | None]], about: About | None = None
    ) -> tuple[Classification | None, bool]:
        """The verdict, and whether it came for free: from the cache, or from a flight that was under way.

        With `about`, what it is on, a flight looks in the second level before it asks, and stores there what it brings.

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
            flight = self._start(loop, key, ask, about)
        # `wait` and not `await flight`: cancelling one who waits must not cancel the flight. And not `shield`: it
        # cannot tell whose cancellation it was, and from 3.14 on it logs a failure that nobody waited for.
        await asyncio.wait((flight,))
        verdict, stored = _Flown() if flight.cancelled() else flight.result()
        free = (joined or stored) and verdict is not None
        with self._lock:
            self._joined += joined
            self._stored += stored and not joined
            self._misses += not joined and not stored
            self._saved += verdict.cost if free and verdict is not None else 0
        self._on_lookup(free)
        return (_free(verdict), True) if free and verdict is not None else (verdict, False)

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
            passed = self._second.passed_over if self._second is not None else 0
            return CacheStats(
                self._hits, self._misses, self._joined, evictions, self._saved, size, self._stored, passed
            )

    def _empty(self) -> _Counted:
        return _Counted(self._maxsize, self._ttl, self._clock)

    def _find(self, key: bytes) -> _Entry | None:
        # Not `get`, which in cachetools looks twice.
        try:
            entry = self._verdicts[key]
        except KeyError:
            return None
        if entry.until != math.inf and entry.until <= self._clock():
            del self._verdicts[key]
            self._evictions += 1
            return None
        return entry

    def _put(self, key: bytes, verdict: Classification, about: About | None, age: float = 0.0) -> None:
        now = self._clock()
        until = now - age + self._ttl if age else math.inf
        entry = _Entry(_free(verdict), verdict.cost, now - age, until, about.tenant if about is not None else None)
        with self._lock:
            self._verdicts.keep(key, entry)

    def _start(
        self,
        loop: asyncio.AbstractEventLoop,
        key: bytes,
        ask: Callable[[], Awaitable[Classification | None]],
        about: About | None,
    ) -> asyncio.Task[_Flown]:
        # Outside the lock: a loop with eager tasks runs the flight from in here.
        flight = loop.create_task(self._fly(key, ask, about), name="tierline verdict")
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

    async def _fly(
        self, key: bytes, ask: Callable[[], Awaitable[Classification | None]], about: About | None
    ) -> _Flown:
        if about is not None and self._second is not None and (stored := await self._second.find(about)) is not None:
            self._put(key, stored.verdict, about, stored.age)
            return _Flown(stored.verdict, stored=True)
        verdict = await ask()
        if verdict is not None:
            self.put(key, verdict, about)
        return _Flown(verdict)

    def _land(self, loop: asyncio.AbstractEventLoop, key: bytes, flight: asyncio.Task[_Flown]) -> None:
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


def material(view: View, tenant: str | None, fingerprint: str, version: str) -> tuple[bytes, bytes]:
    """All that a verdict depends on, as bytes: different for different inputs, `None` and an empty text among them."""
    text = view.text.encode("utf-8", "surrogatepass")
    context = view.context.encode("utf-8", "surrogatepass")
    who = b"" if tenant is None else tenant.encode("utf-8", "surrogatepass")
    task = b"" if view.task is None else view.task.encode("utf-8", "surrogatepass")
    judge = fingerprint.encode("utf-8", "surrogatepass")
    policy = version.encode("utf-8", "surrogatepass")
    # Every length and number comes first, in a header that ends with its only zero byte: what follows is then cut in
    # one way only.
    header = (
        f"{-1 if tenant is None else len(who)},{len(judge)},{len(policy)},{len(text)},{len(context)},"
        f"{-1 if view.task is None else len(task)},{view.turns},{view.tools},{view.forced_tool:d},{view.images},"
        f"{view.documents},{view.max_tokens},{view.expected_output}\0"
    ).encode()
    return b"".join((header, who, judge, policy, task, context)), text


def _check(maxsize: object, ttl: object, secret: object) -> None:
    if not is_whole(maxsize, 1):
        raise ConfigurationError(f"the verdict cache's maxsize is {maxsize!r}; write a whole number above 0")
    if not isinstance(ttl, (int, float)) or isinstance(ttl, bool) or math.isnan(ttl) or ttl <= 0:
        raise ConfigurationError(f"the verdict cache's ttl is {ttl!r}; write a number of seconds above 0")
    if not isinstance(secret, bytes) or not secret:
        raise ConfigurationError("the verdict cache's secret is empty or not bytes; give it some random bytes")


def _free(verdict: Classification) -> Classification:
    return replace(verdict, source="cache", cost=0)
