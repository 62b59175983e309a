"""Step 2 of a call: on what grounds its tier is chosen. What the app says, what its route has taught, classifiers."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tierline.asking import Desk
from tierline.call import view_of
from tierline.choice import enough, lesson
from tierline.classify.steering import unsteered
from tierline.classify.worth import stakes_of
from tierline.consult import Consultation, checked, failure
from tierline.steps import eased
from tierline.values import Classification

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline.admission import Admission
    from tierline.call import Call
    from tierline.classify.base import Classifier, Question
    from tierline.learn.grading import Asked
    from tierline.policies import Effective
    from tierline.router import Router
    from tierline.steps import Step
    from tierline.telemetry import CallTrace
    from tierline.upstream import Asker
    from tierline.values import Forecast, View

MOST_EXPLORED: Final = 0.01
"""The largest share of calls that may explore."""
STEERED: Final = "what the text says to its classifier is not believed"


class Grounds(NamedTuple):
    """What a tier is chosen on. Kept for a tool loop, so that all of its steps are chosen alike.

    - `opinion`: what the request is, None where nobody says
    - `forecast`: how likely each tier is good enough; None where nothing is known, or a rule of the app's came first
    - `explore`: whether to find out about a neighbour of the tier that is chosen
    - `usual`: the place that an opinion on the text may not lead above; None where it may lead anywhere
    """

    opinion: Classification | None = None
    forecast: Forecast | None = None
    explore: bool = False
    usual: int | None = None


class Inquiry:
    """The grounds of one call, and what came of asking for them."""

    def __init__(
        self,
        router: Router[Any],
        call: Call,
        upstream: Asker,
        admission: Admission,
        asked: Asked | None,
        step: Step | None = None,
    ) -> None:
        self._router, self._call, self._upstream, self._admission = router, call, upstream, admission
        self._asked, self._step = asked, step
        self._consulted: Consultation | None = None
        self._unbelieved = self._learns = False
        self._failed: tuple[str, ...] = ()
        self.forecast: Forecast | None = None
        self.asking: Callable[[Question], None] | None = None
        """Told when Claude is asked for a verdict."""
        self.kept = False
        """Whether the grounds are those of an earlier step of a tool loop."""
        self.seconds = 0.0

    @property
    def spent(self) -> int:
        """What asking cost, in nano-USD."""
        return self._consulted.spent if self._consulted is not None else 0

    @property
    def consulted(self) -> bool:
        """Whether classifiers were asked: nothing that comes before them had settled it."""
        return self._consulted is not None

    @property
    def reasons(self) -> tuple[str, ...]:
        """What came of asking."""
        reasons = [STEERED] if self._unbelieved else []
        reasons += self._failed
        if self._consulted is not None:
            reasons += self._consulted.reasons
        if self._step is not None:
            reasons.append(self._step.why)
        return tuple(reasons)

    async def grounds(self, policy: Effective, trace: CallTrace | None, silent: str = "") -> Grounds:
        """On what a tier is chosen under `policy`. `silent` says why Claude is not asked; empty where it may be."""
        found = await self._of_loop(policy, trace, silent)
        return found if self._step is None or not self._step.eased else self._of_step(self._step, found, policy)

    def _of_step(self, step: Step, found: Grounds, policy: Effective) -> Grounds:
        """The grounds of a step that is easier than its loop: what its like has taught, else what it is."""
        router, asked = self._router, self._asked
        places = range(policy.floor, policy.ceiling + 1)
        taught = lesson(found.forecast, router.ladder, places, policy.quality, router.learn_after)
        self.forecast = None
        if asked is not None and self._admission.route is not None and enough(asked.evidence, router.learn_after):
            self.forecast = asked.forecast()
        place = taught.place if taught is not None else None
        return Grounds(eased(step, found.opinion, place, router.ladder), self.forecast)

    async def _of_loop(self, policy: Effective, trace: CallTrace | None, silent: str) -> Grounds:
        """The same, for the request that began the loop where this is a later step of one."""
        if policy.label is not None:
            return Grounds(Classification(policy.label, 1.0, "label"))
        router, call, (_, version, _, _, tenant) = self._router, self._call, self._admission
        classifier = policy.classifier or router.classifier
        view = view_of(call, policy)
        loop = b""
        if view.tools:
            # A tool that is forced in the first step is free in the next: the loop is the same.
            same = replace(view, forced_tool=False, max_tokens=0)
            version = f"loop {version}"
            loop = router.cache.key(same, tenant=tenant, fingerprint=classifier.fingerprint, version=version)
            if call.in_tool_loop and (kept := router.loops.find(loop)) is not None:
                self.kept, self.forecast = True, kept.forecast
                return kept._replace(opinion=kept.opinion and replace(kept.opinion, source="sticky", cost=0))
        found = await self._found(classifier, view, policy, trace, silent)
        if not silent:
            if router.explore and self._learns and not call.in_tool_loop:
                found = found._replace(explore=router.timing.chance() < router.explore)
            if view.tools:
                router.loops.keep(loop, found)
        return found

    def taught(self) -> Forecast | None:
        """What the route has taught of the request, where nobody is asked; None where that is not enough."""
        asked = self._asked if self._admission.route is not None else None
        if asked is not None and enough(asked.evidence, self._router.learn_after):
            self.forecast = asked.forecast()
        return self.forecast

    async def _found(
        self, classifier: Classifier, view: View, policy: Effective, trace: CallTrace | None, silent: str
    ) -> Grounds:
        router, (_, _, _, route, tenant) = self._router, self._admission
        asked = self._asked if route is not None else None
        if asked is not None and self._step is not None and self._step.eased:
            asked = router.learning.asked(route, tenant, view.text, view.tools)
        if (plain := unsteered(view)) is not None:
            self._unbelieved, view = True, plain
            silent = silent or "it would read that too"
            if asked is not None:
                asked = router.learning.asked(route, tenant, view.text, view.tools)
        usual = router.upgrades.usual(route, tenant)
        if (opinion := self._certain(classifier, view)) is not None:
            return Grounds(opinion, usual=usual)
        if asked is not None:
            self._learns = True
            if enough(asked.evidence, router.learn_after):  # before the text is read for it
                self.forecast = asked.forecast()
        if self.forecast is not None:
            places = range(policy.floor, policy.ceiling + 1)
            taught = lesson(self.forecast, router.ladder, places, policy.quality, router.learn_after)
            if taught is not None and taught.place is not None:
                return Grounds(None, self.forecast)
            if taught is not None:
                silent = silent or f"the route has {self.forecast.evidence:.0f} outcomes"
        return Grounds(await self._opinion(classifier, view, policy, trace, silent), self.forecast, usual=usual)

    def _certain(self, classifier: Classifier, view: View) -> Classification | None:
        """What a rule of the app's own says. One that fails says nothing, and the reason is kept."""
        rule = getattr(classifier, "certain", None)
        try:
            return None if rule is None else checked(rule(view))
        except Exception as error:  # noqa: BLE001  (a classifier is the app's code: it must not break its calls)
            self._failed = (failure(classifier, error),)
            return None

    async def _opinion(
        self, classifier: Classifier, view: View, policy: Effective, trace: CallTrace | None, silent: str
    ) -> Classification | None:
        router, (_, version, lines, route, tenant) = self._router, self._admission
        started = router.timing.perf()
        self._consulted = Consultation(
            Desk(self._upstream.ask, self._upstream.client, router.ladder[0], lines, route, tenant, router.meter),
            router.gathering,
            router.cache,
            version,
            trace,
            silent,
            stakes=partial(stakes_of, self._call, policy, router.ladder, router.prices),
            asking=self.asking,
        )
        if router.health.deadline is not None:
            self._consulted.most = router.health.deadline / 2  # the other half is the answer's
        opinion = await self._consulted.opinion(classifier, view)
        self.seconds = router.timing.perf() - started
        router.metrics.classified(classifier.name, opinion, self.seconds)
        return opinion
