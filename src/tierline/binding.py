"""What belongs to one request, and the one context variable that leads to it."""

from __future__ import annotations

import copy
import secrets
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol
from weakref import ref

from tierline.budgets import LONGEST_NAME, is_key
from tierline.errors import ConfigurationError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Hashable, Iterator, Mapping

    from tierline.attempts import Reply
    from tierline.budgets import Line, Scope
    from tierline.errors import TierlineError
    from tierline.policies import Policy
    from tierline.routes import Route, RouteTable
    from tierline.values import Decision

Purpose = Literal["classify", "shadow", "grade"]
"""What Tierline asks for itself: how hard a request is, how another tier would have answered, how good an answer is."""
SCOPE_KEY: Final = "tierline"
"""Where the Binding is in the ASGI scope, for those who have the request and not the context."""
KEPT_DECISIONS: Final = 100
"""Most decisions that a Binding keeps: the latest ones."""


class Owner(Protocol):
    """What a Binding needs of its Router."""

    @property
    def claude(self) -> Any:
        """The routed client."""
        ...

    @property
    def sync_claude(self) -> Any:
        """The routed synchronous client."""
        ...


class Pace(Protocol):
    """Holds a call back, so that it and others like it stay within the rate limits of the API.

    Models are those of an endpoint. While a call waits for room nothing is held for it, and its deadline stands still.
    """

    async def room(self, endpoint: Hashable, model: str) -> float:
        """Wait until the model has room for the call, and take it. Seconds that it took."""
        ...

    def sent(self, endpoint: Hashable, model: str) -> None:
        """An attempt is about to be made, whether or not room was waited for."""
        ...

    def heard(self, endpoint: Hashable, model: str, reply: Reply) -> None:
        """What came back of it."""
        ...


class Ending(Protocol):
    """An attempt that has not been settled yet."""

    def desert(self) -> None:
        """The client of its request has gone in the midst of the answer."""
        ...

    def left_open(self, grace: float) -> None:
        """The request is over: settle it, unless somebody reads on within `grace` seconds."""
        ...


class Binding:
    """One request (or job), as Tierline knows it: who asks, where, what is allowed, what was decided.

    `decisions` holds the last 100, oldest first. `scope` is the ASGI scope as routing left it; the tenant and
    the route are looked up in it when Claude is called, because routing and authentication run later than
    the middleware.

    Inside of another Router's Binding (`outer`) it shares what names no Router: dependencies, blocks, and who asks.
    """

    __slots__ = (
        "__weakref__",
        "accounts",
        "app",
        "blocks",
        "busy_as_503",
        "charged",
        "chat",
        "decisions",
        "deserted_on",
        "ended",
        "failure",
        "fixed_route",
        "fixed_tenant",
        "ident",
        "narrowed",
        "on_error",
        "open",
        "origin",
        "outer",
        "owner",
        "pace",
        "request_lines",
        "run_name",
        "scope",
        "tables",
        "tenants",
    )  # fmt: skip

    def __init__(
        self,
        owner: Owner,
        scope: Scope | None = None,
        *,
        on_error: Callable[[Binding], None] | None = None,
        tenant: str | None = None,
        route: str | None = None,
        run: str | None = None,
        outer: Binding | None = None,
    ) -> None:
        self.owner = owner
        self.scope = scope
        self.app: object = None
        """The outermost app, which knows the templates of its mounts."""
        self.on_error = on_error
        """Prepares the framework for errors of a call that begins."""
        self.outer = outer
        self.origin: Binding | None = None
        """What this is a view of."""
        self.fixed_tenant = tenant
        self.fixed_route = route
        self.accounts: Mapping[str, str] = outer.accounts if outer is not None else {}
        """Accounts by the name of their budget, where those are known that a budget would ask the scope for."""
        self.tables: list[tuple[RouteTable, int, str]] = []
        """Policies by route, each with how many segments of the path stand before its middleware, and with the path as
        it came in there: some frameworks write into the scope what a mount leaves of it."""
        self.tenants: list[Callable[[Scope], str | None]] = []
        """Who may say whom the request is for: the first that does, outermost first."""
        self.busy_as_503 = False
        """Whether the app's clients are told 503 where the API was busy."""
        self.narrowed: list[Policy] = []
        self.blocks: dict[tuple[int, int], tuple[Policy, int]] = {}
        """Blocks in generators, by policy and frame, each with how often it was entered."""
        if outer is not None:
            self._inherit(outer)
        self.chat: str | None = None
        self.pace: Pace | None = None
        """What holds its calls back, where there is one: not those of what is bound inside."""
        self.run_name = run if run is None else _checked_run(run)
        self.ended = False
        self.deserted_on: AbstractEventLoop | None = None
        self.failure: TierlineError | None = None
        self.decisions: list[Decision] = []
        self.open: set[Ending] = set()
        self.request_lines: set[Line] = set()
        """Accounts that end with this request."""
        self.charged = 0
        self.ident = ""

    def _inherit(self, outer: Binding) -> None:
        """What holds around holds inside; a table only for the Router whose tiers it names."""
        if self.scope is None:
            self.scope = outer.scope
        self.on_error = self.on_error or outer.on_error
        self.app = outer.app
        self.fixed_tenant = outer.fixed_tenant if self.fixed_tenant is None else self.fixed_tenant
        self.tenants += outer.tenants
        self.busy_as_503 = outer.busy_as_503
        self.narrowed, self.blocks = outer.narrowed, outer.blocks
        if (same := outer.of(self.owner)) is not None:
            self.tables += same.tables

    def __repr__(self) -> str:
        return f"<Binding {self.id} decisions={len(self.decisions)}>"

    @property
    def id(self) -> str:
        """An id that no other request has, in any process. Made when it is asked for."""
        origin = self.origin or self
        origin.ident = origin.ident or f"req-{secrets.token_hex(8)}"
        return origin.ident

    @property
    def over(self) -> bool:
        """Whether the request has ended."""
        return (self.origin or self).ended

    @property
    def deserted(self) -> AbstractEventLoop | None:
        """The loop on which the request runs whose client has gone in the midst of its answer."""
        return (self.origin or self).deserted_on

    def desert(self, loop: AbstractEventLoop) -> None:
        """The client of the request, which runs on this loop, has gone in the midst of its answer."""
        (self.origin or self).deserted_on = loop

    def end(self) -> None:
        """The request has ended: what still runs for it was started to outlive it."""
        (self.origin or self).ended = True

    def charge(self, cost: int) -> None:
        """A call of this request is settled (nano-USD)."""
        (self.origin or self).charged += cost

    @property
    def left_behind(self) -> int:
        """What was charged to accounts that ended with this request, in nano-USD: they are gone, this is not."""
        return (self.origin or self).charged if self.over else 0

    @property
    def conversation(self) -> str | None:
        """The app's own name of the conversation that this request is a turn of; None: it is told by how it begins.

        Set it before Claude is called: `routing.conversation = chat_id`. Names are each tenant's own.
        """
        return (self.origin or self).chat

    @conversation.setter
    def conversation(self, name: str | None) -> None:
        if name is not None and (not isinstance(name, str) or not name):
            raise ConfigurationError(f"a conversation has a name or None, got {type(name).__name__}")
        (self.origin or self).chat = name

    @property
    def run(self) -> str | None:
        """The app's own name of the agent run that this is a part of; None: of none, and so a run of its own.

        Set it before Claude is called: `routing.run = run_id`. What is bound inside belongs to it too. Names are each
        tenant's own; one that a client may choose is a fresh `Budget(per="run")` for each that it makes up.
        """
        name = (self.origin or self).run_name
        return name if name is not None or self.outer is None else self.outer.run

    @run.setter
    def run(self, name: str | None) -> None:
        (self.origin or self).run_name = _checked_run(name)

    @property
    def error(self) -> TierlineError | None:
        """What was raised last, where no framework could be told how to answer it."""
        return (self.origin or self).failure

    def failed(self, error: TierlineError) -> None:
        """An error is about to be raised here. A framework that was prepared for it answers it."""
        if self.scope is not None and not self.scope.get("starlette.exception_handlers"):
            (self.origin or self).failure = error

    @property
    def claude(self) -> Any:
        """The routed client of this request's Router."""
        return self.owner.claude

    @property
    def sync_claude(self) -> Any:
        """The routed synchronous client of this request's Router."""
        return self.owner.sync_claude

    @property
    def tenant(self) -> str | None:
        """Whom the request is for, as the app's `tenant` function says now. ConfigurationError for what is no name."""
        said: object = None
        if self.fixed_tenant is None and self.scope is not None:
            scope = self.scope
            said = next((found for ask in self.tenants if (found := ask(scope)) is not None), None)
        tenant = said if self.fixed_tenant is None else self.fixed_tenant
        if tenant is None:
            return None
        if not isinstance(tenant, str):
            raise ConfigurationError(f"a tenant is text or None, got {type(tenant).__name__}")
        if not tenant or is_key(tenant):
            return tenant
        # It is remembered, stored and shown. Not told what it is: a client may have sent it, or it is a key by mistake.
        raise ConfigurationError(f"a tenant is text of at most {LONGEST_NAME} printable characters, or None")

    def of(self, owner: object) -> Binding | None:
        """The innermost Binding of a Router here: this one, or one around it."""
        if self.owner is owner or self.outer is None:
            return self if self.owner is owner else None
        return self.outer.of(owner)

    def view(self, scope: Scope | None, outer: Binding | None) -> Binding:
        """This very request, as it is seen from inside of another scope or another Router's Binding."""
        found = copy.copy(self)
        found.origin, found.scope, found.outer = self.origin or self, scope, outer
        return found

    def seen_in(self, scope: Scope) -> Binding:
        """This very request, read from this very scope: some middleware hand on a copy, and the route is in that."""
        if scope is self.scope:
            return self
        return self.view(scope, self.outer.seen_in(scope) if self.outer is not None else None)

    def keep_apart(self) -> None:
        """Let what narrows this view from now on hold for no other view of the request."""
        self.narrowed, self.blocks = list(self.narrowed), dict(self.blocks)

    def is_of(self, other: Binding) -> bool:
        """Whether both belong to one request, of one Router or of several."""
        return self.narrowed is other.narrowed

    def by_route(self, route: Route | None) -> Iterator[Policy]:
        """The policies of the tables that hold for a route."""
        for table, before, entered in self.tables:
            yield from table.policies_for(self.scope, route, before, entered)

    def prepare(self) -> None:
        """A call begins here, and may fail: let the framework know how to answer its errors."""
        # Who asks again has not failed for what was raised before.
        (self.origin or self).failure = None
        if self.on_error is not None:
            self.on_error(self)

    def narrow(self, policy: Policy) -> None:
        """Let one more policy hold for the rest of this request."""
        if policy not in self.narrowed:
            self.narrowed.append(policy)

    def record(self, decision: Decision) -> None:
        """Keep a decision; one with the same id is replaced."""
        for place, kept in enumerate(tuple(self.decisions)):  # threads of one request may record at once
            if kept.id == decision.id:
                self.decisions[place] = decision
                return
        self.decisions.append(decision)
        if len(self.decisions) > KEPT_DECISIONS:
            del self.decisions[0]


def _checked_run(name: str | None) -> str | None:
    if name is not None and not is_key(name):
        raise ConfigurationError(
            f"a run has a name of at most {LONGEST_NAME} printable characters, or None, got {type(name).__name__}"
        )
    return name


@dataclass(slots=True)
class OwnCall:
    """Marks a call that Tierline makes for itself, such as a verdict: its tier, and the accounts that pay for it.

    `purpose` is what its cost is counted as. `cost` is filled in when it is settled (nano-USD).
    """

    tier: str
    lines: tuple[Line, ...]
    route: str | None
    tenant: str | None
    timeout: float | None = None
    """Seconds in which it must be over."""
    cost: int = 0
    purpose: Purpose = "classify"
    max_tokens: int | None = None
    """Most tokens of output that a policy allows it."""


def bound_to(scope: Scope) -> Binding | None:
    """The Binding of the request that has this scope; after its end only where somebody still has that."""
    found: Any = scope.get(SCOPE_KEY)
    return found() if isinstance(found, ref) else found


class Context(NamedTuple):
    """The value of the context variable: the request, the `with policy(…)` blocks around, and whose call it is.

    A block that was entered in a generator has the id of its frame, others have 0.
    """

    binding: Binding | None = None
    blocks: tuple[tuple[Policy, int], ...] = ()
    own: OwnCall | None = None

    def binding_of(self, owner: object) -> Binding | None:
        """The innermost Binding of a Router; where it has none here, the innermost of all."""
        return self.binding and (self.binding.of(owner) or self.binding)


_context: ContextVar[Context] = ContextVar("tierline", default=Context())  # noqa: B039  (a tuple)


def context() -> Context:
    """Where we are."""
    return _context.get()


def enter(value: Context) -> None:
    """Set where we are, for this task and what it starts from now on."""
    _context.set(value)


def current() -> Binding:
    """The Binding of the request that runs here. ConfigurationError outside of one."""
    binding = _context.get().binding
    if binding is None:
        raise ConfigurationError(
            "no request is bound here: add TierlineMiddleware to the app, "
            "or wrap the work in `async with router.bind():`"
        )
    return binding
