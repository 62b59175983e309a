"""The model that comes with the package: honest on any text, the same everywhere, and blind where it should be."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from itertools import pairwise
from math import isfinite
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierline.choice import choose
from tierline.classify import Classifier, LocalClassifier, View
from tierline.classify.local import Opinion
from tierline.classify.weights import Weights
from tierline.errors import ConfigurationError
from tierline.evaluation.opinions import Offline
from tierline.features import WIDTH
from tierline.ladder import DEFAULT_LADDER
from tierline.plan import Request
from tierline.policies import Effective
from tierline.values import LABELS

SHIPPED = Path(str(files("tierline.classify") / "local.weights"))
LOCAL = LocalClassifier()
TEXTS = st.text(max_size=300) | st.text(alphabet=st.characters(), max_size=60)
PRIOR = LOCAL.opinion("yes", turns=2).probabilities


def need(text: str, **given) -> float:
    found = LOCAL.probabilities(text, **given)
    return found["complex"] + found["moderate"] / 2


@given(TEXTS, st.integers(0, 200), TEXTS, st.integers(1, 50))
def test_probabilities_are_ones_for_any_text(text, tools, context, turns):
    """Whatever is sent, lone surrogates included, each label has a share of 1, and the familiarity is from 0 to 1."""
    opinion = LOCAL.opinion(text, tools, context, turns)
    assert tuple(opinion.probabilities) == LABELS
    assert all(0 <= chance <= 1 for chance in opinion.probabilities.values())
    assert sum(opinion.probabilities.values()) == pytest.approx(1)
    assert 0 <= opinion.familiarity <= 1


@pytest.mark.parametrize("text", ["x" * 10**6, "word " * 200_000, "\ud800" * 10**6, "中" * 10**6, "$\\" * 500_000])
def test_a_megabyte_has_an_opinion(text):
    """Only its ends are looked at, and the numbers stay within bounds."""
    assert sum(LOCAL.probabilities(text).values()) == pytest.approx(1)


def test_it_is_a_classifier_that_asks_nobody():
    """It can stand wherever one is taken, and the verdict cache need not keep what it says."""
    assert isinstance(LOCAL, Classifier)
    assert (LOCAL.name, LOCAL.cacheable) == ("local", False)


def test_two_of_them_say_the_same():
    """A second one, and the same weights under another name, have the same fingerprint and opinions."""
    other = LocalClassifier(SHIPPED)
    assert other.fingerprint == LOCAL.fingerprint
    assert other.probabilities("Sort a list in C") == LOCAL.probabilities("Sort a list in C")


def test_the_weights_are_small():
    """The file that comes with the package stays under 2 MB, and is written as it was read."""
    assert SHIPPED.stat().st_size < 2_000_000
    assert Weights.load(SHIPPED).pack() == SHIPPED.read_bytes()


def test_a_version_is_of_all_and_packs_nothing(monkeypatch):
    """It is asked for in the first call: to write the whole file for it would hold up the loop for 0.3 seconds."""
    shipped = Weights.load(SHIPPED)
    monkeypatch.setattr("tierline.classify.weights.zlib.compress", None)
    assert shipped.version == LOCAL.weights.version
    name, head = next(iter(shipped.heads.items()))
    table = head.table[:]
    table[7] += 1 if table[7] < 127 else -1
    assert Weights(shipped.kind, {**shipped.heads, name: replace(head, table=table)}, shipped.about).version != (
        shipped.version
    )
    assert replace(shipped, about={**shipped.about, "top": 0.5}).version != shipped.version


def test_what_is_plain_is_told_apart():
    """A lookup needs less than a design, one thing to do less than several with several tools."""
    assert need("What is the capital of France?") < need("Design a fault-tolerant distributed message queue")
    one = need("What is the weather in Rome?", tools=1)
    several = "Find the weather in Rome, then the area of a circle of radius 5, and also the population of Oslo in 1990"
    assert one < need(several, tools=4)


def test_a_turn_that_leans_on_nothing_known_is_the_prior():
    """A "yes" may be the start of anything: nothing is known of what it agrees to."""
    for text in ("yes", "do it", "and in French?", "да", "继续"):
        opinion = LOCAL.opinion(text, turns=3)
        assert opinion.probabilities == PRIOR
        assert opinion.familiarity == 0


def test_a_turn_that_leans_is_judged_by_what_it_leans_on():
    """After a proof, "do it" is not what it is after a greeting."""
    proof = "Let $n$ be a positive integer. Prove that $\\sum_{k=1}^n k^3 = (\\sum_{k=1}^n k)^2$ by induction."
    assert need("do it", context=proof, turns=2) > need("do it", context="Shall I say hello?", turns=2)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " " * 5_000,
        "x" * 40,
        "x" * 10**6,
        "word " * 200_000,
        "\ud800" * 3_000,
        "中" * 10**6,
        "!" * 4_000,
        "\n" * 4_000,
    ],
    ids=["empty", "blank", "letters", "megabyte", "one word", "surrogates", "one sign", "marks", "lines"],
)
async def test_what_is_no_prose_is_the_prior(text):
    """No text that the weights know is empty, a run of letters, or the same word all over: nothing is known of it."""
    opinion = LOCAL.opinion(text)
    assert opinion.familiarity == 0
    assert opinion.probabilities == PRIOR
    assert await LOCAL.classify(View(text), Offline()) is None


def test_numbers_beyond_the_known_count_as_the_last_known():
    """Thousands of tools are no thousand times harder than the most that the weights have seen."""
    text = "Find the weather in Rome, then the area of a circle of radius 5"
    assert need(text, tools=1) < need(text, tools=4) < need(text, tools=50) == need(text, tools=5_000)


def test_more_to_do_and_more_to_choose_from_need_more():
    """Whatever kind of request with tools it is: what was learned of some kinds does not turn it round for others."""
    one = "What is the current temperature in Boston?"
    many = (
        "Send the invoice to Ann and Bob, and also file a copy under invoices, and then mark order 12 and order 13 "
        "as paid"
    )
    needs = [need(one, tools=1), need(many, tools=1), need(many, tools=2), need(many, tools=4)]
    assert all(less < more for less, more in pairwise(needs))


async def test_what_is_unlike_anything_has_no_opinion():
    """The cascade asks somebody else."""
    assert await LOCAL.classify(View("yes", turns=2), Offline()) is None
    assert await LocalClassifier(familiar=0).classify(View("yes", turns=2), Offline()) is not None


async def test_a_view_that_comes_again_is_not_weighed_again(monkeypatch):
    """Whether there was an opinion or none; any part of a view that is read makes another one, and no text is kept."""
    local, weighed = LocalClassifier(familiar=0.25), []
    weigh = local.weigh
    monkeypatch.setattr(local, "weigh", lambda *given: weighed.append(given) or weigh(*given))
    views = [
        View("Tom has 3 apples. How many?"), View("yes", turns=2), View("yes", context="Prove it?", turns=2),
        View("yes"), View("yes", tools=1), View("Prove it?yes", turns=2), View("\ud800"),
    ]  # fmt: skip
    first = [await local.classify(view, Offline()) for view in views]
    assert len(weighed) == len(views)
    assert [await local.classify(replace(view, max_tokens=9), Offline()) for view in views] == first
    assert len(weighed) == len(views)
    assert {found is None for found in first} == {True, False}
    assert "apples" not in repr(vars(local)) + repr(vars(local._said)) + repr(vars(local._said)["_kept"])


async def test_what_is_remembered_is_each_tenants_own(monkeypatch):
    """How fast an answer comes tells nobody what another tenant has asked: each one's texts are weighed anew."""
    local, weighed = LocalClassifier(), []
    weigh = local.weigh
    monkeypatch.setattr(local, "weigh", lambda *given: weighed.append(given) or weigh(*given))
    for tenant in ("acme", "globex", None, "acme", "globex", None):
        consult = Offline()
        consult.tenant = tenant
        await local.classify(View("Is Globex about to buy us?"), consult)
    assert len(weighed) == 3


async def test_what_is_remembered_is_bounded(monkeypatch):
    """The views that came last are."""
    monkeypatch.setattr("tierline.classify.local._REMEMBERED", 5)
    local = LocalClassifier()
    for n in range(20):
        await local.classify(View(f"Is order {n} here?"), Offline())
    assert len(local._said._kept) == 5


def test_the_weights_of_the_package_are_read_once():
    """However many judge by them: the cascade, the model of outcomes, and those of other Routers."""
    assert LocalClassifier().weights is LOCAL.weights


async def test_an_opinion_names_its_kind_and_not_the_text():
    """Reasons go to logs."""
    found = await LOCAL.classify(View("Tom has 3 apples and buys 4 more. How many apples does Tom have?"), Offline())
    assert (found.label, found.source, found.cost) == ("simple", "local", 0)
    assert (
        found.confidence
        == LOCAL.probabilities("Tom has 3 apples and buys 4 more. How many apples does Tom have?")["simple"]
    )
    assert "sums in words" in found.reason
    assert "Tom" not in found.reason


@given(TEXTS, st.integers(0, 20))
async def test_a_label_is_never_surer_than_its_probabilities(text, tools):
    """Complex is as sure as p(simple) leaves, the others as p(simple) is."""
    found = await LOCAL.classify(View(text, tools=tools), Offline())
    if found is not None:
        simple = LOCAL.probabilities(text, tools)["simple"]
        assert found.confidence == (1 - simple if found.label == "complex" else simple)
        assert (found.label == "simple") == (simple >= 0.85)


@pytest.mark.parametrize(
    ("good", "label", "confidence"),
    [(0.9, "simple", 0.9), (0.85, "simple", 0.85), (0.8, "moderate", 0.8), (0.65, "moderate", 0.65),
     (0.6, "complex", 0.4), (0.1, "complex", 0.9)],
)  # fmt: skip
async def test_doubt_about_the_cheapest_tier_leads_one_tier_up_and_not_two(good, label, confidence, monkeypatch):
    """`moderate` is the answer to that doubt: a confidence under the Router's threshold would move it to the top."""
    opinion = Opinion({"simple": good, "moderate": 1 - good, "complex": 0.0}, 1.0, "plain requests")
    local = LocalClassifier()
    monkeypatch.setattr(local, "opinion", lambda *_: opinion)
    found = await local.classify(View("Compare these two offers"), Offline())
    assert (found.label, found.confidence) == (label, pytest.approx(confidence))
    if label == "moderate":
        reasons: list[str] = []
        chosen = choose(Request(Effective(0, 2)), found, None, DEFAULT_LADDER, 0.6, None, reasons)
        assert chosen.place == 1
        assert not any("one tier up" in reason for reason in reasons)


@given(TEXTS, st.integers(0, 20))
def test_what_may_be_stored_is_a_few_finite_numbers(text, tools):
    """As many for every text."""
    numbers = LOCAL.project(text, tools)
    assert len(numbers) == len(LOCAL.project("")) <= WIDTH + 16
    assert all(map(isfinite, numbers))


@pytest.mark.parametrize(
    "broken",
    [b"", b"{}", b"\xff\xfe", b"null\n", SHIPPED.read_bytes()[:-100], SHIPPED.read_bytes()[:3_000], b"[" * 100_000],
    ids=["empty", "bare", "binary", "null", "cut", "cut early", "deep"],
)
def test_a_file_that_is_no_weights_is_refused_at_once(tmp_path, broken):
    """At start-up, with the file's name, and not at the first call."""
    path = tmp_path / "mine.weights"
    path.write_bytes(broken)
    with pytest.raises(ConfigurationError, match=r"mine\.weights"):
        LocalClassifier(path)


def test_a_missing_file_is_named(tmp_path):
    """So that it can be found."""
    with pytest.raises(ConfigurationError, match=r"none\.weights"):
        LocalClassifier(tmp_path / "none.weights")


def test_weights_of_other_features_are_refused(tmp_path):
    """Their numbers would mean something else."""
    path = tmp_path / "old.weights"
    path.write_bytes(SHIPPED.read_bytes().replace(b'"features": "1"', b'"features": "0"', 1))
    with pytest.raises(ConfigurationError, match="train them again"):
        LocalClassifier(path)


def test_weights_of_a_kind_that_is_not_known_are_refused():
    """A later version may have others."""
    with pytest.raises(ConfigurationError, match="oracle"):
        LocalClassifier(Weights("oracle", {}))


def test_weights_that_are_not_whole_are_refused():
    """Before the first call needs what is missing."""
    for kind in ("experts", "labels"):
        with pytest.raises(ConfigurationError, match="not whole"):
            LocalClassifier(Weights(kind, {}))


def test_a_familiarity_that_cannot_be_is_refused():
    """It is from 0 to 1."""
    with pytest.raises(ConfigurationError, match="familiar"):
        LocalClassifier(familiar=2)
