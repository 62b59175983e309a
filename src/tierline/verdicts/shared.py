"""Verdicts that processes share: looked up before Claude is asked, and written down behind everybody's back."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from tierline.errors import LedgerUnavailableError
from tierline.verdicts.sealing import Sealing
from tierline.verdicts.store import Kept

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from tierline.classify.cache import About
    from tierline.values import Classification
    from tierline.verdicts.store import StoredVerdicts, VerdictStore

log: Final = logging.getLogger("tierline")

PATIENCE: Final = 0.05
"""Seconds that a store may be silent for: a question to Claude takes ten times as long."""
FIRST: Final = 0.5
"""Seconds for the first one, which makes the connection that the ledger needs as well."""
RETRY: Final = 5.0
"""Seconds for which a store that did not answer is passed over."""
LINGER: Final = 0.25
"""Seconds in which verdicts are gathered before they are written."""
_LONGEST: Final = 10
"""How many times longer is waited at most, while others are answered, or this process is too busy to read."""
_BATCH: Final = 200
_MOST_WAITING: Final = 10_000
"""Verdicts that wait to be written: of the oldest, those above that are dropped."""
_LAST: Final = 1.0
"""Seconds for writing at a shutdown, even where it has no time."""


class Learned(Protocol):
    """What is needed of a `Learning`: the secret that all processes have, and what accounts are called with it."""

    secret: bytes | None

    async def known_secret(self) -> bytes:
        """The secret. LedgerUnavailableError where the store is away that has it."""
        ...

    def digest(self, account: str | None) -> str:
        """What an account is known by, once the secret is known."""
        ...


class Found(NamedTuple):
    """A verdict that was stored: what asking for it cost (nano-USD) is in it. `age` is in seconds."""

    verdict: Classification
    age: float


@dataclass(slots=True, eq=False)
class _Look:
    about: About
    found: asyncio.Future[Found | None]


class SharedVerdicts:
    """The second level of a verdict cache.

    - those who look at the same time on one event loop do so in one step
    - a store that says nothing for 50 ms while it is looked in, or is known to be away, is passed over for five
      seconds, and Claude is asked as if it were not there
    - verdicts are written in the background, many at a time; what the store does not take is kept, up to 10,000
    - nothing is stored but keyed digests, labels and numbers, sealed with the secret of the Router or of the store

    `ttl` is in seconds; `now` gives those since the epoch, `clock` those of a clock that nobody sets; `away` says
    whether the store is known to be away; `on_look` is told what came of each look-up: `hit`, `miss`, `passed_over`.
    """

    def __init__(
        self,
        store: VerdictStore,
        learning: Learned,
        *,
        model: str,
        ttl: float,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        away: Callable[[], bool] = lambda: False,
        on_look: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.store = store
        self._learning, self._model, self._ttl = learning, model, ttl
        self._now, self._clock, self._away, self._on_look = now, clock, away, on_look
        self._sealed: Sealing | None = None
        self._met = False
        self._heard = 0.0
        """When the store answered last, by the clock of loops."""
        self._next = 0.0
        self._looks: dict[asyncio.AbstractEventLoop, list[_Look]] = {}
        """Those of a loop that have not been asked for yet; each loop touches its own alone."""
        self._lock = threading.Lock()
        """Held for no longer than an assignment, and never over an await."""
        self._waiting: dict[str, Kept] = {}
        self._hits: Counter[str] = Counter()
        self._saved = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[asyncio.AbstractEventLoop, asyncio.TimerHandle] = {}
        self.passed_over = 0
        """Look-ups for which the store was not asked, or did not answer in time."""

    # Before Claude is asked

    async def find(self, about: About) -> Found | None:
        """The verdict that some process has stored, and that still counts. Raises nothing but a cancellation."""
        if self._clock() < self._next or self._away():
            self._pass_over()
            return None
        loop = asyncio.get_running_loop()
        look = _Look(about, loop.create_future())
        if loop not in self._looks:
            for closed in [known for known in tuple(self._looks) if known.is_closed()]:
                self._looks.pop(closed, None)
            self._looks[loop] = []
            loop.call_soon(self._begin, loop)
        self._looks[loop].append(look)
        await self._patiently(loop, look.found)
        if not look.found.done():
            self._next = self._clock() + RETRY
            look.found.cancel()
            self._pass_over()
            return None
        if (found := look.found.result()) is not None:
            self._on_look("hit")
        return found

    async def _patiently(self, loop: asyncio.AbstractEventLoop, found: asyncio.Future[Found | None]) -> None:
        """Wait until it is there, or the store has been silent for too long."""
        patience = PATIENCE if self._met else FIRST
        began = loop.time()
        due = began + patience
        while not found.done() and (now := loop.time()) < due:
            await asyncio.wait((found,), timeout=due - now)
            late = loop.time() - due
            # Where the loop was late, the answer may be there and not be read yet; where others of the same moment are
            # answered, this one is next.
            since = loop.time() if late > patience / 2 else self._heard
            due = min(max(due, since + patience), began + _LONGEST * patience)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._start(self._look(self._looks.pop(loop)))

    async def _look(self, looks: Sequence[_Look]) -> None:
        waiting: dict[str, list[_Look]] = {}
        try:
            sealing = await self._sealing()
            for look in looks:
                waiting.setdefault(sealing.key(look.about), []).append(look)
            keys = list(waiting)
            for place in range(0, len(keys), _BATCH):
                part = keys[place : place + _BATCH]
                values = await self.store.get(part)
                self._met, self._heard = True, asyncio.get_running_loop().time()
                for key, value in zip(part, values, strict=True):
                    found = self._read(sealing, key, value)
                    for look in waiting.pop(key):
                        self._tell(look, key, found)
        except LedgerUnavailableError:
            self._next = self._clock() + RETRY
        except Exception as error:  # noqa: BLE001  (those who wait ask Claude; what it was about is not told)
            log.error("a look-up of stored verdicts failed: %s", type(error).__name__)  # noqa: TRY400
        for look in looks:
            if not look.found.done():
                self._pass_over()
                look.found.set_result(None)

    def _read(self, sealing: Sealing, key: str, value: str | None) -> Found | None:
        unsealed = sealing.unseal(key, value) if value is not None else None
        if unsealed is None:
            return None
        age = max(0.0, self._now() - unsealed.at)  # clocks of machines differ
        return Found(unsealed.verdict, age) if age < self._ttl else None

    def _tell(self, look: _Look, key: str, found: Found | None) -> None:
        if look.found.done():
            return
        if found is None:
            self._on_look("miss")
        else:
            with self._lock:
                self._hits[key] += 1
                self._saved += found.verdict.cost
            self._soon(LINGER)
        look.found.set_result(found)

    def _pass_over(self) -> None:
        self.passed_over += 1
        self._on_look("passed_over")

    # When it has answered

    def keep(self, about: About, verdict: Classification) -> None:
        """Store a verdict, soon. Waits for nothing; while the secret is not known it is let go."""
        sealing = self._sealed
        if sealing is None:
            return
        key = sealing.key(about)
        value = sealing.seal(key, verdict, self._now())
        if value is None:
            return
        with self._lock:
            self._waiting[key] = Kept(key, self._learning.digest(about.tenant), value, self._ttl)
            if len(self._waiting) > _MOST_WAITING:
                del self._waiting[next(iter(self._waiting))]
        self._soon(LINGER)

    async def erase(self, account: str) -> None:
        """Forget the verdicts of an account. LedgerUnavailableError where the store is away."""
        await self._sealing()
        digest = self._learning.digest(account)
        with self._lock:
            self._waiting = {key: each for key, each in self._waiting.items() if each.account != digest}
        await self.store.forget(digest)

    async def clear(self) -> None:
        """Forget all verdicts, also those that wait to be written. LedgerUnavailableError where the store is away."""
        with self._lock:
            self._waiting = {}
        await self.store.clear()

    async def stats(self) -> StoredVerdicts:
        """What the store has, what this process has to tell it included. LedgerUnavailableError where it is away."""
        await self._write()
        return await self.store.stats()

    async def close(self, timeout: float) -> None:
        """Write what waits, within `timeout` seconds and at least one, and end what runs on this loop."""
        loop = asyncio.get_running_loop()
        with suppress(LedgerUnavailableError, TimeoutError):
            await asyncio.wait_for(self._write(), max(timeout, _LAST))
        if timer := self._timers.pop(loop, None):
            timer.cancel()
        mine = [task for task in tuple(self._tasks) if task.get_loop() is loop]
        for task in mine:
            task.cancel()
        if mine:
            await asyncio.wait(mine)

    # In the background

    async def _sealing(self) -> Sealing:
        # A store that has lost its data may have another secret afterwards.
        secret = self._learning.secret or await self._learning.known_secret()
        sealed = self._sealed
        if sealed is None or sealed.secret != secret:
            sealed = self._sealed = Sealing(secret, self._model)
        return sealed

    async def _write(self) -> None:
        while self._waiting or self._hits:
            with self._lock:
                batch = [self._waiting.pop(key) for key in list(self._waiting)[:_BATCH]]
                hits, saved = dict(self._hits), self._saved
                self._hits.clear()
                self._saved = 0
            try:
                if batch:
                    await self.store.put(batch)
                if hits:
                    await self.store.used(hits, saved)
            except BaseException:
                self._take_back(batch, hits, saved)
                raise

    def _take_back(self, batch: Sequence[Kept], hits: dict[str, int], saved: int) -> None:
        with self._lock:
            self._waiting = {each.key: each for each in batch} | self._waiting
            self._hits.update(hits)
            self._saved += saved
            for key in list(self._waiting)[: max(0, len(self._waiting) - _MOST_WAITING)]:
                del self._waiting[key]
            for key, _ in self._hits.most_common()[_MOST_WAITING:]:
                del self._hits[key]

    def _soon(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if loop not in self._timers:
            for closed in [known for known in tuple(self._timers) if known.is_closed()]:
                self._timers.pop(closed, None)
            self._timers[loop] = loop.call_later(seconds, self._fire, loop)

    def _fire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timers.pop(loop, None)
        if self._away():
            self._soon(RETRY)
        else:
            self._start(self._round())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _round(self) -> None:
        try:
            await self._write()
        except LedgerUnavailableError:
            self._soon(RETRY)  # the log tells of the ledger, which is in the same store
        except Exception as error:  # noqa: BLE001  (nobody waits for this; what it was about is not told)
            log.error("verdicts were not stored: %s", type(error).__name__)  # noqa: TRY400
