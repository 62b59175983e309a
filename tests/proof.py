"""What must hold after every way a call can end: one object that asks, and looks at everything afterwards."""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from tierline import Budget, Router
from tierline.attempts import Timing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tierline import Decision
    from tierline.testing import FakeClaude
    from tierline.values import Attempt

ASK: dict[str, Any] = {"model": "auto", "max_tokens": 500, "messages": [{"role": "user", "content": "Why is it blue?"}]}
HARD = Budget("$50", downgrade_at=None, cheapest_at=None)
"""Of no window: clocks of tests may jump over midnight."""
_PATIENCE = 2.0
"""Seconds in which everything that a call left has ended: what is promised is one, a slow machine has two."""


class Clock:
    """A clock that only waits move."""

    def __init__(self) -> None:
        self.at = time.time()
        self.waits: list[float] = []

    def now(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.at += seconds
        await asyncio.sleep(0)

    @property
    def timing(self) -> Timing:
        return Timing(self.now, self.now, self.sleep, lambda: 0.5)


class Proof:
    """Calls through one Router to one FakeClaude, and their decisions."""

    def __init__(self, fake: FakeClaude, make: Callable[..., Router]) -> None:
        self.fake = fake
        self.clock = Clock()
        self.meters = InMemoryMetricReader()
        self.make = make
        self.decisions: list[Decision] = []
        self._router: Router | None = None
        self.options: dict[str, Any] = {}

    @property
    def router(self) -> Router:
        """Made at first use, with `options`."""
        if self._router is None:
            given = {
                "budgets": [HARD],
                "timing": self.clock.timing,
                "tracer_provider": TracerProvider(),
                "meter_provider": MeterProvider(metric_readers=[self.meters]),
            }
            self._router = self.make(**{**given, **self.options})
        return self._router

    @property
    def models(self) -> list[str]:
        """Which models the fake was asked for, by their line."""
        return [str(received.model).split("-")[1] for received in self.fake.requests]

    @property
    def attempts(self) -> list[Attempt]:
        """Those of all calls, in the order in which the calls ended."""
        return [attempt for decision in self.decisions for attempt in decision.attempts]

    @asynccontextmanager
    async def bound(self) -> AsyncIterator[None]:
        """A job whose decisions are kept, however it ends."""
        async with self.router.bind() as binding:
            try:
                yield
            finally:
                before = len(self.decisions)
                await self._until(lambda: all(d.settled for d in binding.decisions) and not binding.open)
                self.decisions += binding.decisions
                assert len(self.decisions) > before

    async def ask(self, client: Any = None, **changes: Any) -> Any:
        """One call."""
        async with self.bound():
            return await (client or self.router.claude).messages.create(**{**ASK, **changes})

    async def read(self, **changes: Any) -> list[str]:
        """One stream, read to its end: the types of its events."""
        async with self.bound():
            stream = await self.router.claude.messages.create(**{**ASK, **changes}, stream=True)
            return [event.type async for event in stream]

    def reasons(self, number: int = -1) -> str:
        return "\n".join(self.decisions[number].reasons)

    def counted(self, name: str) -> dict[str, float]:
        """A counter of the metrics by the last of its attributes."""
        found = self.meters.get_metrics_data()
        return {
            str(max(point.attributes.items())[1]): point.value
            for resource in (found.resource_metrics if found is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        }

    async def holds(self) -> None:
        """The money: nothing is held, every attempt is exact or marked, and the exact ones are what the fake billed."""
        await asyncio.wait_for(self.fake.idle(), _PATIENCE)
        if self._router is None:
            return
        balances: list[Any] = []

        async def look() -> bool:
            balances[:] = await self.router.balances()
            return all(found.held == 0 for found in balances)

        for _ in range(200):
            if await look():
                break
            await asyncio.sleep(_PATIENCE / 200)
        (found,) = balances or [None]
        estimated = sum(attempt.cost for attempt in self.attempts if attempt.estimated)
        if found is None:
            assert not (self.attempts and self.router.budgets)
            return
        assert (found.held, found.spent) == (0, sum(decision.cost for decision in self.decisions))
        assert found.estimated == estimated
        billed = [received.billed for received in self.fake.requests]
        if estimated:
            # One after the other, so the n-th attempt is the n-th request.
            charged = [(attempt.cost, attempt.estimated) for attempt in self.attempts]
            assert len(charged) == len(billed)
            for (cost, guess), true in zip(charged, billed, strict=True):
                assert cost >= true if guess else cost == true
        else:
            assert found.spent == self.fake.billed == sum(billed)

    async def _until(self, true: Callable[[], bool]) -> None:
        for _ in range(200):
            if true():
                return
            await asyncio.sleep(_PATIENCE / 200)


@asynccontextmanager
async def nothing_left(caplog: Any) -> AsyncIterator[None]:
    """No task is left, and nothing is said by asyncio's debug mode, OpenTelemetry or a collected future."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 60  # how slow a machine is tells nothing
    before = asyncio.all_tasks()
    yield
    gc.collect()
    mine = {asyncio.current_task()}  # fixtures are torn down in a task of their own
    for _ in range(200):
        if not asyncio.all_tasks() - before - mine:
            break
        await asyncio.sleep(_PATIENCE / 200)
    assert asyncio.all_tasks() - before - mine == set()
    gc.collect()
    await asyncio.sleep(0)
    told = [r.getMessage() for r in caplog.get_records("call") if r.name.startswith(("asyncio", "opentelemetry"))]
    assert told == []
