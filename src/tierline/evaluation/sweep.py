"""Two tiers, and a router that says which requests need the better one: quality against cost.

After RouteLLM (Ong et al. 2024, https://arxiv.org/abs/2406.18665): the share of requests that goes to the strong tier
is swept from none to all, the neediest first, and the quality that is recovered is looked at.
"""

from __future__ import annotations

from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from tierline.errors import ConfigurationError
from tierline.evaluation.intervals import check_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

CHANCE: Final = 0.5
"""The APGR of one who cannot tell requests apart."""


class Point(NamedTuple):
    """One setting of a router: what share goes to the strong tier, and the mean quality and cost of a request then.

    `cost` is in the unit of the costs that were given.
    """

    share: float
    quality: float
    cost: float


class _Row(NamedTuple):
    place: int
    weak: float
    gain: float
    weak_cost: float
    dearer: float
    last: bool
    """Whether it is the last of those of equal need."""


class Sweep:
    """Requests in the order in which a router sends them to the strong tier, sorted once.

    - `needs`: how much each request needs the strong tier: any numbers, only their order counts
    - `weak`, `strong`: how good each tier's answer was, from 0 to 1
    - `weak_cost`, `strong_cost`: what each tier's answer cost, in any unit of money (nano-USD); without them, 0 and 1

    Requests of equal need are sent in random order, and everything below is the mean over those orders. So a router
    that cannot tell requests apart is exactly as good as chance, and the order of the rows does not matter.
    Every method takes `weights`: how often each row counts.

    Raises ConfigurationError for no rows, for lengths that differ, and for values that cannot be.
    """

    def __init__(
        self,
        needs: Sequence[float],
        weak: Sequence[float],
        strong: Sequence[float],
        weak_cost: Sequence[float] | None = None,
        strong_cost: Sequence[float] | None = None,
    ) -> None:
        rows = self.rows = len(needs)
        if not rows:
            raise ConfigurationError("there are no rows to measure: give at least one")
        if (weak_cost is None) != (strong_cost is None):
            raise ConfigurationError("the costs of the weak and the strong tier belong together; give both or neither")
        cheap, dear = weak_cost or [0.0] * rows, strong_cost or [1.0] * rows
        check_numbers("needs", rows, needs)
        for name, numbers, most in (
            ("weak", weak, 1.0),
            ("strong", strong, 1.0),
            ("weak_cost", cheap, inf),
            ("strong_cost", dear, inf),
        ):
            check_numbers(name, rows, numbers, least=0.0, most=most)
        order = sorted(range(rows), key=needs.__getitem__, reverse=True)
        ends = [needs[row] != needs[after] for row, after in pairwise(order)]
        self._order = [
            _Row(row, weak[row], strong[row] - weak[row], cheap[row], dear[row] - cheap[row], last)
            for row, last in zip(order, [*ends, True], strict=True)
        ]

    def curve(self, weights: Sequence[float] | None = None) -> list[Point]:
        """Every setting that the router tells apart, from none to the strong tier to all; in between it is straight."""
        total = quality = cost = 0.0
        rows = better = dearer = 0.0
        steps: list[tuple[float, float, float]] = []
        for place, weak, gain, weak_cost, more, last in self._order:
            weight = 1.0 if weights is None else weights[place]
            if weight:
                rows += weight
                better += weight * gain
                dearer += weight * more
                quality += weight * weak
                cost += weight * weak_cost
            if last and rows:
                steps.append((rows, better, dearer))
                total += rows
                rows = better = dearer = 0.0
        if not total:
            raise ConfigurationError("no row has a weight: there is nothing to measure")
        points = [Point(0.0, quality / total, cost / total)]
        sent = 0.0
        for rows, better, dearer in steps:
            sent, quality, cost = sent + rows, quality + better, cost + dearer
            points.append(Point(sent / total, quality / total, cost / total))
        return points

    def apgr(self, weights: Sequence[float] | None = None) -> float:
        """The average share of the performance gap that is recovered: the area under the curve (RouteLLM, section 4).

        0 is the weak tier's quality and 1 the strong one's, averaged over all shares from 0 to 1. Chance gives 0.5;
        1 can be exceeded, where the weak tier is sometimes the better one. ConfigurationError where the strong tier is
        no better on the whole: then there is no gap.
        """
        points = self.curve(weights)
        bottom, top = points[0].quality, points[-1].quality
        if top - bottom <= 1e-12:  # noqa: PLR2004  (what is left of equal sums)
            raise ConfigurationError(
                f"the strong tier is no better than the weak one here ({top:.3f} against {bottom:.3f}): there is no "
                "gap to recover, take the weak one"
            )
        area = sum(
            (right.share - left.share) * (left.quality + right.quality - 2 * bottom) for left, right in pairwise(points)
        )
        return area / (2 * (top - bottom))

    def cost_at(self, weights: Sequence[float] | None = None, *, share: float = 0.95) -> float:
        """The cost of `share` (0 to 1) of the strong tier's quality, over that of sending all there: 1 saves nothing.

        The cheapest setting that reaches it, the weak tier alone included. ConfigurationError where the strong tier
        costs nothing.
        """
        if not 0 <= share <= 1:
            raise ConfigurationError(f"cost_at(share={share!r}): write a share from 0 to 1")
        points = self.curve(weights)
        all_strong = points[-1]
        if all_strong.cost <= 0:
            raise ConfigurationError("the strong tier costs nothing here: there is nothing to save")
        return _cheapest(points, share * all_strong.quality) / all_strong.cost


def _cheapest(points: Sequence[Point], target: float) -> float:
    """The least cost on the curve at which the target is reached. Its end may fall below it by a rounding error."""
    target -= 1e-12
    least = min((point.cost for point in points if point.quality >= target), default=points[-1].cost)
    for left, right in pairwise(points):
        if (left.quality >= target) != (right.quality >= target):
            part = (target - left.quality) / (right.quality - left.quality)
            least = min(least, left.cost + part * (right.cost - left.cost))
    return least


def apgr(needs: Sequence[float], weak: Sequence[float], strong: Sequence[float]) -> float:
    """The average performance gap recovered, 0.5 for chance: see `Sweep.apgr`.

    `needs` ranks the requests, `weak` and `strong` (0 to 1) are how good the two tiers' answers were.
    """
    return Sweep(needs, weak, strong).apgr()


def cost_at(
    needs: Sequence[float],
    weak: Sequence[float],
    strong: Sequence[float],
    weak_cost: Sequence[float],
    strong_cost: Sequence[float],
    *,
    share: float = 0.95,
) -> float:
    """What `share` of the strong tier's quality costs, over all on the strong tier: see `Sweep.cost_at`."""
    return Sweep(needs, weak, strong, weak_cost, strong_cost).cost_at(share=share)


def curve(
    needs: Sequence[float],
    weak: Sequence[float],
    strong: Sequence[float],
    weak_cost: Sequence[float],
    strong_cost: Sequence[float],
) -> list[Point]:
    """Quality and cost (of a request, in the unit given) for every share that goes to the strong tier."""
    return Sweep(needs, weak, strong, weak_cost, strong_cost).curve()
