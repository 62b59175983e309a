"""What goes out for one request: status, headers, frames, and what a fault makes of them. No I/O here."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from tierline.testing import _eventstream
from tierline.testing._platforms import Door
from tierline.testing._sse import events

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tierline.testing._answer import Draft
    from tierline.testing._faults import Fault
    from tierline.testing._problem import Problem

_HTML: Final = b"<!doctype html><html><head><title>Welcome</title></head><body><h1>Please sign in</h1></body></html>"
_JSON: Final = (("content-type", "application/json"),)
_SSE: Final = (("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache"))
_FRAMES: Final = (("content-type", _eventstream.TYPE),)
_API: Final = Door("")


@dataclass(frozen=True, slots=True)
class Frame:
    """A piece of the body, and the output tokens that are spent when it has been sent."""

    data: bytes
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An answer that is ready to be sent.

    `then` says what follows the last frame; with `reset` or `hang` and no frames, not even headers are sent.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    frames: tuple[Frame, ...]
    then: Literal["end", "reset", "hang", "pings"] = "end"
    every: float = 0.0
    """Seconds between pings."""
    pace: float = 0.0
    """Seconds between frames, where a fault slows them down."""
    resets_in: float | None = None
    """Seconds until a rate limit renews that is said to be exhausted."""
    faulty: bool = False
    """Whether a scripted fault shaped it."""
    free: bool = False
    """Whether nothing is billed for it."""
    error: str | None = None
    stop_reason: str | None = None


def json_answer(value: Any) -> Outgoing:
    """A 200 that costs nothing: a token count, a list of models."""
    return Outgoing(200, _JSON, (Frame(_dump(value)),), free=True)


def error_answer(
    problem: Problem,
    request_id: str,
    *,
    faulty: bool = False,
    door: Door = _API,
    resets_in: float | None = None,
) -> Outgoing:
    """An error of the API."""
    body, headers = door.error(problem, request_id)
    frame = Frame(_dump(body))
    return Outgoing(
        problem.status,
        (*_JSON, *headers),
        (frame,),
        faulty=faulty,
        free=True,
        error=problem.type,
        resets_in=resets_in,
    )


def message_answer(
    message: dict[str, Any], draft: Draft, *, streamed: bool, fault: Fault, door: Door = _API
) -> Outgoing:
    """A message, as JSON or as events, as the fault leaves it."""
    if fault.kind == "missing_usage":
        message = {key: value for key, value in message.items() if key != "usage"}
    elif fault.kind == "usage":
        message = {**message, "usage": {**message["usage"], **dict(fault.fields)}}
    if streamed:
        frames = tuple(Frame(door.encode(event.data), event.tokens) for event in events(message, draft))
    else:
        frames = (Frame(_dump(message), draft.output_tokens),)
    stream = _FRAMES if door.platform == "bedrock" else _SSE
    answer = Outgoing(200, stream if streamed else _JSON, frames, stop_reason=draft.stop_reason)
    return broken(answer, fault, streamed=streamed, door=door)


def broken(answer: Outgoing, fault: Fault, *, streamed: bool = False, door: Door = _API) -> Outgoing:
    """What a fault leaves of a good answer."""
    if fault.kind != "error" and (fault.headers or fault.resets_in is not None):
        answer = replace(answer, headers=(*answer.headers, *fault.headers), resets_in=fault.resets_in)
    return answer if fault.kind == "ok" else replace(_broken(answer, fault, door, streamed=streamed), faulty=True)


def _broken(answer: Outgoing, fault: Fault, door: Door, *, streamed: bool) -> Outgoing:
    frames = answer.frames
    match fault.kind:
        case "html":
            headers = (("content-type", "text/html; charset=utf-8"),)
            return replace(answer, headers=headers, frames=(Frame(_HTML),), free=True, stop_reason=None)
        case "truncated":
            return replace(answer, frames=_truncated(frames), stop_reason=None)
        case "unknown" if streamed:
            unknown = Frame(door.encode({"type": "future_event", "future": {"field": 1}}), frames[1].tokens)
            return replace(answer, frames=(*frames[:2], unknown, *frames[2:]))
        case "error_event":
            # Only a stream gets here: what is not streamed gets the error's status.
            error = fault.problem().body("")
            cut = frames[: fault.after]
            tokens = cut[-1].tokens if cut else 0
            event = Frame(door.encode({"type": "error", "error": error["error"]}), tokens)
            return replace(answer, frames=(*cut, event), error=error["error"]["type"], stop_reason=None)
        case "end":
            return replace(answer, frames=_cut(frames, fault.after), stop_reason=None)
        case "reset" | "hang":
            return replace(answer, frames=_cut(frames, fault.after), then=fault.kind, stop_reason=None)
        case "drip":
            return replace(answer, frames=_bytes_of(frames), pace=fault.every)
        case "pings":
            # Without a stream there is no ping to send, and so nothing is sent at all.
            then: Literal["pings", "hang"] = "pings" if streamed else "hang"
            kept = _cut(frames, fault.after) if streamed else ()
            return replace(answer, frames=kept, then=then, every=fault.every, stop_reason=None)
        case _:
            return answer


def _cut(frames: tuple[Frame, ...], after: int | None) -> tuple[Frame, ...]:
    """The frames before a fault; of a single one, its first half with half of its tokens."""
    if after is None:
        return ()
    if not after:
        return (Frame(b""),)  # the headers are sent, and nothing else
    if len(frames) > 1:
        return frames[:after]
    whole = frames[0]
    return (Frame(whole.data[: len(whole.data) // 2], whole.tokens // 2),)


def _bytes_of(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """The same, a byte at a time. The tokens of a frame are spent when it has been sent."""
    found: list[Frame] = []
    tokens = 0
    for frame in frames:
        found += [Frame(frame.data[at : at + 1], tokens) for at in range(len(frame.data) - 1)]
        tokens = frame.tokens
        found.append(Frame(frame.data[-1:], tokens))
    return tuple(found)


def _truncated(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """The same, cut in the middle of a frame. The model has run to its end: all tokens are spent."""
    middle = len(frames) // 2
    whole = frames[middle]
    return (*frames[:middle], Frame(whole.data[: len(whole.data) // 2], frames[-1].tokens))


def _dump(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
