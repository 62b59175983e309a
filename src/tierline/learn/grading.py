"""One request, as far as it is learned from: what is asked of it before it is sent, and how good its answer was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierline.learn.handles import Grip
from tierline.learn.outcomes import Evidence, check_grade

if TYPE_CHECKING:
    from tierline.learn.learning import Learning
    from tierline.values import Forecast


class Asked:
    """A request that was asked on a route.

    Its text is read for its features when they are first needed, once, and then let go. It is in no repr, and what
    grades write down and what handles carry are the features.
    """

    __slots__ = ("_at", "_features", "_learning", "_tenant", "_text", "_tools", "route")

    def __init__(self, learning: Learning, route: str, tenant: str | None, text: str, tools: int) -> None:
        self.route = route
        self._learning = learning
        self._tenant = tenant
        self._text = text
        self._tools = tools
        self._features: bytes | None = None
        self._at = learning.now()

    @property
    def features(self) -> bytes:
        """As in `Evidence`."""
        if self._features is None:
            self._features = self._learning.model.features(self._text, self._tools)
            self._text = ""
        return self._features

    @property
    def evidence(self) -> float:
        """How many outcomes its route has: known before its text is read."""
        return self._learning.model.evidence(self.route)

    def forecast(self) -> Forecast:
        """How likely each tier is good enough for it."""
        return self._learning.model.forecast_of(self.route, self.features)

    def grade(self, decision: str, tier: str, good: bool | float) -> None:
        """The app says how good the answer of a tier was: the last that it says of a decision counts.

        From any thread, and without waiting. ConfigurationError for what is no grade.
        """
        grade = check_grade("decision.grade(…)", good)
        self._learning.keep(Evidence(decision, self.route, tier, grade, self.features, "app", at=self._learning.now()))

    def checked(self, decision: str, tier: str, good: float, weight: float) -> None:
        """A check says how good the answer of a tier was: from 0 to 1, as so many outcomes.

        Whoever writes a prompt has a say in what its answer looks like: so it counts as said by the tenant, of whom no
        one outweighs the others. Does nothing while the store is away that keeps the secret.
        """
        learning = self._learning
        if learning.handles is None:
            return
        account = learning.digest(self._tenant) if self._tenant is not None else ""
        at = learning.now()
        name = f"{decision} {tier} check"
        learning.keep(Evidence(name, self.route, tier, good, self.features, "check", weight, account, at))

    def handle(self, decision: str, tier: str) -> str:
        """A handle for whoever saw the answer; empty where the secret is not known yet, for the store is away."""
        learning = self._learning
        if learning.handles is None:
            return ""
        until = int(self._at + learning.handle_ttl)
        account = learning.digest(self._tenant)
        return learning.handles.make(Grip(decision, self.route, tier, account, self.features, until))
