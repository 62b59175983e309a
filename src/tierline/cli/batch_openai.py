"""Chat completions as requests to Claude, and answers of Claude as chat completions: what can be said in both. Pure.

What has no counterpart is never left out in silence: `Unmapped` names the field, and the caller says it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

URL: Final = "/v1/chat/completions"
_DATA: Final = re.compile(r"data:(image/(?:png|jpeg|gif|webp));base64,(.+)", re.DOTALL)
_NOTHING: Final[dict[str, tuple[object, ...]]] = {
    "n": (1,), "stream": (False,), "stream_options": (), "presence_penalty": (0,), "frequency_penalty": (0,),
    "logit_bias": ({},), "logprobs": (False,), "top_logprobs": (0,), "store": (False,), "modalities": (["text"],),
    "response_format": ({"type": "text"},), "verbosity": ("medium",), "service_tier": ("auto", "default"),
}  # fmt: skip
"""Fields without a counterpart, and the values of them that ask for nothing."""
_FINISHED: Final = {
    "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls",
    "refusal": "content_filter", "model_context_window_exceeded": "length",
}  # fmt: skip


class Unmapped(Exception):  # noqa: N818  (it is no failure, and never leaves the command)
    """A field that Claude's API has no word for, and why."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")


def params_of(body: Mapping[str, Any], model: str, max_tokens: int | None, drop: Collection[str]) -> dict[str, Any]:
    """What `messages.create` takes for the body of a chat completion. Raises Unmapped.

    `model` takes the place of one that is not Claude's, `max_tokens` that of a limit that is not there. What is in
    `drop` is left out.
    """
    given = {key: value for key, value in body.items() if value is not None and key not in drop}
    named = given.pop("model", None)
    claude = isinstance(named, str) and (named == "auto" or "claude" in named)
    params: dict[str, Any] = {"model": named if claude else model}
    params["max_tokens"] = _limit(given, max_tokens)
    system, params["messages"] = _messages(given.pop("messages", None))
    if system:
        params["system"] = system
    for field, mapped in _FIELDS.items():
        if field in given and given[field] not in _NOTHING.get(field, ()):
            mapped(params, given[field])
        given.pop(field, None)
    if (parallel := given.pop("parallel_tool_calls", None)) is not None and params.get("tools"):
        if not isinstance(parallel, bool):
            raise Unmapped("parallel_tool_calls", "it is true or false")
        choice = params.setdefault("tool_choice", {"type": "auto"})
        if not parallel and choice["type"] != "none":
            choice["disable_parallel_tool_use"] = True
    for field, value in given.items():
        if value not in _NOTHING.get(field, ()):
            raise Unmapped(field, "Claude's API has nothing like it; leave it out, or pass --drop " + field)
    return params


def _limit(given: dict[str, Any], otherwise: int | None) -> int:
    found = [given.pop(field) for field in ("max_completion_tokens", "max_tokens") if field in given]
    limit = found[0] if found else otherwise
    if limit is None:
        raise Unmapped("max_tokens", "Claude's API needs it: write it, or give --max-tokens")
    if any(each != limit for each in found):
        raise Unmapped("max_tokens", "it is another number than max_completion_tokens")
    if type(limit) is not int or limit < 1:
        raise Unmapped("max_tokens", "it is a number of at least 1")
    return limit


def _temperature(params: dict[str, Any], value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise Unmapped("temperature", "Claude takes 0 to 1; pass --drop temperature to leave it out")
    params["temperature"] = value


def _stop(params: dict[str, Any], value: Any) -> None:
    params["stop_sequences"] = found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(each, str) and each.strip() for each in found):
        raise Unmapped("stop", "it is a text or a list of texts, and none of them is blank")


def _tools(params: dict[str, Any], value: Any) -> None:
    params["tools"] = tools = []
    for place, each in enumerate(value if isinstance(value, list) else [value]):
        where = f"tools[{place}]"
        function = _object(each, where).get("function")
        if each.get("type") != "function" or not isinstance(function, dict):
            raise Unmapped(where, "a tool is a function")
        tool: dict[str, Any] = {"name": _text(function.get("name"), f"{where}.function.name")}
        if function.get("description") is not None:
            tool["description"] = _text(function["description"], f"{where}.function.description")
        tool["input_schema"] = function.get("parameters") or {"type": "object", "properties": {}}
        if function.get("strict"):
            tool["strict"] = True
        _only(function, ("name", "description", "parameters", "strict"), f"{where}.function")
        tools.append(tool)


def _tool_choice(params: dict[str, Any], value: Any) -> None:
    plain = {"auto": "auto", "none": "none", "required": "any"}
    if isinstance(value, str) and value in plain:
        params["tool_choice"] = {"type": plain[value]}
    elif isinstance(value, dict) and value.get("type") == "function" and isinstance(value.get("function"), dict):
        params["tool_choice"] = {"type": "tool", "name": _text(value["function"].get("name"), "tool_choice.function")}
    else:
        raise Unmapped("tool_choice", "it is auto, none, required, or one function")


def _user(params: dict[str, Any], value: Any) -> None:
    params["metadata"] = {"user_id": _text(value, "user")}


def _response_format(params: dict[str, Any], value: Any) -> None:
    schema = value.get("json_schema") if isinstance(value, dict) and value.get("type") == "json_schema" else None
    if not isinstance(schema, dict) or not isinstance(schema.get("schema"), dict):
        raise Unmapped("response_format", "Claude takes a json_schema with its schema, or text")
    params["output_config"] = {"format": {"type": "json_schema", "schema": schema["schema"]}}


def _as_it_is(field: str) -> Callable[[dict[str, Any], Any], None]:
    def mapped(params: dict[str, Any], value: Any) -> None:
        params[field] = value

    return mapped


_FIELDS: Final[dict[str, Callable[[dict[str, Any], Any], None]]] = {
    "temperature": _temperature, "top_p": _as_it_is("top_p"), "stop": _stop, "tools": _tools,
    "tool_choice": _tool_choice, "user": _user, "response_format": _response_format,
}  # fmt: skip


def _messages(value: Any) -> tuple[str, list[dict[str, Any]]]:
    """The system prompt, and the turns."""
    if not isinstance(value, list) or not value:
        raise Unmapped("messages", "it is a list of messages")
    system: list[str] = []
    turns: list[dict[str, Any]] = []
    for place, each in enumerate(value):
        where = f"messages[{place}]"
        role = _object(each, where).get("role")
        if role in ("system", "developer"):
            if turns:
                raise Unmapped(f"{where}.role", "what the system says comes before all else")
            _only(each, ("role", "content"), where)
            system.append(_words(each.get("content"), f"{where}.content"))
        elif role == "user":
            _only(each, ("role", "content"), where)
            turns.append({"role": "user", "content": _user_content(each.get("content"), f"{where}.content")})
        elif role == "assistant":
            turns.append({"role": "assistant", "content": _said(each, where)})
        elif role == "tool":
            _tool_result(turns, each, where)
        else:
            raise Unmapped(f"{where}.role", "it is system, developer, user, assistant or tool")
    return "\n".join(system), turns


def _user_content(value: Any, where: str) -> Any:
    if isinstance(value, str):
        return _text(value, where)
    if not isinstance(value, list) or not value:
        raise Unmapped(where, "it is a text, or a list of parts")
    return [_part(_object(each, f"{where}[{place}]"), f"{where}[{place}]") for place, each in enumerate(value)]


def _part(part: dict[str, Any], where: str) -> dict[str, Any]:
    if part.get("type") == "text":
        return {"type": "text", "text": _text(part.get("text"), f"{where}.text")}
    if part.get("type") != "image_url":
        raise Unmapped(f"{where}.type", "Claude takes text and image_url here")
    url = _object(part.get("image_url"), f"{where}.image_url")
    _only(url, ("url", "detail"), f"{where}.image_url")
    if url.get("detail") not in (None, "auto"):
        raise Unmapped(f"{where}.image_url.detail", "Claude's API has nothing like it; leave it out")
    link = _text(url.get("url"), f"{where}.image_url.url")
    if link.startswith("https://"):
        return {"type": "image", "source": {"type": "url", "url": link}}
    if (found := _DATA.fullmatch(link)) is None:
        raise Unmapped(f"{where}.image_url.url", "it is an https:// address, or data: of a png, jpeg, gif or webp")
    return {"type": "image", "source": {"type": "base64", "media_type": found[1], "data": found[2]}}


def _said(message: dict[str, Any], where: str) -> Any:
    _only(message, ("role", "content", "tool_calls"), where)
    calls = message.get("tool_calls") or []
    content = message.get("content")
    words = "" if content is None else _words(content, f"{where}.content")
    if not calls:
        return _text(words, f"{where}.content")
    blocks: list[dict[str, Any]] = [{"type": "text", "text": words}] if words else []
    for place, each in enumerate(calls if isinstance(calls, list) else [calls]):
        at = f"{where}.tool_calls[{place}]"
        function = _object(_object(each, at).get("function"), f"{at}.function")
        try:
            given = json.loads(function.get("arguments") or "{}")
        except (TypeError, ValueError):
            given = None
        if not isinstance(given, dict):
            raise Unmapped(f"{at}.function.arguments", "it is a JSON object as a text")
        name = _text(function.get("name"), f"{at}.function.name")
        blocks.append({"type": "tool_use", "id": _text(each.get("id"), f"{at}.id"), "name": name, "input": given})
    return blocks


def _tool_result(turns: list[dict[str, Any]], message: dict[str, Any], where: str) -> None:
    """Add the result of a tool: those that follow each other are one turn of the user's."""
    _only(message, ("role", "content", "tool_call_id"), where)
    words = _words(message.get("content"), f"{where}.content")
    call = _text(message.get("tool_call_id"), f"{where}.tool_call_id")
    block = {"type": "tool_result", "tool_use_id": call, "content": words}
    last = turns[-1]["content"] if turns and turns[-1]["role"] == "user" else None
    if isinstance(last, list) and last[-1]["type"] == "tool_result":
        last.append(block)
    else:
        turns.append({"role": "user", "content": [block]})


def _words(value: Any, where: str) -> str:
    """A content that is nothing but text."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise Unmapped(where, "it is a text")
    parts = [_object(each, f"{where}[{place}]") for place, each in enumerate(value)]
    for place, each in enumerate(parts):
        if each.get("type") != "text":
            raise Unmapped(f"{where}[{place}].type", "Claude takes text here")
    return "".join(_text(each.get("text"), f"{where}[{place}].text") for place, each in enumerate(parts))


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unmapped(where, "it is an object")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise Unmapped(where, "it is a text, and not empty")
    return value


def _only(given: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for field, value in given.items():
        if field not in known and value is not None:
            raise Unmapped(f"{where}.{field}", "Claude's API has nothing like it; leave it out")


def completion_of(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message of Claude's as a chat completion."""
    blocks = message.get("content") or []
    words = "".join(each.get("text", "") for each in blocks if each.get("type") == "text")
    calls = [
        {"id": each.get("id"), "type": "function",
         "function": {"name": each.get("name"), "arguments": json.dumps(each.get("input"), ensure_ascii=False)}}
        for each in blocks if each.get("type") == "tool_use"
    ]  # fmt: skip
    said: dict[str, Any] = {"role": "assistant", "content": words or None}
    if calls:
        said["tool_calls"] = calls
    usage = message.get("usage") or {}
    cached = usage.get("cache_read_input_tokens") or 0
    prompt = (usage.get("input_tokens") or 0) + (usage.get("cache_creation_input_tokens") or 0) + cached
    output = usage.get("output_tokens") or 0
    finished = _FINISHED.get(str(message.get("stop_reason")), "stop")
    return {
        "id": message.get("id"),
        "object": "chat.completion",
        "model": message.get("model"),
        "choices": [{"index": 0, "message": said, "finish_reason": finished}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output,
                  "prompt_tokens_details": {"cached_tokens": cached}},
    }  # fmt: skip
