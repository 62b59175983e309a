"""A ledger that can be switched off, as a store over a network may be."""

from __future__ import annotations

import asyncio
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from tierline.errors import LedgerUnavailableError
from tierline.ledger import MemoryLedger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_STEPS = (
    "reserve", "settle", "release", "post", "renew", "forget", "ping", "balances", "fullest", "holds", "history",
    "set_limit", "limits", "erase",
)  # fmt: skip


async def until(true: Callable[[], Any], seconds: float = 10) -> None:
    """Wait until something is so: a value, or what an awaitable gives. TimeoutError after so many seconds."""
    async with asyncio.timeout(seconds):
        while True:
            found = true()
            if await found if isawaitable(found) else found:
                return
            await asyncio.sleep(0.005)


class Switched(MemoryLedger):
    """A memory behind a switch: `away` raises, `lost` does the step and loses the answer. `asked` counts what came."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.instant = False
        self.away = False
        self.lost: set[str] = set()
        self.asked: list[str] = []
        self.closed = self.confirmed = 0
        for name in _STEPS:
            setattr(self, name, self._switched(name, getattr(self, name)))

    def _switched(self, name: str, step: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def ask(*args: Any, **options: Any) -> Any:
            self.asked.append(name)
            await asyncio.sleep(0)
            if self.away:
                raise LedgerUnavailableError("no route to host")
            found = await step(*args, **options)
            if name in self.lost:
                raise LedgerUnavailableError("no answer within 0.2 s")
            return found

        return ask

    async def confirm(self) -> None:
        self.confirmed += 1
        self.away = False

    async def aclose(self) -> None:
        self.closed += 1
