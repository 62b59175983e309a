"""Several classifiers, cheapest first, until one is sure."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

from tierline.classify.base import (
    Certain,
    Preparing,
    check_classifier,
    check_confidence,
    fingerprint_of,
    members_fingerprint,
)
from tierline.classify.claude import ClaudeClassifier
from tierline.classify.keyword import KeywordClassifier
from tierline.classify.local import LocalClassifier
from tierline.classify.signal import SignalClassifier
from tierline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tierline.classify.base import Classifier, Consult
    from tierline.values import Classification, View


SURE: Final = 0.75
"""The confidence from which on an opinion ends a cascade."""
LOCAL_SURE: Final = 0.97
"""The confidence from which on the local weights are heard, by default. Of chat, which they do not know, they are sure
without reason: at 0.85 of more than half, and what they call simple there is as hard as the rest."""
WORTH: Final = 5.0
"""How many times the price of a verdict must be at stake for a call, by default: see `ClaudeClassifier(worth=…)`.

Labels, even those of experts, win about a fifth of what a perfect choice would: they reach .60 where a coin has .50 and
knowing every answer has 1.
"""


class CascadeClassifier:
    """Asks `members` in order, and takes the first opinion that is sure: of confidence `sure` or more.

    - where none is sure, the most confident opinion there was, for the Router's rule on doubt; of equal ones the later,
      which was the better informed
    - the `cost` is what all opinions that were heard cost, in nano-USD
    - a member that fails is passed over, and the reason says so; if nobody else has an opinion, its error is raised

    Raises `ConfigurationError` for no members, for one that is not a classifier, and for a `sure` out of 0 to 1.
    """

    name = "cascade"
    # Each member is kept in the cache, or not, by itself.
    cacheable = False

    def __init__(self, members: Sequence[Classifier], sure: float = SURE) -> None:
        self.members = tuple(members)
        if not self.members:
            raise ConfigurationError("CascadeClassifier has no members; give it at least one classifier")
        for at, member in enumerate(self.members):
            check_classifier(f"CascadeClassifier: member {at}", member)
        check_confidence("CascadeClassifier(sure=…)", sure)
        self.sure = sure
        self._rules: list[Callable[[View], Classification | None]] = [
            member.certain for member in self.members if isinstance(member, Certain)
        ]

    @cached_property
    def fingerprint(self) -> str:
        """Changes with its members."""
        return fingerprint_of(self.name, members_fingerprint(self.members), self.sure)

    def prepare(self) -> None:
        """Let those of the members read their weights that have some."""
        for member in self.members:
            if isinstance(member, Preparing):
                member.prepare()

    def certain(self, view: View) -> Classification | None:
        """What the first member says that knows something for certain, such as a rule of the app's own."""
        for rule in self._rules:
            if (opinion := rule(view)) is not None:
                return opinion
        return None

    async def classify(self, view: View, consult: Consult) -> Classification | None:
        """The first sure opinion, or the best of those that are not."""
        best: Classification | None = None
        cost = 0
        failures: list[tuple[str, Exception]] = []
        for member in self.members:
            try:
                opinion = await consult.consult(member, view, 0.0 if best is None else best.confidence)
            except Exception as error:  # noqa: BLE001 - one classifier's fault must not silence the others
                failures.append((member.name, error))
                continue
            if opinion is None:
                continue
            cost += opinion.cost
            if best is None or opinion.confidence >= best.confidence:
                best = opinion
            if opinion.confidence >= self.sure:
                break
        if best is None:
            if failures:
                raise failures[0][1]
            return None
        if cost == best.cost and not failures:
            return best
        # Only the kind of an error: its message may quote the prompt.
        failed = [f"{name} failed: {type(error).__name__}" for name, error in failures]
        return replace(best, cost=cost, reason="; ".join(filter(None, [best.reason, *failed])))


def default_classifier() -> CascadeClassifier:
    """What a Router uses unless told otherwise: local weights, keywords, signals, a verdict where it is worth it.

    Weights and keywords that are not sure say nothing here: what they say of texts unlike those that they were made for
    is no better than a coin, and no signal is not a sign of an easy request.
    """
    return CascadeClassifier(
        [
            LocalClassifier(least=LOCAL_SURE),
            KeywordClassifier(least=SURE),
            SignalClassifier(),
            ClaudeClassifier(worth=WORTH),
        ],
        SURE,
    )
