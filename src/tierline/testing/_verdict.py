"""A stand-in for what a small model says when it is asked how hard a request is.

It looks at length, code, the number of asks and a few words. It is no classifier and claims no accuracy: it gives
tests and demos an answer that differs between an easy and a hard text, and is the same every time.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_REASONING: Final = re.compile(
    r"\b(prove|derive|analy[sz]e|compare|trade-?offs?|design|architect\w*|optimi[sz]e|refactor|debug|diagnose|"
    r"step by step|explain why|evaluate|strateg\w+|implications?|negotiat\w+|liabilit\w+|legal|contract)\b",
    re.IGNORECASE,
)
_ASKS: Final = re.compile(r"\?|^\s*(?:[-*]|\d+[.)])\s", re.MULTILINE)
_CODE: Final = re.compile(r"```|\bdef \w+\(|\bclass \w+|[;{}]\s*$|\bSELECT\b.+\bFROM\b", re.MULTILINE)

_SHORT, _MEDIUM, _LONG = 60, 160, 800


def heuristic(text: str, labels: Sequence[str]) -> tuple[str, float]:
    """Return the label at the text's place on a scale from the first label (easiest) to the last, and a confidence.

    The confidence is between 0.6 and 0.95: lower the nearer the text is to the edge of its label.
    """
    points = min(len(set(map(str.lower, _REASONING.findall(text)))), 4) * 0.17
    points += min(max(len(_ASKS.findall(text)) - 1, 0), 5) * 0.07
    points += 0.2 if _CODE.search(text) else 0.0
    points += 0.5 if len(text) > _LONG else 0.35 if len(text) > _MEDIUM else 0.2 if len(text) > _SHORT else 0.0
    place = min(points, 0.999) * len(labels)
    index = int(place)
    depth = min(place - index, index + 1 - place) * 2 if index else 1 - place
    return labels[index], round(0.6 + 0.35 * max(0.0, min(depth, 1.0)), 2)
