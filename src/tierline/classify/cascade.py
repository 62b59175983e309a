"""Several classifiers, cheapest first, until one is sure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tierline.classify.base import check_classifier, check_confidence, fingerprint_of, members_fingerprint
from tierline.classify.claude import ClaudeClassifier
from tierline.classify.keyword import KeywordClassifier
from tierline.classify.signal import SignalClassifier
from tierline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tierline.classify.base import Classifier, Consult
    from tierline.values import Classification, View


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

    def __init__(self, members: Sequence[Classifier], sure: float = 0.75) -> None:
        self.members = tuple(members)
        if not self.members:
            raise ConfigurationError("CascadeClassifier has no members; give it at least one classifier")
        for at, member in enumerate(self.members):
            check_classifier(f"CascadeClassifier: member {at}", member)
        check_confidence("CascadeClassifier(sure=…)", sure)
        self.sure = sure
        self.fingerprint = fingerprint_of(self.name, members_fingerprint(self.members), sure)

    async def classify(self, view: View, consult: Consult) -> Classification | None:
        """The first sure opinion, or the best of those that are not."""
        best: Classification | None = None
        cost = 0
        failures: list[tuple[str, Exception]] = []
        for member in self.members:
            try:
                opinion = await consult.consult(member, view)
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
    """What a Router uses unless told otherwise: keywords, then signals, then Claude's verdict."""
    return CascadeClassifier([KeywordClassifier(), SignalClassifier(), ClaudeClassifier()])
