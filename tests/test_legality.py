"""Calls made legal for models that they were not written for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierline.call import Call, read_call
from tierline.errors import ConfigurationError
from tierline.legality import ACTIONS, AS_IT_IS, EFFORT_TOKENS, Fit, actions_of, effort_for, fit
from tierline.models import EFFORTS
from tierline.values import Terms

TURN = [{"role": "user", "content": "hi"}]
FORCED = {"tools": [{"name": "t", "input_schema": {"type": "object"}}], "tool_choice": {"type": "any"}}
OLD, HAIKU, SONNET_4_6, SONNET, OPUS_4_8, OPUS = (
    "claude-haiku-4-5", "claude-haiku-5-5", "claude-sonnet-4-6", "claude-sonnet-5-5", "claude-opus-4-8",
    "claude-opus-5-5",
)  # fmt: skip


def read(**extra: Any) -> Call:
    call = read_call("create", {"model": "auto", "max_tokens": 8_000, "messages": TURN} | extra)
    assert call is not None
    return call


def thinking(kind: str, budget: int | None = None, effort: str | None = None) -> dict[str, Any]:
    said: dict[str, Any] = {"thinking": {"type": kind} | ({"budget_tokens": budget} if budget else {})}
    return said | ({"output_config": {"effort": effort}} if effort else {})


def effort(level: str) -> dict[str, Any]:
    return {"output_config": {"effort": level}}


@pytest.mark.parametrize(
    ("extra", "model", "changes"),
    [
        ({"temperature": 0.5, "top_k": 5}, OLD, {}),
        ({"temperature": 0.5, "top_k": 5}, OPUS, {"temperature": None, "top_k": None}),
        ({"temperature": 0.5, "top_p": 0.5}, OLD, {"top_p": None}),
        ({"temperature": 0.5, "top_p": 0.5}, HAIKU, {"temperature": None, "top_p": None}),
        ({"speed": "fast"}, HAIKU, {"speed": None}),
        ({"max_tokens": 64_001}, OLD, {"max_tokens": 64_000}),
        ({"max_tokens": 64_001}, OPUS, {}),
        (thinking("enabled", 2_048), OLD, {}),
        (thinking("enabled", 2_048), OPUS, thinking("adaptive", effort="low")),
        (thinking("enabled", 2_049), OPUS, thinking("adaptive", effort="medium")),
        (thinking("enabled", 99_999), OPUS, thinking("adaptive", effort="max")),
        (thinking("enabled", 2_048, "high"), OPUS, thinking("adaptive")),
        (thinking("adaptive"), OLD, thinking("enabled", 4_000)),
        (thinking("adaptive", effort="low"), OLD, thinking("enabled", 2_048) | {"output_config": None}),
        (thinking("adaptive") | {"max_tokens": 2_047}, OLD, {"thinking": None}),
        (thinking("adaptive") | {"max_tokens": 2_048}, OLD, thinking("enabled", 1_024)),
        (thinking("disabled"), SONNET, thinking("between_tools")),
        (thinking("disabled"), OPUS, {"thinking": None} | effort("low")),
        (thinking("disabled", effort="high"), OPUS, {"thinking": None}),
        (thinking("disabled", effort="max"), HAIKU, effort("high")),
        (thinking("between_tools"), HAIKU, thinking("disabled")),
        (thinking("between_tools", effort="xhigh"), HAIKU, thinking("disabled", effort="high")),
        (thinking("between_tools"), SONNET_4_6, thinking("disabled")),
        (thinking("between_tools"), OPUS, {"thinking": None} | effort("low")),
        (effort("xhigh"), OLD, {"output_config": None}),
        (effort("xhigh"), SONNET_4_6, effort("high")),
        ({"output_config": {"effort": "low", "format": {"type": "json_schema"}}}, OLD,
         {"output_config": {"format": {"type": "json_schema"}}}),
        (thinking("adaptive") | FORCED, HAIKU, {}),
        (thinking("adaptive") | FORCED, OPUS_4_8, {}),
        (thinking("enabled", 4_000) | FORCED, SONNET_4_6, {"thinking": None}),
        (thinking("disabled", effort="max"), SONNET, thinking("between_tools", effort="high")),
        (thinking("enabled", 70_000) | {"max_tokens": 100_000}, OLD,
         thinking("enabled", 32_000) | {"max_tokens": 64_000}),
        (thinking("enabled", 60_000) | {"max_tokens": 100_000}, OLD, {"max_tokens": 64_000}),
        (thinking("adaptive") | FORCED, OLD, {"thinking": None}),
        ({"thinking": {"display": "omitted", "type": "adaptive"}}, OLD,
         {"thinking": {"display": "omitted", "type": "enabled", "budget_tokens": 4_000}}),
        ({"temperature": 0.5}, "my-own", {}),
    ],
)  # fmt: skip
def test_what_is_rewritten(extra: dict[str, Any], model: str, changes: dict[str, Any]) -> None:
    """What a model rejects becomes what it takes, and the decision is told of it."""
    call = read(**extra)
    found = fit(call, model, call.max_tokens)
    assert (dict(found.changes), found.blocked) == (changes, "")
    assert len(found.reasons) >= bool(changes)


@pytest.mark.parametrize(
    ("extra", "model", "blocked"),
    [
        (FORCED, OPUS, "forced tool"),
        (FORCED | {"temperature": 0.5}, OPUS, "forced tool"),
        ({"messages": [*TURN, {"role": "assistant", "content": "So"}]}, OPUS, "prefill"),
        ({"inference_geo": "us"}, OLD, "inference_geo"),
        ({"tools": [{"type": "computer_20250124", "name": "c"}]}, OPUS, "computer_20250124"),
    ],
)
def test_what_nothing_mends(extra: dict[str, Any], model: str, blocked: str) -> None:
    """Tools, messages and what the law may demand are not touched: the model is passed over."""
    assert fit(read(**extra), model, 8_000) == Fit(blocked=blocked)


def test_terms_follow_the_request() -> None:
    """A request that is no longer fast is billed as one that is not."""
    found = fit(read(speed="fast", inference_geo="us"), HAIKU, 8_000)
    assert found.terms == Terms(geo="us")
    assert fit(read(speed="fast"), OPUS, 8_000) is AS_IT_IS


def test_actions_can_be_changed() -> None:
    """Each kind of trouble can be passed on, refused or left to the API, as the app says."""
    hot = read(temperature=0.5)
    assert fit(hot, OPUS, 9, actions_of({"sampling": "raise"})) == Fit(blocked="sampling")
    assert fit(hot, OPUS, 9, actions_of({"sampling": "refuse"})) == Fit(blocked="sampling", refuse=True)
    assert fit(hot, OPUS, 9, actions_of({"sampling": "send"})) is AS_IT_IS
    assert fit(hot, OPUS, 9, actions_of({"prefill": "refuse"})).changes == {"temperature": None}
    assert actions_of(None) == ACTIONS


@pytest.mark.parametrize(
    ("changed", "says"),
    [({"prefil": "raise"}, "no 'prefil'"), ({"prefill": "drop"}, "none of"), ({"prefill": "rewrite"}, "be rewritten")],
)
def test_actions_that_cannot_be(changed: Any, says: str) -> None:
    """A mistyped kind or action is told at once."""
    with pytest.raises(ConfigurationError, match=says):
        actions_of(changed)


def test_efforts_and_budgets_are_the_same_scale() -> None:
    """An effort that became a budget becomes the same effort again, and more budget is never less effort."""
    assert [effort_for(EFFORT_TOKENS[level]) for level in EFFORTS] == list(EFFORTS)
    assert [effort_for(n) for n in (0, 1_024, 10**9)] == ["low", "low", "max"]
    assert effort_for("lots") == "low"


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_more_budget_is_never_less_effort(one: int, other: int) -> None:
    """The scale is monotone."""
    assert EFFORTS.index(effort_for(min(one, other))) <= EFFORTS.index(effort_for(max(one, other)))


@given(st.integers(0, 8_000_000))
def test_a_prompt_over_the_window(size: int) -> None:
    """A prompt is objected to only where it is over the window by far, and a smaller window objects first."""
    call = read()._replace(text_bytes=size)
    small, large = (fit(call, model, 9).blocked for model in (OLD, HAIKU))
    assert bool(small) == (size > 1_000_000)
    assert bool(large) == (size > 5_000_000)


def test_only_text_makes_a_prompt_too_long() -> None:
    """A picture is as long as it is wide, whatever its file: no model refuses it for its bytes."""
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 1_500_000}}
    document = {"type": "document", "source": {"type": "content", "content": [picture]}}
    many = [*[picture] * 100, {"type": "text", "text": "word " * 110_000}]
    for content in ([document], many):
        assert fit(read(messages=[{"role": "user", "content": content}]), OLD, 9) is AS_IT_IS
    assert fit(read(messages=[{"role": "user", "content": "word " * 210_000}]), OLD, 9).blocked
    assert fit(read(system=[{"type": "text", "text": "word " * 210_000}]), OLD, 9).blocked


def test_an_open_ended_prompt_is_no_objection() -> None:
    """What nobody can measure is not refused for its length."""
    call = read(messages=[{"role": "user", "content": [{"type": "document"}]}])
    assert call.input_bound is None
    assert fit(call, OLD, 9) is AS_IT_IS
