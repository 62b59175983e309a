"""Thoughts are signed, and what stood before them may not change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anthropic
import pytest
from anthropic import AsyncAnthropic

from tierline.testing._rules import MODELS
from tierline.testing._thinking import thinking_tokens

if TYPE_CHECKING:
    from tierline.testing import FakeClaude

OPUS, SONNET = "claude-opus-5-5", "claude-sonnet-5-5"
TOOL = {"name": "look", "input_schema": {"type": "object"}}


async def first_turn(client: AsyncAnthropic, model: str = OPUS, **extra: Any) -> list[Any]:
    ask = [{"role": "user", "content": "Hello"}]
    message = await client.messages.create(model=model, max_tokens=600, messages=ask, **extra)
    return [*ask, {"role": "assistant", "content": message.content}, {"role": "user", "content": "And then?"}]


async def test_a_conversation_goes_on(client: AsyncAnthropic) -> None:
    """Unchanged turns pass, on the same model and on others, also with another effort and cache marks."""
    turns = await first_turn(client, system="Be brief.", tools=[TOOL])
    marked = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    for model in MODELS:
        await client.messages.create(model=model, max_tokens=700, messages=turns, system=marked, tools=[TOOL])
    await client.messages.create(
        model=OPUS, max_tokens=700, messages=turns, system=marked, tools=[TOOL], output_config={"effort": "low"}
    )


@pytest.mark.parametrize("change", ["system", "tools", "earlier"])
async def test_an_edit_before_a_thought_is_refused(client: AsyncAnthropic, change: str) -> None:
    """System, tools and earlier messages are bound by a 5.x thought, for 5.x models."""
    turns = await first_turn(client)
    extra: dict[str, Any] = {}
    if change == "earlier":
        turns[0] = {"role": "user", "content": "Goodbye"}
    else:
        extra = {"system": "Be brief."} if change == "system" else {"tools": [TOOL]}
    with pytest.raises(anthropic.BadRequestError, match="have changed"):
        await client.messages.create(model=OPUS, max_tokens=600, messages=turns, **extra)
    # Sonnet 5.5 cannot read it, and 4.x models do not check.
    for model in (SONNET, "claude-opus-4-8"):
        await client.messages.create(model=model, max_tokens=600, messages=turns, **extra)


async def test_an_edited_thought_is_refused(client: AsyncAnthropic) -> None:
    """A thought must come back as it was; one that was made elsewhere passes."""
    turns = await first_turn(client)
    block = turns[1]["content"][0].model_dump()
    turns[1] = {"role": "assistant", "content": [{**block, "thinking": "Other"}, {"type": "text", "text": "Hi"}]}
    with pytest.raises(anthropic.BadRequestError, match="Invalid `signature`"):
        await client.messages.create(model=OPUS, max_tokens=600, messages=turns)
    turns[1]["content"][0]["signature"] = "from elsewhere"
    await client.messages.create(model=OPUS, max_tokens=600, messages=turns)


async def test_display_omitted(fake: FakeClaude, client: AsyncAnthropic) -> None:
    """The text is kept back, the signature and the price are not."""
    ask = [{"role": "user", "content": "Hello"}]
    message = await client.messages.create(
        model=OPUS, max_tokens=600, messages=ask, thinking={"type": "adaptive", "display": "omitted"}
    )
    assert (message.content[0].thinking, bool(message.content[0].signature)) == ("", True)
    assert message.usage.output_tokens_details.thinking_tokens == 160


@pytest.mark.parametrize(
    ("model", "body", "tokens"),
    [
        ("claude-haiku-4-5", {}, 0),
        ("claude-haiku-4-5", {"thinking": {"type": "enabled", "budget_tokens": 1024}}, 192),
        ("claude-opus-4-8", {"thinking": {"type": "adaptive"}}, 161),
        ("claude-haiku-5-5", {}, 81),
        ("claude-haiku-5-5", {"thinking": {"type": "disabled"}}, 0),
        (SONNET, {"thinking": {"type": "between_tools"}}, 0),
        (SONNET, {"output_config": {"effort": "low"}}, 41),
        (OPUS, {"output_config": {"effort": "max"}}, 641),
    ],
)
def test_how_much(model: str, body: dict[str, Any], tokens: int) -> None:
    """Effort and budget say how much is spent; a prompt of 50 tokens adds one."""
    assert thinking_tokens(body, MODELS[model], 50) == tokens
