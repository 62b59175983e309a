"""Answers on their way to whoever waits for them: functions of the app's own, and webhooks."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from tierline.batches.queue.kept import deferred_of
from tierline.batches.queue.values import Deferred
from tierline.batches.webhooks import Sent, Webhook
from tierline.budgets import is_key
from tierline.errors import ConfigurationError
from tierline.values import NANO

if TYPE_CHECKING:
    from tierline.batches.queue.store import Item, QueueStore
    from tierline.batches.queue.values import Delivery
    from tierline.router import Router

log: Final = logging.getLogger("tierline")

Callback: TypeAlias = Callable[[Deferred], Awaitable[object]]
Target: TypeAlias = Callback | Webhook

SCHEDULE: Final = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
"""Seconds between tries to deliver, ten in all over three days: the example of Standard Webhooks."""
_LONGEST: Final = 600.0
"""Seconds that a function of the app's may take."""
_MOST_ASKED: Final = 86_400.0
"""Seconds that a receiver may ask us to wait."""


def check_target(name: object, target: object) -> None:
    """ConfigurationError for what answers cannot be delivered to."""
    if not is_key(name):
        raise ConfigurationError(f"deliver_to: a name is text of 1 to 200 printable characters, got {name!r:.80}")
    called = iscoroutinefunction(target) or iscoroutinefunction(getattr(target, "__call__", None))  # noqa: B004
    if not isinstance(target, Webhook) and not called:
        raise ConfigurationError(
            f"deliver_to({name!r:.80}): write an async function that takes a Deferred, or a Webhook(url, secret), "
            f"not {type(target).__name__}"
        )


class Deliveries:
    """Delivers answers, each until it was taken once, or the last try has failed."""

    def __init__(self, router: Router[Any], store: QueueStore, owner: str) -> None:
        self._router, self._store, self._owner = router, store, owner

    async def deliver(self, item: Item, target: Target) -> None:
        """Try it once, and write down how that went."""
        if isinstance(target, Webhook):
            sent = await target.send(f"msg_{item.handle}", message_of(item), self._router.timing.now())
        else:
            sent = await _told(target, deferred_of(item))
        delivery, due, tries = self._after(item, sent)
        await self._store.deliver(item.handle, self._owner, delivery, due, tries)

    def _after(self, item: Item, sent: Sent) -> tuple[Delivery, float, int]:
        tries = item.tries + 1
        now = self._router.timing.now()
        if sent.good:
            return "delivered", now, tries
        if sent.gone or tries > len(SCHEDULE):
            log.error(
                "an answer cannot be delivered to %s (%s): it is kept, and found by its handle", item.target, sent.said
            )
            return "failed", now, tries
        wait = SCHEDULE[tries - 1] * (1 + self._router.timing.jitter() / 10)
        wait = max(wait, min(sent.wait or 0.0, _MOST_ASKED))
        log.warning("an answer is not delivered to %s yet (%s); again in %.0f s", item.target, sent.said, wait)
        return "waiting", now + wait, tries


async def _told(function: Callback, answer: Deferred) -> Sent:
    try:
        async with asyncio.timeout(_LONGEST):
            await function(answer)
    except Exception as error:  # noqa: BLE001  (the app's own; what it says may have an answer in it)
        return Sent(good=False, said=type(error).__name__)
    return Sent(good=True, said="")


def message_of(item: Item) -> bytes:
    """The body of a webhook: always the same for the same answer."""
    found = deferred_of(item).result
    assert found is not None  # noqa: S101  (what is delivered has been answered)
    data = {
        "handle": item.handle,
        "custom_id": item.name,
        "outcome": found.outcome,
        "error": found.error,
        "tier": found.tier,
        "model": found.model,
        "cost_usd": found.cost / NANO,
        "estimated": found.estimated,
        "message": json.loads(found.raw) if found.raw is not None else None,
    }
    when = datetime.fromtimestamp(item.answered, UTC).isoformat().replace("+00:00", "Z")
    return json.dumps({"type": "deferred.answered", "timestamp": when, "data": data}, separators=(",", ":")).encode()
