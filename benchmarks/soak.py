"""What a process keeps of a long life: `python -m benchmarks.soak --calls 1000000`.

Calls of all kinds are made in one process, against the stand-in for the API in the same one: whole answers and streams,
left half read and cancelled, errors and retries, verdicts, tool loops, refusals; of 500 tenants on 20 routes, each
prompt a new one. The resident memory is read every so often. The first calls fill what is bounded (caches, memories of
conversations and loops); what it grows by after them is told, and its slope. Exits with 1 where that is over the bound.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anthropic

from tierline import Budget, Router, policy
from tierline.classify import CascadeClassifier, ClaudeClassifier, LocalClassifier
from tierline.errors import TierlineError
from tierline.testing import FakeClaude, Fault

if TYPE_CHECKING:
    from collections.abc import Sequence

GROWTH: Final = 5_000_000
"""Bytes by which 100,000 calls may make it grow."""
TENANTS: Final = 500
ROUTES: Final = 20
SMALL: Final = 2_000
"""Places of the verdict cache here: so that it is full before the calls are counted."""
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_AT_ONCE: Final = 20


def resident() -> int:
    """Bytes of memory that the process has."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * _PAGE


async def call(router: Router, number: int) -> None:
    """One call, of a kind that its number says."""
    claude, kind = router.claude, number % 20
    said: list[Any] = [{"role": "user", "content": f"Is parcel {number} of order {number * 7919} late, and why?"}]
    if kind == 7:
        tool = {"type": "tool_use", "id": f"toolu_{number}", "name": "look", "input": {}}
        said += [
            {"role": "assistant", "content": [tool]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": tool["id"], "content": "no"}]},
        ]
    body: dict[str, Any] = {"model": "auto", "max_tokens": 60, "messages": said}
    if kind == 7:
        body["tools"] = [{"name": "look", "input_schema": {"type": "object"}}]
    tenant = f"t{number % TENANTS}"
    with suppress(anthropic.AnthropicError, TierlineError, asyncio.TimeoutError):
        async with router.bind(tenant=tenant, route=f"/r{number % ROUTES}") as binding:
            if kind == 3:
                binding.conversation = f"chat {number}"
            if kind in (4, 5):
                async with claude.messages.stream(**body) as stream:
                    async for _ in stream:
                        if kind == 5:
                            break
            elif kind == 6:
                await asyncio.wait_for(claude.messages.create(**body), 0.001)
            elif kind == 8:
                with policy(tier="opus", max_tokens=50):
                    await claude.messages.create(**body)
            else:
                await claude.messages.create(**body)


async def live(calls: int, warm: int, every: int) -> list[tuple[int, int]]:
    """Make so many calls after `warm` others. (calls, bytes) for each time that it was looked."""
    fake = FakeClaude()
    looks: list[tuple[int, int]] = []
    async with fake.client(max_retries=1) as client:
        router = Router(
            client,
            classifier=CascadeClassifier([LocalClassifier(), ClaudeClassifier()]),
            budgets=[Budget("$1000000/day"), Budget("$9000/hour", per="tenant"), Budget("$1", per="request")],
            cache_size=SMALL,
            traffic=True,
            cache_prompt=True,
        )
        async with router.lifespan():
            done, began = -warm, time.monotonic()
            while done <= calls:
                if done >= 0 and done % every == 0:
                    await fake.idle()
                    looks.append((done, resident()))
                    speed = (done + warm) / (time.monotonic() - began)
                    print(f"{done:>9,} calls  {looks[-1][1] / 1e6:8.1f} MB  {speed:6.0f} calls/s", flush=True)
                if done == calls:
                    break
                if done % 500 == 0:
                    fake.script(Fault.overloaded(), Fault.error(400), Fault.missing_usage())
                await asyncio.gather(*(call(router, warm + done + n) for n in range(_AT_ONCE)))
                done += _AT_ONCE
                if done % 500 < _AT_ONCE:
                    await fake.idle()
                    fake.clear()
            held = sum(each.held for each in await router.balances())
            assert held == 0, f"{held} nano-USD are held, and nothing is in flight"
    return looks


def slope(looks: Sequence[tuple[int, int]]) -> float:
    """Bytes by which 100,000 calls make it grow: the line through all looks that is nearest to them."""
    mean_x, mean_y = (sum(each) / len(looks) for each in zip(*looks, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in looks)
    return 100_000 * sum((x - mean_x) * (y - mean_y) for x, y in looks) / spread


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it. 1 where it grows by more than the bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--warm", type=int, default=20_000)
    asked = parser.parse_args(arguments)
    looks = asyncio.run(live(asked.calls, asked.warm, max(_AT_ONCE, asked.calls // 20 // _AT_ONCE * _AT_ONCE)))
    growth = slope(looks)
    ends = " to ".join(f"{size / 1e6:.1f}" for _, size in (looks[0], looks[-1]))
    print(f"from {ends} MB; by the line through all: {growth / 1e6:+.2f} MB for 100,000 calls")
    return growth > GROWTH


if __name__ == "__main__":
    sys.exit(main())
