"""When a model thinks, how much it spends on it, and the signature that ties a thought to its conversation."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from tierline.testing._problem import invalid
from tierline.testing._prompt import blocks_of, canonical
from tierline.testing._rules import SIGNED_BY, line_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tierline.testing._rules import ModelRules

_TOKENS: Final = {"low": 40, "medium": 80, "high": 160, "xhigh": 320, "max": 640}


def thinking_tokens(body: Mapping[str, Any], rules: ModelRules, prompt: int) -> int:
    """Tokens that the model spends on thinking before it answers a prompt of so many tokens; 0 if it does not.

    Never under 40 where it thinks: more than a verdict of 32 tokens has room for.
    """
    thinking = body.get("thinking") or {}
    kind = thinking.get("type")
    if kind in ("disabled", "between_tools") or (kind is None and rules.thinks == "on_request"):
        return 0
    if kind == "enabled":
        return min(int(thinking["budget_tokens"]), 64 + int(thinking["budget_tokens"]) // 8)
    effort = (body.get("output_config") or {}).get("effort") or rules.default_effort
    base = _TOKENS[effort]
    return base + min(base, prompt // 50)


def sign(body: Mapping[str, Any], rules: ModelRules, thought: str) -> str:
    """The signature of a thought that answers this request."""
    return ":".join((SIGNED_BY, rules.id, _prefix_digest(body, len(body["messages"])), _digest(thought)))


def check_signatures(body: Mapping[str, Any], rules: ModelRules) -> None:
    """Raise a 400 for a thought that was edited or, on a 5.x model, for an edit of anything that stood before it.

    Signatures that were not made here pass, so that a test may write its own.
    """
    for index, message in enumerate(body["messages"]):
        if message["role"] != "assistant":
            continue
        for number, block in enumerate(blocks_of(message["content"])):
            line = line_of(block.get("signature")) if block.get("type") == "thinking" else None
            if line is None:
                continue
            where = f"messages.{index}.content.{number}"
            _, _, prefix, thought = block["signature"].split(":")
            if thought != _digest(str(block.get("thinking", ""))):
                raise invalid(f"{where}: Invalid `signature` in `thinking` block")
            if rules.prefix_check and line not in rules.unreadable and prefix != _prefix_digest(body, index):
                raise invalid(f"{where}: system, tools or earlier messages have changed since this block was made")


def _prefix_digest(body: Mapping[str, Any], index: int) -> str:
    messages = [[m["role"], blocks_of(m["content"])] for m in body["messages"][:index]]
    return _digest(canonical([body.get("tools") or [], blocks_of(body.get("system")), messages]))


def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=9).hexdigest()
