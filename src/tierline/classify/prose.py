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
_UNHEARD: Final = tuple(
    (one + other).encode()
    for ones, others in (("bdfghjkmptvwxz", "q"), ("fghjqvwz", "x"), ("q", "bcdfghjkmnpstvwyz"), ("fjx", "vwz"))
    for one in ones
    for other in others
)
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
    start = raw[:_START]
    unheard = sum(map(start.count, _UNHEARD))
    return unheard <= _FEW or unheard * _SHARE < len(start)
