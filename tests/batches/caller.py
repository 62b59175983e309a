"""A process that submits a job to the concurrent lane, and kills itself in the midst of a step of its stores."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from anthropic import AsyncAnthropic

from tests.batches.worker import BUDGETS, JOB, Doomed, dying, given, memory
from tests.batches.world import LADDER
from tests.processes.stores import ledger_of
from tierline import Router
from tierline.batches.lane import Batches
from tierline.classify import FixedClassifier
from tierline.errors import ConfigurationError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


async def main(url: str, store: str, number: int, lease: float, die_at: str) -> None:
    ledger: Any = ledger_of(store, lease)
    client = AsyncAnthropic(api_key="sk-ant-fake-0000", base_url=url, max_retries=0)
    router = Router(client, ladder=LADDER, ledger=ledger, budgets=BUDGETS, classifier=FixedClassifier("simple"))
    router.batches = batches = Batches(router, lambda: router._clients[0].plain(router))
    if die_at:
        batches._store = Doomed(batches._store, dying(die_at))
    while True:
        try:
            await batches.submit(given(number), job=JOB, lane="concurrent")
            break
        except ConfigurationError:  # the one before is not known to be dead yet
            await asyncio.sleep(lease / 5)
    await router.aclose()
    await ledger.aclose()


def run(url: str, store: str, number: int, lease: float, die_at: str) -> None:
    """Do it, in a process of its own."""
    asyncio.run(main(url, store, number, lease, die_at))


def measured(tell: Connection, url: str, store: str, number: int, lease: float) -> None:
    """Do it, and say how many bytes this process had in memory at most."""
    run(url, store, number, lease, "")
    tell.send(memory())
