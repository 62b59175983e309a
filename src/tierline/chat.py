"""The span of a call to Claude where the SDK makes none: `chat auto`, by the GenAI conventions.

The SDK traces its own calls, and then this is not made. Where an app has switched that off, the call would be missing
from its trace: so Tierline tells of it itself, in the same place, as the parent of `route`. Texts are on it where the
same opt-in would have put them on the SDK's.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from tierline.display import bounded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer

    from tierline.call import Call
    from tierline.usage import Metered

    Write = Callable[[Span, Mapping[str, Any], object], None]


@dataclass(frozen=True, slots=True)
class Chat:
    """What is told of the calls of a client that tells nothing itself.

    `provider` is whose API it is (`anthropic`, `aws.bedrock`), at `address` and `port`. `conversation` is what the app
    has named theirs, None where it has not. `write` puts the texts of a request and of its answer on a span; None
    without the opt-in.
    """

    provider: str
    address: str
    port: int
    conversation: str | None = None
    write: Write | None = None


class ChatSpan:
    """That of one call."""

    __slots__ = ("_call", "_chat", "_span", "context", "keeps")

    def __init__(self, tracer: Tracer, chat: Chat, call: Call) -> None:
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": chat.provider,
            "gen_ai.request.model": (model := bounded(call.model)),
            "server.address": chat.address,
            "server.port": chat.port,
        }
        if call.max_tokens is not None:
            attributes["gen_ai.request.max_tokens"] = call.max_tokens
        if call.stream:
            attributes["gen_ai.request.stream"] = True
        if chat.conversation is not None:
            attributes["gen_ai.conversation.id"] = chat.conversation
        # From the start, so that a sampler sees them.
        self._span = tracer.start_span(f"chat {model}", kind=SpanKind.CLIENT, attributes=attributes)
        self._chat, self._call = chat, call
        self.context: Context = trace.set_span_in_context(self._span)
        """Where the spans of the call go that are under this one."""
        self.keeps = chat.write is not None and self._span.is_recording()
        """Whether it wants the answer."""

    def end(
        self,
        model: str,
        found: Metered | None,
        *,
        first_chunk: float | None,
        output: Callable[[], object],
        error: str,
    ) -> None:
        """The call is over: it was sent to `model`, and `found` came back. `first_chunk` is in seconds.

        `output` gives the content of the answer, None where it has none; it is called where that is wanted.
        """
        span = self._span
        if span.is_recording():
            values: dict[str, Any] = {}
            if found is not None:
                usage = found.usage
                values = {
                    "gen_ai.response.model": model,
                    # With what was cached, as the conventions have it.
                    "gen_ai.usage.input_tokens": usage.prompt_tokens,
                    "gen_ai.usage.cache_read.input_tokens": usage.cache_read,
                    "gen_ai.usage.cache_write.input_tokens": usage.cache_write_5m + usage.cache_write_1h,
                }
                if found.message_id:
                    values["gen_ai.response.id"] = bounded(found.message_id)
                if found.stop:
                    # Before the end of a stream there is no such number, but a first guess.
                    values["gen_ai.usage.output_tokens"] = usage.output_tokens
                    values["gen_ai.response.finish_reasons"] = [bounded(found.stop)]
            if first_chunk is not None:
                values["gen_ai.response.time_to_first_chunk"] = first_chunk
            span.set_attributes(values)
            if error:
                span.set_attribute("error.type", error)
                span.set_status(Status(StatusCode.ERROR, error))
            if self.keeps and self._chat.write is not None:
                # Bodies come from anywhere, and the app's call is over: what cannot be told is left out.
                with suppress(Exception):
                    self._chat.write(span, self._call.body, output())
        span.end()
