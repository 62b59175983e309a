"""What an operator is told: in the log at start-up, and when a probe asks whether calls can be served."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from tierline.classify import steering
from tierline.classify.base import Preparing
from tierline.errors import LedgerUnavailableError
from tierline.models import notice_of
from tierline.report import Readiness

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tierline.clients import Slot
    from tierline.router import Router

log: Final = logging.getLogger("tierline")


def announce(router: Router[Any], clients: Sequence[Slot]) -> None:
    """Say how the Router is set up, and what about that will not do."""
    log.log(
        logging.INFO if router.mode == "enforce" else logging.WARNING,
        "mode %s; tiers: %s; budgets: %s",
        router.mode,
        ", ".join(f"{tier.name} ({tier.model})" for tier in router.ladder),
        ", ".join(budget.name for budget in router.budgets) or "none",
    )
    brought = [slot for slot in clients if slot.brought]
    if any(slot.keyless(router) for slot in brought or clients[:1]):
        log.warning("the Router's client has no API key: set ANTHROPIC_API_KEY, or give the Router a client")
    today = datetime.fromtimestamp(router.timing.now(), UTC).date()
    for tier in router.ladder:
        if notice := notice_of(tier.model, today):
            log.warning("tier %s: %s", tier.name, notice)
        if router.prices.rates(tier.model) is None:
            log.warning(
                "tier %s: model %s has no price; hard budgets will refuse it. Give one: "
                "PriceBook({%r: Rates(…)})", tier.name, tier.model, tier.model,
            )  # fmt: skip


async def prepare(router: Router[Any]) -> None:
    """Let the classifier, and the model of what routes teach, read what they need: no call is to wait for that."""
    for each in (router.classifier, router.learning.model):
        if isinstance(each, Preparing):
            await asyncio.to_thread(each.prepare)
    await asyncio.to_thread(steering.prepare)


async def readiness(router: Router[Any], clients: Sequence[Slot], timeout: float, *, closing: bool) -> Readiness:
    """Why calls cannot be served now, if they cannot."""
    problems = ["shutting down"] if closing else []
    if router.mode == "enforce":
        try:
            await asyncio.wait_for(router.ledger.ping(), timeout)
        except TimeoutError:
            problems.append(f"the ledger did not answer within {timeout:g} s")
        except LedgerUnavailableError as error:
            problems.append(f"the ledger cannot be asked: {error}")
    if any(slot.brought and slot.keyless(router) for slot in clients):
        problems.append("the Router's client has no API key")
    # A 403 may be about one model: out of service, no call would come that could succeed with another.
    # Nor does a key of somebody's own, on a copy of the client, speak for all.
    problems += dict.fromkeys(
        why
        for client, why in tuple(router.rejected.items())
        if " 401 " in why and any(slot.is_of(client) for slot in clients)
    )
    return Readiness(tuple(problems))
