"""One after another, until one is sure."""

from __future__ import annotations

import pytest

from tierline.classify import CascadeClassifier, FixedClassifier, KeywordClassifier, View, default_classifier
from tierline.errors import ConfigurationError
from tierline.values import Classification

VIEW = View("x")


class Said:
    """Says what the test wants, under a name."""

    cacheable = False
    fingerprint = "said"

    def __init__(self, name: str, answer: Classification | Exception | None) -> None:
        self.name, self.answer = name, answer

    async def classify(self, view, consult):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def said(label: str, confidence: float, cost: int = 0) -> Said:
    return Said(label, Classification(label, confidence, "local", cost, "as it is"))


async def test_the_first_that_is_sure_ends_it(desk):
    """Those after it are not asked; just sure enough is sure."""
    consult = desk()
    cascade = CascadeClassifier([said("simple", 0.5), said("moderate", 0.75), said("complex", 1.0)])
    assert (await cascade.classify(VIEW, consult)).label == "moderate"
    assert consult.consulted == ["simple", "moderate"]


async def test_members_are_asked_through_the_consult(desk):
    """So that the cacheable ones are cached, and each is traced."""
    consult = desk(Classification("complex", 0.9, "claude"))
    opinion = await default_classifier().classify(View("Hello there"), consult)
    assert opinion.source == "claude"
    assert consult.consulted == ["local", "keyword", "signal", "claude"]


async def test_of_unsure_opinions_the_most_confident_is_given(desk):
    """The Router has a rule for doubt, and needs the doubt to apply it."""
    cascade = CascadeClassifier([said("simple", 0.3), said("complex", 0.6), said("moderate", 0.5)])
    assert await cascade.classify(VIEW, desk()) == Classification("complex", 0.6, "local", 0, "as it is")


async def test_of_equal_opinions_the_later_is_given(desk):
    """Members are in the order of what they cost, and so of what they know."""
    cascade = CascadeClassifier([said("simple", 0.6), said("complex", 0.6)])
    assert (await cascade.classify(VIEW, desk())).label == "complex"


async def test_a_sure_opinion_wins_over_a_more_confident_name(desk):
    """What was unsure before is forgotten once one is sure."""
    cascade = CascadeClassifier([said("simple", 0.4), said("complex", 0.5)], sure=0.5)
    assert (await cascade.classify(VIEW, desk())).label == "complex"


async def test_nobody_with_an_opinion_is_no_opinion(desk):
    """Silence is not simple."""
    assert await CascadeClassifier([Said("a", None), Said("b", None)]).classify(VIEW, desk()) is None


async def test_what_was_paid_for_is_counted(desk):
    """Also for the opinions that were not taken."""
    cascade = CascadeClassifier([said("simple", 0.6, cost=30), said("complex", 0.5, cost=12)])
    opinion = await cascade.classify(VIEW, desk())
    assert (opinion.label, opinion.cost, opinion.reason) == ("simple", 42, "as it is")


async def test_a_member_that_fails_is_passed_over(desk):
    """The reason names it and the kind of error, and not its message, which may quote the prompt."""
    cascade = CascadeClassifier([Said("mine", ValueError("secret prompt")), said("complex", 0.9)])
    opinion = await cascade.classify(VIEW, desk())
    assert (opinion.label, opinion.reason) == ("complex", "as it is; mine failed: ValueError")


async def test_a_failure_is_raised_where_there_is_no_opinion(desk):
    """So that the Router can say why there is none."""
    with pytest.raises(ValueError, match="first"):
        await CascadeClassifier(
            [Said("a", ValueError("first")), Said("b", None), Said("c", TypeError("second"))]
        ).classify(VIEW, desk())


@pytest.mark.parametrize(
    ("members", "sure", "culprit"),
    [
        ([], 0.75, "no members"),
        ([FixedClassifier("simple"), "keyword"], 0.75, "member 1 is 'keyword'"),
        ([FixedClassifier], 0.75, "member 0 is <class"),
        ([FixedClassifier("simple")], 1.5, "sure=…\\) is 1.5"),
        ([FixedClassifier("simple")], float("nan"), "sure=…\\) is nan"),
    ],
)
def test_what_cannot_work_is_named(members, sure, culprit):
    """Mistakes come up at start-up."""
    with pytest.raises(ConfigurationError, match=culprit):
        CascadeClassifier(members, sure)


def test_the_fingerprint_follows_members_and_threshold():
    """A cascade of others, or with another idea of sure, is another classifier."""
    one, two = FixedClassifier("simple"), FixedClassifier("complex")
    made = [CascadeClassifier([one]), CascadeClassifier([one, two]), CascadeClassifier([two, one])]
    made.append(CascadeClassifier([one], sure=0.5))
    assert len({cascade.fingerprint for cascade in made}) == 4
    assert CascadeClassifier([one]).fingerprint == CascadeClassifier([FixedClassifier("simple")]).fingerprint


def test_a_cascade_is_not_cached_itself():
    """Its rules are free, and its verdicts are cached one by one."""
    assert not default_classifier().cacheable


def test_what_a_member_knows_for_certain():
    """The rule of the first member that has one; those without one are not asked."""
    rules = KeywordClassifier(complex=["chargeback"])
    cascade = CascadeClassifier([said("simple", 1.0), KeywordClassifier(), rules])
    assert cascade.certain(View("A chargeback")).label == "complex"
    assert cascade.certain(View("Prove it")) is None
    assert CascadeClassifier([cascade]).certain(View("A chargeback")).label == "complex"


async def test_each_member_knows_how_sure_the_best_is(desk):
    """What a question is worth depends on the doubt that is left."""
    consult = desk()
    heard = []

    async def consulted(classifier, view, sure=0.0):
        heard.append(sure)
        return await classifier.classify(view, consult)

    consult.consult = consulted
    await CascadeClassifier([said("simple", 0.6), Said("none", None), said("complex", 0.5), said("x", 0.7)]).classify(
        VIEW, consult
    )
    assert heard == [0.0, 0.6, 0.6, 0.6]
