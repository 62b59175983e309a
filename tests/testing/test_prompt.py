"""The tokenizer stand-in and the order of a prompt."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierline.testing._prompt import (
    IMAGE_TOKENS,
    MESSAGE_TOKENS,
    PDF_TOKENS,
    TOOL_TOKENS,
    bytes_of,
    canonical,
    input_tokens,
    latest_text,
    pieces,
    text_tokens,
)
from tierline.testing._rules import MODELS

HAIKU, OPUS, SONNET = MODELS["claude-haiku-4-5"], MODELS["claude-opus-5-5"], MODELS["claude-sonnet-5-5"]


def user(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


@given(st.text(), st.sampled_from(sorted(MODELS)))
def test_never_more_tokens_than_bytes(text: str, model: str) -> None:
    """A text has at most as many tokens as UTF-8 bytes, and none only when it is empty."""
    tokens = text_tokens(text, MODELS[model])
    assert tokens <= len(text.encode())
    assert (tokens == 0) == (text == "")


@given(st.integers(0, 10_000), st.sampled_from([HAIKU, OPUS]))
def test_bytes_of_is_the_inverse(tokens: int, rules: Any) -> None:
    """The most bytes for so many tokens are that many tokens, and one more is over."""
    size = bytes_of(tokens, rules)
    assert text_tokens("x" * size, rules) <= tokens < text_tokens("x" * (size + 4), rules)


def test_later_models_count_thirty_percent_more() -> None:
    """The same text is 1,000 tokens here and 1,300 there."""
    assert (text_tokens("x" * 4_000, HAIKU), text_tokens("x" * 4_000, OPUS)) == (1_000, 1_300)


@pytest.mark.parametrize(
    ("block", "tokens"),
    [
        ({"type": "text", "text": "x" * 40}, 10),
        ({"type": "image", "source": {"type": "url", "url": "u"}}, IMAGE_TOKENS),
        ({"type": "document", "source": {"type": "base64", "data": "A" * 9_999}}, PDF_TOKENS),
        ({"type": "document", "source": {"type": "text", "data": "x" * 40}}, 10),
        ({"type": "document", "source": {"type": "content", "content": "x" * 40}}, 10),
        ({"type": "tool_result", "tool_use_id": "t", "content": "x" * 40}, 10),
        ({"type": "tool_use", "id": "t", "name": "ab", "input": {}}, 1),
        ({"type": "thinking", "thinking": "x" * 40, "signature": "s"}, 10),
        ({"type": "other", "x": 1}, 6),
    ],
)
def test_blocks(block: dict[str, Any], tokens: int) -> None:
    """Each kind of block is counted by what it holds."""
    assert pieces(user(block), HAIKU)[0].tokens == MESSAGE_TOKENS + tokens


def test_unreadable_thinking_costs_nothing() -> None:
    """Sonnet 5.5 drops a thought of Opus, and keeps one of its own."""
    for model, tokens in (("claude-opus-5-5", 0), ("claude-sonnet-5-5", 13)):
        block = {"type": "thinking", "thinking": "x" * 40, "signature": f"fake:{model}:a:b"}
        assert pieces(user(block), SONNET)[0].tokens == MESSAGE_TOKENS + tokens


def test_order_and_sum() -> None:
    """Tools, then the schema, then system, then messages; the sum is what is counted."""
    tool = {"name": "look", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}
    body = {
        **user({"type": "text", "text": "hi"}, {"type": "text", "text": "there"}),
        "system": "Be brief.",
        "tools": [tool],
        "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
    }
    parts = pieces(body, HAIKU)
    assert [part.section for part in parts] == ["tools", "system", "system", "messages", "messages"]
    assert parts[0].tokens <= TOOL_TOKENS + len(json.dumps(tool))
    assert parts[0].cache_control == {"type": "ephemeral"}
    assert input_tokens(parts) == 4 + sum(part.tokens for part in parts)


def test_canonical() -> None:
    """Order of keys, nulls and cache_control make no difference; anything else does."""
    assert canonical({"b": 1, "a": None, "cache_control": {}}) == canonical({"b": 1})
    assert canonical({"b": [{"cache_control": 1}]}) == canonical({"b": [{}]})
    assert canonical({"b": 1}) != canonical({"b": 2})


def test_latest_text() -> None:
    """The last words of a person, from a string or from blocks."""
    assert latest_text({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}) == "a"
    assert latest_text(user({"type": "text", "text": "a"}, {"type": "text", "text": "b"})) == "a\nb"
    assert latest_text({"messages": []}) == ""
