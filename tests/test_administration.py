"""What operators ask of a ledger and tell it: history, holds, limits, explained refusals, erasing."""

from __future__ import annotations

import asyncio
import logging
import pickle
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from tierline import Budget, Router, policy
from tierline.administration import Administration
from tierline.admission import Rules
from tierline.attempts import Timing
from tierline.errors import BudgetExceededError, ConfigurationError
from tierline.ladder import DEFAULT_LADDER
from tierline.ledger import MemoryLedger, Origin, Reservation, Spent
from tierline.values import NANO, Offer, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOON = 1_795_262_400.0  # 2026-11-21 12:00:00 UTC
HOUR = 3_600
DAY = 24 * HOUR
SECRET = "sk-ant-and-a-prompt"
PLAN = Budget("$2/day", per="tenant", name="plan")


class Desk:
    """A ledger at a time of our own, and its administration."""

    def __init__(self, *budgets: Budget, now: float = NOON + 600) -> None:
        self.now = now
        self.budgets = budgets
        self.ledger = MemoryLedger(clock=lambda: self.now)
        self.admin = self.of(budgets)
        self.made = 0

    def of(self, budgets: Any = ()) -> Administration:
        return Administration(self.ledger, Rules(DEFAULT_LADDER, budgets, None), lambda: self.now)

    async def hold(self, cost: int, tenant: str = "acme", tier: str = "haiku", route: str = "/chat") -> Any:
        self.made += 1
        names = {"tenant": tenant, "route": route, "request": "r1", None: "global"}
        lines = [b.line(names[b.per] if not callable(b.per) else "vip") for b in self.budgets]
        offers = [Offer("opus", "m", 3 * cost), Offer(tier, "m", cost)]
        return await self.ledger.reserve(f"k{self.made}", offers, lines, thresholds=False, origin=Origin(tenant, route))

    async def spend(self, cost: int, *where: str) -> None:
        held = await self.hold(1, *where)
        assert isinstance(held, Reservation)
        await self.ledger.settle(held, cost)

    async def refused(self, cost: int = 5 * NANO, *where: str) -> Refusal:
        found = await self.hold(cost, *where)
        assert isinstance(found, Refusal)
        return found


# History


@pytest.mark.parametrize(
    "since",
    [
        datetime(2026, 11, 21, 11, 30, tzinfo=UTC),
        datetime(2026, 11, 21, 13, 30, tzinfo=timezone(timedelta(hours=2))),
        timedelta(minutes=40),
        NOON - 1_800,
        int(NOON) - 1_800,
    ],
)
async def test_history_since_a_moment(since: Any) -> None:
    """A moment is a datetime of any zone, so long ago, or seconds; the hour that it falls into is there in whole."""
    desk = Desk(PLAN, now=NOON - 2 * HOUR)
    await desk.spend(1)
    desk.now = NOON - 3_500
    await desk.spend(20)
    desk.now = NOON + 600
    await desk.spend(300)
    history = await desk.admin.history(since)
    assert history.rows == (
        Spent(NOON - HOUR, "acme", "/chat", "opus", 1, 20),
        Spent(NOON, "acme", "/chat", "opus", 1, 300),
    )
    assert (history.since, history.until) == (NOON - HOUR, NOON + 600)
    assert (await desk.admin.history(since, until=timedelta(minutes=11))).total.cost == 20
    assert (await desk.admin.history(timedelta(days=10**6))).total.cost == 321


@pytest.mark.parametrize(
    ("since", "until", "words"),
    [
        (datetime(2026, 11, 21), None, "no time zone"),  # noqa: DTZ001
        (timedelta(seconds=-1), None, "so? long ago|how long ago"),
        ("yesterday", None, "no moment"),
        (float("nan"), None, "no moment"),
        (True, None, "no moment"),
        (None, None, "no moment"),
        (NOON, NOON - 1, "is before"),
        (0, datetime(2026, 1, 1), "until=.*no time zone"),  # noqa: DTZ001
    ],
)
async def test_history_since_no_moment(since: Any, until: Any, words: str) -> None:
    """What is no moment is refused, and the error says what to write."""
    with pytest.raises(ConfigurationError, match=words):
        await Desk().admin.history(since, until)


# Holds


async def test_holds_have_age_and_lease() -> None:
    """What is in flight is shown with how long it is, and how long it may go on unrenewed."""
    desk = Desk(PLAN)
    held = await desk.hold(100)
    desk.now += 12
    (found,) = await desk.admin.holds()
    assert (found.id, found.tier, found.cost, found.tenant, found.route) == ("k1", "opus", 300, "acme", "/chat")
    assert (found.age, found.lease_left) == (12.0, 18.0)
    assert found.accounts == (("plan", "acme"),)
    await desk.ledger.settle(held, 1)
    assert str(await desk.admin.holds()) == "nothing is in flight"


# Limits


async def test_a_limit_at_run_time() -> None:
    """A limit that an operator sets holds from the next call on, for one account or for all, until it is taken back."""
    desk = Desk(PLAN)
    await desk.refused(3 * NANO)
    await desk.admin.set_limit("plan", "acme", "$10")
    held = await desk.hold(3 * NANO)
    assert (held.cost, held.lines[0][0].window.unit) == (9 * NANO, "day")
    await desk.ledger.settle(held, 0)
    await desk.admin.set_limit("plan", None, "$1")
    await desk.refused(2 * NANO, "globex")
    assert (await desk.hold(3 * NANO)).cost == 9 * NANO
    assert await desk.ledger.limits() == {("plan", "acme"): 10 * NANO, ("plan", None): NANO}
    for account in ("acme", None):
        await desk.admin.set_limit("plan", account, None)
    assert await desk.ledger.limits() == {}
    assert isinstance(await desk.hold(2 * NANO, "globex"), Reservation)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("plam", None, "$1"), "'plam'.*known are: '\\$5/day', 'plan'"),
        (("plan", "acme", "$1/day"), "the amount"),
        (("plan", "acme", "1"), "not an amount of money"),
        (("plan", "acme", 5), "not an amount of money"),
        (("plan", "acme", "$0"), "above \\$0"),
        (("plan", "", "$1"), "an account is text"),
        (("plan", "a\nb", "$1"), "an account is text"),
        (("plan", 7, "$1"), "an account is text"),
        (("$5/day", "acme", "$1"), "one account for all"),
        ((PLAN, "acme", "$1"), "goes by its name"),
    ],
)
async def test_a_limit_that_cannot_be(arguments: Any, words: str) -> None:
    """A mistake is refused before anything is set, and the error says what there is."""
    desk = Desk(PLAN, Budget("$5/day"))
    with pytest.raises(ConfigurationError, match=words):
        await desk.admin.set_limit(*arguments)
    assert await desk.ledger.limits() == {}


async def test_a_limit_from_a_script(caplog: pytest.LogCaptureFixture) -> None:
    """A script that knows no budgets goes by what the store knows, and is warned of what nobody was charged to."""
    desk = Desk(PLAN)
    await desk.spend(5)
    script = desk.of()
    await script.set_limit("plan", "globex", "$1")
    assert [r.getMessage() for r in caplog.records] == ["budget plan: the limit of one account is $1 now"]
    caplog.clear()
    await script.set_limit("plam", None, "$1")
    assert "nothing was charged to a budget 'plam' yet" in caplog.records[0].getMessage()
    assert "'plan'" in caplog.records[0].getMessage()
    assert len(await desk.ledger.limits()) == 2
    # What was set can be taken back, whatever it is called, and an account is never in the log.
    await desk.admin.set_limit("plam", None, None)
    assert len(await desk.ledger.limits()) == 1
    assert not [r for r in caplog.records if "globex" in r.getMessage()]


async def test_budgets_of_policies_are_known() -> None:
    """A budget that stands in a policy is known as soon as that has been seen."""
    of_route, of_all = Budget("$1/hour", name="route"), Budget("$1/hour", name="all")
    rules = Rules(DEFAULT_LADDER, [PLAN], policy(budgets=[of_all]))
    rules.check(policy(budgets=[of_route]))
    assert rules.known() == {"plan": PLAN, "route": of_route, "all": of_all}


# Explained refusals


async def test_every_number_behind_a_refusal() -> None:
    """A person sees each budget then and now, why it refused, what is in flight, and where the money went."""
    desk = Desk(Budget("$9/day", timezone="Europe/Berlin"), PLAN, Budget("$1/24h rolling", per="route", hard=False))
    await desk.spend(NANO, "acme", "haiku", "/chat")
    await desk.spend(NANO // 2, "acme", "haiku", "/answer")
    await desk.spend(NANO // 4, "globex", "haiku", "/chat")
    held = await desk.hold(NANO // 10)
    refusal = await desk.refused(NANO // 2)
    assert (refusal.tier, refusal.needed) == ("haiku", NANO // 2)
    await desk.ledger.settle(held, NANO // 10)
    desk.now += 75
    await desk.hold(NANO // 100)
    await desk.admin.set_limit("plan", "acme", "$20")
    found = await desk.admin.explain(BudgetExceededError(refusal))
    assert found.refusal is refusal
    assert found.fits_now
    day, plan, route = found.budgets
    assert (plan.then.limit, plan.then.spent, plan.then.held) == (2 * NANO, 1_500_000_000, 300_000_000)
    assert (plan.now.limit, plan.now.spent, plan.now.held) == (20 * NANO, 1_600_000_000, 30_000_000)
    assert (plan.then.remaining, plan.set, day.set) == (200_000_000, True, False)
    assert [each.refuses(refusal.needed) for each in found.budgets] == [False, True, False]
    assert (day.then.renews_at, day.now.renews_at) == (NOON + 11 * HOUR, NOON + 11 * HOUR)
    assert route.now.renews_at == NOON + 24 * 60 + DAY  # a sixtieth of a day
    assert [hold.id for hold in found.holds] == ["k6"]
    assert found.history is not None
    assert found.history.total.cost == 1_600_000_000
    assert str(found).splitlines() == [
        "refused by budget 'plan', account 'acme'",
        "  when          2026-11-21 12:10:00 UTC, 1 min 15 s ago",
        "  needed        $0.50 at most, for haiku",
        "  had room for  $0.20",
        "  renews        2026-11-22 00:00:00 UTC, 11 h 48 min from now",
        "  now           such a call fits",
        "",
        "every budget of the call, as it stood then and stands now",
        "  budget                    account         limit  spent   held    room   share  renews",
        (
            "  $9/day                    global   then   $9.00  $1.75  $0.30   $6.95   22.8%  2026-11-21 23:00:00 UTC, "
            "10 h 48 min from now"
        ),
        (
            "                                     now    $9.00  $1.85  $0.03   $7.12   20.9%  2026-11-21 23:00:00 UTC, "
            "10 h 48 min from now"
        ),
        (
            "  plan                      acme     then   $2.00  $1.50  $0.30   $0.20   90.0%  2026-11-22 00:00:00 UTC, "
            "11 h 48 min from now"
        ),
        (
            "                                     now   $20.00  $1.60  $0.03  $18.37    8.2%  2026-11-22 00:00:00 UTC, "
            "11 h 48 min from now"
        ),
        (
            "  $1/24h rolling per route  /chat    then   $1.00  $1.25  $0.30  -$0.55  155.0%  2026-11-22 12:24:00 UTC, "
            "1 d from now"
        ),
        (
            "                                     now    $1.00  $1.35  $0.03  -$0.38  138.0%  2026-11-22 12:24:00 UTC, "
            "1 d from now"
        ),
        "",
        "  $9/day                    each day in Europe/Berlin      had room",
        (
            "  plan                      each day in UTC                refused: $0.30 short; limit changed since, "
            "from $2.00; limit set at run time"
        ),
        "  $1/24h rolling per route  the last 24h before each call  soft: never refuses",
        "",
        "in flight on this account now: 1, which hold $0.03",
        "  id  account  route  tier  holds    age  lease left",
        "  k6  acme     /chat  opus  $0.03  0.0 s        30 s",
        "",
        "where the money went: tenant acme, in the hours since 2026-11-21 00:00:00 UTC",
        "  route    tier  attempts   cost  overhead",
        "  /chat    opus         2  $1.10     $0.00",
        "  /answer  opus         1  $0.50     $0.00",
        "  total                 3  $1.60     $0.00",
    ]


async def test_a_refusal_whose_window_has_passed() -> None:
    """What stands now is a new window; where the money went is still told of the old one."""
    desk = Desk(PLAN)
    await desk.spend(NANO)
    refusal = await desk.refused(2 * NANO)
    desk.now += DAY
    await desk.spend(NANO // 2)
    found = await desk.admin.explain(refusal)
    (plan,) = found.budgets
    assert (plan.then.spent, plan.now.spent) == (NANO, NANO // 2)
    assert (plan.then.renews_at, plan.now.renews_at) == (NOON + DAY // 2, NOON + DAY + DAY // 2)
    assert found.history is not None
    assert [row.cost for row in found.history.rows] == [NANO]
    assert not found.fits_now
    desk.now += DAY
    found = await desk.admin.explain(refusal)
    assert (found.budgets[0].now.spent, found.budgets[0].now.renews_at) == (0, NOON + 2 * DAY + DAY // 2)
    assert found.fits_now
    assert "2026-11-22 00:00:00 UTC, 1 d 12 h ago" in str(found)


@pytest.mark.parametrize(
    ("budget", "spender", "cost"),
    [
        (Budget("$1/day"), "all spend of this store", 12),
        (Budget("$1/hour", per="route"), "route /chat", 9),
        (Budget("$1", per="tenant"), "tenant acme", 10),
        (Budget("$1/48h rolling", per="tenant"), "tenant acme", 10),
        (Budget("$1", per="request"), "", None),
        (Budget("$1", per=lambda _: "vip"), "", None),
    ],
)
async def test_whose_money_it_was(budget: Budget, spender: str, cost: int | None) -> None:
    """Spend is kept by tenant and route: what other accounts spent it on is not known, and is said so."""
    desk = Desk(budget)
    await desk.spend(2, "acme", "haiku", "/answer")
    await desk.spend(8, "acme", "haiku", "/chat")
    await desk.spend(1, "globex", "haiku", "/chat")
    await desk.spend(1, "globex", "haiku", "/answer")
    refusal = await desk.refused()
    found = await desk.admin.explain(refusal)
    assert (found.spender, found.history and found.history.total.cost) == (spender, cost)
    assert ("is not kept" in str(found)) is (cost is None)
    # A script does not know `per`, and goes by the names.
    script = await desk.of().explain(refusal)
    assert script.spender == spender


async def test_a_call_without_a_bound() -> None:
    """A call that a hard budget cannot bound is refused for that, now as then, and every hard budget says so."""
    desk = Desk(PLAN, Budget("$1/day", hard=False))
    lines = [b.line("acme") for b in desk.budgets]
    refusal = await desk.ledger.reserve("k", [Offer("opus", "m", None, unbounded="max_tokens is missing")], lines)
    found = await desk.admin.explain(refusal)  # type: ignore[arg-type]
    assert not found.fits_now
    shown = str(found)
    assert "needed  no bound: max_tokens is missing" in shown
    assert "refused: hard, and the call has no bound" in shown
    assert "soft: never refuses" in shown


async def test_a_budget_that_never_renews() -> None:
    """A total says so."""
    desk = Desk(Budget("$1"))
    shown = str(await desk.admin.explain(await desk.refused(2 * NANO)))
    assert "renews        never" in shown
    assert "for all time" in shown


async def test_a_refusal_that_knows_little() -> None:
    """A refusal without budgets, of a request that could not be read, is shown as far as it goes."""
    refusal = Refusal("plan", "acme", NANO, 0, 0, None, unbounded="its body is no JSON")
    shown = str(await Desk(PLAN).admin.explain(refusal))
    assert "its body is no JSON" in shown
    assert "every budget" not in shown


async def test_a_plan_that_fails_now(caplog: pytest.LogCaptureFixture) -> None:
    """A function of the app that knows the account no more leaves what the ledger has."""
    plans = {"acme": "$1/day"}
    desk = Desk(Budget(lambda account: plans[account], per="tenant", name="plan"))
    refusal = await desk.refused(2 * NANO)
    plans["acme"] = "$3/day"
    assert (await desk.admin.explain(refusal)).budgets[0].now.limit == 3 * NANO
    del plans["acme"]
    assert (await desk.admin.explain(refusal)).budgets[0].now.limit == NANO


async def test_what_is_no_refusal() -> None:
    """Anything else is an error that says what is taken."""
    with pytest.raises(ConfigurationError, match="BudgetExceededError"):
        await Desk().admin.explain("429")  # type: ignore[arg-type]


async def test_a_refusal_may_travel() -> None:
    """A refusal, its budgets and windows included, can be sent to another process and explained there."""
    desk = Desk(PLAN, Budget("$1/24h rolling"))
    refusal = await desk.refused()
    back = pickle.loads(pickle.dumps(BudgetExceededError(refusal))).refusal  # noqa: S301  (our own)
    assert back == refusal
    assert str(await desk.of().explain(back)) == str(await desk.of().explain(refusal))


# Erasing


async def test_erasing() -> None:
    """An account is erased with its limits and its spend by hour; nobody else is."""
    desk = Desk(PLAN)
    for tenant in ("acme", "globex"):
        await desk.spend(5, tenant)
        await desk.admin.set_limit("plan", tenant, "$3")
    await desk.admin.erase("acme")
    assert [balance.account for balance in await desk.ledger.balances()] == ["globex"]
    assert list(await desk.ledger.limits()) == [("plan", "globex")]
    assert [row.tenant for row in (await desk.admin.history(timedelta(days=1))).rows] == ["globex"]
    with pytest.raises(ConfigurationError, match="an account is text"):
        await desk.admin.erase("")


# On the Router


async def test_a_refused_call_explained(make_router: Callable[..., Router], caplog: pytest.LogCaptureFixture) -> None:
    """The error that an app catches explains itself; no prompt and no key is in it."""
    router = make_router(budgets=[Budget("$0.0001/day", per="tenant", name="plan")])
    with pytest.raises(BudgetExceededError) as caught:
        async with router.bind(tenant="acme", route="/chat"):
            await router.claude.messages.create(
                model="auto", max_tokens=500, messages=[{"role": "user", "content": SECRET}]
            )
    assert caught.value.refusal.tier == "haiku"
    shown = str(await router.explain(caught.value))
    assert "refused by budget 'plan', account 'acme'" in shown
    assert SECRET not in shown + caplog.text
    assert await router.limits() == {}
    await router.set_limit("plan", "acme", limit="$1")
    async with router.bind(tenant="acme", route="/chat"):
        await router.claude.messages.create(model="auto", max_tokens=500, messages=[{"role": "user", "content": "hi"}])
    assert list((await router.history(timedelta(hours=1))).by("account")) == ["acme"]
    assert len(await router.holds()) == 0
    assert [b.limit for b in await router.balances("acme")] == [NANO]
    assert await router.balances("globex") == []
    await router.erase("acme")
    assert (await router.balances(), await router.limits()) == ([], {})


def test_a_script_without_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script asks and sets on the same store, from any thread and loop, without a client or a key."""
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    ledger = MemoryLedger(clock=lambda: NOON)
    desk = Desk(PLAN)
    desk.ledger = ledger
    asyncio.run(desk.spend(7))
    found: list[Any] = []

    async def script() -> None:
        router = Router(ledger=ledger, timing=Timing(now=lambda: NOON))
        await router.set_limit("plan", "acme", limit="$3")
        found.extend([(await router.history(timedelta(days=1))).total.cost, len(await router.holds())])
        await router.aclose()

    thread = threading.Thread(target=asyncio.run, args=(script(),))
    thread.start()
    thread.join()
    assert found == [7, 0]
    assert asyncio.run(ledger.limits()) == {("plan", "acme"): 3 * NANO}


async def test_a_limit_from_another_process(make_router: Callable[..., Router], tmp_path: Path) -> None:
    """A script in a process of its own, on the same store, sees the spend and changes a limit for the next call."""
    store = f"sqlite:///{tmp_path / 'tierline.db'}"
    script = (
        "import asyncio, sys\n"
        "from datetime import timedelta\n"
        "from tierline import Router\n"
        "async def main(store):\n"
        "    router = Router(store=store)\n"
        "    print((await router.history(timedelta(hours=1))).total.attempts)\n"
        "    await router.set_limit('plan', 'acme', limit='$1')\n"
        "    await router.aclose()\n"
        "asyncio.run(main(sys.argv[1]))\n"
    )
    router = make_router(store=store, budgets=[Budget("$0.0001/day", per="tenant", name="plan")])
    ask: dict[str, Any] = {"model": "auto", "max_tokens": 500, "messages": [{"role": "user", "content": "hi"}]}
    async with router.bind(tenant="acme"):
        with pytest.raises(BudgetExceededError) as refused:
            await router.claude.messages.create(**ask)
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script, store], check=True, capture_output=True, text=True
    )
    assert done.stdout == "0\n"
    explained = await router.explain(refused.value)
    assert (explained.fits_now, explained.budgets[0].set, explained.budgets[0].now.limit) == (True, True, NANO)
    async with router.bind(tenant="acme"):
        await router.claude.messages.create(**ask)
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script, store], check=True, capture_output=True, text=True
    )
    assert done.stdout == "1\n"


async def test_refusals_are_logged_once_in_each_window(
    make_router: Callable[..., Router], caplog: pytest.LogCaptureFixture
) -> None:
    """The log tells of the first refusal in each window, also of a rolling one, which never ends."""
    now = [NOON]
    rolling = Budget("$0.0001/24h rolling", name="rolling")
    router = make_router(budgets=[rolling], timing=Timing(now=lambda: now[0]))
    caplog.set_level(logging.WARNING, "tierline")
    for expected in (1, 1, 1, 2):
        for _ in range(3):
            with pytest.raises(BudgetExceededError):
                await router.claude.messages.create(
                    model="auto", max_tokens=500, messages=[{"role": "user", "content": "hi"}]
                )
        assert caplog.text.count("calls are refused") == expected
        now[0] += 4 * HOUR + 1
