"""Reading a file again when it changes, or when a signal comes; what cannot be taken is logged."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from tierline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path
    from signal import Signals

log: Final = logging.getLogger("tierline")


@asynccontextmanager
async def watched(path: Path, take: Callable[[], object], seconds: float, on: Signals | None) -> AsyncIterator[None]:
    """Inside, `take` is called on this loop when the file has changed. See `Configuration.watching`."""
    if not seconds > 0:
        raise ConfigurationError(f"watching(seconds={seconds!r}): write a number above zero")
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    if on is not None:
        try:
            loop.add_signal_handler(on, told.set)
        except (NotImplementedError, RuntimeError, ValueError) as error:
            raise ConfigurationError(f"watching(on={on!r}) cannot have that signal here: {error}") from error
    watch = asyncio.create_task(_watch(path, take, seconds, told, _state(path)), name="tierline-configuration")
    try:
        yield
    finally:
        if on is not None:
            loop.remove_signal_handler(on)
        watch.cancel()
        await asyncio.wait((watch,))  # not `await watch`: that could not tell whose cancellation it was


async def _watch(path: Path, take: Callable[[], object], seconds: float, told: asyncio.Event, taken: object) -> None:
    before = taken
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(told.wait(), seconds)
        now = _state(path)
        # One that is being written looks different the next time. One that is away comes back: editors move files.
        settled = now is not None and now == before != taken
        before = now
        if told.is_set() or settled:
            told.clear()
            taken = now
            _take(path, take)


def _take(path: Path, take: Callable[[], object]) -> None:
    try:
        take()
    except ConfigurationError as error:
        log.error("%s is not taken, and what held holds on: %s", path, error)  # noqa: TRY400  (it says all there is)
    except Exception:
        log.exception("%s is not taken, and what held holds on", path)


def _state(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is written, or another takes its name; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
