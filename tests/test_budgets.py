from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierline.budgets import (
    Budget,
    Limit,
    Line,
    Window,
    check_budgets,
    is_key,
    parse_limit,
    parse_money,
    run_account,
    within_thresholds,
)
from tierline.errors import ConfigurationError
from tierline.values import NANO, usd


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("$5", 5 * NANO),
        ("$0.50", NANO // 2),
        (" $1,000 ", 1000 * NANO),
        ("$1,000,000.25", 1_000_000 * NANO + NANO // 4),
        ("$0.000000001", 1),
        ("$1000000000", NANO * NANO),
    ],
)
def test_money_is_read(text: str, nano: int) -> None:
    """Dollars, with commas and up to nine decimals, are whole nano-USD."""
    assert parse_money(text) == nano


@pytest.mark.parametrize(
    "text",
    [
        "abc", "", "$", "5", "5 USD", "€5", "$-5", "-$5", "$0", "$0.00", "$NaN", "$inf", "$1e3", "$.5", "$5.", "$1,00",
        "$0.0000000001", "$1.0000000001", "$1,000,000,000.01", "$" + "9" * 5000, "$٥", "$1_000", "$5 $5", 5, 5.0, None,
        True,
    ],
)  # fmt: skip
def test_money_that_is_none(text: object) -> None:
    """What is no amount is refused with the text itself and an example, in a message of bounded length."""
    with pytest.raises(ConfigurationError) as caught:
        parse_money(text)
    assert repr(text)[:40] in str(caught.value)
    assert "$" in str(caught.value)
    assert len(str(caught.value)) < 300


@given(st.integers(1, NANO * NANO))
def test_money_is_read_back(nano: int) -> None:
    """What is shown as dollars reads back as the same nano-USD."""
    assert parse_money(usd(nano)) == nano


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("$5/day", Limit(5 * NANO, Window("day"))),
        ("$2 / hour", Limit(2 * NANO, Window("hour"))),
        ("$0.1/minute", Limit(NANO // 10, Window("minute"))),
        (" $100/month ", Limit(100 * NANO, Window("month"))),
        ("$5", Limit(5 * NANO, Window("total"))),
        ("$5/24h rolling", Limit(5 * NANO, Window("rolling", seconds=86_400))),
        (" $5 / 90m  rolling ", Limit(5 * NANO, Window("rolling", seconds=5_400))),
    ],
)
def test_limits_are_read(text: str, limit: Limit) -> None:
    """An amount over a unit of the calendar, or in total."""
    assert parse_limit(text) == limit


@pytest.mark.parametrize("unit", ["minute", "hour", "day", "month"])
def test_limits_in_a_time_zone(unit) -> None:
    """Units of the calendar are those of the time zone; the last hours and a total are the same everywhere."""
    assert parse_limit(f"$5/{unit}", "Asia/Kolkata") == Limit(5 * NANO, Window(unit, "Asia/Kolkata"))
    assert parse_limit("$5/24h rolling", "Asia/Kolkata") == parse_limit("$5/24h rolling")
    assert parse_limit("$5", "Asia/Kolkata") == parse_limit("$5")


@pytest.mark.parametrize(
    "text",
    [
        "$5/week",
        "$5/",
        "$5/rolling",
        "$5/24 rolling",
        "$5 24h rolling",
        "$5/total",
        "$5/day/day",
        "/day",
        "$5/Day",
        "$5/hours",
        5,
        None,
    ],
)
def test_limits_that_are_none(text: object) -> None:
    """What is no limit is refused with the text itself."""
    with pytest.raises(ConfigurationError, match="write for example"):
        parse_limit(text)


@pytest.mark.parametrize(
    ("budget", "name"),
    [
        (Budget("$5/day"), "$5/day"),
        (Budget("$2 / hour", per="tenant"), "$2/hour per tenant"),
        (Budget(usd, per=len), "usd per len"),
        (Budget("$5", name="mine"), "mine"),
        (Budget("$5/24h rolling"), "$5/24h rolling"),
        (Budget("$5 / 24h  rolling", per="tenant"), "$5/24h rolling per tenant"),
    ],
)
def test_names(budget: Budget, name: str) -> None:
    """A budget without a name has one that says what it is."""
    assert budget.name == name


@pytest.mark.parametrize(
    ("words", "culprit"),
    [
        ({"amount": "5/day"}, "5/day"),
        ({"amount": 5}, "5"),
        ({"per": "user"}, "user"),
        ({"per": []}, "per="),
        ({"downgrade_at": 0.0}, "downgrade_at"),
        ({"downgrade_at": 1.1}, "downgrade_at"),
        ({"cheapest_at": float("nan")}, "cheapest_at"),
        ({"cheapest_at": "0.9"}, "cheapest_at"),
        ({"downgrade_at": 0.95}, "above cheapest_at"),
        ({"name": "x" * 300}, "name="),
        ({"name": "a\nb"}, "name="),
        ({"amount": "$5/0h rolling"}, "at least 1m"),
        ({"amount": "$5/24 rolling"}, "24h rolling"),
        ({"timezone": "Berlin"}, "'Berlin' is no time zone"),
        ({"timezone": "../../etc/passwd"}, "is no time zone"),
        ({"timezone": ""}, "is no time zone"),
        ({"timezone": None}, "None is no time zone"),
        ({"timezone": 5, "amount": len}, "5 is no time zone"),
        ({"alert_at": (0.0,)}, "alert_at"),
        ({"alert_at": (1.1,)}, "alert_at"),
        ({"alert_at": (0.8, 0.5)}, "each higher than the one before"),
        ({"alert_at": (0.8, 0.8)}, "each higher than the one before"),
        ({"alert_at": 0.8}, "alert_at"),
        ({"alert_at": None}, "alert_at"),
        ({"alert_at": ("0.8",)}, "alert_at"),
        ({"alert_at": (True,)}, "alert_at"),
        ({"alert_at": (float("nan"),)}, "alert_at"),
        ({"alert_at": tuple(number / 100 for number in range(1, 32))}, "at most 30"),
    ],
)
def test_budgets_name_what_is_wrong(words: dict[str, object], culprit: str) -> None:
    """Configuration errors come when the budget is made, and name the culprit."""
    with pytest.raises(ConfigurationError, match=culprit):
        Budget(**({"amount": "$5/day"} | words))


def test_budgets_are_hashable_values() -> None:
    """Equal words make equal budgets, and policies can carry them."""
    assert Budget("$5/day", per="tenant") == Budget("$5/day", per="tenant")
    assert len({Budget("$5/day"), Budget("$5/day"), Budget("$6/day")}) == 2


def test_line() -> None:
    """A line has what a ledger needs, and is made once for each account."""
    budget = Budget("$5/day", per="tenant", hard=False)
    assert budget.line("acme") is budget.line("acme")
    assert budget.line("acme") == Line(
        "$5/day per tenant", "acme", 5 * NANO, Window("day"), False, 0.7, 0.9, (0.8, 1.0)
    )
    assert hash(budget.line("acme")) == hash(Budget("$5/day", per="tenant", hard=False).line("acme"))


def test_alerts() -> None:
    """Alerts are the least amounts at or above the shares; none is well too, and a list is taken as it is meant."""
    assert Budget("$5/day", alert_at=(0.5, 1.0)).line("acme").alerts == (5 * NANO // 2, 5 * NANO)
    assert Budget("$5/day", alert_at=()).line("acme").alerts == ()
    assert Budget("$5/day", alert_at=[0.8]) == Budget("$5/day", alert_at=(0.8,))
    assert hash(Budget("$5/day", alert_at=[0.8])) == hash(Budget("$5/day", alert_at=(0.8,)))
    assert Line("b", "a", 3, Window("day"), alert_at=(0.1, 0.5, 1)).alerts == (1, 2, 3)


def test_limited() -> None:
    """Under another limit thresholds and alerts move, and nothing else does."""
    ours = Budget("$5/day", name="b").line("acme")
    more = ours.limited(10 * NANO)
    assert (more.limit, more.downgrade_from, more.cheapest_from) == (10 * NANO, 7 * NANO, 9 * NANO)
    assert (more.alerts, more.budget, more.account) == ((8 * NANO, 10 * NANO), "b", "acme")
    assert (more.window, more.hard) == (ours.window, ours.hard)
    assert ours.limited(5 * NANO) is ours
    assert ours.softened.limited(10 * NANO) == more.softened
    assert not more.softened.hard


def test_budgets_in_a_time_zone() -> None:
    """The calendar of a budget is that of its time zone, also where the amount is a plan."""
    assert Budget("$5/day", timezone="Asia/Kolkata").line("acme").window == Window("day", "Asia/Kolkata")
    plan = Budget(lambda account: "$5/month", timezone="Asia/Kolkata", name="plan")
    assert plan.line("acme").window == Window("month", "Asia/Kolkata")
    with pytest.raises(ConfigurationError, match="give one of them another name"):
        check_budgets([Budget("$5/day"), Budget("$5/day", timezone="Asia/Kolkata")])


def test_plans() -> None:
    """The amount may be a function of the account, asked anew each time."""
    plans = {"free": "$1/day", "pro": "$100/month"}
    budget = Budget(plans.__getitem__, per="tenant", name="plan")
    assert budget.line("free").limit == NANO
    assert budget.line("pro").window == Window("month")
    plans["free"] = "$2/day"
    assert budget.limit_of("free") == Limit(2 * NANO, Window("day"))
    assert Budget("$5").limit_of("anyone") == Limit(5 * NANO, Window("total"))


@pytest.mark.parametrize("nonsense", [None, "", "free", 5, "$0/day", float("nan")])
def test_a_plan_that_is_nonsense(nonsense: object) -> None:
    """An amount that cannot be read names budget and account, and nobody goes unmetered."""
    budget = Budget(lambda account: nonsense, per="tenant", name="plan")
    with pytest.raises(ConfigurationError, match="budget 'plan', account 'acme'"):
        budget.line("acme")


@pytest.mark.parametrize(
    ("per", "account"),
    [
        (None, "global"),
        ("tenant", "acme"),
        ("route", "/chat"),
        ("request", "r1"),
        (lambda scope: scope["user"], "ada"),
        (lambda scope: None, "default"),
        (lambda scope: "", "default"),
    ],
)
def test_accounts(per, account: str) -> None:
    """Each word finds its account, and no account means the default one."""
    budget = Budget("$5", per=per)
    assert budget.account_of({"user": "ada"}, tenant="acme", route="/chat", request="r1") == account


def test_an_account_without_a_request() -> None:
    """Outside of requests there is no scope to ask a function about, and it is not called."""
    assert Budget("$5", per=len).account_of(None, tenant="acme", route="/", request="r1") == "default"


def test_first_request_unknown_tenant() -> None:
    """Who cannot be told apart shares one account, which has the limit as all others."""
    budget = Budget("$5/day", per="tenant")
    assert budget.account_of({}, tenant=None, route=None, request="r1") == "default"
    assert budget.line("default").limit == 5 * NANO


@pytest.mark.parametrize("account", [5, b"ada", "a\x00b", "x" * 201, ["ada"]])
def test_accounts_that_are_no_text(account: object) -> None:
    """An account that could not be a key is an error that names the budget."""
    with pytest.raises(ConfigurationError, match="budget 'mine'"):
        Budget("$5", per=lambda scope: account, name="mine").account_of({}, tenant=None, route=None, request="r1")


def test_two_budgets_of_one_name() -> None:
    """Different budgets may not share a name; the same budget twice is no harm."""
    check_budgets([Budget("$5/day"), Budget("$5/day"), Budget("$5/hour")])
    with pytest.raises(ConfigurationError, match="'mine'"):
        check_budgets([Budget("$5/day", name="mine"), Budget("$6/day", name="mine")])


def line(limit: int, downgrade: float | None = 0.7, cheapest: float | None = 0.9, name: str = "b") -> Line:
    return Line(name, "a", limit, Window("day"), True, downgrade, cheapest)


@pytest.mark.parametrize(
    ("offers", "used", "start"),
    [
        (3, 0, 0), (3, 69, 0), (3, 70, 1), (3, 89, 1), (3, 90, 2), (3, 500, 2),
        (2, 70, 1), (2, 90, 1), (1, 90, 0), (1, 70, 0), (0, 90, 0),
    ],
)  # fmt: skip
def test_thresholds(offers: int, used: int, start: int) -> None:
    """From the first threshold the tier asked for is left out, from the second all but the cheapest; one stays."""
    assert within_thresholds(offers, [(line(100), used)]) == (start, "b" if start else "")


def test_thresholds_of_several_lines() -> None:
    """The strictest line decides and is named, a soft one too; a threshold of None is never met."""
    soft = Line("soft", "a", 10, Window("day"), False, 0.5, 0.6)
    assert within_thresholds(3, [(line(100), 75), (soft, 6)]) == (2, "soft")
    assert within_thresholds(3, [(soft, 6), (line(100), 75)]) == (2, "soft")
    assert within_thresholds(3, [(line(100, None, None), 1000)]) == (0, "")
    assert within_thresholds(3, [(line(100, 0.7, None), 1000)]) == (1, "b")
    assert within_thresholds(3, []) == (0, "")


@given(st.integers(1, 10**18), st.integers(1, 1000), st.integers(-2, 2))
def test_thresholds_are_exact(limit: int, thousandths: int, off: int) -> None:
    """A share of 0.7 is seven tenths and not the float near it, at any size of money."""
    used = limit * thousandths // 1000 + off
    start, _ = within_thresholds(2, [(line(limit, thousandths / 1000, None), used)])
    assert bool(start) == (Fraction(used, limit) >= Fraction(thousandths, 1000))


def test_a_run_is_an_account() -> None:
    """Of its tenant; a request that says no run is one by itself. An amount alone counts as long as a run lasts."""
    budget = Budget("$5", per="run")
    whose = {"scope": {}, "tenant": "acme", "route": "/chat", "request": "r1"}
    assert budget.account_of(**whose) == "r1"
    assert budget.account_of(**whose, run="job") == run_account("acme", "job")
    assert run_account("a/b", "c~d") == "a~1b/c~d"
    assert run_account(None, "x/y~z") == "x~1y~0z"
    assert run_account("a/b", "c") != run_account("a", "b/c")
    assert budget.line("r1").window.unit == "run"
    assert budget.line("r1").limit == 5 * NANO
    assert Budget("$5/day", per="run").line("r1").window == Window("day")
    assert Budget("$5", per="tenant").line("acme").window == Window("total")


def test_names_of_functions() -> None:
    """A function has its own name in that of its budget, an object the name of its class."""

    class Plan:
        def __call__(self, account: str) -> str:
            return "$5/day"

    assert Budget(usd, per=len).name == "usd per len"
    assert Budget(Plan(), per="tenant").name == "Plan per tenant"
    assert Budget(" $5  / day", per=len).name == "$5/day per len"
    assert Budget(Plan(), per="tenant").line("acme").account == "acme"


def test_what_is_just_allowed() -> None:
    """Both thresholds at one share, as many alerts as there may be, a name as long as it may be."""
    alerts = tuple((number + 1) / 30 for number in range(30))
    budget = Budget("$5", name="x" * 200, downgrade_at=0.5, cheapest_at=0.5, alert_at=alerts)
    assert len(budget.line("global").alerts) == 30
    assert budget.line("global").alarm_from == NANO * 5 // 2
    for words, culprit in (
        ({"alert_at": (0.01, *alerts)}, "at most 30"),
        ({"name": "x" * 201}, "at most 200"),
        ({"downgrade_at": 2}, " downgrade_at=2"),
        ({"cheapest_at": 2}, " cheapest_at=2"),
    ):
        with pytest.raises(ConfigurationError, match=culprit):
            Budget("$5", **words)
    assert is_key("x" * 200)
    assert not is_key("x" * 201)
    assert not is_key("")
