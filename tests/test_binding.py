from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest

from tierline import policy
from tierline.binding import KEPT_DECISIONS, Binding, Context, context, current, enter
from tierline.errors import ConfigurationError
from tierline.values import Decision


class Owner:
    claude = object()


def decision(number: int, tier: str = "a") -> Decision:
    return Decision(f"d-{number}", tier, "m", tier, None, 1.0, "default")


def test_decisions_are_bounded() -> None:
    """A Binding keeps the latest decisions, oldest first, however long it lives."""
    binding = Binding(Owner())
    for number in range(KEPT_DECISIONS + 50):
        binding.record(decision(number))
    assert [d.id for d in binding.decisions] == [f"d-{n}" for n in range(50, KEPT_DECISIONS + 50)]


def test_a_decision_that_ends_replaces_its_beginning() -> None:
    """The same id is one entry, in its place; one that was pushed out comes back as the latest."""
    binding = Binding(Owner())
    for number in range(3):
        binding.record(decision(number))
    binding.record(decision(1, "b"))
    assert [(d.id, d.tier) for d in binding.decisions] == [("d-0", "a"), ("d-1", "b"), ("d-2", "a")]


def test_the_tenant_is_asked_when_it_is_needed() -> None:
    """Authentication runs later than the middleware: the scope is looked at as it is now."""
    scope: dict[str, Any] = {}
    binding = Binding(Owner(), scope)
    binding.tenants.append(lambda s: s.get("user"))
    assert binding.tenant is None
    scope["user"] = "acme"
    assert binding.tenant == "acme"
    assert binding.seen_in({"user": "other"}).tenant == "other"
    assert binding.tenant == "acme"


def test_the_outermost_who_knows_says_the_tenant() -> None:
    """A further middleware cannot take a tenant away, and may name one where there is none."""
    binding = Binding(Owner(), {"inner": "b"})
    binding.tenants += [lambda s: s.get("outer"), lambda s: s.get("inner")]
    assert binding.tenant == "b"
    assert binding.seen_in({"inner": "b", "outer": "a"}).tenant == "a"


def test_the_tenant_of_a_job() -> None:
    """Outside of requests the tenant is the one that was given; inside of one, a job says for whom it is."""
    assert Binding(Owner(), tenant="acme").tenant == "acme"
    assert Binding(Owner(), {}, tenant="acme").tenant == "acme"
    request = Binding(Owner(), {"user": "acme"})
    request.tenants.append(lambda s: s.get("user"))
    assert Binding(Owner(), tenant="other", outer=request).tenant == "other"
    assert Binding(Owner(), outer=request).tenant == "acme"


def test_a_tenant_is_text() -> None:
    """What is no text is refused, and the type is named."""
    binding = Binding(Owner(), {})
    binding.tenants.append(lambda s: 7)  # type: ignore[arg-type,return-value]
    with pytest.raises(ConfigurationError, match="int"):
        _ = binding.tenant


@pytest.mark.parametrize("name", ["x" * 201, "acme\n", "acme\x1b[31m", "\ud800", "acme\u202e", "\0", "ac\u200bme"])
def test_a_tenant_is_a_name(name: str) -> None:
    """What is too long to be remembered, or would write over a terminal or into a log, is refused and not told."""
    with pytest.raises(ConfigurationError, match="at most 200 printable characters") as caught:
        _ = Binding(Owner(), {}, tenant=name).tenant
    assert name not in str(caught.value)
    assert Binding(Owner(), {}, tenant="Müller & Söhne, 東京").tenant == "Müller & Söhne, 東京"
    assert Binding(Owner(), {}, tenant="").tenant == ""


def test_bindings_are_told_apart() -> None:
    """Each request has an id of its own, and shows no tenant and no path when it is printed."""
    one = Binding(Owner(), {"path": "/secret"}, tenant="acme")
    two = Binding(Owner())
    assert one.id != two.id
    assert "acme" not in repr(one)
    assert "secret" not in repr(one)
    assert one.claude is Owner.claude


def test_a_view_is_the_same_request() -> None:
    """Seen in another scope, a request has its own decisions, policies and id, and ends when it ends."""
    binding, copied = Binding(Owner(), {}), {"copied": True}
    view = binding.seen_in(copied)
    assert binding.seen_in(binding.scope) is binding  # type: ignore[arg-type]
    assert (view.scope, binding.scope) == (copied, {})
    view.record(decision(1))
    view.narrow(policy(floor="a"))
    assert len(binding.decisions) == 1
    assert binding.narrowed == view.narrowed
    assert view.id == binding.id == view.seen_in({}).id
    assert view.is_of(binding)
    assert not view.is_of(Binding(Owner()))
    view.end()
    assert binding.over
    assert view.over


def test_a_binding_of_each_router() -> None:
    """A Router finds its own Binding around, also from another scope; one that has none finds the innermost."""
    one, two, scope = Owner(), Owner(), {"copied": True}
    outer = Binding(one, {})
    inner = Binding(two, {}, outer=outer).seen_in(scope)
    found = Context(inner).binding_of(one)
    assert found is not None
    assert found.is_of(outer)
    assert found.scope is scope
    assert Context(inner).binding_of(two) is inner
    assert Context(inner).binding_of(Owner()) is inner
    assert Context().binding_of(one) is None


def test_narrowing_twice_is_narrowing_once() -> None:
    """A dependency that runs twice leaves one policy."""
    binding = Binding(Owner())
    binding.narrow(policy(floor="a"))
    binding.narrow(policy(floor="b"))
    binding.narrow(policy(floor="a"))
    assert binding.narrowed == [policy(floor="a"), policy(floor="b")]


def test_there_is_nothing_current_outside_of_requests() -> None:
    """Outside of a request `current` says what to add."""
    with pytest.raises(ConfigurationError, match="TierlineMiddleware"):
        contextvars.Context().run(current)
    assert contextvars.Context().run(context) == Context()


async def test_current_is_the_request_that_runs_here() -> None:
    """Tasks see the request that they were started in, threads too, and nobody sees a sibling's."""

    async def request() -> None:
        mine = Binding(Owner())
        enter(Context(mine))
        await asyncio.sleep(0)
        assert current() is mine
        assert await asyncio.to_thread(current) is mine
        assert await asyncio.create_task(child()) is mine

    async def child() -> Binding:
        await asyncio.sleep(0)
        return current()

    await asyncio.gather(*(request() for _ in range(20)))
    assert context().binding is None
