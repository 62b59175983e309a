"""What can be known of a request without sending it.

Bodies come from anywhere: nothing here raises, whatever the types, and nothing is copied. What cannot be
told is None or makes the call unbounded, with the reason.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from tierline.values import Terms, View
from tierline.veil import veiled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tierline.policies import Effective

AUTO: Final = "auto"
API_CHOOSES: Final = "a model of the API's choice may answer (fallbacks), at its own price"
"""Why a call has no bound whose `fallbacks` name no models."""
_GAP: Final = "\n[…]\n"
VIEW_CHARS: Final = 4_000
"""Most characters of a turn that are classified: two thirds from its start, one third from its end."""
CONTEXT_CHARS: Final = 600
"""Most characters of the answer that a turn leans on, from its end."""

# Upper bounds in tokens for what the text of a request does not show. A byte-level tokenizer never makes
# more tokens than the text has UTF-8 bytes; the rest is overhead that the API adds by itself.
_REQUEST_TOKENS: Final = 800
_MESSAGE_TOKENS: Final = 16
_TOOL_TOKENS: Final = 400
_IMAGE_TOKENS: Final = 5_000

_PART: Final = 4_096
"""Characters of a text that are measured at a time."""

MOST_TOKENS: Final = 1_000_000_000
"""A number past this counts no tokens: sums and prices of what is below it fit into 64 bits and into floats."""
_MOST_USES: Final = 10_000
"""More uses of a server tool than this are no bound."""

_JSON: Final = json.JSONEncoder(ensure_ascii=True, default=str, check_circular=False)
"""What leads back to itself ends in a RecursionError all the same: to look for it takes a third of the time."""

_FEATURED: Final = frozenset({
    "temperature", "top_p", "top_k", "output_config", "thinking", "tool_choice", "inference_geo", "speed", "tools",
})  # fmt: skip
"""Fields that some model may reject: `features_of` looks at no others, but for who spoke last."""
_BOUNDLESS: Final = frozenset(("mcp_servers", "fallbacks", "context_management", "compaction"))
_MEASURED: Final = ("output_config", "output_format", "tool_choice", "context_management", "stop_sequences")
_MEASURED_SET: Final = frozenset(_MEASURED)
_PREFILLED: Final = frozenset(("prefill",))
_NONE: Final[frozenset[str]] = frozenset()

# What the API's own tools cost beside tokens is bounded only where `max_uses` is.
_SERVER_TOOLS: Final = ("web_search", "web_fetch", "code_execution", "advisor", "mcp_toolset")


class Fallback(NamedTuple):
    """A model that the API itself asks where the one before refuses. None: as the request has it."""

    model: str
    max_tokens: int | None
    fast: bool | None


@veiled("body")
class Call(NamedTuple):
    """One SDK method call, read once.

    `input_bound` is an upper bound of the prompt in tokens, None where only the model's window bounds it.
    `rounds` is how often the prompt can be billed (server tools run in a loop upstream). `unbounded` says why
    the cost has no bound at all, and is empty where it has one. `max_tokens` is None unless it is a whole
    number above 0.
    """

    kind: Literal["create", "count"]
    body: Mapping[str, Any]
    model: str
    stream: bool
    max_tokens: int | None
    input_bound: int | None
    rounds: int
    web_searches: int
    cache_ttl: Literal["5m", "1h"] | None
    terms: Terms
    features: frozenset[str]
    unbounded: str
    in_tool_loop: bool
    threaded: bool = False
    """Whether the server holds the conversation: a later turn then sends only what is new."""
    continues: str = ""
    """The id of the answer that such a turn follows."""
    fallbacks: tuple[Fallback, ...] = ()
    """In the order of the body's."""
    text_bytes: int = 0
    """Bytes of plain text in the prompt: pictures, files and what stands in it as JSON may have few tokens."""


def read_call(kind: Literal["create", "count"], body: object) -> Call | None:
    """The call in `body`, or None where it is no Messages request."""
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        return None
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return None
    max_tokens = whole(body.get("max_tokens"), least=1)
    tools = body.get("tools")
    tools = tools if isinstance(tools, list) else []
    server_uses, searches, unbounded = _server_tools(tools) if tools else (0, 0, "")
    unbounded = unbounded or _without_bound(body)
    if max_tokens is None and kind == "create":
        unbounded = f"max_tokens is not a whole number from 1 to {MOST_TOKENS}"
    size = _Size()
    try:
        size.add_body(body, messages, tools)
    except RecursionError:
        size.open_ended = True
    thread = body.get("thread")
    continues = thread.get("previous_message_id") if isinstance(thread, dict) else None
    if continues is not None:
        # What is sent shows only the end of the conversation; all of it is billed.
        size.open_ended = True
    geo_asked = body.get("inference_geo")
    return Call(
        kind=kind,
        body=body,
        model=body["model"],
        stream=body.get("stream") is True,
        max_tokens=max_tokens,
        input_bound=None if size.open_ended or server_uses else size.tokens,
        rounds=1 + server_uses,
        web_searches=searches,
        cache_ttl="1h" if size.ttl_1h else "5m" if size.cached or body.get("cache_control") else None,
        terms=Terms(fast=body.get("speed") == "fast", geo=geo_asked if isinstance(geo_asked, str) else None),
        features=features_of(body),
        unbounded=unbounded,
        in_tool_loop=_has_block(messages[-1], "tool_result"),
        threaded=isinstance(thread, dict),
        continues=continues if isinstance(continues, str) else "",
        fallbacks=fallbacks_of(body) if "fallbacks" in body else (),
        text_bytes=size.text,
    )


def fallbacks_of(body: Mapping[str, Any]) -> tuple[Fallback, ...]:
    """The `fallbacks` that a body names, each with what it sets itself; empty where they cannot all be told."""
    found = []
    entries = body.get("fallbacks")
    if not isinstance(entries, list):
        return ()
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("model"), str):
            return ()
        limit = entry.get("max_tokens")
        if limit is not None and whole(limit, least=1) is None:
            return ()
        speed = entry.get("speed")
        found.append(Fallback(entry["model"], limit, None if speed is None else speed == "fast"))
    return tuple(found)


def whole(value: object, *, least: int = 0) -> int | None:
    """`value` if it is a whole number of at least `least` that can count tokens (True is not one), else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and least <= value <= MOST_TOKENS else None


def _without_bound(body: Mapping[str, Any]) -> str:
    """Why what a request may cost has no bound, whatever its tokens; empty where it has one."""
    if _BOUNDLESS.isdisjoint(body):
        return ""
    if body.get("mcp_servers"):
        return "remote tools (mcp_servers) have no bound"
    if body.get("fallbacks") and not fallbacks_of(body):
        return API_CHOOSES
    management = body.get("context_management")
    edits = management.get("edits") if isinstance(management, dict) else None
    kinds = [edit.get("type") for edit in edits if isinstance(edit, dict)] if isinstance(edits, list) else []
    if body.get("compaction") or any(isinstance(kind, str) and kind.startswith("compact") for kind in kinds):
        return "compaction is billed beside the answer"
    return ""


def _server_tools(tools: list[Any]) -> tuple[int, int, str]:
    """How many uses of server tools a request allows, how many of them are web searches, and why there is no bound."""
    uses = searches = 0
    for tool in tools:
        kind = tool.get("type") if isinstance(tool, dict) else None
        if not isinstance(kind, str) or not kind.startswith(_SERVER_TOOLS):
            continue
        if kind.startswith("advisor"):
            return 0, 0, "another model advises (advisor), at its own price"
        limit = whole(tool.get("max_uses"))
        if limit is None or limit > _MOST_USES:
            return 0, 0, f"the server tool {kind[:40]} has no max_uses of at most {_MOST_USES}"
        uses += limit
        searches += limit if kind.startswith("web_search") else 0
    return uses, searches, ""


def features_of(body: Mapping[str, Any]) -> frozenset[str]:
    """What some model rejects of a Messages request, in the words of `tierline.models`."""
    messages = body["messages"]
    if _FEATURED.isdisjoint(body):
        return _PREFILLED if _prefills(messages) else _NONE
    tools = body.get("tools")
    return frozenset(_features(body, messages, tools if isinstance(tools, list) else []))


def _prefills(messages: list[Any]) -> bool:
    last = messages[-1]
    return isinstance(last, dict) and last.get("role") == "assistant"


def extended(call: Call, fields: Mapping[str, Any]) -> Call:
    """A call with further fields, and with what they may add to its prompt."""
    if not fields:
        return call
    body, size = {**call.body, **fields}, _Size()
    size.add_plain(fields)
    bound = None if call.input_bound is None or size.open_ended else call.input_bound + size.tokens - _REQUEST_TOKENS
    return call._replace(body=body, features=features_of(body), input_bound=bound)


def _features(body: Mapping[str, Any], messages: list[Any], tools: list[Any]) -> Iterator[str]:
    """What some model rejects, in the words of `tierline.models`."""
    sampling = [name for name in ("temperature", "top_p", "top_k") if body.get(name) is not None]
    if sampling:
        yield "sampling"
    if "temperature" in sampling and "top_p" in sampling:
        yield "temperature with top_p"
    output = body.get("output_config")
    effort = output.get("effort") if isinstance(output, dict) else None
    if isinstance(effort, str):
        yield f"effort {effort}"
    thinking = body.get("thinking")
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    if isinstance(kind, str):
        yield f"thinking {kind}"
        if kind in ("disabled", "between_tools") and isinstance(effort, str):
            yield f"thinking {kind}, effort {effort}"
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") in ("any", "tool"):
        yield "forced tool"
        if kind == "enabled":
            yield "thinking with a forced tool"
    if _prefills(messages):
        yield "prefill"
    if body.get("inference_geo") is not None:
        yield "inference_geo"
    if body.get("speed") == "fast":
        yield "speed fast"
    for tool in tools:
        if isinstance(tool, dict) and isinstance(tool.get("type"), str) and tool["type"].startswith("computer"):
            yield tool["type"]


class _Size:
    """Adds up an upper bound of a prompt's tokens."""

    __slots__ = ("cached", "open_ended", "text", "tokens", "ttl_1h")

    def __init__(self) -> None:
        self.tokens = _REQUEST_TOKENS
        self.text = 0
        self.cached = self.ttl_1h = self.open_ended = False

    def add_body(self, body: Mapping[str, Any], messages: list[Any], tools: list[Any]) -> None:
        control = body.get("cache_control")
        if control:
            self._control(control)
        self._content(body.get("system"))
        for message in messages:
            self.tokens += _MESSAGE_TOKENS
            if isinstance(message, dict):
                self._content(message.get("content"))
            else:
                self.add_plain(message)
        if tools:
            self.tokens += (_TOOL_TOKENS + _MESSAGE_TOKENS) * len(tools)
            self.add_plain(tools)
            for tool in tools:
                if isinstance(tool, dict) and (control := tool.get("cache_control")):
                    self._control(control)
        for key in () if _MEASURED_SET.isdisjoint(body) else _MEASURED:
            if (extra := body.get(key)) is not None:
                self.add_plain(extra)

    def _control(self, control: object) -> None:
        self.cached = True
        if isinstance(control, dict) and control.get("ttl") == "1h":
            self.ttl_1h = True

    def _content(self, content: object) -> None:
        if isinstance(content, str):
            self._text(content)
        elif isinstance(content, list):
            for block in content:
                self._block(block)
        elif content is not None:
            self.add_plain(content)

    def _block(self, block: object) -> None:
        if not isinstance(block, dict):
            self.add_plain(block)
            return
        if control := block.get("cache_control"):
            self._control(control)
        kind = block.get("type")
        text = block.get("text")
        if kind == "text" and isinstance(text, str):
            self._text(text)
            self.tokens += _MESSAGE_TOKENS
            if citations := block.get("citations"):
                self.add_plain(citations)
        elif kind == "image":
            self.tokens += _IMAGE_TOKENS
        elif kind == "tool_result":
            self.add_plain(block.get("tool_use_id"))
            self._content(block.get("content"))
        else:
            self.add_plain(block)
            self._attached(block)

    def _text(self, text: str) -> None:
        size = text_bytes(text)
        self.text += size
        self.tokens += size

    def _attached(self, value: object) -> None:
        """Add what is not as long as it is written: pictures and files, however deep in a block."""
        if isinstance(value, list):
            for item in value:
                self._attached(item)
        elif isinstance(value, dict):
            if control := value.get("cache_control"):
                self._control(control)
            kind, source = value.get("type"), value.get("source")
            if kind == "image":
                self.tokens += _IMAGE_TOKENS
            elif kind in ("document", "container_upload", "file"):
                if isinstance(source, dict) and source.get("type") in ("text", "content"):
                    self._attached(source.get("content"))
                else:
                    # Pages, links and files show nothing of their length here; the window is what bounds them.
                    self.open_ended = True
            self._attached(value.get("content"))

    def add_plain(self, value: object) -> None:
        """Add what has no more tokens than its JSON has characters."""
        try:
            self.tokens += len(_JSON.encode(value)) + _MESSAGE_TOKENS
        except (ValueError, TypeError, RecursionError):
            self.open_ended = True


def text_bytes(text: str) -> int:
    """The UTF-8 length of a text, also of one with lone surrogates."""
    if text.isascii():
        return len(text)
    if len(text) <= _PART:
        return len(text.encode("utf-8", "surrogatepass"))
    # In parts, because most of them are ASCII in most texts, and then need no encoding: a third of the time.
    parts = (text[at : at + _PART] for at in range(0, len(text), _PART))
    return sum(len(part) if part.isascii() else len(part.encode("utf-8", "surrogatepass")) for part in parts)


def _has_block(message: object, kind: str) -> bool:
    content = message.get("content") if isinstance(message, dict) else None
    return isinstance(content, list) and any(isinstance(b, dict) and b.get("type") == kind for b in content)


def _is_turn(message: object) -> bool:
    """Whether a person wrote it: what tools say comes as the user's, too."""
    return isinstance(message, dict) and message.get("role") == "user" and not _has_block(message, "tool_result")


def turn_of(call: Call) -> tuple[str, int]:
    """`text` and `tools` of `view_of`, without a look at what came before the latest turn."""
    messages: list[Any] = call.body["messages"]
    turn = next(filter(_is_turn, reversed(messages)), messages[-1])
    tools = call.body.get("tools")
    return cut(_text_of(turn)), len(tools) if isinstance(tools, list) else 0


def view_of(call: Call, policy: Effective) -> View:
    """The bounded view of a call that is classified: the same for every step of one tool loop."""
    messages: list[Any] = call.body["messages"]
    turns = [at for at, message in enumerate(messages) if _is_turn(message)]
    latest = turns[-1] if turns else 0
    turn = messages[latest] if turns else messages[-1]
    tools = call.body.get("tools")
    images, documents = _attachments(turn)
    return View(
        text=cut(_text_of(turn)),
        context=_text_of(messages[latest - 1])[-CONTEXT_CHARS:] if latest else "",
        turns=max(len(turns), 1),
        tools=len(tools) if isinstance(tools, list) else 0,
        forced_tool="forced tool" in call.features,
        images=images,
        documents=documents,
        max_tokens=call.max_tokens or 0,
        task=policy.task,
        expected_output=policy.expected_output,
    )


def _attachments(turn: object) -> tuple[int, int]:
    content = turn.get("content") if isinstance(turn, dict) else None
    kinds = [b.get("type") for b in content if isinstance(b, dict)] if isinstance(content, list) else []
    return kinds.count("image"), kinds.count("document")


def _text_of(message: object) -> str:
    """The text of a turn; parts past twice the bound of a view are not even joined."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = [b["text"] for b in content if isinstance(b, dict) and isinstance(b.get("text"), str)]
    return parts[0] if len(parts) == 1 else "\n".join(cut(part) for part in parts[:50])


def cut(text: str) -> str:
    """A text as it is classified: see `VIEW_CHARS`."""
    if len(text) <= VIEW_CHARS:
        return text
    head = VIEW_CHARS * 2 // 3
    return f"{text[:head]}{_GAP}{text[head + len(_GAP) - VIEW_CHARS :]}"
