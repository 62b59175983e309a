"""The stand-in verdict, and the questions of Tierline that it answers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierline.classify.base import Question
from tierline.classify.question import body_of
from tierline.testing import FakeClaude
from tierline.testing._verdict import heuristic

LABELS = ("simple", "moderate", "complex")
QUESTION = Question(text="What time is it?", labels=LABELS, instruction="How hard is this?")
HARD = (
    "Analyze the trade-offs of these two architectures, step by step. Compare their failure modes and derive the "
    "cost of each. Then design a migration.\n1. Which is cheaper?\n2. Which is safer?\n3. What would you do?\n"
    "```\nclass Ledger:\n    pass\n```\n" + "Background. " * 150
)


async def ask(fake: FakeClaude, question: Question, *, think: bool = False) -> str:
    body = body_of(question, model="claude-haiku-5-5", thinking=None if think else {"type": "disabled"})
    async with fake.client() as client:
        message = await client.messages.create(**body)
    return "".join(block.text for block in message.content if block.type == "text")


async def test_a_question_gets_a_verdict() -> None:
    """A question of Tierline's is answered with the small JSON object, and not by `answer`."""
    fake = FakeClaude(answer=lambda received: "not this")
    found = json.loads(await ask(fake, QUESTION))
    assert found == {"label": "simple", "confidence": 0.95}


async def test_scripted_verdicts() -> None:
    """The `verdict` callable sees the text and the labels; a string is the raw answer."""
    seen: list[object] = []

    def verdict(text: str, labels: object) -> tuple[str, float]:
        seen.append((text, labels))
        return "complex", 0.5

    assert json.loads(await ask(FakeClaude(verdict=verdict), QUESTION)) == {"label": "complex", "confidence": 0.5}
    assert seen == [("What time is it?", LABELS)]
    assert await ask(FakeClaude(verdict=lambda text, labels: "no idea"), QUESTION) == "no idea"


async def test_a_verdict_that_thinks_has_no_answer() -> None:
    """With thinking left on, 32 tokens are spent before the verdict."""
    fake = FakeClaude()
    assert await ask(fake, QUESTION, think=True) == ""
    assert fake.requests[0].stop_reason == "max_tokens"


@given(st.text(), st.lists(st.text(min_size=1), min_size=1, max_size=5, unique=True))
def test_always_one_of_the_labels(text: str, labels: list[str]) -> None:
    """Any text gets one of the labels, and a confidence in its range, the same each time."""
    label, confidence = heuristic(text, labels)
    assert label in labels
    assert 0.6 <= confidence <= 0.95
    assert heuristic(text, labels) == (label, confidence)


@pytest.mark.parametrize(("text", "label"), [("Hi", "simple"), ("What is 2 + 2?", "simple"), (HARD, "complex")])
def test_easy_and_hard(text: str, label: str) -> None:
    """It tells the extremes apart."""
    assert heuristic(text, LABELS)[0] == label
