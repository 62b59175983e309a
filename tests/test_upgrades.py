"""How often a text may talk its way up."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierline.errors import ConfigurationError
from tierline.upgrades import WINDOW, Upgrades

if TYPE_CHECKING:
    from collections.abc import Iterable

ROUTE = "/answer"


def call(upgrades: Upgrades, tenant: str | None, wanted: int, route: str | None = ROUTE) -> int:
    """What becomes of a call whose text leads to `wanted`."""
    usual = upgrades.usual(route, tenant)
    taken = wanted if usual is None else min(wanted, usual)
    upgrades.count(route, tenant, taken)
    return taken


def known(share: float = 0.0, calls: int = 400, **options: Any) -> Upgrades:
    """Upgrades of three tiers that know a route: other accounts went above its lowest tier with that share."""
    upgrades = Upgrades(3, **options)
    high = int(share * calls)
    for n in range(calls):
        # Spread out, and so within every bound.
        upgrades.count(ROUTE, f"account {n % 20}", 2 if (n * high) % calls < high else 0)
    return upgrades


def worst(taken: Iterable[int], above: int = 0) -> int:
    """The most upgrades in any stretch of recent length."""
    marks = [place > above for place in taken]
    return max(sum(islice(marks, at, at + WINDOW)) for at in range(max(1, len(marks) - WINDOW + 1)))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
def test_a_flood_is_bounded_by_the_routes_share(share: float) -> None:
    """A new account that always wants the top gets what the route has, and a fifth of its calls more."""
    taken = [call(known_route, "mallory", 2) for known_route in [known(share)] for _ in range(400)]
    # In 400 calls its own share may have moved by what it was let through.
    assert worst(taken[:100]) <= math.ceil((share + 0.2 + 0.12) * WINDOW)
    assert sum(place > 0 for place in taken[:100]) >= (share + 0.1) * 100
    assert sum(place > 0 for place in taken) / 400 <= share + 0.2 + 0.2


@settings(max_examples=60)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=300), st.sampled_from([0.0, 0.1, 0.2, 0.5]))
def test_no_stretch_has_more_than_the_bound(wanted: list[int], most: float) -> None:
    """In any 50 calls of an account, upgrades are at most its share of all times and `most` beyond it."""
    upgrades = known(0.1, most=most)
    taken: list[int] = []
    highest = 0.1
    for place in wanted:
        older = taken[:-WINDOW]
        highest = max(highest, (4 * WINDOW * 0.1 + sum(p > 0 for p in older)) / (4 * WINDOW + len(older)))
        taken.append(call(upgrades, "acme", place))
        assert taken[-1] in (place, 0)
        if taken[-1] > 0:
            assert sum(p > 0 for p in taken[-WINDOW:]) <= (highest + most) * WINDOW + 1e-9


@given(st.lists(st.integers(0, 2), min_size=1, max_size=200))
def test_an_account_that_stays_as_it_was_is_left_alone(pattern: list[int]) -> None:
    """Whoever always asked for much goes on as before: a repeated habit is no upgrade over it."""
    upgrades = known(0.2)
    habit = [2, 0, 0, 0]
    for place in habit * 30:
        assert call(upgrades, "steady", place) == place
    for place in pattern:
        if place == 0:
            assert call(upgrades, "steady", place) == 0


def test_one_account_does_not_make_what_is_usual() -> None:
    """A flood by one account, longer than all that others did, does not move the route's usual tier."""
    upgrades = known(0.0, calls=1_000)
    for _ in range(5_000):
        call(upgrades, "mallory", 2)
    assert upgrades.usual(ROUTE, "fresh") is None
    fresh = [call(upgrades, "fresh", 2) for _ in range(200)]
    assert 0 in fresh


def test_nothing_is_usual_yet() -> None:
    """Before a route has fifty calls, nobody is held to what is usual there; each route is by itself."""
    upgrades = Upgrades(3)
    assert [call(upgrades, None, 2) for _ in range(WINDOW)] == [2] * WINDOW
    assert {call(known(), "acme", 2, route="/other") for _ in range(3)} == {2}


def test_off() -> None:
    """With a bound of one nothing is counted and nothing held."""
    upgrades = known(0.0, most=1.0)
    assert {call(upgrades, "acme", 2) for _ in range(300)} == {2}


def test_none_at_all() -> None:
    """With a bound of zero an account keeps to its share from its first call on."""
    assert {call(known(0.0, most=0.0), "acme", 2) for _ in range(5)} == {0}


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accounts and routes that come once each are forgotten again."""
    monkeypatch.setattr("tierline.upgrades._MOST_ACCOUNTS", 10)
    monkeypatch.setattr("tierline.upgrades._MOST_ROUTES", 5)
    upgrades = Upgrades(3)
    for n in range(100):
        call(upgrades, f"tenant {n}", 1, route=f"/{n}")
    assert (len(upgrades._accounts), len(upgrades._routes)) == (10, 5)


@pytest.mark.parametrize("most", [-0.1, 1.1, True, "0.2", float("nan")])
def test_no_share(most: Any) -> None:
    """What is no share is refused by the name of its argument."""
    with pytest.raises(ConfigurationError, match="max_upgrades"):
        Upgrades(3, most)
