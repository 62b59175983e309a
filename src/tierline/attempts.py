"""Attempts in flight: what each brought back, and how it is settled, exactly once and whatever happened."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tierline.telemetry import end_attempt
from tierline.usage import WholeReader, at_cut
from tierline.values import Attempt, Usage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

    from opentelemetry.trace import Span

    from tierline.binding import Binding
    from tierline.budgets import Line
    from tierline.ledger.base import Ledger, Origin, Reservation
    from tierline.ledger.slices import Slices
    from tierline.prices import PriceBook
    from tierline.traffic.meter import Meter
    from tierline.usage import Metered, Reader
    from tierline.values import Offer, Refusal, Role, Terms

log: Final = logging.getLogger("tierline")

GONE: Final = 0.25
"""Seconds in which a reader takes another chunk of an answer, if there is one."""
_SETTLING: Final = 1.0
"""Seconds at the end of a shutdown for settling what was cut off."""
LEFT: Final = ("client_disconnected", "cancelled", "closed", "abandoned", "discarded", "shutdown")
"""Outcomes of an answer that nobody wanted to read any further: no errors."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The clocks and the dice of a Router: injected, so that no test waits for time, or for luck."""

    now: Callable[[], float] = time.time
    perf: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = random.random
    """A number from 0 to 1: the share of the longest backoff that is waited."""
    chance: Callable[[], float] = random.random
    """A number from 0 to 1, for what is done by chance: for a share of calls, or in either order."""


@dataclass(slots=True)
class Reply:
    """What one attempt brought back, as the seam reads it.

    - `response` goes back to the SDK; None where `exception` is raised instead
    - `error` is empty for a success, else the API's error type, `timeout` or `connection_error`
    - `retry` says that the same request may succeed later, `elsewhere` that another tier may take it
    - `down` says that the tier, or the way to it, seems to be down: its breaker counts that
    - `limits` are the headers of an answer that may say that a rate limit has nothing left
    - `sent` is False where nothing can have reached the API, and so nothing is billed
    - `metered` is the usage of a whole answer, None where it cannot be read
    - `tap` is there for an answer that is still to be read: it takes the attempt, and ends it
    """

    response: Any = None
    exception: Exception | None = None
    status: int = 0
    error: str = ""
    retry: bool = False
    elsewhere: bool = False
    retry_after: float | None = None
    down: bool = False
    limits: Mapping[str, str] | None = None
    sent: bool = True
    metered: Metered | None = None
    tap: Callable[[OpenAttempt], None] | None = None
    discard: Callable[[], Awaitable[None]] | None = None


class Background:
    """Tasks that must outlive whoever started them: settlements after a cancellation, sweeps."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` whatever happens to the caller."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def start_on(self, loop: asyncio.AbstractEventLoop, work: Callable[[], Coroutine[Any, Any, Any]]) -> bool:
        """The same from any thread, on the loop that the work belongs to. False where that is closed."""
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(lambda: self.start(work()))
            return True
        return False

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("work in the background failed: %s", type(error).__name__)

    def cancel(self) -> None:
        """Cancel the tasks of this loop."""
        loop = asyncio.get_running_loop()
        for task in tuple(self._tasks):
            if task.get_loop() is loop:
                task.cancel()

    async def drain(self, timeout: float) -> None:
        """Wait for the tasks of this loop, and those that they start, for at most `timeout` seconds."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + timeout
        while mine := [task for task in tuple(self._tasks) if task.get_loop() is loop and not task.done()]:
            left = ends - loop.time()
            if left <= 0:
                log.warning(
                    "%d tasks are not done: what they were to settle lapses, and is charged as estimated", len(mine)
                )
                return
            await asyncio.wait(mine, timeout=left)


class Books:
    """What every attempt of a Router is settled with, and the leases of those in flight."""

    def __init__(self, ledger: Ledger, prices: PriceBook, timing: Timing, slices: Slices | None = None) -> None:
        self.ledger = ledger
        self.slices = slices
        """What this process holds of budgets, to admit calls against without asking the ledger."""
        self.prices = prices
        self.timing = timing
        self.background = Background()
        self.sweeps = Background()
        """Tasks that wait until nobody reads an answer any more: a shutdown does not wait for them."""
        self.instant = ledger.instant
        self.meter: Meter | None = None
        """What adds up traffic, where that is recorded."""
        self._open: set[OpenAttempt] = set()
        self._beats: dict[asyncio.AbstractEventLoop, asyncio.TimerHandle] = {}
        self._idle: dict[asyncio.AbstractEventLoop, asyncio.Future[None]] = {}
        """Set when the last attempt of a loop ends that a shutdown there waits for."""

    async def reserve(
        self, key: str, offers: Sequence[Offer], lines: Sequence[Line], *, thresholds: bool, origin: Origin
    ) -> Reservation | Refusal:
        """Hold the money for one attempt. Where the caller is cancelled meanwhile, nothing stays held."""
        if self.slices is not None:
            held = self.slices.admit(key, offers, lines, thresholds=thresholds, origin=origin)
            if held is not None:
                return held
        try:
            return await self.ledger.reserve(key, offers, lines, thresholds=thresholds, origin=origin)
        except asyncio.CancelledError:
            if not self.instant:
                # It may have been done, or may yet be: an id that is released holds nothing, in either order.
                self.background.start(self.ledger.release(key))
            raise

    async def settle(self, held: Reservation, cost: int, *, estimated: bool) -> None:
        """Replace a hold by `cost`. Somebody may cancel the caller; nobody cancels this."""
        if self.slices is None or not held.leased or not self.slices.settle(held, cost, estimated=estimated):
            await self.finish(self.ledger.settle(held, cost, estimated=estimated))

    def opened(self, attempt: OpenAttempt) -> None:
        """Renew this attempt's lease from now on."""
        self._open.add(attempt)
        loop = attempt.loop
        if loop not in self._beats:
            for closed in [known for known in tuple(self._beats) if known.is_closed()]:
                self._beats.pop(closed, None)
            self._beats[loop] = loop.call_later(self.ledger.lease / 3, self._beat, loop)

    def closed(self, attempt: OpenAttempt) -> None:
        """Its lease is over."""
        self._open.discard(attempt)
        # Looked up once: other loops come and go, and nothing may fail before the settlement that follows.
        waiting = self._idle.get(attempt.loop)
        if waiting is not None and not waiting.done() and not self._of(attempt.loop):
            waiting.set_result(None)

    def _of(self, loop: asyncio.AbstractEventLoop) -> list[OpenAttempt]:
        """The attempts of one loop. Copied in one step: those of other threads come and go."""
        return [attempt for attempt in tuple(self._open) if attempt.loop is loop]

    async def finish(self, ending: Coroutine[Any, Any, Any]) -> None:
        """Settle or release. Somebody may cancel the caller; nobody cancels this."""
        if self.instant:
            await ending
        else:
            await self.outlive(ending)

    async def outlive(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do something that goes on however often the caller is cancelled."""
        await asyncio.shield(self.background.start(work))

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        del self._beats[loop]
        if held := [attempt.reservation for attempt in self._of(loop)]:
            self._beats[loop] = loop.call_later(self.ledger.lease / 3, self._beat, loop)
            self.background.start(self.ledger.renew(held))

    async def close(self, timeout: float) -> None:
        """Wait for what is being sent on this loop, end the rest, and settle all of it, within `timeout` seconds.

        The last second is for settling, and there is one even where `timeout` is none. Answers that are still being
        read are ended at once: who reads them is going down too.
        """
        loop = asyncio.get_running_loop()
        ends = loop.time() + max(timeout, _SETTLING)
        if beat := self._beats.pop(loop, None):
            beat.cancel()
        for attempt in self._of(loop):
            if attempt.reader is not None:
                self.background.start(attempt.abandon("shutdown"))
        if timeout > _SETTLING and any(attempt.reader is None for attempt in self._of(loop)):
            waiting = self._idle.setdefault(loop, loop.create_future())
            try:
                await asyncio.wait((waiting,), timeout=timeout - _SETTLING)
            finally:
                self._idle.pop(loop, None)
        for attempt in self._of(loop):
            self.background.start(attempt.abandon("shutdown"))
        self.sweeps.cancel()
        await self.background.drain(ends - loop.time())


class OpenAttempt:
    """An attempt in flight. It is ended once: the first ending wins.

    What it is charged needs nothing from outside: the reservation carries accounts and worst case.
    """

    __slots__ = (
        "_late", "_on_end", "_span", "_started", "_sweeper", "began_at", "binding", "blocking", "books", "close",
        "deserted", "ended", "loop", "number", "offer", "progress", "reader", "reading", "reservation", "result",
        "role", "terms", "thinks",
    )  # fmt: skip

    def __init__(
        self,
        books: Books,
        binding: Binding,
        reservation: Reservation,
        *,
        role: Role,
        number: int,
        terms: Terms,
        thinks: bool,
        span: Span | None,
    ) -> None:
        self.books = books
        self.binding = binding
        self.reservation = reservation
        self.offer = reservation.offer
        self.role = role
        self.number = number
        self.terms = terms
        self.thinks = thinks
        """Whether the model may think where nobody sees it: bytes that passed then bound nothing."""
        self.reader: Reader | None = None
        self.reading = False
        """Whether somebody waits for the next bytes of the answer right now."""
        self.blocking = False
        """Whether the answer is read by threads."""
        self.deserted = False
        """Whether the answer was cut off under a thread because the client of its request has gone."""
        self.progress = 0
        """Chunks of the answer that have passed."""
        self.began_at: float | None = None
        """When the first of them came, on the clock that `Timing.perf` is."""
        self.close: Callable[[], Awaitable[None]] | None = None
        self.ended = False
        self.result: Attempt | None = None
        self.loop = asyncio.get_running_loop()
        self._late = binding.deserted is not None
        """Whether it was begun when the client of the request had gone already."""
        self._span = span
        self._started = books.timing.perf()
        self._on_end: Callable[[Attempt], None] | None = None
        self._sweeper: asyncio.Task[Any] | None = None
        binding.open.add(self)
        books.opened(self)

    def began(self) -> None:
        """The first bytes of the answer have come."""
        self.began_at = self.books.timing.perf()
        if self._span is not None:
            self._span.add_event("first_chunk")

    def when_ended(self, callback: Callable[[Attempt], None]) -> None:
        """Call back with the result: of an attempt whose answer is still being read."""
        if self.result is not None:
            callback(self.result)
        else:
            self._on_end = callback

    async def end(self, outcome: str, cost: int, usage: Usage | None = None, *, estimated: bool, failed: bool) -> None:
        """Settle for `cost`. Does nothing where the attempt has ended."""
        if self.ended:
            return
        self.ended = True
        self.binding.open.discard(self)
        if self._sweeper is not None:
            self._sweeper.cancel()
        books = self.books
        books.closed(self)
        seconds = books.timing.perf() - self._started
        self.result = Attempt(
            self.offer.tier, self.offer.model, self.role, outcome, usage or Usage(), cost, seconds, estimated
        )
        end_attempt(self._span, self.number, self.result, failed=failed)
        if books.meter is not None:
            books.meter.spent(self.reservation, cost, estimated=estimated)
        try:
            await books.settle(self.reservation, cost, estimated=estimated)
        except Exception as error:  # noqa: BLE001  (what is paid for reaches the app, whatever the ledger does)
            log.warning("not settled (%s): the hold is charged as estimated when its lease ends", type(error).__name__)
        finally:
            # Not kept: they lead here, by way of the call, whose prompt would wait for the garbage collector.
            on_end, self._on_end, self.close = self._on_end, None, None
            if on_end is not None:
                on_end(self.result)

    async def failed(self, reply: Reply) -> None:
        """End an attempt that brought no answer: an error of the API costs nothing, silence may have cost all."""
        billed = reply.status == 0 and reply.sent
        await self.end(reply.error, self.worst if billed else 0, estimated=billed, failed=True)

    async def answered(self, found: Metered | None) -> None:
        """End an attempt whose answer came back whole."""
        if found is None:
            await self.end("ok", self.worst, estimated=True, failed=False)
        else:
            await self.end("ok", self._cost_of(found), found.usage, estimated=False, failed=False)

    async def streamed(self, outcome: str) -> None:
        """End an attempt whose answer was read on the way through, as far as it came. `ok`: to its end."""
        reader = self.reader
        seen = reader.seen if reader is not None else None
        if reader is None or seen is None:
            # Not even the usage of the prompt came back. An answer that is no stream is whole before it is sent.
            left = outcome in LEFT
            await self.end(
                outcome if left else "truncated",
                self.input_worst if left and not isinstance(reader, WholeReader) else self.worst,
                estimated=True,
                failed=not left,
            )
            return
        known = self._cost_of(seen)
        if reader.final and not reader.error:
            # The last usage is all that can be billed, however the rest was read.
            await self.end(outcome, known, seen.usage, estimated=False, failed=outcome not in ("ok", *LEFT))
            return
        outcome = reader.error or ("truncated" if outcome == "ok" else outcome)
        failed = outcome not in LEFT
        if self.thinks or reader.cut_bound is None:
            await self.end(outcome, max(known, self.worst), seen.usage, estimated=True, failed=failed)
            return
        bound = at_cut(seen, reader.cut_bound)
        cost = max(known, min(self._cost_of(bound), self.worst))
        await self.end(outcome, cost, bound.usage, estimated=True, failed=failed)

    async def cut_off(self, outcome: str) -> None:
        """End an attempt that was cancelled before any of its answer came: its input was sent, no more is known."""
        await self.end(outcome, self.input_worst, estimated=True, failed=outcome not in LEFT)

    async def abandon(self, outcome: str) -> None:
        """End it for whoever held the answer and is gone, and let go of the connection."""
        close, self.close = self.close, None
        try:
            await self.streamed(outcome)
        finally:
            if close is not None:
                await close()

    def dropped(self, close: Callable[[], Awaitable[None]]) -> None:
        """The answer was collected as garbage, and not closed: do both on the loop that it belongs to."""
        self.close = close
        if not self.books.background.start_on(self.loop, lambda: self.abandon("abandoned")):
            self.lapse()

    def lapse(self) -> None:
        """Its loop is closed: nobody can settle there, so the lease runs out."""
        self.books.closed(self)

    def left_open(self, grace: float) -> None:
        """The request is over: sweep this, on the loop that it belongs to."""
        self.books.sweeps.start_on(self.loop, lambda: self._sweep(grace))

    async def _sweep(self, grace: float) -> None:
        self._sweeper = asyncio.current_task()
        await self.sweep(grace)

    async def sweep(self, grace: float) -> None:
        """The request is over. End this, unless a task that outlives it takes another chunk within `grace` seconds.

        An attempt without an answer yet is left to the task that sends it, which ends it however it ends.
        """
        while self.reader is not None and not self.ended:
            before = self.progress
            await self.books.timing.sleep(grace)
            if not self.reading and self.progress == before:
                # In a task of its own: this one may be cancelled.
                await self.books.outlive(self.abandon("client_disconnected"))

    def answers(self, reader: Reader, close: Callable[[], Awaitable[None]], *, blocking: bool) -> None:
        """An answer is about to be read, with `blocking` by threads."""
        self.reader, self.close, self.blocking = reader, close, blocking
        self.desert()

    def desert(self) -> None:
        """Where the client of the request has gone in the midst of its answer, cut off a thread that reads for it.

        Frameworks cancel a task that writes for nobody, but a thread which waits for bytes of Claude's hears of
        nothing. Those of the request's own loop alone, such as a plain generator that a framework runs: a thread that
        the app itself has started may read on. So may what begins when the client has gone, such as a task in the
        background: it is for somebody else.
        """
        if self.blocking and not self._late and self.binding.deserted is self.loop:
            self.books.sweeps.start_on(self.loop, self._cut_off_thread)

    async def _cut_off_thread(self) -> None:
        # Where bytes still come, the generator is left at its next piece, which is the better end.
        await self.books.timing.sleep(GONE)
        if not self.ended:
            self.deserted = True
            await self.books.outlive(self.abandon("client_disconnected"))

    @property
    def cut(self) -> bool:
        """Whether nothing of the answer came, or not all of it as far as that can be told."""
        return not self.progress or (self.reader is not None and self.reader.cut)

    @property
    def worst(self) -> int:
        """The whole reservation, in nano-USD."""
        return self.offer.cost if self.offer.cost is not None else self.input_worst

    @property
    def input_worst(self) -> int:
        """What the prompt alone may have cost, in nano-USD."""
        return self.offer.input_cost

    def _cost_of(self, found: Metered) -> int:
        cost = self.books.prices.cost(self.offer.model, found.usage, found.terms)
        return self.worst if cost is None else cost
