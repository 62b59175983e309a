"""A constant, as a classifier."""

from __future__ import annotations

import pytest

from tierline.classify import FixedClassifier, View
from tierline.errors import ConfigurationError
from tierline.values import Classification


async def test_it_says_what_it_was_told(desk):
    """Of everything, and for nothing."""
    assert await FixedClassifier("complex", 0.4).classify(View("x"), desk()) == Classification("complex", 0.4, "fixed")
    assert (await FixedClassifier("simple").classify(View("y"), desk())).confidence == 1.0


@pytest.mark.parametrize(("label", "confidence"), [("", 1.0), (None, 1.0), ("simple", 2), ("simple", True)])
def test_a_constant_that_is_no_opinion_is_refused(label, confidence):
    """A label is a word and a confidence a number from 0 to 1."""
    with pytest.raises(ConfigurationError):
        FixedClassifier(label, confidence)


def test_its_fingerprint_is_its_answer():
    """Another answer is another classifier."""
    assert FixedClassifier("simple").fingerprint != FixedClassifier("simple", 0.5).fingerprint
