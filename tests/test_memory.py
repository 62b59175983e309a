"""What a process keeps of the calls that it has made: nothing but memories that are bounded."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import anthropic
import pytest

from tierline import Budget, Router, policy, report
from tierline.classify import ClaudeClassifier
from tierline.ledger import memory
from tierline.testing import FakeClaude, Fault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anthropic import AsyncAnthropic

FEW: Final = 20
"""What is remembered of each kind in these tests: thousands in an app."""
CALLS: Final = 300
"""In fewer, what an interpreter keeps for itself shows more than what calls leave."""
ASK: Final[dict[str, Any]] = {"model": "auto", "max_tokens": 50}


def asking(number: int) -> Any:
    """A prompt that has not been asked before."""
    return [{"role": "user", "content": f"How much is {number} and {number}?"}]


async def whole(claude: AsyncAnthropic, number: int) -> None:
    await claude.messages.create(**ASK, messages=asking(number))


async def read(claude: AsyncAnthropic, number: int) -> None:
    async for _ in await claude.messages.create(**ASK, messages=asking(number), stream=True):
        pass


async def left(claude: AsyncAnthropic, number: int) -> None:
    async with claude.messages.stream(**ASK, messages=asking(number)) as stream:
        await anext(aiter(stream))


async def dropped(claude: AsyncAnthropic, number: int) -> None:
    await anext(aiter(await claude.messages.create(**ASK, messages=asking(number), stream=True)))
    await asyncio.sleep(0.001)  # whoever closes it is a task


async def cancelled(claude: AsyncAnthropic, number: int) -> None:
    task = asyncio.ensure_future(claude.messages.create(**ASK, messages=asking(number)))
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))


async def failed(claude: AsyncAnthropic, number: int) -> None:
    with policy(tier="opus"), suppress(anthropic.APIStatusError):
        await claude.messages.create(**ASK, messages=asking(number))


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("call", [whole, read, left, dropped, cancelled, failed])
async def test_calls_leave_nothing_behind(
    call: Callable[[AsyncAnthropic, int], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However calls end: once the bounded memories are full, two calls leave not one block of memory behind."""
    monkeypatch.setattr(memory, "_MOST_ENDED", FEW)
    monkeypatch.setattr(report, "KEPT_LATENCIES", FEW)
    # Whoever runs the tests with logs keeps a record of every request, and that is all that would be seen to grow.
    monkeypatch.setattr(logging.root.manager, "disable", logging.INFO)
    fake = FakeClaude(keep=1)
    fake.always("claude-opus-5-5", Fault.error(400))
    router = Router(
        fake.client(max_retries=0),
        classifier=ClaudeClassifier(),
        cache_size=FEW,
        budgets=[Budget("$9/day", per="tenant")],
    )
    numbers = iter(range(10**6))

    async def some(count: int) -> int:
        for number in (next(numbers) for _ in range(count)):
            async with router.bind(tenant=f"tenant {number % 7}", route="/answer"):
                await call(router.claude, number)
        gc.collect()
        return sys.getallocatedblocks()

    await some(2 * CALLS)  # an account's last fifty calls are remembered, by place
    sizes = [await some(CALLS) for _ in range(4)]
    await router.aclose()
    # What is made once, or grows and shrinks by turns, as the API's log does, is in some of the rounds and not in all.
    assert min(after - before for before, after in pairwise(sizes)) < CALLS / 2, sizes
