"""What the apps of all frameworks share: a Router, a table of floors, and what their endpoints do.

Every request is easy, so what goes to `opus` went there for its floor. `PLACES` has, for each place of a policy, a
path to ask for and the route that it must be told as. Quart and Django leave no route in the scope: of theirs the path
is matched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tierline import Budget, Router, current, policy
from tierline.classify import FixedClassifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, MutableMapping

FLOOR = policy(floor="opus")
TABLE = {
    "/table": FLOOR,
    "/parameter/{anything}": FLOOR,
    "/rest/*": FLOOR,
    "/mount/{tenant}/inside": FLOOR,
    "/prefix/inner/inside": FLOOR,
    "/function": FLOOR,
    "/sync": FLOOR,
    "/stream": FLOOR,
    "/background": FLOOR,
    "/renews": policy(budgets=[Budget("$0.0004/hour", per="tenant", name="renews")]),
    "/total": policy(budgets=[Budget("$0.000001", name="total")]),
    "/events": policy(budgets=[Budget("$0.000001", name="events")]),
}
PLACES: dict[str, tuple[str, str]] = {
    "in the table": ("/table", "/table"),
    "in the table, for a parameter": ("/parameter/a%20b", "/parameter/{name}"),
    "in the table, for the rest of a path": ("/rest/of/it", "/rest/{path}"),
    "in the table, for a route of a mount": ("/mount/acme/inside", "/mount/{tenant}/inside"),
    "in the table, for an included router": ("/prefix/inner/inside", "/prefix/inner/inside"),
    "in the table, for a plain function": ("/function", "/function"),
    "in the table, for a def endpoint": ("/sync", "/sync"),
    "in the table, for a streaming body": ("/stream", "/stream"),
    "in the table, for a background task": ("/background", "/background"),
    "dependency of a route": ("/depends/route", "/depends/route"),
    "dependency of a router": ("/depends/router", "/depends/router"),
    "dependency of an app": ("/depends/app/inside", "/depends/app/inside"),
    "dependency of a def endpoint": ("/depends/sync", "/depends/sync"),
    "dependency, for a streaming body": ("/depends/stream", "/depends/stream"),
    "decorator inside": ("/decorator/inside", "/decorator/inside"),
    "decorator outside": ("/decorator/outside", "/decorator/outside"),
    "decorator of a def endpoint": ("/decorator/sync", "/decorator/sync"),
    "decorator, for a streaming body": ("/decorator/stream", "/decorator/stream"),
    "decorator of a class": ("/decorator/class", "/decorator/class"),
    "decorator of a method": ("/decorator/method", "/decorator/method"),
    "block": ("/block", "/block"),
    "block in a generator": ("/block/stream", "/block/stream"),
    "the Router's": ("/router/inside", "/router/inside"),
}

ASK: dict[str, Any] = {"model": "auto", "max_tokens": 300, "messages": [{"role": "user", "content": "Open today?"}]}

router = Router(classifier=FixedClassifier("simple"), budgets=[Budget("$50", per="tenant", name="all")])
strict = Router(classifier=FixedClassifier("simple"), policy=FLOOR)
"""Another Router, for a part of an app."""


def tenant_of(scope: MutableMapping[str, Any]) -> str | None:
    """The tenant in a header, as authentication would have left it."""
    return dict(scope["headers"]).get(b"x-tenant", b"").decode() or None


BINDS: dict[str, Any] = {"router": router, "tenant": tenant_of, "routes": TABLE, "headers": True, "server_timing": True}
"""How TierlineMiddleware is made."""


async def answer() -> dict[str, Any]:
    """Call Claude, and tell what was decided."""
    binding = current()
    await binding.claude.messages.create(**ASK)
    return {"tier": binding.decisions[-1].tier, "route": binding.decisions[-1].route}


async def words() -> AsyncIterator[str]:
    """The words of a streamed answer, as they come."""
    async with current().claude.messages.stream(**ASK) as stream:
        async for text in stream.text_stream:
            yield text


async def words_in_a_block() -> AsyncIterator[str]:
    """The same, in a block of their own."""
    with FLOOR:
        async for text in words():
            yield text


async def events() -> AsyncIterator[str]:
    """An event, and then a call that is refused."""
    yield "data: first\n\n"
    await answer()


async def balances() -> list[dict[str, Any]]:
    """What every account has spent and holds."""
    found = await router.balances()
    return [{"budget": b.budget, "account": b.account, "spent": b.spent, "held": b.held} for b in found]
