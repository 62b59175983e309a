"""The ASGI seam: binds a request to a Router, sweeps what it left open, answers Tierline's errors."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from tierline.answers import answer_to, close_code, prepare, say, told
from tierline.binding import SCOPE_KEY, Binding, Context, bound_to, context, enter
from tierline.errors import ClientGoneError, ConfigurationError
from tierline.headers import SERVER_TIMING, shown, timed
from tierline.router import Router
from tierline.routes import RouteTable, outermost, segments_before

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from tierline.errors import TierlineError
    from tierline.policies import Policy

log: Final = logging.getLogger("tierline")

_SERVER_ERROR: Final = 500
_TYPE: Final = len(b"content-type")
_ENCODING: Final = len(b"content-encoding")
_OF_THE_BODY: Final = (b"content-type", b"content-length", b"content-encoding", b"etag")
"""Headers that speak of a body, and go with it."""


class TierlineMiddleware:
    """Pure ASGI: `app.add_middleware(TierlineMiddleware, router=router)`, or around any ASGI app.

    - `tenant`: a function of the scope that says whom a request is for, or None. It is asked when Claude is
      called, so it sees what authentication left in the scope
    - `routes`: policies by route, `{"/checkout/*": policy(floor="sonnet")}`
    - `headers`: adds `x-tierline-tier`, `x-tierline-source` and `x-tierline-cost-usd` of the last call that has ended
      to responses that have not begun by then
    - `server_timing`: adds `Server-Timing` to them: how long the latest calls took, and their parts, with tier and
      source. Whoever gets the response sees it
    - `busy_as_503`: where the app does not catch the API's 429 and 529 (which Tierline has retried, and taken to other
      tiers), its clients are told 503 with `Retry-After`. Otherwise these errors are the app's, as they are

    Inside of another one with the same Router it joins that one's request: the policies of both hold, and who asks is
    said by the outer one where it says something. With another Router it begins a request of its own there: tables,
    budgets and decisions are each Router's, dependencies, decorators and blocks hold for both.

    Raises ConfigurationError for what cannot work.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        router: Router[Any],
        tenant: Callable[[Scope], str | None] | None = None,
        routes: Mapping[str, Policy] | None = None,
        headers: bool = False,
        server_timing: bool = False,
        busy_as_503: bool = False,
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
        switches = {"headers": headers, "server_timing": server_timing, "busy_as_503": busy_as_503}
        for name, switch in switches.items():
            if not isinstance(switch, bool):
                raise ConfigurationError(f"TierlineMiddleware({name}=…) is True or False, got {switch!r:.80}")
        self.app = app
        self.router = router
        self.tenant = tenant
        self.routes = RouteTable(routes or {}, router.ladder)
        self.headers = headers
        self.server_timing = server_timing
        self.busy_as_503 = busy_as_503
        for rule in (routes or {}).values():
            router.rules.check(rule)
        if tenant is None and any(budget.per == "tenant" for budget in router.budgets):
            log.warning("a budget is for each tenant, and TierlineMiddleware has no tenant=: all share one account")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Bind the request, run the app, sweep what it left open."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        around = bound_to(scope)
        binding = self._bind(scope, around)
        scope[SCOPE_KEY] = binding
        before = context()
        # A block around the app holds in it.
        enter(Context(binding, before.blocks))
        sent = _Sent(receive, send, binding, self.router, headers=self.headers, timing=self.server_timing)
        try:
            await self.app(scope, sent.receive, sent)
        except Exception as raised:
            if sent.deserted and isinstance(raised, ClientGoneError):
                return
            # Once the response has begun, frameworks that handle exceptions raise their own from it.
            cause = raised.__cause__ if sent.begun or isinstance(raised, RuntimeError) else None
            error = told(raised, busy_as_503=self.busy_as_503) or told(cause, busy_as_503=self.busy_as_503)
            if error is None or not await sent.finish(error, scope, receive):
                raise
        finally:
            enter(before)
            # Each leads to the other: what is left of the request would wait for the garbage collector.
            scope[SCOPE_KEY] = ref(binding) if around is None else around
            # One that joined leaves it to the middleware around, unless that has gone before.
            if around is None or around.of(self.router) is None or binding.over:
                binding.end()
                if binding.open or binding.request_lines:
                    await self.router.end(binding, whole=sent.over and not sent.deserted)

    def _bind(self, scope: Scope, around: Binding | None) -> Binding:
        """The Binding of the request: a new one, or that of the middleware around, which this one then joins."""
        self.router.gate.binds = True
        here = around.seen_in(scope) if around is not None else None
        known = here.of(self.router) if here is not None else None
        if known is None:
            binding = Binding(self.router, scope, on_error=prepare, outer=here)
            binding.app = binding.app or scope.get("app") or outermost(self.app)
        else:
            binding = known if known is here else known.view(scope, here)
        if not binding.tables or all(table is not self.routes for table, *_ in binding.tables):
            binding.tables.append((self.routes, segments_before(scope), str(scope.get("path", ""))))
        elif here is not around:
            # It has passed here before: the app calls itself, perhaps several times at once.
            binding.keep_apart()
        if self.tenant is not None and self.tenant not in binding.tenants:
            if binding is around:
                # Who asks is said here for what runs inside, and not for what the app around does afterwards.
                binding = binding.view(scope, binding.outer)
            binding.tenants = [*binding.tenants, self.tenant]
        if self.busy_as_503:
            binding.busy_as_503 = True
        return binding


class _Sent:
    """What the app has sent of its answer, and the end of it where Tierline has to write that.

    It is called for every piece of every answer, and so does nothing that can be done at the end.
    """

    __slots__ = (
        "_listen", "_send", "answered", "begun", "binding", "deserted", "events", "headers", "last", "over", "router",
        "timing",
    )  # fmt: skip

    def __init__(
        self, listen: Receive, send: Send, binding: Binding, router: Router[Any], *, headers: bool, timing: bool
    ) -> None:
        self._listen = listen
        self._send = send
        self.binding = binding
        self.router = router
        self.headers = headers
        """Whether the answer shows the last decision."""
        self.timing = timing
        """Whether it shows where the time went."""
        self.begun = self.events = self.over = self.deserted = False
        self.answered = False
        """Whether the answer has been written here, and what the app sends of one is dropped."""
        self.last = b""
        """The last piece of an answer of events. Where it has no end, nothing can follow."""

    def __call__(self, message: Message) -> Awaitable[None]:
        """Pass a message of the app on. What is awaited is the server's own: nothing stands in between."""
        kind = message["type"]
        if self.answered:
            return _dropped()
        if kind == "http.response.body":
            self.over = not message.get("more_body", False)
            if self.events and (body := message.get("body")):
                self.last = body
        elif kind == "http.response.start":
            if message["status"] == _SERVER_ERROR and self.binding.error is not None:
                return self._tell(self.binding.error, message)
            self.begun = True
            self.events = _are_events(message.get("headers", ()))
            message = self._shown(message)
        elif kind == "websocket.close":
            self.over = True
        return self._send(message)

    def _shown(self, start: Message) -> Message:
        """The start of a response, with what it is to show of its calls."""
        if not (self.headers or self.timing):
            return start
        there = [(name.lower(), value) for name, value in start.get("headers", ())]
        more = shown(self.binding.decisions, [name for name, _ in there]) if self.headers else []
        if self.timing:
            more += timed(self.binding.decisions, [value for name, value in there if name == SERVER_TIMING])
        return {**start, "headers": [*start.get("headers", ()), *more]} if more else start

    async def receive(self) -> Message:
        """`receive`, as the app may have it: somebody asks it whether the client is still there."""
        message = await self._listen()
        if message["type"] == "http.disconnect" and self.begun and not self.over:
            self.deserted = True
            self.router.deserted(self.binding)
        return message

    async def _tell(self, error: TierlineError, message: Message) -> None:
        """Answer instead of a framework that knows an error of Tierline only as a failure. Its other headers stay."""
        say(error)
        self.begun = self.over = self.answered = True
        answer = answer_to(error)
        answer.raw_headers += [
            (name, value) for name, value in message.get("headers", ()) if name.lower() not in _OF_THE_BODY
        ]
        start = {"type": message["type"], "status": answer.status_code, "headers": answer.raw_headers}
        await self._send(self._shown(start))
        await self._send({"type": "http.response.body", "body": answer.body})

    async def finish(self, error: TierlineError, scope: Scope, receive: Receive) -> bool:
        """Tell the client of an error that nobody else has answered. False where that cannot be done."""
        if self.answered:
            return True
        if self.over or (self.begun and not self.events):
            return False
        say(error)
        with suppress(OSError):  # the client is gone
            if scope["type"] == "websocket":
                await self._send({"type": "websocket.close", "code": close_code(error), "reason": error.title})
            elif not self.begun:
                await answer_to(error)(scope, receive, self)
            else:
                event = f"event: error\ndata: {json.dumps(error.problem)}\n\n".encode()
                body = event if not self.last or self.last.endswith(b"\n\n") else b"\n\n" + event
                await self._send({"type": "http.response.body", "body": body, "more_body": False})
        return True


async def _dropped() -> None:
    pass


def _are_events(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether an answer is one of server-sent events that can be written on: what is compressed cannot."""
    events = False
    for name, value in headers:
        if len(name) == _TYPE and name.lower() == b"content-type":
            events = value.startswith(b"text/event-stream")
        elif len(name) == _ENCODING and name.lower() == b"content-encoding":
            return False
    return events
