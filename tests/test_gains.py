"""What speculating is expected to bring, and the rates that say so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierline import Router
from tierline.errors import ConfigurationError
from tierline.gains import LEAST_ANSWERS, LEAST_VERDICTS, MOST_AT_ONCE, Bet, Gains, Rates, against, bet

KNOWN = Rates(verdicts=30, cheap=0.75, verdict_s=0.6, answers=10, answer_s=2.0)


def test_the_shorter_of_both_is_gained() -> None:
    """What is gained is the shorter of verdict and answer, as often as the verdict leads to the cheapest tier."""
    assert bet(KNOWN, 100_000) == Bet(0.75 * 0.6, 25_000)
    assert bet(KNOWN._replace(answer_s=0.2), 100_000) == Bet(pytest.approx(0.75 * 0.2), 25_000)  # type: ignore[arg-type]
    assert Bet(0.45, 25_000).worth(1_000_000) == 450_000


def test_what_was_lost_counts_where_it_was_seen() -> None:
    """The cost of a lost one is what it would be here, until enough have been lost on the route."""
    seen = KNOWN._replace(lost=LEAST_ANSWERS, lost_cost=40_000)
    assert bet(seen, 100_000) == Bet(0.75 * 0.6, 10_000)
    assert bet(seen._replace(lost=LEAST_ANSWERS - 1), 100_000) == bet(KNOWN, 100_000)


@pytest.mark.parametrize("little", [{"verdicts": LEAST_VERDICTS - 1}, {"answers": LEAST_ANSWERS - 1}])
def test_too_little_is_known(little: dict[str, float]) -> None:
    """A route that has shown too little is not bet on, and the numbers are told."""
    rates = KNOWN._replace(**little)  # type: ignore[arg-type]
    assert bet(rates, 1) is None
    assert against(rates, 1, 10**9).startswith("too little is known here: ")


def test_worth_its_price() -> None:
    """It is worth it where the seconds that are gained are worth more than what is expected to be lost."""
    assert against(KNOWN, 100_000, 1_000_000) == ""
    assert against(KNOWN, 100_000, 50_000) == (
        "it would gain 0.45 s, worth $0.000022, for $0.000025: 75% of verdicts lead to the cheapest tier"
    )
    always = KNOWN._replace(cheap=1.0)
    assert against(always, 10**12, 1_000) == ""
    assert against(KNOWN._replace(cheap=0.0), 0, 10**9) != ""


@given(
    st.floats(0, 1), st.floats(0, 60), st.floats(0, 60), st.integers(0, 10**10), st.integers(1, 10**9), st.floats(0, 1)
)
def test_more_hits_never_speak_against_it(
    cheap: float, verdict: float, answer: float, loss: int, second: int, more: float
) -> None:
    """What is worth it stays so where verdicts lead there more often, and where a lost one costs less."""
    rates = Rates(30, cheap, verdict, 10, answer)
    if not against(rates, loss, second):
        better = rates._replace(cheap=cheap + more * (1 - cheap))
        assert not against(better, loss, second)
        assert not against(rates, loss // 2, second)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 100)), min_size=1, max_size=200))
def test_rates_are_means_of_the_latest(seen: list[tuple[bool, float]]) -> None:
    """Up to fifty verdicts are a plain mean; then old ones fade, and no mean leaves what was seen."""
    rates = Rates()
    for cheap, seconds in seen:
        rates = rates.judged(cheap=cheap, seconds=seconds)
    assert rates.verdicts == min(len(seen), 50)
    if len(seen) <= 50:
        assert rates.cheap == pytest.approx(sum(cheap for cheap, _ in seen) / len(seen))
        assert rates.verdict_s == pytest.approx(sum(seconds for _, seconds in seen) / len(seen), abs=1e-6)
    times = [seconds for _, seconds in seen]
    assert min(times) - 1e-6 <= rates.verdict_s <= max(times) + 1e-6
    assert -1e-9 <= rates.cheap <= 1 + 1e-9


def test_a_route_that_changes_is_seen() -> None:
    """After as many verdicts as are remembered, what was before weighs less than half."""
    rates = Rates()
    for _ in range(500):
        rates = rates.judged(cheap=True, seconds=1.0).answered(1.0).lost_for(100)
    for _ in range(50):
        rates = rates.judged(cheap=False, seconds=3.0).answered(3.0).lost_for(300)
    assert rates.cheap < 0.5
    assert rates.verdict_s > 2
    assert rates.answer_s > 2
    assert rates.lost_cost > 200


def test_routes_and_streams_are_apart() -> None:
    """What a route shows is known of no other, and of its streams not what whole answers take."""
    gains = Gains()
    gains.learn("/a", lambda rates: rates.answered(5.0), streamed=False)
    assert gains.of("/a", streamed=False).answer_s == 5.0
    assert gains.of("/a", streamed=True) == gains.of("/b", streamed=False) == Rates()


def test_only_so_many_at_once() -> None:
    """Places are bounded, and given back."""
    gains = Gains()
    assert all(gains.begin() for _ in range(MOST_AT_ONCE))
    assert not gains.begin()
    gains.end()
    assert gains.begin()


@pytest.mark.parametrize("wrong", ["", "0.001", "$0", "-$1", "$1/hour", None, 5])
def test_what_a_second_is_worth(wrong: object) -> None:
    """What is no amount of money is refused where the Router is made, by the name of the argument."""
    with pytest.raises(ConfigurationError, match="second_worth"):
        Router(second_worth=wrong)  # type: ignore[arg-type]
    assert Router(second_worth="$0.25").gains.second == 250_000_000
