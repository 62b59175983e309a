"""Starlette: the routed clients and the Binding of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from tierline.binding import SCOPE_KEY, Context, context, enter
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
    """The Binding of a request, which reads this very scope from here on: some middleware hand on a copy.

    ConfigurationError where no TierlineMiddleware is around the app.
    """
    binding: Binding | None = connection.scope.get(SCOPE_KEY)
    if binding is None:
        raise ConfigurationError("no TierlineMiddleware is around this app: app.add_middleware(TierlineMiddleware, …)")
    now = context()
    if now.binding is None or not now.binding.is_of(binding):
        return binding.seen_in(connection.scope)
    # The same request, where a Router of its own may be further inside.
    binding = now.binding.seen_in(connection.scope)
    if binding is not now.binding:
        enter(Context(binding, now.blocks, now.own))
    return binding
