"""The shape of a request: what is refused whatever the model."""

from __future__ import annotations

from typing import Any

import pytest

from tierline.testing._problem import Problem
from tierline.testing._rules import MODELS
from tierline.testing._validate import check_create, check_prompt, rules_of

HAIKU = MODELS["claude-haiku-4-5"]
USER = {"role": "user", "content": "Hello"}
TOOL = {"name": "look", "input_schema": {"type": "object"}}
CALL = {"type": "tool_use", "id": "t1", "name": "look", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "seen"}
MARK = {"type": "ephemeral"}


def text(**extra: Any) -> dict[str, Any]:
    return {"type": "text", "text": "hi", **extra}


def said(*content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(content)}]}


BAD: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": None}, "max_tokens: Field required"),
    ({"max_tokens": True}, "max_tokens: Input should be a valid integer"),
    ({"max_tokens": 1.5}, "max_tokens: Input should be a valid integer"),
    ({"max_tokens": "9"}, "max_tokens: Input should be a valid integer"),
    ({"max_tokens": 0}, "greater than or equal to 1"),
    ({"max_tokens": 64_001}, "64001 > 64000"),
    ({"stream": "yes"}, "stream"),
    ({"messages": None}, "messages: Field required"),
    ({"messages": "hi"}, "messages: Input should be a valid list"),
    ({"messages": []}, "at least one message"),
    ({"messages": ["hi"]}, "messages.0: Input should be an object"),
    ({"messages": [{"role": "assistant", "content": "hi"}]}, "first message must use"),
    ({"messages": [USER, {"role": "robot", "content": "hi"}]}, "messages.1.role"),
    ({"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": ""}]}, "non-empty content"),
    ({"messages": [USER, {"role": "assistant", "content": ""}, USER]}, "non-empty content"),
    ({"messages": [USER, {"role": "assistant", "content": "Well "}]}, "trailing whitespace"),
    (said(), "non-empty content"),
    (said({"text": "hi"}), "messages.0.content.0.type"),
    (said({"type": "text"}), "messages.0.content.0.text"),
    (said({"type": "text", "text": ""}), "must be non-empty"),
    (said(CALL), "`tool_use` blocks are not permitted in user messages"),
    (said(RESULT), "unexpected `tool_use_id`"),
    ({"messages": [USER, {"role": "assistant", "content": [CALL]}, USER]}, "without `tool_result`"),
    ({"messages": [USER, {"role": "assistant", "content": [CALL]}]}, "without `tool_result`"),
    (
        {
            "messages": [
                USER,
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "", "cache_control": MARK}]},
                USER,
            ]
        },
        "cannot be set for thinking",
    ),
    ({"system": 5}, "system"),
    ({"system": [{"type": "image"}]}, "system"),
    ({"system": [{"type": "text", "text": ""}]}, "system: text content blocks"),
    ({"tools": {}}, "tools: Input should be a valid list"),
    ({"tools": ["look"]}, "tools.0"),
    ({"tools": [{"input_schema": {"type": "object"}}]}, "tools.0.custom.name"),
    ({"tools": [{"name": "look up", "input_schema": {"type": "object"}}]}, "should match pattern"),
    ({"tools": [{"name": "look"}]}, "input_schema"),
    ({"tools": [TOOL, TOOL]}, "unique"),
    ({"tool_choice": "auto"}, "tool_choice.type"),
    ({"tool_choice": {"type": "any"}}, "while providing tools"),
    ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "other"}}, "'other' not found"),
    ({"cache_control": {"type": "eternal"}}, "cache_control.type"),
    ({"cache_control": {"type": "ephemeral", "ttl": "1d"}}, "cache_control.ttl"),
    (said(*[text(cache_control=MARK)] * 5), "maximum of 4"),
    ({**said(*[text(cache_control=MARK)] * 4), "cache_control": MARK}, "Found 5"),
    (said(text(cache_control=MARK), text(cache_control={**MARK, "ttl": "1h"})), "must not come after"),
    ({"output_config": "json"}, "output_config"),
    ({"output_config": {"effort": "extreme"}}, "output_config.effort"),
    ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
    ({"output_format": {"type": "json_schema"}}, "output_format.schema"),
    ({"thinking": "on"}, "thinking.type"),
    ({"thinking": {"type": "sometimes"}}, "thinking.type"),
    ({"thinking": {"type": "enabled"}}, "budget_tokens"),
    ({"thinking": {"type": "enabled", "budget_tokens": True}}, "budget_tokens"),
    ({"thinking": {"type": "enabled", "budget_tokens": 1023}}, "greater than or equal to 1024"),
    ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "greater than `thinking.budget_tokens`"),
    ({"thinking": {"type": "enabled", "budget_tokens": 1024}, "temperature": 0.5}, "only be set to 1"),
    ({"thinking": {"type": "enabled", "budget_tokens": 1024}, "top_k": 5}, "`top_k` must be unset"),
    (
        {"thinking": {"type": "enabled", "budget_tokens": 1024}, "tools": [TOOL], "tool_choice": {"type": "any"}},
        "Thinking may not be enabled",
    ),
    (
        {
            "thinking": {"type": "enabled", "budget_tokens": 1024},
            "messages": [USER, {"role": "assistant", "content": "Well"}],
        },
        "may not be from the assistant",
    ),
    ({"temperature": 1.1}, "temperature: range"),
    ({"temperature": "hot"}, "temperature: Input should be a valid number"),
    ({"top_p": -0.1}, "top_p: range"),
    ({"stop_sequences": "END"}, "stop_sequences: Input should be a valid list"),
    ({"stop_sequences": [" "]}, "non-whitespace"),
    ({"speed": "warp"}, "speed"),
    ({"tierline": 1}, "tierline: Extra inputs are not permitted"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_refused(change: dict[str, Any], message: str) -> None:
    """A 400 names the field."""
    with pytest.raises(Problem) as caught:
        check_create({"max_tokens": 2000, "messages": [USER], "model": HAIKU.id, **change}, HAIKU)
    assert (caught.value.status, caught.value.type) == (400, "invalid_request_error")
    assert message in caught.value.message


GOOD: list[dict[str, Any]] = [
    {"messages": [USER, {"role": "assistant", "content": [CALL]}, {"role": "user", "content": [RESULT, text()]}]},
    {"messages": [USER, {"role": "assistant", "content": ""}]},
    {"messages": [USER, USER, {"role": "system", "content": "Be brief."}, USER]},
    {"temperature": None, "top_p": None, "thinking": None, "tool_choice": None, "system": None, "tools": None},
    said(text(cache_control={**MARK, "ttl": "1h"}), text(cache_control=MARK)),
    {"thinking": {"type": "enabled", "budget_tokens": 1999}, "temperature": 1},
]


@pytest.mark.parametrize("change", GOOD)
def test_accepted(change: dict[str, Any]) -> None:
    """What the API accepts passes."""
    check_create({"max_tokens": 2000, "messages": [USER], "model": HAIKU.id, **change}, HAIKU)


def test_unknown_geo() -> None:
    """Only `us` and `global` are places."""
    with pytest.raises(Problem, match="inference_geo"):
        check_create({"max_tokens": 1, "messages": [USER], "inference_geo": "eu"}, MODELS["claude-opus-5-5"])


def test_counting_takes_fewer_fields() -> None:
    """`max_tokens` is no field of a token count."""
    check_prompt({"model": HAIKU.id, "messages": [USER]}, HAIKU)
    with pytest.raises(Problem, match="max_tokens: Extra inputs"):
        check_prompt({"model": HAIKU.id, "messages": [USER], "max_tokens": 5}, HAIKU)


@pytest.mark.parametrize(("model", "status"), [(None, 400), (5, 400), ("", 400), ("auto", 404), ("claude-2.1", 404)])
def test_no_model(model: object, status: int) -> None:
    """What is no id is a 400, what is no model is a 404."""
    with pytest.raises(Problem) as caught:
        rules_of(model, {})
    assert caught.value.status == status


def test_dated_ids() -> None:
    """The dated id of a model is that model."""
    assert rules_of("claude-haiku-4-5-20251001", {}) is HAIKU
