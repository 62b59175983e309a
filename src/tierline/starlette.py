"""Starlette: the routed client of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from tierline.binding import SCOPE_KEY, context
from tierline.errors import ConfigurationError

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from starlette.requests import HTTPConnection

    from tierline.binding import Binding


def claude_of(connection: HTTPConnection) -> AsyncAnthropic:
    """The routed client, inside a Starlette endpoint: `claude_of(request)`."""
    return cast("AsyncAnthropic", routing_of(connection).claude)


def routing_of(connection: HTTPConnection) -> Binding:
    """The Binding of a request. It looks at this very scope from now on: some middleware hand on a copy."""
    binding: Binding | None = connection.scope.get(SCOPE_KEY)
    if binding is None:
        raise ConfigurationError("no TierlineMiddleware is around this app: app.add_middleware(TierlineMiddleware, …)")
    now = context().binding
    if now is not None and now.narrowed is binding.narrowed:
        # The same request, where a Router of its own may be further inside.
        binding = now
    binding.look_at(connection.scope)
    return binding
