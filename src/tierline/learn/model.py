"""How likely a tier's answer is good enough here: by route, learned from what happened."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, Self

from tierline.classify.local import LocalClassifier
from tierline.errors import ConfigurationError
from tierline.learn.ascent import Lesson, chance
from tierline.learn.lessons import Lessons
from tierline.learn.prior import starts
from tierline.learn.sketch import BLANK, pack, sketch, unpack
from tierline.numeric import is_whole
from tierline.values import Chance, Forecast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tierline.learn.outcomes import Evidence, Outcome
    from tierline.learn.sketch import Sketch

HALF_LIFE: Final = 30 * 86_400.0
"""Seconds. Models, prompts and what people ask change over months: half a year leaves 1/64 of an outcome."""
MOST: Final = 10_000
"""Outcomes that are remembered, some 600 bytes each."""
_VISITS: Final = 72
"""Older outcomes that are looked at again with each new one: so every order leads to nearly the same weights."""
_SMALL: Final = 48
"""While there are not more than these, each of them moves the others much: all are brought to rest every time."""
_FEW: Final = 4
"""The same for an outcome that is older than _LATE seconds: where a process reads what others learned, many follow."""
_LATE: Final = 60.0
_STALE: Final = 1 / 16
"""Half-lives after which weights are brought up to date before they are used."""
_PART: Final = 24
"""Outcomes that a call may look at for that."""


class OutcomeModel:
    """P(good enough | route, tier, request), learned from outcomes.

        model = OutcomeModel().fit([Outcome("/answer", "Are you open?", "haiku", good=True), …])
        model.predict(route="/answer", text="When do you close?")     # {"haiku": 0.93, "sonnet": 0.95, "opus": 0.96}

    - with no outcomes, it is the prior: what the frozen weights of `LocalClassifier` say of the text; no tier is then
      below a cheaper one
    - what a route has taught shrinks toward what texts have taught, and that toward the prior, by how much there is of
      each; a route that is not known is not an error
    - `tiers`: their names, cheapest first
    - `half_life`: seconds in which an outcome loses half of its weight, by `clock` (seconds since the epoch)
    - `classifier`: whose weights are the prior; by default those that come with the package
    - `most`: outcomes that are remembered; above that, the route with most gives up its oldest. At most 1,000 routes:
      a new one takes the place of the one with the least evidence

    Of texts, numbers are kept: see `tierline.learn.sketch`. It may be used from any thread. Raises ConfigurationError
    for tiers, times and sizes that cannot work.
    """

    def __init__(
        self,
        tiers: Sequence[str] = ("haiku", "sonnet", "opus"),
        *,
        half_life: float = HALF_LIFE,
        most: int = MOST,
        clock: Callable[[], float] = time.time,
        classifier: LocalClassifier | None = None,
    ) -> None:
        self.tiers = _checked(tiers)
        if isinstance(half_life, bool) or not isinstance(half_life, (int, float)) or not 0 < half_life < float("inf"):
            raise ConfigurationError(f"OutcomeModel(half_life={half_life!r:.80}): write a number of seconds above 0")
        if not is_whole(most, 1):
            raise ConfigurationError(f"OutcomeModel(most={most!r:.80}): write a whole number of outcomes above 0")
        self._places = {name: place for place, name in enumerate(self.tiers)}
        self.half_life, self._most, self._clock = float(half_life), most, clock
        self._classifier = LocalClassifier() if classifier is None else classifier
        self._starts = starts(len(self.tiers))
        self._lock = threading.Lock()
        self._fitted: list[tuple[str, str, float, float, float, Sketch]] = []
        self._lessons = self._empty()
        self._keep: Callable[[Outcome], None] | None = None

    def prepare(self) -> None:
        """Read the weights of the prior now, and not at the first outcome or prediction."""
        self._classifier.prepare()

    def fit(self, outcomes: Iterable[Outcome]) -> Self:
        """Forget everything, and learn these: to the end, so that their order does not matter at all."""
        now = self._clock()
        read: dict[tuple[str, int], Sketch] = {}
        fitted = []
        for outcome in outcomes:
            known = (outcome.text, outcome.tools)
            if known not in read:
                read[known] = self._sketch(outcome.text, outcome.tools)
            fitted.append((outcome.route, outcome.tier, float(outcome.good), outcome.weight, now, read[known]))
        for _, tier, *_ in fitted:
            self._place(tier)
        self._fitted = fitted
        self.restart()
        return self

    def kept_by(self, keep: Callable[[Outcome], None]) -> None:
        """Hand what is observed from now on to `keep`, which stores it and brings it back with `absorb`.

        A Router does that with its model, so that all workers learn what one observes.
        """
        self._keep = keep

    def observe(self, outcome: Outcome) -> None:
        """Learn one more. Costs about as much as some ten forecasts; where a Router keeps it, it is learned later."""
        if self._keep is not None:
            self._keep(outcome)
            return
        now = self._clock()
        self._learn(self._of(outcome, self._sketch(outcome.text, outcome.tools), now), now)

    def predict(self, *, route: str, text: str, tools: int = 0) -> dict[str, float]:
        """How likely each tier is good enough: above 0, below 1."""
        return {found.tier: found.good for found in self.forecast(route, text, tools).chances}

    def forecast(self, route: str, text: str, tools: int = 0) -> Forecast:
        """How likely each tier is good enough, and how much stands behind that."""
        if self._stale():
            self.settle()
        return self._forecast(route, self._sketch(text, tools))

    def evidence(self, route: str) -> float:
        """How many outcomes of a route there are, old ones counted as what is left of them. Costs next to nothing."""
        return sum(self._lessons.evidence(route, self._clock()))

    def features(self, text: str, tools: int = 0) -> bytes:
        """What may be kept of a request: read once, for `forecast_of` and for Evidence. At most 400 bytes."""
        return pack(self._sketch(text, tools))

    def forecast_of(self, route: str, features: bytes) -> Forecast:
        """The same as `forecast`, of what was kept. Features of another version say nothing: the route alone speaks.

        Never waits: where weights are old, each call brings a part of them up to date.
        """
        if self._stale() and self._lock.acquire(blocking=False):
            try:
                self._lessons.revisit(_PART, self._clock())
            finally:
                self._lock.release()
        seen = unpack(features)
        return self._forecast(route, BLANK if seen is None else seen)

    def absorb(self, evidence: Evidence) -> None:
        """Learn what a store brings. Each id must be brought once only, but in any order.

        What is of a tier that this ladder does not have, or of another version's features, says nothing.
        """
        now = self._clock()
        seen = unpack(evidence.features)
        if seen is not None and evidence.tier in self._places:
            # Another machine's clock may be ahead of this one's.
            at = min(evidence.at, now)
            self._learn(self._lesson(evidence.route, evidence.tier, evidence.good, evidence.weight, at, seen), now)

    def absorb_all(self, evidence: Iterable[Evidence]) -> None:
        """The same with much at once, such as at start-up: then that is a tenth of the work. From any thread."""
        now = self._clock()
        lessons = [
            self._lesson(each.route, each.tier, each.good, each.weight, min(each.at, now), seen)
            for each in evidence
            if each.tier in self._places and (seen := unpack(each.features)) is not None
        ]
        with self._lock:
            for lesson in lessons:
                self._lessons.add(lesson, now)
            self._lessons.settle(now)

    def restart(self) -> None:
        """Forget everything but what was fitted last, which may take a second."""
        now = self._clock()
        begun = self._empty()
        for each in self._fitted:
            begun.add(self._lesson(*each), now)
        begun.settle(now)
        with self._lock:
            self._lessons = begun

    def settle(self) -> None:
        """Bring what was learned to rest, as `fit` does, such as after much was absorbed at once: it may take a second.

        From then on the order in which outcomes came makes no difference at all.
        """
        with self._lock:
            self._lessons.settle(self._clock())

    def _empty(self) -> Lessons:
        return Lessons(len(self.tiers), half_life=self.half_life, most=self._most, now=self._clock())

    def _sketch(self, text: str, tools: int) -> Sketch:
        found, opinion = self._classifier.weigh(text, tools)
        return sketch(found.numbers, found.buckets, 1 - opinion.probabilities["simple"])

    def _forecast(self, route: str, seen: Sketch) -> Forecast:
        now = self._clock()
        lessons = self._lessons
        learned = lessons.weights.log_odds(route, seen)
        evidence = lessons.evidence(route, now)
        chances = tuple(
            Chance(tier, chance(start + more), count)
            for tier, start, more, count in zip(self.tiers, self._starts[seen.need], learned, evidence, strict=True)
        )
        return Forecast(chances, sum(evidence), lessons.familiar(seen))

    def _stale(self) -> bool:
        return self._clock() - self._lessons.fresh > _STALE * self.half_life

    def _of(self, outcome: Outcome, seen: Sketch, now: float) -> Lesson:
        return self._lesson(outcome.route, outcome.tier, float(outcome.good), outcome.weight, now, seen)

    def _place(self, tier: str) -> int:
        if tier not in self._places:
            raise ConfigurationError(f"there is no tier {tier!r:.80} here; the tiers are {', '.join(self.tiers)}")
        return self._places[tier]

    def _lesson(self, route: str, tier: str, good: float, weight: float, at: float, seen: Sketch) -> Lesson:
        place = self._place(tier)
        start = self._starts[seen.need][place]
        return Lesson(route, place, good, weight=weight, at=at, sketch=seen, start=start)

    def _learn(self, lesson: Lesson, now: float) -> None:
        with self._lock:
            self._lessons.add(lesson, now)
            if now - lesson.at > _LATE:
                self._lessons.revisit(_FEW, now)
            elif len(self._lessons) > _SMALL:
                self._lessons.revisit(_VISITS, now)
            else:
                self._lessons.settle(now)


def _checked(tiers: Sequence[str]) -> tuple[str, ...]:
    names = () if isinstance(tiers, str) else tuple(tiers)
    if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise ConfigurationError(f"OutcomeModel(tiers={tiers!r:.80}): write the names of the tiers, cheapest first")
    return names
