"""Routers over a fake with a Batches API, in time that goes by itself as soon as nobody has anything else to do."""

from __future__ import annotations

import asyncio
import heapq
import time
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

from anthropic import AsyncAnthropic

from tierline import Budget, Ladder, Router
from tierline.attempts import Timing
from tierline.batches import BatchRequest
from tierline.classify import FixedClassifier
from tierline.testing import FakeClaude

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

LADDER = Ladder.of(haiku="claude-haiku-4-5", opus="claude-opus-4-8")
IDLE = 0.003
PASSES = 30
"""Seconds without a request, and then turns of the loop, after which the next sleeper wakes up: on a busy machine the
seconds alone may pass while somebody is at work."""


class Clock:
    """Time that stands still while something is done."""

    def __init__(self) -> None:
        self.now = time.time()
        self.busy: Callable[[], object] = lambda: False
        self.stopped = False
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = count()
        self._looking = False
        self._passes = 0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._numbers), waiting))
        self._look()
        try:
            await waiting
        finally:
            waiting.cancel()

    def go(self) -> None:
        """Let it go on after it was stopped."""
        self.stopped = False
        self._look()

    def _look(self) -> None:
        self._passes = PASSES
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(IDLE, self._tick)

    def _tick(self) -> None:
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        if self.stopped or not self._sleepers:
            self._looking = False
        elif self.busy():
            self._passes = PASSES
            asyncio.get_running_loop().call_later(IDLE, self._tick)
        elif self._passes:
            self._passes -= 1
            asyncio.get_running_loop().call_soon(self._tick)
        else:
            at, _, waiting = heapq.heappop(self._sleepers)
            self.now = max(self.now, at)
            waiting.set_result(None)
            self._looking = False
            self._look()


def params(text: str = "hi", **more: Any) -> dict[str, Any]:
    return {"model": "auto", "max_tokens": 20, "messages": [{"role": "user", "content": text}], **more}


def requests(number: int, first: int = 0, **more: Any) -> list[BatchRequest]:
    return [BatchRequest(f"r{n}", params(f"say {n}"), **more) for n in range(first, first + number)]


class World:
    """A clock, a fake that goes by it, and Routers on one store."""

    def __init__(self, store: str = "memory://", **fake: Any) -> None:
        self.clock = Clock()
        self.store = store
        self.fake = FakeClaude(clock=self.clock, **{"batch_delay": 50.0, **fake})
        self.clock.busy = lambda: self.fake._book._open or any(map(_works, self._routers))
        self.url = ""
        self._routers: list[Router] = []
        self._clients: list[AsyncAnthropic] = []

    def router(self, *, middleware: Sequence[Any] = (), **options: Any) -> Router:
        """A Router as a process has it; `middleware` is the client's."""
        client = AsyncAnthropic(
            api_key=self.fake.api_key, base_url=self.url, max_retries=0, middleware=list(middleware)
        )
        timing = Timing(now=self.clock, sleep=self.clock.sleep, jitter=lambda: 0.5)
        given = {
            "ladder": LADDER, "store": self.store, "classifier": FixedClassifier("simple"), "timing": timing,
            "budgets": [Budget("$10/day"), Budget("$10/month", per="tenant")],
        }  # fmt: skip
        router = Router(client, **{**given, **options})
        self._clients.append(client)
        self._routers.append(router)
        return router

    async def spent(self, router: Router) -> int:
        """What the ledger says was spent in all; nothing is held, and no guess is left."""
        balances = [each for each in await router.balances() if each.account == "global"]
        assert all(each.held == 0 and each.estimated == 0 for each in balances)
        return sum(each.spent for each in balances)

    async def aclose(self) -> None:
        for router in self._routers:
            await router.aclose()
        for client in self._clients:
            await client.close()


def _works(router: Router) -> bool:
    """Whether somebody looks after jobs just now, and does not wait for time to go by."""
    if "batches" not in vars(router):
        return False
    queue = router.batches._deferring._keepers.values()
    return any(keeper._busy["delivery"] for keeper in queue) or any(
        keeper._wake.is_set() or getattr(_waits(keeper._task), "__name__", "") != "wait"
        for keeper in (*router.batches._keepers.values(), *queue)
        if keeper._task is not None and not keeper._task.done()
    )


def _waits(task: asyncio.Task[None]) -> object:
    """What a task awaits."""
    running: Any = task.get_coro()
    return running.cr_await


async def broken(request: Any, _: Any) -> Any:
    """A middleware of the app's own that fails, and quotes what it was given."""
    raise RuntimeError(str(request.json))


@asynccontextmanager
async def world(store: str = "memory://", **fake: Any) -> AsyncIterator[World]:
    made = World(store, **fake)
    async with made.fake.serve() as made.url:
        try:
            yield made
        finally:
            await made.aclose()
