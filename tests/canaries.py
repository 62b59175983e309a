"""Whether a text or a key that went through a test came out where nobody asked for it.

Always on: each prompt that reaches a FakeClaude of the test's own process is a canary afterwards, and so is its key.
They are looked for in what Tierline logged, in its spans and metrics, in what it sent to Redis, and in the SQLite files
that the test left. A test that turns on what keeps or tells texts is marked `texts`.
"""

from __future__ import annotations

import logging
import traceback
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

from tierline.testing import FakeClaude

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LEAST: Final = 16
"""Characters of a prompt that is no coincidence."""
MOST: Final = 400
"""Texts of one test that are looked for, and characters of each."""
_SQLITE: Final = b"SQLite format 3\0"
_LARGEST: Final = 20_000_000


class Watch(logging.Handler):
    """What came out of one test."""

    def __init__(self) -> None:
        super().__init__()
        self.fakes: list[FakeClaude] = []
        self.told: list[tuple[str, str]] = []
        """Where something was told, and what."""
        self.sent: list[bytes] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += "".join(traceback.format_exception(record.exc_info[1]))
        self.told.append(("a log line", text))

    def span(self, span: Any) -> None:
        """Note a span of Tierline's own; those of the SDK and of other libraries are theirs."""
        scope = span.instrumentation_scope
        if scope is not None and scope.name.startswith("tierline"):
            events = [(event.name, dict(event.attributes or {})) for event in span.events]
            status = span.status.description
            self.told.append(("a span", repr((span.name, dict(span.attributes or {}), events, status))))

    def canaries(self) -> set[str]:
        """Keys, and texts of prompts."""
        made = [fake for fake in self.fakes if hasattr(fake, "api_key")]  # arguments that are refused make none
        found: set[str] = {fake.api_key for fake in made}
        for fake in made:
            for request in fake.requests:
                body = request.body if isinstance(request.body, dict) else {}
                found.update(_texts(body.get("system")))
                messages = body.get("messages")
                for message in messages if isinstance(messages, list) else ():
                    found.update(_texts(message.get("content") if isinstance(message, dict) else None))
                if len(found) > MOST:
                    return found
        return found

    def leaks(self, files: Path | None) -> list[str]:
        """What was found, and where."""
        canaries = {canary[:MOST] for canary in self.canaries()}
        found = [f"{canary!r:.80} in {where}" for canary in canaries for where, what in self.told if canary in what]
        raw = [(canary, canary.encode("utf-8", "surrogatepass")) for canary in canaries]
        kept = [("what Redis was sent", b"\n".join(self.sent)), *_databases(files)]
        return found + [f"{canary!r:.80} in {where}" for canary, text in raw for where, what in kept if text in what]


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        if len(content.strip()) >= LEAST:
            yield content
    elif isinstance(content, list):
        for block in content[:20]:
            if isinstance(block, dict):
                yield from _texts(block.get("text"))


def _databases(files: Path | None) -> Iterator[tuple[str, bytes]]:
    for path in sorted(files.rglob("*")) if files is not None and files.is_dir() else ():
        try:
            if path.is_file() and path.stat().st_size < _LARGEST:
                content = path.read_bytes()
                if content.startswith(_SQLITE) or path.name.endswith(("-wal", ".journal")):
                    yield path.name, content
        except OSError:
            continue  # a test may have taken its rights away


def _around(method: Callable[..., Any], note: Callable[..., None]) -> Callable[..., Any]:
    @wraps(method)
    def noting(self: Any, *given: Any, **named: Any) -> Any:
        note(self, *given, **named)
        return method(self, *given, **named)

    return noting


@contextmanager
def watching() -> Iterator[Watch]:
    """Watch what comes out until the block ends."""
    watch = Watch()
    log = logging.getLogger("tierline")
    with ExitStack() as stack:

        def note(owner: Any, name: str, noted: Callable[..., None]) -> None:
            stack.enter_context(mock.patch.object(owner, name, _around(getattr(owner, name), noted)))

        note(FakeClaude, "__init__", lambda self, *_, **__: watch.fakes.append(self))
        for owner, name, noted in _doors(watch):
            note(owner, name, noted)
        log.addHandler(watch)
        stack.callback(log.removeHandler, watch)
        yield watch


def _doors(watch: Watch) -> Iterator[tuple[Any, str, Callable[..., None]]]:
    """Through which something leaves: methods, each with what notes it. Packages that are not there have none."""
    try:
        from opentelemetry.sdk import trace
        from opentelemetry.sdk.metrics import _internal
    except ImportError:
        pass
    else:
        yield trace.Span, "end", lambda self, *_, **__: watch.span(self)
        for instrument in ("_Counter", "_UpDownCounter", "_Histogram", "_Gauge"):
            kind: Any = getattr(_internal.instrument, instrument, None)
            for name in ("add", "record", "set"):
                if hasattr(kind, name):
                    yield (
                        kind,
                        name,
                        lambda _self, _amount, attributes=None, *_, **__: watch.told.append(
                            ("a metric", repr(attributes))
                        ),
                    )
    try:
        from redis.asyncio.connection import AbstractConnection
    except ImportError:
        return

    def sent(_: Any, command: Any, *__: Any, **___: Any) -> None:
        watch.sent.extend([command] if isinstance(command, bytes) else [bytes(part) for part in command])

    yield AbstractConnection, "send_packed_command", sent
