"""Deferred requests in a Redis, for any number of machines: in the ledger's namespace, over its connections."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from tierline.batches.queue.store import Group, Item, Member

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tierline.batches.queue.values import Delivery
    from tierline.store.redis import RedisStore

_NUMBERS: Final = ("created", "ready", "fill_by", "act_by", "call_by", "deadline", "answered", "due")
_LOOKS: Final = 1_000
"""Requests that are looked at in one step."""


class RedisQueue:
    """A `QueueStore` in a Redis: one script for each step. Leases, in seconds, and what is due go by its clock."""

    def __init__(self, store: RedisStore, *, lease: float) -> None:
        self._store = store
        self._lease = str(lease)
        self._keys = (f"{store.prefix}queue",)

    async def _run(self, name: str, *arguments: str) -> Any:
        said = (self._lease, *arguments)
        return json.loads(await self._store.script(f"batches.queue/{name}", self._keys, lambda *_: said))

    async def put(self, item: Item) -> None:
        """See `QueueStore`."""
        await self._run("put", *("" if value is None else str(value) for value in item))

    async def get(self, handle: str) -> Item | None:
        """See `QueueStore`."""
        found = await self._run("get", handle)
        return _item(found) if found else None

    async def gather(self, group: str, size: int) -> bool:
        """See `QueueStore`."""
        return bool((await self._run("gather", group, str(size)))[0])

    async def groups(self, owner: str, limit: int) -> list[Group]:
        """See `QueueStore`."""
        return [
            Group(id_, when_full, int(number), float(due), float(submitted), int(seen), canceled == "1", float(act_by))
            for id_, when_full, number, due, submitted, seen, canceled, act_by in await self._run(
                "groups", owner, str(limit)
            )
        ]

    async def members(self, group: str, after: int, limit: int) -> list[Member]:
        """See `QueueStore`."""
        found = await self._run("members", group, str(after), str(limit))
        return [Member(int(place), handle, request) for place, handle, request in found]

    async def save(self, group: Group, owner: str) -> bool:
        """See `QueueStore`."""
        said = (str(group.due), str(group.submitted), str(group.seen), str(int(group.canceled)))
        return bool((await self._run("save", group.id, owner, *said))[0])

    async def drop(self, group: str, owner: str) -> None:
        """See `QueueStore`."""
        await self._run("drop", group, owner)

    async def calls(self, owner: str, limit: int) -> list[Item]:
        """See `QueueStore`."""
        return [_item(each) for each in await self._run("calls", owner, str(limit))]

    async def answer(self, by: str, found: Sequence[tuple[str, str]], now: float) -> int:
        """See `QueueStore`."""
        return int((await self._run("answer", by, str(now), *(text for pair in found for text in pair)))[0])

    async def back(self, by: str, handles: Sequence[str], ready: float, fill_by: float, act_by: float | None) -> None:
        """See `QueueStore`."""
        await self._run("back", by, str(ready), str(fill_by), "" if act_by is None else str(act_by), *handles)

    async def deliveries(self, owner: str, targets: Sequence[str], limit: int) -> list[Item]:
        """See `QueueStore`."""
        return [_item(each) for each in await self._run("deliveries", owner, str(limit), *targets)]

    async def deliver(self, handle: str, owner: str, delivery: Delivery, due: float, tries: int) -> None:
        """See `QueueStore`."""
        await self._run("deliver", handle, owner, delivery, str(due), str(tries))

    async def keep(self, owner: str, groups: Sequence[str], handles: Sequence[str]) -> None:
        """See `QueueStore`."""
        await self._run("keep", owner, json.dumps(list(groups)), *handles)

    async def next(self, targets: Sequence[str]) -> float | None:
        """See `QueueStore`."""
        found = await self._run("next", *targets)
        return float(found[0]) if found else None

    async def purge(self, before: float, limit: int) -> int:
        """See `QueueStore`."""
        return int((await self._run("purge", str(before), str(limit)))[0])

    async def forget(self, handle: str) -> bool:
        """See `QueueStore`."""
        return bool((await self._run("forget", handle))[0])

    async def of(self, tenant: str, limit: int) -> list[str]:
        """See `QueueStore`."""
        looked = 0
        handles: list[str] = []
        while len(handles) < limit:
            number, found = await self._run("of", tenant, str(looked), str(_LOOKS))
            looked, handles = looked + number, handles + list(found)
            if number < _LOOKS:
                break
        return handles[:limit]


def _item(found: list[Any]) -> Item:
    fields = dict(zip(Item._fields, found, strict=True))
    for name in _NUMBERS:
        fields[name] = float(fields[name])
    return Item(**{
        **fields,
        "place": int(fields["place"]),
        "tries": int(fields["tries"]),
        "request": fields["request"] or None,
        "result": fields["result"] or None,
    })  # fmt: skip
