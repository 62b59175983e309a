"""The attempts of one call, as the SDK makes them: what is sent, and what came back of it."""

from __future__ import annotations

import asyncio
import json
import math
from contextlib import suppress
from contextvars import copy_context
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import httpx2
from anthropic import (
    APIConnectionError,
    APIError,
    APITimeoutError,
)
from anthropic.types import Message
from opentelemetry import trace

from tierline.attempts import Reply
from tierline.blocking import Aside, at_once
from tierline.consult import ask
from tierline.held import HeldAnswer
from tierline.limits import none_left, retry_after
from tierline.tap import hang_up, tap
from tierline.telemetry import active
from tierline.usage import WholeReader, metered

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

    from anthropic import APIRequest, AsyncCallNext, CallNext

    from tierline.blocking import Bridge
    from tierline.call import Call
    from tierline.chat import Chat
    from tierline.usage import Metered
    from tierline.values import Terms

_FUTILE: Final = "spend_limit_reached"
_NO_REQUEST: Final = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)
"""What cannot be sent, however often: an address or a header (perhaps of an app's client) that is none."""
_NOT_THE_API: Final = (httpx2.PoolTimeout, *_NO_REQUEST)
"""What the app's own side is the cause of."""
_NEVER_SENT: Final = (httpx2.ConnectError, httpx2.ConnectTimeout, *_NOT_THE_API)
_RATE_LIMITED: Final = 429
_PASSING: Final = (408, 409, _RATE_LIMITED)
"""Statuses below 500 that the same request may not meet again: as the SDK has it."""
_SERVER_ERROR: Final = 500
_KEYS: Final = ("x-api-key", "authorization")
_RAW: Final = "X-Stainless-Raw-Response"
_NOT_AGAIN: Final = ("x-stainless-", "idempotency-key")
"""Headers that say how an answer is read, and which request is which: not those of another one."""


class Exchange:
    """The attempts of one call, as the Router sends them.

    Written once for both kinds of clients: with a `bridge` the client is a synchronous one, and all that it does is
    done in the thread that called.
    """

    __slots__ = (
        "_bridge", "_call", "_call_next", "_reading", "_request", "_shortened", "_terms", "_timeout", "chat", "client",
        "endpoint", "retries",
    )  # fmt: skip

    def __init__(
        self,
        client: Any,
        retries: int,
        request: APIRequest,
        call: Call,
        call_next: AsyncCallNext | CallNext,
        bridge: Bridge | Aside | None = None,
        endpoint: Hashable = None,
        chat: Chat | None = None,
    ) -> None:
        self.client = client
        self.chat = chat
        headers = request.headers
        self.endpoint = _endpoint_of(endpoint, headers) if headers else endpoint
        self.retries = retries
        self._request = request
        self._timeout = request.options.timeout
        self._shortened = False
        self._reading: httpx2.Response | None = None
        """The answer whose bytes the thread that called waits for."""
        self._call = call
        self._call_next: Callable[[APIRequest], Any] = call_next
        self._terms = call.terms
        self._bridge = bridge

    @property
    def timeout(self) -> float | None:
        """Seconds, where the request says so in one number."""
        return self._timeout if isinstance(self._timeout, (int, float)) else None

    @property
    def patience(self) -> float:
        """Seconds that one attempt may take: what the app says of reading, here or on the client."""
        timeout = self._timeouts
        return timeout.read if timeout.read is not None else math.inf

    @property
    def _timeouts(self) -> httpx2.Timeout:
        given: Any = self._timeout
        if not (given is None or isinstance(given, (int, float, httpx2.Timeout))):
            given = self.client.timeout  # nothing was said of this request
        return given if isinstance(given, httpx2.Timeout) else httpx2.Timeout(given)

    async def ask(self, body: dict[str, Any], timeout: float) -> Any:
        """A question of Tierline's own, with the client whose call this is: no other may belong to this loop."""
        return await self._ask(self.client.messages.create, body, timeout)

    @property
    def repeatable(self) -> bool:
        """A thread that called is gone when its call is over, and a key of the request's own is not ours to use."""
        return self._bridge is None and not any(name.lower() in _KEYS for name in self._request.headers)

    async def again(self, body: dict[str, Any], timeout: float) -> Any:
        """The same request with another body, to the same path and with its headers: a beta is one."""
        options = self._request.options
        headers = {
            name: value for name, value in self._request.headers.items() if not name.lower().startswith(_NOT_AGAIN)
        }
        post = partial(self.client.post, options.url, cast_to=Message)
        return await ask(post, {"body": body, "options": {"headers": headers, "params": options.params}}, timeout)

    def apart(self) -> Exchange:
        """The same request, to be sent while it is being sent here: by a synchronous client in a thread of its own."""
        other = copy(self)
        # What is written into them for one attempt is not meant for another one.
        request = other._request = copy(self._request)  # noqa: SLF001  (of the same class)
        request.options = copy(request.options)
        if self._bridge is not None:
            other._bridge = Aside()  # noqa: SLF001
        return other

    @property
    def recallable(self) -> bool:
        """Not a synchronous client's: its thread waits for the first byte whatever becomes of the call."""
        return self._bridge is None

    def content(self, reply: Reply) -> bytes:
        """The bytes of an answer that has come back whole."""
        return _raw_of(reply.response).content

    def message(self, document: bytes) -> Message:
        """A message as the SDK reads it. ValueError where it is none."""
        return Message.construct(**json.loads(document))

    def hold(self, reply: Reply) -> HeldAnswer:
        """The beginning of an answer that is about to be read."""
        return HeldAnswer(_raw_of(reply.response), self._bridge)

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

    async def send(self, body: dict[str, Any], number: int, left: float | None = None) -> Reply:
        """One attempt."""
        if left is not None:
            if not left > 0:
                return Reply(exception=self._timed_out(), error="timeout", sent=False)
            self._shorten(left)
        if self._bridge is None and (left is None or left == math.inf):
            return await self._send(body, number)
        try:
            # An answer that comes byte by byte keeps within every timeout of the transport.
            async with asyncio.timeout(left if left != math.inf else None):
                return await (self._send if self._bridge is None else self._send_there)(body, number)
        except TimeoutError:
            return Reply(exception=self._timed_out(), error="timeout", down=True)

    async def _send_there(self, body: dict[str, Any], number: int) -> Reply:
        """The same in the thread that called. Where nobody waits for it any more, its read is ended too."""
        assert self._bridge is not None  # noqa: S101  (a synchronous client)
        span = trace.get_current_span()

        def send() -> Reply:
            with active(span):
                return at_once(self._send(body, number))

        try:
            return await self._bridge.here(send, late=_let_go)
        except asyncio.CancelledError:
            if (reading := self._reading) is not None:
                hang_up(reading)
            raise

    def _shorten(self, left: float) -> None:
        """Let the next attempt take no longer than that."""
        timeout = self._timeouts
        if left < math.inf and (timeout.read is None or left < timeout.read):
            cut = [left if most is None else min(left, most) for most in timeout.as_dict().values()]
            self._request.options.timeout = httpx2.Timeout(**dict(zip(timeout.as_dict(), cut, strict=True)))
            self._shortened = True

    def _timed_out(self) -> APITimeoutError:
        return APITimeoutError(self._shown())

    def _shown(self) -> httpx2.Request:
        """The request as far as an error shows it. No body and no key."""
        # `client.post` takes a path without its slash, and a whole address too.
        url = self._request.options.url
        base = str(self.client.base_url).rstrip("/")
        return httpx2.Request("POST", url if "://" in url else f"{base}/{url.lstrip('/')}")

    def withheld(self, status: int, error: str, message: str, wait: float) -> Reply:
        """An error of the SDK for an attempt that is not made."""
        shown = self._shown()
        raised: APIError
        if status:
            body = {"type": "error", "error": {"type": error, "message": message}}
            headers = {"retry-after": str(max(1, math.ceil(wait))), "x-should-retry": "false"}
            response = httpx2.Response(status, headers=headers, json=body, request=shown)
            raised = self.client._make_status_error(message, body=body, response=response)  # noqa: SLF001
        elif error == "timeout":
            raised = APITimeoutError(shown)
            raised.message, raised.args = message, (message,)
        else:
            raised = APIConnectionError(message=message, request=shown)
        return Reply(
            exception=raised,
            status=status,
            error="breaker_open",
            elsewhere=True,
            retry_after=max(1.0, wait),
            sent=False,
        )

    async def _send(self, body: dict[str, Any], number: int) -> Reply:
        """The SDK copies the options for each attempt, so only the body is exchanged."""
        request = self._request
        request.options.json_data = body
        request.retries_taken = number
        fast = body.get("speed") == "fast"  # a tier may have none
        self._terms = self._call.terms if fast == self._call.terms.fast else self._call.terms._replace(fast=fast)
        try:
            response: Any = await self._call_next(request) if self._bridge is None else self._unread(request)
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
            if self._bridge is None:
                await raw.aread()
            else:
                self._read(raw)
        return _refused(response, raw, raw.aclose if self._bridge is None else partial(self._bridge.here, raw.close))

    def _unread(self, request: APIRequest) -> Any:
        """What a synchronous client is answered, read here: so that it is known whose read is to be ended."""
        headers = request.options.headers
        mode = headers.get(_RAW) if isinstance(headers, dict) else None
        request.options.headers = {**(headers or {}), _RAW: "stream"}
        try:
            response = self._call_next(request)
        finally:
            request.options.headers = headers
        raw = _raw_of(response)
        if raw.is_success and mode != "stream" and not request.stream:
            try:
                self._read(raw)
            except httpx2.TimeoutException as error:
                raise APITimeoutError(raw.request) from error
            except Exception as error:
                raise APIConnectionError(request=raw.request) from error
        return response

    def _read(self, raw: httpx2.Response) -> None:
        self._reading = raw
        try:
            raw.read()
        finally:
            self._reading = None
            raw.close()

    async def _success(self, response: Any, raw: httpx2.Response) -> Reply:
        reply = Reply(response, status=raw.status_code)
        if none_left(raw.headers.raw):
            reply.limits = raw.headers
        if raw.is_closed:
            reply.metered = await self._meter(response, raw)
        elif raw.is_stream_consumed:  # read by a middleware of the app
            reply.metered = _usage_in(raw, self._terms)
        else:
            if self._shortened:
                # What is left of a deadline is for the answer to begin in, and no bound of pauses within it.
                raw.request.extensions.get("timeout", {}).update(self._timeouts.as_dict())
            reply.tap = partial(tap, raw, blocking=self._bridge is not None)
        return reply

    async def _meter(self, response: Any, raw: httpx2.Response) -> Metered | None:
        """The usage of a whole answer, through the SDK's own parsing, which it keeps for the app."""
        message = None
        if not _is_raw(self._request):
            try:
                message = await response.parse() if self._bridge is None else response.parse()
            except Exception:  # noqa: BLE001  (the app meets the same error when it parses: the bill comes first)
                message = None
        usage = getattr(message, "usage", None)
        if usage is None:
            return _usage_in(raw, self._terms)
        message_id, stop = getattr(message, "id", ""), getattr(message, "stop_reason", "")
        return metered(usage.model_dump(warnings=False), self._terms, message_id, stop)


def _raw_of(response: Any) -> httpx2.Response:
    raw: httpx2.Response = response if isinstance(response, httpx2.Response) else response.http_response
    return raw


def _let_go(reply: Reply) -> None:
    """An answer that nobody waits for any more."""
    if reply.response is not None:
        _raw_of(reply.response).close()


def _endpoint_of(endpoint: Hashable, headers: Any) -> Hashable:
    """Where a request goes: limits and outages of a key that it brings itself are not those of the client's."""
    if not isinstance(headers, dict):
        return endpoint
    keys = tuple(value for name, value in headers.items() if name.lower() in _KEYS and isinstance(value, str))
    return hash((endpoint, keys)) if keys else endpoint  # no key is kept


def _is_raw(request: APIRequest) -> bool:
    """Whether the caller parses for itself, perhaps into another type."""
    headers = request.headers
    return isinstance(headers, dict) and headers.get(_RAW) is not None


def _usage_in(raw: httpx2.Response, terms: Terms) -> Metered | None:
    """The usage of a whole answer, from its bytes."""
    reader = WholeReader(terms)
    reader.feed(raw.content)
    return reader.seen


def _no_answer(error: Exception, name: str) -> Reply:
    """An attempt without a response: nothing is billed where no connection was made."""
    cause = error.__cause__
    return Reply(
        exception=error,
        error=name,
        retry=not isinstance(cause, _NO_REQUEST),
        elsewhere=False,
        # What is no error of the transport is one of this process, such as a client that belongs to another loop.
        down=isinstance(cause, (httpx2.RequestError, OSError)) and not isinstance(cause, _NOT_THE_API),
        sent=not isinstance(cause, _NEVER_SENT),
    )


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
        down=status >= _SERVER_ERROR,
        limits=raw.headers if status == _RATE_LIMITED and not futile else None,
        discard=discard,
    )
