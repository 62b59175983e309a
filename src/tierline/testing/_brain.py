"""What one good request is answered with: tokens, cache, content, usage."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tierline.testing._answer import Draft, Reply, compose, default_reply, obey_choice
from tierline.testing._problem import Problem, invalid
from tierline.testing._prompt import input_tokens, pieces
from tierline.testing._thinking import check_signatures
from tierline.testing._validate import check_create, check_prompt, rules_of
from tierline.values import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tierline.classify.base import Question
    from tierline.classify.comparison import Comparison
    from tierline.testing._cache import Share
    from tierline.testing._log import Received
    from tierline.testing._prompt import Piece
    from tierline.testing._rules import ModelRules


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request that has passed every check, read as its model reads it."""

    body: Mapping[str, Any]
    rules: ModelRules
    parts: list[Piece]
    tokens: int


def read_prompt(body: Mapping[str, Any], aliases: Mapping[str, str]) -> Prompt:
    """Check a request to `/v1/messages` and read its prompt. Raises the API's 400 and 404."""
    rules = rules_of(body.get("model"), aliases)
    check_create(body, rules)
    check_signatures(body, rules)
    parts = pieces(body, rules)
    tokens = input_tokens(parts)
    if tokens > rules.window:
        raise invalid(f"prompt is too long: {tokens} tokens > {rules.window} maximum")
    return Prompt(body, rules, parts, tokens)


def count_tokens(body: Mapping[str, Any], aliases: Mapping[str, str]) -> int:
    """Tokens of a request to `/v1/messages/count_tokens`. Raises the API's 400 and 404."""
    rules = rules_of(body.get("model"), aliases)
    check_prompt(body, rules)
    return input_tokens(pieces(body, rules))


def reply_to(
    prompt: Prompt,
    received: Received,
    *,
    answer: Callable[[Received], str | Reply | None] | None,
    verdict: Callable[[str, Sequence[str]], tuple[str, float] | str],
    judge: Callable[[Comparison], str],
    seed: int | None,
) -> Reply:
    """What is said: a verdict to a question of Tierline's, else what `answer` says, else the default.

    An `answer` that fails is a 500 that the SDK does not retry.
    """
    question, sheet = question_of(prompt.body), sheet_of(prompt.body)
    said: str | Reply | None
    try:
        if question is not None:
            found = verdict(question.text, question.labels)
            said = found if isinstance(found, str) else json.dumps({"label": found[0], "confidence": found[1]})
        elif sheet is not None:
            # What is said of one text as it is stands in the place of its line.
            each = [(number, verdict(one.text, one.labels)) for number, one in sheet]
            said = "\n".join(line if isinstance(line, str) else json.dumps([number, *line]) for number, line in each)
        elif (comparison := comparison_of(prompt.body)) is not None:
            said = judge(comparison)
        else:
            said = answer(received) if answer is not None else None
    except Exception as error:
        raise _our_fault(f"the answer of this FakeClaude raised {error!r}") from error
    if said is None:
        said = default_reply(prompt.body, prompt.rules, prompt=prompt.tokens, seed=seed)
    reply = Reply(text=said) if isinstance(said, str) else said
    return obey_choice(prompt.body, reply)


def draft_of(prompt: Prompt, reply: Reply, tool_id: str) -> Draft:
    """Compose the message; a reply that cannot be one is a 500 that the SDK does not retry."""
    try:
        return compose(prompt.body, prompt.rules, reply, prompt=prompt.tokens, tool_id=tool_id)
    except ValueError as error:
        raise _our_fault(str(error)) from error


def question_of(body: Mapping[str, Any]) -> Question | None:
    """The classification question that a body asks, if it is one of Tierline's."""
    from tierline.classify.question import parse_question  # noqa: PLC0415 - only an answer needs it

    return parse_question(body)


def sheet_of(body: Mapping[str, Any]) -> list[tuple[int, Question]] | None:
    """The questions that a body asks, each with its number, if it asks several of Tierline's at once."""
    from tierline.classify.sheet import parse_sheet  # noqa: PLC0415 - only an answer needs it

    return parse_sheet(body)


def comparison_of(body: Mapping[str, Any]) -> Comparison | None:
    """The two answers that a body asks to compare, if it does that as Tierline asks it."""
    from tierline.classify.comparison import parse_comparison  # noqa: PLC0415 - only an answer needs it

    return parse_comparison(body)


def message_of(prompt: Prompt, draft: Draft, share: Share, *, message_id: str, geo: str) -> dict[str, Any]:
    """The message as the API sends it."""
    usage: dict[str, Any] = {
        "input_tokens": share.fresh,
        "cache_creation_input_tokens": share.write_5m + share.write_1h,
        "cache_read_input_tokens": share.read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": share.write_5m,
            "ephemeral_1h_input_tokens": share.write_1h,
        },
        "output_tokens": draft.output_tokens,
        "service_tier": "standard",
        "inference_geo": geo if prompt.rules.geo else "not_available",
    }
    if draft.thinking_tokens:
        usage["output_tokens_details"] = {"thinking_tokens": draft.thinking_tokens}
    if draft.web_searches:
        usage["server_tool_use"] = {"web_search_requests": draft.web_searches, "web_fetch_requests": 0}
    if prompt.body.get("speed") is not None:
        usage["speed"] = prompt.body["speed"]
    refused = draft.stop_reason == "refusal"
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": prompt.body["model"],
        "content": [block for block, _ in draft.blocks],
        "stop_reason": draft.stop_reason,
        "stop_sequence": draft.stop_sequence,
        "stop_details": {"type": "refusal", "category": None, "explanation": None} if refused else None,
        "usage": usage,
    }


def spent(share: Share, draft: Draft, output_tokens: int) -> Usage:
    """What a request has used when so many output tokens have been generated."""
    searches = draft.web_searches if output_tokens else 0
    prompt = Usage(share.fresh, 0, share.write_5m, share.write_1h, share.read, searches)
    return replace(prompt, output_tokens=output_tokens)


def _our_fault(message: str) -> Problem:
    return Problem(500, message, headers=(("x-should-retry", "false"),))
