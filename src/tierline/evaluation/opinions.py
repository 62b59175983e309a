"""Classifiers outside of a Router: what they say of a text, and how much it seems to need a better tier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from tierline.blocking import at_once
from tierline.call import cut
from tierline.errors import ConfigurationError
from tierline.values import Classification, View

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tierline.classify.base import Classifier, Question

_NEEDS: Final = {"simple": 0.0, "moderate": 0.5, "complex": 1.0}


@runtime_checkable
class Probabilistic(Protocol):
    """A classifier that says how likely each label is."""

    def probabilities(self, text: str, tools: int = 0) -> Mapping[str, float]:
        """Each label with its probability; they add up to 1."""
        ...


class Offline:
    """What a classifier may use where there is no Router: other classifiers, and nobody to ask."""

    tenant: str | None = None

    def __init__(self) -> None:
        self.asked = 0
        """How often a verdict of Claude's was wanted, which nobody gave."""

    async def consult(self, classifier: Classifier, view: View, sure: float = 0.0) -> Classification | None:  # noqa: ARG002
        """Another classifier's opinion."""
        return await classifier.classify(view, self)

    async def ask(self, question: Question) -> Classification | None:  # noqa: ARG002
        """No opinion: a verdict costs money, and a measurement none."""
        self.asked += 1
        return None


def opinion(classifier: Classifier, view: View, consult: Offline) -> Classification | None:
    """What a classifier says. ConfigurationError for one that waits for a network, which is not measured here."""
    work = classifier.classify(view, consult)
    try:
        return at_once(work)
    except RuntimeError as error:
        raise ConfigurationError(
            f"classifier {classifier.name!r} cannot be measured here ({error}): give one that answers at once"
        ) from error


def view_of(text: str, tools: int = 0) -> View:
    """A first turn as a classifier sees it."""
    return View(text=cut(text), tools=tools)


def need(classifier: Classifier, view: View, said: Classification | None) -> float:
    """How much a request needs a better tier, from 0 to 1, to rank requests by.

    p(complex) + p(moderate) / 2 where the classifier gives probabilities; else its label (0, 1/2, 1), the closer to the
    middle the less sure it is.
    """
    if isinstance(classifier, Probabilistic):
        chances = classifier.probabilities(view.text, tools=view.tools)
        return chances["complex"] + chances["moderate"] / 2
    if said is None:
        return 0.5
    return 0.5 + (_NEEDS.get(said.label, 0.5) - 0.5) * said.confidence


def silent(record: Mapping[str, Any]) -> bool:
    """Whether nobody had an opinion on a logged decision: it is then `moderate`, with a confidence of 0."""
    return record.get("label") is not None and not record.get("confidence")
