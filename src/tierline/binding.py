"""What belongs to one request, and the one context variable that leads to it."""

from __future__ import annotations

import secrets
from collections import deque
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from tierline.errors import ConfigurationError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, MutableMapping

    from tierline.budgets import Line
    from tierline.errors import TierlineError
    from tierline.policies import Policy
    from tierline.routes import RouteTable
    from tierline.values import Decision

    Scope = MutableMapping[str, Any]

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


class Ending(Protocol):
    """An attempt that has not been settled yet. That is done on its `loop`."""

    loop: AbstractEventLoop

    async def sweep(self, grace: float) -> None:
        """The request is over: settle it, unless somebody reads on within `grace` seconds."""
        ...


class Binding:
    """One request (or job), as Tierline knows it: who asks, where, what is allowed, what was decided.

    `decisions` holds the last 100, oldest first. `scope` is the ASGI scope as routing left it; the tenant and
    the route are looked up in it when Claude is called, because routing and authentication run later than
    the middleware.
    """

    __slots__ = (
        "_id", "blocks", "decisions", "fixed_route", "fixed_tenant", "narrowed", "on_error", "open", "over", "owner",
        "path", "request_lines", "routes", "scope", "tenant_of",
    )  # fmt: skip

    def __init__(
        self,
        owner: Owner,
        scope: Scope | None = None,
        *,
        tenant_of: Callable[[Scope], str | None] | None = None,
        routes: RouteTable | None = None,
        on_error: Callable[[Scope, TierlineError], None] | None = None,
        tenant: str | None = None,
        route: str | None = None,
    ) -> None:
        self.owner = owner
        self.scope = scope
        self.path = str(scope.get("path", "")) if scope is not None else ""
        """As it came in: some frameworks write into the scope what a mount leaves of it."""
        self.tenant_of = tenant_of
        self.routes = routes
        self.on_error = on_error
        """Prepares the framework for an error of Tierline that is about to be raised."""
        self.fixed_tenant = tenant
        self.fixed_route = route
        self.narrowed: list[Policy] = []
        self.blocks: dict[tuple[int, int], tuple[Policy, int]] = {}
        """Blocks in generators, by policy and frame, each with how often it was entered."""
        self.over = False
        self.decisions: deque[Decision] = deque(maxlen=KEPT_DECISIONS)
        self.open: set[Ending] = set()
        self.request_lines: set[Line] = set()
        """Accounts that end with this request."""

        self._id = ""

    def __repr__(self) -> str:
        return f"<Binding {self.id} decisions={len(self.decisions)}>"

    @property
    def id(self) -> str:
        """An id that no other request has, in any process. Made when it is asked for."""
        self._id = self._id or f"req-{secrets.token_hex(8)}"
        return self._id

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
        """Whom the request is for, as the app's `tenant` function says now."""
        asked = self.tenant_of is not None and self.scope is not None
        tenant: object = self.tenant_of(self.scope) if asked else self.fixed_tenant  # type: ignore[misc, arg-type]
        if tenant is not None and not isinstance(tenant, str):
            raise ConfigurationError(f"a tenant is text or None, got {type(tenant).__name__}")
        return tenant

    def failing(self, error: TierlineError) -> None:
        """An error of Tierline is about to be raised here: let the framework know how to answer it."""
        if self.on_error is not None and self.scope is not None:
            self.on_error(self.scope, error)

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


@dataclass(slots=True)
class OwnCall:
    """Marks a call that Tierline makes for itself, such as a verdict: its tier, and the accounts that pay for it.

    `cost` is filled in when it is settled (nano-USD).
    """

    tier: str
    lines: tuple[Line, ...]
    route: str | None
    tenant: str | None
    cost: int = 0


@dataclass(frozen=True, slots=True)
class Context:
    """The value of the context variable: the request, the `with policy(…)` blocks around, and whose call it is."""

    binding: Binding | None = None
    blocks: tuple[Policy, ...] = ()
    own: OwnCall | None = None


_context: ContextVar[Context] = ContextVar("tierline", default=Context())  # noqa: B039  (frozen)


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
