from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from tierline.batches import BatchRequest
from tierline.call import read_call
from tierline.classify import View
from tierline.classify.base import Question
from tierline.classify.cache import About
from tierline.classify.comparison import Comparison
from tierline.classify.rating import Rating
from tierline.classify.training import Example
from tierline.escalation.answers import Answer, wanted_by
from tierline.features import read
from tierline.learn import Outcome
from tierline.legality import Fit
from tierline.values import Offer
from tierline.veil import veiled

CANARY = "canaryprompt"
BODY: Any = {
    "model": "auto", "max_tokens": 5, "system": CANARY, "messages": [{"role": "user", "content": CANARY}],
    "output_format": {"type": "json_schema", "schema": {"const": CANARY}},
}  # fmt: skip


@pytest.mark.parametrize(
    "made",
    [
        read_call("create", BODY), View(CANARY, context=CANARY), Question(CANARY, ("a", "b"), "Which?", context=CANARY),
        About(View(CANARY), "acme", "f", "1"), Rating(CANARY, CANARY), Comparison(CANARY, CANARY, CANARY),
        wanted_by(BODY), Answer(CANARY), Offer("a", "m", 1, changes={"system": CANARY}), Fit({"system": CANARY}),
        BatchRequest("1", BODY), Outcome("/a", CANARY, "haiku", True), Example(CANARY, "simple"), read(CANARY),
    ],
    ids=lambda made: type(made).__name__,
)  # fmt: skip
def test_no_repr_has_a_text(made: Any) -> None:
    """What carries a prompt or an answer through Tierline says so in no log line, no message and no traceback."""
    assert CANARY not in f"{made!r} {made} {[made]}"
    assert type(made).__name__ in repr(made)


def test_what_is_not_hidden_is_shown() -> None:
    """An empty field is seen to be empty, and a long value is cut."""

    @veiled("text")
    class Pair(NamedTuple):
        text: str
        other: str

    @veiled("text")
    @dataclass(frozen=True, slots=True)
    class Frozen:
        text: str | None
        other: str

    assert repr(Pair("", "x" * 500)) == f"Pair(text='', other='{'x' * 199})"
    assert repr(Frozen(None, "x")) == "Frozen(text=None, other='x')"
    assert repr(Frozen("secret", "x")) == "Frozen(text=…, other='x')"
    assert Frozen("a", "b") == Frozen("a", "b")


def test_a_field_that_is_not_there() -> None:
    """A name that is misspelled hides nothing, so it is an error."""
    with pytest.raises(TypeError, match="no fields"):

        @veiled("txet")
        class Pair(NamedTuple):
            text: str
