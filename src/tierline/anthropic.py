"""The seam to the SDK: a middleware on the client, which sees every method once per attempt.

`attach` gives a routed copy of a client. Nothing of the SDK is wrapped or retyped: the copy is a client of the
same class, and whatever takes such a client takes this one.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeVar, cast
from urllib.parse import urlsplit
from urllib.request import getproxies

from anthropic import Anthropic, AsyncAnthropic, DefaultAsyncHttpxClient, Middleware
from anthropic._base_client import AsyncAPIClient, SyncAPIClient

from tierline.binding import context
from tierline.blocking import Bridge
from tierline.call import read_call
from tierline.errors import ConfigurationError
from tierline.exchange import Exchange
from tierline.sdkspans import telling_of
from tierline.values import REGIONAL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anthropic import APIRequest, AsyncCallNext, CallNext
    from anthropic._response import APIResponse, AsyncAPIResponse

    from tierline.attempts import Reply
    from tierline.blocking import Portal
    from tierline.call import Call
    from tierline.sdkspans import Telling
    from tierline.upstream import Upstream

_CREATE: Final = "/v1/messages"
_COUNT: Final = "/v1/messages/count_tokens"
_BATCHES: Final = "/v1/messages/batches"
_METERED: Final = (
    _CREATE, _COUNT, _BATCHES, "/v1/complete",
    "/invoke", "/invoke-with-response-stream", "/converse", "/converse-stream", ":rawPredict", ":streamRawPredict",
)  # fmt: skip
"""Paths of requests that spend, and of those that ask what would be spent. What ends a batch is none of them.

The last are those of Bedrock and Vertex, to which their clients rewrite the first two when the seam has seen them."""
_ADDRESSED_BY: Final = (
    "base_url", "api_key", "auth_token", "aws_access_key", "aws_profile", "aws_region", "project_id", "region",
    "workspace_id",
)  # fmt: skip
"""What a client is, as far as the API's limits and outages are told apart."""
_PROXIED: Final = frozenset({"http", "https", "all"})
"""What a proxy in the environment is for, if the SDK's HTTP library uses it."""
_SESSIONS: Final = "/v1/sessions"
"""Work of agents on the server, which nothing here can bound."""


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
    """A client from the environment, as the SDK makes it.

    An asynchronous one sends with aiohttp where that is installed (`pip install "tierline[aiohttp]"`), which takes
    less CPU, and where the environment names no proxy: those are left to the SDK's own HTTP library.
    """
    if blocking:
        return Anthropic()
    if find_spec("aiohttp") is None or not _PROXIED.isdisjoint(getproxies()):
        return AsyncAnthropic()
    from tierline.transport import AiohttpTransport  # noqa: PLC0415  (aiohttp: only who has it)

    return AsyncAnthropic(http_client=DefaultAsyncHttpxClient(transport=AiohttpTransport()))


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
    seam.endpoint = _endpoint(routed)
    seam.telling = telling_of(routed)

    def derive(**options: Any) -> Any:
        # A subclass would not do: the SDK tests for its own classes, and drops credentials of others.
        options.setdefault("max_retries", seam.retries)
        derived = copy(routed, **options)
        return _attached(derived, router, derived.max_retries)

    routed.copy = derive
    routed.with_options = derive
    return routed


def detached(client: Any) -> Any:
    """A copy of a routed client that no Router sees the requests of, and that retries nothing."""
    others = [entry for entry in client.middleware if not isinstance(entry, Seam)]
    return type(client).copy(client, max_retries=0, middleware=others)


@lru_cache(maxsize=256)
def _metered(url: str) -> str:
    """The path of a request that spends, or asks what would be spent; empty for any other."""
    # `client.post` takes a path without its slash too, and a whole address.
    path = f"/{urlsplit(url).path.strip('/')}"
    return path if path.endswith(_METERED) or _SESSIONS in path else ""


def _endpoint(client: Any) -> int:
    """Tells apart the address and the key of clients; the same for copies that change neither. No key is kept."""
    return hash(tuple(str(getattr(client, name, "")) for name in _ADDRESSED_BY))


class Seam(Middleware):
    """Turns a request of the SDK into a call, and what the Router returns into a response of the SDK."""

    def __init__(self, router: Routes, retries: int) -> None:
        self.router = router
        self.retries = retries
        self.client: Any = None
        self.endpoint = 0
        """See `Upstream.endpoint`."""
        self.telling: Telling | None = None
        """What is told of its calls in a trace, and by whom."""

    async def handle_async(self, request: APIRequest, call_next: AsyncCallNext) -> AsyncAPIResponse[Any]:
        """One call: the SDK's own retries are off, so it comes here once."""
        call = self._read(request)
        if call is None:
            return await call_next(request)
        chat = self.telling.of(request) if self.telling is not None else None
        exchange = Exchange(self.client, self.retries, request, call, call_next, None, self.endpoint, chat)
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
        chat = self.telling.of(request) if self.telling is not None else None
        exchange = Exchange(self.client, self.retries, request, call, call_next, bridge, self.endpoint, chat)
        if call.kind == "count":
            request.options.json_data = bridge.run(self.router.gate.body_for_count(call, exchange))
            return call_next(request)
        return cast("APIResponse[Any]", _response(bridge.run(self._run(call, exchange))))

    async def _run(self, call: Call, exchange: Exchange) -> Reply:
        """Take a call to its end: a question of Tierline's own within its timeout, whatever it waits for."""
        timeout = exchange.timeout if context().own is not None else None
        async with asyncio.timeout(timeout):
            return await self.router.gate.run(call, exchange)

    def _read(self, request: APIRequest) -> Call | None:
        """The call that a request is; None for one that is passed on as it is."""
        options = request.options
        path = _metered(options.url)
        if not path or options.method.lower() != "post":
            return None
        kind: Literal["create", "count"] = "create" if path.endswith(_CREATE) else "count"
        counted = path.endswith(_COUNT)
        call = read_call(kind, options.json_data) if kind == "create" or counted else None
        if call is None:
            if path.endswith(_BATCHES):
                self.router.gate.refuse_unreadable("a batch of its own making: give the requests to router.batches")
            elif not counted:
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
