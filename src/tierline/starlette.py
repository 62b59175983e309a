"""Starlette: the routed clients of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from tierline.asgi import SCOPE_KEY
from tierline.errors import ConfigurationError

if TYPE_CHECKING:
    from anthropic import Anthropic, AsyncAnthropic
    from starlette.requests import HTTPConnection

    from tierline.binding import Binding


def claude_of(connection: HTTPConnection) -> AsyncAnthropic:
    """The routed client, inside a Starlette endpoint: `claude_of(request)`."""
    return cast("AsyncAnthropic", routing_of(connection).claude)


def sync_claude_of(connection: HTTPConnection) -> Anthropic:
    """The routed synchronous client, inside a plain `def` endpoint: `sync_claude_of(request)`."""
    return cast("Anthropic", routing_of(connection).sync_claude)


def routing_of(connection: HTTPConnection) -> Binding:
    """The Binding of a request. It looks at this very scope from now on: some middleware hand on a copy."""
    binding: Binding | None = connection.scope.get(SCOPE_KEY)
    if binding is None:
        raise ConfigurationError("no TierlineMiddleware is around this app: app.add_middleware(TierlineMiddleware, …)")
    binding.scope = connection.scope
    return binding
