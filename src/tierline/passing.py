"""Sending a request as the app wrote it, where Tierline is switched off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tierline.retries import wait_before

if TYPE_CHECKING:
    from tierline.attempts import Reply, Timing
    from tierline.upstream import Upstream


async def pass_on(body: dict[str, Any], upstream: Upstream, timing: Timing, number: int = 0) -> Reply:
    """Send a request with nothing but its retries, which the SDK no longer makes: no ledger, no spans, no settling.

    Nor is it held back by a breaker or a budget of retries: what is switched off is off.
    """
    while True:
        reply = await upstream.send(body, number)
        number += 1
        wait = wait_before(reply, number, upstream.retries, timing) if reply.error else None
        if wait is None:
            return reply
        if reply.discard is not None:
            await reply.discard()
        await timing.sleep(wait)
