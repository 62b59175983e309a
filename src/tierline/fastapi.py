"""FastAPI: the clients and the Binding of a request, as dependencies.

`app.dependency_overrides` takes `claude_of`, `sync_claude_of` and `routing_of` as keys. They are coroutine functions so
that FastAPI calls them on its loop and not in a thread.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

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
SyncClaude: TypeAlias = Annotated[Anthropic, Depends(sync_claude_of)]
Routing: TypeAlias = Annotated[Binding, Depends(routing_of)]
