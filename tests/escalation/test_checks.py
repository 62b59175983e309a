"""Structural checks: what is seen of an answer at no cost, and what must not be mistaken for a poor one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierline.escalation import Escalate
from tierline.escalation.answers import Answer, Wanted, read_answer, wanted_by
from tierline.escalation.checks import begins_as_json, structural

USUAL = Escalate()
TEXT = Wanted()
JSON = Wanted(json=True)


def kind(text: str, wanted: Wanted = TEXT, rules: Escalate = USUAL, **more: Any) -> str:
    found = structural(Answer(text, **{"stop_reason": "end_turn", **more}), wanted, rules)
    return "" if found is None else found.kind


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.", "I can’t assist with this request.", "I cannot provide legal advice.",
        "Sorry, I'm unable to help with that.", "I apologize, but I am not able to discuss this.",
        "Unfortunately, I cannot answer that.", "As an AI language model, I cannot provide medical advice.",
        "I won't create that kind of content.", "I'm not comfortable writing this.", "I must decline.",
        "I can't really help here.",
    ],
)  # fmt: skip
def test_refusals(text: str) -> None:
    """An answer that begins like a refusal is one, unless nobody looks for them."""
    assert kind(text) == "refusal"
    assert kind(text, rules=Escalate(refusals=False, unsure=False)) == ""


@pytest.mark.parametrize(
    "text",
    [
        "I'm not sure about that.", "I am not entirely certain.", "I don't know.", "Honestly, I do not know.",
        "Well. I'm not sure, but it may be 7.", "I’m unsure.", "Sorry, I have no idea.",
        "I don't have enough information to say.", "Well, I cannot be sure.",
    ],
)  # fmt: skip
def test_unsure(text: str) -> None:
    """An answer in whose first sentences the model says that it does not know is not sure."""
    assert kind(text) == "unsure"
    assert kind(text, rules=Escalate(unsure=False)) == ""


@pytest.mark.parametrize(
    "text",
    [
        "", "Paris.", "You can't help with that? Try this.", "He said: “I don't know”.", "I can help with that.",
        "I cannot reproduce the bug with version 3, so it is fixed.", "The customer says they are not sure.",
        "I'm sure. " * 50 + "I'm not sure.", "If you don't know the port, look it up.",
        "Write: 'I am sorry, but I cannot attend.'", "We are unable to ship to Malta.",
    ],
)  # fmt: skip
def test_good_answers(text: str) -> None:
    """Words of a refusal in the midst of an answer, of somebody else's, or far from its beginning are no refusal."""
    assert kind(text) == ""


def test_phrases_of_the_apps_own() -> None:
    """Further phrases count at the beginning of an answer, in any case."""
    rules = Escalate(phrases=("weiß ich nicht",))
    assert kind("Das WEIß ich nicht.", rules=rules) == "phrase"
    assert kind("x" * 400 + "weiß ich nicht", rules=rules) == ""
    assert kind("Das weiß ich.", rules=rules) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1}', ""), (" [1, 2] ", ""), ('"x"', ""), ("", "json"), ('{"a": 1', "json"),
        ("```json\n{}\n```", "json"),
        ("Sure: {}", "json"), ('{"a": NaN}', "json"), ("[" * 100_000, "json"), ('{"said": "I\'m not sure"}', ""),
    ],
)  # fmt: skip
def test_json(text: str, expected: str) -> None:
    """Where JSON is asked for the whole text must be that, and nothing in it is taken for a phrase."""
    assert kind(text, JSON) == expected
    assert kind(text, rules=Escalate(json=True)) == expected
    assert kind(text, rules=Escalate(schema={})) == expected


def test_schema() -> None:
    """The request's own schema and the app's must both be met; the reason has the keyword, and no words of it."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    assert kind('{"n": 1}', Wanted(True, schema)) == ""
    found = structural(Answer('{"secret": 1}'), Wanted(True, schema), USUAL)
    assert found == ("schema", "it does not meet the schema (required)")
    rules = Escalate(schema={"properties": {"n": {"maximum": 5}}})
    assert kind('{"n": 9}', Wanted(True, schema), rules) == "schema"
    assert kind('{"n": 4}', Wanted(True, schema), rules) == ""


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.69, "confidence"), (0, "confidence"), (0.7, ""), (1, ""), (None, ""), ("0.1", ""), (True, ""), (False, "")],
)
def test_confidence(value: object, expected: str) -> None:
    """A number under the least one fails; what is missing or no number says nothing."""
    rules = Escalate(json=True, min_confidence=0.7)
    assert kind(json.dumps({"confidence": value}), rules=rules) == expected
    assert kind(
        json.dumps({"sure": value}), rules=Escalate(json=True, min_confidence=0.7, confidence_field="sure")
    ) == (expected)
    assert kind(json.dumps([value]), rules=rules) == ""
    assert kind(json.dumps({"confidence": value}), JSON) == ""


def test_how_an_answer_ends() -> None:
    """One that was cut off or refused fails whatever it says; one that calls a tool is an answer."""
    assert kind("Paris", stop_reason="max_tokens") == "truncated"
    assert kind("Paris", stop_reason="model_context_window_exceeded") == "truncated"
    assert kind("Paris", stop_reason="max_tokens", rules=Escalate(truncated=False)) == ""
    assert kind("", stop_reason="max_tokens", calls=True) == "truncated"
    assert kind("", stop_reason="refusal") == "refusal"
    assert kind("", stop_reason="refusal", rules=Escalate(refusals=False)) == ""
    assert kind("I'm not sure, let me look.", stop_reason="tool_use", calls=True) == ""
    assert kind("I don't know yet", JSON, stop_reason="pause_turn") == ""
    assert kind("", error="overloaded_error") == "error"


@pytest.mark.parametrize("text", ["I", "Here", "```", "[Note", "{a", "{ 'a", "1. First", "no", "tea", "[ x", "-x"])
def test_beginnings_that_are_no_json(text: str) -> None:
    """The first characters tell that a text cannot become JSON."""
    assert not begins_as_json(text)
    assert kind(text, JSON, whole=False) == "json"


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(_JSON, st.integers(0, 60), st.integers(0, 4))
def test_every_beginning_of_json_is_one(value: Any, length: int, indent: int) -> None:
    """No beginning of JSON, however it is written, is taken for something else."""
    text = json.dumps(value, indent=indent or None)
    assert begins_as_json(text[:length])
    assert kind(text[:length], JSON, whole=False) == ""
    assert kind(text, JSON) == ""


@given(st.text())
def test_any_text(text: str) -> None:
    """Whatever an answer says, something is said of it, and nothing raised."""
    for whole in (True, False):
        assert kind(text, whole=whole) in ("", "refusal", "unsure")
        assert kind(text, JSON, whole=whole) in ("", "json")


def test_what_a_request_wants() -> None:
    """A request asks for JSON in either spelling of structured outputs; a prefill is the beginning of the answer."""
    schema = {"type": "object"}
    form = {"type": "json_schema", "schema": schema}
    assert wanted_by({"output_config": {"format": form}}) == Wanted(True, schema)
    assert wanted_by({"output_format": form}) == Wanted(True, schema)
    assert wanted_by({"output_config": {"effort": "low"}, "messages": [{"role": "user", "content": "{"}]}) == Wanted()
    said = [{"role": "user", "content": "x"}, {"role": "assistant", "content": [{"type": "text", "text": "{"}]}]
    wanted = wanted_by({"messages": said})
    assert wanted.begins == "{"
    assert kind('"a": 1}', wanted, Escalate(json=True)) == ""
    assert kind("a", wanted, Escalate(json=True), whole=False) == "json"


@pytest.mark.parametrize(
    "body",
    [{}, {"messages": None}, {"messages": [1]}, {"output_config": 1}, {"output_config": {"format": {"schema": 1}}}],
)
def test_what_no_request_wants(body: Any) -> None:
    """Whatever is in a body is read."""
    assert wanted_by(body) == Wanted()


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"content": 1}', b"\xff", b"[" * 100_000])
def test_no_message(document: bytes) -> None:
    """What is no message is no answer."""
    assert read_answer(document) is None


def test_a_message() -> None:
    """Thoughts are no part of an answer's text, and its text is in no repr."""
    blocks = [{"type": "thinking", "thinking": "I don't know"}, {"type": "text", "text": "canary"}, 1]
    answer = read_answer(json.dumps({"content": blocks, "stop_reason": "end_turn"}).encode())
    assert answer == Answer("canary", "end_turn")
    assert "canary" not in repr(answer)
    calls = {"content": [{"type": "server_tool_use"}], "stop_reason": None}
    assert read_answer(json.dumps(calls).encode()) == Answer("", None, calls=True)
