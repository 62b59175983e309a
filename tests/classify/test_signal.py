"""Shapes: what says something, and what says nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierline.classify import SignalClassifier, View
from tierline.errors import ConfigurationError

DEFAULT = SignalClassifier()
CODE = "```python\nprint(1)\n```"
PLAN = "Here is the plan:\n1. Split the store.\n2. Move it.\n3. Check it.\n4. Delete it.\n```sql\nBEGIN\n```"


async def opinion_of(view: View, classifier: SignalClassifier = DEFAULT) -> tuple[str, float] | None:
    opinion = await classifier.classify(view, None)
    if opinion is None:
        return None
    assert opinion.source == "signal"
    assert opinion.reason
    return opinion.label, opinion.confidence


async def test_a_shape_that_says_nothing_gives_no_opinion():
    """Being short is no sign of being simple."""
    assert await opinion_of(View("")) is None
    assert await opinion_of(View("Is P equal to NP?")) is None
    assert await opinion_of(View("word " * 200)) is None


async def test_one_tool_that_must_be_called_is_simple():
    """The shape of the answer is fixed before it is asked for."""
    assert await opinion_of(View("I live in Rome", tools=1, forced_tool=True)) == ("simple", 0.85)


@pytest.mark.parametrize("heavy", [{"documents": 1}, {"text": "word " * 400}])
async def test_a_forced_tool_over_much_text_is_not_sure(heavy):
    """Filling one form from many pages is not done at a glance."""
    view = View(**{"text": "x", "tools": 1, "forced_tool": True, **heavy})
    assert await opinion_of(view) == ("simple", 0.55)


async def test_one_of_many_tools_that_must_be_called_is_not_simple():
    """There is still a choice to make."""
    assert await opinion_of(View("x", tools=6, forced_tool=True)) == ("moderate", 0.55)


async def test_a_short_text_with_a_short_answer_is_simple():
    """The app's own word on the length of its answers is a sign."""
    assert await opinion_of(View("Is it open on Sunday?", expected_output=20)) == ("simple", 0.8)
    assert await opinion_of(View("word " * 100, expected_output=20)) is None


async def test_a_short_answer_is_not_an_easy_one():
    """A sign that leads up beside it leaves nobody sure."""
    assert await opinion_of(View(f"Does this halt?\n{CODE}", expected_output=20)) == ("moderate", 0.55)


@pytest.mark.parametrize(
    "view",
    [
        View(f"Look: {CODE}"),
        View("if (a == b) { return f(); } else { return g(); } // x => y"),
        View("What is $$x^2$$"),
        View("Do:\n- a\n- b\n- c\n- d"),
        View("Who? Where? Why?"),
        View("x", tools=1),
        View("x", images=2),
        View("x", documents=1),
        View("Tell me about all that we have said until now, please, and in order", turns=12),
        View("word " * 300),
    ],
)
async def test_one_sign_alone_is_middling(view):
    """It leads up from nothing, and not far; nobody is sure of it."""
    label, confidence = await opinion_of(view)
    assert label == "moderate"
    assert confidence < 0.6


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (View("x", expected_output=2_000), ("moderate", 0.55)),
        (View("x", tools=7, expected_output=2_000), ("complex", 0.8)),
        (View("x", documents=3, images=1), ("complex", 0.7)),
        (View(f"$$x$$ {CODE} a? b? c?\n- a\n- a\n- a\n- a", tools=9, documents=2), ("complex", 0.8)),
    ],
)
async def test_signs_add_up(view, expected):
    """Four points are sure, and more are no surer."""
    assert await opinion_of(view) == expected


async def test_reasons_name_signs_and_thresholds():
    """A reason says what was seen, and nothing that was written."""
    opinion = await DEFAULT.classify(View("secret? secret? secret?", tools=5), None)
    assert opinion.reason == "5 tools or more, several questions"


async def test_a_leaning_turn_is_judged_by_what_it_leans_on():
    """After a plan with code, "do it" is as hard as the plan; after small talk, nobody knows."""
    assert await opinion_of(View("do it", context=PLAN, turns=2)) == ("moderate", 0.55)
    assert await opinion_of(View("do it", context=PLAN, turns=12, tools=9)) == ("complex", 0.8)
    assert await opinion_of(View("do it", context="Shall I?", turns=2)) is None
    opinion = await DEFAULT.classify(View("do it", context=CODE, turns=2), None)
    assert opinion.reason == "leans on an answer with code"


async def test_only_a_short_turn_leans():
    """A turn that says what it wants is judged by itself."""
    text = "Now write to the landlord that we shall move out in spring, and ask when."
    assert await opinion_of(View(text, context=PLAN, turns=2)) is None


VIEWS = st.builds(
    View,
    text=st.text(max_size=80) | st.sampled_from([CODE, PLAN, "x" * 3_000]),
    context=st.sampled_from(["", "Sure.", CODE, PLAN]),
    turns=st.integers(1, 20),
    tools=st.integers(0, 10),
    forced_tool=st.booleans(),
    images=st.integers(0, 2),
    documents=st.integers(0, 3),
    max_tokens=st.integers(0, 10_000),
    expected_output=st.none() | st.integers(0, 5_000),
)


@given(VIEWS)
async def test_simple_needs_a_sign_of_it(view):
    """Whatever the view: simple only for one forced tool or a short expected answer, and the middle is never sure."""
    found = await opinion_of(view)
    if found is None:
        return
    label, confidence = found
    assert 0 < confidence < 1
    if label == "simple":
        assert (
            (view.tools == 1 and view.forced_tool) or (view.expected_output or 999) <= 100 or view.expected_output == 0
        )
    if label == "moderate":
        assert confidence < 0.6


async def test_thresholds_are_the_apps():
    """Each one moves what it names."""
    moved = SignalClassifier(
        short_text=2, long_text=8, leaning_text=1, short_output=5, long_output=9, many_tools=2, many_turns=2
    )
    assert await opinion_of(View("12345678"), moved) == ("moderate", 0.5)
    assert await opinion_of(View("1234", expected_output=5), moved) is None
    assert await opinion_of(View("1", expected_output=9), moved) == ("moderate", 0.55)
    assert await opinion_of(View("1", tools=2), moved) == ("moderate", 0.55)
    assert await opinion_of(View("12", turns=2), moved) == ("moderate", 0.5)


@pytest.mark.parametrize(
    ("given", "culprit"),
    [
        ({"many_tools": 0}, "many_tools=0"),
        ({"short_text": 1.5}, "short_text=1.5"),
        ({"many_turns": True}, "many_turns=True"),
        ({"leaning_text": "60"}, "leaning_text='60'"),
        ({"short_text": 1_500}, "short_text=1500 must be below long_text=1500"),
        ({"long_output": 50}, "short_output=100 must be below long_output=50"),
    ],
)
def test_thresholds_that_cannot_be_are_named(given, culprit):
    """A threshold that is no whole number above 0, or out of order, is a mistake at start-up."""
    with pytest.raises(ConfigurationError, match=culprit):
        SignalClassifier(**given)


class Watched(str):
    """A text that tells how much of it was looked at."""

    __slots__ = ("looked",)

    def __getitem__(self, part):
        cut = str.__getitem__(self, part)
        self.looked = len(cut)
        return cut

    def count(self, *_):
        raise AssertionError("the whole text was searched")

    __contains__ = count


@pytest.mark.parametrize("leaning", [False, True])
async def test_no_more_than_a_view_is_looked_at(leaning):
    """A view is short; one made by hand is cut before it is searched."""
    text = Watched("x" * 100_000)
    text.looked = 0
    await DEFAULT.classify(View("yes", context=text, turns=2) if leaning else View(text), None)
    assert text.looked == 4_200
