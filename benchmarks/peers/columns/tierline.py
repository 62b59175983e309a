"""Tierline in each of its forms, beside the SDK on the same HTTP client."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from benchmarks.peers.column import Column, NotDoneError
from benchmarks.peers.columns.sdk import PLAIN_AIOHTTP, answered, calls_of, client_of, on_aiohttp, plain
from benchmarks.peers.rows import PLAIN
from benchmarks.spans import Spans
from tierline import Budget, Router
from tierline.classify import ClaudeClassifier, LocalClassifier
from tierline.ledger import RedisLedger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from benchmarks.peers.column import World
    from benchmarks.peers.rows import Kind
    from tierline import Binding, Decision

TRACED: Final = "plain SDK, its own span"
CACHED: Final = "Tierline"
ALL: Final = "Tierline, everything on"
NEW: Final = "Tierline, as a new user gets it"
SLICES: Final = 0.05
"""Of a budget, how much a process holds to admit calls against without asking."""


class Seen:
    """Binds each call, and keeps the Binding of the last one."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.last: Binding | None = None

    @asynccontextmanager
    async def bound(self) -> AsyncIterator[Binding]:
        async with self.router.bind(tenant="acme", route="/answer") as self.last:
            yield self.last

    def decision(self) -> Decision:
        assert self.last is not None
        return self.last.decisions[-1]


def anew(call: Callable[[str], Awaitable[Any]]) -> Callable[[str], Awaitable[Any]]:
    """The call, of a text that has not been seen."""
    numbers = count()

    async def called(text: str) -> Any:
        return await call(f"{next(numbers)} {text}")

    return called


def routed(name: str, router: Router, source: str, spans: Spans | None = None, also: tuple[str, ...] = ()) -> Column:
    """Calls of a Router's client, each in a binding of its own. `source`: of its decisions."""
    seen = Seen(router)

    def check(kind: Kind, came: Any) -> str:
        said, decision = answered(kind, came), seen.decision()
        if decision.source != source or not decision.settled or not decision.cost or decision.estimated:
            raise NotDoneError(f"not the way that is to be measured: {decision}")
        if len(decision.budgets) != len(router.budgets) or (spans is not None and len(spans.exported) < 2):
            raise NotDoneError(f"{len(decision.budgets)} budgets, {spans and spans.exported}")
        words = [said, f"{decision.tier} by {decision.source}", f"{decision.cost:,} nano-USD settled"]
        if decision.budgets:
            words.append(f"on {len(decision.budgets)} budgets")
        return ", ".join(words if spans is None else [*words, f"{len(spans.exported)} spans exported"])

    async def flush() -> None:
        if spans is not None:
            spans.flush()

    calls = calls_of(router.claude, "auto", seen.bound)
    if source == "local":
        calls = {kind: anew(call) for kind, call in calls.items()}
    return Column(name, calls, check, flush, also=also)


def traced(world: World) -> Column:
    """The SDK with an OpenTelemetry SDK: its own span, exported in batches."""
    spans = Spans()
    client = client_of(world, open_telemetry={"tracer_provider": spans.provider})

    def check(kind: Kind, came: Any) -> str:
        if not spans.exported:
            raise NotDoneError("no span")
        return f"{answered(kind, came)}, {len(spans.exported)} spans exported"

    async def flush() -> None:
        spans.flush()

    return Column(TRACED, calls_of(client), check, flush)


@asynccontextmanager
async def opened(world: World) -> AsyncIterator[list[Column]]:
    """All of them."""
    os.environ |= {"ANTHROPIC_BASE_URL": world.url, "ANTHROPIC_API_KEY": "none"}
    stack = AsyncExitStack()

    def router(spans: Spans | None = None, *, own: bool = True, **options: Any) -> Router:
        traces: Any = {"open_telemetry": {"tracer_provider": spans.provider}} if spans is not None else {}
        made = Router(
            client_of(world, **traces) if own else None,
            budgets=[Budget("$1000000/day"), Budget("$1000000/hour", per="tenant")],
            tracer_provider=spans.provider if spans is not None else None,
            **options,
        )
        stack.push_async_callback(made.aclose)
        return made

    verdict, local = partial(router, classifier=ClaudeClassifier()), partial(router, classifier=LocalClassifier())
    first, second = Spans(), Spans()
    async with stack:
        columns = [
            plain(world),
            plain(world, f"{PLAIN} again (A/A)"),
            on_aiohttp(world),
            traced(world),
            routed(CACHED, verdict(), "cache"),
            routed("Tierline, with OTel", verdict(first), "cache", first, also=(TRACED,)),
            routed("Tierline, local classifier on a miss", local(), "local"),
            routed(ALL, local(second), "local", second, also=(TRACED,)),
            routed("Tierline, SQLite", verdict(store=f"sqlite:///{world.folder}/ledger.db"), "cache"),
            routed(NEW, verdict(own=False), "cache", also=(PLAIN_AIOHTTP,)),
        ]
        if world.redis:
            columns.append(routed("Tierline, Redis", verdict(store=world.redis), "cache"))
            leased = RedisLedger(world.redis, namespace="leased", slices=SLICES)
            stack.push_async_callback(leased.aclose)
            columns.append(routed("Tierline, Redis, allowances", verdict(ledger=leased), "cache"))
        yield columns
