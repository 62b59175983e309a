"""What came of ways, as figures with 95% bootstrap intervals over prompts."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks.quality.scores import RESAMPLES
from tierline.evaluation.intervals import Interval, bootstrap
from tierline.evaluation.sweep import Sweep
from tierline.prices import PriceBook
from tierline.values import NANO, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.quality.ways import Done
    from benchmarks.quality.world import Task

ENOUGH: Final = 0.95
"""The share of the top tier's good answers from which on a way is said to keep its quality."""


def ratio(top: Sequence[float], bottom: Sequence[float] | None = None) -> Interval:
    """The sum of one thing over that of another; without another, the mean."""
    under = [1.0] * len(top) if bottom is None else bottom

    def of(weights: Sequence[float]) -> float:
        return sum(w * x for w, x in zip(weights, top, strict=True)) / sum(
            w * x for w, x in zip(weights, under, strict=True)
        )

    return bootstrap(of, len(top), resamples=RESAMPLES)


def percentile(values: Sequence[float], q: float) -> Interval:
    """The value that a share `q` of all reaches at most."""
    order = sorted(range(len(values)), key=values.__getitem__)

    def of(weights: Sequence[float]) -> float:
        left = q * sum(weights)
        for place in order:
            left -= weights[place]
            if left <= 0:
                return values[place]
        return values[order[-1]]

    return bootstrap(of, len(values), resamples=RESAMPLES)


class Figures(NamedTuple):
    """Of one way, beside the top tier on the same calls. Seconds, and shares from 0 to 1.

    `lost` are calls that the top tier answered well and this way did not, `won` the other way round. `vain` and
    `vain_tokens` are answers that were not used, and their tokens, a call. `on` are shares of calls by tier.
    """

    good: Interval
    of_top: Interval
    cost: Interval
    elsewhere: Interval
    lost: Interval
    losses: int
    won: int
    p50: Interval
    p95: Interval
    requests: Interval
    vain: Interval
    vain_tokens: Interval
    on: Mapping[str, Interval]


def figures(done: Sequence[Done], top: Sequence[Done], tiers: Sequence[str]) -> Figures:
    """Of a way's calls, in the order of the top tier's."""
    good, best = [each.good for each in done], [each.good for each in top]
    lost = [max(0.0, there - here) for here, there in zip(good, best, strict=True)]
    seconds = [each.seconds for each in done]
    return Figures(
        good=ratio(good),
        of_top=ratio(good, best),
        cost=ratio([each.cost for each in done], [each.cost for each in top]),
        elsewhere=ratio([each.elsewhere for each in done], [each.elsewhere for each in top]),
        lost=ratio(lost),
        losses=sum(loss > 0 for loss in lost),
        won=sum(here > there for here, there in zip(good, best, strict=True)),
        p50=percentile(seconds, 0.5),
        p95=percentile(seconds, 0.95),
        requests=ratio([each.requests for each in done]),
        vain=ratio([each.vain for each in done]),
        vain_tokens=ratio([each.vain_tokens for each in done]),
        on={tier: ratio([float(each.tier == tier) for each in done]) for tier in tiers},
    )


def enough_on(tasks: Sequence[Task], tier: str, top: str) -> Interval:
    """The share of prompts whose answer from one tier is no worse than the top tier's."""
    return ratio([float(task.answers[tier].good >= task.answers[top].good) for task in tasks])


class Split(NamedTuple):
    """What it comes to when a share of calls goes to the top tier and the others to the cheapest.

    `plain` is the arithmetic by prices alone. `cost` is that of recorded tokens, over all on the top tier, and `chosen`
    and `blind` are the shares of its good answers: where those that need it most are known in hindsight, and where they
    are drawn at random.
    """

    plain: float
    cost: Interval
    chosen: Interval
    blind: Interval


def split(tasks: Sequence[Task], models: Mapping[str, str], share: float) -> Split:
    """Send `share` of the calls to the last of `models`, and the others to the first."""
    (cheap, cheap_model), *_, (dear, dear_model) = models.items()
    prices = PriceBook()

    def cost(model: str, usage: Usage) -> int:
        found = prices.cost(model, usage)
        assert found is not None
        return found

    costs = [
        [cost(model, Usage(known.input_tokens, known.output_tokens)) for known, model in pairs]
        for pairs in (
            [(task.answers[cheap], cheap_model) for task in tasks],
            [(task.answers[dear], dear_model) for task in tasks],
        )
    ]
    weak, strong = [task.answers[cheap].good for task in tasks], [task.answers[dear].good for task in tasks]
    chosen = Sweep([b - a for a, b in zip(weak, strong, strict=True)], weak, strong, *costs)
    blind = Sweep([0.0] * len(tasks), weak, strong, *costs)
    token = Usage(1_000, 200)
    low = cost(cheap_model, token) / cost(dear_model, token)
    return Split(
        (1 - share) * low + share,
        bootstrap(_at(blind, share, "cost"), len(tasks), resamples=RESAMPLES),
        bootstrap(_at(chosen, share, "quality"), len(tasks), resamples=RESAMPLES),
        bootstrap(_at(blind, share, "quality"), len(tasks), resamples=RESAMPLES),
    )


def _at(sweep: Sweep, share: float, what: str) -> Callable[[Sequence[float]], float]:
    """Quality or cost with this share on the top tier, over that with all there."""

    def of(weights: Sequence[float]) -> float:
        points = sweep.curve(weights)
        left, right = next((a, b) for a, b in pairwise(points) if b.share >= share)
        part = (share - left.share) / (right.share - left.share) if right.share > left.share else 0.0
        low, high = getattr(left, what), getattr(right, what)
        whole: float = getattr(points[-1], what)
        return float(low + part * (high - low)) / whole

    return of


def holds(found: Interval, least: float, most: float = 1.0) -> str:
    """Whether a figure is from `least` to `most`, as far as its interval tells."""
    if least <= found.low and found.high <= most:
        return "holds"
    if found.high < least:
        return "does not hold (it is less)"
    if found.low > most:
        return "does not hold (it is more)"
    return "is not shown (its interval has both)"


def keeps(found: Figures) -> bool:
    """Whether a way keeps the top tier's quality, by the figure itself."""
    return found.of_top.value >= ENOUGH


def cost_of(tasks: Sequence[Task], models: Mapping[str, str]) -> float:
    """What it costs, in US dollars, that all of `models` answer all tasks: before somebody grades what they said."""
    prices = PriceBook()
    usages = [
        (model, Usage(task.answers[tier].input_tokens, task.answers[tier].output_tokens))
        for task in tasks
        for tier, model in models.items()
    ]
    return sum(prices.cost(model, usage) or 0 for model, usage in usages) / NANO
