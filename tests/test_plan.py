from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierline import Ladder, Tier
from tierline.call import Call, read_call
from tierline.errors import IllegalRequestError, UnknownModelError
from tierline.legality import AS_IT_IS, Fit
from tierline.plan import Plan, adapt, admit, plan
from tierline.policies import Effective, Policy, combine
from tierline.values import Chance, Classification, Forecast, Offer, Terms

NAMES = ("a", "b", "c", "d", "e")
RUNGS = {f"model-{name}": 10 * (place + 1) for place, name in enumerate(NAMES)}
PRICES = {**RUNGS, "model-b-20261121": 20, "cheap": 5, "off": 25, "dear": 999}


def read(model: str = "auto", max_tokens: Any = 1_000, **more: Any) -> Call:
    body = {"model": model, "max_tokens": max_tokens, "messages": [{"role": "user", "content": "hi"}], **more}
    call = read_call("create", body)
    assert call is not None
    return call


def worst(call: Call, model: str, max_tokens: int | None) -> Offer:
    return Offer("", model, None if max_tokens is None else max_tokens * 10, 1, "", max_tokens)


def planned(
    call: Call,
    policy: Effective,
    ladder: Ladder,
    opinion: Classification | None = None,
    rejects: frozenset[str] = frozenset(),
    prices: dict[str, int] = PRICES,
    **learned: Any,
) -> Plan:
    return plan(
        call,
        admit(call, policy, ladder, prices.get),
        opinion,
        ladder,
        sure=0.6,
        fit=lambda _call, model, _limit: Fit(blocked="what it says") if model in rejects else AS_IT_IS,
        worst=worst,
        **learned,
    )


chances = st.builds(
    Chance,
    st.sampled_from([*NAMES, "gone"]),
    st.one_of(st.floats(0, 1), st.floats()),
    st.one_of(st.floats(0, 100), st.floats()),
)
teachings = st.fixed_dictionaries(
    {
        "forecast": st.one_of(
            st.none(),
            st.builds(Forecast, st.lists(chances, max_size=6).map(tuple), st.one_of(st.floats(0, 99), st.floats())),
        ),
        "learn_after": st.integers(1, 60),
        "explore": st.booleans(),
        "usual": st.one_of(st.none(), st.integers(0, 4)),
    }
)


def route(*said: tuple[str, float], evidence: float = 20.0) -> Forecast:
    """What a route has taught of tiers that were each graded so often."""
    return Forecast(tuple(Chance(tier, good, evidence) for tier, good in said), evidence * len(said))


@st.composite
def ladders(draw: st.DrawFn) -> Ladder:
    n = draw(st.integers(1, 5))
    caps = st.one_of(st.none(), st.integers(1, 3_000))
    tiers = [Tier(name, f"model-{name}", max_tokens=draw(caps)) for name in NAMES[:n]]
    places = st.sampled_from(NAMES[:n])
    labels = draw(st.dictionaries(st.sampled_from(["simple", "moderate", "complex"]), places))
    return Ladder(*tiers, labels=labels)


@st.composite
def situations(draw: st.DrawFn) -> tuple[Ladder, list[Policy], Call, Classification | None, frozenset[str]]:
    ladder = draw(ladders())
    names = st.one_of(st.none(), st.sampled_from([t.name for t in ladder]))
    policies = st.builds(
        Policy,
        floor=names,
        ceiling=names,
        tier=st.one_of(st.none(), st.none(), names),
        critical=st.booleans(),
        explicit_model=st.sampled_from([None, None, "respect", "ceiling", "route"]),
        max_tokens=st.one_of(st.none(), st.integers(1, 2_000)),
    )
    models = ["auto", "auto", "cheap", "off", "dear", "unknown", *(t.model for t in ladder)]
    call = read(draw(st.sampled_from([*models, "model-b-20261121"])), draw(st.sampled_from([None, 1, 500, 10**6])))
    opinion = draw(
        st.one_of(
            st.none(),
            st.builds(
                Classification,
                st.sampled_from(["simple", "moderate", "complex", "nonsense"]),
                st.one_of(st.floats(0, 1), st.just(float("nan"))),
                st.just("keyword"),
            ),
        )
    )
    rejects = draw(st.frozensets(st.sampled_from([t.model for t in ladder])))
    return ladder, draw(st.lists(policies, max_size=4)), call, opinion, rejects


@settings(max_examples=600)
@given(situations(), st.booleans(), teachings)
def test_no_input_leaves_floor_and_ceiling(situation: Any, unpriced: bool, teaching: Any) -> None:
    """Every offer and every fallback is between the floor and the ceiling, whatever anybody says, thinks or rejects."""
    ladder, policies, call, opinion, rejects = situation
    policy = combine(policies, ladder)
    prices = {m: p for m, p in PRICES.items() if not (unpriced and m == ladder[ladder.top].model)}
    try:
        found = planned(call, policy, ladder, opinion, rejects, prices, **teaching)
    except UnknownModelError:
        assert call.model not in prices
        assert any(p.floor or p.ceiling for p in policies)
        return
    except IllegalRequestError:
        # An id that is taken as a ceiling allows fewer tiers than the policy.
        asked = admit(call, policy, ladder, prices.get).policy
        assert policy.critical or all(ladder[p].model in rejects for p in range(asked.floor, asked.ceiling + 1))
        return
    places = [ladder.index(o.tier, "") for o in found.offers]
    others = [ladder.index(o.tier, "") for o in found.fallbacks]
    assert found.offers
    assert all(policy.floor <= p <= policy.ceiling for p in [*places, *others])
    assert found.requested == found.offers[0].tier
    assert places == sorted(places, reverse=True)
    assert len({*places}) == len(places)
    assert len({*others, places[0]}) == len(others) + 1
    routed = found.source not in ("explicit", "pin", "fixed")
    assert found.thresholds == (routed and not policy.critical)
    if policy.critical or not routed:
        assert not found.explored
        assert found.classified is None
    if found.explored:
        plain = planned(call, policy, ladder, opinion, rejects, prices, **{**teaching, "explore": False})
        assert teaching["explore"]
        assert plain.offers[0].tier in {o.tier for o in (*found.offers, *found.fallbacks)} - {found.requested}
    if found.source == "route":
        assert teaching["forecast"].evidence + 0.5 >= teaching["learn_after"]
    if policy.critical:
        assert len(places) == 1
        assert all(p > places[0] for p in others)
    for offer in (*found.offers, *found.fallbacks):
        if offer.model != call.model:
            assert offer.model == ladder[ladder.index(offer.tier, "")].model
        if offer.max_tokens is not None:
            assert offer.max_tokens <= min(call.max_tokens or 0, policy.max_tokens or 10**9)
    assert admit(call, policy, ladder, prices.get).model is not None or not any(
        o.model in rejects for o in (*found.offers, *found.fallbacks)
    )


@settings(max_examples=200)
@given(situations(), teachings)
def test_a_respected_id_goes_out_as_written(situation: Any, teaching: Any) -> None:
    """An id within the policy is the only offer, under the very name that the app wrote."""
    ladder, policies, call, opinion, _ = situation
    policy = combine(policies, ladder)
    if call.model == "auto" or policy.pinned or policy.explicit_model != "respect" or call.model == "unknown":
        return
    found = planned(call, policy, ladder, opinion, **teaching)
    rung = ladder.rung_of(call.model)
    price = PRICES[call.model]
    low = policy.floored and (rung < policy.floor if rung is not None else price < 10 * (policy.floor + 1))
    high = policy.capped and (rung > policy.ceiling if rung is not None else price > 10 * (policy.ceiling + 1))
    assert found.source == "explicit"
    if low or high:
        assert "model-" in found.offers[0].model
        assert any("below the floor" in r or "above the ceiling" in r for r in found.reasons)
    else:
        assert [o.model for o in found.offers] == [call.model]
        assert found.fallbacks == ()


@pytest.mark.parametrize(
    ("model", "policy", "tier", "sent"),
    [
        ("off", Policy(), "b", "off"),
        ("cheap", Policy(), "a", "cheap"),
        ("cheap", Policy(floor="a"), "a", "model-a"),
        ("off", Policy(floor="b"), "b", "off"),
        ("off", Policy(floor="c"), "c", "model-c"),
        ("off", Policy(ceiling="b"), "b", "model-b"),
        ("off", Policy(ceiling="c"), "b", "off"),
        ("dear", Policy(), "c", "dear"),
        ("dear", Policy(ceiling="c"), "c", "model-c"),
        ("unknown", Policy(), "c", "unknown"),
        ("model-a-20261121", Policy(), "a", "model-a-20261121"),
    ],
)
def test_ids_on_no_rung_are_ranked_by_price(model: str, policy: Policy, tier: str, sent: str) -> None:
    """An id on no rung stands where its list price for output puts it, and is moved only by what is written."""
    ladder = Ladder.of(a="model-a", b="model-b", c="model-c")
    offer = planned(read(model), combine([policy], ladder), ladder).offers[0]
    assert (offer.tier, offer.model) == (tier, sent)


def test_a_tier_without_a_price_is_no_way_under_the_floor() -> None:
    """Where the floor's own price is unknown, no foreign id passes as reaching it; nor as being under a ceiling."""
    ladder = Ladder.of(a="model-a", own="my-model")
    for policy in (Policy(floor="own"), Policy(ceiling="own")):
        assert planned(read("cheap"), combine([policy], ladder), ladder).offers[0].model == "my-model"


def test_two_tiers_of_one_price() -> None:
    """An id at the price of the ceiling is under it, also where the next tier costs the same."""
    ladder = Ladder.of(a="m1", b="m2", c="m3")
    prices = {"m1": 1, "m2": 2, "m3": 2, "other": 2}
    found = planned(read("other"), combine([Policy(ceiling="b")], ladder), ladder, prices=prices)
    assert [(o.tier, o.model) for o in found.offers] == [("b", "other")]


@pytest.mark.parametrize("policy", [Policy(floor="a"), Policy(floor="b"), Policy(ceiling="c")])
def test_an_unknown_id_cannot_be_held_to_a_policy(policy: Policy) -> None:
    """An id without a price is refused where a floor or a ceiling would have to hold for it."""
    ladder = Ladder.of(a="model-a", b="model-b", c="model-c")
    with pytest.raises(UnknownModelError, match="unknown"):
        planned(read("unknown"), combine([policy], ladder), ladder)


@pytest.mark.parametrize(
    ("mode", "model", "opinion", "tier"),
    [
        ("ceiling", "model-c", "simple", "a"),
        ("ceiling", "model-c", "complex", "c"),
        ("ceiling", "model-b", "complex", "b"),
        ("ceiling", "off", "complex", "b"),
        ("ceiling", "dear", "complex", "c"),
        ("ceiling", "cheap", "complex", "a"),
        ("route", "model-a", "complex", "c"),
        ("route", "unknown", "complex", "c"),
        ("respect", "model-a", "complex", "a"),
    ],
)
def test_explicit_model(mode: Any, model: str, opinion: str, tier: str) -> None:
    """An id is respected, is a ceiling, or is ignored, as the policy says."""
    ladder = Ladder.of(a="model-a", b="model-b", c="model-c")
    policy = combine([Policy(explicit_model=mode)], ladder)
    found = planned(read(model), policy, ladder, Classification(opinion, 1.0, "keyword"))
    assert found.offers[0].tier == tier


def test_a_pin() -> None:
    """A pinned call has one offer, its tier's model, and no fallback, whatever model was written."""
    ladder = Ladder.of(a="model-a", b="model-b", c="model-c")
    for model in ("auto", "model-c", "unknown"):
        found = planned(read(model), combine([Policy(tier="b")], ladder), ladder)
        assert [o.model for o in found.offers] == ["model-b"]
        assert (found.fallbacks, found.source, found.thresholds) == ((), "pin", False)


@pytest.mark.parametrize(
    ("label", "confidence", "tier"),
    [
        ("simple", 1.0, "a"), ("simple", 0.59, "b"), ("simple", 0.6, "a"), ("moderate", 1.0, "b"),
        ("moderate", 0.0, "c"), ("complex", 0.0, "c"), ("nonsense", 1.0, "b"), ("simple", float("nan"), "a"),
    ],
)  # fmt: skip
def test_labels_and_confidence(label: str, confidence: float, tier: str) -> None:
    """A label leads to its tier, one higher where nobody is sure, and never past the top."""
    ladder = Ladder.of(a="model-a", b="model-b", c="model-c")
    found = planned(read(), combine([], ladder), ladder, Classification(label, confidence, "keyword"))
    assert found.offers[0].tier == tier
    assert any("one tier up" in r for r in found.reasons) == (confidence < 0.6 and label != "complex")


def test_no_opinion_is_moderate() -> None:
    """Where nobody has an opinion the request is moderate, without being moved up for it."""
    ladder = Ladder.of(a="model-a", b="model-b", c="model-c")
    found = planned(read(), combine([], ladder), ladder)
    assert (found.label, found.confidence, found.source, found.offers[0].tier) == ("moderate", 0.0, "default", "b")
    assert [o.tier for o in found.offers] == ["b", "a"]
    assert [o.tier for o in found.fallbacks] == ["a", "c"]


@pytest.mark.parametrize(
    ("rejects", "policy", "tier"),
    [
        ("b", Policy(), "c"),
        ("bc", Policy(), "a"),
        ("bc", Policy(critical=True), ""),
        ("b", Policy(ceiling="b"), "a"),
        ("b", Policy(floor="b", ceiling="b"), ""),
        ("b", Policy(tier="b"), ""),
        ("abc", Policy(), ""),
    ],
)
def test_a_tier_that_rejects_the_request(rejects: str, policy: Policy, tier: str) -> None:
    """A rejected call goes up, else down, never out of the policy; where all reject it, the error says by what."""
    ladder = Ladder.of(a="model-a", b="model-b", c="model-c")
    models = frozenset(f"model-{name}" for name in rejects)

    def attempt() -> Plan:
        return planned(read(), combine([policy], ladder), ladder, Classification("moderate", 1.0, "keyword"), models)

    if not tier:
        with pytest.raises(IllegalRequestError, match=r"takes this request: .*b rejects what it says"):
            attempt()
        return
    found = attempt()
    assert found.offers[0].tier == tier
    assert any("rejects what it says" in r for r in found.reasons)


def test_a_refusal_that_the_app_asked_for() -> None:
    """What is to be refused is refused, although another tier would take it."""
    ladder = Ladder.of(a="model-a", b="model-b")
    with pytest.raises(IllegalRequestError, match="a rejects prefill, and the app has that refused"):
        plan(
            read(),
            admit(read(), combine([], ladder), ladder, PRICES.get),
            Classification("simple", 1.0, "keyword"),
            ladder,
            sure=0.6,
            fit=lambda _call, model, _limit: Fit(blocked="prefill", refuse=True) if model == "model-a" else AS_IT_IS,
            worst=worst,
        )


def test_offers_carry_what_it_takes_to_send_them() -> None:
    """Each offer has the changes, the reasons and the terms of its own tier, and is bounded by what is then sent."""
    ladder = Ladder(Tier("a", "model-a", patch={"metadata": {"x": 1}, "top_k": 9}), Tier("b", "model-b"))
    call = read(speed="fast", top_k=5)
    seen: list[Terms] = []

    def bound(billed: Call, model: str, limit: int | None) -> Offer:
        seen.append(billed.terms)
        return worst(billed, model, limit)

    def mend(_call: Call, model: str, _limit: int | None) -> Fit:
        return Fit({"speed": None, "max_tokens": 70}, ("slow",), Terms()) if model == "model-a" else AS_IT_IS

    request = admit(call, combine([], ladder), ladder, PRICES.get)
    hard = Classification("complex", 1.0, "keyword")
    top, low = plan(call, request, hard, ladder, sure=0.6, fit=mend, worst=bound).offers
    assert (top.changes, top.reasons, top.terms, top.max_tokens) == ({}, (), None, 1_000)
    assert low.changes == {"metadata": {"x": 1}, "speed": None, "max_tokens": 70}
    assert (low.reasons, low.terms, low.max_tokens, low.cost) == (("slow",), Terms(), 70, 700)
    assert seen == [Terms(fast=True), Terms()]
    assert adapt(call, low) == {
        "model": "model-a", "max_tokens": 70, "messages": call.body["messages"], "top_k": 5, "metadata": {"x": 1},
    }  # fmt: skip


def test_caps_by_label_and_tier() -> None:
    """The least of what request, policy, tier and label say is asked for; critical calls keep what is theirs."""
    ladder = Ladder(Tier("a", "model-a", max_tokens=300), Tier("b", "model-b"), max_tokens={"simple": 200})
    simple = Classification("simple", 1.0, "keyword")
    hard = Classification("complex", 1.0, "keyword")

    def asked(opinion: Classification, **policy: Any) -> list[int | None]:
        found = planned(read(), combine([Policy(**policy)], ladder), ladder, opinion)
        return [o.max_tokens for o in (*found.offers, *found.fallbacks)]

    assert asked(simple) == [200, 200]
    assert asked(hard) == [1_000, 300, 300]
    assert asked(hard, max_tokens=250) == [250, 250, 250]
    assert asked(simple, critical=True) == [1_000, 1_000]
    assert asked(simple, critical=True, max_tokens=50) == [50, 50]


def test_a_thinking_budget_is_not_cut_into() -> None:
    """`max_tokens` is not lowered to where the request's own thinking budget would make it illegal."""
    ladder = Ladder.of(a="model-a")
    policy = combine([Policy(max_tokens=500)], ladder)
    for budget, sent in ((499, 500), (500, 1_000), ("500", 500), (None, 500)):
        call = read(thinking={"type": "enabled", "budget_tokens": budget})
        assert planned(call, policy, ladder).offers[0].max_tokens == sent
    thrifty = combine([Policy(max_tokens=100)], ladder)
    call = read(thinking={"type": "enabled", "budget_tokens": 500})
    assert planned(call, thrifty, ladder).offers[0].max_tokens == 600


bodies = st.dictionaries(st.sampled_from(["system", "tools", "thinking", "metadata", "top_k"]), st.integers())


changes = st.dictionaries(st.sampled_from(["thinking", "metadata", "output_config"]), st.none() | st.integers())


@given(bodies, changes)
def test_adapt_changes_only_what_must_change(extra: dict[str, Any], changed: dict[str, Any]) -> None:
    """The body that is sent is the app's, with the model, a lower `max_tokens`, and the changes of the offer."""
    call = read(**extra)
    before = dict(call.body)
    sent = adapt(call, Offer("a", "model-a", 1, max_tokens=10, changes=changed))
    assert call.body == before
    merged = {**before, "model": "model-a", "max_tokens": 10, **changed}
    assert sent == {k: v for k, v in merged.items() if v is not None}
    assert all(sent[k] is before[k] for k in before if k not in ("model", "max_tokens", *changed))
    assert adapt(call, Offer("a", "model-a", 1, max_tokens=1_000)) == {**before, "model": "model-a"}
    assert adapt(call, Offer("a", "model-a", 1))["max_tokens"] == 1_000


@pytest.mark.parametrize(("critical", "offers", "fallbacks"), [(False, "ca", "abd"), (True, "c", "d")])
def test_a_budget_moves_what_is_held_to_where_it_was_wanted(critical: bool, offers: str, fallbacks: str) -> None:
    """A conversation that may not stay goes to the tier that is good enough: one between is as cold, and dearer."""
    ladder = Ladder(*(Tier(name, f"model-{name}") for name in "abcd"))
    call = read()
    policy = combine([Policy(critical=critical)], ladder)
    found = plan(
        call,
        admit(call, policy, ladder, PRICES.get),
        Classification("simple", 1.0, "keyword"),
        ladder,
        sure=0.6,
        fit=lambda *_: AS_IT_IS,
        worst=worst,
        hold=lambda _place: (2, "warm"),
    )
    assert "".join(offer.tier for offer in found.offers) == offers
    assert "".join(offer.tier for offer in found.fallbacks) == fallbacks


LESSON = route(("a", 0.9), ("b", 0.92), ("c", 0.94))
SIMPLE = Classification("simple", 1.0, "local")
HARD = Classification("complex", 1.0, "local")


@pytest.mark.parametrize(
    ("policy", "rejects", "tier", "fallbacks"),
    [
        (Policy(), "", "a", "bc"),
        (Policy(quality=0.97), "", "b", "ac"),
        (Policy(quality=1), "", "c", "ba"),
        (Policy(floor="b"), "", "b", "c"),
        (Policy(ceiling="b", quality=0.97), "", "a", "b"),
        (Policy(critical=True), "", "a", "bc"),
        (Policy(), "a", "b", "c"),
        (Policy(quality=0.97), "c", "a", "b"),
    ],
)
def test_what_the_route_has_taught(policy: Policy, rejects: str, tier: str, fallbacks: str) -> None:
    """The cheapest legal tier between floor and ceiling that reaches the quality is taken, whatever the text says."""
    ladder = Ladder.of(a="model-a", b="model-b", c="model-c")
    models = frozenset(f"model-{name}" for name in rejects)
    found = planned(read(), combine([policy], ladder), ladder, HARD, models, forecast=LESSON)
    assert (found.requested, found.source, found.label) == (tier, "route", None)
    assert "".join(o.tier for o in found.fallbacks) == fallbacks
    assert any("here" in reason for reason in found.reasons)


def test_what_the_app_wants_refused_is_refused_on_a_learned_route_too() -> None:
    """A tier that is good enough, and refuses, is not passed over."""
    ladder = Ladder.of(a="model-a", b="model-b", c="model-c")
    with pytest.raises(IllegalRequestError, match="the app has that refused"):
        plan(
            read(),
            admit(read(), combine([], ladder), ladder, PRICES.get),
            None,
            ladder,
            sure=0.6,
            fit=lambda _call, model, _limit: Fit(blocked="prefill", refuse=True) if model == "model-a" else AS_IT_IS,
            worst=worst,
            forecast=LESSON,
        )


def test_a_route_that_knows_what_fails() -> None:
    """An opinion chooses among the tiers that are not known to fail; the cap of its label holds."""
    ladder = Ladder.of(a="model-a", b="model-b", c="model-c", max_tokens={"simple": 50})
    half = Forecast((Chance("a", 0.3, 40.0), Chance("b", 0.8), Chance("c", 0.9)), 40.0)
    found = planned(read(), combine([], ladder), ladder, SIMPLE, forecast=half)
    assert (found.requested, found.source, found.label, found.offers[0].max_tokens) == ("b", "local", "simple", 50)
    assert planned(read(), combine([], ladder), ladder, HARD, forecast=half).requested == "c"
    assert planned(read(), combine([], ladder), ladder, None, forecast=half).source == "default"


def test_a_conversation_stays_on_a_learned_route_too() -> None:
    """What holds a conversation holds it against what the route has taught."""
    ladder = Ladder.of(a="model-a", b="model-b", c="model-c")
    found = planned(
        read(), combine([], ladder), ladder, forecast=LESSON, hold=lambda _place: (2, "stays"), explore=True
    )
    assert (found.requested, found.source, found.explored) == ("c", "sticky", False)


@pytest.mark.parametrize(
    ("policy", "opinion", "rejects", "tier", "offers"),
    [
        (Policy(), HARD, "", "b", "ba"),
        (Policy(), SIMPLE, "", "b", "ba"),
        (Policy(), HARD, "b", "a", "a"),
        (Policy(floor="b"), HARD, "", "b", "b"),
        (Policy(floor="b"), SIMPLE, "", "c", "cb"),
        (Policy(floor="c"), SIMPLE, "", "", "c"),
        (Policy(critical=True), HARD, "", "", "c"),
        (Policy(), Classification("complex", 1.0, "label"), "", "", "cba"),
        (Policy(), HARD, "ab", "", "c"),
    ],
)
def test_exploring(policy: Policy, opinion: Classification, rejects: str, tier: str, offers: str) -> None:
    """What explores goes to the next cheaper legal tier, or from the cheapest to the next dearer, or stays."""
    ladder = Ladder.of(a="model-a", b="model-b", c="model-c")
    models = frozenset(f"model-{name}" for name in rejects)
    found = planned(read(), combine([policy], ladder), ladder, opinion, models, explore=True)
    assert (found.requested if found.explored else "") == tier
    assert "".join(o.tier for o in found.offers) == offers
    assert any("explores" in reason for reason in found.reasons) == bool(tier)


@pytest.mark.parametrize(
    ("policy", "opinion", "usual", "tier", "counted"),
    [
        (Policy(), HARD, 0, "a", 0),
        (Policy(), HARD, 1, "b", 1),
        (Policy(), HARD, None, "c", 2),
        (Policy(), SIMPLE, 1, "a", 0),
        (Policy(floor="b"), HARD, 0, "b", 1),
        (Policy(critical=True), HARD, 0, "c", None),
        (Policy(), Classification("complex", 1.0, "label"), 0, "c", None),
        (Policy(), Classification("complex", 1.0, "sticky"), 0, "c", None),
        (Policy(), Classification("moderate", 0.1, "claude"), 0, "a", 0),
        (Policy(), None, 0, "b", None),
    ],
)
def test_upgrades_are_bounded(policy: Policy, opinion: Any, usual: int | None, tier: str, counted: int | None) -> None:
    """An account that had its share goes to the usual tier, but for a floor, a label, and critical calls."""
    ladder = Ladder.of(a="model-a", b="model-b", c="model-c")
    found = planned(read(), combine([policy], ladder), ladder, opinion, usual=usual)
    assert (found.requested, found.classified) == (tier, counted)
    assert found.withheld == any("its share of upgrades" in reason for reason in found.reasons)
    taught = planned(
        read(),
        combine([policy], ladder),
        ladder,
        opinion,
        usual=usual,
        forecast=route(("a", 0.1), ("b", 0.2), ("c", 1)),
    )
    assert policy.critical or taught.classified is None
