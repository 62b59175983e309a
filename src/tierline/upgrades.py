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
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

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
_PLACES: Final = tuple(bytes((place,)) for place in range(256))


class _Account:
    """Calls of one account on one route."""

    __slots__ = ("before", "places", "recent", "weight")

    def __init__(self, tiers: int) -> None:
        self.weight = [0.0] * tiers
        """What it has in the counts of its route."""
        self.places = [0] * tiers
        """All but the last ones, by the place on the ladder."""
        self.before = 0
        """How many those are."""
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
        self._accounts: OrderedDict[tuple[str | None, str | None], _Account] = OrderedDict()
        self._routes: OrderedDict[str | None, list[float]] = OrderedDict()
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
            own = account.before
            share = (_PRIOR * _above(places, usual) + own * _above(account.places, usual)) / (_PRIOR + own)
            return usual if upgrades > (share + self._most) * WINDOW else None

    def count(self, route: str | None, tenant: str | None, place: int) -> None:
        """A classification sent a call to `place`."""
        if self._most >= 1:
            return
        key = (route, tenant)
        with self._lock:
            account = self._accounts.get(key)
            if account is None:
                account = self._accounts[key] = _Account(self._tiers)
                if len(self._accounts) > _MOST_ACCOUNTS:
                    self._accounts.popitem(last=False)
            else:
                self._accounts.move_to_end(key)
            places = self._routes.get(route)
            if places is None:
                places = self._routes[route] = [0.0] * self._tiers
                if len(self._routes) > _MOST_ROUTES:
                    self._routes.popitem(last=False)
            else:
                self._routes.move_to_end(route)
            recent = account.recent
            if len(recent) == WINDOW:
                account.places[recent[0]] += 1
                account.before += 1
                recent = recent[1:]
            account.recent = recent + _PLACES[place]
            # An account has the less weight the more it has called: no single one makes what is usual for all.
            weight = WINDOW / (WINDOW + account.before)
            account.weight[place] += weight
            places[place] += weight


def _above(places: Sequence[float], usual: int) -> float:
    """The share that is above a place."""
    whole = sum(places)
    return sum(places[usual + 1 :]) / whole if whole else 0.0
