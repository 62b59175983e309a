"""What is said, and how it is cut."""

from __future__ import annotations

from typing import Any

import pytest

from tierline.testing._answer import Reply, compose, default_reply, obey_choice
from tierline.testing._prompt import text_tokens
from tierline.testing._rules import MODELS

HAIKU, THINKER = MODELS["claude-haiku-4-5"], MODELS["claude-haiku-5-5"]
TOOL = {"name": "look", "input_schema": {"type": "object", "properties": {"at": {"type": "string"}}}}


def body(max_tokens: int = 500, **extra: Any) -> dict[str, Any]:
    return {"max_tokens": max_tokens, "messages": [{"role": "user", "content": "Tell me of rivers"}], **extra}


def draft(reply: Reply, rules: Any = HAIKU, **extra: Any) -> Any:
    return compose(body(**extra), rules, reply, prompt=10, tool_id="toolu_1")


def test_text_is_cut_at_max_tokens() -> None:
    """No more tokens are used than there is room for, and no character is halved."""
    found = draft(Reply(text="é" * 100), max_tokens=7)
    assert (found.stop_reason, found.output_tokens) == ("max_tokens", 7)
    assert found.blocks[0][0]["text"] == "é" * 14


def test_an_answer_that_just_fits_has_ended() -> None:
    """Using all of the room is not the same as being cut."""
    found = draft(Reply(text="x" * 40), max_tokens=10)
    assert (found.stop_reason, found.output_tokens) == ("end_turn", 10)


def test_thinking_comes_out_of_the_same_room() -> None:
    """80 tokens of thought leave 20 for the text."""
    found = draft(Reply(text="x" * 4_000), THINKER, max_tokens=100)
    assert [tokens for _, tokens in found.blocks] == [80, 20]
    assert (found.thinking_tokens, found.output_tokens, found.stop_reason) == (80, 100, "max_tokens")
    own = draft(Reply(text="Hi", thinking="Mm. " * 10), THINKER)
    assert own.blocks[0][0]["thinking"] == "Mm. " * 10


def test_stop_sequences() -> None:
    """The earliest one ends the text and is not part of it."""
    found = draft(Reply(text="one two three"), stop_sequences=["three", "two"])
    assert (found.blocks[0][0]["text"], found.stop_reason, found.stop_sequence) == ("one ", "stop_sequence", "two")
    assert draft(Reply(text="one"), stop_sequences=["one"]).blocks == []


def test_a_tool_call_that_does_not_fit_is_none() -> None:
    """Half a call cannot be run."""
    found = draft(Reply(text="Let me look.", tool="look"), max_tokens=5, tools=[TOOL])
    assert [block["type"] for block, _ in found.blocks] == ["text"]
    assert found.stop_reason == "max_tokens"


def test_tool_input() -> None:
    """It is given, or made from the schema; a tool without a schema gets none, one that is not there is an error."""
    assert draft(Reply(tool="look", input={"at": "x"}), tools=[TOOL]).blocks[0][0]["input"] == {"at": "x"}
    assert draft(Reply(tool="look"), tools=[TOOL]).blocks[0][0]["input"] == {"at": "example at"}
    assert draft(Reply(tool="bash"), tools=[{"type": "bash_20250124", "name": "bash"}]).blocks[0][0]["input"] == {}
    with pytest.raises(ValueError, match="'look'"):
        draft(Reply(tool="look"))


def test_tokens_that_are_told() -> None:
    """`output_tokens` is taken as said, up to `max_tokens`."""
    assert draft(Reply(text="x", output_tokens=300)).output_tokens == 300
    over = draft(Reply(text="x", output_tokens=501))
    assert (over.output_tokens, over.stop_reason) == (500, "max_tokens")


def test_an_empty_answer_costs_a_token() -> None:
    """Nothing said is still one token, as the API counts it."""
    found = draft(Reply(text=""))
    assert (found.blocks, found.output_tokens, found.stop_reason) == ([], 1, "end_turn")


def test_obedience() -> None:
    """A forced choice turns text into a call, and leaves calls and refusals alone."""
    forced = body(tools=[TOOL], tool_choice={"type": "tool", "name": "look"})
    assert obey_choice(forced, Reply(text="Hi")) == Reply(tool="look")
    assert obey_choice(forced, Reply(tool="other")).tool == "other"
    assert obey_choice(forced, Reply(stop_reason="refusal")).tool is None
    assert obey_choice(body(tools=[TOOL], tool_choice={"type": "any"}), Reply(text="Hi")).tool == "look"
    assert obey_choice(body(tools=[TOOL]), Reply(text="Hi")).text == "Hi"


def test_the_default_is_longer_for_longer_prompts_and_larger_models() -> None:
    """So that costs differ, mildly by model."""
    lengths = []
    for model, prompt in (("claude-haiku-4-5", 20), ("claude-haiku-4-5", 4_000), ("claude-sonnet-4-6", 4_000)):
        reply = default_reply(body(), MODELS[model], prompt=prompt, seed=None)
        lengths.append(text_tokens(str(reply.text), MODELS[model]))
    assert lengths == sorted(set(lengths))
    assert lengths[0] < 45
    assert lengths[-1] < 500


def test_the_default_for_a_schema_is_json() -> None:
    """Structured outputs are answered in kind, in both spellings."""
    wanted = {"type": "json_schema", "schema": TOOL["input_schema"]}
    for extra in ({"output_config": {"format": wanted}}, {"output_format": wanted}):
        assert default_reply(body(**extra), HAIKU, prompt=10, seed=None).text == '{"at": "example at"}'


def test_a_prompt_without_words() -> None:
    """An image alone is answered too."""
    silent = {"max_tokens": 9, "messages": [{"role": "user", "content": [{"type": "image"}]}]}
    assert default_reply(silent, HAIKU, prompt=10, seed=None).text
