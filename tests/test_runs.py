"""Agent runs: one budget for all that is bound to one name, whoever calls and however often."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import httpx  # noqa: TC002
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from tierline import Budget, Router, current, policy
from tierline.asgi import TierlineMiddleware
from tierline.budgets import RUN_SERIES, Limit, is_run_of, parse_limit, run_account
from tierline.classify import FixedClassifier
from tierline.errors import BudgetExceededError, ConfigurationError
from tierline.fastapi import Claude, Routing  # noqa: TC001  (FastAPI reads annotations)
from tierline.ledger import MemoryLedger, SQLiteLedger
from tierline.testing import FakeClaude
from tierline.values import NANO
from tierline.windows import RUN_KEPT, Window

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from starlette.types import ASGIApp

    from tierline.ledger import Ledger

    MakeRouter = Callable[..., Router]

ASK: dict[str, Any] = {"model": "auto", "max_tokens": 500, "messages": [{"role": "user", "content": "Go on."}]}
BUDGET = Budget("$0.015", per="run", name="run", downgrade_at=None, cheapest_at=None)
ON_SONNET = policy(tier="sonnet")


async def until_refused(router: Router, most: int = 60) -> int:
    """How many calls were answered before one was refused."""
    for number in range(most):
        try:
            await router.claude.messages.create(**ASK)
        except BudgetExceededError:
            return number
    return most


async def spent(router: Router) -> dict[str, int]:
    return {balance.account: balance.spent for balance in await router.balances() if balance.budget == "run"}


async def test_a_loop_cannot_run_away(make_router: MakeRouter, fake: FakeClaude) -> None:
    """A run that is bound anew for each step has one limit for all of them; another run has its own."""
    router = make_router(budgets=[BUDGET], policy=ON_SONNET)
    steps = 0
    while True:
        async with router.bind(tenant="acme", run="r1") as binding:
            try:
                await router.claude.messages.create(**ASK)
            except BudgetExceededError as error:
                refused = error
                break
            steps += 1
            assert binding.decisions[-1].run == "r1"
    assert 0 < steps < 10
    assert refused.http_status == 402
    assert (refused.refusal.account, refused.refusal.renews_in) == ("acme/r1", None)
    assert fake.billed == sum((await spent(router)).values()) <= 0.015 * NANO
    async with router.bind(tenant="acme", run="r2"):
        assert await until_refused(router) == steps
    report = router.report()
    assert {name: row.calls for name, row in report.by_run.items()} == {"acme/r1": steps, "acme/r2": steps}
    told = str(await router.explain(refused))
    assert "for a whole run" in told
    assert "acme/r1" in told
    assert "never" in told


async def test_two_tenants_runs_of_one_name_are_two(make_router: MakeRouter) -> None:
    """A run is its tenant's: what somebody else calls by the same name has another account."""
    router = make_router(budgets=[BUDGET], policy=ON_SONNET)
    for tenant in ("acme", "initech", None):
        async with router.bind(tenant=tenant, run="r"):
            assert await until_refused(router) > 0
    assert set(await spent(router)) == {"acme/r", "initech/r", "r"}


@given(st.text("a/~", max_size=5), st.text("a/~", min_size=1), st.text("a/~", max_size=5), st.text("a/~", min_size=1))
def test_no_two_runs_share_an_account(tenant: str, run: str, other: str, another: str) -> None:
    """Whatever tenants and runs are called, slashes included: other names, another account."""
    same = (tenant, run) == (other, another)
    assert (run_account(tenant or None, run) == run_account(other or None, another)) == same
    assert is_run_of(tenant, run_account(tenant, run)) == bool(tenant)
    assert not (tenant != other and tenant and is_run_of(tenant, run_account(other or None, another)))


async def test_what_names_no_run_is_one(make_router: MakeRouter) -> None:
    """A request or a job without a name has the limit for itself, all its calls together, and leaves no account."""
    router = make_router(budgets=[BUDGET], policy=ON_SONNET)
    async with router.bind():
        first = await until_refused(router)
        assert first > 0
        assert len(await spent(router)) == 1
    assert await spent(router) == {}
    async with router.bind():
        assert await until_refused(router) == first
    for _ in range(2 * first):
        await router.claude.messages.create(**ASK)  # bound to nothing: each is alone
    assert await spent(router) == {}


async def test_what_is_bound_inside_belongs_to_the_run(make_router: MakeRouter) -> None:
    """A tool that binds a job of its own spends the run's money, unless it names a run of its own."""
    router = make_router(budgets=[BUDGET], policy=ON_SONNET)
    async with router.bind(run="outer") as outer:
        async with router.bind(route="tool") as inner:
            await router.claude.messages.create(**ASK)
            assert inner.run == "outer"
            assert inner.decisions[-1].run == "outer"
        async with router.bind(run="mine"):
            await router.claude.messages.create(**ASK)
        outer.run = None
        assert current().run is None
    assert set(await spent(router)) == {"outer", "mine"}


@pytest.mark.parametrize("name", ["", 7, "x" * 201, "a\nb"])
async def test_names_of_runs(make_router: MakeRouter, name: Any) -> None:
    """What cannot be an account is said where it is written."""
    router = make_router()
    with pytest.raises(ConfigurationError, match="a run has a name"):
        async with router.bind(run=name):
            pass
    async with router.bind() as binding:
        with pytest.raises(ConfigurationError, match="a run has a name"):
            binding.run = name
        assert binding.run is None


async def test_a_request_may_be_part_of_a_run(
    make_router: MakeRouter, serve: Callable[[ASGIApp], Awaitable[httpx.AsyncClient]]
) -> None:
    """The app names it; a header or a query of that name does nothing, and the refusal is a 402."""
    router = make_router(budgets=[BUDGET], policy=ON_SONNET)
    app = FastAPI(lifespan=router.lifespan)
    app.add_middleware(TierlineMiddleware, router=router, tenant=lambda scope: scope["path"].strip("/"))

    @app.get("/{tenant}")
    async def step(tenant: str, claude: Claude, routing: Routing, named: bool = True) -> str:
        if named:
            routing.run = "one"
        await claude.messages.create(**ASK)
        return routing.decisions[-1].tier

    browser = await serve(app)
    statuses = [(await browser.get("/acme")).status_code for _ in range(8)]
    assert statuses[0] == 200
    assert statuses[-1] == 402
    assert sorted(statuses) == statuses
    assert (await browser.get("/acme", headers={"x-tierline-run": "two"}, params={"run": "two"})).status_code == 402
    assert (await browser.get("/initech")).status_code == 200
    assert (await browser.get("/acme", params={"named": False})).status_code == 200
    assert set(await spent(router)) == {"acme/one", "initech/one"}


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_old_runs_are_forgotten(kind: str, tmp_path: Path) -> None:
    """A run that is not charged any more leaves the store after seven days; one that goes on stays."""
    now = [1_795_000_000.0]

    def clock() -> float:
        return now[0]

    ledger: Ledger = MemoryLedger(clock=clock) if kind == "memory" else SQLiteLedger(tmp_path / "l.db", clock=clock)
    fake = FakeClaude()
    router = Router(
        fake.client(),
        ledger=ledger,
        budgets=[BUDGET],
        policy=policy(tier="haiku"),
        classifier=FixedClassifier("simple"),
    )
    for day in range(9):
        for run in (f"of day {day}", "long"):
            async with router.bind(run=run):
                await router.claude.messages.create(**ASK)
        now[0] += 86_400
    assert set(await spent(router)) == {"long", *(f"of day {day}" for day in range(2, 9))}
    now[0] += RUN_KEPT * 61 / 60
    assert await spent(router) == {}
    await router.aclose()
    await ledger.aclose()


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_one_run_over_several_processes(kind: str, make_router: MakeRouter, tmp_path: Path) -> None:
    """Workers that share a store share a run's limit, and none renews it; a run that is erased begins anew."""
    with ExitStack() as stack:
        store = f"sqlite:///{tmp_path}/l.db"
        if kind == "redis":
            from tests.redis_server import redis_server

            store = stack.enter_context(redis_server()).url
        routers = [make_router(store=store, budgets=[BUDGET], policy=ON_SONNET) for _ in range(2)]
        answered, refused = 0, None
        while refused is None:
            async with routers[answered % 2].bind(tenant="acme", run="r"):
                try:
                    await routers[answered % 2].claude.messages.create(**ASK)
                    answered += 1
                except BudgetExceededError as error:
                    refused = error
        assert (answered > 0, refused.http_status, refused.refusal.renews_in) == (True, 402, None)
        (balance,) = await routers[0].balances("acme/r")
        assert (balance.window, balance.held) == (RUN_SERIES, 0)
        assert 0 < balance.spent <= balance.limit == 0.015 * NANO
        await routers[1].erase("acme/r")
        async with routers[0].bind(tenant="acme", run="r"):
            assert await until_refused(routers[0]) == answered
        for router in routers:
            await router.aclose()


async def test_erasing_a_tenant_erases_its_runs(make_router: MakeRouter) -> None:
    """Nothing stays under the name of a tenant that is erased; others' runs stay, and one run can go alone."""
    router = make_router(budgets=[BUDGET, Budget("$1/day", per="run", name="daily")], policy=ON_SONNET)
    for tenant, run in (("acme", "a"), ("acme", "b"), ("acme corp", "a"), (None, "acme")):
        async with router.bind(tenant=tenant, run=run):
            await router.claude.messages.create(**ASK)
    await router.erase("acme/b")
    assert set(await spent(router)) == {"acme/a", "acme corp/a", "acme"}
    await router.erase("acme")
    assert {balance.account for balance in await router.balances()} == {"acme corp/a"}


def test_limits_of_runs() -> None:
    """A total for runs is kept for as long as a run lasts; what names a window keeps that; a plan may be either."""
    whole = Window("run", seconds=RUN_KEPT)
    assert Budget("$1", per="run").limit_of("r") == Limit(NANO, whole)
    assert Budget("$1/day", per="run").limit_of("r") == parse_limit("$1/day")
    assert Budget(lambda account: f"${len(account)}", per="run", name="plan").limit_of("abc") == Limit(3 * NANO, whole)
    assert Budget("$1", per="run").name == "$1 per run"
    assert (str(whole), whole.rolls, whole.renews) == ("", True, False)
    with pytest.raises(ConfigurationError, match="write for example"):
        parse_limit("$5/run")
