"""What Claude is asked, and what becomes of its answer."""

from __future__ import annotations

import pytest

from tierline.classify import ClaudeClassifier, View
from tierline.classify.claude import EXAMPLES, INSTRUCTION
from tierline.errors import ConfigurationError
from tierline.values import LABELS, Classification

VERDICT = Classification("complex", 0.9, "claude", cost=80)


async def test_the_verdict_is_claudes(desk):
    """What the cheapest tier says is passed on, with what it cost."""
    assert await ClaudeClassifier().classify(View("x"), desk(VERDICT)) == VERDICT


async def test_no_verdict_is_no_opinion(desk):
    """A timeout or a refusal decides nothing."""
    assert await ClaudeClassifier().classify(View("x"), desk(None)) is None


async def test_a_label_from_outside_is_no_opinion(desk):
    """The set of answers stays closed, whoever reads them."""
    assert await ClaudeClassifier().classify(View("x"), desk(Classification("huge", 1.0, "claude"))) is None


async def test_the_source_is_claude_whoever_answers(desk):
    """A stand-in for the API need not know the word."""
    verdict = await ClaudeClassifier().classify(View("x"), desk(Classification("simple", 1.0, "fixed", cost=3)))
    assert verdict == Classification("simple", 1.0, "claude", cost=3)


def test_each_default_label_has_two_or_three_examples():
    """And the instruction says what to answer in doubt."""
    for label in LABELS:
        assert 2 <= sum(1 for _, given in EXAMPLES if given == label) <= 3
    assert "When in doubt, moderate" in INSTRUCTION


async def test_the_question_is_about_the_view(desk):
    """The text, what it leans on, and the app's own task; the timeout in seconds, 32 tokens."""
    consult = desk()
    await ClaudeClassifier(timeout=1.5).classify(View("Go on", context="Step 1", task="Plan a trip"), consult)
    (question,) = consult.questions
    assert (question.text, question.context, question.timeout, question.max_tokens) == ("Go on", "Step 1", 1.5, 32)
    assert question.instruction == f"{INSTRUCTION}\nThe app's task: Plan a trip"
    assert question.labels == LABELS


def test_what_is_shown_of_a_long_view_is_cut():
    """Start and end of the text, the end of the context, the start of the task."""
    view = View("a" * 4_000 + "b" * 4_000, context="c" * 600 + "d" * 10, task="t" * 900)
    question = ClaudeClassifier(instruction="Say.").question(view)
    assert len(question.text) == 1_605
    assert question.text.startswith("a" * 1_066 + "\n[")
    assert question.text.endswith("]\n" + "b" * 534)
    assert question.context == "c" * 390 + "d" * 10
    assert question.instruction == "Say.\nThe app's task: " + "t" * 200


@pytest.mark.parametrize(
    "examples", [{"complex": ["Plan my wedding"]}, {"complex": "Plan my wedding"}, [("Plan my wedding", "complex")]]
)
def test_an_apps_examples_are_added(examples):
    """By label or as pairs, after the defaults."""
    question = ClaudeClassifier(examples=examples).question(View("x"))
    assert question.examples == (*EXAMPLES, ("Plan my wedding", "complex"))


def test_an_example_is_cut_at_200_characters():
    """A long one would be paid for in every question."""
    question = ClaudeClassifier(examples={"simple": ["x" * 900]}).question(View("x"))
    assert question.examples[-1] == ("x" * 200, "simple")


def test_other_labels_bring_their_own_words():
    """The default examples and instruction are about the default labels."""
    question = ClaudeClassifier(labels=("small", "large"), instruction="How big?").question(View("x"))
    assert (question.labels, question.instruction, question.examples) == (("small", "large"), "How big?", ())


@pytest.mark.parametrize(
    ("given", "culprit"),
    [
        ({"timeout": 0}, "timeout=0"),
        ({"timeout": float("inf")}, "timeout=inf"),
        ({"timeout": float("nan")}, "timeout=nan"),
        ({"labels": ("a", "b")}, "needs an instruction"),
        ({"labels": (), "instruction": "x"}, "no labels"),
        ({"examples": {"huge": ["x"]}}, "'huge'"),
        ({"examples": {"simple": [3]}}, "3"),
        ({"examples": {"simple": [" "]}}, "' '"),
        ({"examples": ["simple"]}, "'simple'"),
        ({"examples": [("simple", "x")]}, "'x'"),
    ],
)
def test_what_cannot_work_is_named(given, culprit):
    """Mistakes come up at start-up, and say which argument it is."""
    with pytest.raises(ConfigurationError, match=culprit):
        ClaudeClassifier(**given)


def test_the_fingerprint_follows_the_prompt():
    """A verdict that was given to other words is not taken for these; a timeout changes no verdict."""
    made = [
        ClaudeClassifier(),
        ClaudeClassifier(examples={"simple": ["x"]}),
        ClaudeClassifier(instruction="Say."),
        ClaudeClassifier(labels=("a", "b"), instruction="Say."),
    ]
    assert len({classifier.fingerprint for classifier in made}) == 4
    assert ClaudeClassifier(timeout=1.0).fingerprint == ClaudeClassifier().fingerprint
    assert ClaudeClassifier().cacheable
