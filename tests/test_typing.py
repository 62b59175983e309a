"""What a type checker makes of clients: `make check` runs mypy over this file, and pytest runs it."""

from __future__ import annotations

from typing import Annotated, Any, assert_type

from anthropic import (
    AsyncAnthropic,
    AsyncAnthropicAWS,
    AsyncAnthropicBedrock,
    AsyncAnthropicBedrockMantle,
    AsyncAnthropicFoundry,
    AsyncAnthropicGoogleCloud,
    AsyncAnthropicVertex,
)
from anthropic.types import Message
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from httpx2 import ASGITransport, AsyncClient

from tierline import Ladder, Router
from tierline.anthropic import attach
from tierline.asgi import TierlineMiddleware
from tierline.classify import FixedClassifier
from tierline.fastapi import Claude, claude_of
from tierline.testing import FakeClaude


def test_a_routed_client_keeps_its_class() -> None:
    """`attach` and `router.claude` give back the class that went in, whatever the platform."""
    own = AsyncAnthropic(api_key="k")
    router = Router(own)
    assert_type(router, Router[AsyncAnthropic])
    assert_type(router.claude, AsyncAnthropic)
    assert_type(attach(own, router), AsyncAnthropic)
    assert_type(attach(own, router).with_options(timeout=3), AsyncAnthropic)

    bedrock = AsyncAnthropicBedrock(aws_region="us-east-1", api_key="k")
    assert_type(Router(bedrock).claude, AsyncAnthropicBedrock)
    assert_type(attach(bedrock, router), AsyncAnthropicBedrock)
    mantle = AsyncAnthropicBedrockMantle(aws_region="us-east-1", api_key="k")
    assert_type(attach(mantle, Router(mantle)), AsyncAnthropicBedrockMantle)
    vertex = AsyncAnthropicVertex(region="global", project_id="p", access_token="k")
    assert_type(Router(vertex).claude.copy(), AsyncAnthropicVertex)
    foundry = AsyncAnthropicFoundry(api_key="k", resource="r")
    assert_type(attach(foundry, router), AsyncAnthropicFoundry)
    aws = AsyncAnthropicAWS(api_key="k", workspace_id="w", aws_region="us-east-1")
    assert_type(Router(aws).claude, AsyncAnthropicAWS)
    google = AsyncAnthropicGoogleCloud(token_provider=str, workspace_id="w", project="p")
    assert_type(Router(google).claude, AsyncAnthropicGoogleCloud)

    for client in (own, bedrock, mantle, vertex, foundry, aws, google):
        assert type(attach(client, router)) is type(client)


def _takes_any_subclass(router: Router) -> AsyncAnthropic:
    """`Router` by itself means one of AsyncAnthropic, or of a subclass of it."""
    assert_type(router, Router[AsyncAnthropic])
    return router.claude


def _takes_all(router: Router[Any]) -> None:
    """What works with every client says so."""
    TierlineMiddleware(FastAPI(), router=router)


def test_a_router_by_itself() -> None:
    """Without a client a Router is one of AsyncAnthropic, and stands in for no Router of a platform."""
    assert_type(Router(), Router[AsyncAnthropic])
    assert_type(Router(ladder=Ladder.of(haiku="claude-haiku-5-5")), Router[AsyncAnthropic])
    foundry = AsyncAnthropicFoundry(api_key="k", resource="r")
    assert isinstance(_takes_any_subclass(Router(foundry)), AsyncAnthropicFoundry)
    vertex = Router(AsyncAnthropicVertex(region="global", project_id="p", access_token="k"))
    _takes_all(vertex)
    _takes_any_subclass(vertex)  # type: ignore[arg-type]


Vertex = Annotated[AsyncAnthropicVertex, Depends(claude_of)]


def test_annotated_dependencies() -> None:
    """`Claude` injects an AsyncAnthropic; an app on a platform writes the alias of its own client."""
    fake = FakeClaude()
    client = AsyncAnthropicVertex(
        region="global",
        project_id="p",
        access_token=fake.api_key,
        base_url="http://fake.invalid",
        http_client=AsyncClient(transport=ASGITransport(app=fake)),
    )
    router = Router(client, classifier=FixedClassifier("simple"))
    app = FastAPI()
    app.add_middleware(TierlineMiddleware, router=router)

    @app.get("/platform")
    async def platform(vertex: Vertex) -> dict[str, str]:
        assert_type(vertex, AsyncAnthropicVertex)
        message = await vertex.messages.create(
            model="auto", max_tokens=400, messages=[{"role": "user", "content": "Hi"}]
        )
        assert_type(message, Message)
        return {"class": type(vertex).__name__, "model": message.model}

    @app.get("/own")
    async def own(claude: Claude) -> None:
        assert_type(claude, AsyncAnthropic)

    with TestClient(app) as browser:
        assert browser.get("/platform").json() == {"class": "AsyncAnthropicVertex", "model": "claude-haiku-5-5"}
