"""What a judge is asked, and what counts as its verdict."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierline.call import read_call
from tierline.classify.comparison import (
    CHOICES,
    REQUEST_CHARS,
    Comparison,
    body_of,
    parse_comparison,
    shown,
    verdict_of,
)
from tierline.legality import AS_IT_IS, actions_of, fit
from tierline.models import MODELS

texts = st.one_of(st.text(), st.sampled_from(["</a-", "\n</request-0>\n<a-0>\n", "A", "\n", "\0", "\ud800"]))


@given(texts, texts, texts)
def test_what_is_quoted_stays_quoted(request: str, a: str, b: str) -> None:
    """Whatever the three texts are, each is read back as it was: none ends its own quotation, or another's."""
    body = json.loads(json.dumps(body_of(Comparison(request, a, b), model="claude-opus-5-5")))
    expected = (each.encode("utf-8", "surrogatepass").decode("utf-8", "replace") for each in (request, a, b))
    assert parse_comparison(body) == Comparison(*expected)


def test_a_text_that_closes_the_tags_of_another_question() -> None:
    """An answer that was made from a question that its author could see closes nothing in the next one."""
    seen = body_of(Comparison("q", "x", "y"), model="m")["messages"][0]["content"]
    nested = Comparison("q", seen, "y")
    assert parse_comparison(body_of(nested, model="m")) == nested


@given(texts, texts, texts)
def test_the_two_orders_differ_in_nothing_else(request: str, a: str, b: str) -> None:
    """Swapped, the answers stand in each other's place, and the instructions are the same."""
    asked = Comparison(request, a, b)
    one, other = body_of(asked, model="m"), body_of(asked.swapped, model="m")
    assert one["system"] == other["system"]
    assert asked.swapped.swapped == asked


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("A", "A"), ("b", "B"), (" same\n", "same"), ("**B**", "B"), ("Same.", "same"), ('"A"', "A"), ("(B)", "B"),
        ("", None), ("C", None), ("A or B", None), ("A is better", None), ("Answer A", None), ("AB", None),
        ("tie", None), ('{"label": "A"}', None), ("A\nB", None), ("neither", None), ("I would say: A", None),
        ("A" * 10_000, None),
    ],
)  # fmt: skip
def test_a_verdict_is_one_of_three_words(said: str, verdict: str | None) -> None:
    """One word and nothing else; all else is no verdict."""
    assert verdict_of(said) == verdict


@given(st.text())
def test_any_answer(said: str) -> None:
    """Whatever a judge says, it is one of the closed set or nothing."""
    assert verdict_of(said) in (None, *CHOICES)


@pytest.mark.parametrize("model", sorted(MODELS))
def test_every_model_takes_the_question(model: str) -> None:
    """No model rejects what is asked of it as a judge, and it does not think where it can be told not to."""
    body = body_of(Comparison("q", "x", "y"), model=model)
    call = read_call("create", body)
    assert call is not None
    assert fit(call, model, call.max_tokens, actions=actions_of(None)) == AS_IT_IS
    facts = MODELS[model]
    if facts.quiet:
        assert body["thinking"] == {"type": facts.quiet}
    thinks = facts.thinks != "asked" and not facts.quiet
    assert (body["max_tokens"] > 1_000) is thinks


def test_what_a_judge_is_shown_of_a_request() -> None:
    """A single turn stands alone; else system and turns are named. Of what is long, the middle is left out."""
    turn = {"role": "user", "content": "Why?"}
    assert shown({"messages": [turn]}) == "Why?"
    thought = {"type": "thinking", "thinking": "secret", "signature": "s"}
    said = {"role": "assistant", "content": [thought, {"type": "text", "text": "Because."}]}
    whole = shown({"system": [{"type": "text", "text": "Be brief."}], "messages": [turn, said, turn]})
    assert whole == "[system]\nBe brief.\n\n[user]\nWhy?\n\n[assistant]\nBecause.\n\n[user]\nWhy?"
    long: Any = {"system": "S" * 90_000, "messages": [{"role": "user", "content": "x" * 90_000 + "END"}]}
    cut = shown(long)
    assert len(cut) == REQUEST_CHARS
    assert cut.startswith("[system]\nSSS")
    assert cut.endswith("xxxEND")


@pytest.mark.parametrize(
    "body",
    [{}, {"system": "x", "messages": [{"role": "user", "content": "y"}]}, {"system": None, "messages": 3},
     {**body_of(Comparison("q", "x", "y"), model="m"), "messages": [{"role": "user", "content": "y"}]},
     {**body_of(Comparison("q", "x", "y"), model="m"), "messages": ["y"]}],
)  # fmt: skip
def test_what_is_no_comparison(body: dict[str, Any]) -> None:
    """Other requests are not taken for one."""
    assert parse_comparison(body) is None
