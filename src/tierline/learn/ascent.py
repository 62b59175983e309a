"""Logistic regression that is learned one outcome at a time, and forgets each of them exactly.

The log-odds that a tier is good enough for a request are

    start + everywhere[tier] + route[tier] + shape[tier] · (numbers of the text) + mean of words[tier] over the text

where `start` is the prior, and each of the others is drawn around 0, with the variances below: so whatever has little
evidence stays where the one before it is. What is looked for is the most probable value of all of them together. In its
dual, each outcome has one number, its pull: how far it drew the weights. They are the sum of all pulls, so an outcome
is taken out by taking its pull back, and the order in which outcomes came does not matter to where it ends (the problem
is strictly concave). One step solves for the pull of one outcome, with the others as they are (dual coordinate ascent,
Yu, Huang and Lin 2011, https://doi.org/10.1007/s10994-010-5221-8); seven to ten rounds of them converge.
"""

from __future__ import annotations

from math import exp, sqrt
from operator import mul
from typing import TYPE_CHECKING, Final

from tierline.features import WIDTH
from tierline.learn.sketch import BUCKETS, STEP

if TYPE_CHECKING:
    from tierline.learn.sketch import Sketch

EVERYWHERE: Final = 0.25
ROUTE: Final = 1.0
SHAPE: Final = 0.1
WORDS: Final = 1.0
"""Variances, in squared log-odds, chosen by cross-validation on benchmarks (`python -m benchmarks.quality.routes`)."""
SHARED: Final = 0.8
"""How far the tiers of a route move together, from 0 to 1: where one is poor, the others are poorer too."""

_SHAPE: Final = SHAPE * STEP * STEP
_STILL: Final = 1e-3
"""Log-odds by which no outcome is worth to be moved."""
_ROUNDS: Final = 30
_CLOSE: Final = 1e-6
_FAR: Final = 700.0
"""Log-odds below which exp() overflows."""
_LIMIT: Final = 12.0
"""Log-odds beyond which nothing is believed: probabilities stay inside (0, 1)."""


def chance(log_odds: float) -> float:
    """The probability, above 0 and below 1."""
    return 1 / (1 + exp(-min(max(log_odds, -_LIMIT), _LIMIT)))


class Lesson:
    """One outcome while it is remembered."""

    __slots__ = ("at", "good", "norm", "place", "pull", "route", "sketch", "start", "tier", "weight")

    def __init__(
        self,
        route: str,
        tier: int,
        good: float,
        *,
        weight: float,
        at: float,
        sketch: Sketch,
        start: float,
    ) -> None:
        self.route, self.tier, self.good, self.weight, self.at = route, tier, good, weight, at
        self.sketch, self.start = sketch, start
        """The start is what the prior says, in log-odds."""
        length = sum(map(mul, sketch.shape, sketch.shape))
        self.norm = EVERYWHERE + ROUTE + _SHAPE * length + (WORDS if sketch.buckets else 0.0)
        """The variance of its log-odds, before anything was learned."""
        self.pull = 0.0
        self.place = -1
        """Where it stands in the memory."""

    def __lt__(self, other: Lesson) -> bool:
        return self.at < other.at


class Weights:
    """The weights of all tiers. Not safe from several threads, but for `log_odds`."""

    def __init__(self, tiers: int) -> None:
        self._tiers = range(tiers)
        self._everywhere = [0.0] * tiers
        self._routes: dict[str, list[float]] = {}
        self._shapes = [[0.0] * WIDTH for _ in self._tiers]
        self._words = [[0.0] * BUCKETS for _ in self._tiers]

    def log_odds(self, route: str, sketch: Sketch) -> list[float]:
        """What was learned, for each tier: to be added to the prior."""
        known = self._routes.get(route)
        return [self._text(tier, sketch) + (known[tier] if known is not None else 0.0) for tier in self._tiers]

    def visit(self, lesson: Lesson, weight: float) -> float:
        """Solve for the pull of one outcome, that counts as `weight` now. Returns how much its log-odds moved."""
        tier, pull, norm = lesson.tier, lesson.pull, lesson.norm
        rest = lesson.start + self._text(tier, lesson.sketch) + self._route(lesson.route)[tier] - pull * norm
        new = _solve(pull, rest, norm, lesson.good, weight)
        moved: float = abs(new - pull) * norm
        if moved > _STILL:
            self._move(lesson, new - pull)
            lesson.pull = new
        return moved

    def forget(self, lesson: Lesson) -> None:
        """Take an outcome out, as if it had not been."""
        if lesson.pull:
            self._move(lesson, -lesson.pull)
            lesson.pull = 0.0

    def drop(self, route: str) -> None:
        """Let go of a route of which no outcome is left."""
        self._routes.pop(route, None)

    def _route(self, route: str) -> list[float]:
        found = self._routes.get(route)
        if found is None:
            found = self._routes[route] = [0.0] * len(self._tiers)
        return found

    def _text(self, tier: int, sketch: Sketch) -> float:
        buckets = sketch.buckets
        value: float = self._everywhere[tier] + sum(map(mul, self._shapes[tier], sketch.shape))
        if buckets:
            value += sum(map(self._words[tier].__getitem__, buckets)) / sqrt(len(buckets))
        return value

    def _move(self, lesson: Lesson, by: float) -> None:
        shape, buckets, _ = lesson.sketch
        own, route = lesson.tier, self._route(lesson.route)
        for tier in self._tiers:
            share = by if tier == own else by * SHARED
            self._everywhere[tier] += share * EVERYWHERE
            route[tier] += share * ROUTE
        step = by * _SHAPE
        self._shapes[own] = [old + step * number for old, number in zip(self._shapes[own], shape, strict=True)]
        if buckets:
            words, step = self._words[own], by * WORDS / sqrt(len(buckets))
            for bucket in buckets:
                words[bucket] += step


def _solve(pull: float, rest: float, norm: float, good: float, weight: float) -> float:
    """The pull at which an outcome is in balance: weight * (good - chance). Newton's method, held in its bounds."""
    low, high = weight * (good - 1), weight * good
    pull = min(max(pull, low), high)
    for _ in range(_ROUNDS):
        odds = rest + pull * norm
        expected = 1 / (1 + exp(-odds)) if odds > -_FAR else 0.0
        off = pull - weight * (good - expected)
        if off > 0:
            high = pull
        else:
            low = pull
        step = off / (1 + weight * norm * expected * (1 - expected))
        if abs(step) <= _CLOSE:
            return pull - step
        pull -= step
        if not low < pull < high:
            pull = (low + high) / 2
    return pull
