"""Inside of `offline` every client of the SDK talks to the fake, and every decision is seen."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from anthropic import (
    Anthropic,
    AnthropicBedrock,
    AnthropicFoundry,
    AnthropicVertex,
    AsyncAnthropic,
    DefaultAioHttpClient,
)
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from tests.apps import ask
from tierline import Router
from tierline.asgi import TierlineMiddleware
from tierline.binding import Binding
from tierline.classify import FixedClassifier
from tierline.starlette import claude_of
from tierline.testing import FakeClaude, offline
from tierline.testing._calls import SEEN_HEADER, watched
from tierline.testing._offline import is_for_claude

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from starlette.requests import Request

SECRET = "sk-ant-REAL-0123456789"

# As apps have them: made when a module is imported, long before a test begins.
client = AsyncAnthropic(api_key=SECRET)
blocking = Anthropic(api_key=SECRET, base_url="https://gateway.example/claude")


@pytest.fixture(autouse=True)
def nothing_of_it_arrives(fake: FakeClaude) -> Iterator[None]:
    """Each request came with the key of the fake, which accepts no other."""
    yield
    assert {received.status for received in fake.requests} <= {200}
    assert SECRET not in repr(fake.requests)


@pytest.mark.parametrize("routed", [False, True])
async def test_clients_that_were_made_before(fake: FakeClaude, routed: bool) -> None:
    """Whole and streamed, asynchronous and not, through a gateway with a path of its own, routed or not."""
    router = Router(client, sync_client=blocking, classifier=FixedClassifier("simple"))
    one, other = (router.claude, router.sync_claude) if routed else (client, blocking)
    request = ask(model="claude-haiku-5-5")
    with offline(fake) as calls:
        assert (await one.messages.create(**request)).id
        async with one.messages.stream(**request) as stream:
            assert (await stream.get_final_message()).id
        assert (await asyncio.to_thread(other.messages.create, **request)).id
        assert len(calls.decisions) == (3 if routed else 0)
        assert calls.spent == (fake.billed if routed else 0)
    assert [received.path for received in fake.requests] == ["/v1/messages"] * 3
    await router.aclose()


def test_the_client_of_a_router(fake: FakeClaude, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Router's own client, with aiohttp underneath, is led to the fake wherever it was made."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)
    router = Router(classifier=FixedClassifier("simple"))
    assert "api.anthropic.com" in str(router.claude.base_url)
    with offline(fake):
        asyncio.run(router.claude.messages.create(**ask()))
    assert len(fake.requests) == 1
    asyncio.run(router.aclose())


def test_a_client_that_outlives_event_loops(fake: FakeClaude) -> None:
    """Each test may have a loop of its own: no connection of the one before is used again."""

    async def call() -> None:
        await client.messages.create(**ask(model="claude-haiku-5-5"))

    for _ in range(2):
        with offline(fake):
            asyncio.run(call())
            asyncio.run(call())
    assert len(fake.requests) == 4


def test_clients_of_the_platforms(fake: FakeClaude) -> None:
    """They sign, rewrite paths and name models in their own ways, and arrive with no key."""
    request = ask(model="claude-haiku-4-5")
    foundry: Any = AnthropicFoundry(api_key=SECRET, resource="desk")
    vertex: Any = AnthropicVertex(access_token=SECRET, region="global", project_id="desk")
    bedrock: Any = AnthropicBedrock(aws_access_key="AKIA", aws_secret_key=SECRET, aws_region="us-east-1")
    with offline(fake):
        foundry.messages.create(**request)
        vertex.messages.create(**{**request, "model": "claude-haiku-4-5@20251001"})
        bedrock.messages.create(**{**request, "model": "anthropic.claude-haiku-4-5-20251001-v1:0"})
    assert [received.status for received in fake.requests] == [200, 200, 200]


async def test_clients_that_are_made_inside(fake: FakeClaude, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have the fake's address and key from the environment, also one with another HTTP library."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", SECRET)
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)
    with offline(fake):
        assert SECRET not in os.environ.values()
        async with AsyncAnthropic(http_client=DefaultAioHttpClient()) as inside:
            await inside.messages.create(**ask(model="claude-haiku-5-5"))
    assert len(fake.requests) == 1
    assert os.environ["ANTHROPIC_API_KEY"] == os.environ["ANTHROPIC_AUTH_TOKEN"] == SECRET
    assert "ANTHROPIC_BASE_URL" not in os.environ


def test_a_client_without_a_key(fake: FakeClaude, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where a build has none, a client that was made before sends inside, and nowhere else."""
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no profile of whoever runs this
    keyless = Anthropic(max_retries=0)
    with offline(fake):
        assert keyless.messages.create(**ask(model="claude-haiku-5-5")).id
    with pytest.raises(TypeError, match="authentication"):
        keyless.messages.create(**ask(model="claude-haiku-5-5"))


@pytest.mark.parametrize(
    ("url", "headers", "claude"),
    [
        ("https://api.anthropic.com/v1/models", {}, True),
        ("https://gateway.example/v1/messages", {"anthropic-version": "2023-06-01"}, True),
        ("https://bedrock-runtime.us-east-1.amazonaws.com/model/x/invoke", {}, True),
        ("https://us-east5-aiplatform.googleapis.com/v1/projects/x", {}, True),
        ("https://s3.amazonaws.com/bucket", {}, False),
        ("https://example.com/v1/messages", {}, False),
        ("http://localhost:4000/v1/messages", {"anthropic-version": "2023-06-01"}, False),
    ],
)
def test_what_is_meant_for_claude(url: str, headers: dict[str, str], claude: bool) -> None:
    """The API, its platforms, and any gateway but one on this machine; nothing else that an app may send."""
    assert is_for_claude(httpx2.Request("POST", url, headers=headers)) is claude


def test_everything_is_put_back(fake: FakeClaude) -> None:
    """Also after an error, and of one inside of another."""
    before = (
        httpx2.HTTPTransport.handle_request,
        httpx2.AsyncHTTPTransport.handle_async_request,
        Binding.record,
        dict(os.environ),
    )
    with offline(fake) as outer:
        with pytest.raises(KeyError), offline(FakeClaude()) as inner:
            raise KeyError(watched() is inner)
        assert watched() is outer
    assert watched() is None
    assert before == (
        httpx2.HTTPTransport.handle_request,
        httpx2.AsyncHTTPTransport.handle_async_request,
        Binding.record,
        dict(os.environ),
    )


def test_which_request_made_a_call(fake: FakeClaude) -> None:
    """Of requests beside each other, in threads, each response leads to its own calls, also one that is streamed."""
    router = Router(client, classifier=FixedClassifier("simple"))

    async def calls_of(request: Request) -> JSONResponse:
        for _ in range(int(request.query_params["n"])):
            await claude_of(request).messages.create(**ask())
        return JSONResponse({})

    async def streamed(request: Request) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            async with claude_of(request).messages.stream(**ask()) as stream:
                async for text in stream.text_stream:
                    yield text

        return StreamingResponse(body())

    async def plain(_: Request) -> PlainTextResponse:
        return PlainTextResponse("nothing")

    routes = [Route("/calls", calls_of), Route("/streamed", streamed), Route("/plain", plain)]
    app = Starlette(routes=routes, lifespan=router.lifespan)
    app.add_middleware(TierlineMiddleware, router=router)
    found: dict[int, str] = {}
    with offline(fake) as calls, TestClient(app) as browser:

        def get(n: int) -> None:
            found[n] = browser.get("/calls", params={"n": n}).headers[SEEN_HEADER]

        threads = [threading.Thread(target=get, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {n: len(calls.of_request(ident)) for n, ident in found.items()} == {0: 0, 1: 1, 2: 2, 3: 3}
        (decision,) = calls.of_request(browser.get("/streamed").headers[SEEN_HEADER])
        assert decision.settled
        assert calls.of_request(browser.get("/plain").headers[SEEN_HEADER]) == ()
        assert len(calls.of_router(router)) == 7
        assert calls.tiers() == ("haiku", "sonnet", "opus")
    assert SEEN_HEADER not in TestClient(app).get("/plain").headers


def test_a_middleware_inside_of_another(fake: FakeClaude) -> None:
    """The response names one Binding, that of the call: the one inside."""
    routers = [Router(client, classifier=FixedClassifier("simple")) for _ in range(2)]

    async def endpoint(request: Request) -> JSONResponse:
        await claude_of(request).messages.create(**ask())
        return JSONResponse({})

    app = Starlette(routes=[Route("/", endpoint)])
    for router in routers:
        app.add_middleware(TierlineMiddleware, router=router)
    with offline(fake) as calls:
        response = TestClient(app).get("/")
        assert len(response.headers.get_list(SEEN_HEADER)) == 1
        assert len(calls.of_request(response.headers[SEEN_HEADER])) == 1
        assert repr(calls) == "<Calls 1>"
