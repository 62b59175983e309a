"""Every account of every budget: sorted, searched, page by page."""

from __future__ import annotations

from tierline.budgets import Budget
from tierline.dashboard.accounts import Accounts, untouched, with_untouched
from tierline.ledger import Balance, Fullest

LIMIT = 1_000
NOW = 1_795_262_400.0


def balance(account: str, spent: int, held: int = 0, budget: str = "each") -> Balance:
    return Balance(budget, account, spent, held, LIMIT, None)


ALL = [balance(f"t{n:05}", n % 997, held=n % 3) for n in range(10_000)]
ACCOUNTS = Accounts.of(NOW, ALL, {("each", "t00007"): 5, ("other", None): 7})


def names(found: dict[str, object]) -> list[str]:
    rows = found["rows"]
    assert isinstance(rows, list)
    return [row["account"] for row in rows]


def test_every_account_is_on_one_page() -> None:
    """Turned over from the first to the last, nobody is missing and nobody is there twice, in each order."""
    for sort in ("share", "spent", "name"):
        seen = [name for offset in range(0, 10_200, 200) for name in names(ACCOUNTS.page("", "", sort, offset, 200))]
        assert sorted(seen) == [each.account for each in ALL]
    assert ACCOUNTS.page()["total"] == 10_000


def test_orders() -> None:
    """By what is spent and held of the limit, by what is spent, and by name."""
    of = Accounts.of(NOW, [balance("b", 1, 5), balance("A", 3), balance("c", 2), balance("a", 3)], {})
    assert names(of.page()) == ["b", "A", "a", "c"]
    assert names(of.page(sort="spent")) == ["A", "a", "c", "b"]
    assert names(of.page(sort="name")) == ["A", "a", "b", "c"]


def test_a_search() -> None:
    """Any part of a name, in any case; of one budget or of all."""
    of = Accounts.of(NOW, [balance("Straße", 1), balance("acme", 2), balance("acme", 3, budget="month")], {})
    assert names(of.page("STRASSE")) == ["Straße"]
    assert of.page("cm")["total"] == 2
    assert of.page("cm", "month")["total"] == 1
    assert of.page("none") == {"total": 0, "rows": []}


def test_a_row() -> None:
    """Money is text of an integer, and what an operator has set is marked."""
    (row,) = ACCOUNTS.page("t00007")["rows"]
    assert row == {
        "budget": "each", "account": "t00007", "hard": True, "window": "total", "limit": "1000", "spent": "7",
        "held": "1", "estimated": "0", "share": 0.008, "renews_at": None, "burn": None, "forecast": None,
        "runs_out_at": None, "overridden": True,
    }  # fmt: skip
    assert not any(row["overridden"] for row in ACCOUNTS.page("t00008")["rows"])


def test_the_first_page_of_the_fullest() -> None:
    """It is told without reading all accounts; for whatever else somebody wants, all are read."""
    fullest = ACCOUNTS.balances[:50]
    some = Accounts(NOW, fullest, 10_000, ACCOUNTS.limits)
    assert some.page(most=50) == ACCOUNTS.page(most=50)
    assert some.page(offset=40, most=10) == ACCOUNTS.page(offset=40, most=10)
    usual = ("", "", "share")
    assert some.suffice(*usual, 40, 10)
    for search, budget, sort, offset in (
        ("t", *usual[1:], 0),
        ("", "each", "share", 0),
        ("", "", "name", 0),
        (*usual, 41),
    ):
        assert not some.suffice(search, budget, sort, offset, 10)
        assert Accounts(NOW, fullest, 50, {}).suffice(search, budget, sort, offset, 10)


def test_budgets_that_a_ledger_does_not_know_are_among_all() -> None:
    """They are counted, and told where there is room: as many are told as the ledger tells, or all."""
    missing = [balance("global", 0, budget="day"), balance("global", 0, budget="month")]
    all_told = Fullest(tuple(ALL[1:3]), 2, frozenset({"each"}))
    assert with_untouched(all_told, missing) == ((ALL[2], ALL[1], *missing), 4)
    some_told = Fullest((ALL[2], ALL[0]), 10, frozenset({"each"}))
    assert with_untouched(some_told, missing) == ((ALL[2], missing[0]), 12)


def test_budgets_of_which_nothing_is_spent() -> None:
    """One for all is on the page from the start, under the limit that holds; those for each tenant have no tenants."""
    broken = Budget(lambda _: "nonsense", name="broken")
    budgets = [broken, Budget("$5/day"), Budget("$1", name="all"), Budget("$2/hour", per="tenant"), Budget("$3/month")]
    there = {"$3/month"}
    day, total = untouched(budgets, there, {("$5/day", None): 7}, NOW)
    assert (day.budget, day.account, day.limit, day.renews_at) == ("$5/day", "global", 7, NOW + 43_200)
    assert (total.budget, total.limit, total.renews_at, total.window) == ("all", 10**9, None, "total")
