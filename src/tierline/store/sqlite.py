"""A SQLite file for all parts of this process: what they want written together is committed together.

One thread owns the one connection. It takes all that is queued, does it in one transaction, and tells the waiters when
that is on the disk: fifty calls at once cost one `fsync`, and processes that share the file take turns less often.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import sqlite3
import threading
import time
import weakref
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from tierline.errors import ConfigurationError, LedgerUnavailableError
from tierline.store.sqlite_file import PATIENCE, SQLiteFile, is_of_storage

if TYPE_CHECKING:
    from collections.abc import Callable

    First = Callable[[sqlite3.Connection], object]

T = TypeVar("T")

_MOST_AT_ONCE: Final = 128
"""Steps of one transaction."""
_LONGEST: Final = 0.02
"""Seconds after which a transaction takes no further step: other processes wait, and look whether it moves."""


class SQLiteStore:
    """The connection of this process to a SQLite file, for any number of its threads, event loops and parts.

    - what `run` returned is on the disk: WAL, `synchronous=FULL`
    - LedgerUnavailableError, with what to do, where the file cannot be written: after `timeout` seconds where another
      process keeps it locked, and twenty times as long where it goes from hand to hand. When the cause has gone, the
      next step works
    - a file that vanishes, or that another one takes the place of, is such a cause, until `confirm`
    - nothing is opened before the first step, and the file is made where there is none, readable by its owner alone
    - a forked child opens a connection of its own, and leaves its parent's untouched

    ConfigurationError for a path or a timeout that cannot be.
    """

    def __init__(self, path: str | os.PathLike[str], timeout: float = 0.25) -> None:
        text = os.fspath(path)
        if not isinstance(text, str) or not text or "\0" in text or text.startswith(":memory:"):
            raise ConfigurationError(f'SQLiteStore({path!r:.80}): write the path of a file, such as "tierline.db"')
        if not 0 < timeout < threading.TIMEOUT_MAX / PATIENCE:
            raise ConfigurationError(f"SQLiteStore(timeout={timeout!r}): a timeout is a number of seconds above 0")
        self.path = Path(text).absolute()
        self._file = SQLiteFile(self.path, timeout)
        self._lock = threading.Lock()
        self._writer: _Writer | None = None
        self._forking: set[int] = set()
        """Threads that fork, and keep the writer still meanwhile."""
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=_weakly(self._before_fork),
                after_in_parent=_weakly(self._after_fork_in_parent),
                after_in_child=_weakly(self._after_fork_in_child),
            )

    async def run(
        self,
        step: Callable[[sqlite3.Connection], T],
        *,
        first: First | None = None,
        after: Callable[[T], object] | None = None,
    ) -> T:
        """What `step` returned, once that is committed.

        `step` runs on the thread of the store, inside of a transaction that it may share with others: it neither
        commits nor waits. What it raises is raised here, and undoes what it did alone. `first` is run once in each
        transaction, before the first step that brings it. `after` is called with the result on the caller's event
        loop, also where the caller was cancelled: the step is done all the same.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._put(_Job(step, first, after, loop, future))
        return await future

    async def read(self, look: Callable[[sqlite3.Connection], T]) -> T:
        """What `look` returned, who sees what was committed when it began.

        It runs on a thread and a connection of its own, and may take its time: who writes does not wait for it.
        LedgerUnavailableError where the file cannot be used.
        """
        await self.run(lambda _: None)  # that there is a file, and it is the right one
        return await asyncio.to_thread(self._file.read, look)

    async def confirm(self) -> None:
        """Go on with the file that is there now, or with a new one: an operator's word, after the old one was lost."""
        self._file.confirmed = True
        try:
            await self.run(lambda _: None)
        finally:
            self._file.confirmed = False

    async def aclose(self) -> None:
        """Do what is queued, close the file, and end the thread. The store may be used again."""
        with self._lock:
            writer, self._writer = self._writer, None
        if writer is not None:
            self._collected.detach()
            writer.queue.put(None)
            await asyncio.shield(asyncio.wrap_future(writer.ended))

    def _put(self, job: _Job) -> None:
        with self._lock:  # nothing is put behind the end of a queue
            if self._writer is None:
                self._writer = self._started()
            self._writer.queue.put(job)

    def _started(self) -> _Writer:
        writer = _Writer(self._file)
        try:
            writer.thread.start()
        except RuntimeError as error:
            raise LedgerUnavailableError(f"{self.path}: no thread can be started for it ({error})") from error
        self._collected = weakref.finalize(self, writer.queue.put, None)
        self._collected.atexit = False
        return writer

    # Around a fork

    def _before_fork(self) -> None:
        """Let the writer come to rest: locks inside of SQLite that it holds would stay locked in the child."""
        if self._file.lock.acquire(timeout=2 * PATIENCE * self._file.timeout):
            self._forking.add(threading.get_ident())

    def _after_fork_in_parent(self) -> None:
        if threading.get_ident() in self._forking:
            self._forking.discard(threading.get_ident())
            self._file.lock.release()

    def _after_fork_in_child(self) -> None:
        self._file.abandon()
        self._file.lock, self._lock = threading.Lock(), threading.Lock()
        self._writer, self._forking = None, set()


def _weakly(method: Callable[[], None]) -> Callable[[], None]:
    """A hook that keeps nothing alive: hooks cannot be taken back."""
    ref = weakref.WeakMethod(method)

    def hook() -> None:
        if (alive := ref()) is not None:
            alive()

    return hook


class _Job:
    """A step, who waits for it, and what came of it."""

    __slots__ = ("after", "at", "error", "first", "future", "loop", "result", "step")

    def __init__(
        self,
        step: Callable[[sqlite3.Connection], Any],
        first: First | None,
        after: Callable[[Any], object] | None,
        loop: asyncio.AbstractEventLoop,
        future: asyncio.Future[Any],
    ) -> None:
        self.step, self.first, self.after = step, first, after
        self.loop, self.future = loop, future
        self.at = time.monotonic()
        self.result: Any = None
        self.error: Exception | None = None


_Item: TypeAlias = _Job | threading.Event | None
"""A step; an event to be set when all before it is done; the end."""


class _Writer:
    """The thread. It knows nothing of its store, which may be collected."""

    def __init__(self, file: SQLiteFile) -> None:
        self._file = file
        self._pid = os.getpid()
        # One whose `put` may be called anywhere, also by the garbage collector in the midst of another `put`.
        self.queue: SimpleQueue[_Item] = SimpleQueue()
        self.ended: Future[None] = Future()
        self.thread = threading.Thread(target=self._run, name="tierline-sqlite", daemon=True)

    def _run(self) -> None:
        atexit.register(self._flush)
        last = False
        while not last:
            jobs: list[_Job] = []
            events: list[threading.Event] = []
            item = self.queue.get()
            with suppress(Empty):
                while True:
                    if item is None:
                        last = True
                        break
                    if isinstance(item, threading.Event):
                        events.append(item)
                    else:
                        jobs.append(item)
                        if len(jobs) == _MOST_AT_ONCE:
                            break
                    item = self.queue.get_nowait()
            while jobs:
                with self._file.lock:
                    done = self._commit(jobs)
                _tell(jobs[:done])
                del jobs[:done]
            for event in events:
                event.set()
            del jobs, item  # what they lead to may be collected while this thread waits
        with self._file.lock:
            self._file.close()
        atexit.unregister(self._flush)
        self.ended.set_result(None)

    def _flush(self) -> None:
        """At the exit of the interpreter: see that what was asked for is done, though nobody waits for it any more."""
        if self._pid == os.getpid():
            done = threading.Event()
            self.queue.put(done)
            done.wait(2 * PATIENCE * self._file.timeout)

    def _commit(self, jobs: list[_Job]) -> int:
        """Do steps in one transaction, and say how many; where that fails as a whole, every job has the error."""
        try:
            connection = self._file.begin(jobs[0].at)
            try:
                done = _do(connection, jobs)
                self._file.commit()
            except BaseException:
                self._file.rollback()
                raise
        except LedgerUnavailableError as error:
            failed: Exception = error
        except sqlite3.Error as error:
            failed = self._file.explained(error)
            failed.__cause__ = error
            self._file.close()
        except Exception as error:  # noqa: BLE001  (it is raised where the steps were asked for)
            failed = error
        else:
            return done
        for job in jobs:
            job.error = failed
            if isinstance(failed, LedgerUnavailableError):  # one for each: a traceback grows where it is raised
                job.error = LedgerUnavailableError(*failed.args)
                job.error.__cause__ = failed.__cause__
        return len(jobs)


def _do(connection: sqlite3.Connection, jobs: list[_Job]) -> int:
    begun: list[First] = []
    until = time.monotonic() + _LONGEST
    for done, job in enumerate(jobs):
        if done and time.monotonic() > until:
            return done
        if job.first is not None and job.first not in begun:
            job.first(connection)
            begun.append(job.first)
        connection.execute("SAVEPOINT step")
        try:
            job.result = job.step(connection)
        except Exception as error:
            if is_of_storage(error) or not connection.in_transaction:
                raise
            connection.execute("ROLLBACK TO step")
            job.error = error
        connection.execute("RELEASE step")
    return len(jobs)


def _tell(jobs: list[_Job]) -> None:
    """Wake up each loop once."""
    waiting: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
    for job in jobs:
        waiting.setdefault(job.loop, []).append(job)
    for loop, theirs in waiting.items():
        try:
            loop.call_soon_threadsafe(_deliver, loop, theirs)
        except RuntimeError:  # closed, with whoever waited there
            for job in theirs:
                if job.after is not None and job.error is None:
                    with suppress(Exception):  # who listens may need that loop, and this thread must go on
                        job.after(job.result)


def _deliver(loop: asyncio.AbstractEventLoop, jobs: list[_Job]) -> None:
    for job in jobs:
        if job.after is not None and job.error is None:
            loop.call_soon(job.after, job.result)  # before the waiter goes on, and whatever it raises
        if not job.future.done():
            if job.error is None:
                job.future.set_result(job.result)
            else:
                job.future.set_exception(job.error)
