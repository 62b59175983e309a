from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierline.call import read_call
from tierline.legality import MODELS, accepts, objection

TURN = [{"role": "user", "content": "hi"}]
COLUMNS = (
    "claude-haiku-4-5", "claude-haiku-5-5", "claude-sonnet-4-6", "claude-sonnet-5-5", "claude-opus-4-8",
    "claude-opus-5-5", "claude-fable-5-2",
)  # fmt: skip

# The published table, row by row: one letter for each of COLUMNS, y where the API takes it and n where it is a 400.
TABLE: list[tuple[dict[str, Any], str]] = [
    ({}, "yyyyyyy"),
    ({"temperature": 0.5}, "ynynnnn"),
    ({"top_p": 0.5}, "ynynnnn"),
    ({"top_k": 5}, "ynynnnn"),
    ({"temperature": 0.5, "top_p": 0.5}, "nnnnnnn"),
    ({"temperature": None}, "yyyyyyy"),
    ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "ynynnnn"),
    ({"thinking": {"type": "adaptive"}}, "nyyyyyy"),
    ({"thinking": {"type": "disabled"}}, "yyynynn"),
    ({"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}, "nyynynn"),
    ({"thinking": {"type": "disabled"}, "output_config": {"effort": "max"}}, "nnynynn"),
    ({"output_config": {"effort": "low"}}, "nyyyyyy"),
    ({"output_config": {"effort": "xhigh"}}, "nynyyyy"),
    ({"output_config": {"format": {}}}, "yyyyyyy"),
    ({"tools": [{"name": "t"}], "tool_choice": {"type": "any"}}, "yyynynn"),
    ({"tools": [{"name": "t"}], "tool_choice": {"type": "tool", "name": "t"}}, "yyynynn"),
    ({"tools": [{"name": "t"}], "tool_choice": {"type": "auto"}}, "yyyyyyy"),
    ({"messages": [*TURN, {"role": "assistant", "content": "So"}]}, "ynnnnnn"),
    ({"messages": [*TURN, {"role": "assistant", "content": "So"}, *TURN]}, "yyyyyyy"),
    ({"inference_geo": "us"}, "nyyyyyy"),
    ({"speed": "fast"}, "nnnnyyy"),
    ({"speed": "standard"}, "yyyyyyy"),
    ({"tools": [{"type": "computer_20250124", "name": "c"}]}, "ynnnnnn"),
    ({"tools": [{"type": "computer_20251124", "name": "c"}]}, "nnynynn"),
    ({"tools": [{"type": "computer_toolset_20260801", "name": "c"}]}, "nynynyy"),
    ({"max_tokens": 64_000}, "yyyyyyy"),
    ({"max_tokens": 64_001}, "nyyyyyy"),
    ({"max_tokens": 128_001}, "nnnnnnn"),
]


@pytest.mark.parametrize(("extra", "row"), TABLE)
def test_the_table(extra: dict[str, Any], row: str) -> None:
    """Every cell of the published table is answered as the API does."""
    body = {"model": "auto", "max_tokens": 2048, "messages": TURN} | extra
    call = read_call("create", body)
    assert call is not None
    found = "".join("n" if objection(call, model, call.max_tokens) else "y" for model in COLUMNS)
    assert found == row


def test_the_columns_are_all_models() -> None:
    """No model is in the code and not in the table."""
    assert set(COLUMNS) == set(MODELS)


def test_a_dated_id_is_the_same_model() -> None:
    """The snapshot of a model rejects what the model rejects."""
    call = read_call("create", {"model": "auto", "max_tokens": 9, "messages": TURN, "top_k": 1})
    assert call is not None
    assert objection(call, "claude-opus-5-5-20261001", 9) == objection(call, "claude-opus-5-5", 9) != ""
    assert accepts("claude-opus-5-5-20261001") is accepts("claude-opus-5-5") is not None


def test_an_unknown_model_accepts_everything() -> None:
    """Of a model that nobody knows, the API has the last word."""
    call = read_call("create", {"model": "auto", "max_tokens": 10**8, "messages": TURN, "top_k": 1, "speed": "fast"})
    assert call is not None
    assert objection(call, "my-own", 10**8) == ""
    assert accepts("my-own") is None


@given(st.integers(0, 8_000_000))
def test_a_prompt_over_the_window(size: int) -> None:
    """A prompt is objected to only where it is over the window by far, and a smaller window objects first."""
    call = read_call("create", {"model": "auto", "max_tokens": 9, "messages": TURN})
    assert call is not None
    call = call._replace(input_bound=size)
    small, large = (objection(call, model, 9) for model in ("claude-haiku-4-5", "claude-haiku-5-5"))
    assert bool(small) == (size > 1_000_000)
    assert bool(large) == (size > 5_000_000)


def test_an_open_ended_prompt_is_no_objection() -> None:
    """What nobody can measure is not refused for its length."""
    body = {"model": "auto", "max_tokens": 9, "messages": [{"role": "user", "content": [{"type": "document"}]}]}
    call = read_call("create", body)
    assert call is not None
    assert call.input_bound is None
    assert objection(call, "claude-haiku-4-5", 9) == ""
