"""Whether a text is made of words at all: what is not is unlike anything that weights were trained on.

Base64, keys and random letters fall into the buckets of words as words do, and every bucket is taken: the weights
themselves cannot tell. Two signs can, in a few microseconds:

- hardly a blank in it, and not of a script that is split into its characters
- letters beside each other that are so in hardly any word of a language in Latin letters, time and again
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tierline.features import Reading

_BLANK_IN: Final = 28
"""Of so many characters, one is a blank or a line's end. In prompts of benchmarks more are, formulas among them."""
_START: Final = 400
"""Bytes in which letters are looked at."""
_BEFORE_Q: Final = frozenset("bdfghjkmptvwxz")
_AFTER_Q: Final = frozenset("bcdfghjkmnpstvwyz")
_BEFORE_X: Final = frozenset("fghjqvwz")
_AFTER_X: Final = frozenset("vwz")
_OTHERS: Final = ("fv", "fw", "fz", "jv", "jw", "jz")
"""Of pairs of random letters, one in fourteen. Formulas have `dx`, `bx`, `sqrt`, French `cq`, `rq`, pinyin `qi`."""
_SHARE: Final = 40
"""So many bytes for each such pair are too few for a text of words."""
_FEW: Final = 2
"""A pair or two may be in any: an abbreviation, a name."""


def is_prose(reading: Reading) -> bool:
    """Whether a text may be made of words."""
    raw = reading.raw
    if (raw.count(b" ") + raw.count(b"\n") + 1) * _BLANK_IN < reading.looked:
        return False
    start = raw[:_START].decode("latin-1")
    unheard = (
        _beside(start, "q", _BEFORE_Q, _AFTER_Q)
        + _beside(start, "x", _BEFORE_X, _AFTER_X)
        + sum(map(start.count, _OTHERS))
    )
    return unheard <= _FEW or unheard * _SHARE < len(start)


def _beside(text: str, letter: str, before: frozenset[str], after: frozenset[str]) -> int:
    """How often the letter stands behind one of those before it, and before one of those after it."""
    parts = text.split(letter)
    if len(parts) == 1:
        return 0
    return sum([part[-1:] in before for part in parts[:-1]]) + sum([part[:1] in after for part in parts[1:]])
