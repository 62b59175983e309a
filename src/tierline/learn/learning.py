"""A Router's own learning: its model, where outcomes are kept, and what passes between them while calls go on."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import threading
import time
from collections import deque
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from tierline.budgets import DEFAULT_ACCOUNT
from tierline.errors import ConfigurationError, LedgerUnavailableError
from tierline.learn.grading import Asked
from tierline.learn.handles import Handles
from tierline.learn.memory import MemoryOutcomes
from tierline.learn.outcomes import Evidence, check_grade, edition
from tierline.learn.shares import Shares
from tierline.ledger.checks import plain
from tierline.recent import keyed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tierline.learn.outcomes import Outcome, OutcomeStore
    from tierline.values import Forecast

log: Final = logging.getLogger("tierline")

HANDLE_TTL: Final = 7 * 86_400.0
"""Seconds that a handle lives."""
LINGER: Final = 1.0
"""Seconds in which grades are gathered before they are written."""
EVERY: Final = 3.0
"""Seconds after which a process that serves calls reads what others have learned."""
RETRY: Final = 5.0
"""Seconds after which a store that was away is asked again."""
_PAGE: Final = 500
"""Evidence that is read in one step."""
_MANY: Final = 100
"""So much new evidence is taken in at once, in a thread; less than that one by one, half a millisecond each."""
_BATCH: Final = 200
"""Evidence that is written in one step."""
_MOST_WAITING: Final = 10_000
"""Grades that wait to be written: of the oldest, those above that are dropped."""
_FIRST: Final = 1.0
"""Seconds for which the first call waits for the secret, where nobody has asked for it at start-up."""
_LAST: Final = 1.0
"""Seconds for writing at a shutdown, even where it has no time."""
_PURPOSE: Final = b"tierline account"


@runtime_checkable
class Model(Protocol):
    """What is needed of an `OutcomeModel`. Safe from any thread."""

    @property
    def tiers(self) -> tuple[str, ...]:
        """Names, cheapest first."""
        ...

    @property
    def half_life(self) -> float:
        """Seconds in which evidence loses half of its weight."""
        ...

    def evidence(self, route: str) -> float:
        """How many outcomes of a route there are, old ones counted as what is left of them."""
        ...

    def features(self, text: str, tools: int = 0) -> bytes:
        """What is kept in the place of a text."""
        ...

    def forecast_of(self, route: str, features: bytes) -> Forecast:
        """How likely each tier is good enough."""
        ...

    def absorb(self, evidence: Evidence) -> None:
        """Learn from evidence."""
        ...

    def absorb_all(self, evidence: Iterable[Evidence]) -> None:
        """The same with much at once, in a thread."""
        ...

    def restart(self) -> None:
        """Let go of all that was absorbed, in a thread."""
        ...

    def kept_by(self, keep: Callable[[Outcome], None]) -> None:
        """Hand over what is observed from now on."""
        ...


class Learning:
    """What a Router learns from outcomes, shared by all processes that have its store.

    - `observe` and `keep` may be called from any thread and wait for nothing. Evidence is written in the background,
      many at a time, on the loop where calls come in. While the store is away it is kept, up to 10,000 of the latest
    - the model is fed by what the store gives, and by nothing else: so all processes learn the same, in the same order,
      and what an account said and was erased is unlearned everywhere
    - others' evidence is read every few seconds while calls come in. No task waits for that: an idle process does
      nothing

    `secret` signs handles; without one it is made by the store. `handle_ttl` is in seconds; `now` gives seconds since
    the epoch, `clock` those of a clock that nobody sets; `away` says whether the store is known to be away.
    """

    def __init__(
        self,
        model: Model,
        store: OutcomeStore,
        *,
        secret: bytes | None = None,
        handle_ttl: float = HANDLE_TTL,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        away: Callable[[], bool] = lambda: False,
    ) -> None:
        self.model = model
        self.store = store
        self.handle_ttl = handle_ttl
        self.now = now
        self.handles: Handles | None = None
        """None until the secret is known."""
        self.secret: bytes | None = None
        """The same in all processes; None until it is known."""
        self._clock = clock
        self._away = away
        self._given = secret is not None
        self._shares = Shares(model.half_life)
        self._cursor = ""
        self._unread: deque[Evidence] = deque()
        """What the store gave, and the model was not told yet."""
        self._lock = threading.Lock()
        """Held for no longer than an assignment, and never over an await."""
        self._waiting: dict[str, Evidence] = {}
        self._dropped = 0
        self._busy = 0
        """The process that writes and reads just now: a forked child does so for itself."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[asyncio.AbstractEventLoop, asyncio.TimerHandle] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._every = EVERY
        if isinstance(store, MemoryOutcomes):
            # There are no others, and nothing to wait for.
            self._every, secret = inf, secret or store.made
        self._next = inf if self._every == inf else 0.0
        if secret is not None:
            self._use(secret)
        model.kept_by(self.observe)

    def _use(self, secret: bytes) -> None:
        self.secret = secret
        self._keyed = keyed(secret, _PURPOSE)
        self.handles = Handles(secret)

    def digest(self, account: str | None) -> str:
        """What an account is known by in the store, once the secret is known: 32 hexadecimal digits."""
        digest = self._keyed.copy()
        digest.update((account or DEFAULT_ACCOUNT).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    # Around a call

    def asked(self, route: str | None, tenant: str | None, text: str, tools: int) -> Asked:
        """A request that is about to be sent. `text` is the latest turn that a person wrote."""
        return Asked(self, plain(route or DEFAULT_ACCOUNT), tenant, text, tools)

    def begin(self) -> None:
        """A call begins on this loop: read what others have learned, if it is time for that."""
        self._loop = asyncio.get_running_loop()
        if self._next != inf and self._clock() >= self._next:
            self._next = self._clock() + self._every
            self._start()
        elif self._waiting:
            self._soon(LINGER)  # said where there was no loop

    async def known_secret(self) -> bytes:
        """The secret that all processes have. LedgerUnavailableError where the store is away that has it."""
        await self._learn_secret()
        assert self.secret is not None  # noqa: S101  (learned)
        return self.secret

    async def known(self) -> None:
        """Wait until handles can be made, or it is known that they cannot be made now."""
        if self.handles is None and (mine := self._mine()):
            await asyncio.wait(mine, timeout=_FIRST)

    def observe(self, outcome: Outcome) -> None:
        """Learn from what somebody says of a request. ConfigurationError for a tier that is none of the ladder's."""
        if outcome.tier not in self.model.tiers:
            raise ConfigurationError(f"Outcome(tier={outcome.tier!r:.80}): the tiers are {', '.join(self.model.tiers)}")
        self.keep(
            Evidence(
                secrets.token_hex(8),
                plain(outcome.route),  # one that cannot be written would hold up all that wait with it, for good
                outcome.tier,
                float(outcome.good),
                self.model.features(outcome.text, outcome.tools),
                plain(outcome.source),
                outcome.weight,
                at=self.now(),
            )
        )

    def keep(self, evidence: Evidence) -> None:
        """Learn from this. Of those with one id the last counts that was given before it was written."""
        with self._lock:
            self._waiting[evidence.id] = evidence
            if len(self._waiting) > _MOST_WAITING:
                del self._waiting[next(iter(self._waiting))]
                self._dropped += 1
        self._soon(LINGER)

    # Grades that come later

    async def grade(self, handle: object, good: bool | float, by: str | None) -> bool:
        """Whether a grade counted: see `Router.grade`."""
        grade = check_grade("router.grade(good=…)", good)
        await self._learn_secret()
        assert self.handles is not None  # noqa: S101  (learned)
        grip = self.handles.read(handle, self.now())
        if grip is None or grip.tier not in self.model.tiers:
            return False
        account = grip.account if by is None else self.digest(by)
        # One grade of the app and one of whoever saw the answer are two outcomes.
        evidence = Evidence(
            f"{grip.id} seen", grip.route, grip.tier, grade, grip.features, "user", account=account, at=self.now()
        )
        if self._shares.enough(evidence):
            return False  # nor is it kept: who grades by the thousand would push out what the others said
        (counted,) = await self.store.add([evidence])
        if counted:
            self._soon(LINGER)
        return counted

    async def erase(self, account: str) -> None:
        """Forget what an account said, here and in the store; other processes do so when they read again."""
        await self._learn_secret()
        digest = self.digest(account)
        with self._lock:
            self._waiting = {name: each for name, each in self._waiting.items() if each.account != digest}
        await self.store.forget(digest)
        await self.sync()

    # From start-up to shutdown

    async def start(self) -> None:
        """Know the secret, and what was learned before. What is away now is asked for again when calls come in."""
        self._loop = asyncio.get_running_loop()
        with suppress(LedgerUnavailableError):
            await self.sync()
            self._next = self._clock() + self._every

    async def close(self, timeout: float) -> None:
        """Write what waits, within `timeout` seconds and at least one, and end what runs on this loop."""
        loop = asyncio.get_running_loop()
        if timer := self._timers.pop(loop, None):
            timer.cancel()
        timeout = max(timeout, _LAST)
        ends = loop.time() + timeout
        if mine := self._mine():
            await asyncio.wait(mine, timeout=timeout)
        with suppress(LedgerUnavailableError, TimeoutError):
            await asyncio.wait_for(self._write(), max(ends - loop.time(), 0.0))
        for task in mine:
            task.cancel()
        if timer := self._timers.pop(loop, None):
            timer.cancel()
        if self._waiting:
            log.warning("the store of outcomes is away: %d grades were not kept", len(self._waiting))

    async def sync(self) -> None:
        """Write what waits, and read what there is. LedgerUnavailableError where the store is away."""
        while not await self._synced():
            if not (mine := self._mine()):
                return  # another loop is at it
            # One that has begun before may have passed what this is about.
            await asyncio.wait(mine)

    async def _synced(self) -> bool:
        """The same, unless somebody is at it: then it is False."""
        if not self._claim():
            return False
        try:
            await self._learn_secret()
            await self._write()
            await self._read()
        finally:
            self._busy = 0
        return True

    def _mine(self) -> list[asyncio.Task[None]]:
        """What runs on this loop in the background."""
        loop = asyncio.get_running_loop()
        return [task for task in tuple(self._tasks) if task.get_loop() is loop]

    def _claim(self) -> bool:
        with self._lock:
            if self._busy == os.getpid():
                return False
            self._busy = os.getpid()
            return True

    async def _learn_secret(self) -> None:
        if self.handles is None:
            self._use(await self.store.secret())

    async def _write(self) -> None:
        while self._waiting:
            with self._lock:
                batch = list(self._waiting.values())[:_BATCH]
            await self.store.add(batch)
            with self._lock:
                for each in batch:
                    # One that was graded anew meanwhile is not written again: its id is taken.
                    self._waiting.pop(each.id, None)

    async def _read(self) -> None:
        while True:
            found, cursor = await self.store.since(self._cursor, _PAGE)
            if self._cursor and edition(cursor) != edition(self._cursor):
                if not self._given:
                    self._use(await self.store.secret())
                self._unread.clear()
                await asyncio.to_thread(self.model.restart)  # a model that was fitted learns that anew
                self._shares = Shares(self.model.half_life)
            self._unread += found
            self._cursor = cursor
            if len(found) < _PAGE:
                break
        # What is taken in when this is cancelled is not taken in again.
        while self._unread:
            if len(self._unread) > _MANY:
                counted = [each for each in map(self._shares.counted, self._unread) if each is not None]
                self._unread.clear()
                await asyncio.to_thread(self.model.absorb_all, counted)
            elif (one := self._shares.counted(self._unread.popleft())) is not None:
                self.model.absorb(one)
                await asyncio.sleep(0)

    # In the background

    def _soon(self, seconds: float) -> None:
        """Write and read in a while: on this loop, or on that of the latest call; else the next call will."""
        with suppress(RuntimeError):
            self._arm(asyncio.get_running_loop(), seconds)
            return
        loop = self._loop
        with suppress(RuntimeError):
            if loop is not None:
                loop.call_soon_threadsafe(self._arm, loop, seconds)

    def _arm(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        if loop not in self._timers:
            for closed in [known for known in tuple(self._timers) if known.is_closed()]:
                self._timers.pop(closed, None)
            self._timers[loop] = loop.call_later(seconds, self._fire, loop)

    def _fire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timers.pop(loop, None)
        self._start()

    def _start(self) -> None:
        if self._away():
            self._next = self._clock() + RETRY
            if self._waiting:
                self._soon(RETRY)
            return
        task = asyncio.get_running_loop().create_task(self._round())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _round(self) -> None:
        wait = LINGER
        try:
            await self._synced()
        except LedgerUnavailableError:
            wait = RETRY  # the log tells of the ledger, which is in the same store
            self._next = self._clock() + RETRY
        except Exception as error:  # noqa: BLE001  (nobody waits for this; what it was about is not told)
            log.error("learning failed: %s", type(error).__name__)  # noqa: TRY400
        if self._dropped:
            log.warning("%d grades were dropped: more than %d wait to be written", self._dropped, _MOST_WAITING)
            self._dropped = 0
        if self._waiting:
            self._soon(wait)
