"""`router.batches.defer`: what an app does with requests that are deferred one by one."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any, get_args
from weakref import WeakKeyDictionary

from tierline.batches.queue.delivery import check_target
from tierline.batches.queue.keeping import QueueKeeper
from tierline.batches.queue.kept import deferred_of, written
from tierline.batches.queue.settings import LONGEST_WITHIN, seconds_of
from tierline.batches.queue.store import Item
from tierline.batches.values import WhenFull, checked_request
from tierline.binding import context
from tierline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from tierline.batches.jobs import JobStore
    from tierline.batches.queue.delivery import Target
    from tierline.batches.queue.settings import Queue
    from tierline.batches.queue.store import QueueStore
    from tierline.batches.queue.values import Deferred
    from tierline.batches.queue.work import Jobs
    from tierline.batches.values import BatchRequest
    from tierline.router import Router

_AT_ONCE = 500
_BYTES = 24
"""Random bytes of a handle: nobody guesses one of 2^192."""


class Deferring:
    """Deferred requests of a Router: takes them, tells of them, and has a keeper on each event loop."""

    def __init__(self, router: Router[Any], lane: Jobs, jobs: JobStore, store: QueueStore, queue: Queue) -> None:
        self._router, self._lane, self._jobs, self._store, self._queue = router, lane, jobs, store, queue
        self._targets: dict[str, Target] = {}
        self._keepers: WeakKeyDictionary[asyncio.AbstractEventLoop, QueueKeeper] = WeakKeyDictionary()

    def deliver_to(self, name: str, target: Target) -> None:
        """See `Batches.deliver_to`."""
        check_target(name, target)
        if self._targets.setdefault(name, target) != target:
            raise ConfigurationError(f"deliver_to({name!r:.80}): this name is taken")

    async def defer(
        self,
        request: BatchRequest | Mapping[str, Any],
        within: str | timedelta,
        when_full: WhenFull,
        to: str | None,
    ) -> str:
        """See `Batches.defer`."""
        found = checked_request(request)
        if isinstance(found, str):
            raise ConfigurationError(f"defer: {found}")
        if when_full not in get_args(WhenFull):
            raise ConfigurationError(
                f"defer(when_full={when_full!r:.40}): write one of {', '.join(get_args(WhenFull))}"
            )
        if to is not None and to not in self._targets:
            raise ConfigurationError(
                f"defer(to={to!r:.80}): nothing has this name: call router.batches.deliver_to({to!r:.80}, …) first"
            )
        length = seconds_of("defer(within", within, LONGEST_WITHIN)
        text, tenant = written(self._router, found)
        now = self._router.timing.now()
        times = self._queue.times(now, length)
        handle = secrets.token_urlsafe(_BYTES)
        item = Item(handle, tenant or "", found.custom_id, when_full, to or "", now, *times, request=text)
        await self._store.put(item)
        self.keeper().wake()
        return handle

    async def deferred(self, handle: str, tenant: str | None) -> Deferred | None:
        """See `Batches.deferred`."""
        item = await self._mine(handle, tenant)
        self.keeper().wake_if_idle()
        return None if item is None else deferred_of(item)

    async def forget(self, handle: str, tenant: str | None) -> bool:
        """See `Batches.forget`."""
        return await self._mine(handle, tenant) is not None and await self._store.forget(handle)

    async def erase(self, tenant: str) -> None:
        """Forget all requests of a tenant, with their answers."""
        while handles := await self._store.of(tenant, _AT_ONCE):
            for handle in handles:
                await self._store.forget(handle)

    async def start(self) -> None:
        """Go on with what other processes have left."""
        if await self._store.next(tuple(self._targets)) is not None:
            self.keeper().wake()

    async def close(self) -> None:
        """Leave what is under way on this loop to whoever comes after."""
        keeper = self._keepers.pop(asyncio.get_running_loop(), None)
        if keeper is not None:
            await keeper.close()

    def keeper(self) -> QueueKeeper:
        """Who looks after them on this loop."""
        loop = asyncio.get_running_loop()
        found = self._keepers.get(loop)
        if found is None:
            found = self._keepers[loop] = QueueKeeper(
                self._router,
                self._lane,
                self._jobs,
                self._store,
                self._queue,
                self._targets,
                lease=self._router.ledger.lease,
            )
        return found

    async def _mine(self, handle: object, tenant: str | None) -> Item | None:
        """A request, if it is of this tenant; where none is named, of that of the request that runs here."""
        if not isinstance(handle, str) or not handle.isascii() or len(handle) > 4 * _BYTES:
            return None
        item = await self._store.get(handle)
        binding = context().binding_of(self._router)
        if item is None or (tenant is None and binding is None):
            return item
        asks = tenant if tenant is not None else binding.tenant if binding is not None else None
        return item if item.tenant == (asks or "") else None
