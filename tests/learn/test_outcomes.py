"""Outcomes as an app says them."""

from __future__ import annotations

import pytest

from tierline.errors import ConfigurationError
from tierline.learn import Outcome


def test_outcome_takes_grades() -> None:
    """An outcome is good, or not, or something between."""
    assert Outcome("/answer", "Are you open?", "haiku", good=True).good is True
    assert Outcome("/answer", "Are you open?", "haiku", good=0.4).weight == 1.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"route": ""}, "route"),
        ({"route": 3}, "route"),
        ({"tier": ""}, "tier"),
        ({"source": ""}, "source"),
        ({"text": b"bytes"}, "text"),
        ({"good": 1.2}, "good"),
        ({"good": "yes"}, "good"),
        ({"good": float("nan")}, "good"),
        ({"tools": -1}, "tools"),
        ({"tools": True}, "tools"),
        ({"weight": 0}, "weight"),
        ({"weight": float("inf")}, "weight"),
        ({"weight": float("nan")}, "weight"),
    ],
)
def test_outcome_refuses_what_cannot_be(change: dict[str, object], said: str) -> None:
    """What cannot be is refused by the name of its field, before it can spoil what was learned."""
    fields: dict[str, object] = {"route": "/answer", "text": "Hi", "tier": "haiku", "good": True}
    with pytest.raises(ConfigurationError, match=said):
        Outcome(**{**fields, **change})  # type: ignore[arg-type]
