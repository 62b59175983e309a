"""How much of what one account says is believed: on no route more than of all others together.

Accounts are those of whoever grades, such as tenants: one that gives grades by the thousand, in error or to do harm,
must not outweigh the rest. What the app itself says is not bounded.
"""

from __future__ import annotations

import threading
from math import exp2
from typing import TYPE_CHECKING, Final, NamedTuple

from cachetools import LRUCache

if TYPE_CHECKING:
    from tierline.learn.outcomes import Evidence

FREE: Final = 10.0
"""Outcomes that one account may weigh on a route and a tier where others have said less: an app with one tenant learns,
too."""
LEAST: Final = 0.01
"""What weighs less than this is not worth being kept."""
_MOST: Final = 50_000
"""Accounts on a route and a tier that are remembered."""


class _Weight(NamedTuple):
    amount: float
    at: float

    def left(self, now: float, half_life: float) -> float:
        """What has not faded by a moment."""
        return self.amount * exp2(-max(0.0, now - self.at) / half_life)


_NOTHING: Final = _Weight(0.0, 0.0)


class Shares:
    """What has counted so far, by route, tier and account. It fades with `half_life` (seconds), as evidence does.

    All who fold the same evidence in the same order count the same. Safe from any thread.
    """

    def __init__(self, half_life: float) -> None:
        self._half_life = half_life
        self._lock = threading.Lock()
        self._all: LRUCache[tuple[str, str], _Weight] = LRUCache(_MOST)
        self._each: LRUCache[tuple[str, str, str], _Weight] = LRUCache(_MOST)

    def counted(self, evidence: Evidence) -> Evidence | None:
        """The evidence with the weight that it has here; None where its account has said enough."""
        with self._lock:
            total, mine, now = self._weights(evidence.route, evidence.tier, evidence.account, evidence.at)
            if evidence.account:
                weight = min(evidence.weight, max(total - mine, FREE) - mine)
                if weight < LEAST:
                    return None
                self._each[evidence.route, evidence.tier, evidence.account] = _Weight(mine + weight, now)
                evidence = evidence._replace(weight=weight)
            self._all[evidence.route, evidence.tier] = _Weight(total + evidence.weight, now)
            return evidence

    def enough(self, evidence: Evidence) -> bool:
        """Whether an account has said enough for this to count at all."""
        with self._lock:
            total, mine, _ = self._weights(evidence.route, evidence.tier, evidence.account, evidence.at)
        return max(total - mine, FREE) - mine < LEAST

    def _weights(self, route: str, tier: str, account: str, at: float) -> tuple[float, float, float]:
        """What all have said and what the account has said, as it is left, and when that is."""
        whole = self._all.get((route, tier), _NOTHING)
        now = max(at, whole.at)
        mine = self._each.get((route, tier, account), _NOTHING)
        return whole.left(now, self._half_life), mine.left(now, self._half_life), now
