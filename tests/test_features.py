"""What is read of a text: total, bounded, the same everywhere, and what it says of leaning turns."""

from __future__ import annotations

from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierline.features import BUCKETS, LOOK, NAMES, WIDTH, begun, dense, hashed, read

TEXTS = st.text(max_size=300) | st.text(alphabet=st.characters(), max_size=60)
MEGABYTES = ["a" * 10**6, "word " * 200_000, "\ud800" * 10**6, "7" * 10**6, "中" * 10**6, "?\n" * 500_000, "\0" * 10**6]


def value(name: str, text: str, **given) -> float:
    return dense(read(text, **given))[NAMES.index(name)]


@given(TEXTS, st.integers(-1, 200), TEXTS, st.integers(0, 50))
def test_any_text_is_read(text, tools, context, turns):
    """Whatever a client sends, lone surrogates included, there are WIDTH finite numbers and buckets in range."""
    reading = read(text, tools, context, turns)
    numbers = dense(reading)
    assert len(numbers) == WIDTH
    assert all(isfinite(number) and 0 <= number < 50 for number in numbers)
    assert all(0 <= bucket < BUCKETS for bucket in hashed(reading) | begun(reading, (1, 4, 6)))


@pytest.mark.parametrize("text", MEGABYTES, ids=lambda text: repr(text[:2]))
def test_a_megabyte_is_cut(text):
    """No more than LOOK characters are looked at, and the numbers still know the whole length."""
    reading = read(text)
    assert reading.looked == LOOK
    assert reading.length == 10**6
    assert len(hashed(reading)) <= 2 * LOOK
    assert len(dense(reading)) == WIDTH


def test_start_and_end_are_both_looked_at():
    """Instructions stand at either end of a long text, data between."""
    reading = read("translate " + "x " * LOOK + "into yaml")
    assert reading.words[0] == b"translate"
    assert reading.words[-1] == b"yaml"


def test_the_buckets_of_a_text_never_change():
    """Weights and stores rest on them: in every process, machine and version."""
    assert sorted(hashed(read("What is 17 + 25?"))) == [
        5280, 5837, 12898, 12929, 16912, 34025, 38445, 49840, 55155, 58007, 64629,
    ]  # fmt: skip


def test_the_buckets_of_beginnings_never_change():
    """Weights of an app's own rest on them."""
    assert sorted(begun(read("Ordering 12 dishes?"), (4, 6))) == [7151, 10324, 59273]


def test_words_have_their_beginnings_in_common():
    """What is longer than a beginning has it, in whatever case; numbers, marks and short words have none."""
    orders, ordering = (begun(read(text), (4,)) for text in ("Orders", "my ordering"))
    assert orders == ordering
    assert orders != begun(read("orders"), (5,))
    assert not begun(read("the 12345678 -------- 订单"), (4,))


def test_numbers_are_known_by_their_length():
    """Which number it is says nothing; how long it is does."""
    assert hashed(read("add 12 and 345")) == hashed(read("add 99 and 100"))
    assert hashed(read("add 12 and 345")) != hashed(read("add 12 and 3456"))


def test_the_order_of_words_counts():
    """Two words that change places are another pair."""
    assert hashed(read("dog bites man")) != hashed(read("man bites dog"))


@pytest.mark.parametrize(
    "text",
    ["yes", "do it", "and in French?", "et en français ?", "und auf Deutsch?", "y en español?", "да", "继续", "はい",
     "👍", "And make it shorter, please, and use bullet points", "но теперь короче, и без примеров, пожалуйста"],
)  # fmt: skip
def test_a_turn_that_goes_on_leans(text):
    """In the middle of a conversation it says little by itself, in whatever language."""
    assert read(text, context="Here is the plan.", turns=2).leans
    assert read(text, turns=2).leans
    assert not read(text).leans


def test_a_turn_that_says_what_it_wants_does_not_lean():
    """Being late in a conversation is not leaning."""
    assert not read("What is the capital of Peru and how many people live there?", turns=7).leans


def test_a_leaning_turn_is_read_with_what_it_leans_on():
    """After a plan with code, "do it" is about code; a turn that does not lean is read alone."""
    code = "def f(x):\n    return x == 1  # => True"
    assert value("code", "do it", context=code) > 0
    assert value("code", "do it") == 0
    full = "Write to the landlord that we shall move out in spring, and ask when the keys are due."
    assert hashed(read(full, context=code)) == hashed(read(full))


@pytest.mark.parametrize(
    ("name", "less", "more"),
    [
        ("length", "short", "rather longer than that"),
        ("digits", "twelve apples", "12 apples"),
        ("capitals", "abc def", "ABC DEF"),
        ("foreign", "strasse", "straße"),
        ("questions", "Who?", "Who? Where?"),
        ("code", "a word", "def f(): return {}"),
        ("maths", "x squared", "$x^2$"),
        ("choices", "one or two\n", "Which?\nA. one\nB. two"),
        ("list", "a, b\n", "Do:\n- a\n- b"),
        ("links", "get a", "get a and then b"),
        ("negations", "which is true", "which is not true"),
        ("opens_make", "the story", "write a story"),
        ("format", "an answer", "an answer as JSON"),
    ],
)
def test_each_number_sees_what_it_is_named_for(name, less, more):
    """A text with more of it has a larger number."""
    assert value(name, more) > value(name, less)


def test_tools_are_seen():
    """None, one, and several are three things."""
    assert [value("tools", "x", tools=count) for count in (0, 1, 3)] == [0, 1, 1]
    assert value("several_tools", "x", tools=3) > value("several_tools", "x", tools=1) == 0
