"""Step 2 of a call: asking classifiers, through the verdict cache, and Claude itself where one wants to."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tierline.classify.base import Asking, Question, fingerprint_of
from tierline.classify.cache import About
from tierline.telemetry import active, bounded, end_classify
from tierline.values import LABELS, Classification

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tierline.asking import Desk
    from tierline.classify.base import Classifier, Consult
    from tierline.classify.cache import VerdictCache
    from tierline.classify.worth import Stakes
    from tierline.gathering import Gathering
    from tierline.telemetry import CallTrace
    from tierline.values import View


async def ask(method: Callable[..., Awaitable[Any]], body: dict[str, Any], timeout: float) -> Any:
    """A question of Tierline's own, by a method of an asynchronous client. TimeoutError after `timeout` seconds."""
    async with asyncio.timeout(timeout):
        return await method(**body)


@dataclass(slots=True)
class Consultation:
    """The classification of one call: what its classifiers may use, and what came of it.

    A verdict's cost belongs to the accounts of the call that asks, which `desk` knows.
    """

    desk: Desk
    gathering: Gathering
    """Where questions wait for others that are asked at the same time."""
    cache: VerdictCache
    policy_version: str
    trace: CallTrace | None = None
    silent: str = ""
    """Why Claude is not asked; empty where it may be."""
    most: float = math.inf
    """Most seconds that a question may take, whatever it allows itself."""
    stakes: Callable[[], Stakes] | None = None
    """What is at stake in the choice; None where a question is not weighed."""
    asking: Callable[[Question], None] | None = None
    """Told of each question as it goes out."""
    reasons: list[str] = field(default_factory=list)
    spent: int = 0

    @property
    def tenant(self) -> str | None:
        """Whose call it is."""
        return self.desk.tenant

    async def opinion(self, classifier: Classifier, view: View) -> Classification | None:
        """What `classifier` says, in a span of its own. One that fails has no opinion, and the reason is kept."""
        span = self.trace.child("classify") if self.trace is not None else None
        found: Classification | None = None
        try:
            with active(span):
                found = checked(await self.consult(classifier, view))
        except Exception as error:  # noqa: BLE001  (a classifier is the app's code: it must not break its calls)
            self.reasons.append(failure(classifier, error))
        finally:
            if span is not None:
                end_classify(span, classifier.name, classifier.fingerprint, found)
        if found is None:
            self.reasons.append("no opinion")
        return found

    async def consult(self, classifier: Classifier, view: View, sure: float = 0.0) -> Classification | None:
        """One classifier's opinion, from the verdict cache where it is kept there."""
        if not classifier.cacheable:
            return await classifier.classify(view, self)
        key = self.cache.key(
            tenant=self.desk.tenant, fingerprint=classifier.fingerprint, version=self.policy_version, view=view
        )
        if self.silent:
            # Nobody may join one who does not ask.
            found = self.cache.peek(key)
            if found is not None:
                self.desk.looked_up(True)
            return found if found is not None else await classifier.classify(view, self)
        recording = self.trace is not None and self.trace.recording
        age = self.cache.age(key) if recording else None
        found = None
        if self.stakes is not None:
            # What is there is free; what is not is weighed, before anybody could wait for one who does not ask.
            found = self.cache.peek(key)
            if found is None and isinstance(classifier, Asking):
                why = self.stakes().against(classifier.question(view), sure, classifier.worth)
                if why:
                    self.reasons.append(f"no verdict: {why}")
                    return None
        hit = found is not None
        if found is None:
            about = About(view, self.desk.tenant, classifier.fingerprint, self.policy_version)
            found, hit = await self.cache.get_or_ask(key, lambda: classifier.classify(view, self), about)
        self.desk.looked_up(hit)
        if recording and self.trace is not None:
            self.trace.event("cache.lookup", {"hit": hit} if age is None else {"hit": hit, "age_s": age})
        return found

    async def ask(self, question: Question) -> Classification | None:
        """One question to the cheapest tier. See `tierline.classify.Consult.ask`."""
        if self.silent:
            self.reasons.append(f"no verdict: {self.silent}")
            return None
        if why := self.desk.closed:
            self.reasons.append(f"no verdict: {why}")
            return None
        timeout = min(question.timeout, self.most)
        if self.asking is not None:
            self.asking(question)
        said = await self.gathering.ask(self.desk, question, timeout, self._pay)
        # Paid for whatever came of it, and charged to the call that asked.
        self._pay(said.cost)
        if said.answer is not None:
            return Classification(said.answer[0], said.answer[1], "claude", said.cost)
        if said.error is None:
            self.reasons.append("the verdict was no label")
        elif isinstance(said.error, TimeoutError):
            self.reasons.append(f"no verdict within {timeout:g} s")
        else:
            self.reasons.append(f"no verdict: {type(said.error).__name__}")
        return None

    def _pay(self, cost: int) -> None:
        self.spent += cost


def failure(classifier: Classifier, error: Exception) -> str:
    """What a decision says of a classifier that failed: of the error only its kind, its message may quote a prompt."""
    return f"classifier {bounded(str(classifier.name))} failed: {type(error).__name__}"


def checked(opinion: object) -> Classification | None:
    """An opinion as it must be. TypeError or ValueError for what a classifier of the app's may have made of it."""
    if opinion is None:
        return None
    if not isinstance(opinion, Classification):
        raise TypeError(type(opinion).__name__)
    if opinion.label not in LABELS or not 0 <= opinion.confidence <= 1:
        raise ValueError("no label of the three, or no confidence from 0 to 1")
    return opinion


@dataclass(frozen=True, slots=True)
class Labeller:
    """A question of the app's own, as a classifier: for the verdict cache."""

    labels: tuple[str, ...]
    instruction: str
    name: str = "app"
    cacheable: bool = True

    @property
    def fingerprint(self) -> str:
        """Changes with the labels and the instruction."""
        return fingerprint_of(self.labels, self.instruction)

    async def classify(self, view: View, consult: Consult) -> Classification | None:
        """Ask Claude, once."""
        return await consult.ask(Question(view.text, self.labels, self.instruction))
