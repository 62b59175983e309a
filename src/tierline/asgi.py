"""The ASGI seam: binds a request to a Router, sweeps what it left open, answers Tierline's errors."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import JSONResponse
from starlette.websockets import WebSocket

from tierline.binding import Binding, Context, context, enter
from tierline.errors import ConfigurationError, TierlineError
from tierline.router import Router
from tierline.routes import RouteTable

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from tierline.policies import Policy

log: Final = logging.getLogger("tierline")

SCOPE_KEY = "tierline"
"""Where the Binding is in the scope, for those who have the request and not the context."""
_POLICY_VIOLATION: Final = 1008
_INTERNAL_ERROR: Final = 1011
_SERVER_ERROR: Final = 500
_TRY_AGAIN_LATER: Final = 1013
_OF_THE_BODY: Final = (b"content-type", b"content-length", b"content-encoding", b"etag")
"""Headers that speak of a body, and go with it."""


class TierlineMiddleware:
    """Pure ASGI: `app.add_middleware(TierlineMiddleware, router=router)`, or around any ASGI app.

    - `tenant`: a function of the scope that says whom a request is for, or None. It is asked when Claude is
      called, so it sees what authentication left in the scope
    - `routes`: policies by route, `{"/checkout/*": policy(floor="sonnet")}`

    Raises ConfigurationError for what cannot work.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        router: Router[Any],
        tenant: Callable[[Scope], str | None] | None = None,
        routes: Mapping[str, Policy] | None = None,
    ) -> None:
        if not isinstance(router, Router):
            raise ConfigurationError(f"TierlineMiddleware(router=…) takes a Router, got {type(router).__name__}")
        if tenant is not None and not callable(tenant):
            raise ConfigurationError(
                f"TierlineMiddleware(tenant=…) takes a function of the scope, got {type(tenant).__name__}"
            )
        if inspect.iscoroutinefunction(tenant):
            raise ConfigurationError(
                "TierlineMiddleware(tenant=…) takes a plain function: it is asked inside of a call"
            )
        if routes is not None and not isinstance(routes, Mapping):
            raise ConfigurationError('TierlineMiddleware(routes=…) takes a table, such as {"/chat": policy(…)}')
        self.app = app
        self.router = router
        self.tenant = tenant
        self.routes = RouteTable(routes or {}, router.ladder)
        for rule in (routes or {}).values():
            router.rules.check(rule)
        if tenant is None and any(budget.per == "tenant" for budget in router.budgets):
            log.warning("a budget is for each tenant, and TierlineMiddleware has no tenant=: all share one account")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Bind the request, run the app, sweep what it left open."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        sent = _Sent(send)
        binding = Binding(self.router, scope, tenant_of=self.tenant, routes=self.routes, on_error=sent.failing)
        scope[SCOPE_KEY] = binding
        before = context()
        enter(Context(binding))
        try:
            await self.app(scope, receive, sent)
        except Exception as raised:
            # Once the response has begun, frameworks that handle exceptions raise their own from it.
            error = _first((sent.begun and raised.__cause__) or raised)
            if not isinstance(error, TierlineError) or not await sent.finish(error, scope, receive):
                raise
        finally:
            enter(before)
            await self.router.end(binding, whole=sent.over)


def _first(raised: BaseException | None) -> BaseException | None:
    """An error itself, or the first of a group: what tasks of one request raised together."""
    while isinstance(raised, BaseExceptionGroup):
        raised = raised.exceptions[0]
    return raised


class _Sent:
    """What the app has sent of its answer, and the end of it where Tierline has to write that."""

    __slots__ = ("begun", "error", "events", "over", "send", "told")

    def __init__(self, send: Send) -> None:
        self.send = send
        self.begun = self.events = self.over = self.told = False
        self.error: TierlineError | None = None
        """What was raised where no framework could be told how to answer it."""

    def failing(self, scope: Scope, error: TierlineError) -> None:
        """Let Starlette's own exception handling answer, below CORS and the like. The app's own handlers come first."""
        if handlers := scope.get("starlette.exception_handlers"):
            handlers[0].setdefault(TierlineError, _handler)
        else:
            self.error = error

    async def __call__(self, message: Message) -> None:
        """Pass a message of the app on."""
        kind = message["type"]
        if self.told:
            return
        if kind == "http.response.start" and message["status"] == _SERVER_ERROR and self.error is not None:
            await self._tell(self.error, message)
            return
        if kind == "http.response.body":
            self.over = not message.get("more_body", False)
        elif kind == "http.response.start":
            self.begun = True
            self.events = any(
                name.lower() == b"content-type" and value.startswith(b"text/event-stream")
                for name, value in message.get("headers", ())
            )
        elif kind == "websocket.close":
            self.over = True
        await self.send(message)

    async def _tell(self, error: TierlineError, message: Message) -> None:
        """Answer instead of a framework that knows an error of Tierline only as a failure. Its other headers stay."""
        _say(error)
        self.begun = self.over = self.told = True
        answer = _answer(error)
        answer.raw_headers += [
            (name, value) for name, value in message.get("headers", ()) if name.lower() not in _OF_THE_BODY
        ]
        await self.send({"type": message["type"], "status": answer.status_code, "headers": answer.raw_headers})
        await self.send({"type": "http.response.body", "body": answer.body})

    async def finish(self, error: TierlineError, scope: Scope, receive: Receive) -> bool:
        """Tell the client of an error that nobody else has answered. False where that cannot be done."""
        if self.told:
            return True
        if self.over:
            return False
        _say(error)
        if scope["type"] == "websocket":
            await self.send({"type": "websocket.close", "code": _close_code(error), "reason": error.title})
        elif not self.begun:
            await _answer(error)(scope, receive, self.send)
        elif self.events:
            event = f"event: error\ndata: {json.dumps(error.problem)}\n\n".encode()
            await self.send({"type": "http.response.body", "body": event, "more_body": False})
        else:
            return False
        return True


def _close_code(error: TierlineError) -> int:
    """How a WebSocket is told: whether to come back later, as 429, 402, 503 and 500 tell it over HTTP."""
    return {402: _POLICY_VIOLATION, 429: _TRY_AGAIN_LATER, 503: _TRY_AGAIN_LATER}.get(
        error.http_status, _INTERNAL_ERROR
    )


def _say(error: TierlineError) -> None:
    """Tell the operator what the client is not told. Messages carry no prompt and no key."""
    log.log(
        logging.ERROR if error.http_status == _SERVER_ERROR else logging.INFO, "%s: %s", type(error).__name__, error
    )


def _answer(error: TierlineError) -> JSONResponse:
    return JSONResponse(error.problem, error.http_status, error.http_headers, media_type="application/problem+json")


async def _handler(connection: Any, error: Exception) -> JSONResponse | None:
    assert isinstance(error, TierlineError)  # noqa: S101  (registered for nothing else)
    _say(error)
    if isinstance(connection, WebSocket):
        await connection.close(_close_code(error), error.title)
        return None
    return _answer(error)
