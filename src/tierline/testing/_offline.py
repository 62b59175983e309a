"""Where the requests of every client of the SDK go while a test runs: to a FakeClaude, and not over the network.

A client that an app makes when it is imported knows the address of the API by then. So what is replaced is what all of
them send with: the transports of their HTTP library, and the one of a Router's own client. Clients that have another
one (`DefaultAioHttpClient`) are led to the fake by the environment, if they are made inside.
"""

from __future__ import annotations

import os
import ssl
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from tierline.testing._calls import watching

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tierline.testing._calls import Calls
    from tierline.testing.fake import FakeClaude

_HERE: Final = ("localhost", "127.0.0.1", "::1")
_PLATFORMS: Final = (".amazonaws.com", ".googleapis.com", ".azure.com")
"""Hosts of the SDK's other platforms; the fake knows their paths."""
_SECRETS: Final = ("authorization", "x-api-key", "api-key", "x-amz-security-token", "cookie", "host", "connection")
_DIRECT: Final = "tierline.direct"
"""The extension of a request that is to reach the network."""
_ENVIRONMENT: Final = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL")


@contextmanager
def offline(fake: FakeClaude) -> Iterator[Calls]:
    """Inside, every request of a client of the SDK goes to `fake`, whenever and wherever the client was made.

        with offline(FakeClaude()) as calls:
            response = TestClient(app).post("/contracts", json={"text": "hi"})
            assert_tier(response, "sonnet")
        assert calls.spent < 1_000_000      # nano-USD

    Keys never arrive there: they are replaced. `ANTHROPIC_API_KEY` and `ANTHROPIC_BASE_URL` are those of the fake, for
    clients that are made inside. What goes to this machine itself is left alone: a gateway on `localhost`, another
    fake. For one process: a server that a test starts has its own environment, and clients of its own.

    What comes back are the calls that are made inside, with their decisions: `assert_tier` and `assert_spent` look at
    them. ConfigurationError without uvicorn (`pip install "tierline[testing]"`).
    """
    with ExitStack() as stack:
        url = stack.enter_context(fake.serve_in_thread())
        stack.enter_context(_environment({"ANTHROPIC_API_KEY": fake.api_key, "ANTHROPIC_BASE_URL": url}))
        stack.enter_context(_redirected(url, fake.api_key))
        stack.enter_context(_keyless())
        yield stack.enter_context(watching())


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    _write({name: values.get(name) for name in _ENVIRONMENT})
    try:
        yield
    finally:
        _write(before)


def _write(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def _redirected(url: str, key: str) -> Iterator[None]:
    """Let the transports send what is meant for Claude to `url`."""
    import httpx2  # noqa: PLC0415  (only who tests needs it)

    send, over = httpx2.HTTPTransport.handle_request, httpx2.AsyncHTTPTransport.handle_async_request
    # An empty one, for no certificate is ever looked at: to read all authorities takes 20 ms.
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    address = httpx2.URL(url)

    def meant(request: Any) -> bool:
        """What has the fake's address already, from the environment, is treated as all others are."""
        return is_for_claude(request) or (request.url.host, request.url.port) == (address.host, address.port)

    def here(self: Any, request: Any) -> Any:
        if not meant(request):
            return send(self, request)
        return send(httpx2.HTTPTransport(verify=tls, trust_env=False), _moved(request, url, key))

    def led(transport: Any) -> None:
        """Lead an asynchronous transport there."""
        send_async = transport.handle_async_request

        async def here_async(self: Any, request: Any) -> Any:
            if not meant(request):
                return await send_async(self, request)
            # A transport of its own, for the client's may have a proxy; and a connection of its own, for the client
            # may outlive the event loop of this test.
            return await over(httpx2.AsyncHTTPTransport(verify=tls, trust_env=False), _moved(request, url, key))

        transport.handle_async_request = here_async
        stack.callback(setattr, transport, "handle_async_request", send_async)

    with ExitStack() as stack:
        httpx2.HTTPTransport.handle_request = here  # type: ignore[method-assign]
        stack.callback(setattr, httpx2.HTTPTransport, "handle_request", send)
        led(httpx2.AsyncHTTPTransport)
        if find_spec("aiohttp") is not None:
            from tierline.transport import AiohttpTransport  # noqa: PLC0415  (aiohttp: only who has it)

            led(AiohttpTransport)
        yield


@contextmanager
def _keyless() -> Iterator[None]:
    """Let clients without a key send, too: one that was made before, in a build, found none in the environment."""
    from anthropic import Anthropic, AsyncAnthropic  # noqa: PLC0415  (a second, for who tests)

    def pass_all(*_: Any, **__: Any) -> None:
        return

    with ExitStack() as stack:
        for client in (Anthropic, AsyncAnthropic):
            check = vars(client).get("_validate_headers")
            if check is not None:
                stack.callback(setattr, client, "_validate_headers", check)
                setattr(client, "_validate_headers", pass_all)  # noqa: B010  (the SDK's own, and private)
        yield


def direct() -> Any:
    """A transport that reaches the network also inside of `offline`: for what records."""
    import httpx2  # noqa: PLC0415

    class Direct(httpx2.HTTPTransport):
        def handle_request(self, request: Any) -> Any:
            request.extensions[_DIRECT] = True
            return super().handle_request(request)

    return Direct()


def is_for_claude(request: Any) -> bool:
    """Whether a request would reach the API, a platform that serves it, or a gateway before it."""
    host = str(request.url.host)
    if host in _HERE or _DIRECT in request.extensions:
        return False
    if host == "api.anthropic.com" or "anthropic-version" in request.headers:
        return True
    return host.endswith(_PLATFORMS) and any(word in host for word in ("bedrock", "aiplatform", "services.ai"))


def _moved(request: Any, url: str, key: str) -> Any:
    """The same request to the fake, with the fake's key and none of its own."""
    import httpx2  # noqa: PLC0415

    path = request.url.raw_path.decode("ascii")
    if not str(request.url.host).endswith(_PLATFORMS) and "/v1/" in path:
        path = path[path.index("/v1/") :]  # a gateway may have one of its own before it
    headers = [(name, value) for name, value in request.headers.multi_items() if name.lower() not in _SECRETS]
    headers += [("host", url.removeprefix("http://")), ("x-api-key", key), ("connection", "close")]
    moved = httpx2.URL(url).copy_with(raw_path=path.encode("ascii"))
    return httpx2.Request(request.method, moved, headers=headers, stream=request.stream, extensions=request.extensions)
