"""The seam to the SDK: a middleware on the client, which sees every method once per attempt.

`attach` gives a routed copy of a client. Nothing of the SDK is wrapped or retyped: the copy is a client of the
same class, and whatever takes such a client takes this one.
"""

from __future__ import annotations

import weakref
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeVar, cast
from urllib.parse import urlsplit

import httpx2
from anthropic import Anthropic, APIConnectionError, APITimeoutError, AsyncAnthropic, Middleware
from anthropic._base_client import AsyncAPIClient

from tierline.attempts import Reply
from tierline.call import read_call
from tierline.errors import ConfigurationError
from tierline.usage import StreamReader, WholeReader, decoder_for, metered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from anthropic import APIRequest, AsyncCallNext
    from anthropic._response import AsyncAPIResponse

    from tierline.attempts import OpenAttempt
    from tierline.call import Call
    from tierline.dispatch import Upstream
    from tierline.usage import Reader

_CREATE: Final = "/v1/messages"
_COUNT: Final = "/v1/messages/count_tokens"
_METERED: Final = (_CREATE, _COUNT, "/v1/messages/batches", "/v1/complete")
"""Paths of requests that spend, and of those that ask what would be spent. What ends a batch is none of them."""
_SESSIONS: Final = "/v1/sessions"
"""Work of agents on the server, which nothing here can bound."""
_FUTILE: Final = "spend_limit_reached"
_NEVER_SENT: Final = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
_RATE_LIMITED: Final = 429
_PASSING: Final = (408, 409, _RATE_LIMITED)
"""Statuses below 500 that the same request may not meet again: as the SDK has it."""
_SERVER_ERROR: Final = 500
_RAW: Final = "X-Stainless-Raw-Response"


class Routes(Protocol):
    """What the seam needs of a Router."""

    async def run(self, call: Call, upstream: Upstream) -> Reply:
        """Take a call from admission to settlement."""
        ...

    async def body_for_count(self, call: Call, upstream: Upstream) -> dict[str, Any]:
        """The body of a token count, with its model resolved."""
        ...

    def refuse_unreadable(self, what: str) -> None:
        """Raise where a hard budget holds for a request that cannot be read."""
        ...


class Client(Protocol):
    """Any client of the SDK: those of the platforms are no subclasses of AsyncAnthropic."""

    max_retries: int

    @property
    def middleware(self) -> Sequence[Any]:
        """What its calls pass through, outermost first."""
        ...


ClientT = TypeVar("ClientT", bound=Client)


def default_client() -> AsyncAnthropic:
    """A client from the environment, as the SDK makes it."""
    return AsyncAnthropic()


def has_credentials(client: Any) -> bool:
    """Whether a client has a key, or a way to one. Those of the platforms sign their requests, each in its own way."""
    if type(client) not in (AsyncAnthropic, Anthropic):
        return True
    named = {name.lower() for name in client.default_headers}
    return bool({"x-api-key", "authorization"} & named) or client.credentials is not None


def attach(client: ClientT, router: Routes) -> ClientT:
    """A routed copy of `client`, which must be an asynchronous one. One that is routed already is returned as it is.

    Its calls with `model="auto"` go where `router` sends them. The copy shares the HTTP client of the original. Retries
    are Tierline's: `max_retries` of the client, and of `with_options`, is the bound of ours. Copies made by
    `copy` and `with_options` stay routed.
    """
    if not isinstance(client, AsyncAPIClient):
        raise ConfigurationError(
            f"attach() takes an asynchronous client of the anthropic SDK, such as AsyncAnthropic(); "
            f"got {type(client).__name__}"
        )
    if any(isinstance(entry, Seam) and entry.router is router for entry in client.middleware):
        return client
    # On a client that another Router has, the SDK's retries are off already.
    retries = next((entry.retries for entry in client.middleware if isinstance(entry, Seam)), client.max_retries)
    return cast("ClientT", _attached(client, router, retries))


def _attached(client: Any, router: Routes, retries: int) -> Any:
    """The routed copy. The SDK's retry loop is switched off on it: it would ask for a decision per attempt."""
    others = [entry for entry in client.middleware if not isinstance(entry, Seam)]
    seam = Seam(router, retries)
    copy: Callable[..., Any] = type(client).copy
    routed = copy(client, max_retries=0, middleware=[*others, seam])
    seam.client = routed

    def derive(**options: Any) -> Any:
        # A subclass would not do: the SDK tests for its own classes, and drops credentials of others.
        options.setdefault("max_retries", seam.retries)
        derived = copy(routed, **options)
        return _attached(derived, router, derived.max_retries)

    routed.copy = derive
    routed.with_options = derive
    return routed


class Seam(Middleware):
    """Turns a request of the SDK into a call, and what the Router returns into a response of the SDK."""

    def __init__(self, router: Routes, retries: int) -> None:
        self.router = router
        self.retries = retries
        self.client: Any = None

    async def handle_async(self, request: APIRequest, call_next: AsyncCallNext) -> AsyncAPIResponse[Any]:
        """One call: the SDK's own retries are off, so it comes here once."""
        # `client.post` takes a path without its slash too, and a whole address.
        path = f"/{urlsplit(request.options.url).path.strip('/')}"
        if not (path.endswith(_METERED) or _SESSIONS in path) or request.options.method.lower() != "post":
            return await call_next(request)
        kind: Literal["create", "count"] = "create" if path.endswith(_CREATE) else "count"
        counted = path.endswith(_COUNT)
        call = read_call(kind, request.options.json_data) if kind == "create" or counted else None
        if call is None:
            if not counted:
                self.router.refuse_unreadable(f"a request to {path} that is no Messages request")
            return await call_next(request)
        exchange = _Exchange(self, request, call, call_next)
        if kind == "count":
            request.options.json_data = await self.router.body_for_count(call, exchange)
            return await call_next(request)
        reply = await self.router.run(call, exchange)
        if reply.exception is not None:
            raise reply.exception
        return cast("AsyncAPIResponse[Any]", reply.response)


class _Exchange:
    """The attempts of one call, as the Router sends them."""

    __slots__ = ("_call", "_call_next", "_request", "_seam")

    def __init__(self, seam: Seam, request: APIRequest, call: Call, call_next: AsyncCallNext) -> None:
        self._seam = seam
        self._request = request
        self._call = call
        self._call_next = call_next

    @property
    def client(self) -> Any:
        return self._seam.client

    @property
    def retries(self) -> int:
        return self._seam.retries

    async def send(self, body: dict[str, Any], number: int) -> Reply:
        """One attempt. The SDK copies the options for each, so only the body is exchanged."""
        request = self._request
        request.options.json_data = body
        request.retries_taken = number
        try:
            response: Any = await self._call_next(request)
        except APITimeoutError as error:
            return _no_answer(error, "timeout")
        except APIConnectionError as error:
            return _no_answer(error, "connection_error")
        except Exception as error:  # noqa: BLE001  (a body or a key that the SDK cannot send: raised in the app)
            return Reply(exception=error, error=type(error).__name__, sent=False)
        # `cast_to=httpx2.Response` is answered with no wrapper of the SDK's.
        raw: httpx2.Response = response if isinstance(response, httpx2.Response) else response.http_response
        if raw.is_success:
            return await self._success(response, raw)
        return await _refused(response, raw)

    async def _success(self, response: AsyncAPIResponse[Any], raw: httpx2.Response) -> Reply:
        if raw.is_closed:
            return Reply(response, status=raw.status_code, metered=await self._read(response, raw))
        if raw.is_stream_consumed:  # read by a middleware of the app
            return Reply(response, status=raw.status_code, metered=_usage_in(raw, self._call))
        return Reply(response, status=raw.status_code, tap=lambda attempt: _tap(raw, self._call, attempt))

    async def _read(self, response: AsyncAPIResponse[Any], raw: httpx2.Response) -> Any:
        """The usage of a whole answer, through the SDK's own parsing, which it keeps for the app."""
        message = None
        if not _is_raw(self._request):
            # The app meets the same error when it parses: the bill comes first.
            with suppress(Exception):
                message = await response.parse()
        usage = getattr(message, "usage", None)
        if usage is None:
            return _usage_in(raw, self._call)
        return metered(usage.model_dump(), self._call.terms, getattr(message, "id", ""))


def _is_raw(request: APIRequest) -> bool:
    """Whether the caller parses for itself, perhaps into another type."""
    return request.headers.get(_RAW) is not None if isinstance(request.headers, dict) else False


def _usage_in(raw: httpx2.Response, call: Call) -> Any:
    reader = WholeReader(call.terms)
    reader.feed(raw.content)
    return reader.seen


def _no_answer(error: Exception, name: str) -> Reply:
    """An attempt without a response: nothing is billed where no connection was made."""
    sent = not isinstance(error.__cause__, _NEVER_SENT)
    return Reply(exception=error, error=name, retry=True, elsewhere=False, sent=sent)


async def _refused(response: AsyncAPIResponse[Any], raw: httpx2.Response) -> Reply:
    """An error of the API. Its body is read, for the type in it; the SDK raises its own error from it later."""
    try:
        await raw.aread()
        document = raw.json()
        error = document["error"]["type"]
        details = document["error"].get("details")
        code = details.get("error_code") if isinstance(details, dict) else None
    except (httpx2.HTTPError, httpx2.StreamError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        error = code = None
    status = raw.status_code
    futile = any(isinstance(word, str) and _FUTILE in word for word in (error, code))
    asked = raw.headers.get("x-should-retry")
    retry = not futile and (
        asked == "true" if asked in ("true", "false") else status in _PASSING or status >= _SERVER_ERROR
    )
    # The SDK would retry on its own what it is given back.
    raw.headers["x-should-retry"] = "false"
    return Reply(
        response,
        status=status,
        error=error[:60] if isinstance(error, str) else f"http_{status}",
        retry=retry and status not in (401, 403),
        elsewhere=not futile and (status == _RATE_LIMITED or status >= _SERVER_ERROR),
        retry_after=retry_after(raw.headers),
        discard=raw.aclose,
    )


def retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds that the API asks to wait: `retry-after-ms`, or `retry-after` in seconds or as a date."""
    try:
        if (ms := headers.get("retry-after-ms")) is not None:
            return max(0.0, float(ms) / 1000)
        if (value := headers.get("retry-after")) is None:
            return None
        if value.replace(".", "", 1).isdigit():
            return float(value)
        then = parsedate_to_datetime(value)
        now = parsedate_to_datetime(headers["date"]) if "date" in headers else then.now(then.tzinfo)
        return max(0.0, (then - now).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def _tap(raw: httpx2.Response, call: Call, attempt: OpenAttempt) -> None:
    """Read usage out of an answer while the app reads it."""
    events = raw.headers.get("content-type", "").startswith("text/event-stream")
    attempt.reader = reader = StreamReader(call.terms) if events else WholeReader(call.terms)
    attempt.close = _closer(raw)
    decode = decoder_for(raw.headers.get("content-encoding", ""))
    raw.stream = _Tap(cast("httpx2.AsyncByteStream", raw.stream), attempt, reader, decode)


def _closer(raw: httpx2.Response) -> Callable[[], Awaitable[None]]:
    """Closes an answer that is still there. It does not keep it there: what the app drops must be collected."""
    answer = weakref.ref(raw)

    async def close() -> None:
        if (still := answer()) is not None:
            await still.aclose()

    return close


class _Tap(httpx2.AsyncByteStream):
    """Passes every byte on as it came, as early as it came; looks at it on the side, and never raises for that."""

    def __init__(
        self,
        inner: httpx2.AsyncByteStream,
        attempt: OpenAttempt,
        reader: Reader,
        decode: Callable[[bytes], bytes] | None,
    ) -> None:
        self._inner = inner
        self._attempt = attempt
        self._reader = reader
        self._decode = decode
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        attempt, outcome = self._attempt, "client_disconnected"
        chunks = self._inner.__aiter__()
        try:
            while True:
                attempt.reading = True
                try:
                    chunk = await anext(chunks)
                except StopAsyncIteration:
                    outcome = "ok"
                    return
                finally:
                    attempt.reading = False
                if not attempt.progress:
                    attempt.began()
                attempt.progress += 1
                self._look(chunk)
                yield chunk
        except Exception as error:
            outcome = "timeout" if isinstance(error, httpx2.TimeoutException) else "connection_error"
            raise
        finally:
            await attempt.streamed(outcome)

    def _look(self, chunk: bytes) -> None:
        if self._decode is None:
            return
        try:
            self._reader.feed(self._decode(chunk))
        except Exception:  # noqa: BLE001  (the app's stream comes first: what cannot be read is estimated)
            self._decode = None

    async def aclose(self) -> None:
        self._closed = True
        try:
            await self._inner.aclose()
        finally:
            await self._attempt.streamed("closed")

    def __del__(self) -> None:
        # Dropped without being closed: nobody else will end it.
        if not self._closed:
            self._attempt.dropped(self._inner.aclose)
