"""Synchronous callers: the one asynchronous core runs on a loop, and what blocks runs in the thread that called.

There is no second, synchronous copy of anything. In a worker thread of AnyIO, as frameworks run `def` endpoints, the
core runs on the app's loop; anywhere else on the Router's portal. The calling thread waits, and sends what the core
asks it to send, so that a synchronous client is used in the thread that uses it and no further thread is needed.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
import weakref
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    Ending = Callable[[float], Coroutine[Any, Any, None]]

log: Final = logging.getLogger("tierline")

T = TypeVar("T")

_LOOK: Final = 1.0
"""Seconds after which a waiting thread looks whether its loop is still there."""


class GoneError(RuntimeError):
    """The loop or the thread that something waits for has gone. No kind of cancellation: executors hand those on."""


class Portal:
    """An event loop in a daemon thread, for callers that have none: started on demand, one for each process.

    `endings` settle, within so many seconds, what is open on the loop that runs them. They are run when the portal is
    closed, at the latest when the interpreter exits.
    """

    def __init__(self, *endings: Ending) -> None:
        self._endings = endings
        self._locks: dict[int, threading.Lock] = {}
        # A forked child keeps its parent's: without its thread it must be neither used nor collected.
        self._workers: dict[tuple[int, int], _Worker] = {}
        self._warned = False

    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop on which a call from this thread runs."""
        running = running_loop()
        if running is None:
            if (loop := _loop_of_worker_thread()) is not None:
                return loop
        elif not self._warned:
            self._warned = True
            log.warning(
                "a synchronous client is used in an `async def`: it blocks the event loop until the answer is there. "
                "Use an asynchronous client there, or a plain `def`"
            )
        pid = os.getpid()
        with self._locks.setdefault(pid, threading.Lock()):
            # In a portal's own thread (a classifier may use a synchronous client) the next one is needed.
            place = 0
            while True:
                worker = self._workers.get((pid, place))
                if worker is None:
                    worker = self._workers[pid, place] = _Worker(self._endings)
                    weakref.finalize(self, worker.stop).atexit = False
                if worker.loop is not running:
                    return worker.loop
                place += 1

    async def aclose(self, timeout: float) -> None:
        """Settle what is open on this loop and in the portal, within about `timeout` seconds, and end its threads."""
        mine = [place for place in tuple(self._workers) if place[0] == os.getpid()]
        workers = [self._workers.pop(place) for place in mine]
        await asyncio.gather(
            _settle(self._endings, timeout), *(asyncio.to_thread(worker.close, timeout) for worker in workers)
        )


async def _settle(endings: Sequence[Ending], timeout: float) -> None:
    # At once: each has the whole of the time.
    await asyncio.gather(*(ending(timeout) for ending in endings))


class _PortalLoop(asyncio.SelectorEventLoop):
    """The loop of a portal, to be told from those of apps."""


class _Worker:
    """A thread with a loop. It knows nothing of its Portal, which may be collected."""

    def __init__(self, endings: Sequence[Ending]) -> None:
        self._endings = endings
        self._pid = os.getpid()
        self._timeout = 0.0
        self._failed: Exception | None = None
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="tierline", daemon=True)
        self._thread.start()
        ready.wait()
        if self._failed is not None:
            raise self._failed
        atexit.register(self.close)

    def _run(self, ready: threading.Event) -> None:
        try:
            with asyncio.Runner(loop_factory=_PortalLoop) as runner:
                runner.run(self._main(ready))
        except Exception as error:
            if ready.is_set():
                raise
            self._failed = error  # no loop can be made, such as where too many files are open: who waits is told
            ready.set()

    async def _main(self, ready: threading.Event) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        ready.set()
        await self._stop.wait()
        await _settle(self._endings, self._timeout)
        atexit.unregister(self.close)
        # The runner cancels the tasks that are left, which wakes those who wait for them.

    def stop(self) -> None:
        """Let the thread settle what is open, and end."""
        if os.getpid() == self._pid:
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._stop.set)

    def close(self, timeout: float = 0.0) -> None:
        """The same, and wait for it. At the exit of the interpreter nobody is left to wait for."""
        self._timeout = timeout
        self.stop()
        if os.getpid() == self._pid and threading.current_thread() is not self._thread:
            self._thread.join(timeout + 2 * _LOOK)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop that runs in this thread."""
    with suppress(RuntimeError):
        return asyncio.get_running_loop()
    return None


def may_wait_for(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this thread may stand still until something has run on `loop`.

    A thread that runs a loop may wait for a portal, and a portal for nobody, or two would wait for each other.
    """
    running = running_loop()
    return running is None or (isinstance(loop, _PortalLoop) and not isinstance(running, _PortalLoop))


def _loop_of_worker_thread() -> asyncio.AbstractEventLoop | None:
    """The loop that a worker thread of AnyIO belongs to; None in another thread, or where that is no asyncio."""
    from anyio import from_thread  # noqa: PLC0415  (only for who has threads)

    with suppress(RuntimeError):
        return from_thread.run_sync(asyncio.get_running_loop)
    return None


@dataclass(slots=True, eq=False)
class _Job(Generic[T]):
    """Something that the calling thread is asked to do."""

    function: Callable[[], T]
    late: Callable[[T], None]
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[T]

    def do(self) -> None:
        """Do it, in the calling thread, and hand over what came of it."""
        try:
            result = self.function()
        except Exception as error:  # noqa: BLE001  (it is raised where the job was asked for)
            self._hand_over(partial(self.answer.set_exception, error), _nothing)
        else:
            self._hand_over(partial(self.answer.set_result, result), partial(self.late, result))

    def _hand_over(self, tell: Callable[[], None], late: Callable[[], None]) -> None:
        try:
            self.loop.call_soon_threadsafe(lambda: late() if self.answer.done() else tell())
        except RuntimeError:
            late()


def _nothing(*_: object) -> None:
    pass


class Bridge:
    """One call of a synchronous client: its thread waits for the core here, and does what that asks of it.

    The context variables of the thread are those of the core.
    """

    def __init__(self, portal: Portal) -> None:
        self._loop = portal.loop()
        self._jobs: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._asked: set[_Job[Any]] = set()
        self._over = False
        self._task: asyncio.Task[Any] | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run the core, and give back what it returns or raise what it raises."""
        try:
            # In a copy of this thread's context.
            self._loop.call_soon_threadsafe(self._start, work)
            while (job := self._next()) is not None:
                job.do()
        except BaseException:
            # Nobody will send any more (Ctrl-C): let the core end what it has begun, and then go.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._give_up)
                while self._next() is not None:
                    pass
            if self._task is None:
                work.close()
            raise
        # Not kept: what it brought back leads here, and what the app drops must be collected.
        task, self._task = self._task, None
        assert task is not None  # noqa: S101  (it has ended)
        try:
            result: T = task.result()
        except asyncio.CancelledError:
            raise GoneError("the Router was closed while this call was under way") from None
        return result

    async def here(self, function: Callable[[], T], late: Callable[[T], None] = _nothing) -> T:
        """Run `function` in the thread that called. `late` takes a result that nobody waits for any more."""
        if self._over:
            raise GoneError("the thread that called has gone")
        answer: asyncio.Future[T] = self._loop.create_future()
        job = _Job(function, late, self._loop, answer)
        self._asked.add(job)
        self._jobs.put(job)
        try:
            return await _taken(answer, late)
        finally:
            self._asked.discard(job)

    def _next(self) -> _Job[Any] | None:
        """The next job; None when the core has ended. GoneError where its loop is closed."""
        while True:
            try:
                return self._jobs.get(timeout=_LOOK)
            except Empty:
                if self._loop.is_closed():
                    raise GoneError("the event loop was closed while this call was under way") from None

    # On the loop

    def _start(self, work: Coroutine[Any, Any, Any]) -> None:
        self._task = self._loop.create_task(work)
        self._task.add_done_callback(self._ended)

    def _give_up(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _ended(self, _: object) -> None:
        self._over = True
        # A verdict that others wait for, too, outlives the call that asked for it; but not its thread.
        for job in self._asked:
            if not job.answer.done():
                job.answer.set_exception(GoneError("the thread that called has gone"))
        self._jobs.put(None)


class Aside:
    """Does what it is asked in a thread of its own for each, where the one that called is busy.

    The context variables there are those of whoever asks. Nothing ends such a thread: what it brings when nobody waits
    any more goes to `late`.
    """

    async def here(self, function: Callable[[], T], late: Callable[[T], None] = _nothing) -> T:
        """Run `function`. `late` takes a result that nobody waits for any more."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        job = _Job(function, late, loop, answer)
        threading.Thread(target=copy_context().run, args=(job.do,), name="tierline aside", daemon=True).start()
        return await _taken(answer, late)


async def _taken(answer: asyncio.Future[T], late: Callable[[T], None]) -> T:
    """The answer to a job. Who is cancelled when it is there already does not take it."""
    try:
        return await answer
    except asyncio.CancelledError:
        if answer.done() and not answer.cancelled() and answer.exception() is None:
            late(answer.result())
        raise


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never has to wait: one that is written for both kinds of clients."""
    try:
        work.send(None)
    except StopIteration as ended:
        result: T = ended.value
        return result
    work.close()
    raise RuntimeError("work for a synchronous client wanted to wait")
