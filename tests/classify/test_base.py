"""The contract of a classifier, and the checks that its parts share."""

from __future__ import annotations

import pytest

import tierline.classify
from tierline.classify import Classifier, FixedClassifier, KeywordClassifier, Question, SignalClassifier
from tierline.classify.base import check_confidence, fingerprint_of, members_fingerprint
from tierline.errors import ConfigurationError


def test_everything_that_is_public_can_be_imported():
    """Each name in `__all__` is there."""
    for name in tierline.classify.__all__:
        assert getattr(tierline.classify, name)


@pytest.mark.parametrize("labels", [(), ("",), ("a", " A "), ("a", 1), ["a", "b"], "ab"])
def test_a_question_needs_labels_that_differ(labels):
    """A set of answers that cannot be told apart is a mistake in the app, and said so."""
    with pytest.raises(ConfigurationError, match="label"):
        Question("text", labels, "say which")


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), True, "0.5", None])
def test_a_confidence_is_a_number_from_0_to_1(value):
    """Whatever else is written as a confidence is named."""
    with pytest.raises(ConfigurationError, match=r"sure is .*0 to 1"):
        check_confidence("sure", value)


def test_the_default_classifiers_fit_the_protocol():
    """A classifier is recognised by what it has, not by what it inherits."""
    for classifier in tierline.classify.default_classifier().members:
        assert isinstance(classifier, Classifier)
    assert not isinstance(object(), Classifier)


def test_a_fingerprint_is_stable_and_tells_its_parts_apart():
    """Parts do not run into each other, and the same parts give the same digest in every process."""
    assert fingerprint_of("a", "bc") != fingerprint_of("ab", "c")
    assert fingerprint_of("a", ("b", 1)) == fingerprint_of("a", ("b", 1)) == "020d9bc07539d18a"
    assert fingerprint_of("\ud800") != fingerprint_of("?")


def test_the_fingerprint_of_members_is_in_their_order():
    """A cascade in another order is another classifier."""
    first, second = FixedClassifier("simple"), FixedClassifier("complex")
    assert members_fingerprint([first, second]) != members_fingerprint([second, first])


def test_fingerprints_differ_between_kinds_and_configurations():
    """A changed rule is never answered from what an older rule said."""
    made = [KeywordClassifier(), KeywordClassifier(simple=["a"]), SignalClassifier(), SignalClassifier(many_tools=4)]
    assert len({classifier.fingerprint for classifier in made}) == len(made)
