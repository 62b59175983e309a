"""Verdicts in a Redis, for any number of machines: in the ledger's namespace, over its connections."""

from __future__ import annotations

import json
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from tierline.verdicts.store import SIZE, StoredVerdicts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tierline.store.redis import RedisStore
    from tierline.verdicts.store import Kept

_AT_ONCE: Final = 200
"""Verdicts that one script reads or writes: the server does nothing else meanwhile."""


class RedisVerdicts:
    """A `VerdictStore` in a Redis: a hash for each, which the server itself lets expire. `size` is in verdicts."""

    def __init__(self, store: RedisStore, *, size: int = SIZE) -> None:
        self._store = store
        self._size = size
        self._keys = (f"{store.prefix}verdicts",)

    async def get(self, keys: Sequence[str]) -> list[str | None]:
        """The value of each key."""
        found: list[str | None] = []
        for place in range(0, len(keys), _AT_ONCE):
            found += [value or None for value in await self._run("get", *keys[place : place + _AT_ONCE])]
        return found

    async def put(self, kept: Sequence[Kept]) -> None:
        """Keep verdicts, and drop those that are too old or too many."""
        for place in range(0, len(kept), _AT_ONCE):
            arguments = [str(self._size)]
            for each in kept[place : place + _AT_ONCE]:
                arguments += each.key, each.account, each.value, str(max(1, ceil(each.ttl * 1000)))
            await self._run("put", *arguments)

    async def used(self, counts: Mapping[str, int], saved: int) -> None:
        """Count keys that were found, and nano-USD that this saved."""
        pairs = [text for key, count in counts.items() for text in (key, str(count))]
        await self._run("used", str(saved), *pairs)

    async def forget(self, account: str) -> None:
        """Drop the verdicts of an account. Where it fails halfway it may be done again."""
        start = "0"
        while start:
            (start,) = await self._run("forget", account, start)

    async def clear(self) -> None:
        """Drop all verdicts. Where it fails halfway it may be done again."""
        while (await self._run("clear"))[0]:
            pass

    async def stats(self) -> StoredVerdicts:
        """What there is."""
        return StoredVerdicts(*map(int, await self._run("stats")))

    async def _run(self, name: str, *arguments: str) -> list[Any]:
        answer: list[Any] = json.loads(await self._store.script(f"verdicts/{name}", self._keys, lambda _: arguments))
        return answer
