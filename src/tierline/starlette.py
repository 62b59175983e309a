"""Starlette: the routed clients and the Binding of a request, and the answers to requests that are deferred."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, cast

from starlette.responses import JSONResponse, Response

from tierline.binding import SCOPE_KEY, Context, bound_to, context, enter
from tierline.errors import ConfigurationError

if TYPE_CHECKING:
    from anthropic import Anthropic, AsyncAnthropic
    from starlette.datastructures import URL
    from starlette.requests import HTTPConnection

    from tierline.binding import Binding
    from tierline.router import Router

RETRY_AFTER: Final = 60
"""Seconds after which clients are told to ask again for an answer that was deferred."""
_NOT_FOUND: Final = {"type": "about:blank", "title": "There is no such request", "status": 404}


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
    binding = bound_to(connection.scope)
    if binding is None:
        if SCOPE_KEY in connection.scope:
            raise ConfigurationError("the request is over: take its client, or its Binding, before it ends")
        raise ConfigurationError("no TierlineMiddleware is around this app: app.add_middleware(TierlineMiddleware, …)")
    now = context()
    if now.binding is None or not now.binding.is_of(binding):
        return binding.seen_in(connection.scope)
    # The same request, where a Router of its own may be further inside.
    binding = now.binding.seen_in(connection.scope)
    if binding is not now.binding:
        enter(Context(binding, now.blocks, now.own))
    return binding


def accepted(url: str | URL, *, retry_after: int = RETRY_AFTER) -> JSONResponse:
    """202 for a request that was deferred: `url` is where its answer will be, `retry_after` in seconds.

    `return accepted(request.url_for("later", handle=handle))`. Works in FastAPI, too.
    """
    headers = {"location": str(url), "retry-after": str(retry_after), "cache-control": "no-store"}
    return JSONResponse({"state": "pending", "url": str(url)}, 202, headers)


async def answered(router: Router[Any], handle: str, *, retry_after: int = RETRY_AFTER) -> Response:
    """What a client is told that asks for the answer: 202 while there is none, then 200; 404 for an unknown handle.

    Another tenant's is unknown: the app has authenticated who asks, and said so to its TierlineMiddleware. The body has
    `state`; when there is an answer also `outcome` and, if that is `succeeded`, the `message` as the API gives it. What
    it cost, and why it was refused, is not the client's.
    """
    headers = {"cache-control": "no-store"}
    found = await router.batches.deferred(handle)
    if found is None:
        return JSONResponse(_NOT_FOUND, 404, headers, "application/problem+json")
    if found.result is None:
        return JSONResponse({"state": "pending"}, 202, {**headers, "retry-after": str(retry_after)})
    raw = found.result.raw
    message = None if raw is None else json.loads(raw)
    # In ASCII: half of a surrogate pair, which an answer may have, is no UTF-8.
    body = json.dumps({"state": "answered", "outcome": found.result.outcome, "message": message})
    return Response(body, 200, headers, "application/json")
