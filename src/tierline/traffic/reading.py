"""What is asked of traffic: sums of a span as people see them, and the latest decisions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from tierline.errors import ConfigurationError
from tierline.report import OTHER
from tierline.traffic.base import Counts, Traffic, total_of
from tierline.traffic.meter import Meter
from tierline.traffic.store import DAY, KEPT, MOST_DECISIONS, WEEK, Place, span_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tierline.traffic.base import BreakerStanding
    from tierline.traffic.store import Kind, Ranking, TrafficStore

MOST: Final = 50
"""Names of each kind that are told, unless more are asked for."""
_MOST_NAMED: Final = 1_000


class Reading:
    """Answers from a store. `tiers` is the ladder; `meter` is what this process has not written yet, if it records."""

    def __init__(self, store: TrafficStore, tiers: Sequence[str], now: Callable[[], float]) -> None:
        self.store = store
        self.meter: Meter | None = None
        self._tiers, self._now = tiers, now

    def record(self, away: Callable[[], bool], breakers: Callable[[str], tuple[BreakerStanding, ...]]) -> Meter:
        """Begin to write, too: see `Meter`."""
        self.meter = Meter(self.store, now=self._now, away=away, breakers=breakers)
        return self.meter

    async def traffic(self, since: float, until: float, most: int) -> Traffic:
        """See `Router.traffic`; moments are in seconds since the epoch."""
        if isinstance(most, bool) or not isinstance(most, int) or not 0 <= most <= _MOST_NAMED:
            raise ConfigurationError(f"traffic(most={most!r:.40}): write a whole number from 0 to {_MOST_NAMED}")
        await self._flush()
        now = self._now()
        # Of what is older, or to come, no store has anything; and each hour is a question to it.
        since, until = (min(max(at, now - KEPT - WEEK), now + DAY) for at in (since, until))
        span = span_of(since, until, now, named=most > 0)
        found = await self.store.read(span, most)
        by_tier: dict[str, Counts] = {}
        for _, tiers in found.hours:
            for name, counts in tiers.items():
                by_tier[name] = by_tier.get(name, Counts()).plus(counts)
        return Traffic(
            since=float(span.since),
            until=min(float(span.until), max(now, until)),
            total=total_of(by_tier.values()),
            hours=tuple((float(hour), self._ordered(tiers)) for hour, tiers in found.hours),
            by_tier=self._ordered(by_tier),
            by_route=_told(found.ranked, "route"),
            by_account=_told(found.ranked, "account"),
            by_job=_told(found.ranked, "job"),
            accounts=found.ranked["account"].number if most else 0,
            breakers=tuple(found.breakers),
            workers=tuple(found.workers),
        )

    async def decisions(self, most: int, before: float | tuple[float, str] | None) -> tuple[dict[str, Any], ...]:
        """See `Router.decisions`."""
        if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= MOST_DECISIONS:
            raise ConfigurationError(f"decisions({most!r:.40}): write a whole number from 1 to {MOST_DECISIONS}")
        await self._flush()
        place = None if before is None else Place(*before) if isinstance(before, tuple) else Place(before)
        return tuple(json.loads(text) for text in await self.store.decisions(most, place))

    async def decision(self, id: str) -> dict[str, Any] | None:  # noqa: A002  (the field's name)
        """See `Router.decision`."""
        await self._flush()
        text = await self.store.decision(id)
        return None if text is None else json.loads(text)

    async def erase(self, account: str) -> None:
        """Drop what is kept of an account. LedgerUnavailableError where the store is away."""
        await self._flush()
        await self.store.forget(account)

    async def _flush(self) -> None:
        if self.meter is not None:
            await self.meter.flush()

    def _ordered(self, tiers: Mapping[str, Counts]) -> dict[str, Counts]:
        """Tiers of the ladder, cheapest first, then others by name."""
        known = [name for name in self._tiers if name in tiers]
        return {name: tiers[name] for name in (*known, *sorted(tiers.keys() - set(known)))}


def _told(ranked: Mapping[Kind, Ranking], kind: Kind) -> dict[str, Counts]:
    """The dearest names, and the rest together."""
    found = ranked.get(kind)
    if found is None:
        return {}
    names = dict(found.names)
    rest = found.total.minus(total_of(names.values()))
    if rest:
        names[OTHER] = rest
    return names
