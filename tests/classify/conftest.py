"""What the tests of classifiers share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tierline.classify import Classifier, Question, View
    from tierline.values import Classification


class Desk:
    """A `Consult` without a Router: asks members directly, and answers questions with what the test says."""

    def __init__(self, answer: Classification | None = None) -> None:
        self.answer = answer
        self.questions: list[Question] = []
        self.consulted: list[str] = []

    tenant: str | None = None

    async def consult(self, classifier: Classifier, view: View, sure: float = 0.0) -> Classification | None:
        self.consulted.append(classifier.name)
        return await classifier.classify(view, self)

    async def ask(self, question: Question) -> Classification | None:
        self.questions.append(question)
        return self.answer


@pytest.fixture
def desk() -> type[Desk]:
    """Makes a Consult that answers as it is told."""
    return Desk
