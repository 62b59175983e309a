"""Simulated time passes in the right order, and nobody waits for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import anyio
import pytest

from benchmarks.quality.simtime import SimulatedLoop

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


def simulated(work: Coroutine[None, None, T]) -> T:
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(work)


def test_sleepers_wake_in_order_at_their_times() -> None:
    """Who sleeps less wakes first, whoever lay down first, and the clock shows when."""
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await anyio.sleep(seconds)
        woken.append((name, asyncio.get_running_loop().time()))

    async def work() -> None:
        await asyncio.gather(sleeper("long", 86_400), sleeper("short", 0.25), sleeper("middle", 7))

    simulated(work())
    assert [name for name, _ in woken] == ["short", "middle", "long"]
    assert [at for _, at in woken] == pytest.approx([0.25, 7, 86_400])


def test_timeouts_are_of_simulated_seconds() -> None:
    """What takes longer than it may is given up when its time is over."""

    async def work() -> float:
        with anyio.move_on_after(3):
            await asyncio.sleep(5)
        return asyncio.get_running_loop().time()

    assert simulated(work()) == pytest.approx(3)


def test_work_for_a_thread_takes_no_time() -> None:
    """It is done at once and gives what it returns or raises, while sleepers sleep on."""

    async def work() -> float:
        sleeper = asyncio.ensure_future(asyncio.sleep(60))
        assert await asyncio.to_thread(sum, [1, 2]) == 3
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(divmod, 1, 0)
        sleeper.cancel()
        return asyncio.get_running_loop().time()

    assert simulated(work()) == 0
