"""What users of other routers complain of, by the numbers of the list of pains in the project's notes.

10 "no signal" is read as simple; 11 "yes" after a complex plan goes to the cheapest tier; 12 a classifier call on
every turn of a tool loop; 13 the classifier costs more than the answer.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierline.call import read_call, view_of
from tierline.classify import (
    ClaudeClassifier,
    KeywordClassifier,
    SignalClassifier,
    VerdictCache,
    View,
    default_classifier,
)
from tierline.classify.question import body_of
from tierline.evaluation.opinions import Offline
from tierline.values import Classification

FREE = (KeywordClassifier(), SignalClassifier())
PLAN = "The plan: 1. Split the ledger by tenant. 2. Write both. 3. Compare. 4. Switch over. Shall I go on?"
LEANING = [
    "yes", "Yes!", "yes please", "ok", "do it", "go ahead", "Sounds good.", "continue", "the second one",
    "and in French?", "why?", "2", "y", "👍", "oui", "はい", "no, the other way round", "What is that?", "define it",
]  # fmt: skip
PROMPTS = [
    "My grandmother left me a house, and my brother lives in it.",
    "There are four houses in a row. The pianist lives next to the florist. Who owns the horse?",
    "We have 14 engineers and a deadline in May.",
    "Tell me about the causes of the 1848 revolutions.",
    "SELECT name FROM users",
    "I feel that nobody listens to me at work.",
    "今日はいい天気ですね",
    "asdf",
    "",
]


@pytest.mark.parametrize("text", PROMPTS)
async def test_pain_10_no_signal_is_not_simple(text, desk):
    """A prompt that no rule knows is asked about, and without an answer nobody has an opinion."""
    for classifier in FREE:
        opinion = await classifier.classify(View(text), desk())
        assert opinion is None or opinion.label != "simple"
    consult = desk(None)
    opinion = await default_classifier().classify(View(text), consult)
    assert opinion is None or opinion.label != "simple"
    assert len(consult.questions) == 1


@given(st.text(st.characters(exclude_categories=()), max_size=300).filter(lambda text: not text.isascii()))
async def test_pain_10_holds_for_any_text_in_any_script(text):
    """Without a configured word or a sign of the app's, nothing is simple."""
    keyword = KeywordClassifier(simple=["zyxw"])
    for classifier in (keyword, SignalClassifier()):
        opinion = await classifier.classify(View(text), Offline())
        assert opinion is None or opinion.label != "simple"


@pytest.mark.parametrize("text", LEANING)
@pytest.mark.parametrize("expected_output", [None, 20])
async def test_pain_11_a_turn_that_leans_is_not_simple(text, expected_output, desk):
    """No rule calls it simple, and Claude is shown what it leans on."""
    view = View(text, context=PLAN, turns=2, expected_output=expected_output)
    for classifier in FREE:
        opinion = await classifier.classify(view, desk())
        assert opinion is None or opinion.label != "simple"
    consult = desk(Classification("complex", 0.9, "claude"))
    assert (await default_classifier().classify(view, consult)).label == "complex"
    assert consult.questions[0].context == PLAN


async def test_pain_12_a_tool_loop_is_classified_once(desk):
    """Every step of one loop is the same view, so that its verdict is asked for once and then found."""
    cache = VerdictCache(secret=b"secret")
    classifier, consult = ClaudeClassifier(), desk(Classification("moderate", 0.9, "claude", cost=50))
    policy = SimpleNamespace(task=None, expected_output=None)
    messages = [{"role": "user", "content": "Find out why orders are late"}]
    for step in range(63):
        body = {"model": "auto", "max_tokens": 900, "messages": list(messages), "tools": [{"name": "query"}]}
        view = view_of(read_call("create", body), policy)
        key = cache.key(view, tenant="t", fingerprint=classifier.fingerprint, version="1")
        verdict, hit = await cache.get_or_ask(key, lambda view=view: classifier.classify(view, consult))
        assert (verdict.label, hit) == ("moderate", step > 0)
        use = {"type": "tool_use", "id": f"t{step}", "name": "query", "input": {"step": step}}
        messages += [
            {"role": "assistant", "content": [use]},
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": f"t{step}", "content": f"rows {step}"}],
            },
        ]
    assert len(consult.questions) == 1
    assert cache.stats().saved == 62 * 50


def test_pain_13_a_verdict_costs_less_than_a_tenth_of_a_small_answer():
    """The longest question that there is on Haiku, against 200 tokens in and 200 out on Sonnet (list prices)."""
    view = View("x" * 4_100, context="c" * 600, task="t" * 500, turns=5)
    body = body_of(ClaudeClassifier().question(view), model="claude-haiku-5-5")
    chars = len(body["system"]) + len(body["messages"][0]["content"])
    # Nano-USD a token: Haiku 5.5 is $0.10 in and $0.50 out for a million, Sonnet 5.5 $2 and $10.
    verdict = chars / 3.2 * 100 + body["max_tokens"] * 500
    assert verdict < (200 * 2_000 + 200 * 10_000) / 10


@pytest.mark.parametrize(
    "view",
    [
        View("Translate to German: good night"),
        View("Prove that it halts"),
        View("Where do you live? Rome", tools=1, forced_tool=True),
        View("Open on Sunday?", expected_output=10),
    ],
)
async def test_pain_13_what_rules_are_sure_of_is_not_asked(view, desk):
    """The cheapest question is the one that is not put."""
    consult = desk(Classification("moderate", 1.0, "claude", cost=50))
    opinion = await default_classifier().classify(view, consult)
    assert opinion.cost == 0
    assert consult.questions == []
