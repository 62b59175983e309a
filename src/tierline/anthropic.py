"""The seam to the SDK: a middleware on the client, which sees every method once per attempt.

`attach` gives a routed copy of a client. Nothing of the SDK is wrapped or retyped: the copy is a client of the
same class, and whatever takes such a client takes this one.
"""

from __future__ import annotations

import asyncio
import inspect
from contextlib import suppress
from contextvars import copy_context
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeVar, cast
from urllib.parse import urlsplit

import httpx2
from anthropic import Anthropic, APIConnectionError, APITimeoutError, AsyncAnthropic, Middleware
from anthropic._base_client import AsyncAPIClient, SyncAPIClient
from opentelemetry import trace

from tierline.attempts import Reply
from tierline.binding import context
from tierline.blocking import Bridge, at_once
from tierline.call import read_call
from tierline.consult import ask
from tierline.errors import ConfigurationError
from tierline.tap import tap
from tierline.telemetry import active
from tierline.usage import WholeReader, metered
from tierline.values import REGIONAL

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from anthropic import APIRequest, AsyncCallNext, CallNext
    from anthropic._response import APIResponse, AsyncAPIResponse

    from tierline.blocking import Portal
    from tierline.call import Call
    from tierline.dispatch import Upstream
    from tierline.usage import Metered
    from tierline.values import Terms

_CREATE: Final = "/v1/messages"
_COUNT: Final = "/v1/messages/count_tokens"
_METERED: Final = (
    _CREATE, _COUNT, "/v1/messages/batches", "/v1/complete",
    "/invoke", "/invoke-with-response-stream", "/converse", "/converse-stream", ":rawPredict", ":streamRawPredict",
)  # fmt: skip
"""Paths of requests that spend, and of those that ask what would be spent. What ends a batch is none of them.

The last are those of Bedrock and Vertex, to which their clients rewrite the first two when the seam has seen them."""
_SESSIONS: Final = "/v1/sessions"
"""Work of agents on the server, which nothing here can bound."""
_FUTILE: Final = "spend_limit_reached"
_NEVER_SENT: Final = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
_RATE_LIMITED: Final = 429
_PASSING: Final = (408, 409, _RATE_LIMITED)
"""Statuses below 500 that the same request may not meet again: as the SDK has it."""
_SERVER_ERROR: Final = 500
_RAW: Final = "X-Stainless-Raw-Response"


class Gate(Protocol):
    """What takes requests."""

    async def run(self, call: Call, upstream: Upstream) -> Reply:
        """Take a call from admission to settlement."""
        ...

    async def body_for_count(self, call: Call, upstream: Upstream) -> dict[str, Any]:
        """The body of a token count, as the call would be sent."""
        ...

    def refuse_unreadable(self, what: str) -> None:
        """Raise where a hard budget holds for a request that cannot be read."""
        ...


class Routes(Protocol):
    """What the seam needs of a Router."""

    @property
    def portal(self) -> Portal:
        """Where calls of synchronous clients run that have no loop."""
        ...

    @property
    def gate(self) -> Gate:
        """What requests are handed to."""
        ...


class Client(Protocol):
    """Any client of the SDK: those of the platforms are no subclasses of AsyncAnthropic."""

    max_retries: int

    @property
    def middleware(self) -> Sequence[Any]:
        """What its calls pass through, outermost first."""
        ...


ClientT = TypeVar("ClientT", bound=Client)


def default_client(*, blocking: bool) -> AsyncAnthropic | Anthropic:
    """A client from the environment, as the SDK makes it."""
    return Anthropic() if blocking else AsyncAnthropic()


def is_blocking(client: object) -> bool:
    """Whether a client is a synchronous one. ConfigurationError for what is no client of the SDK."""
    if isinstance(client, SyncAPIClient):
        return True
    if isinstance(client, AsyncAPIClient):
        return False
    raise ConfigurationError(
        f"a client of the anthropic SDK is needed, such as AsyncAnthropic() or Anthropic(); got {type(client).__name__}"
    )


def has_credentials(client: Any) -> bool:
    """Whether a client has a key, or a way to one. Those of the platforms sign their requests, each in its own way."""
    if type(client) not in (AsyncAnthropic, Anthropic):
        return True
    named = {name.lower() for name in client.default_headers}
    return bool({"x-api-key", "authorization"} & named) or client.credentials is not None


def attach(client: ClientT, router: Routes) -> ClientT:
    """A routed copy of `client`, asynchronous or synchronous. One that is routed already is returned as it is.

    Its calls with `model="auto"` go where `router` sends them. The copy shares the HTTP client of the original. Retries
    are Tierline's: `max_retries` of the client, and of `with_options`, is the bound of ours. Copies made by
    `copy` and `with_options` stay routed.

    A synchronous copy may be used in any thread. In an `async def` it works too, but blocks the event loop, as every
    synchronous client does; that is logged once.

    ConfigurationError for what is no client of the SDK, and for a class of the app's own that cannot be copied.
    """
    is_blocking(client)
    if any(isinstance(entry, Seam) and entry.router is router for entry in client.middleware):
        return client
    # On a client that another Router has, the SDK's retries are off already.
    retries = next((entry.retries for entry in client.middleware if isinstance(entry, Seam)), client.max_retries)
    try:
        return cast("ClientT", _attached(client, router, retries))
    except TypeError as error:
        raise ConfigurationError(
            f"{type(client).__name__} cannot be routed, for its copy() fails ({error}): the constructor of a class of "
            "your own must take the arguments of the SDK's, and hand them on"
        ) from error


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
        call = self._read(request)
        if call is None:
            return await call_next(request)
        exchange = _Exchange(self, request, call, call_next)
        if call.kind == "count":
            request.options.json_data = await self.router.gate.body_for_count(call, exchange)
            return await call_next(request)
        return cast("AsyncAPIResponse[Any]", _response(await self.router.gate.run(call, exchange)))

    def handle(self, request: APIRequest, call_next: CallNext) -> APIResponse[Any]:
        """The same for a synchronous client: this thread waits for the core, and sends what that asks it to send."""
        call = self._read(request)
        if call is None:
            return call_next(request)
        bridge = Bridge(self.router.portal)
        exchange = _Exchange(self, request, call, call_next, bridge)
        if call.kind == "count":
            request.options.json_data = bridge.run(self.router.gate.body_for_count(call, exchange))
            return call_next(request)
        return cast("APIResponse[Any]", _response(bridge.run(self._run(call, exchange))))

    async def _run(self, call: Call, exchange: _Exchange) -> Reply:
        """Take a call to its end: a question of Tierline's own within its timeout, whatever it waits for."""
        timeout = exchange.timeout if context().own is not None else None
        async with asyncio.timeout(timeout):
            return await self.router.gate.run(call, exchange)

    def _read(self, request: APIRequest) -> Call | None:
        """The call that a request is; None for one that is passed on as it is."""
        # `client.post` takes a path without its slash too, and a whole address.
        path = f"/{urlsplit(request.options.url).path.strip('/')}"
        if not (path.endswith(_METERED) or _SESSIONS in path) or request.options.method.lower() != "post":
            return None
        kind: Literal["create", "count"] = "create" if path.endswith(_CREATE) else "count"
        counted = path.endswith(_COUNT)
        call = read_call(kind, request.options.json_data) if kind == "create" or counted else None
        if call is None:
            if not counted:
                self.router.gate.refuse_unreadable(f"a request to {path} that is no Messages request")
            return None
        if (region := getattr(self.client, "region", None)) is not None:
            # Vertex: no answer says what the client's endpoint costs.
            geo = "global" if region == "global" else REGIONAL
            call = call._replace(terms=call.terms._replace(geo=geo))
        return call


def _response(reply: Reply) -> Any:
    """What goes back to the SDK, or is raised in it."""
    if reply.exception is not None:
        raise reply.exception
    return reply.response


class _Exchange:
    """The attempts of one call, as the Router sends them.

    Written once for both kinds of clients: with a `bridge` the client is a synchronous one, and all that it does is
    done in the thread that called.
    """

    __slots__ = ("_bridge", "_call", "_call_next", "_request", "_seam", "_terms")

    def __init__(
        self,
        seam: Seam,
        request: APIRequest,
        call: Call,
        call_next: AsyncCallNext | CallNext,
        bridge: Bridge | None = None,
    ) -> None:
        self._seam = seam
        self._request = request
        self._call = call
        self._call_next: Callable[[APIRequest], Any] = call_next
        self._terms = call.terms
        self._bridge = bridge

    @property
    def client(self) -> Any:
        return self._seam.client

    @property
    def retries(self) -> int:
        return self._seam.retries

    @property
    def timeout(self) -> float | None:
        """Seconds, where the request says so in one number."""
        timeout = self._request.options.timeout
        return timeout if isinstance(timeout, (int, float)) else None

    async def ask(self, body: dict[str, Any], timeout: float) -> Any:
        """A question of Tierline's own, with the client whose call this is: no other may belong to this loop."""
        return await self._ask(self.client.messages.create, body, timeout)

    async def count(self, body: dict[str, Any], timeout: float) -> Any:
        """The tokens of a prompt, with the same client."""
        return await self._ask(self.client.messages.count_tokens, body, timeout)

    async def _ask(self, method: Callable[..., Any], body: dict[str, Any], timeout: float) -> Any:
        if self._bridge is None:
            return await ask(method, body, timeout)
        create = partial(method, **body, timeout=timeout)
        try:
            return await self._bridge.here(partial(copy_context().run, create))
        except APITimeoutError as error:
            raise TimeoutError from error

    async def send(self, body: dict[str, Any], number: int) -> Reply:
        """One attempt."""
        if self._bridge is None:
            return await self._send(body, number)
        span = trace.get_current_span()

        def send() -> Reply:
            with active(span):
                return at_once(self._send(body, number))

        return await self._bridge.here(send, late=_let_go)

    async def _send(self, body: dict[str, Any], number: int) -> Reply:
        """The SDK copies the options for each attempt, so only the body is exchanged."""
        request = self._request
        request.options.json_data = body
        request.retries_taken = number
        fast = body.get("speed") == "fast"  # a tier may have none
        self._terms = self._call.terms if fast == self._call.terms.fast else self._call.terms._replace(fast=fast)
        try:
            response: Any = await _value(self._call_next(request))
        except APITimeoutError as error:
            return _no_answer(error, "timeout")
        except APIConnectionError as error:
            if isinstance(error.__cause__, RuntimeError) and self.client.is_closed():
                return Reply(exception=error, error="client_closed", sent=False)
            return _no_answer(error, "connection_error")
        except Exception as error:  # noqa: BLE001  (a body or a key that the SDK cannot send: raised in the app)
            return Reply(exception=error, error=type(error).__name__, sent=False)
        # `cast_to=httpx2.Response` is answered with no wrapper of the SDK's.
        raw = _raw_of(response)
        if raw.is_success:
            return await self._success(response, raw)
        with suppress(httpx2.HTTPError, httpx2.StreamError):
            await _value((raw.aread if self._bridge is None else raw.read)())
        return _refused(response, raw, raw.aclose if self._bridge is None else partial(self._bridge.here, raw.close))

    async def _success(self, response: Any, raw: httpx2.Response) -> Reply:
        if raw.is_closed:
            return Reply(response, status=raw.status_code, metered=await self._meter(response, raw))
        if raw.is_stream_consumed:  # read by a middleware of the app
            return Reply(response, status=raw.status_code, metered=_usage_in(raw, self._terms))
        blocking = self._bridge is not None
        return Reply(response, status=raw.status_code, tap=partial(tap, raw, blocking=blocking))

    async def _meter(self, response: Any, raw: httpx2.Response) -> Metered | None:
        """The usage of a whole answer, through the SDK's own parsing, which it keeps for the app."""
        message = None
        if not _is_raw(self._request):
            # The app meets the same error when it parses: the bill comes first.
            with suppress(Exception):
                message = await _value(response.parse())
        usage = getattr(message, "usage", None)
        if usage is None:
            return _usage_in(raw, self._terms)
        return metered(usage.model_dump(), self._terms, getattr(message, "id", ""))


async def _value(given: Any) -> Any:
    """What an asynchronous client gives when it is awaited, and a synchronous one at once."""
    return await given if inspect.isawaitable(given) else given


def _raw_of(response: Any) -> httpx2.Response:
    raw: httpx2.Response = response if isinstance(response, httpx2.Response) else response.http_response
    return raw


def _let_go(reply: Reply) -> None:
    """An answer that nobody waits for any more."""
    if reply.response is not None:
        _raw_of(reply.response).close()


def _is_raw(request: APIRequest) -> bool:
    """Whether the caller parses for itself, perhaps into another type."""
    return request.headers.get(_RAW) is not None if isinstance(request.headers, dict) else False


def _usage_in(raw: httpx2.Response, terms: Terms) -> Metered | None:
    """The usage of a whole answer, from its bytes."""
    reader = WholeReader(terms)
    reader.feed(raw.content)
    return reader.seen


def _no_answer(error: Exception, name: str) -> Reply:
    """An attempt without a response: nothing is billed where no connection was made."""
    sent = not isinstance(error.__cause__, _NEVER_SENT)
    return Reply(exception=error, error=name, retry=True, elsewhere=False, sent=sent)


def _refused(response: Any, raw: httpx2.Response, discard: Callable[[], Coroutine[Any, Any, None]]) -> Reply:
    """An error of the API, by the type in its body; the SDK raises its own error from it later."""
    try:
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
        discard=discard,
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
