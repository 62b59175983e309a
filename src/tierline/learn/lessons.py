"""The outcomes that are remembered: bounded, and each fades with its age."""

from __future__ import annotations

import random
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from tierline.learn.ascent import Weights
from tierline.learn.sketch import BUCKETS

if TYPE_CHECKING:
    from tierline.learn.ascent import Lesson
    from tierline.learn.sketch import Sketch

ROUTES: Final = 1_000
"""Most routes that are remembered."""
_EPOCH: Final = 500
"""Half-lives after which the epoch is moved."""
_KNOWN: Final = 4
"""In so many remembered texts a word stands that is half familiar."""
_STILL: Final = 1e-3
"""Log-odds by which outcomes move in the mean, below which all has been learned."""
_ROUNDS: Final = 30


class _Route:
    """What is remembered of one route."""

    __slots__ = ("evidence", "lessons")

    def __init__(self, tiers: int) -> None:
        self.lessons: list[Lesson] = []
        """A heap: the oldest comes first."""
        self.evidence = [0.0] * tiers
        """How many outcomes of each tier there are, in the measure of the memory's epoch: see `Lessons._grown`."""


class Lessons:
    """At most `most` outcomes, of at most ROUTES routes, and the weights that follow from them.

    - where there is no room, the route of which most is remembered gives up its oldest; a new route takes the place of
      the one with the least evidence
    - an outcome loses half of its weight in every `half_life` seconds

    Times are in seconds since the epoch.
    """

    def __init__(self, tiers: int, *, half_life: float, most: int, now: float) -> None:
        self.weights = Weights(tiers)
        self._tiers, self._half_life, self._most, self._epoch = tiers, half_life, most, now
        self._lessons: list[Lesson] = []
        self._routes: dict[str, _Route] = {}
        self._seen = [0] * BUCKETS
        """In how many remembered texts a bucket is."""
        self._familiar = [0.0] * BUCKETS
        """That, from 0 to 1."""
        self._random = random.Random(0)  # noqa: S311  (repeatable, and no secret)
        self._next = 0
        self._round_began = now
        self.fresh = now
        """When the round of visits began that ended last: all weights are at least as new as that."""

    def __len__(self) -> int:
        return len(self._lessons)

    def add(self, lesson: Lesson, now: float) -> None:
        """Remember an outcome, and visit it."""
        if now - self._epoch > _EPOCH * self._half_life:
            self._move_epoch(now)
        if lesson.route not in self._routes and len(self._routes) >= ROUTES:
            weakest = min(self._routes, key=lambda name: sum(self._routes[name].evidence))
            while weakest in self._routes:
                self._give_up(weakest)
        if len(self._lessons) >= self._most:
            self._give_up(max(self._routes, key=lambda name: len(self._routes[name].lessons)))
        route = self._routes.setdefault(lesson.route, _Route(self._tiers))
        self._count(route, lesson, 1)
        heappush(route.lessons, lesson)
        lesson.place = len(self._lessons)
        self._lessons.append(lesson)
        self._visit(lesson, now)

    def revisit(self, times: int, now: float) -> float:
        """Go on to visit what is remembered, in rounds. Returns the mean movement, in log-odds."""
        moved = 0.0
        lessons = self._lessons
        times = times if lessons else 0
        for _ in range(times):
            if self._next >= len(lessons):
                self._begin(now)
            moved += self._visit(lessons[self._next], now)
            self._next += 1
        return moved / times if times else 0.0

    def settle(self, now: float) -> None:
        """Visit all, again and again, until nothing moves any more."""
        for _ in range(_ROUNDS):
            self._begin(now)
            if self.revisit(len(self._lessons), now) < _STILL:
                break
        self.fresh = now

    def evidence(self, route: str, now: float) -> list[float]:
        """How many outcomes of the route there are of each tier, old ones counted as what is left of them."""
        known = self._routes.get(route)
        if known is None:
            return [0.0] * self._tiers
        faded = 2.0 ** ((self._epoch - now) / self._half_life)
        return [max(0.0, count * faded) for count in known.evidence]

    def familiar(self, sketch: Sketch) -> float:
        """How much of the text has been seen, from 0 to 1: the mean over its words of seen / (seen + _KNOWN)."""
        buckets = sketch.buckets
        return sum(map(self._familiar.__getitem__, buckets)) / len(buckets) if buckets else 0.0

    def _begin(self, now: float) -> None:
        """Begin another round, in another order: in one that stays, the weights come to rest ten times later."""
        self._random.shuffle(self._lessons)
        for place, lesson in enumerate(self._lessons):
            lesson.place = place
        self._next = 0
        self.fresh, self._round_began = self._round_began, now

    def _visit(self, lesson: Lesson, now: float) -> float:
        weight = lesson.weight * 0.5 ** (max(0.0, now - lesson.at) / self._half_life)
        return self.weights.visit(lesson, weight)

    def _give_up(self, name: str) -> None:
        """Forget the oldest outcome of a route, and the route with its last."""
        route = self._routes[name]
        lesson = heappop(route.lessons)
        self.weights.forget(lesson)
        self._count(route, lesson, -1)
        last = self._lessons.pop()
        if last is not lesson:
            last.place = lesson.place
            self._lessons[last.place] = last
        if not route.lessons:
            del self._routes[name]
            self.weights.drop(name)

    def _count(self, route: _Route, lesson: Lesson, sign: int) -> None:
        for bucket in lesson.sketch.buckets:
            seen = self._seen[bucket] = self._seen[bucket] + sign
            self._familiar[bucket] = seen / (seen + _KNOWN)
        route.evidence[lesson.tier] += sign * lesson.weight * self._grown(lesson.at)

    def _grown(self, at: float) -> float:
        """The weight of what is of that time, in the measure of the memory's epoch: so that nothing need be faded."""
        grown: float = 2.0 ** ((at - self._epoch) / self._half_life)
        return grown

    def _move_epoch(self, now: float) -> None:
        """Measure from now on, before numbers become too large."""
        shrunk = 1 / self._grown(now)
        for route in self._routes.values():
            route.evidence = [count * shrunk for count in route.evidence]
        self._epoch = now
