"""What was seen lately, and no more of it than there is room for."""

from __future__ import annotations

from tierline.recent import Recent


def test_recent_is_bounded() -> None:
    """What was used longest ago makes room."""
    kept: Recent[str, int] = Recent(2)
    for number, key in enumerate("ab"):
        kept.keep(key, number)
    assert kept.find("a") == 0
    kept.keep("c", 2)
    assert (kept.find("a"), kept.find("b"), kept.find("c")) == (0, None, 2)
