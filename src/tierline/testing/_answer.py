"""From a reply to the content of a message: what it says, what it spends, and why it stops."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import cycle
from random import Random
from typing import TYPE_CHECKING, Any, Final

from tierline.testing._prompt import bytes_of, canonical, latest_text, output_schema, text_tokens
from tierline.testing._schema import example
from tierline.testing._thinking import sign, thinking_tokens

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tierline.testing._rules import ModelRules

_TOOL_FRAME: Final = 8
"""Tokens of a tool call beside its name and input."""
_THOUGHT: Final = "Weighing what is asked, what is known, and what would be a good answer. "
_SENTENCES: Final = (
    "Here is a direct answer to what you asked.",
    "The main point comes first, the details follow.",
    "It depends on a few things that are worth naming.",
    "In most cases the simple way is the right one.",
    "One exception should be kept in mind.",
    "The numbers bear this out.",
    "If anything here is unclear, ask for an example.",
)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model is to say, where a plain string is not enough.

    - `tool` calls a tool by name; its `input` is made from the tool's schema unless it is given
    - `thinking` replaces the text of the thinking, where the model thinks
    - `stop_reason` replaces the one that follows from the content: `"refusal"`, `"pause_turn"`
    - `output_tokens` is what the whole answer is said to spend, thinking included; at most `max_tokens` are used
    - `input_tokens` is what the prompt is said to have, its cached part included; by default it is counted
    - `seconds` until its first byte, in place of the fake's `latency`
    - `web_searches` are counted, and billed, as server tool requests
    - `content` are the blocks of the answer as the API has them, in place of `text`, `tool` and `thinking`; what was
      cut off by a stop sequence has that in `stop_sequence`
    """

    text: str | None = None
    tool: str | None = None
    input: Mapping[str, Any] | None = None
    thinking: str | None = None
    stop_reason: str | None = None
    output_tokens: int | None = None
    web_searches: int = 0
    input_tokens: int | None = None
    seconds: float | None = None
    content: tuple[Mapping[str, Any], ...] | None = None
    stop_sequence: str | None = None


@dataclass(slots=True)
class Draft:
    """A message before it is sent: its blocks with the output tokens of each, and how it ended."""

    blocks: list[tuple[dict[str, Any], int]] = field(default_factory=list)
    stop_reason: str = "end_turn"
    stop_sequence: str | None = None
    output_tokens: int = 0
    thinking_tokens: int = 0
    web_searches: int = 0
    seconds: float | None = None


def compose(body: Mapping[str, Any], rules: ModelRules, reply: Reply, *, prompt: int, tool_id: str) -> Draft:
    """Spend `max_tokens` on thinking, text and a tool call, in this order. `prompt` is in tokens.

    Raises ValueError for a reply that calls a tool which the request does not have.
    """
    draft = Draft(web_searches=reply.web_searches, seconds=reply.seconds)
    if reply.content is not None:
        _repeat(draft, reply.content, rules, reply.stop_sequence)
        return _closed(draft, body, reply)
    room = int(body["max_tokens"])
    wanted = thinking_tokens(body, rules, prompt)
    if wanted:
        wanted = text_tokens(reply.thinking, rules) if reply.thinking else wanted
        room -= _think(draft, body, rules, reply, min(wanted, room), cut=wanted >= room)
    if room > 0 and reply.text:
        room -= _say(draft, body, rules, reply.text, room)
    if room > 0 and reply.tool is not None:
        called = _input(body, reply.tool, reply.input)
        spent = text_tokens(reply.tool + canonical(called), rules) + _TOOL_FRAME
        if spent > room:
            room = 0  # a call that is cut in its middle is none
        else:
            room -= spent
            draft.blocks.append(({"type": "tool_use", "id": tool_id, "name": reply.tool, "input": called}, spent))
            draft.stop_reason = "tool_use"
    if room <= 0 and draft.stop_reason == "end_turn" and not _whole(draft, reply):
        draft.stop_reason = "max_tokens"
    return _closed(draft, body, reply)


def _closed(draft: Draft, body: Mapping[str, Any], reply: Reply) -> Draft:
    """A draft with all of its blocks: how much it has spent, and why it stops."""
    draft.output_tokens = max(1, sum(tokens for _, tokens in draft.blocks))
    if reply.output_tokens is not None:
        draft.output_tokens = min(reply.output_tokens, int(body["max_tokens"]))
        draft.thinking_tokens = min(draft.thinking_tokens, draft.output_tokens)
        if reply.output_tokens > int(body["max_tokens"]):
            draft.stop_reason = "max_tokens"
    draft.stop_reason = reply.stop_reason or draft.stop_reason
    return draft


def default_reply(body: Mapping[str, Any], rules: ModelRules, *, prompt: int, seed: int | None) -> Reply:
    """What is said when nobody says what to say: JSON where a schema asks for it, or a text about the prompt."""
    schema = output_schema(body)
    if schema is not None:
        return Reply(text=json.dumps(example(schema), ensure_ascii=False))
    return Reply(text=_text(latest_text(body), rules, prompt, seed))


def obey_choice(body: Mapping[str, Any], reply: Reply) -> Reply:
    """Turn a reply into a tool call where `tool_choice` demands one."""
    choice = body.get("tool_choice") or {}
    said = reply.tool is not None or reply.content is not None or reply.stop_reason is not None
    if choice.get("type") not in ("any", "tool") or said:
        return reply
    names = [tool["name"] for tool in body["tools"] if isinstance(tool.get("name"), str)]
    return replace(reply, text=None, tool=choice.get("name") or names[0])


def _repeat(draft: Draft, content: tuple[Mapping[str, Any], ...], rules: ModelRules, stop_sequence: str | None) -> None:
    """Say what was said before, block by block. Signatures stay as they are: they are of whoever thought it."""
    for block in content:
        tokens = text_tokens(str(block.get("text") or block.get("thinking") or canonical(block)), rules)
        draft.blocks.append((dict(block), tokens))
        if block["type"] == "thinking":
            draft.thinking_tokens += tokens
        elif block["type"] == "tool_use":
            draft.stop_reason = "tool_use"
    draft.stop_sequence = stop_sequence


def _think(draft: Draft, body: Mapping[str, Any], rules: ModelRules, reply: Reply, tokens: int, *, cut: bool) -> int:
    size = bytes_of(tokens, rules)
    text = _cut(reply.thinking or _THOUGHT * (size // len(_THOUGHT) + 1), size)
    if (body.get("thinking") or {}).get("display") == "omitted":
        text = ""
    # A thought that is cut by max_tokens was never signed.
    signature = "" if cut else sign(body, rules, text)
    draft.blocks.append(({"type": "thinking", "thinking": text, "signature": signature}, tokens))
    draft.thinking_tokens = tokens
    return tokens


def _say(draft: Draft, body: Mapping[str, Any], rules: ModelRules, text: str, room: int) -> int:
    whole = text
    for stop in body.get("stop_sequences") or ():
        before, found, _ = whole.partition(stop)
        if found and len(before) <= len(text):
            text, draft.stop_sequence, draft.stop_reason = before, stop, "stop_sequence"
    tokens = text_tokens(text, rules)
    if tokens > room:
        text, tokens = _cut(text, bytes_of(room, rules)), room
        draft.stop_sequence, draft.stop_reason = None, "max_tokens"
    if text:
        draft.blocks.append(({"type": "text", "text": text}, tokens))
    return tokens


def _whole(draft: Draft, reply: Reply) -> bool:
    """Whether an answer that used all of its room nevertheless said all of it."""
    if reply.tool is not None or not reply.text:
        return False
    return any(block.get("text") == reply.text for block, _ in draft.blocks)


def _input(body: Mapping[str, Any], name: str, given: Mapping[str, Any] | None) -> dict[str, Any]:
    for tool in body.get("tools") or ():
        if tool.get("name") == name:
            return dict(given) if given is not None else dict(example(tool.get("input_schema") or {"type": "object"}))
    raise ValueError(f"the reply calls the tool {name!r}, which the request does not have")


def _cut(text: str, size: int) -> str:
    return text.encode("utf-8", "surrogatepass")[:size].decode("utf-8", "ignore")


def _text(asked: str, rules: ModelRules, prompt: int, seed: int | None) -> str:
    """A text of 40 tokens and a tenth of the prompt's (up to 400 more), times the model's verbosity."""
    target = (40 + min(prompt, 4_000) // 10) * rules.verbosity // 100
    digest = blake2b(f"{seed}\0{asked}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    start = int.from_bytes(digest, "big")
    sentences = list(_SENTENCES)
    if seed is not None:
        dice = Random(start)  # noqa: S311 - reproducible variety, not a secret
        dice.shuffle(sentences)
        target = target * dice.randint(75, 125) // 100
    turn = start % len(sentences)
    topic = " ".join(asked.split()[:8])
    text = f"On “{_cut(topic, 80)}”:" if topic else ""
    for number, sentence in enumerate(cycle(sentences[turn:] + sentences[:turn])):
        longer = f"{text} {sentence}".strip()
        if number and text_tokens(longer, rules) > target:
            return text
        text = longer
    raise AssertionError  # pragma: no cover - the cycle does not end
