"""A process that submits a job and collects it, and kills itself in the midst of a step of its stores."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anthropic import AsyncAnthropic

from tests.batches.world import LADDER, params
from tests.processes.stores import ledger_of
from tierline import Budget, Router
from tierline.batches import BatchRequest
from tierline.batches.lane import Batches
from tierline.classify import FixedClassifier
from tierline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

JOB = "the job"
_LOOKS = ("keep", "renew", "holds", "lapsed", "counts", "sent", "jobs", "balances")
"""Steps that change nothing, or happen at any time."""
BUDGETS = [Budget("$1000/day"), Budget("$1000/month", per="tenant")]


class Doomed:
    """Hands steps on to a store or a ledger, and dies where `dies` says so of one: before it is done, or after."""

    def __init__(self, inner: Any, dies: Callable[[str, tuple[Any, ...]], bool]) -> None:
        self._inner, self._dies = inner, dies

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not asyncio.iscoroutinefunction(found) or name in _LOOKS:
            return found

        async def stepped(*args: Any, **options: Any) -> Any:
            if self._dies(name, args):
                os.kill(os.getpid(), signal.SIGKILL)
            answer = await found(*args, **options)
            if self._dies(name, args):
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        return stepped


def dying(at: str) -> Callable[[str, tuple[Any, ...]], bool]:
    """At a step by its number, or at the first one of a name, such as `collect`, or `save sent` of a batch."""
    steps = 0

    def dies(name: str, args: tuple[Any, ...]) -> bool:
        nonlocal steps
        steps += 1
        state = f" {args[0].state}" if name == "save" else ""
        return at in (str(steps), name + state)

    return dies


def given(number: int) -> Iterator[BatchRequest]:
    for n in range(number):
        yield BatchRequest(f"r{n}", params(f"say {n}"), tenant=f"t{n % 3}")


async def main(url: str, store: str, number: int, lease: float, die_at: str) -> None:
    ledger: Any = ledger_of(store, lease)
    client = AsyncAnthropic(api_key="sk-ant-fake-0000", base_url=url, max_retries=0)
    router = Router(client, ladder=LADDER, ledger=ledger, budgets=BUDGETS, classifier=FixedClassifier("simple"))
    router.batches = batches = Batches(router, lambda: router._clients[0].plain(router), unsure=1.0)
    if die_at:
        dies = dying(die_at)
        router.ledger = Doomed(router.ledger, dies)
        batches._store = Doomed(batches._store, dies)
    while True:
        try:
            await batches.submit(given(number), job=JOB)
            break
        except ConfigurationError:  # the one before is not known to be dead yet
            await asyncio.sleep(lease / 5)
    await batches.wait(JOB)
    await router.aclose()
    await ledger.aclose()


def run(url: str, store: str, number: int, lease: float, die_at: str) -> None:
    """Do it, in a process of its own."""
    asyncio.run(main(url, store, number, lease, die_at))


def measured(tell: Connection, url: str, store: str, number: int, lease: float) -> None:
    """Do it, and say how many bytes this process had in memory at most."""
    run(url, store, number, lease, "")
    tell.send(memory())


def memory() -> int:
    """How many bytes this process had in memory at most."""
    # Not `ru_maxrss`: that begins with what the parent had, whose copy this was before it became another program.
    most = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert most is not None
    return int(most[1]) * 1024
