"""`policy(escalate=…)`: what it may be, how several combine, and what an object shows."""

from __future__ import annotations

from typing import Any

import pytest

from tierline import Ladder, policy
from tierline.errors import ConfigurationError
from tierline.escalation import Escalate
from tierline.policies import combine

LADDER = Ladder.of(a="claude-haiku-4-5", b="claude-opus-4-8")


@pytest.mark.parametrize(
    "given",
    [
        {"json": 1}, {"graded": None}, {"schema": 1}, {"schema": "no JSON"}, {"schema": "[]"},
        {"schema": {"a": object()}},
        {"phrases": "x"}, {"phrases": ("",)}, {"phrases": (1,)}, {"min_confidence": 1.1}, {"min_confidence": True},
        {"min_confidence": float("nan")}, {"confidence_field": ""}, {"check": 1}, {"check_timeout": 0},
        {"threshold": 1},
        {"threshold": 6}, {"threshold": 2.5}, {"hold": -1}, {"hold": 4_001}, {"hold": True}, {"check_timeout": None},
    ],
)  # fmt: skip
def test_what_cannot_be(given: dict[str, Any]) -> None:
    """Each value that cannot be is refused at once, and the error names it."""
    with pytest.raises(ConfigurationError, match=next(iter(given))):
        Escalate(**given)


def test_a_check_that_cannot_be_hashed() -> None:
    """A policy is hashable, and so all that is in it must be."""

    class Odd:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, message: Any) -> bool:
            return True

    with pytest.raises(ConfigurationError, match="hashable"):
        Escalate(check=Odd())


def test_equal_and_hashable() -> None:
    """The same rules are equal, whatever the order in which a schema is written, and only what was changed is shown."""
    one, other = Escalate(schema={"a": 1, "b": 2}), Escalate(schema={"b": 2, "a": 1})
    assert one == other == Escalate(schema='{"b": 2, "a": 1}')
    assert len({one, other, Escalate()}) == 2
    assert repr(Escalate(graded=True, hold=0)) == "Escalate(graded=True, hold=0)"
    assert hash(policy(escalate=one)) == hash(policy(escalate=other))


@pytest.mark.parametrize("value", [1, 0, "yes", {}, ()])
def test_policies_that_cannot_be(value: Any) -> None:
    """Anything but True, False and an Escalate is refused."""
    with pytest.raises(ConfigurationError, match="escalate"):
        policy(escalate=value)


def test_the_innermost_holds() -> None:
    """As for labels: the innermost policy that says anything says it all."""
    mine = Escalate(graded=True)
    for rules, expected in (
        ([], None),
        ([policy(escalate=True)], Escalate()),
        ([policy(escalate=True), policy(floor="b")], Escalate()),
        ([policy(escalate=True), policy(escalate=mine)], mine),
        ([policy(escalate=mine), policy(escalate=False)], None),
        ([policy(escalate=False), policy(escalate=True)], Escalate()),
    ):
        assert combine(rules, LADDER).escalate == expected
