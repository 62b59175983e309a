"""P(good enough | route, tier, request): what it holds to, whatever outcomes come, in whatever order."""

from __future__ import annotations

import random
from math import isfinite, log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierline.errors import ConfigurationError
from tierline.learn import Evidence, Outcome, OutcomeModel
from tierline.learn.lessons import ROUTES

TIERS = ("haiku", "sonnet", "opus")
DAY = 86_400.0
QUESTIONS = (
    "Are you open on Sundays?",
    "Prove that there are infinitely many primes of the form 4k + 3.",
    "Translate 'good morning' to French.",
    "Summarise the attached contract, and list every clause that limits our liability.",
    "What is 17 times 23?",
    "",
)
OUTCOMES = st.builds(
    Outcome,
    route=st.sampled_from(("/answer", "/prove", "/sum")),
    text=st.sampled_from(QUESTIONS),
    tier=st.sampled_from(TIERS),
    good=st.booleans() | st.floats(0, 1),
    tools=st.integers(0, 3),
    weight=st.sampled_from((0.2, 1.0, 5.0)),
)


class Clock:
    """Seconds since the epoch, as the test has them."""

    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def taught(outcomes, **options) -> OutcomeModel:
    model = OutcomeModel(clock=Clock(), **options)
    for outcome in outcomes:
        model.observe(outcome)
    return model


def evidence_of(outcome: Outcome, clock: Clock) -> Evidence:
    features = OutcomeModel(clock=clock).features(outcome.text, outcome.tools)
    return Evidence("id", outcome.route, outcome.tier, float(outcome.good), features, weight=outcome.weight, at=clock())


def chances(model, route="/answer", text=QUESTIONS[0], tools=0) -> list[float]:
    return list(model.predict(route=route, text=text, tools=tools).values())


def odds(chance: float) -> float:
    return log(chance / (1 - chance))


@given(st.text(max_size=200), st.integers(0, 20))
@settings(max_examples=60, deadline=None)
def test_the_cold_start_rises_with_the_tier(text, tools):
    """With no outcomes no tier is thought worse than a cheaper one, and nothing is claimed to be known."""
    found = OutcomeModel(clock=Clock()).forecast("/answer", text, tools)
    good = [chance.good for chance in found.chances]
    assert [chance.tier for chance in found.chances] == list(TIERS)
    assert good == sorted(good)
    assert all(0 < each < 1 for each in good)
    assert found.evidence == found.familiar == 0


@given(st.lists(OUTCOMES, max_size=25), st.text(max_size=100), st.sampled_from(("/answer", "/new")))
@settings(max_examples=40, deadline=None)
def test_chances_are_probabilities(outcomes, text, route):
    """Whatever was learned, of any text, every chance is above 0 and below 1, and every measure is in its range."""
    found = taught(outcomes).forecast(route, text)
    assert all(0 < chance.good < 1 and chance.evidence >= 0 for chance in found.chances)
    assert found.evidence == pytest.approx(sum(chance.evidence for chance in found.chances))
    assert 0 <= found.familiar < 1


@given(st.lists(OUTCOMES, max_size=15), st.sampled_from(TIERS), st.sampled_from(QUESTIONS), st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_good_outcomes_never_lower_a_tier_where_they_were_seen(outcomes, tier, text, more):
    """More good answers of a tier to a request on a route never make it less likely to be good enough there."""
    good = [Outcome("/answer", text, tier, good=True)] * more
    before = OutcomeModel(clock=Clock()).fit(outcomes).predict(route="/answer", text=text)[tier]
    after = OutcomeModel(clock=Clock()).fit([*outcomes, *good]).predict(route="/answer", text=text)[tier]
    assert after >= before - 0.005


@given(st.lists(OUTCOMES, min_size=2, max_size=30), st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_the_order_of_evidence_does_not_matter(outcomes, chosen):
    """Workers that absorb the same evidence in any order come to about the same chances, and at rest to the same."""
    clock = Clock()
    evidence = [evidence_of(outcome, clock) for outcome in outcomes]
    fitted = OutcomeModel(clock=clock).fit(outcomes)
    for _ in range(2):
        chosen.shuffle(evidence)
        worker = OutcomeModel(clock=clock)
        for each in evidence:
            worker.absorb(each)
        for nearly in (0.1, 0.005):
            for route in ("/answer", "/prove", "/new"):
                for text in QUESTIONS:
                    assert chances(worker, route, text) == pytest.approx(chances(fitted, route, text), abs=nearly)
                assert worker.forecast(route, "").evidence == pytest.approx(fitted.forecast(route, "").evidence)
            worker.settle()


def test_observed_and_fitted_agree():
    """Hundreds of outcomes that come one by one lead about where fitting all of them leads, and at rest to there."""
    rng = random.Random(3)  # noqa: S311
    outcomes = [
        Outcome(route, f"{rng.choice(QUESTIONS)} {rng.randrange(9)}", tier, good=rng.random() < share)
        for route, share in (("/answer", 0.9), ("/prove", 0.3))
        for tier in TIERS
        for _ in range(80)
    ]
    fitted = OutcomeModel(clock=Clock()).fit(outcomes)
    rng.shuffle(outcomes)
    observed = taught(outcomes)
    asked = [(route, text) for route in ("/answer", "/prove", "/new") for text in QUESTIONS]
    expected = [chance for each in asked for chance in chances(fitted, *each)]
    off = [
        abs(chance - e) for chance, e in zip((c for a in asked for c in chances(observed, *a)), expected, strict=True)
    ]
    assert sum(off) / len(off) < 0.03
    observed.settle()
    assert [chance for each in asked for chance in chances(observed, *each)] == pytest.approx(expected, abs=0.005)


def test_a_route_learns_what_its_tiers_are_good_for():
    """What is often good enough on a route becomes likely there, and what is not becomes unlikely."""
    outcomes = [Outcome("/answer", f"Question {n}?", "haiku", good=True) for n in range(40)]
    outcomes += [Outcome("/prove", f"Question {n}?", "haiku", good=n % 10 == 0) for n in range(40)]
    outcomes += [Outcome("/prove", f"Question {n}?", "opus", good=n % 10 != 0) for n in range(40)]
    model = OutcomeModel(clock=Clock()).fit(outcomes)
    assert model.predict(route="/answer", text="Question 99?")["haiku"] > 0.9
    hard = model.predict(route="/prove", text="Question 99?")
    assert hard["haiku"] < 0.25
    assert hard["opus"] > 0.8
    found = model.forecast("/prove", "Question 99?")
    assert [chance.evidence for chance in found.chances] == [40, 0, 40]
    assert found.evidence == 80
    assert found.familiar > 0.5


def test_what_is_alike_is_told_apart_within_a_route():
    """On one route, a tier is trusted with what it answered well and not with what it did not."""
    outcomes = [Outcome("/ask", f"Translate the word {n} into French", "haiku", good=True) for n in range(40)]
    outcomes += [Outcome("/ask", f"Prove the theorem number {n}", "haiku", good=False) for n in range(40)]
    model = OutcomeModel(clock=Clock()).fit(outcomes)
    easy = model.predict(route="/ask", text="Translate the word 99 into French")["haiku"]
    hard = model.predict(route="/ask", text="Prove the theorem number 99")["haiku"]
    assert easy > 0.8
    assert hard < 0.2


def test_a_route_without_evidence_has_what_texts_have_taught():
    """Routes that are not known are all alike: none is an error, and none is more than the texts and the prior."""
    outcomes = [Outcome("/prove", QUESTIONS[1], "haiku", good=False) for _ in range(30)]
    model = OutcomeModel(clock=Clock()).fit(outcomes)
    assert chances(model, "/new", QUESTIONS[1]) == chances(model, "/other", QUESTIONS[1])
    cold = OutcomeModel(clock=Clock())
    assert chances(model, "/prove", QUESTIONS[1])[0] < chances(model, "/new", QUESTIONS[1])[0]
    assert chances(model, "/new", QUESTIONS[1])[0] < chances(cold, "/new", QUESTIONS[1])[0]
    assert model.forecast("/new", QUESTIONS[1]).evidence == 0


def test_where_a_text_is_unlike_all_the_prior_holds_and_the_answer_says_so():
    """A text of words that were never seen, on a route that was never seen, moves less than those that were."""
    outcomes = [Outcome("/prove", QUESTIONS[1], "haiku", good=False) for _ in range(30)]
    cold, model = OutcomeModel(clock=Clock()), OutcomeModel(clock=Clock()).fit(outcomes)
    strange = "Где находится ближайшая аптека"
    moved = odds(chances(cold, text=strange)[0]) - odds(chances(model, text=strange)[0])
    known = odds(chances(cold, text=QUESTIONS[1])[0]) - odds(chances(model, text=QUESTIONS[1])[0])
    assert abs(moved) < known * 0.6
    assert model.forecast("/answer", strange).familiar < 0.1
    assert model.forecast("/answer", QUESTIONS[1]).familiar > 0.8


@given(OUTCOMES)
@settings(max_examples=25, deadline=None)
def test_a_little_evidence_moves_little(outcome):
    """A tenth of an outcome moves no chance by more than 6 of 100."""
    little = Outcome(outcome.route, outcome.text, outcome.tier, outcome.good, outcome.tools, weight=0.1)
    before = chances(OutcomeModel(clock=Clock()), outcome.route, outcome.text, outcome.tools)
    after = chances(taught([little]), outcome.route, outcome.text, outcome.tools)
    assert after == pytest.approx(before, abs=0.06)


def test_weights_count_as_so_many_outcomes():
    """One outcome of weight 20 teaches what 20 outcomes teach."""
    many = OutcomeModel(clock=Clock()).fit([Outcome("/answer", QUESTIONS[0], "haiku", good=False)] * 20)
    heavy = OutcomeModel(clock=Clock()).fit([Outcome("/answer", QUESTIONS[0], "haiku", good=False, weight=20)])
    assert chances(heavy) == pytest.approx(chances(many), abs=0.01)
    assert heavy.forecast("/answer", "").evidence == many.forecast("/answer", "").evidence == 20


def test_any_weight_is_borne():
    """The largest and the smallest weight that an outcome may have leave chances that are numbers."""
    for weight in (1e-300, 1e300):
        found = chances(taught([Outcome("/answer", QUESTIONS[0], "haiku", good=False, weight=weight)] * 3))
        assert all(isfinite(chance) and 0 < chance < 1 for chance in found)


def test_a_call_never_waits_for_old_weights(monkeypatch):
    """In the midst of calls, each brings a part of the weights up to date, and none while others are at them."""
    clock = Clock()
    model = OutcomeModel(clock=clock).fit([Outcome("/answer", f"Is {n} open?", "haiku", good=False) for n in range(60)])
    kept = model.features("Is 7 open?")
    before = model.forecast_of("/answer", kept).chances[0].good
    clock.now += 60 * DAY
    monkeypatch.setattr(model, "settle", None)
    with model._lock:
        assert model.forecast_of("/answer", kept).chances[0].good == before
    for _ in range(40):
        found = model.forecast_of("/answer", kept).chances[0].good
    monkeypatch.undo()
    assert found > before
    assert found == pytest.approx(model.forecast("/answer", "Is 7 open?").chances[0].good, abs=0.01)
    assert not model._stale()


def test_old_evidence_fades():
    """A half-life leaves half of the evidence, and after many of them the prior holds again."""
    model = taught([Outcome("/answer", QUESTIONS[0], "haiku", good=False)] * 20, half_life=30 * DAY)
    clock = model._clock
    cold = chances(OutcomeModel(clock=clock))[0]
    seen = [chances(model)[0]]
    assert seen[0] < 0.25 < cold
    clock.now += 30 * DAY
    assert model.forecast("/answer", "").evidence == pytest.approx(10)
    for _ in range(8):
        seen.append(chances(model)[0])
        clock.now += 30 * DAY
    assert seen == sorted(seen)
    assert chances(model)[0] == pytest.approx(cold, abs=0.02)
    assert model.forecast("/answer", "").evidence < 0.1


def test_evidence_is_counted_however_long_it_goes_on():
    """Thousands of half-lives overflow nothing: only what is new counts."""
    model = taught([Outcome("/answer", QUESTIONS[0], "haiku", good=False)], half_life=1.0)
    for _ in range(5):
        model._clock.now += 700
        model.observe(Outcome("/answer", QUESTIONS[0], "haiku", good=True))
    assert model.forecast("/answer", "").evidence == pytest.approx(1)
    model._clock.now += 5000
    assert model.forecast("/answer", "").evidence == 0


def test_new_evidence_outweighs_old():
    """When a tier gets better on a route, its old failures do not hold it back for long."""
    model = taught([Outcome("/answer", QUESTIONS[0], "haiku", good=False)] * 30)
    model._clock.now += 90 * DAY
    for _ in range(15):
        model.observe(Outcome("/answer", QUESTIONS[0], "haiku", good=True))
    assert chances(model)[0] > 0.7


def test_features_carry_no_words():
    """Features are small, and none of the words of their text stand in them."""
    features = OutcomeModel(clock=Clock()).features("My password is Rumpelstiltskin. " * 40, 2)
    assert len(features) < 400
    assert b"Rumpel" not in features
    assert b"rumpel" not in features


@given(st.text(max_size=300), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_features_say_what_the_text_says(text, tools):
    """A request that was kept as features is judged exactly as its text is."""
    model = taught([Outcome("/answer", question, "haiku", good=False) for question in QUESTIONS])
    assert model.forecast_of("/answer", model.features(text, tools)) == model.forecast("/answer", text, tools)


def test_features_that_are_not_known_leave_the_route():
    """What another version kept of a request says nothing of it, and what the route taught still holds."""
    model = taught([Outcome("/answer", question, "haiku", good=False) for question in QUESTIONS * 5])
    assert model.forecast_of("/answer", b"0;old").chances[0].good < model.forecast_of("/new", b"0;old").chances[0].good
    assert model.forecast_of("/answer", b"0;old").familiar == 0


def test_absorbed_as_observed():
    """What went through a store teaches exactly what it would have taught here."""
    outcomes = [Outcome("/answer", text, "haiku", good=False, tools=2) for text in QUESTIONS]
    observed, absorbed = taught(outcomes), OutcomeModel(clock=Clock())
    for outcome in outcomes:
        absorbed.absorb(evidence_of(outcome, absorbed._clock))
    for text in QUESTIONS:
        assert chances(absorbed, text=text) == chances(observed, text=text)


def test_evidence_of_others_is_passed_over():
    """Evidence of another version, of another ladder, or of nonsense teaches nothing and breaks nothing."""
    model = OutcomeModel(clock=Clock())
    good = evidence_of(Outcome("/answer", QUESTIONS[0], "haiku", good=False), model._clock)
    before = chances(model)
    for features in (b"", b"0;", good.features[:-1], good.features[:9], good.features + b"\xff\xff", b"x" * 300):
        model.absorb(good._replace(features=features))
    model.absorb(good._replace(tier="gpt"))
    assert chances(model) == before


def test_memory_is_bounded():
    """Above the bound, the route with most gives up its oldest: what is rare is kept."""
    model = OutcomeModel(clock=Clock(), most=50)
    model.observe(Outcome("/rare", QUESTIONS[1], "haiku", good=False))
    for n in range(300):
        model.observe(Outcome("/busy", f"Question {n}", "haiku", good=True))
    assert len(model._lessons) == 50
    assert model.forecast("/rare", "").evidence == 1
    assert model.forecast("/busy", "").evidence == pytest.approx(49)


def test_what_was_given_up_is_forgotten():
    """Outcomes that gave way to others leave nothing behind."""
    old = [Outcome("/answer", QUESTIONS[1], "haiku", good=False)] * 20
    new = [Outcome("/answer", QUESTIONS[0], "haiku", good=True)] * 20
    clock = Clock()
    model = OutcomeModel(clock=clock, most=20)
    for outcome in old:
        model.observe(outcome)
    clock.now += 1
    for outcome in new:
        model.observe(outcome)
    only = OutcomeModel(clock=clock).fit(new)
    for text in QUESTIONS:
        assert chances(model, text=text) == pytest.approx(chances(only, text=text), abs=0.02)
    assert model.forecast("/answer", QUESTIONS[1]).familiar < 0.3


def test_routes_are_bounded():
    """Routes that anybody may name push out the least used, and not those with evidence."""
    model = OutcomeModel(clock=Clock())
    for _ in range(5):
        model.observe(Outcome("/used", "", "haiku", good=True))
    for n in range(ROUTES + 20):
        model.observe(Outcome(f"/{n}", "", "haiku", good=True))
    assert model.forecast("/used", "").evidence == 5
    assert len(model._lessons) <= ROUTES + 4


def test_fit_and_restart_begin_anew():
    """Fitting forgets what was learned before, and so does a restart."""
    bad = [Outcome("/answer", QUESTIONS[0], "haiku", good=False)] * 9
    cold = chances(OutcomeModel(clock=Clock()))
    assert chances(taught(bad).fit([])) == cold
    model = taught(bad)
    model.restart()
    assert chances(model) == cold


def test_any_ladder_will_do():
    """One tier or seven, by any names: the prior rises along them."""
    for tiers in (("only",), tuple("abcdefg")):
        model = OutcomeModel(tiers, clock=Clock())
        good = chances(model)
        assert len(good) == len(tiers)
        assert good == sorted(good)
        model.observe(Outcome("/answer", "Hi", tiers[-1], good=True))
        assert chances(model)[-1] > good[-1] - 1e-9


@pytest.mark.parametrize("tiers", [(), "haiku", ("haiku", "haiku"), ("haiku", ""), ("haiku", 3)])
def test_tiers_must_be_names(tiers):
    """Tiers that are no names, or not told apart, are refused with what to write."""
    with pytest.raises(ConfigurationError, match="cheapest first"):
        OutcomeModel(tiers)


@pytest.mark.parametrize("options", [{"half_life": 0}, {"half_life": float("nan")}, {"most": 0}, {"most": 1.5}])
def test_bounds_must_be_numbers(options):
    """Times and sizes that cannot work are refused by name."""
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        OutcomeModel(**options)


def test_an_unknown_tier_is_refused():
    """An outcome of a tier that is not on the ladder is refused, and the error names the tiers there are."""
    model = OutcomeModel(clock=Clock())
    outcome = Outcome("/answer", "Hi", "gpt", good=True)
    for teach in (model.observe, lambda each: model.fit([each])):
        with pytest.raises(ConfigurationError, match="haiku, sonnet, opus"):
            teach(outcome)
