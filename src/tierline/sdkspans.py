"""What the SDK tells of its own calls in a trace, and what is left to tell."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from tierline.chat import Chat

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anthropic import APIRequest
    from opentelemetry.trace import Span

    from tierline.chat import Write

log: Final = logging.getLogger("tierline")

CAPTURE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""The conventions' own opt-in for texts on spans. The SDK's is a setting of the client, or its variable."""
_CAPTURED: Final = ("span_only", "span_and_event", "true")
_MOST_BYTES: Final = 750_000
"""Of the texts of one span, where the client says nothing: what the SDK allows itself."""


@dataclass(frozen=True, slots=True)
class Telling:
    """What a client tells of its calls itself (`spans`), and what is told of those that it says nothing of."""

    spans: bool
    chat: Chat

    def of(self, request: APIRequest) -> Chat | None:
        """What is told of this request; None where the SDK does. It has no span for a plain `client.post`."""
        return None if self.spans and request.options.span_name else self.chat


def telling_of(client: Any) -> Telling:
    """How a client's calls are told.

    Read once: a client's setting does not change, and the environment is read as the SDK reads it, at the start.
    """
    options: Mapping[str, Any] = getattr(client, "open_telemetry", None) or {}
    traces: Mapping[str, Any] = options.get("traces") or {}
    wanted = traces.get("content_mode") == "content" or os.environ.get(CAPTURE, "").strip().lower() in _CAPTURED
    base = urlsplit(str(client.base_url))
    chat = Chat(
        provider=getattr(client, "_gen_ai_provider_name", "anthropic"),
        address=base.hostname or "",
        port=base.port or (80 if base.scheme == "http" else 443),
        conversation=options.get("conversation_id"),
        write=_writer(traces.get("max_content_bytes") or _MOST_BYTES) if wanted else None,
    )
    return Telling(bool(traces.get("enabled", True)), chat)


def _writer(most: int) -> Write | None:
    """Puts texts on a span exactly as the SDK does on its own. None, said once, where this release of it has no way."""
    try:
        from anthropic.lib._tracing._content import set_message_content  # noqa: PLC0415  (not a part of its API)
    except ImportError:
        log.warning("texts were opted into, and are on no span: this release of the anthropic SDK cannot write them")
        return None

    def write(span: Span, body: Mapping[str, Any], output: object) -> None:
        set_message_content(span, body, output, limit=most)  # type: ignore[arg-type]

    return write
