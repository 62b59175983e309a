"""What calls did in a stretch of time, and in the one before it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from tierline.dashboard.written import counts, cut, named
from tierline.traffic.base import Counts

if TYPE_CHECKING:
    from tierline.traffic.base import Traffic

HOUR: Final = 3_600
DAY: Final = 86_400
MOST_HOURS: Final = 2_160
"""So long hours are kept: 90 days."""
_BY_HOUR: Final = 48
"""Up to so many hours a period may begin with any hour. Of longer ones whole days are known."""
_FINE: Final = 8 * 24
"""Up to so many hours a period is shown by the hour, and longer ones by the day."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """The last hours by the clock, up to two days; or the last days (UTC). The one that runs is one of them.

    `since` is when the first began, `until` when the last ends, `step` how long each is that is shown (seconds).
    """

    since: float
    until: float
    step: int

    @classmethod
    def of(cls, hours: int, now: float) -> Stretch:
        """The one that ends now."""
        unit = HOUR if hours <= _BY_HOUR else DAY
        units = -(-hours * HOUR // unit)
        until = now - now % unit + unit
        step = HOUR if units * unit <= _FINE * HOUR else DAY
        return cls(until - units * unit, until, step)

    @property
    def before(self) -> Stretch:
        """As many of them, just before."""
        return replace(self, since=2 * self.since - self.until, until=self.since)

    def moments(self, now: float) -> list[float]:
        """When each begins that has begun by now."""
        steps = int(min(now, self.until - 1) - self.since) // self.step + 1
        return [self.since + number * self.step for number in range(steps)]


@dataclass(frozen=True, slots=True)
class Period:
    """What calls did in a stretch, as the store had it, and the sum of what they did before it."""

    stretch: Stretch
    traffic: Traffic
    before: Counts

    def same(self, other: Period) -> bool:
        """Whether nothing but time has passed."""
        return (self.stretch, self.before, _of_calls(self.traffic)) == (
            other.stretch, other.before, _of_calls(other.traffic)
        )  # fmt: skip

    def written(self) -> dict[str, Any]:
        """As the page is sent it."""
        traffic = self.traffic
        return {
            "since": self.stretch.since,
            "until": traffic.until,
            "step": self.stretch.step,
            "total": counts(traffic.total),
            "before": counts(self.before),
            "hours": self._steps(),
            "by_tier": named(traffic.by_tier),
            "by_route": named(traffic.by_route),
            "by_account": named(traffic.by_account),
            "by_job": named(traffic.by_job),
            "breakers": [
                {
                    "worker": each.worker,
                    "model": cut(each.model),
                    "endpoint": cut(each.endpoint),
                    "state": each.state,
                    "until": each.until,
                }
                for each in traffic.breakers
            ],
            "workers": [{"id": each.id, "started": each.started, "seen": each.seen} for each in traffic.workers],
        }

    def _steps(self) -> list[dict[str, Any]]:
        """One entry for each step, without holes."""
        since, step = self.stretch.since, self.stretch.step
        sums: dict[float, dict[str, Counts]] = {at: {} for at in self.stretch.moments(self.traffic.until)}
        for hour, tiers in self.traffic.hours:
            place = sums.setdefault(hour - (hour - since) % step, {})
            for tier, did in tiers.items():
                place[tier] = place.get(tier, Counts()).plus(did)
        return [{"at": at, "tiers": {tier: counts(did) for tier, did in tiers.items()}} for at, tiers in sums.items()]


def _of_calls(traffic: Traffic) -> tuple[object, ...]:
    """All of it but the clock, and when workers were seen."""
    workers = tuple(worker.id for worker in traffic.workers)
    return (
        traffic.total, traffic.hours, traffic.by_tier, traffic.by_route, traffic.by_account, traffic.by_job,
        traffic.breakers, workers,
    )  # fmt: skip
