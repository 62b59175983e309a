"""FastAPI: the clients and the Binding of a request, as dependencies.

`app.dependency_overrides` takes `claude_of`, `sync_claude_of` and `routing_of` as keys. They are coroutine functions so
that FastAPI calls them on its loop and not in a thread.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

from anthropic import Anthropic, AsyncAnthropic
from fastapi import Depends
from starlette.requests import HTTPConnection

from tierline import starlette
from tierline.binding import Binding


async def claude_of(connection: HTTPConnection) -> AsyncAnthropic:
    """The routed client of a request or WebSocket."""
    return starlette.claude_of(connection)


async def sync_claude_of(connection: HTTPConnection) -> Anthropic:
    """The routed synchronous client of a request, for plain `def` endpoints."""
    return starlette.sync_claude_of(connection)


async def routing_of(connection: HTTPConnection) -> Binding:
    """The Binding of a request or WebSocket: its tenant, its decisions."""
    return starlette.routing_of(connection)


Claude: TypeAlias = Annotated[AsyncAnthropic, Depends(claude_of)]
"""The routed client of the request, as a parameter of an endpoint or a dependency: `claude: Claude`."""
SyncClaude: TypeAlias = Annotated[Anthropic, Depends(sync_claude_of)]
"""The routed synchronous client, for plain `def` endpoints: `claude: SyncClaude`."""
Routing: TypeAlias = Annotated[Binding, Depends(routing_of)]
"""The Binding of the request, with its decisions: `routing: Routing`."""


def _refusal(status: int, description: str, *, waits: bool) -> dict[str, Any]:
    """How FastAPI describes an answer: what `TierlineError.problem` and `http_headers` give."""
    problem = {
        "type": "object",
        "required": ["type", "title", "status"],
        "properties": {
            "type": {"type": "string", "const": "about:blank"},
            "title": {"type": "string"},
            "status": {"type": "integer", "const": status},
        },
    }
    described: dict[str, Any] = {
        "description": description,
        "content": {"application/problem+json": {"schema": problem}},
    }
    if waits:
        seconds = {"type": "integer", "minimum": 1}
        described["headers"] = {"Retry-After": {"description": "Seconds until it is worth a try", "schema": seconds}}
    return described


REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    402: _refusal(402, "The budget for this service is used up, and does not renew", waits=False),
    429: _refusal(429, "The budget for this service is used up until it renews", waits=True),
    503: _refusal(503, "The budget cannot be checked, or the model is busy", waits=True),
}
"""What an OpenAPI schema says of refusals: `@app.post("/ask", responses=REFUSALS)`, or on a router or an app."""
