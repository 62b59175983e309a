"""A process that defers requests and sees them answered and delivered, or kills itself in the midst of a step."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anthropic import AsyncAnthropic

from tests.batches.worker import BUDGETS, Doomed
from tests.batches.world import LADDER, params
from tests.processes.stores import ledger_of
from tierline import Router
from tierline.batches import BatchRequest, Queue
from tierline.batches.lane import Batches
from tierline.classify import FixedClassifier

if TYPE_CHECKING:
    from tierline.batches import Deferred

TENANT = "acme"


async def main(url: str, store: str, lease: float, number: int, within: str, die_at: str, told: str) -> None:
    ledger: Any = ledger_of(store, lease)
    client = AsyncAnthropic(api_key="sk-ant-fake-0000", base_url=url, max_retries=0)
    router = Router(client, ladder=LADDER, ledger=ledger, budgets=BUDGETS, classifier=FixedClassifier("simple"))
    queue = Queue(max_wait="0.2s")
    router.batches = batches = Batches(router, lambda: router._clients[0].plain(router), queue=queue, unsure=0.2)

    async def mail(found: Deferred) -> None:
        with Path(told).open("a", encoding="utf-8") as file:  # noqa: ASYNC230  (a line in a test)
            file.write(f"{found.handle}\n")

    batches.deliver_to("mail", mail)
    deferring = batches._deferring
    armed = False
    store_of: Any = Doomed(deferring._store, lambda name, _: armed and name == die_at)
    deferring._store = store_of
    for n in range(number):
        await batches.defer(BatchRequest(f"r{n}", params(f"say {n}"), tenant=TENANT), within=within, to="mail")
    armed = True
    deferring.keeper().wake()
    while await store_of.next(["mail"]) is not None:  # noqa: ASYNC110  (another process may end what is left)
        await asyncio.sleep(0.05)
    await router.aclose()
    await ledger.aclose()


def run(url: str, store: str, lease: float, number: int, within: str, die_at: str, told: str) -> None:
    """Do it, in a process of its own."""
    asyncio.run(main(url, store, lease, number, within, die_at, told))
