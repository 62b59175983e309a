"""What the page shows is what the ledger charged, over all workers; and names are only ever data."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.dashboard.conftest import BEARER
from tests.redis_server import RedisServer, fresh_namespace, redis_server
from tierline import Budget, Ladder, policy
from tierline.dashboard.period import MOST_HOURS, Period, Stretch
from tierline.dashboard.written import LONGEST, decision_row, json_of
from tierline.errors import BudgetExceededError
from tierline.ledger import RedisLedger
from tierline.store.redis import RedisStore
from tierline.testing import FakeClaude, Fault
from tierline.traffic.base import Counts, Traffic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    import httpx

    from tierline import Router

    Visit = Callable[..., httpx.AsyncClient]

SAID: list[Any] = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """One server: each test has a namespace of its own."""
    with redis_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "redis"])
async def shared(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Callable[[], dict[str, Any]]]:
    """How each worker opens one store, with connections of its own."""
    if request.param == "sqlite":
        yield lambda: {"store": f"sqlite:///{tmp_path}/a.db"}
        return
    url, namespace = request.getfixturevalue("server").url, fresh_namespace()
    opened: list[RedisLedger] = []

    def open_one() -> dict[str, Any]:
        opened.append(RedisLedger(RedisStore(url, namespace=namespace, timeout=5)))
        return {"ledger": opened[-1]}

    yield open_one
    for ledger in opened:
        await ledger.aclose()


async def ask(router: Router, tenant: str, route: str, **rules: Any) -> None:
    async with router.bind(tenant=tenant, route=route):
        with policy(**rules):
            await router.claude.messages.create(model="auto", max_tokens=50, messages=SAID)


async def test_numbers_are_the_ledgers(
    make_router: Callable[..., Router], visit: Visit, fake: FakeClaude, shared: Callable[[], dict[str, Any]]
) -> None:
    """Two workers, calls of several tiers, a fallback, a refusal: all sums are the same, to the nano-dollar."""
    budgets = [Budget("$5/day"), Budget("$0.01/hour", per="tenant", name="each", downgrade_at=None, cheapest_at=None)]
    workers = [make_router(budgets=budgets, **shared()) for _ in range(2)]
    pages = [visit(worker) for worker in workers]
    for number, worker in enumerate(workers):
        await ask(worker, "acme", "/answer", tier="haiku")
        await ask(worker, "globex", "/answer", tier="sonnet")
        if number:
            fake.script(Fault.error(529), Fault.error(529), Fault.error(529))
        await ask(worker, f"only-{number}", "/contracts", floor="sonnet")
    with pytest.raises(BudgetExceededError):
        async with workers[0].bind(tenant="dear", route="/answer"):
            await workers[0].claude.messages.create(model="auto", max_tokens=20_000, messages=SAID)
    for worker in workers:
        await worker.traffic(timedelta(hours=1), most=0)  # what each has seen is in the store
    history, balances = await workers[0].history(0), await workers[0].balances()
    decisions = [await worker.decisions() for worker in workers]
    for page in pages:
        page.headers.update(BEARER)
        shown = (await page.get("api/overview")).json()
        assert shown["total"]["cost"] == str(history.total.cost)
        assert history.total.cost > 0
        assert (shown["total"]["calls"], shown["total"]["refusals"], shown["total"]["fallbacks"]) == (6, 1, 1)
        for kind, grouping in (("by_tier", "tier"), ("by_route", "route"), ("by_account", "account")):
            told = {row["name"]: row["cost"] for row in shown[kind] if row["cost"] != "0"}
            assert told == {name: str(total.cost) for name, total in history.by(grouping).items()}  # type: ignore[arg-type]
        by_hour: Counter[float] = Counter()
        for entry in shown["hours"]:
            by_hour[entry["at"]] += sum(int(tier["cost"]) for tier in entry["tiers"].values())
        assert +by_hour == sum((Counter({row.hour: row.cost}) for row in history.rows), Counter())
        assert [entry["at"] for entry in shown["hours"]] == [shown["since"] + 3_600 * n for n in range(24)]
        rows = (await page.get("api/accounts")).json()["rows"]
        assert {(row["budget"], row["account"], row["spent"], row["held"], row["limit"]) for row in rows} == {
            (each.budget, each.account, str(each.spent), str(each.held), str(each.limit)) for each in balances
        }
        assert shown["budgets"] == rows
        assert len(shown["workers"]) == 2
        listed = (await page.get("api/decisions")).json()["rows"]
        assert [row["id"] for row in listed] == [record["id"] for record in decisions[0]]
        assert sum(int(row["cost"]) for row in listed) == history.total.cost
        one = (await page.get(f"api/decisions/{listed[0]['id']}")).json()
        assert one == listed[0]
        assert {"reasons", "attempts", "trace_id", "worker", "saved"} <= set(one)
        earlier = (await page.get("api/decisions", params={"before": listed[0]["at"]})).json()["rows"]
        assert listed[0]["id"] not in {row["id"] for row in earlier}
        assert (await page.get("api/decisions/none")).status_code == 404
        for moment in ("soon", "nan", "-inf"):
            assert (await page.get("api/decisions", params={"before": moment})).status_code == 422


HOSTILE = [
    "<script>alert(1)</script>", "\u202egnitpyrc", "</script><img src=x onerror=alert(1)>", "a" * 200, "é\u0301☃",
    "__proto__", "constructor", "(other)", "data: x", "=cmd()", "🧾" * 50, "' OR 1=1 --",
]  # fmt: skip


async def test_hostile_names(make_router: Callable[..., Router], visit: Visit) -> None:
    """Tenants, routes and models of any name stand in JSON, as they are or cut off, and nothing else is changed."""
    model = "<img src=x onerror=alert(1)>" * 100
    router = make_router(budgets=[Budget("$5/day", per="tenant", name="each")], ladder=Ladder.of(a="claude-haiku-4-5"))
    page = visit(router)
    page.headers.update(BEARER)
    for name in HOSTILE:
        if name.isprintable():
            await ask(router, name, name)
    router.health.of("here", model).breaker._become("open")
    answers = [await page.get(f"api/{path}") for path in ("overview", "accounts?most=200", "decisions")]
    for answer in answers:
        assert answer.headers["content-type"] == "application/json"
        assert answer.content.isascii()
        assert b"\n" not in answer.content
    overview, accounts, decisions = (answer.json() for answer in answers)
    used = {name for name in HOSTILE if name.isprintable()}
    assert {row["account"] for row in accounts["rows"]} == used
    assert {row["tenant"] for row in decisions["rows"]} == used
    assert {row["name"] for row in overview["by_account"]} == used
    assert [len(row["model"]) for row in overview["breakers"]] == [LONGEST]
    found = await page.get("api/accounts", params={"search": "<SCRIPT"})
    assert [row["account"] for row in found.json()["rows"]] == ["<script>alert(1)</script>"]
    for query in ("most=0", "most=201", "most=x", "offset=-1", "sort=hack", "most=9999999999", "most=%C2%B2"):
        assert (await page.get(f"api/accounts?{query}")).status_code == 422
    for query in ("hours=0", f"hours={MOST_HOURS + 1}", "hours=1.5", "hours=-1"):
        assert (await page.get(f"api/overview?{query}")).status_code == 422
    for path in ("api/decisions/%3Cscript%3E", "static/%3Cscript%3E", "%3Cscript%3E"):
        refused = await page.get(path)
        assert (refused.status_code, "script" in refused.text) == (404, False)


anything = st.text(alphabet=st.characters(codec=None), max_size=3_000)


@given(name=anything, key=anything, text=anything, cost=st.integers(0, 10**20))
def test_a_row_of_anything(name: str, key: str, text: str, cost: int) -> None:
    """Half surrogates and all: it is JSON in ASCII that reads back the same, with exact money and no prompt."""
    record = {
        "id": "1", "tenant": name, "tags": {key: name}, "cost": cost, "saved": -cost, "classifier_cost": 0,
        "grading_cost": None, "text": text, "reasons": [name], "attempts": [{"cost": cost, "model": name}],
    }  # fmt: skip
    row = json.loads(json_of(decision_row(record)))
    shown = name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
    assert (row["tenant"], row["reasons"], row["attempts"][0]["model"]) == (shown, [shown], shown)
    assert (int(row["cost"]), int(row["saved"]), row["grading_cost"]) == (cost, -cost, None)
    assert int(row["attempts"][0]["cost"]) == cost
    assert "text" not in row


@given(hours=st.integers(1, MOST_HOURS), now=st.floats(1_700_000_000, 1_900_000_000))
def test_stretches(hours: int, now: float) -> None:
    """As long as was asked, up to a day more; the one that runs is in it; no holes; the one before touches it."""
    stretch = Stretch.of(hours, now)
    assert stretch.since <= now < stretch.until
    assert stretch.until - stretch.since >= hours * 3_600
    assert stretch.until - stretch.since - hours * 3_600 < 86_400
    assert stretch.since % (3_600 if hours <= 48 else 86_400) == 0
    assert stretch.before.until == stretch.since
    assert stretch.before.until - stretch.before.since == stretch.until - stretch.since
    moments = stretch.moments(now)
    assert moments == [stretch.since + stretch.step * number for number in range(len(moments))]
    assert moments[-1] <= now < moments[-1] + stretch.step
    assert len(moments) <= 192


def test_days_are_added_up() -> None:
    """Of a long period a day is one entry, with all of its hours."""
    stretch = Stretch.of(30 * 24, 1_795_262_400.0)
    hours = tuple((stretch.since + 3_600.0 * hour, {"haiku": Counts(calls=1, cost=hour)}) for hour in range(72))
    written = Period(stretch, Traffic(stretch.since, stretch.until, hours=hours), Counts()).written()
    sums = [entry["tiers"].get("haiku", {}) for entry in written["hours"]]
    assert written["step"] == 86_400
    assert [(each["calls"], int(each["cost"])) for each in sums[:3]] == [
        (24, sum(range(24))), (24, sum(range(24, 48))), (24, sum(range(48, 72))),
    ]  # fmt: skip
    assert sums[3:] == [{}] * 27
