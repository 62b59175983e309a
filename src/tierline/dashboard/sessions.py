"""Sessions that people have ended, over all workers: a cookie that somebody has copied is worth nothing after that."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from tierline.dashboard.kept import Kept
from tierline.errors import LedgerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline.traffic.store import TrafficStore

log: Final = logging.getLogger("tierline")


class Sessions:
    """Of one page. `store` is where the workers share what they know, `now` gives seconds since the epoch.

    What was ended here is known here at once, and elsewhere about a second later. While the store is away, what was
    known last holds.
    """

    def __init__(self, store: Callable[[], TrafficStore], now: Callable[[], float]) -> None:
        self._store, self._now = store, now
        self._here: dict[str, float] = {}
        self._kept: WeakKeyDictionary[asyncio.AbstractEventLoop, Kept[frozenset[str]]] = WeakKeyDictionary()

    async def has_ended(self, session: str) -> bool:
        """Whether somebody has ended it, in any worker."""
        if session in self._here:
            return True
        loop = asyncio.get_running_loop()
        kept = self._kept.get(loop)
        if kept is None:
            kept = self._kept[loop] = Kept(lambda: self._store().ended())
        return session in (await kept.get() or ())

    async def end(self, session: str, until: float) -> None:
        """End it. It is remembered until it would have ended by itself."""
        self._here = {known: end for known, end in self._here.items() if end > self._now()}
        self._here[session] = until
        try:
            await self._store().end(session, until)
        except LedgerUnavailableError as error:
            log.warning("page: somebody signed out, which other workers cannot be told: %s", error)
