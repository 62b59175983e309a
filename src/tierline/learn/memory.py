"""Outcomes of one process: for apps that keep their balances in memory, or in a ledger of their own."""

from __future__ import annotations

import secrets
import threading
import time
from typing import TYPE_CHECKING

from tierline.learn.outcomes import REMEMBER, SIZE, position

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tierline.learn.outcomes import Evidence


class MemoryOutcomes:
    """An `OutcomeStore` in the memory of this process. It is never away.

    `size` is in evidence, `remember` in seconds of `clock`, for which ids stay taken.
    """

    def __init__(self, *, size: int = SIZE, remember: float = REMEMBER, clock: Callable[[], float] = time.time) -> None:
        self._size, self._remember, self._clock = size, remember, clock
        self._lock = threading.Lock()
        self._taken: dict[str, float] = {}
        """Until when ids are taken; those that were taken first are first."""
        self._kept: list[Evidence] = []
        self._last = 0
        """The number of the last evidence; the others have those before it, without a gap."""
        self._edition = secrets.token_hex(8)
        self.made = secrets.token_bytes(32)
        """The secret."""

    async def add(self, evidence: Sequence[Evidence]) -> list[bool]:
        """Keep evidence: see `OutcomeStore`."""
        now = self._clock()
        with self._lock:
            for old in [old for old, until in self._taken.items() if until <= now]:
                del self._taken[old]
            new = []
            for each in evidence:
                new.append(each.id not in self._taken)
                if new[-1]:
                    self._taken[each.id] = now + self._remember
                    self._kept.append(each)
                    self._last += 1
            del self._kept[: -self._size]
        return new

    async def since(self, cursor: str, limit: int = 1000) -> tuple[list[Evidence], str]:
        """At most `limit` that came after the cursor, and the cursor to go on from."""
        with self._lock:
            dropped = self._last - len(self._kept)
            start = max(position(cursor, self._edition), dropped)
            found = self._kept[start - dropped : start - dropped + limit]
            return found, f"{self._edition}:{start + len(found)}"

    async def secret(self) -> bytes:
        """32 bytes that keys and signatures are made with."""
        return self.made

    async def forget(self, account: str) -> None:
        """Drop what an account graded."""
        with self._lock:
            self._kept = [each for each in self._kept if each.account != account]
            self._last = len(self._kept)
            self._edition = secrets.token_hex(8)
