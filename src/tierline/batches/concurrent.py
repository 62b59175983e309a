"""The concurrent lane: a job whose requests are sent as calls, several at a time, for who cannot wait for a batch."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tierline.batches.calling import Called, call, length_of
from tierline.batches.jobs import FINAL, Item
from tierline.batches.pacing import Turn
from tierline.batches.submitting import each_of, invalid, nobody, sifted
from tierline.binding import context
from tierline.errors import ConfigurationError, LedgerUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence

    from tierline.batches.jobs import Begun, JobStore
    from tierline.batches.pacing import Pacer
    from tierline.batches.submitting import Told
    from tierline.batches.turns import Turns
    from tierline.batches.values import BatchRequest, WhenFull
    from tierline.router import Router

T = TypeVar("T")

log: Final = logging.getLogger("tierline")

CHUNK: Final = 50
"""Requests that are read together."""
AHEAD: Final = 20 * CHUNK
"""Requests of a job that were read and are not answered, at most: among them accounts take turns."""
BYTES: Final = 32_000_000
"""Characters of them, about, at most; a chunk that is longer goes alone."""
TRIES: Final = 3
"""How often a request is sent that the API fails, beside the retries of a call."""
_LOOK: Final = 2.0
"""Seconds between two looks whether somebody has cancelled the job."""
_PATIENCE: Final = 600.0
"""Seconds for which a store is waited for that is away. What was answered is in memory meanwhile."""
_LONGEST: Final = 60.0
_AT_ONCE: Final = 200
"""Results that are written down together."""
_CANCELED: Final = "it was canceled"


class Work:
    """One request that was read, until its result is written down."""

    __slots__ = (
        "cost", "crowded", "done", "estimated", "fails", "place", "request", "run", "size", "task", "tenant", "top",
        "tries", "turn",
    )  # fmt: skip

    def __init__(self, run: Concurrent, place: int, request: BatchRequest, tenant: str, size: int) -> None:
        self.run, self.place, self.request, self.tenant, self.size = run, place, request, tenant, size
        self.cost = self.top = self.tries = self.fails = 0
        self.estimated = False
        self.crowded = False
        """Whether its budget is full of what is on its way."""
        self.done = False
        self.turn: Turn | None = None
        self.task: asyncio.Task[None] | None = None
        """That sends it, or waits to put it back."""

    def start(self) -> None:
        """Send it: it is its turn."""
        self.run.send(self)


class Concurrent:
    """One run over what an app submits to a job of this lane. `wrote` is called when results were written down.

    A request is in the store when it has its result, and not before: a crash leaves nothing to be cleared up. Who
    submits the same requests again asks for those without one; what was on its way then is asked for once more.
    """

    def __init__(
        self,
        router: Router[Any],
        store: JobStore,
        turns: Turns[Work],
        pacer: Pacer,
        job: str,
        begun: Begun,
        owner: str,
        when_full: WhenFull,
        wrote: Callable[[], object],
    ) -> None:
        self._router, self._store, self._turns, self._pacer = router, store, turns, pacer
        self._job, self._begun, self._owner, self._when_full, self._wrote = job, begun, owner, when_full, wrote
        self._timing = router.timing
        self._context = contextvars.copy_context()
        outer = context().binding_of(router)
        self._tenant = (outer.tenant if outer is not None else None) or ""
        self._works: dict[int, Work] = {}
        """What was read and has no result in the store, by place."""
        self._names: dict[str, int] = {}
        self._size = 0
        self._results: list[Item] = []
        self._unsure = False
        self._wake, self._room = asyncio.Event(), asyncio.Event()
        self._canceled, self._over, self._closed = begun.canceled, False, False
        self.told: Told = nobody
        """Is called for each request that was refused or invalid."""
        self.outcomes: Counter[str] = Counter()
        self.cost = 0
        """Nano-USD, of what this run has written down."""

    async def run(self, requests: Iterable[object] | AsyncIterable[object]) -> int:
        """Answer all requests, and say how many there were. Whatever is raised, what was answered is in the store."""
        writer = asyncio.create_task(self._write())
        try:
            async with asyncio.TaskGroup() as self._group:
                self._group.create_task(self._ending(lambda: asyncio.shield(writer)))
                watcher = self._group.create_task(self._ending(self._watch))
                try:
                    number = await self._read(requests)
                except Exception:
                    await self._let_end()
                    raise
                finally:
                    self._end()
                watcher.cancel()
                self._close()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            self._close()
            with suppress(Exception):  # it was raised above
                await asyncio.shield(writer)
        return number

    def cancel(self) -> None:
        """Send nothing more. What is on its way is waited for: it is paid for in any case."""
        if self._canceled:
            return
        self._canceled = True
        self._turns.take_out(self._is_mine)
        for work in tuple(self._works.values()):
            if work.task is None or work.turn is None or work.turn.waits:
                work.crowded = False
                if work.task is not None:
                    work.task.cancel()
                self._finish(work, Called("errored", error=_CANCELED), "canceled")

    def _is_mine(self, work: Work) -> bool:
        return work.run is self

    def _end(self) -> None:
        """Send nothing more."""
        self._over = True
        self._turns.take_out(self._is_mine)

    async def _let_end(self, besides: Work | None = None) -> None:
        """Send nothing more, and wait for what is on its way: it is paid for."""
        self._end()
        sent = [each for each in self._works.values() if each is not besides and each.turn and not each.turn.waits]
        await asyncio.gather(*(each.task for each in sent if each.task is not None), return_exceptions=True)

    def _close(self) -> None:
        """Nothing more will be answered: let the writer end."""
        self._closed = True
        self._wake.set()

    async def _ending(self, part: Callable[[], Awaitable[T]]) -> T:
        """Do a part of this run. Where it fails nothing more is begun, before what is under way is cancelled."""
        try:
            return await part()
        except Exception:
            self._end()
            raise

    # Reading

    async def _read(self, requests: Iterable[object] | AsyncIterable[object]) -> int:
        place = 0
        chunk: list[object] = []
        async for each in each_of(requests):
            chunk.append(each)
            if len(chunk) == CHUNK:
                await self._take(place, chunk)
                place, chunk = place + len(chunk), []
        if chunk:
            await self._take(place, chunk)
        while self._works or self._results:
            self._room.clear()
            await self._room.wait()
        return place + len(chunk)

    async def _take(self, first: int, chunk: Sequence[object]) -> None:
        while len(self._works) + len(self._results) >= AHEAD or self._size > BYTES:
            self._room.clear()
            await self._room.wait()
        await asyncio.sleep(0)  # others have a turn, also where nothing of this waits
        final, good = await self._patiently(lambda: sifted(self._store, self._job, first, chunk, self._names))
        for item in final:
            self._keep(item)
        for place, request in good:
            size = length_of(request)
            if isinstance(size, str):
                self._keep(invalid(place, request.custom_id, size))
                continue
            work = Work(self, place, request, request.tenant or self._tenant, size)
            self._works[place] = work
            self._names[request.custom_id] = place
            self._size += size
            if self._canceled:
                self._finish(work, Called("errored", error=_CANCELED), "canceled")
            elif not self._over:
                self._turns.put(work)

    # Sending

    def send(self, work: Work) -> None:
        """It is the turn of a request: see `Turns`."""
        work.crowded = False
        task = work.task = self._group.create_task(
            self._ending(partial(self._call, work)), context=self._context.copy()
        )
        task.add_done_callback(lambda _: self._turns.ended(work if work.crowded and not self._over else None))

    async def _call(self, work: Work) -> None:
        work.turn = Turn(self._pacer, work.size)
        try:
            found = await call(self._router, work.request, work.turn)
        except LedgerUnavailableError:
            work.fails += 1
            if work.fails * _LONGEST > _PATIENCE:
                raise
            self._later(work, min(_LONGEST, 2.0**work.fails))
            return
        work.cost, work.top = work.cost + found.cost, work.top + found.top
        work.estimated |= found.estimated
        work.tries += found.sent
        if found.stops:
            if self._over:
                return
            await self._let_end(work)
            raise ConfigurationError(
                f"job {self._job!r:.80} is cut off, for the API takes no calls: {found.error}. Submit it again when "
                f"that is mended: what was answered is kept"
            )
        if found.outcome == "refused":
            self._refused(work, found)
        elif found.again and not self._canceled and (work.tries < TRIES or not found.sent):
            backoff = min(_LONGEST, 2.0**work.tries) * (0.5 + self._timing.jitter() / 2)
            self._later(work, max(backoff, found.wait or 0.0))
        else:
            self._finish(work, found)

    def _refused(self, work: Work, found: Called) -> None:
        """A budget had no room: it is full of what is on its way, or waits to be renewed, or that is that."""
        refusal = found.refusal
        assert refusal is not None  # noqa: S101  (it was refused)
        fits = refusal.needed is not None and refusal.spent + refusal.needed <= refusal.limit
        if self._canceled:
            self._finish(work, Called("errored", error=_CANCELED), "canceled")
        elif fits and refusal.held and self._turns.running > 1:
            work.crowded = True
        elif self._when_full == "defer" and refusal.fits_in is not None:
            self._later(work, max(1.0, refusal.fits_in))
        else:
            self._finish(work, found)

    def _later(self, work: Work, seconds: float) -> None:
        """Put a request back when so long has passed."""

        async def put() -> None:
            await self._timing.sleep(seconds)
            if not self._over:
                self._turns.put(work)

        work.turn = None
        if not self._over:
            work.task = self._group.create_task(put(), context=self._context.copy())

    # Results

    def _finish(self, work: Work, found: Called, outcome: str = "") -> None:
        if work.done:
            return
        work.done = True
        item = Item(
            work.place,
            work.request.custom_id,
            None,
            state=FINAL,
            tier=found.tier,
            model=found.model,
            outcome=outcome or found.outcome,
            result=found.raw if found.outcome == "succeeded" else found.error,
            tenant=found.tenant or work.tenant,
            tries=work.tries,
            cost=work.cost,
            estimated=work.estimated,
            plain=work.cost,
            top=work.top,
        )
        self._keep(item)

    def _keep(self, item: Item) -> None:
        if item.name is not None:
            self._names[item.name] = item.place
        self._results.append(item)
        self._wake.set()

    async def _write(self) -> None:
        """Write down results as they come, until it is over and none is left. Never cancelled: they are paid for."""
        while self._results or not self._closed:
            if not self._results:
                self._wake.clear()
                await self._wake.wait()
                continue
            page = self._results[:_AT_ONCE]
            await self._patiently(lambda items=page: self._added(items))  # type: ignore[misc]
            del self._results[: len(page)]
            for item in page:
                self.outcomes[item.outcome] += 1
                if item.outcome in ("refused", "invalid"):
                    self.told(item.place, item.name, item.result or "")
                self.cost += item.cost
                self._names.pop(item.name or "", None)
                if (work := self._works.pop(item.place, None)) is not None:
                    self._size -= work.size
            self._room.set()
            self._wrote()

    async def _added(self, items: Sequence[Item]) -> None:
        if self._unsure:
            # The store did not answer: what it was told then may be there.
            places = [item.place for item in items]
            there, _ = await self._store.known(self._job, min(places), max(places), [])
            items = [item for item in items if item.place not in there]
        self._unsure = True
        if items and not await self._store.add(self._job, self._owner, "", items, [], []):
            raise ConfigurationError(f"job {self._job!r:.80} is being submitted by somebody else")
        self._unsure = False

    async def _patiently(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do something with the store, also where it is away for some time."""
        began, wait = self._timing.perf(), 1.0
        while True:
            try:
                return await step()
            except LedgerUnavailableError as error:
                if self._over or self._timing.perf() - began > _PATIENCE:
                    raise
                log.warning("job %s waits, for its store is away: %s", self._job, error)
            await self._timing.sleep(wait)
            wait = min(_LONGEST, 2 * wait)

    async def _watch(self) -> None:
        """See whether somebody has cancelled the job, in whatever process."""
        while True:
            await self._timing.sleep(_LOOK)
            with suppress(LedgerUnavailableError):
                # Where it was deleted, for this process stood still, it is the same job anew.
                begun = await self._store.begin(self._job, self._begun.uid, self._owner, self._begun.settings)
                if begun.busy:
                    raise ConfigurationError(f"job {self._job!r:.80} is being submitted by somebody else")
                if begun.canceled:
                    self.cancel()
