"""`Router(decision_log=…)`: records go to a thread that writes them, so that no call waits for a disk."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
import weakref
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, NamedTuple

from tierline.decisionlog.lines import Lines
from tierline.decisionlog.record import record_of
from tierline.errors import ConfigurationError
from tierline.numeric import is_whole
from tierline.veil import veiled

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline.decisionlog.table import Table
    from tierline.values import Decision

log: Final = logging.getLogger("tierline")

MOST_WAITING: Final = 10_000
"""Most records that wait for the disk: of those beyond, none is kept, and the log tells how many."""
_BATCH: Final = 256
_LINES: Final = (".jsonl", ".ndjson")
_SQLITE: Final = (".db", ".sqlite", ".sqlite3")
_SCHEME: Final = "sqlite:///"
SHUTDOWN: Final = 2.0
"""Seconds that a shutdown waits for what is not written yet; the exit of the interpreter waits once more."""
_AT_EXIT: Final = 2.0
"""Seconds that the exit of the interpreter waits for what is not written yet."""
_AT_FORK: Final = 1.0
"""Seconds that a fork waits for a write to end: locks inside of SQLite would stay locked in the child."""
_WRITE: Final = (
    'write a path of JSON lines (a name in .jsonl or .ndjson), such as "decisions.jsonl", or of SQLite (a name in .db '
    'or .sqlite, or "sqlite:///decisions.db", with four slashes for an absolute path)'
)


@veiled("text")
class _Entry(NamedTuple):
    decision: Decision
    at: float
    outcome: str
    tools: int
    text: str | None
    dropped: int
    """How many before it were not kept."""


class DecisionLog:
    """Where decisions are written down, one record for each call that has ended: see docs/evaluation.md for its fields.

    - `path`: a file of JSON lines, with a name that ends in `.jsonl` or `.ndjson`; or SQLite: `sqlite:///decisions.db`,
      or a name that ends in `.db`, `.sqlite` or `.sqlite3`
    - `text`: whether the latest turn of the prompt is in the record. That is the only way in which it gets there
    - `max_bytes`: of one file. Then it is moved to `decisions.jsonl.1`, that one to `.2`, and so on; in SQLite the
      oldest tenth is dropped instead
    - `keep`: how many files that were moved away stay

    Several processes may share a path. A call is never late or broken by its log: a thread writes, a failure (a full
    disk, a missing right) is logged once, until it works again. What waits when a process is killed is lost: moments.
    At shutdown of the Router all is written. Nothing is opened before the first record.

    ConfigurationError for what cannot work.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, text: bool = False, max_bytes: int = 64 * 1024 * 1024, keep: int = 5
    ) -> None:
        if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
            raise ConfigurationError(f"DecisionLog(path={path!r:.80}): {_WRITE}")
        if not isinstance(text, bool):
            raise ConfigurationError(f"DecisionLog(text={text!r:.80}): write True or False")
        for name, number, least in (("max_bytes", max_bytes, 4096), ("keep", keep, 1)):
            if not is_whole(number, least):
                raise ConfigurationError(
                    f"DecisionLog({name}={number!r:.80}): write a whole number of at least {least}"
                )
        self.text = text
        self.path, sqlite = _place(os.fspath(path))
        self._open = _opener(self.path, sqlite, max_bytes, keep)
        self._writer: _Writer | None = None
        self._lock = threading.RLock()  # a finalizer may write in the midst of a write
        self._dropped = 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=_weakly(self._before_fork),
                after_in_parent=_weakly(self._after_fork_in_parent),
                after_in_child=_weakly(self._after_fork_in_child),
            )

    def __repr__(self) -> str:
        return f"DecisionLog({str(self.path)!r}, text={self.text})"

    def write(self, decision: Decision, *, at: float, outcome: str, tools: int = 0, text: str | None = None) -> None:
        """Have a settled decision written down: see `record_of`. From any thread; returns at once and never raises."""
        with self._lock:  # nothing is put behind the end of a queue
            if self._writer is None:
                self._writer = self._started()
            if self._writer is None or self._writer.queue.qsize() >= MOST_WAITING:
                self._dropped += 1
                return
            dropped, self._dropped = self._dropped, 0
            # A copy has nobody who takes grades, and so nothing of the prompt: many may wait for a slow disk.
            alone = replace(decision)
            self._writer.queue.put(_Entry(alone, at, outcome, tools, text if self.text else None, dropped))

    async def drain(self, timeout: float = SHUTDOWN) -> None:
        """Wait until all that came before is written, for at most `timeout` seconds, and let go of the file."""
        with self._lock:
            writer, self._writer = self._writer, None
        if writer is not None:
            self._collected.detach()
            writer.queue.put(None)
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(writer.ended)), timeout)

    def _started(self) -> _Writer | None:
        writer = _Writer(self.path, self._open())
        try:
            writer.thread.start()
        except RuntimeError:  # no thread can be started, as at the end of the interpreter
            return None
        self._collected = weakref.finalize(self, writer.queue.put, None)
        self._collected.atexit = False
        return writer

    # Around a fork: the child has neither the thread nor what waits for it, which is the parent's to write

    def _before_fork(self) -> None:
        if (writer := self._writer) is not None:
            writer.busy.acquire(timeout=_AT_FORK)

    def _after_fork_in_parent(self) -> None:
        if (writer := self._writer) is not None and writer.busy.locked():
            writer.busy.release()

    def _after_fork_in_child(self) -> None:
        writer, self._writer, self._lock, self._dropped = self._writer, None, threading.RLock(), 0
        if writer is not None:
            self._collected.detach()
            writer.into.abandon()


def open_log(where: object) -> DecisionLog | None:
    """The log of `Router(decision_log=…)`. ConfigurationError for what is none."""
    if where is None or isinstance(where, DecisionLog):
        return where
    if isinstance(where, (str, os.PathLike)):
        return DecisionLog(where)
    raise ConfigurationError(f"Router(decision_log={where!r:.80}): {_WRITE}, or give a DecisionLog(…)")


def _opener(path: Path, sqlite: bool, max_bytes: int, keep: int) -> Callable[[], Lines | Table]:
    if not sqlite:
        return partial(Lines, path, max_bytes, keep)
    # SQLite takes 10 ms to load: at start-up, and for those who want it.
    from tierline.decisionlog.table import Table  # noqa: PLC0415

    return partial(Table, path, max_bytes)


def _place(path: str | bytes) -> tuple[Path, bool]:
    """The file, and whether it is SQLite."""
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if path.startswith(_SCHEME) and len(path) > len(_SCHEME):
        return Path(path[len(_SCHEME) :]).absolute(), True
    place = Path(path).absolute()
    if "://" in path or place.suffix not in (*_LINES, *_SQLITE):
        raise ConfigurationError(f"DecisionLog(path={path!r:.80}): {_WRITE}")
    return place, place.suffix in _SQLITE


def _weakly(method: Callable[[], None]) -> Callable[[], None]:
    """A hook that keeps nothing alive: hooks cannot be taken back."""
    ref = weakref.WeakMethod(method)

    def hook() -> None:
        if (alive := ref()) is not None:
            alive()

    return hook


class _Writer:
    """The thread. It knows nothing of its log, which may be collected."""

    def __init__(self, path: Path, into: Lines | Table) -> None:
        self.into = into
        # One whose `put` may be called anywhere, also by the garbage collector in the midst of another `put`.
        self.queue: SimpleQueue[_Entry | threading.Event | None] = SimpleQueue()
        self.busy = threading.Lock()
        """Held while the file is at work."""
        self.ended: Future[None] = Future()
        self.thread = threading.Thread(target=self._run, name="tierline-decisions", daemon=True)
        self._path = path
        self._pid = os.getpid()
        self._lost = 0
        """Decisions that could not be written since it last worked."""

    def _run(self) -> None:
        atexit.register(self._flush)
        last = False
        while not last:
            batch: list[_Entry] = []
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
                        batch.append(item)
                    if len(batch) == _BATCH:
                        break
                    item = self.queue.get_nowait()
            if batch:
                with self.busy:
                    self._put(batch)
            for event in events:
                event.set()
            del batch, item
        with self.busy:
            self.into.close()
        atexit.unregister(self._flush)
        self.ended.set_result(None)

    def _flush(self) -> None:
        """At the exit of the interpreter: see that what waits is written, though nobody closed the Router."""
        if self._pid == os.getpid():
            done = threading.Event()
            self.queue.put(done)
            done.wait(_AT_EXIT)

    def _put(self, batch: list[_Entry]) -> None:
        if dropped := sum(entry.dropped for entry in batch):
            log.warning("%d decisions are not in %s: it is not written as fast as they come", dropped, self._path)
        try:
            self.into.append(
                [
                    record_of(each.decision, at=each.at, outcome=each.outcome, tools=each.tools, text=each.text)
                    for each in batch
                ]
            )
        except Exception as error:  # noqa: BLE001  (a log breaks nothing)
            if not self._lost:
                log.warning(
                    "decisions cannot be written to %s: %s: %s. Calls go on; this is said once, until it works again",
                    self._path, type(error).__name__, error,
                )  # fmt: skip
            self._lost += len(batch)
        else:
            if self._lost:
                log.warning("decisions are written to %s again; %d are not in it", self._path, self._lost)
            self._lost = 0
