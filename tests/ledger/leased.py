"""A Redis ledger that is used as a Router uses one that leases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierline.ledger.base import NOWHERE, Origin
from tierline.ledger.redis import RedisLedger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tierline.budgets import Line
    from tierline.ledger import Reservation
    from tierline.values import Offer, Refusal


class Leased(RedisLedger):
    """Reserves out of a slice where there is one, and asks where there is none."""

    async def reserve(
        self, key: str, offers: Sequence[Offer], lines: Sequence[Line], *, thresholds: bool = True,
        origin: Origin = NOWHERE,
    ) -> Reservation | Refusal:  # fmt: skip
        assert self.slices is not None
        held = self.slices.admit(key, offers, lines, thresholds=thresholds, origin=origin)
        if held is not None:
            return held
        return await super().reserve(key, offers, lines, thresholds=thresholds, origin=origin)
