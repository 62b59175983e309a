"""Upgrades: how often a text may talk its way to a dearer tier than is usual on its route.

Whoever writes a prompt has a say in how hard it looks. So what a classification of the text sends above the route's
usual tier is counted, for each account of a route: its share of the last `WINDOW` calls may exceed its share of all
calls before by so much and no more. Where it would, the usual tier is taken. Only calls that a classification chose for
are counted, as they were let through. So an account that keeps asking for more gets more slowly: from nothing to 20% of
its calls at once, to 40% in some 400, to 60% in 1,500. Nothing here does I/O, and no clock is read. All of it
belongs to one process.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from cachetools import LRUCache

from tierline.errors import ConfigurationError
from tierline.numeric import is_number

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_UPGRADES: Final = 0.2
WINDOW: Final = 50
"""Calls that are recent. Before a route has had so many, nothing is usual there."""
_PRIOR: Final = 4 * WINDOW
"""Calls of an account that its route stands in for: before it has made some, and the less, the more it has."""
_MOST_ACCOUNTS: Final = 10_000
_MOST_ROUTES: Final = 1_000


class _Account:
    """Calls of one account on one route."""

    __slots__ = ("places", "recent", "weight")

    def __init__(self, tiers: int) -> None:
        self.weight = [0.0] * tiers
        """What it has in the counts of its route."""
        self.places = [0] * tiers
        """All but the last ones, by the place on the ladder."""
        self.recent = b""
        """The places of the last ones."""


class Upgrades:
    """What classifications have sent where. Safe from any thread.

    `tiers` is how many the ladder has, `most` how much of its calls (0 to 1) an account may have upgraded beyond its
    own share of all times. A new account has the share of its route. Bounded: of 10,000 accounts and 1,000 routes
    those that called last are known. Raises ConfigurationError for a `most` that is no share.
    """

    def __init__(self, tiers: int, most: float = MOST_UPGRADES) -> None:
        if not is_number(most, 0, 1):
            raise ConfigurationError(f"Router(max_upgrades={most!r:.60}): write a share from 0 to 1; 1 is no bound")
        self._tiers, self._most = tiers, most
        self._accounts: LRUCache[tuple[str | None, str | None], _Account] = LRUCache(_MOST_ACCOUNTS)
        self._routes: LRUCache[str | None, list[float]] = LRUCache(_MOST_ROUTES)
        self._nobody = _Account(tiers)
        self._lock = threading.Lock()

    def usual(self, route: str | None, tenant: str | None) -> int | None:
        """The route's usual place, where this account may not go above it now; None where it may."""
        if self._most >= 1:
            return None
        with self._lock:
            places = self._routes.get(route)
            if places is None or sum(places) < WINDOW:
                return None
            usual = places.index(max(places))
            account = self._accounts.get((route, tenant)) or self._nobody
            # Of the call that is to come, and the last ones before it.
            recent = account.recent[-WINDOW + 1 :]
            upgrades = 1 + len(recent) - sum(map(recent.count, range(usual + 1)))
            if upgrades <= self._most * WINDOW:
                return None  # whatever its share is
            others = [whole - mine for whole, mine in zip(places, account.weight, strict=True)]
            if sum(others) >= WINDOW:
                places = others  # what it did itself is no excuse for doing more
            own = sum(account.places)
            share = (_PRIOR * _above(places, usual) + own * _above(account.places, usual)) / (_PRIOR + own)
            return usual if upgrades > (share + self._most) * WINDOW else None

    def count(self, route: str | None, tenant: str | None, place: int) -> None:
        """A classification sent a call to `place`."""
        if self._most >= 1:
            return
        with self._lock:
            account = self._accounts.get((route, tenant))
            if account is None:
                account = self._accounts[route, tenant] = _Account(self._tiers)
            places = self._routes.get(route)
            if places is None:
                places = self._routes[route] = [0.0] * self._tiers
            if len(account.recent) == WINDOW:
                account.places[account.recent[0]] += 1
            account.recent = (account.recent + bytes((place,)))[-WINDOW:]
            # An account has the less weight the more it has called: no single one makes what is usual for all.
            weight = WINDOW / (WINDOW + sum(account.places))
            account.weight[place] += weight
            places[place] += weight


def _above(places: Sequence[float], usual: int) -> float:
    """The share that is above a place."""
    whole = sum(places)
    return sum(places[usual + 1 :]) / whole if whole else 0.0
