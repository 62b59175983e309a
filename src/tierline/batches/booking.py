"""What became of requests of batches, told to all who count: the report, the traffic, the metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tierline.batches.holding import reservation_of
from tierline.batches.jobs import FINAL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tierline.batches.jobs import Ended, Held, Item
    from tierline.ledger.base import Reservation
    from tierline.router import Router


class Booking:
    """Counts each request once: in the process that has taken in its result."""

    def __init__(self, router: Router[Any]) -> None:
        self._router = router

    def ended(self, found: Sequence[Ended], holds: Mapping[int, Reservation]) -> None:
        """Results have been taken in. `holds` has the hold of each place; those that are to be tried again are left."""
        for each in found:
            if each.state == FINAL and (held := holds.get(each.place)) is not None:
                self._one(held, each)

    def unsent(self, items: Sequence[Item]) -> None:
        """Requests have been taken that are not sent: refused, or none at all."""
        for item in items:
            if item.state == FINAL:
                self._router.tally.batched("", item.outcome)
                self._router.metrics.batched("", item.outcome)

    def settled(self, held: Reservation, cost: int) -> None:
        """A hold was replaced by what its requests came to (nano-USD)."""
        self._router.metrics.charged(held, cost)

    def _one(self, held: Reservation, each: Ended) -> None:
        router, tier = self._router, held.offer.tier
        router.tally.batched(tier, each.outcome, each.cost, each.plain, each.top)
        router.metrics.batched(tier, each.outcome, each.cost, each.top, held.origin.route)
        if router.meter is not None:
            router.meter.batched(held, each.top - each.cost)


def holds_of(held: Sequence[Held]) -> dict[str, Reservation]:
    """Holds by their ids in the job."""
    return {each.id: reservation_of(each)[0] for each in held}
