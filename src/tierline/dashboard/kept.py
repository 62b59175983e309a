"""A value that is made anew for whoever asks, at most each second, and once for all who do."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from tierline.errors import LedgerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log: Final = logging.getLogger("tierline")

T = TypeVar("T")

EACH: Final = 1.0
"""Seconds for which a value is good enough."""
SHARE: Final = 10
"""A value that took a while to make is good for so many times that: a page never keeps a store busy."""
WAIT: Final = 0.1
"""Seconds that a new value is waited for where there is another."""
OLD: Final = 30.0
"""Seconds after which nobody wants that any more."""
PATIENCE: Final = 10.0
"""Seconds after which a store that does not answer is taken to be away."""


class Kept(Generic[T]):
    """The latest value, on one event loop.

    - nothing is done while nobody asks
    - those who ask at the same time wait for one answer; who is cancelled takes nobody along
    - a value that is a little too old is given out where a new one is slow to come
    - while the store is away the last value stays, and `away` says why
    - `edition` changes with every value that is not the `same` as the one before

    `perf` is a clock in seconds that nobody sets.
    """

    def __init__(
        self,
        make: Callable[[], Awaitable[T]],
        *,
        same: Callable[[T, T], bool] = lambda one, other: one == other,
        perf: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make, self._same, self._perf = make, same, perf
        self._task: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._good_until = float("-inf")
        self.value: T | None = None
        self.edition = 0
        self.away = ""
        """Why there is no newer value; empty where there is."""

    async def get(self) -> T | None:
        """A value that is good enough; where the store is away, the last one, or None before there was any."""
        if self._perf() >= self._good_until:
            task = self._task
            if task is None or task.done():
                task = self._task = asyncio.get_running_loop().create_task(self._refresh(), name="tierline page")
                self._running.add(task)
                task.add_done_callback(self._running.discard)
            # `wait` and not `await`: whoever is cancelled leaves the others their answer.
            await asyncio.wait((task,), timeout=self._worth_waiting())
        return self.value

    def _worth_waiting(self) -> float | None:
        """Seconds to wait for a new value: where there is one that is not old, people would rather see that now."""
        return WAIT if self.value is not None and self._perf() < self._good_until + OLD else None

    def expire(self) -> None:
        """Make a new one for the next who asks, and let nobody see this one again while the store is there."""
        self._good_until = float("-inf")
        self._task = None  # what was asked before says nothing of now

    async def _refresh(self) -> None:
        began = self._perf()
        value, why = self.value, ""
        try:
            async with asyncio.timeout(PATIENCE):
                value = await self._make()
        except LedgerUnavailableError as error:
            why = f"the store cannot be asked: {error}"
        except TimeoutError:
            why = "the store does not answer"
        except Exception as error:
            why = f"what the store has cannot be read: {type(error).__name__}"
            if why != self.away:
                log.exception("page: %s", why)
        if asyncio.current_task() is not self._task:
            return  # something was changed meanwhile: this is of before
        old = self.value
        if why != self.away or (value is not old and (old is None or value is None or not self._same(old, value))):
            self.edition += 1
        self.value, self.away = value, why
        now = self._perf()
        self._good_until = now + max(EACH, SHARE * (now - began))
