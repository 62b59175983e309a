"""Weights of an app's own: they learn what can be learned, and say where nothing was."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierline.classify import LocalClassifier, View
from tierline.classify.training import FEWEST, Example, Words, fit
from tierline.errors import ConfigurationError
from tierline.evaluation.opinions import Offline
from tierline.features import hashed, read

SIMPLE = ("opening hours", "delivery address", "store location", "phone number", "price list")
MODERATE = ("refund request", "exchange of shoes", "late parcel", "missing invoice", "wrong colour")
COMPLEX = ("legal complaint", "contract dispute", "tax audit", "data breach", "supplier insolvency")
PLACES = ("Rome", "Oslo", "Lima", "Cairo", "Delhi", "Quito", "Turin", "Perth")


def made_up(count: int, seed: int) -> list[Example]:
    """Mails to a shop whose subject gives the label, one in twenty labelled wrongly."""
    random = Random(seed)  # noqa: S311
    examples = []
    for _ in range(count):
        label = random.choice(["simple", "simple", "moderate", "complex"])
        subject = random.choice({"simple": SIMPLE, "moderate": MODERATE, "complex": COMPLEX}[label])
        text = f"A customer from {random.choice(PLACES)} writes to us about {subject}, on day {random.randrange(30)}."
        given = random.choice(["simple", "moderate", "complex"]) if random.random() < 0.05 else label
        examples.append(Example(text, given))
    return examples


TRAINED = fit(made_up(200, 1))


def test_what_was_learned_beats_the_majority():
    """On mails that it has not seen, it finds what the subject says."""
    classifier = LocalClassifier(TRAINED)
    unseen = made_up(200, 2)
    found = [classifier.probabilities(example.text) for example in unseen]
    right = sum(max(p, key=p.__getitem__) == example.label for p, example in zip(found, unseen, strict=True))
    majority = max(sum(example.label == label for example in unseen) for label in ("simple", "moderate", "complex"))
    assert right > majority + 40
    assert right >= 170


def test_the_same_examples_give_the_same_weights(tmp_path):
    """And the file gives the same classifier."""
    again = fit(made_up(200, 1))
    assert again.version == TRAINED.version
    path = tmp_path / "mine.weights"
    path.write_bytes(again.pack())
    assert LocalClassifier(path).fingerprint == LocalClassifier(TRAINED).fingerprint
    assert fit(made_up(200, 3)).version != TRAINED.version


async def test_its_own_weights_say_the_likeliest_label():
    """As sure as it is likely, and with no word of the text."""
    classifier = LocalClassifier(TRAINED)
    text = "A customer from Oslo writes to us about tax audit, on day 3."
    found = await classifier.classify(View(text), Offline())
    assert found.label == "complex"
    assert found.confidence == max(classifier.probabilities(text).values())
    assert "audit" not in found.reason


def test_words_that_were_not_there_leave_the_usual():
    """A text in words that no example had is labelled as examples usually were."""
    classifier = LocalClassifier(TRAINED)
    opinion = classifier.opinion("Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich")
    assert opinion.familiarity < 0.3
    known = classifier.opinion("A customer from Rome writes to us about data breach, on day 9.")
    assert known.familiarity == 1
    assert max(known.probabilities.values()) > max(opinion.probabilities.values())


def test_how_words_begin_is_learned():
    """A word that no example had is known by those that begin like it."""
    endings = ("ed", "ing", "s", "ation", "able", "er")
    stems = {"simple": ("deliver", "present"), "complex": ("terminat", "litigat")}
    examples = [
        Example(f"Please look at what was {stem}{ending} on day {day}", label)
        for label, those in stems.items()
        for stem in those
        for ending in endings[:-1]
        for day in (1, 2)
    ]
    unseen = {label: [f"Please look at what was {stem}er on day 1" for stem in those] for label, those in stems.items()}
    with_them, without = (LocalClassifier(fit(examples, beginnings=sizes)) for sizes in ((4, 6), ()))
    for label, texts in unseen.items():
        for text in texts:
            assert with_them.probabilities(text)[label] > 0.7
            assert without.probabilities(text)[label] < 0.6


def test_a_word_weighs_as_much_as_unseen_texts_bear_out():
    """Much where labels follow the words without an exception, little where they follow nothing."""
    words = {"simple": SIMPLE, "moderate": MODERATE, "complex": COMPLEX}
    exact = [
        Example(f"A mail from {place} about {subject}", label)
        for label, subjects in words.items()
        for subject in subjects
        for place in PLACES
    ]
    random = Random(7)  # noqa: S311
    blind = [example._replace(label=random.choice(["simple", "moderate", "complex"])) for example in exact]
    assert fit(exact).about["penalty"] == 1
    assert fit(blind).about["penalty"] == 100
    assert fit(exact).about["likelihood"] > fit(blind).about["likelihood"]


def test_what_is_kept_of_a_request_is_the_same_by_all_weights():
    """Routes learn of words and pairs, whatever else weights of an app's own read."""
    text = "A customer from Oslo writes to us about delivery address, on day 3."
    found, _ = LocalClassifier(TRAINED).weigh(text)
    assert found.buckets == hashed(read(text))
    assert found.read > len(found.buckets)


@pytest.mark.parametrize("beginnings", [None, 4, [0], ["4"], [True]])
def test_weights_that_do_not_say_what_they_read_are_refused(tmp_path, beginnings):
    """Without the sizes of the beginnings, words would be read wrongly."""
    path = tmp_path / "other.weights"
    path.write_bytes(replace(TRAINED, about={**TRAINED.about, "beginnings": beginnings}).pack())
    with pytest.raises(ConfigurationError, match="train them again"):
        LocalClassifier(path)


def test_tools_can_be_learned():
    """How many are offered is a number like the others."""
    examples = [Example("Help me with this", "complex" if at % 2 else "simple", 5 * (at % 2)) for at in range(60)]
    classifier = LocalClassifier(fit(examples))
    assert classifier.probabilities("Help me with this", 5)["complex"] > 0.7
    assert classifier.probabilities("Help me with this", 0)["simple"] > 0.7


def test_labels_have_an_order():
    """What follows the length alone is found between and beyond the lengths that were seen, in the right order."""
    lengths = [("simple", range(1, 10)), ("moderate", range(15, 24)), ("complex", range(30, 39))]
    examples = [Example("word " * count, label) for label, counts in lengths for count in counts for _ in range(3)]
    classifier = LocalClassifier(fit(examples))
    found = [classifier.probabilities("word " * count) for count in (2, 19, 36, 200)]
    assert [max(each, key=each.__getitem__) for each in found] == ["simple", "moderate", "complex", "complex"]
    needs = [each["complex"] + each["moderate"] / 2 for each in found]
    assert needs == sorted(needs)


def test_a_label_that_nobody_gave_is_not_given():
    """Of two labels the third is next to impossible, whichever it is."""
    for missing in ("simple", "moderate", "complex"):
        examples = [example for example in made_up(120, 4) if example.label != missing]
        found = LocalClassifier(fit(examples)).probabilities(examples[0].text)
        assert found[missing] < 0.05
        assert sum(found.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("examples", "culprit"),
    [
        ([Example("x", "simple")] * (FEWEST - 1), "too few"),
        ([Example("x", "simple")] * 30, "all texts are labelled 'simple'"),
        ([Example("x", "simple"), Example("x", "hard")] * 30, "'hard' is no label"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(examples, culprit):
    """With what to do about it."""
    with pytest.raises(ConfigurationError, match=culprit):
        fit(examples)


@given(
    st.lists(st.sets(st.integers(0, 12)), min_size=1, max_size=12),
    st.lists(st.floats(-5, 5), min_size=12, max_size=12),
)
def test_words_that_stand_in_the_same_texts_are_one(texts, drawn):
    """Being taken together changes nothing of what they come to, nor of what each weighs."""
    pulls = drawn[: len(texts)]
    words = Words([sorted(text) for text in texts])
    weights = {
        word: sum(p for text, p in zip(texts, pulls, strict=True) if word in text) for word in set().union(*texts)
    }
    assert words.weights(pulls) == pytest.approx(weights)
    assert words.shared(pulls) == pytest.approx([sum(weights[word] for word in text) for text in texts])


def test_any_text_can_be_learned_from():
    """Empty ones and lone surrogates too."""
    examples = [Example(text, label) for text, label in (("", "simple"), ("\ud800", "moderate"), ("a", "complex"))] * 10
    assert sum(LocalClassifier(fit(examples)).probabilities("").values()) == pytest.approx(1)
