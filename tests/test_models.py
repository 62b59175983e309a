"""The table of models, against the published one."""

from __future__ import annotations

from typing import Any

import pytest

from tierline.call import read_call
from tierline.models import EFFORTS, MODELS, THINKING, model_of

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
    ({"tools": [{"name": "t"}], "tool_choice": {"type": "any"}, "thinking": {"type": "adaptive"}}, "nynnnnn"),
    ({"speed": "fast"}, "nnnnyyy"),
    ({"speed": "standard"}, "yyyyyyy"),
    ({"tools": [{"type": "computer_20250124", "name": "c"}]}, "ynnnnnn"),
    ({"tools": [{"type": "computer_20251124", "name": "c"}]}, "nnynynn"),
    ({"tools": [{"type": "computer_toolset_20260801", "name": "c"}]}, "nynynyy"),
]


@pytest.mark.parametrize(("extra", "row"), TABLE)
def test_the_table(extra: dict[str, Any], row: str) -> None:
    """Every cell of the published table is answered as the API does."""
    call = read_call("create", {"model": "auto", "max_tokens": 2048, "messages": TURN} | extra)
    assert call is not None
    assert "".join("n" if MODELS[model].rejects & call.features else "y" for model in COLUMNS) == row


def test_the_columns_are_all_models() -> None:
    """No model is in the code and not in the table."""
    assert set(COLUMNS) == set(MODELS)


def test_entries_hold_together() -> None:
    """What an entry says of thinking and effort is known, and does not contradict itself."""
    for model in MODELS.values():
        assert set(model.thinking) <= set(THINKING)
        assert set(model.efforts) <= set(EFFORTS)
        assert model.quiet in ("", *model.thinking)
        assert (model.thinks == "always") == (not model.quiet and model.thinks != "asked")
        assert model.max_output <= model.window


def test_a_dated_id_is_the_same_model() -> None:
    """The snapshot of a model is the model; an id that nobody knows is none."""
    assert model_of("claude-opus-5-5-20261001") is model_of("claude-opus-5-5") is MODELS["claude-opus-5-5"]
    assert model_of("my-own") is None
