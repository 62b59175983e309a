"""Stores of outcomes, each several times on one state, as processes have them.

python -m tests.learn.stores URL NAME COUNT     (a process that adds evidence, and says which is on the disk)
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from tierline.learn.memory import MemoryOutcomes
from tierline.learn.outcomes import Evidence
from tierline.learn.redis import RedisOutcomes
from tierline.learn.sqlite import SQLiteOutcomes
from tierline.store.redis import RedisStore
from tierline.store.sqlite import SQLiteStore

if TYPE_CHECKING:
    from tierline.learn.outcomes import OutcomeStore


def evidence(name: str, **more: Any) -> Evidence:
    """An outcome of a route, known by its id."""
    return Evidence(**{"id": name, "route": "/answer", "tier": "haiku", "good": 1.0, "features": b"\x00\xff1", **more})


class Shared:
    """One state, and how a process opens it."""

    def __init__(self, url: str, namespace: str = "tierline") -> None:
        self.url = url
        self.namespace = namespace
        self._one: MemoryOutcomes | None = None
        self.connections: list[RedisStore | SQLiteStore] = []

    def open(self, **options: Any) -> OutcomeStore:
        """An object as another process has it. What is in memory has one alone."""
        if self.url == "memory":
            self._one = self._one or MemoryOutcomes(**options)
            return self._one
        if self.url.startswith("redis"):
            options.pop("clock", None)
            self.connections.append(redis := RedisStore(self.url, namespace=self.namespace, timeout=5))
            return RedisOutcomes(redis, **options)
        self.connections.append(sqlite := SQLiteStore(self.url, timeout=5))
        return SQLiteOutcomes(sqlite, **options)

    async def aclose(self) -> None:
        """Let go of everything."""
        for each in self.connections:
            await each.aclose()


async def read(store: OutcomeStore, cursor: str = "", limit: int = 1000) -> tuple[list[str], str]:
    """Ids of all that came after a cursor, page by page."""
    found: list[str] = []
    while True:
        page, cursor = await store.since(cursor, limit)
        if not page:
            return found, cursor
        found += [each.id for each in page]


async def _add(url: str, namespace: str, name: str, count: int) -> None:
    shared = Shared(url, namespace)
    store = shared.open()
    for number in range(count):
        both = [evidence(f"{name} {number}"), evidence(f"both {number}")]
        new = await store.add(both)
        taken = [each.id.replace(" ", "_") for each, counted in zip(both, new, strict=True) if counted]
        sys.stdout.write(" ".join(taken) + "\n")
        sys.stdout.flush()
    await shared.aclose()


if __name__ == "__main__":
    asyncio.run(_add(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
