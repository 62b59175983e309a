"""What a route has taught, as a choice."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierline import Ladder
from tierline.choice import GRADED, LEARN_AFTER, Lesson, lesson
from tierline.values import Chance, Forecast

LADDER = Ladder.of(a="model-a", b="model-b", c="model-c")
ALL = (0, 1, 2)


def forecast(*chances: tuple[str, float, float]) -> Forecast:
    """Chances as (tier, good, evidence)."""
    return Forecast(tuple(Chance(*chance) for chance in chances), sum(chance[2] for chance in chances))


def learned(*chances: tuple[str, float, float], among: tuple[int, ...] = ALL, quality: float = 0.95) -> Any:
    return lesson(forecast(*chances), LADDER, among, quality, LEARN_AFTER)


def test_the_cheapest_that_is_good_enough() -> None:
    """The cheapest tier that reaches the quality is taken, and the reason has every number."""
    found = learned(("a", 0.93, 21), ("b", 0.95, 0), ("c", 0.96, 20))
    assert found == Lesson(0, 0, 0.93, "a 0.93 of c 0.96 here: 0.97 ≥ 0.95, from 41 outcomes")
    assert learned(("a", 0.93, 21), ("b", 0.95, 0), ("c", 0.96, 20), quality=0.98).place != 0
    assert learned(("a", 0.8, 20), ("b", 0.94, 20), ("c", 0.96, 20)).place == 1


def test_the_dearest_where_none_is_good_enough() -> None:
    """Where all cheaper tiers are known not to be good enough the dearest is taken, graded or not."""
    found = learned(("a", 0.5, 20), ("b", 0.6, 20), ("c", 0.9, 0))
    assert found == Lesson(2, 2, 0.9, "b 0.60 of c 0.90 here: 0.67 < 0.95, from 40 outcomes")


def test_what_is_not_enough_reads_as_less() -> None:
    """A share that two digits would round to the quality has another digit."""
    found = learned(("a", 0.5, 20), ("b", 0.853, 20), ("c", 0.9, 20))
    assert found.reason == "b 0.85 of c 0.90 here: 0.948 < 0.95, from 60 outcomes"


def test_too_few_outcomes_teach_nothing() -> None:
    """A route with fewer outcomes than it takes leaves the choice to those who read the text."""
    assert learned(("a", 0.9, 9), ("c", 0.9, 20)) is None
    assert lesson(None, LADDER, ALL, 0.95, LEARN_AFTER) is None
    assert lesson(Forecast((), 99.0), LADDER, ALL, 0.95, LEARN_AFTER) is None
    assert lesson(forecast(("other", 0.9, 99)), LADDER, ALL, 0.95, LEARN_AFTER) is None


def test_a_tier_that_nobody_graded_is_not_taken_on_a_guess() -> None:
    """However good a model thinks a tier, without outcomes of its own it is not the route that chooses it."""
    found = learned(("a", 0.99, 0), ("b", 0.99, 9), ("c", 0.96, 40))
    assert (found.place, found.least) == (None, 0)
    assert found.reason == "not 10 outcomes here of a cheaper tier that is good enough"


def test_what_nobody_graded_is_no_measure() -> None:
    """A dearest tier that nobody graded may be better than is guessed: half-way to perfect is what it is taken for."""
    found = learned(("a", 0.9, 40), ("b", 0.92, 0), ("c", 0.92, 9))
    assert (found.place, found.least) == (None, 0)
    assert found.reason == "not 10 outcomes here of c or a cheaper tier that is good enough"
    found = learned(("a", 0.93, 40), ("b", 0.94, 0), ("c", 0.94, 9))
    assert found == Lesson(0, 0, 0.93, "a 0.93 of c 0.97 (guessed) here: 0.96 ≥ 0.95, from 49 outcomes")


def test_what_is_known_to_be_too_little_is_left_out() -> None:
    """A tier that has failed here is out; those who read the text choose among the rest."""
    found = learned(("a", 0.3, 40), ("b", 0.9, 0), ("c", 0.9, 0))
    assert (found.place, found.least) == (None, 1)
    assert "a 0.30 of c 0.90 here: 0.33 < 0.95" in found.reason


def test_a_dearer_tier_is_at_least_as_good() -> None:
    """Grades of a cheaper tier that is good enough speak for the tiers above it, and bad ones do not."""
    good = (("a", 0.95, 40), ("b", 0.5, 0), ("c", 0.97, 0))
    assert learned(*good, among=(1, 2)).place == 1
    bad = (("a", 0.5, 40), ("b", 0.95, 0), ("c", 0.97, 0))
    assert learned(*bad, among=(1, 2)).place is None


def test_one_tier_is_no_choice() -> None:
    """What is left is taken, and nobody need be asked."""
    assert learned(("a", 0.5, 40), among=(1,)).place == 1


def test_a_tier_that_is_no_good_at_all() -> None:
    """Where even the best never does, the cheapest is as good."""
    assert learned(("a", 0.0, 20), ("b", 0.0, 20), ("c", 0.0, 20)).place == 0


chances = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "gone"]),
        st.one_of(st.floats(0, 1), st.just(float("nan"))),
        st.floats(0, 200),
    ),
    max_size=5,
)


@given(chances, st.sets(st.sampled_from(ALL)), st.floats(0.01, 1), st.integers(1, 60))
def test_whatever_a_model_says(said: Any, among: set[int], quality: float, after: int) -> None:
    """A place is one of those that may be taken; a cheaper one than the dearest has outcomes that speak for it."""
    places = sorted(among)
    model = forecast(*said)
    found = lesson(model, LADDER, places, quality, after)
    if found is None:
        return
    assert model.evidence + 0.5 >= after
    assert found.least in places
    assert 0 <= found.good <= 1
    if found.place is None or found.place == places[-1]:
        return
    assert found.place in places
    known = {chance.tier: chance for chance in model.chances if chance.good == chance.good}
    behind = [known[LADDER[p].name] for p in range(found.place + 1) if LADDER[p].name in known]
    assert sum(chance.evidence for chance in behind) >= GRADED - 0.5
    top = known.get(LADDER[places[-1]].name, Chance("", 1.0))
    assert found.good >= quality * (top.good if top.evidence >= GRADED - 0.5 else (top.good + 1) / 2)


@pytest.mark.parametrize("quality", [0.5, 0.9, 1.0])
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_more_quality_is_no_cheaper_tier(quality: float, a: float, b: float, c: float) -> None:
    """A stricter quality never takes a cheaper tier than a laxer one."""
    said = (("a", a, 20.0), ("b", b, 20.0), ("c", c, 20.0))
    assert learned(*said, quality=quality).place >= learned(*said, quality=quality / 2).place
