"""Short words for tests of ledgers: an offer, a hold, and what there is of money."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tierline.ledger import Reservation
from tierline.values import Offer

if TYPE_CHECKING:
    from tierline import Router
    from tierline.budgets import Line
    from tierline.ledger import Ledger


def offer(cost: int | None, tier: str = "haiku") -> Offer:
    """An offer of a tier, by its worst case in nano-USD; None: it has no bound."""
    return Offer(tier, f"claude-{tier}", cost, unbounded="" if cost is not None else "no bound")


async def hold(ledger: Ledger, key: str, cost: int, *lines: Line, **options: Any) -> Reservation:
    """A reservation that is made."""
    found = await ledger.reserve(key, [offer(cost)], lines, **options)
    assert isinstance(found, Reservation), found
    return found


async def money(ledger: Ledger | Router) -> dict[str, tuple[int, int]]:
    """What is spent and held, by budget."""
    return {each.budget: (each.spent, each.held) for each in await ledger.balances()}
