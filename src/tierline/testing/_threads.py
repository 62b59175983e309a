"""Message threads: conversations that the server holds, so that a turn sends only its new messages.

The SDK's tool runner uses them. What a continued turn costs is still the whole conversation.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from tierline.testing._problem import Problem, invalid
from tierline.testing._prompt import canonical

if TYPE_CHECKING:
    from collections.abc import Mapping

_TTL: Final = 300.0
_MOST: Final = 10_000
_KEPT: Final = ("system", "tools")
"""Fields of the first turn that hold for all turns, and may not be sent again."""
_SAME: Final = ("model", "output_config", "thinking")
"""Fields that must be sent again unchanged. Which ones they are is not documented; this is the strict reading."""


@dataclass(slots=True)
class _Thread:
    body: dict[str, Any]
    expires: float
    continued: bool = False


class Threads:
    """The conversations of one fake, by the id of their last answer; each lasts five minutes of the given clock."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._threads: OrderedDict[str, _Thread] = OrderedDict()

    def whole(self, body: Mapping[str, Any], now: float) -> dict[str, Any]:
        """Return the request with its whole conversation. Raises the API's 400 and 404, with their codes."""
        thread = body.get("thread")
        sent = {key: value for key, value in body.items() if key != "thread"}
        match thread:
            case None | {"type": "create"}:
                return sent
            case {"type": "continue", "previous_message_id": str(previous)}:
                with self._lock:
                    return self._continued(sent, previous, now)
            case _:
                raise invalid("thread: Input should be a create or a continue")

    def _continued(self, sent: dict[str, Any], previous: str, now: float) -> dict[str, Any]:
        thread = self._threads.get(previous)
        if thread is None or thread.expires <= now:
            raise Problem(404, f"thread: no state for {previous}", code="thread_not_found")
        repeated = [name for name in _KEPT if sent.get(name) is not None]
        if repeated:
            raise invalid(f"{repeated[0]}: may not be sent with thread.type 'continue'")
        differing = [name for name in _SAME if canonical(sent.get(name)) != canonical(thread.body.get(name))]
        if differing:
            message = f"thread: differing field(s): {', '.join(differing)}"
            raise Problem(400, message, code="thread_fingerprint_mismatch")
        if thread.continued:
            raise Problem(400, f"thread: {previous} has already been continued", code="thread_already_continued")
        if not isinstance(sent.get("messages"), list):
            raise invalid("messages: Input should be a valid list")
        thread.continued = True
        kept: dict[str, Any] = {name: thread.body[name] for name in _KEPT if name in thread.body}
        return {**sent, **kept, "messages": [*thread.body["messages"], *sent["messages"]]}

    def keep(self, message_id: str, body: Mapping[str, Any], content: list[dict[str, Any]], now: float) -> None:
        """Hold a conversation and its answer, to be continued from the answer's id."""
        answered = {**body, "messages": [*body["messages"], {"role": "assistant", "content": content}]}
        with self._lock:
            self._threads[message_id] = _Thread(answered, now + _TTL)
            while len(self._threads) > _MOST:
                self._threads.popitem(last=False)
