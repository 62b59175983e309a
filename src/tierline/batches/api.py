"""The Message Batches API, as far as jobs need it: bodies that are never whole in memory, and results line by line."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tierline.errors import TierlineError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

_PATH: Final = "/v1/messages/batches"
_HEAD: Final = b'{"requests":['
_TAIL: Final = b"]}"
_AT_ONCE: Final = 500
_PAGE: Final = 100
_TIMEOUT: Final = 600.0


class Seen(NamedTuple):
    """A batch as the API says it is now. `total` counts its requests, `created` is in seconds since the epoch."""

    id: str
    ended: bool
    total: int
    created: float


class RefusedError(Exception):
    """The API said no, and has done nothing. `status` is that of its answer, `wait` what it asks for in seconds."""

    def __init__(self, status: int, kind: str, message: str, wait: float | None) -> None:
        super().__init__(f"{status} {kind}: {message}" if message else f"{status} {kind}")
        self.status, self.wait = status, wait


class UnknownError(Exception):
    """No answer that says whether it was done."""


class BatchAPI:
    """What is asked of the API, each once: the retries of the SDK are off, for they would create a batch twice.

    Raises RefusedError or UnknownError.
    """

    def __init__(self, client: Callable[[], Any]) -> None:
        self._client = client

    async def create(self, payloads: AsyncIterator[str], size: int) -> Seen:
        """Create a batch of requests whose lines have `size` bytes together, with one more for each."""
        from anthropic._base_client import make_request_options  # noqa: PLC0415  (as below)
        from anthropic.types.messages import MessageBatch  # noqa: PLC0415  (the SDK is there: its client is)

        async def body() -> AsyncIterator[bytes]:
            yield _HEAD
            first = True
            async for lines in _joined(payloads):
                yield lines if first else b"," + lines
                first = False
            yield _TAIL

        length = len(_HEAD) + len(_TAIL) + size - 1
        options = make_request_options(
            extra_headers={"content-type": "application/json", "content-length": str(length)},
            timeout=_TIMEOUT,
            span_name="anthropic.messages.batches.create",
            span_route=_PATH,
        )
        asked = self._client().post(_PATH, content=body(), cast_to=MessageBatch, options=options)
        return _seen(await _answered(asked))

    async def retrieve(self, name: str) -> Seen:
        """How a batch is."""
        return _seen(await _answered(self._client().messages.batches.retrieve(name)))

    async def cancel(self, name: str) -> Seen:
        """Cancel a batch; one that has ended is as it is."""
        try:
            return _seen(await _answered(self._client().messages.batches.cancel(name)))
        except RefusedError as error:
            if error.status != 400:  # noqa: PLR2004
                raise
            return await self.retrieve(name)

    async def since(self, moment: float) -> list[Seen]:
        """The batches that were created since then, newest first."""
        found: list[Seen] = []
        after: dict[str, str] = {}
        while True:
            page = await _answered(self._client().messages.batches.list(limit=_PAGE, **after))
            for each in map(_seen, page.data):
                if each.created < moment:
                    return found
                found.append(each)
            if not page.data or not page.has_more:
                return found
            after = {"after_id": page.data[-1].id}

    async def results(self, name: str) -> AsyncIterator[dict[str, Any]]:
        """The results of a batch that has ended, in no order, as far as they came; UnknownError where they broke off.

        A line that is none is passed over: who counts them knows what is missing.
        """
        rest = b""
        try:
            async with self._client().messages.batches.with_streaming_response.results(name) as answer:
                async for chunk in answer.iter_bytes():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        if (found := _line(line)) is not None:
                            yield found
        except Exception as error:
            # The SDK hands on what its HTTP library raises while a body is read.
            raise _meant(error) from error
        if (found := _line(rest)) is not None:
            yield found


async def _joined(payloads: AsyncIterator[str]) -> AsyncIterator[bytes]:
    lines: list[str] = []
    async for each in payloads:
        lines.append(each)
        if len(lines) == _AT_ONCE:
            yield ",".join(lines).encode()
            lines = []
    if lines:
        yield ",".join(lines).encode()


async def _answered(asked: Any) -> Any:
    """What the API answers, or one of our two errors."""
    try:
        return await asked
    except Exception as error:
        raise _meant(error) from error


def _meant(error: Exception) -> Exception:
    """What an exception of the SDK's means. Of a store's own it is itself."""
    from anthropic import APIStatusError  # noqa: PLC0415  (the SDK is there: its client is)

    if isinstance(error, APIStatusError):
        return _refused(error)
    return error if isinstance(error, TierlineError) else UnknownError(type(error).__name__)


def _refused(error: Any) -> Exception:
    """What an error of the API means. A 5xx but 529 may have come after it was done."""
    body = error.body if isinstance(error.body, dict) else {}
    inner = body.get("error")
    detail = inner if isinstance(inner, dict) else {}
    kind, message = str(detail.get("type") or type(error).__name__), str(detail.get("message") or "")[:200]
    status = error.status_code
    if 500 <= status != 529 or status < 400:  # noqa: PLR2004
        return UnknownError(f"{status} {kind}")
    try:
        wait = float(error.response.headers.get("retry-after", ""))
    except ValueError:
        wait = None
    return RefusedError(status, kind, message, wait)


def _seen(batch: Any) -> Seen:
    counts = batch.request_counts
    total = counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired
    created = batch.created_at
    if isinstance(created, str):
        created = datetime.fromisoformat(created)
    return Seen(batch.id, batch.processing_status == "ended", total, created.astimezone(UTC).timestamp())


def _line(line: bytes) -> dict[str, Any] | None:
    """A line of results; None for what is none."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    known = (
        isinstance(found, dict) and isinstance(found.get("custom_id"), str) and isinstance(found.get("result"), dict)
    )
    return found if known else None
